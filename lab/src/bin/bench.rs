//! How fast the relay is, and at what cost, beside readers that do nothing else.
//!
//! The log is written once for each load; everybody reads it from a slot of their own. Repetitions
//! interleave, so that a machine that slows down does so for all. What arrived is checked.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use lab::{Kafka, Postgres};
use serde_json::{Value, json};

use crate::backlog::{Backlog, Shape};
use crate::drain::{Contender, Stage};
use crate::report::{Drained, Latency, Row, Scaled, median};
use crate::scale::TRIALS;

#[path = "../bench/backlog.rs"]
mod backlog;
#[path = "../bench/bare_reader.rs"]
mod bare_reader;
#[path = "../bench/debezium.rs"]
mod debezium;
#[path = "../bench/drain.rs"]
mod drain;
#[path = "../bench/history.rs"]
mod history;
#[path = "../bench/latency.rs"]
mod latency;
#[path = "../bench/moments.rs"]
mod moments;
#[path = "../bench/report.rs"]
mod report;
#[path = "../bench/scale.rs"]
mod scale;

const POSTGRES: u16 = 18;
/// Rows a second.
const RATES: [u32; 3] = [100, 500, 5000];

/// Measures the relay beside readers that do nothing else
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    /// Rows of W1, W2 and W3; those of large payloads are a twentieth, of scale a fifth
    #[arg(long, env = "ROWS", default_value_t = 1_000_000)]
    rows: u32,
    /// How often each is measured; medians are shown
    #[arg(long, env = "REPETITIONS", default_value_t = 3)]
    repetitions: usize,
    /// Only these
    #[arg(long, env = "LOADS", value_delimiter = ',')]
    loads: Vec<Load>,
    /// How long each measurement of latency and of an idle relay takes, in seconds
    #[arg(long, env = "DURATION", default_value_t = 20)]
    seconds: u64,
    /// A relay's binary, several to compare them [default: the one next to this program]
    #[arg(long = "relay", env = "RELAYS", value_delimiter = ',')]
    relays: Vec<PathBuf>,
    /// A property of librdkafka for the relays, NAME=VALUE; may be repeated
    #[arg(long = "property")]
    properties: Vec<String>,
    /// Another relay beside ours
    #[arg(long, env = "PEER")]
    peer: Option<Peer>,
    /// Where to write all numbers [default: bench.json next to this program]
    #[arg(long, env = "JSON")]
    json: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Load {
    W1,
    W2,
    W3,
    Large,
    Scale,
    Latency,
    Idle,
    Start,
    Stop,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    Debezium,
}

#[derive(Subcommand)]
enum Command {
    /// What a measurement starts: reads a slot to nowhere
    #[command(hide = true)]
    BareReader(bare_reader::Options),
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.command {
        Some(Command::BareReader(options)) => bare_reader::run(options),
        None => tokio::runtime::Runtime::new()
            .context("start the runtime")
            .and_then(|runtime| runtime.block_on(run(&options))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A relay's binary and what it is called in the tables.
struct Build {
    name: String,
    binary: PathBuf,
}

fn builds(options: &Options) -> Result<Vec<Build>> {
    let own = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("walrelay"));
    let binaries = if options.relays.is_empty() { vec![own()?] } else { options.relays.clone() };
    let single = binaries.len() == 1;
    let build = |(index, binary): (usize, PathBuf)| {
        ensure!(binary.is_file(), "there is no {}", binary.display());
        let name = if single { "walrelay".to_owned() } else { format!("walrelay {}", index + 1) };
        Ok(Build { name, binary: std::path::absolute(binary)? })
    };
    binaries.into_iter().enumerate().map(build).collect()
}

async fn run(options: &Options) -> Result<()> {
    let builds = builds(options)?;
    ensure!(options.repetitions > 0 && options.rows >= 1000, "too little to measure");
    for build in &builds {
        println!("{} is {}", build.name, build.binary.display());
    }
    // What is read is not to be held up by the server's own housekeeping.
    let postgres = Postgres::builder(POSTGRES)
        .setting("fsync", "on")
        .setting("max_wal_size", "64GB")
        .setting("checkpoint_timeout", "1h")
        .setting("autovacuum", "off")
        .setting("shared_buffers", "512MB");
    let postgres = tokio::task::spawn_blocking(|| postgres.start());
    let kafka = tokio::task::spawn_blocking(Kafka::start);
    let (postgres, kafka) = (postgres.await??, kafka.await??);
    let stage = Stage { kafka: &kafka, properties: &options.properties };
    let bench = Bench { options, builds, postgres: &postgres, stage };
    let mut results = serde_json::Map::new();
    for (load, shape) in [
        (Load::W1, Shape::w1(options.rows)),
        (Load::W2, Shape::w2(options.rows)),
        (Load::W3, Shape::w3(options.rows)),
        (Load::Large, Shape::large(options.rows / 20)),
    ] {
        if bench.wants(load) {
            results.insert(shape.name.to_owned(), bench.drain(shape).await?);
        }
    }
    if bench.wants(Load::Scale) {
        results.insert("scale".to_owned(), bench.scale().await?);
    }
    if bench.wants(Load::Latency) {
        results.insert("latency".to_owned(), bench.latency().await?);
    }
    results.insert("moments".to_owned(), bench.moments().await?);
    let machine = json!({
        "cores": std::thread::available_parallelism()?.get(),
        "rows": options.rows, "repetitions": options.repetitions,
        "properties": options.properties, "postgres": POSTGRES,
    });
    results.insert("setting".to_owned(), machine);
    let text = format!("{:#}\n", Value::Object(results));
    let file = match &options.json {
        Some(file) => file.clone(),
        None => std::env::current_exe()?.with_file_name("bench.json"),
    };
    std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    println!("\nEvery number is in {}.", file.display());
    Ok(())
}

struct Bench<'a> {
    options: &'a Options,
    builds: Vec<Build>,
    postgres: &'a Postgres,
    stage: Stage<'a>,
}

impl Bench<'_> {
    fn wants(&self, load: Load) -> bool {
        self.options.loads.is_empty() || self.options.loads.contains(&load)
    }

    fn contenders(&self) -> Vec<Contender> {
        let mut all = vec![Contender::Recvlogical];
        all.extend([false, true].map(|unix| Contender::Bare { unix }));
        for (unix, headers) in [(false, true), (true, true), (false, false)] {
            for Build { name, binary } in &self.builds {
                let (name, binary) = (name.clone(), binary.clone());
                all.push(Contender::Relay { name, binary, unix, headers });
            }
        }
        if self.options.peer == Some(Peer::Debezium) {
            all.extend([false, true].map(|tuned| Contender::Debezium { tuned }));
        }
        all
    }

    async fn drain(&self, shape: Shape) -> Result<Value> {
        eprintln!("writing {} rows: {} ...", shape.rows, shape.name);
        let mut backlog = Backlog::begin(self.postgres).await?;
        backlog.write(shape).await?;
        let contenders = self.contenders();
        let mut rows: Vec<Row> = contenders
            .iter()
            .map(|contender| Row { name: contender.name(), runs: Vec::new() })
            .collect();
        for _ in 0..self.options.repetitions {
            for (contender, row) in contenders.iter().zip(&mut rows) {
                let measured = self.stage.drain(&mut backlog, shape.rows.into(), contender).await?;
                eprintln!("  {}: {:.2} s", row.name, measured.seconds);
                row.runs.push(measured);
            }
        }
        backlog.database.remove().await?;
        let drained = Drained { load: shape.name, rows };
        println!("{}", drained.table());
        Ok(drained.json())
    }

    /// What more topics, partitions, other tables and relays cost.
    async fn scale(&self) -> Result<Value> {
        let rows = (self.options.rows / 5).next_multiple_of(backlog::KEYS);
        let mut results = Vec::new();
        for Build { name, binary } in &self.builds {
            let mut scaled = Scaled { rows: Vec::new() };
            for trial in TRIALS {
                let mut backlog = trial.backlog(self.postgres, rows).await?;
                let mut row = Row { name: trial.name.to_owned(), runs: Vec::new() };
                for _ in 0..self.options.repetitions {
                    let measured = trial.measure(&self.stage, &mut backlog, binary, rows).await?;
                    eprintln!("  {}: {:.2} s", row.name, measured.seconds);
                    row.runs.push(measured);
                }
                backlog.database.remove().await?;
                scaled.rows.push(row);
            }
            println!("\n{name}, scale: 100 rows a transaction\n{}", scaled.table());
            results.push(json!({ "relay": name, "trials": scaled.json() }));
        }
        Ok(Value::Array(results))
    }

    async fn latency(&self) -> Result<Value> {
        let time = Duration::from_secs(self.options.seconds);
        let mut results = Vec::new();
        for Build { name, binary } in &self.builds {
            print!("\n{name}, latency\n{}", Latency::head());
            for rate in RATES {
                let mut runs = Vec::new();
                for _ in 0..self.options.repetitions {
                    let mut backlog = Backlog::begin(self.postgres).await?;
                    let run = latency::measure(&self.stage, &mut backlog, binary, rate, time);
                    runs.push(run.await?);
                    backlog.database.remove().await?;
                }
                let latency = Latency::median(&runs).context("no run")?;
                print!("{}", latency.line());
                let runs: Vec<Value> = runs.iter().map(Latency::json).collect();
                results.push(json!({ "relay": name, "median": latency.json(), "runs": runs }));
            }
        }
        Ok(Value::Array(results))
    }

    /// Start, stop, and an idle relay.
    async fn moments(&self) -> Result<Value> {
        let mut results = Vec::new();
        for Build { name, binary } in &self.builds {
            let mut result = serde_json::Map::new();
            result.insert("relay".to_owned(), json!(name));
            if self.wants(Load::Start) || self.wants(Load::Stop) {
                let (start, stop) = self.start_and_stop(binary).await?;
                println!("\n{name}: {start:.0} ms from start to the first record of a backlog");
                println!("{name}: {stop:.0} ms from SIGTERM to the end, under load");
                result.insert("start_to_first_record_ms".to_owned(), json!(start));
                result.insert("sigterm_to_end_ms".to_owned(), json!(stop));
            }
            if self.wants(Load::Idle) {
                let mut backlog = Backlog::begin(self.postgres).await?;
                let time = Duration::from_secs(self.options.seconds);
                let idle = self.stage.idle(&mut backlog, binary, time).await?;
                let (busy, memory) = (idle.busy * 100.0, idle.mebibytes);
                println!("{name}: idle, {busy:.2} % of a core and {memory:.1} MiB");
                result.insert("idle".to_owned(), json!({ "cpu_percent": busy, "mib": memory }));
                backlog.database.remove().await?;
            }
            results.push(Value::Object(result));
        }
        Ok(Value::Array(results))
    }

    /// Medians in milliseconds.
    async fn start_and_stop(&self, binary: &Path) -> Result<(f64, f64)> {
        const ROWS: u32 = 200_000;
        let shape = Shape::w2(self.options.rows.min(ROWS));
        let mut backlog = Backlog::begin(self.postgres).await?;
        backlog.write(shape).await?;
        let (mut starts, mut stops) = (Vec::new(), Vec::new());
        for _ in 0..self.options.repetitions {
            starts.push(1e3 * self.stage.start_to_first(&mut backlog, binary).await?);
            stops.push(1e3 * self.stage.stop(&mut backlog, shape.rows.into(), binary).await?);
        }
        backlog.database.remove().await?;
        Ok((median(starts), median(stops)))
    }
}
