//! Servers die with the process that started them, however it dies.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result};
use lab::process::Launch;
use lab::{Postgres, pause, wait_until};

use crate::LONG;

/// Tells the copy of this test binary where to write the process ids of its servers.
const REPORT: &str = "LAB_TEST_REPORT";

fn temporary(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn runs(pid: &str) -> bool {
    let state = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

#[test]
fn servers_die_with_a_killed_tester() -> Result<()> {
    let report = temporary(&format!("report-{}", std::process::id()));
    let mut tester = Command::new(env::current_exe()?)
        .args(["--exact", "processes::only_starts_servers", "--ignored"])
        .env(REPORT, &report)
        .spawn()?;
    let pids = wait_until(LONG, "the tester's servers", || {
        let text = fs::read_to_string(&report).ok()?;
        Some(text.lines().map(str::to_owned).collect::<Vec<_>>()).filter(|pids| pids.len() == 2)
    })?;
    assert!(pids.iter().all(|pid| runs(pid)), "{pids:?}");
    tester.kill()?;
    tester.wait()?;
    fs::remove_file(&report)?;
    wait_until(LONG, "the servers to die", || !pids.iter().any(|pid| runs(pid)))
}

/// The tester of the test above; on its own it does nothing.
#[test]
#[ignore = "is started by servers_die_with_a_killed_tester, and killed"]
fn only_starts_servers() -> Result<()> {
    let Some(report) = env::var_os(REPORT).map(PathBuf::from) else { return Ok(()) };
    let log = temporary("sleep-log");
    // From a thread that ends, as every test's thread does: the servers must stay all the same.
    let started = std::thread::spawn(move || -> Result<_> {
        Ok((Postgres::start(18)?, Launch::new("sleep", log).arg("1000").spawn()?))
    });
    let (server, sleeper) = started.join().ok().context("the thread panicked")??;
    pause(Duration::from_millis(200));
    assert!(server.is_running() && sleeper.is_running());
    let unfinished = report.with_extension("unfinished");
    fs::write(&unfinished, format!("{}\n{}\n", server.pid().context("a pid")?, sleeper.pid()))?;
    fs::rename(&unfinished, &report)?;
    pause(LONG);
    Ok(())
}
