//! walrelay side by side with the real Debezium Server, on the same rows.
//!
//! Rows are written once, and each side reads them from a slot and a publication of its own into
//! topics of its own. The relay is configured by what `walrelay migrate debezium` makes of the very
//! properties of the server; only slot, publication and the prefix of the topics are others. What
//! arrives is compared byte for byte: topics, partitions, keys, values, headers and their order.
//! What differs on purpose is listed, with its reason, in `side_by_side/known.rs`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use lab::{Kafka, Postgres, downloads};

use crate::play::Stage;
use crate::report::Report;
use crate::scenarios::SCENARIOS;

#[path = "../side_by_side/compare.rs"]
mod compare;
#[path = "../side_by_side/known.rs"]
mod known;
#[path = "../side_by_side/play.rs"]
mod play;
#[path = "../side_by_side/report.rs"]
mod report;
#[path = "../side_by_side/scenario.rs"]
mod scenario;
#[path = "../side_by_side/scenarios.rs"]
mod scenarios;

/// Compares what walrelay and the real Debezium Server make of the same rows
#[derive(Parser)]
struct Options {
    /// Only these scenarios, by name
    #[arg(long, env = "ONLY", value_delimiter = ',')]
    only: Vec<String>,
    /// The relay's binary [default: the one next to this program]
    #[arg(long)]
    relay: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Runtime::new().context("start the runtime");
    match runtime.and_then(|runtime| runtime.block_on(run(&options))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("side by side: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing differs but what is known to.
async fn run(options: &Options) -> Result<bool> {
    for name in &options.only {
        let known = SCENARIOS.iter().any(|scenario| scenario.name == name);
        ensure!(known, "there is no scenario {name:?}");
    }
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|it| it == name);
    let binary = match &options.relay {
        Some(binary) => std::path::absolute(binary)?,
        None => std::env::current_exe()?.with_file_name("walrelay"),
    };
    ensure!(binary.is_file(), "there is no {}", binary.display());
    tokio::task::spawn_blocking(downloads::debezium).await??;
    let newest = downloads::POSTGRES_MAJORS.into_iter().max().context("no Postgres")?;
    let postgres = tokio::task::spawn_blocking(move || Postgres::start(newest));
    let kafka = tokio::task::spawn_blocking(Kafka::start);
    let (postgres, kafka) = (postgres.await??, kafka.await??);
    let stage = Stage { postgres: &postgres, kafka: &kafka, binary: &binary };
    let (mut report, mut failed) = (Report::default(), false);
    for (number, scenario) in SCENARIOS.iter().enumerate().filter(|(_, it)| wanted(it.name)) {
        let begun = Instant::now();
        match stage.play(number, scenario).await {
            Ok(played) => report.add(scenario.name, &played),
            Err(error) => {
                eprintln!("{}: {error:#}", scenario.name);
                failed = true;
            }
        }
        eprintln!("{}: {:.0} s", scenario.name, begun.elapsed().as_secs_f64());
    }
    println!("{}", report.text());
    Ok(report.is_good() && !failed)
}
