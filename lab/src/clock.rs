//! A calendar of a relay's own, that a test sets while the relay runs.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run_dir::RunDir;

/// What is loaded into the relay.
const SOURCE: &str = include_str!("clock.c");

/// A calendar for the relays that are started with it.
#[derive(Debug)]
pub struct Clock {
    run: RunDir,
}

impl Clock {
    /// One that goes as the machine's own does.
    pub fn start() -> Result<Clock> {
        let clock = Clock { run: RunDir::create("clock")? };
        let source = clock.run.join("clock.c");
        fs::write(&source, SOURCE)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]).arg(clock.run.join("clock.so"));
        let status = compiler.arg(&source).status().context("run the C compiler")?;
        ensure!(status.success(), "the C compiler failed: {status}");
        fs::write(clock.run.join("ahead"), 0_i64.to_ne_bytes())?;
        Ok(clock)
    }

    /// Jumps to so many seconds ahead of the machine's calendar.
    pub fn set(&self, ahead: i64) -> Result<()> {
        // In place: the relay has the file in its memory.
        let mut file = File::options().write(true).open(self.run.join("ahead"))?;
        Ok(file.write_all(&ahead.to_ne_bytes())?)
    }

    /// What a relay's environment needs.
    pub(crate) fn environment(&self) -> [(String, String); 2] {
        let path = |name: &str| self.run.join(name).to_string_lossy().into_owned();
        [("LD_PRELOAD".into(), path("clock.so")), ("CLOCK_FILE".into(), path("ahead"))]
    }
}
