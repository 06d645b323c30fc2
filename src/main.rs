//! The program: reads the configuration, starts the log, runs.
//!
//! It has the system's allocator: the pipe allocates nothing for an event, librdkafka does, and
//! with jemalloc, mimalloc or tcmalloc in its place an event took as long.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use walrelay::check::Report;
use walrelay::cli::{Cli, Command, EX_USAGE, Migrate};
use walrelay::config::{self, Config, LogFormat};
use walrelay::health::Health;
use walrelay::http::{self, Pages};
use walrelay::init;
use walrelay::metrics::Metrics;
use walrelay::migrate;
use walrelay::shutdown::{Shutdown, end_with_any_panic};
use walrelay::status::Status;
use walrelay::supervise::Supervisor;

fn main() -> ExitCode {
    end_with_any_panic();
    let cli = match Cli::parse_from_args(env::args_os()) {
        Ok(cli) => cli,
        Err(status) => return status.into(),
    };
    let command = cli.command();
    if let Command::Migrate(Migrate::Debezium { file }) = &command {
        return translate(file);
    }
    let config = match Config::load(cli.config.as_deref(), config::environment()) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return EX_USAGE.into();
        }
    };
    let ended = match &command {
        Command::Config => {
            print!("{}", config.to_toml());
            Ok(true)
        }
        Command::Init { print: true, tables } => {
            print!("{}", init::sql(&config, *tables));
            Ok(true)
        }
        Command::Run { accept_gap } => {
            start_log(&config.log);
            run(config, *accept_gap).map(|()| true)
        }
        Command::Migrate(_) => Ok(true),
        Command::Check { .. } | Command::Init { .. } | Command::Status { .. } => {
            start_log(&config.log);
            look(&config, &command)
        }
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            if matches!(command, Command::Run { .. }) {
                tracing::error!("{error}");
            } else {
                eprintln!("{error}");
            }
            ExitCode::FAILURE
        }
    }
}

/// How long the end waits for threads that have called librdkafka: what OpenSSL keeps for each is
/// freed as the thread ends, which must not coincide with what it frees as the process ends. One
/// may hang in the system's resolver, and nobody needs its answer.
const THREADS_MAX: Duration = Duration::from_millis(500);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The one command that reads no configuration of ours. `-` is standard input.
fn translate(file: &Path) -> ExitCode {
    let (name, file): (_, io::Result<Box<dyn Read>>) = if file == Path::new("-") {
        ("standard input".to_owned(), Ok(Box::new(io::stdin())))
    } else {
        (file.display().to_string(), File::open(file).map(|file| Box::new(file) as _))
    };
    let mut text = String::new();
    // One byte more tells what is too large.
    let bytes_max = migrate::FILE_BYTES_MAX as u64 + 1;
    let read = file.and_then(|file| file.take(bytes_max).read_to_string(&mut text));
    let answer = match read {
        Ok(_) => migrate::debezium(&name, &text).map_err(|refused| refused.to_string()),
        Err(error) => Err(format!("{name}: cannot be read: {error}")),
    };
    match answer {
        Ok(document) => {
            print!("{document}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            EX_USAGE.into()
        }
    }
}

/// The commands that connect, answer and end. Returns whether the answer is a good one.
fn look(config: &Config, command: &Command) -> Outcome<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let good = runtime.block_on(async {
        match command {
            Command::Check { json } => {
                let report = Report::of(config).await;
                answer(*json, &report.to_text(), &report.to_json());
                Ok(report.is_good())
            }
            Command::Status { json } => {
                let status = Status::of(config).await?;
                answer(*json, &status.to_text(), &status.to_json());
                Ok(true)
            }
            Command::Init { tables, .. } => init::make(config, *tables).await.map(|()| true),
            Command::Run { .. } | Command::Config | Command::Migrate(_) => Ok(true),
        }
    });
    runtime.shutdown_timeout(THREADS_MAX);
    Ok(good.map_err(Box::new)?)
}

fn answer(json: bool, text: &str, value: &serde_json::Value) {
    if json {
        println!("{value:#}");
    } else {
        print!("{text}");
    }
}

/// Two threads: this one for the relay's loop, and one for signals and pages, so that `/healthz`
/// answers even when that loop is stuck. librdkafka has its own.
fn run(config: Config, accept_gap: bool) -> Outcome<()> {
    let beside =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (pages, shutdown) = beside.block_on(async {
        let listen = config.http.listen;
        let listener = http::bind(listen)
            .await
            .map_err(|error| format!("cannot listen on http.listen = {listen}: {error}"))?;
        let pages =
            Pages { health: Arc::new(Health::default()), metrics: Arc::new(Metrics::new()?) };
        let shutdown = Shutdown::on_signals()?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), http = %listen, "walrelay starts");
        tokio::spawn(http::serve(listener, pages.clone()));
        Ok::<_, Box<dyn std::error::Error>>((pages, shutdown))
    })?;
    let supervisor = Supervisor::new(config, accept_gap, pages, shutdown)?;
    runtime.block_on(supervisor.run());
    runtime.shutdown_timeout(THREADS_MAX);
    beside.shutdown_background();
    Ok(())
}

fn start_log(log: &config::Log) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(log.level)
        .with_target(false)
        // What cannot be written to the log cannot be complained of there; the attempt would be a
        // panic, and a full disk under the log the end of the relay.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(colour).init();
        }
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
