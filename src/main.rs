//! The program: reads the configuration, starts the log, runs.

use std::env;
use std::process::ExitCode;
use std::sync::Arc;

use walrelay::cli::{Cli, Command, EX_USAGE};
use walrelay::config::{self, Config, LogFormat};
use walrelay::health::Health;
use walrelay::http::{self, Pages};
use walrelay::metrics::Metrics;
use walrelay::shutdown::Shutdown;
use walrelay::supervise::Supervisor;

fn main() -> ExitCode {
    let cli = match Cli::parse_from_args(env::args_os()) {
        Ok(cli) => cli,
        Err(status) => return status.into(),
    };
    let config = match Config::load(cli.config.as_deref(), config::environment()) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return EX_USAGE.into();
        }
    };
    match cli.command() {
        Command::Config => {
            print!("{}", config.to_toml());
            ExitCode::SUCCESS
        }
        Command::Run { accept_gap } => {
            start_log(&config.log);
            match run(config, accept_gap) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!("{error}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

/// Two threads are enough: one for the relay's loop, one so that `/healthz` answers even when
/// that loop is stuck. librdkafka has its own.
const WORKERS: usize = 2;

fn run(config: Config, accept_gap: bool) -> Result<(), Box<dyn std::error::Error>> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let ended = runtime.block_on(async {
        let listen = config.http.listen;
        let listener = http::bind(listen)
            .await
            .map_err(|error| format!("cannot listen on http.listen = {listen}: {error}"))?;
        let pages =
            Pages { health: Arc::new(Health::default()), metrics: Arc::new(Metrics::new()?) };
        let shutdown = Shutdown::on_signals()?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), http = %listen, "walrelay starts");
        tokio::spawn(http::serve(listener, pages.clone()));
        // A task of its own, so that a worker runs it and not the main thread.
        tokio::spawn(Supervisor::new(config, accept_gap, pages, shutdown).run()).await?;
        Ok(())
    });
    // A look-up of a name may still hang in the system's resolver; nobody needs its answer.
    runtime.shutdown_background();
    ended
}

fn start_log(log: &config::Log) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(log.level)
        .with_target(false)
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(colour).init();
        }
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
