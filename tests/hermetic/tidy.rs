//! The rules of this tree, held by reading it. What clippy and rustfmt can hold is theirs.
//!
//! A rule that must be broken is changed here, with its reason, and not worked around.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const COLUMNS_MAX: usize = 100;
const FILE_LINES_MAX: usize = 500;

/// Names that say nothing: whatever is put there has a better home.
const EMPTY_NAMES: [&str; 7] = ["common", "helper", "helpers", "misc", "types", "util", "utils"];

/// What the code of some modules must not say. Comments may, and tests next to the code.
struct Ban {
    modules: &'static [&'static str],
    words: &'static [&'static str],
    reason: &'static str,
}

/// The pure core: bytes and time go in, records and answers come out.
const CORE: &[&str] = &[
    "src/config/cloudevents.rs",
    "src/config/message.rs",
    "src/config/outbox.rs",
    "src/connect",
    "src/connect.rs",
    "src/encode.rs",
    "src/feedback.rs",
    "src/frontier.rs",
    "src/journal.rs",
    "src/kafka/partition.rs",
    "src/kafka/routes.rs",
    "src/lsn.rs",
    "src/outbox.rs",
    "src/outbox",
    "src/past.rs",
    "src/pg/before.rs",
    "src/pg/copy.rs",
    "src/pg/fields.rs",
    "src/pg/frame.rs",
    "src/pg/known.rs",
    "src/pg/oid.rs",
    "src/pg/output.rs",
    "src/pg/preconditions.rs",
    "src/pg/response.rs",
    "src/pg/time.rs",
    "src/pipe.rs",
    "src/pipe",
    "src/position.rs",
    "src/properties.rs",
    "src/record.rs",
    "src/remedy.rs",
    "src/rewrite.rs",
    "src/schema.rs",
    "src/schema",
    "src/stall.rs",
    "src/template.rs",
    "src/verdict.rs",
];

const BANS: [Ban; 6] = [
    Ban {
        modules: CORE,
        words: &["tokio", "rdkafka", "tracing", "prometheus", "std::net", "std::fs"],
        reason: "the core does no input or output: tests drive it alone",
    },
    Ban {
        modules: CORE,
        words: &["SystemTime", "::now", "elapsed"],
        reason: "the core does not ask for the time; pass it in, so that a test can choose it",
    },
    Ban {
        modules: &["src/pg"],
        words: &["crate::kafka", "crate::outbox", "crate::relay", "crate::supervise"],
        reason: "pg speaks Postgres' protocol and knows nothing of what the rows mean",
    },
    Ban {
        modules: &["src/kafka"],
        words: &["crate::pg"],
        reason: "kafka carries records and does not know where they come from",
    },
    Ban {
        modules: &["src"],
        words: &["crate::relay", "walrelay::relay", "super::relay"],
        reason: "relay uses everything, so only supervise, which starts it, may use relay",
    },
    Ban {
        modules: &["src"],
        words: &["crate::{", "walrelay::{"],
        reason: "one `use` for each module, so that the rules about imports see them all",
    },
];

/// `(module, words)` that a [`Ban`] on its folder lets pass.
const EXCEPTIONS: [(&str, &str); 1] = [("src/supervise.rs", "crate::relay")];

/// What no file may hold, this one aside.
const NOWHERE: [(&str, &[&str]); 2] = [
    (
        "registries and mirrors are the reader's choice, made in the tools' own settings",
        &[
            "crates.io/",
            "index.crates.io",
            "static.crates.io",
            "maven.org",
            "maven.apache.org",
            "debian.org",
            "docker.io",
            "ghcr.io",
            "quay.io",
            "npmjs.org",
            "pypi.org",
            "proxy.golang.org",
        ],
    ),
    ("a path of somebody's machine is nobody else's", &["/root", "/work", "/home"]),
];

/// Written by tools, or the words of others.
const NOT_OURS: [&str; 2] = ["Cargo.lock", "LICENSE"];

/// Folders that hold what is built, fetched or found, never what is written.
const SKIPPED_FOLDERS: [&str; 3] = ["target", "corpus", "artifacts"];

/// The hidden folders that are part of the project; `.git` and an editor's are not.
const HIDDEN_FOLDERS: [&str; 2] = [".ci", ".github"];

/// One text file of the tree.
struct File {
    /// From the root, with `/`.
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|end| end == "rs")
    }

    fn is_test(&self) -> bool {
        let path = &self.path;
        path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("_tests.rs")
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    /// The lines outside `#[cfg(test)]` modules, which rustfmt ends with a `}` of their own column.
    fn lines_without_tests(&self) -> Vec<(usize, &str)> {
        let (mut lines, mut attribute, mut inside) = (Vec::new(), false, false);
        for (number, line) in self.lines() {
            match (inside, attribute) {
                (true, _) => inside = line != "}",
                (false, true) => (inside, attribute) = (line.ends_with('{'), false),
                (false, false) if line == "#[cfg(test)]" => attribute = true,
                (false, false) => lines.push((number, line)),
            }
        }
        lines
    }

    fn is_in(&self, module: &str) -> bool {
        self.path == module || self.path.starts_with(&format!("{module}/"))
    }
}

#[test]
fn lines_are_short() {
    let mut broken = Broken::default();
    for file in tree() {
        let end = Path::new(&file.path).extension().and_then(|end| end.to_str());
        let markdown = end == Some("md");
        let checked = matches!(end, Some("rs" | "toml" | "md" | "sh"))
            || matches!(file.path.as_str(), "Makefile" | "scripts/need" | ".ci/run");
        for (number, line) in file.lines().filter(|_| checked) {
            // Neither a link nor a checksum nor a row of a table can be broken in two.
            let unbreakable = line.contains("://")
                || line.split('"').any(|text| text.len() == 64)
                || (markdown && line.trim_start().starts_with('|'));
            let columns = line.chars().count();
            if columns > COLUMNS_MAX && !unbreakable {
                let what = format!("{columns} columns, over {COLUMNS_MAX}");
                broken.at(&file, number, &what, "two files fit next to each other");
            }
        }
    }
    broken.none();
}

#[test]
fn files_are_short() {
    let mut broken = Broken::default();
    for file in tree().iter().filter(|file| file.is_rust() && !file.is_test()) {
        let lines = file.lines_without_tests().len();
        if lines > FILE_LINES_MAX {
            let what = format!("{lines} lines without tests, over {FILE_LINES_MAX}");
            broken.at(file, lines, &what, "a file has one subject; find the second and move it");
        }
    }
    broken.none();
}

#[test]
fn modules_are_named_for_what_they_know() {
    let mut broken = Broken::default();
    for file in tree().iter().filter(|file| file.is_rust()) {
        for name in file.path.trim_end_matches(".rs").split('/') {
            if EMPTY_NAMES.contains(&name) {
                broken.at(file, 1, name, "a module is named for what it knows");
            }
        }
        for (number, line) in file.lines() {
            let declared = code(line).trim_end_matches([' ', '{']).rsplit_once("mod ");
            if let Some((_, name)) = declared
                && EMPTY_NAMES.contains(&name)
            {
                broken.at(file, number, name, "a module is named for what it knows");
            }
        }
    }
    broken.none();
}

#[test]
fn modules_keep_to_themselves() {
    let (files, mut broken) = (tree(), Broken::default());
    for ban in &BANS {
        for module in ban.modules {
            let mut found = files.iter().filter(|file| file.is_in(module)).peekable();
            assert!(
                found.peek().is_some(),
                "{module} is in a rule of this test but not in the tree"
            );
            for file in found.filter(|file| file.is_rust() && !file.is_test()) {
                for (number, line) in file.lines_without_tests() {
                    for word in ban.words {
                        let excepted = EXCEPTIONS.contains(&(file.path.as_str(), *word));
                        if says(code(line), word) && !excepted {
                            broken.at(file, number, word, ban.reason);
                        }
                    }
                }
            }
        }
    }
    broken.none();
}

#[test]
fn nothing_depends_on_one_machine() {
    let mut broken = Broken::default();
    for file in tree().iter().filter(|file| !file.path.ends_with("hermetic/tidy.rs")) {
        for (number, line) in file.lines() {
            for (reason, words) in NOWHERE {
                for word in words.iter().filter(|word| says(line, word)) {
                    broken.at(file, number, word, reason);
                }
            }
        }
    }
    broken.none();
}

#[test]
fn functions_are_short_by_clippys_count() {
    let clippy = read("clippy.toml");
    assert!(
        clippy.contains("too-many-lines-threshold = 70\n"),
        "clippy.toml: functions <= 70 lines"
    );
    let manifest = read("Cargo.toml");
    assert!(
        manifest.contains("\npedantic = "),
        "Cargo.toml: too_many_lines is one of clippy's pedantic"
    );
}

#[test]
fn the_changelog_tells_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let changelog = read("CHANGELOG.md");
    let told = changelog.lines().any(|line| {
        let title = line.strip_prefix("## ").unwrap_or_default();
        title.split(' ').next().is_some_and(|word| word.trim_matches(['[', ']']) == version)
    });
    assert!(told, "CHANGELOG.md has no `## {version}`: say what this version means to its users");
}

#[test]
fn the_rules_see_what_they_must() {
    assert!(says("use crate::relay::Relay;", "crate::relay"));
    assert!(!says("use crate::relay_log;", "crate::relay"), "another module");
    assert!(says("let now = Instant::now();", "::now"));
    assert!(says("COPY /home/me", "/home") && says("\"/root\"", "/root"));
    assert!(!says("$HOME/work/x and a/workspace", "/work"), "not from the root");
    assert_eq!(code("let x = 1; // crate::relay"), "let x = 1; ");
    assert_eq!(code("/// [`relay`](crate::relay)"), "");

    let text =
        "a\n#[cfg(test)]\nmod tests {\n    b\n}\nc\n#[cfg(test)]\nmod tests;\nd\n".to_owned();
    let file = File { path: "src/pg/x.rs".to_owned(), text };
    let kept: Vec<_> = file.lines_without_tests().into_iter().map(|(number, _)| number).collect();
    assert_eq!(kept, [1, 6, 9]);
    assert!(file.is_in("src/pg") && !file.is_in("src/p"));
}

/// Whether `line` has `word` as a whole: not the middle of a longer name or path.
fn says(line: &str, word: &str) -> bool {
    let name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        let ends_in_name = word.ends_with(name);
        let cut_before = match word.chars().next() {
            Some('/') => before.is_some_and(|c| name(c) || "/.}~)-".contains(c)),
            Some(':') => false,
            _ => before.is_some_and(name),
        };
        !(cut_before || ends_in_name && after.is_some_and(name))
    })
}

/// The line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// What was found, so that one run shows all of it.
#[derive(Default)]
struct Broken(String);

impl Broken {
    fn at(&mut self, file: &File, line: usize, what: &str, reason: &str) {
        writeln!(self.0, "{}:{line}: {what}: {reason}", file.path).unwrap();
    }

    fn none(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every text file that is ours.
fn tree() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                let hidden = name.starts_with('.') && !HIDDEN_FOLDERS.contains(&name.as_str());
                if !hidden && !SKIPPED_FOLDERS.contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if !NOT_OURS.contains(&name.as_str()) && name != ".git" {
                // A picture or a captured message is no text, and has no lines to judge.
                if let Ok(text) = fs::read_to_string(&path) {
                    let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                    files.push(File { path, text });
                }
            }
        }
    }
    assert!(files.len() > 50, "the tree has {} files only: is this its root?", files.len());
    files
}
