//! Whether `tests/live/README.md` answers for every scenario of the catalogue of failures, once
//! each, and names tests that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// How many scenarios each section of the catalogue has.
const SECTIONS: [(char, u32); 6] =
    [('A', 22), ('B', 31), ('C', 22), ('D', 40), ('E', 17), ('F', 3)];

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The rows of the tables: the scenario's id, and the last column.
fn rows(text: &str) -> Vec<(String, String)> {
    let ids = ids();
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = cells.filter_map(|cells| {
        let (id, rest) = cells.split_once(" | ")?;
        let (_, answer) = rest.rsplit_once(" | ")?;
        ids.contains(id).then(|| (id.to_owned(), answer.to_owned()))
    });
    rows.collect()
}

fn ids() -> BTreeSet<String> {
    let of_section =
        |(section, last): (char, u32)| (1..=last).map(move |n| format!("{section}{n}"));
    SECTIONS.into_iter().flat_map(of_section).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Every test below these folders that is not ignored.
fn functions() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["src", "tests", "lab"] {
        read(&Path::new(ROOT).join(folder), &mut found);
    }
    found
}

fn read(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.extend(run_by_cargo(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The names of the functions that cargo runs as tests.
fn run_by_cargo(text: &str) -> Vec<String> {
    let (mut marked, mut ignored, mut names) = (false, false, Vec::new());
    // Of an attribute on several lines.
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if inside {
            inside = line != ")]";
            continue;
        }
        let attribute = line.strip_prefix("#[").map(|rest| {
            inside = line.ends_with('(');
            let end = rest.find(['(', ']', ' ', '=']).unwrap_or(rest.len());
            rest.split_at(end).0
        });
        match attribute {
            Some("test" | "tokio::test") => marked = true,
            Some("ignore") => ignored = true,
            // Other attributes and comments may stand between.
            Some(_) => {}
            None if line.starts_with("//") => {}
            None => {
                let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                let name = name.and_then(|rest| rest.split_once('(')).map(|(name, _)| name);
                names.extend(name.filter(|_| marked && !ignored).map(str::to_owned));
                (marked, ignored) = (false, false);
            }
        }
    }
    names
}

#[test]
fn only_what_cargo_runs_is_a_test() {
    let text = "#[test]\nfn one() {\n}\n\nfn helper() {\n}\n#[tokio::test(flavor = \"x\")]\n\
                // Why.\n#[expect(\n    dead_code,\n    reason = \"x\"\n)]\nasync fn two() {\n}\n\
                #[test]\n#[ignore = \"slow\"]\nfn three() {\n}\n#[test_case]\nfn four() {\n}\n";
    assert_eq!(run_by_cargo(text), ["one", "two"]);
}

/// The ids with which a test's name begins: `b7_b8_a_slot` is B7 and B8.
fn ids_of(name: &str) -> Vec<String> {
    let ids = ids();
    name.split('_').map(str::to_ascii_uppercase).take_while(|word| ids.contains(word)).collect()
}

#[test]
fn each_of_135_scenarios_has_a_test_or_a_reason() {
    let text = fs::read_to_string(Path::new(ROOT).join("tests/live/README.md")).unwrap();
    let (rows, functions) = (rows(&text), functions());
    let mut wrong = Vec::new();
    let mut answers: BTreeMap<&str, &str> = BTreeMap::new();
    for (id, answer) in &rows {
        if answers.insert(id, answer).is_some() {
            wrong.push(format!("{id} is there twice"));
        }
        let names = quoted(answer);
        for name in &names {
            if !functions.contains(*name) {
                wrong.push(format!("{id}: there is no test {name}"));
            }
        }
        if names.is_empty() && !answer.ends_with('.') {
            wrong.push(format!("{id} has neither a test nor a sentence: {answer}"));
        }
    }
    let expected = ids();
    assert_eq!(expected.len(), 135);
    for id in expected.iter().filter(|id| !answers.contains_key(id.as_str())) {
        wrong.push(format!("{id} is missing"));
    }
    // And the other way round: whoever changes such a test finds it in the list.
    for name in &functions {
        for id in ids_of(name) {
            if !answers.get(id.as_str()).is_some_and(|it| quoted(it).contains(&name.as_str())) {
                wrong.push(format!("{id} does not name {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "tests/live/README.md:\n{}", wrong.join("\n"));
}
