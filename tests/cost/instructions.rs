//! Instructions an event, counted by callgrind and compared with a budget.
//!
//! Seconds differ from run to run and from machine to machine; instructions do not. They are
//! those of the test profile, so that nothing has to be built for it: a budget is for seeing that
//! a change made the pipe slower, not for how fast it is. `cargo bench` says that.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::carry::{Null, ROWS, W1, W2, carry_all, config, pipe};

/// Enough that what is done once is not seen.
const PASSES: usize = 50;
/// What other inlining may change.
const TOLERANCE_PERCENT: u64 = 3;
/// Set to 1, it writes the budget.
const UPDATE: &str = "WALRELAY_UPDATE_BUDGET";

fn carry_often(bytes: &[u8]) {
    let config = config();
    for _ in 0..PASSES {
        let (mut pipe, mut sink) = (pipe(&config), Null::new());
        carry_all(&mut pipe, &mut sink, bytes);
        assert_eq!(sink.records, ROWS);
        assert!(pipe.frontier().is_idle() && pipe.frontier().open().is_none());
    }
}

#[test]
fn w1() {
    carry_often(W1);
}

#[test]
fn w2() {
    carry_often(W2);
}

#[test]
fn no_event_costs_more_than_its_budget() {
    let file = budget_file();
    let counted = ["w1", "w2"].map(|test| (test, instructions(test)));
    if std::env::var_os(UPDATE).is_some_and(|value| value == "1") {
        let lines = counted.map(|(test, count)| format!("{test} = {count}\n"));
        fs::write(&file, lines.concat()).unwrap();
    }
    let text = fs::read_to_string(&file).unwrap_or_default();
    let budget = |test: &str| {
        let of = |line: &str| line.strip_prefix(test)?.strip_prefix(" = ")?.parse::<u64>().ok();
        text.lines().find_map(of).unwrap_or(0)
    };
    let mut over = String::new();
    for (test, count) in counted {
        let budget = budget(test);
        println!("{test}: {count} instructions an event, {budget} in the budget");
        if count * 100 > budget * (100 + TOLERANCE_PERCENT) {
            writeln!(over, "{test} takes {count} instructions an event, not {budget}").unwrap();
        }
    }
    assert!(
        over.is_empty(),
        "{over}If the change is worth it, or the compiler is another one: \
         {UPDATE}=1 cargo test --test cost, and commit {}",
        file.display()
    );
}

/// Each kind of processor has instructions of its own.
fn budget_file() -> PathBuf {
    let name = format!("tests/cost/budget-{}.txt", std::env::consts::ARCH);
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs one of the tests above under callgrind, which counts inside `carry_all` alone.
fn instructions(test: &str) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*carry_all*"])
        .arg("--callgrind-out-file=/dev/null")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("instructions::{test}"), "--test-threads=1"])
        .output()
        .expect("valgrind counts the instructions; on Debian: apt-get install valgrind");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let collected = said.lines().find_map(|line| line.split("Collected :").nth(1));
    let collected: u64 = collected.and_then(|count| count.trim().parse().ok()).expect(&said);
    let count = collected / (PASSES * ROWS) as u64;
    assert!(count > 100, "callgrind has seen nothing of it:\n{said}");
    count
}
