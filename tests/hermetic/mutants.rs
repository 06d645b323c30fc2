//! Whether the simulation would notice.
//!
//! Faults that relays have had, and some that this one could get, are planted in a copy of the
//! core, all of them in one program that can be told which one to have. With none, every schedule
//! of the simulation passes; with any, one of them fails soon. A mutant is a piece of text that
//! must stand in the tree exactly once, so that none can rot.
//!
//! Not among them: the columns of the connection before, kept although the connection is a new one.
//! Postgres announces each table anew before its first row, so that nothing follows from it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Schedules after which a mutant counts as not noticed.
const SCHEDULES_MAX: u64 = 100_000;

/// What is planted: its name, the file, the place with the expression between `«` and `»`, and
/// what stands there instead.
type Mutant = (&'static str, &'static str, &'static str, &'static str);

const MUTANTS: &[Mutant] = &[
    (
        "what is read is confirmed, in Kafka or not",
        "frontier.rs",
        "«Flush(self.confirmed)»",
        "Flush(match self.spans.back() {
            Some(Span { end: End::Commit(end), .. }) => *end,
            _ => self.confirmed,
        })",
    ),
    (
        "the highest ack counts, not the lowest that is missing",
        "frontier.rs",
        "«span.pending -= records»;",
        "{
            span.pending -= records;
            if let (0, End::Commit(end)) = (span.pending, span.end) {
                self.confirmed = self.confirmed.max(end);
            }
        }",
    ),
    (
        "the commit record is confirmed, not its end",
        "frontier.rs",
        "«span.end = End::Commit(end)»;",
        "span.end = End::Commit(commit)",
    ),
    (
        "a keepalive passes what is in flight",
        "frontier.rs",
        "Some(end) => «*end = lsn.max(*end)»,",
        "self.confirmed = self.confirmed.max(lsn)",
    ),
    (
        "rows go before it is written where their start begins",
        "journal.rs",
        "pub fn has_begun(&self) -> bool {\n        «self.own»",
        "true",
    ),
    (
        "a record that is too large is skipped",
        "pipe/offer.rs",
        "Err(Refused::Unsendable(..)) => {}
            }
        }
        «Step::Stuck(Stuck::Poison(poison))»",
        "self.handed_over(position, Form::Letter, 0, Step::Taken)",
    ),
    (
        "a table that was altered keeps its old columns",
        "outbox.rs",
        "«self.relations.insert(relation.oid, Bound { table, columns, plan })»;",
        "{
            self.relations.entry(relation.oid).or_insert(Bound { table, columns, plan });
            None
        }",
    ),
    (
        "that a server went back is forgotten, and by the next look it has grown",
        "past.rs",
        "self.known = Some((source.clone(), «PositionRecord { behind, ..record }»));",
        "{
            let _ = behind;
            record
        }",
    ),
    (
        "another timeline has the same epoch",
        "position.rs",
        "epoch.saturating_add(«self.timeline.saturating_sub(timeline).max(1)»)",
        "0",
    ),
    (
        "a row that finds the queue full is passed by the next one",
        "pipe/offer.rs",
        "Step::Taken),
                    Err(Refused::Full) => «Step::Full»,",
        "{
            if let Some(transaction) = &mut self.transaction {
                transaction.row += 1;
            }
            return Step::Taken;
        }",
    ),
    (
        "a pointer that finds the queue full is passed by the next row",
        "pipe/offer.rs",
        "Err(Refused::Full) => «return Step::Full»,
                // What else it has",
        "return self.handed_over(position, Form::Pointer, 0, Step::Taken)",
    ),
    (
        "a keepalive inside a transaction confirms it",
        "pipe.rs",
        "if «self.transaction.is_none()» {\n                    self.frontier.advance(end);",
        "true",
    ),
    (
        "the row after the last one is stepped over",
        "pipe.rs",
        "self.done.is_some_and(|done| «position <= done»)",
        "position <= Position { row: done.row + 1, ..done }",
    ),
    (
        "the last row is sent once more",
        "pipe.rs",
        "self.done.is_some_and(|done| «position <= done»)",
        "position < done",
    ),
    (
        "what a producer had in flight when it failed is not sent again",
        "pipe.rs",
        "«self.done = self.frontier.reached().inside»;",
        "()",
    ),
    (
        "a topic that has grown is used at once",
        "kafka/routes.rs",
        "if «!idle()» {\n                return Target::WaitUntilIdle;",
        "false",
    ),
    (
        "what was purged counts as acked",
        "frontier.rs",
        "«self.first += self.spans.len() as u64»;",
        "{
            self.first += self.spans.len() as u64;
            for span in &self.spans {
                if let End::Commit(end) = span.end {
                    self.confirmed = self.confirmed.max(end);
                }
            }
        }",
    ),
    (
        "a row too many counts as being in Kafka",
        "frontier.rs",
        "End::Cut => «self.inside = Some(last)»,",
        "self.inside = Some(Position { row: last.row + 1, ..last })",
    ),
    (
        "the first record of a partition does not go alone",
        "kafka/routes.rs",
        "Some(Opening::Asked) => «Target::Wait»,",
        "Target::Partition(Some(partition))",
    ),
    (
        "a broker is thought to know a producer for ever",
        "kafka/routes.rs",
        "Opening::Open { .. } => «Opening::Closed»,",
        "*opening",
    ),
    (
        "a position is confirmed before it is written",
        "journal.rs",
        "pub fn flush(&self) -> Flush {\n        «self.written.flush»",
        "self.pending.unwrap_or(self.written).flush",
    ),
    (
        "a position record that was lost is waited for",
        "journal.rs",
        "pub fn restart(&mut self) {\n        «self.pending = None»;",
        "()",
    ),
    ("a slot that was moved goes unnoticed", "position.rs", "if «slot > end» {", "false"),
    (
        "a server that is behind goes unnoticed",
        "position.rs",
        "if «server < read || record.inside.is_some_and(|row| server <= row.commit)» {",
        "false",
    ),
    (
        "a refusal is written once, arrived or not",
        "past.rs",
        "«record.behind.replace(server).is_none() || own»",
        "record.behind.replace(server).is_none()",
    ),
    (
        "a record that comes late takes back a refusal",
        "position.rs",
        "behind: «later.behind.or(self.behind)»,",
        "later.behind",
    ),
    (
        "a record that comes late takes back a position",
        "position.rs",
        "«self.end.max(later.end)»",
        "later.end",
    ),
    (
        "a record that comes late takes back rows",
        "position.rs",
        "if renumbered { later.inside } else { «self.inside.max(later.inside)» }",
        "later.inside",
    ),
    (
        "what a process knows counts as written",
        "past.rs",
        "let own = «written.as_ref() != Some(&record)»;",
        "false",
    ),
    (
        "a new timeline is read from where the old one was left behind",
        "position.rs",
        "let (from, epoch) = («record.end.min(switched)», ",
        "record.end",
    ),
    (
        "rows of a transaction that was lost hide those in its place",
        "position.rs",
        "record.inside.filter(|_| «!lost» && !renumbered)",
        "true",
    ),
    (
        "a process does not see that its slot was moved",
        "pg/before.rs",
        "if «self.system.is_none() || found <= expected» {",
        "true",
    ),
    (
        "a process does not see that its server went back",
        "pg/before.rs",
        "if «server < self.received» {",
        "false",
    ),
    (
        "a process does not see that a standby was promoted",
        "pg/before.rs",
        "if «known.timeline != system.timeline» {",
        "false",
    ),
    (
        "a warning that rows were left out is taken for a notice",
        "pg/response.rs",
        "warning if «warning.sqlstate == \"55000\"» => Beside::RowsSkipped(warning),",
        "false",
    ),
    (
        "an error that rows were left out is taken for a server that goes",
        "pg/response.rs",
        "missing if «missing.sqlstate == \"42704\"» => Beside::RowsSkipped(missing),",
        "false",
    ),
    (
        "a new connection goes on inside the old one's transaction",
        "pipe.rs",
        "self.encoder.forget_waiting();\n        «self.transaction = None»;",
        "()",
    ),
    (
        "a start goes by the slot although more is remembered",
        "position.rs",
        "Ok(Start { from: «end», inside, epoch, remark })",
        "slot",
    ),
];

/// The core and its simulation; what else is in the folder of these files is left out.
const MODULES: &str = r"
#![allow(warnings)]
mod config {
    mod cloudevents; mod message; mod outbox;
    pub use cloudevents::*; pub use message::*; pub use outbox::*;
}
mod connect;
mod encode;
mod feedback;
mod frontier;
mod journal;
mod kafka { pub mod partition; pub mod routes; }
mod lsn;
mod outbox;
mod past;
mod pg {
    pub mod before; pub mod copy; mod fields; pub mod frame; pub mod known; pub mod oid;
    pub mod output; pub mod response; pub mod table; pub mod time;
    pub use fields::Malformed;
}
mod pipe;
mod position;
mod properties;
mod record;
mod remedy;
mod rewrite;
mod schema {
    #[derive(Debug)]
    pub struct Schema;
    impl Schema {
        pub fn id(&self) -> u32 { 0 }
        pub fn encoding(&self) -> crate::config::Encoding { crate::config::Encoding::Avro }
        pub fn write(&self, _: &[u8], _: &mut Vec<u8>) -> Result<(), String> { Ok(()) }
    }
    pub fn other_kind(_: &str, _: &str, _: crate::config::Encoding) -> String { String::new() }
}
mod simulation;
mod template;
mod testing;
";

/// Plays schedules with each mutant, on two threads, until one fails. Says after how many.
const RUNNER: &str = r#"
thread_local!(static PLANTED: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) });

fn planted(mutant: usize) -> bool {
    PLANTED.get() == mutant
}

fn schedules(mutant: usize, max: u64) -> Option<u64> {
    PLANTED.set(mutant);
    (0..max).find(|seed| {
        let random = testing::Random::new(*seed);
        std::panic::catch_unwind(|| simulation::play(random)).is_err()
    })
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|it| it.parse::<u64>().unwrap());
    let (count, max) = (arguments.next().unwrap() as usize, arguments.next().unwrap());
    std::panic::set_hook(Box::new(|_| ()));
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| loop {
                // The last one is none.
                let mutant = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if mutant > count {
                    return;
                }
                let max = if mutant == count { max.min(5000) } else { max };
                match schedules(mutant, max) {
                    Some(schedules) => println!("{mutant} {schedules}"),
                    None => println!("{mutant} none"),
                }
            });
        }
    });
}
"#;

const MANIFEST: &str = r#"
[package]
name = "mutants"
version = "0.0.0"
edition = "2024"

[dependencies]
fancy-regex = { version = "0.20", default-features = false, features = ["std", "unicode"] }
postgres-protocol = { path = "postgres-protocol" }
serde_json = { version = "1", features = ["raw_value"] }
thiserror = "2"

[workspace]

[profile.dev]
opt-level = 1
debug = false
"#;

/// One function of it is used, by what the simulation does not use.
const PROTOCOL: &str = "
pub mod escape { pub fn escape_identifier(name: &str) -> String { name.to_owned() } }
";

#[test]
fn the_simulation_notices_every_mutant() {
    let program = build();
    let arguments = [MUTANTS.len().to_string(), SCHEDULES_MAX.to_string()];
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let outcome: BTreeMap<usize, Option<u64>> = lines
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(mutant, schedules)| (mutant.parse().unwrap(), schedules.parse().ok()))
        .collect();
    let (mut table, mut missed) = (String::new(), Vec::new());
    for (index, (name, ..)) in MUTANTS.iter().enumerate() {
        match outcome[&index] {
            Some(schedules) => writeln!(table, "{schedules:6}  {name}").unwrap(),
            None => missed.push(name),
        }
    }
    println!("{table}");
    assert_eq!(outcome[&MUTANTS.len()], None, "without any mutant a schedule fails");
    assert!(missed.is_empty(), "not noticed in {SCHEDULES_MAX} schedules: {missed:#?}");
}

/// Writes the program with all mutants in it, and compiles it. What it needs of others is kept
/// beside it, so that only a first run takes long.
fn build() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants");
    let mut files = BTreeMap::new();
    copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path(), "", &mut files);
    plant(&mut files);
    files.insert("main.rs".to_owned(), format!("{MODULES}{RUNNER}"));
    files.remove("lib.rs");
    let files = files.into_iter().map(|(path, text)| (format!("src/{path}"), text));
    let protocol = "[package]\nname = \"postgres-protocol\"\nversion = \"0.0.0\"\n";
    let others = [
        ("Cargo.toml", MANIFEST),
        ("Cargo.lock", include_str!("../../Cargo.lock")),
        ("postgres-protocol/Cargo.toml", protocol),
        ("postgres-protocol/src/lib.rs", PROTOCOL),
    ];
    let others = others.map(|(path, text)| (path.to_owned(), text.to_owned()));
    for (path, text) in files.chain(others) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // What is the same stays as it is, for cargo's sake.
        if fs::read_to_string(&path).ok() != Some(text.clone()) {
            fs::write(&path, text).unwrap();
        }
    }
    let target = folder.join("target");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--offline", "--quiet"]).current_dir(&folder);
    let output = cargo.env("CARGO_TARGET_DIR", &target).env_remove("RUSTFLAGS").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("debug/mutants")
}

/// Every source file below a folder, by its path there.
fn copy(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, fs::read_to_string(entry.path()).unwrap());
        }
    }
}

/// Puts each mutant next to what it takes the place of.
fn plant(files: &mut BTreeMap<String, String>) {
    // Of two mutants at one place, the second one stands inside of the first.
    let mut planted: Vec<(&str, &str, String)> = Vec::new();
    for (index, &(name, file, place, instead)) in MUTANTS.iter().enumerate() {
        let (before, rest) = place.split_once('«').unwrap();
        let (old, after) = rest.split_once('»').unwrap();
        let twin = planted.iter_mut().find(|(of, at, _)| (*of, *at) == (file, place));
        if let Some((.., text)) = twin {
            *text = format!("(if crate::planted({index}) {{ {instead} }} else {{ {text} }})");
            continue;
        }
        let found = files[file].matches(&format!("{before}{old}{after}")).count();
        assert_eq!(found, 1, "{name}: {place} stands {found} times in {file}");
        let text = format!("(if crate::planted({index}) {{ {instead} }} else {{ {old} }})");
        planted.push((file, place, text));
    }
    for (file, place, text) in planted {
        let (before, rest) = place.split_once('«').unwrap();
        let (old, after) = rest.split_once('»').unwrap();
        let source = files.get_mut(file).unwrap();
        *source =
            source.replace(&format!("{before}{old}{after}"), &format!("{before}{text}{after}"));
    }
}
