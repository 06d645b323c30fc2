//! Breaks everything at random, and checks that nothing is lost.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use lab::downloads;
use lab::torture::ending::Ending;
use lab::torture::fault::Fault;
use lab::torture::kills;
use lab::torture::plan::Plan;
use lab::torture::run::{Report, run};

/// Runs random schedules of faults against the relay, and judges what arrives
#[derive(Clone, Debug, Parser)]
struct Options {
    /// The first run's seed; each further run has the next one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Begin new runs for so many minutes
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// So many runs instead, however long that takes
    #[arg(long)]
    runs: Option<u64>,
    /// How long faults go on in each run, in seconds
    #[arg(long, default_value_t = 60.0)]
    length: f64,
    /// How many runs at a time
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Instead, kill the relay so many times in a row
    #[arg(long)]
    kills: Option<u32>,
    /// Only these faults, by name
    #[arg(long, value_delimiter = ',')]
    only: Vec<Fault>,
    /// In the end, lose something for good in this way
    #[arg(long)]
    ending: Option<Ending>,
    /// Print the plans, and do nothing
    #[arg(long)]
    plan: bool,
    /// Tell what happened in good runs, too
    #[arg(long)]
    story: bool,
    /// Where the logs of failed runs go
    #[arg(long, default_value = "target/torture")]
    keep: PathBuf,
}

fn main() -> ExitCode {
    match torture(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("torture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn plan(&self, seed: u64) -> Plan {
        let plan = Plan::new(seed, Duration::from_secs_f64(self.length), &self.only);
        Plan { ending: self.ending.or(plan.ending), ..plan }
    }
}

fn torture(options: &Options) -> Result<bool> {
    if options.plan {
        for seed in options.seed..options.seed + options.runs.unwrap_or(1) {
            println!("{}", options.plan(seed));
        }
        return Ok(true);
    }
    let binary = binary()?;
    downloads::all()?;
    if let Some(kills) = options.kills {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let report = runtime.block_on(kills::run(options.plan(options.seed), kills, &binary))?;
        println!("seed {}: {report}", options.seed);
        return Ok(report.is_good());
    }
    let (begun, next) = (Instant::now(), Arc::new(AtomicU64::new(options.seed)));
    let mut jobs = Vec::new();
    for _ in 0..options.jobs.max(1) {
        let (options, next, binary) = (options.clone(), Arc::clone(&next), binary.clone());
        // Each on threads of its own, so that no run waits for another.
        jobs.push(std::thread::spawn(move || -> Result<Tally> {
            let mut tally = Tally::default();
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            loop {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                let over = match options.runs {
                    Some(runs) => seed >= options.seed + runs,
                    None => begun.elapsed().as_secs_f64() >= options.minutes * 60.0,
                };
                if over {
                    return Ok(tally);
                }
                tally.add(runtime.block_on(one(&options, seed, &binary)));
            }
        }));
    }
    let mut all = Tally::default();
    for job in jobs {
        all.merge(&job.join().map_err(|_| anyhow!("a run panicked"))??);
    }
    println!("{all}");
    Ok(all.failed == 0)
}

async fn one(options: &Options, seed: u64, binary: &Path) -> Option<Report> {
    match run(options.plan(seed), binary, &options.keep).await {
        Ok(report) => {
            println!("{report}");
            if options.story {
                println!("{}", report.story.join("\n"));
            }
            if !report.failures.is_empty() {
                eprintln!("{}{}", report.plan, report.story.join("\n"));
                eprintln!("seed {seed} failed:\n{}", report.failures.join("\n"));
            }
            Some(report)
        }
        Err(error) => {
            // The logs of a server may be in it.
            let told: String = format!("{error:#}").chars().take(4_000).collect();
            eprintln!("seed {seed} is void: {told}");
            None
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    runs: u64,
    failed: u64,
    faults: usize,
    events: u64,
    repeated: u64,
    catch_up_max: Duration,
    peak_max_bytes: u64,
}

impl Tally {
    fn add(&mut self, report: Option<Report>) {
        self.runs += 1;
        let Some(report) = report else {
            self.failed += 1;
            return;
        };
        self.failed += u64::from(!report.failures.is_empty());
        self.faults += report.faults.len();
        self.events += report.events;
        self.repeated += report.verdict.repeated;
        self.catch_up_max = self.catch_up_max.max(report.catch_up);
        self.peak_max_bytes = self.peak_max_bytes.max(report.watched.peak_rss_bytes);
    }

    fn merge(&mut self, other: &Tally) {
        self.runs += other.runs;
        self.failed += other.failed;
        self.faults += other.faults;
        self.events += other.events;
        self.repeated += other.repeated;
        self.catch_up_max = self.catch_up_max.max(other.catch_up_max);
        self.peak_max_bytes = self.peak_max_bytes.max(other.peak_max_bytes);
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} runs, {} failed: {} faults, {} events, {} repeats, catch-up at most {:.1} s, \
             peak {} MiB",
            self.runs,
            self.failed,
            self.faults,
            self.events,
            self.repeated,
            self.catch_up_max.as_secs_f64(),
            self.peak_max_bytes >> 20
        )
    }
}

/// The relay beside this program, built with it.
fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe().context("where am I?")?;
    let binary = own.parent().unwrap_or(&own).join("walrelay");
    ensure!(binary.exists(), "no {}: cargo build --workspace", binary.display());
    Ok(binary)
}
