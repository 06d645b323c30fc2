//! The story that the relay exists for, on real servers.
//!
//! ```text
//!                        ┌─ outbox ─ walrelay ─▶ post-create ────────▶ Subscriber-Service
//! Post-Service ─ commit ─┤
//!                        └─ after commit ──────▶ post-create-direct ─▶ Subscriber-Service
//! ```
//!
//! Meanwhile Kafka is killed and brought back, twice. What arrives is counted on both ways.

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use clap::builder::FalseyValueParser;
use lab::{Database, Kafka, Postgres, Relay, downloads, eventually};
use tokio::signal::unix::{SignalKind, signal};

use crate::direct_publisher::DirectPublisher;
use crate::post_service::PostService;
use crate::report::{Outcome, Report};
use crate::screen::Screen;
use crate::subscriber::Subscriber;

#[path = "../demo/direct_publisher.rs"]
mod direct_publisher;
#[path = "../demo/post_service.rs"]
mod post_service;
#[path = "../demo/report.rs"]
mod report;
#[path = "../demo/screen.rs"]
mod screen;
#[path = "../demo/subscriber.rs"]
mod subscriber;

const POSTGRES: u16 = 18;
const TOPIC: &str = "post-create";
const DIRECT_TOPIC: &str = "post-create-direct";
const PARTITIONS: i32 = 6;

const OUTAGES: u32 = 2;
/// For all clients alike. With the library's ten seconds, it would be chance who notices first that
/// Kafka is back.
pub const RECONNECT_MAX_MS: &str = "1000";
/// Before, between and after the outages.
const UP: Duration = Duration::from_secs(4);
/// From the kill to the new start, which takes some seconds itself: together they are longer than
/// the direct publisher tries.
const DOWN: Duration = Duration::from_secs(5);
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Where Kafka takes long to start, a subscriber loses its place in the group, and the group waits
/// 45 seconds for it before it lets the same one in again. That is no loss.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);
/// Repetitions would come in this time, too.
const QUIET: Duration = Duration::from_secs(2);

/// Kills Kafka twice while posts are written, and counts the events that arrive
#[derive(Parser)]
struct Options {
    /// Leave everything running at the end, to look around, until Ctrl-C
    #[arg(long, env = "KEEP", value_parser = FalseyValueParser::new())]
    keep: bool,
}

/// Everything that runs in processes of its own. Dropping it ends them all.
struct Servers {
    relay: Relay,
    database: Database,
    kafka: Arc<Kafka>,
    _postgres: Postgres,
}

/// The services, and what is told about them while they run.
struct Scene {
    servers: Servers,
    service: Arc<PostService>,
    direct: Subscriber,
    relayed: Subscriber,
    kafka_is_up: AtomicBool,
    screen: Screen,
    start: Instant,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<ExitCode> {
    // Dropping the story half-told drops the servers, and so kills them.
    let (scene, report) = tokio::select! {
        told = Box::pin(tell()) => told?,
        interrupted = interrupted() => {
            interrupted?;
            return Ok(ExitCode::from(130));
        }
    };
    scene.screen.say(&format!("\n{}\n\n{}", report.table(), report.verdict()));
    if !report.is_kept() {
        eprintln!("The relay's log:\n{}", scene.servers.relay.log());
    }
    if options.keep {
        scene.screen.say(&scene.servers.how_to_look_around()?);
        interrupted().await?;
    }
    Ok(if report.is_kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn tell() -> Result<(Scene, Report)> {
    let scene = Scene::set().await?;
    let kafka_returned = tokio::select! {
        returned = scene.play() => returned?,
        never = scene.show_progress() => match never {},
    };
    let written = scene.service.written();
    let outcome =
        |subscriber: &Subscriber| Outcome::new(&written, &subscriber.arrivals(), kafka_returned);
    let report = Report { direct: outcome(&scene.direct), relay: outcome(&scene.relayed) };
    drop(written);
    Ok((scene, report))
}

/// Ctrl-C, or a polite kill.
async fn interrupted() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

impl Scene {
    async fn set() -> Result<Scene> {
        let screen = Screen::new();
        screen.say("Starting Postgres, Kafka and walrelay ...");
        let servers = Servers::start().await?;
        let bootstrap = servers.kafka.bootstrap();
        let publisher = DirectPublisher::new(&bootstrap, DIRECT_TOPIC)?;
        Ok(Scene {
            service: PostService::open(servers.database.clone(), publisher).await?,
            direct: Subscriber::start(&bootstrap, "post-group-direct", DIRECT_TOPIC)?,
            relayed: Subscriber::start(&bootstrap, "post-group", TOPIC)?,
            kafka_is_up: AtomicBool::new(true),
            screen,
            start: Instant::now(),
            servers,
        })
    }

    /// From the first post to the last arrival. Returns when Kafka came back for the last time.
    async fn play(&self) -> Result<Instant> {
        let (kafka_returned, ()) = tokio::try_join!(self.suffer_outages(), self.service.serve())?;
        self.announce("Writing has ended; waiting for what is under way ...");
        // Whatever is missing after the time-out is in the table.
        let everything = eventually(CATCH_UP_TIMEOUT, "everything to arrive", async || {
            self.relayed.arrivals().events() == self.service.written().len()
                && self.service.publisher().is_settled()
                && self.relayed.arrivals().is_quiet(QUIET)
                && self.direct.arrivals().is_quiet(QUIET)
        });
        drop(everything.await);
        Ok(kafka_returned)
    }

    /// Returns when Kafka came back for the last time.
    async fn suffer_outages(&self) -> Result<Instant> {
        let mut returned = Instant::now();
        for _ in 0..OUTAGES {
            tokio::time::sleep(UP).await;
            self.servers.kafka.kill_9()?;
            self.kafka_is_up.store(false, Ordering::Relaxed);
            self.announce("Kafka is killed (SIGKILL)");
            tokio::time::sleep(DOWN).await;
            let kafka = Arc::clone(&self.servers.kafka);
            tokio::task::spawn_blocking(move || kafka.start_again()).await??;
            returned = Instant::now();
            self.kafka_is_up.store(true, Ordering::Relaxed);
            self.announce("Kafka is back, with its old data");
        }
        tokio::time::sleep(UP).await;
        self.service.close();
        Ok(returned)
    }

    /// Never ends by itself.
    async fn show_progress(&self) -> Infallible {
        let mut ticks = tokio::time::interval(self.screen.refresh_interval());
        self.screen.say("");
        self.screen.say(&columns(["", "", "posts", "in flight", "arrived by", "arrived", "lost"]));
        let units = ["time", "Kafka", "written", "in relay", "walrelay", "directly", "directly"];
        self.screen.say(&columns(units));
        loop {
            ticks.tick().await;
            let in_flight = self.servers.relay.metric("walrelay_in_flight_records").await;
            let kafka = if self.kafka_is_up.load(Ordering::Relaxed) { "up" } else { "DOWN" };
            self.screen.show(&columns([
                &self.time(),
                kafka,
                &self.service.written().len().to_string(),
                &in_flight.map_or_else(|| "-".to_owned(), |records| records.to_string()),
                &self.relayed.arrivals().events().to_string(),
                &self.direct.arrivals().events().to_string(),
                &self.service.publisher().given_up().to_string(),
            ]));
        }
    }

    fn announce(&self, news: &str) {
        self.screen.say(&format!("{}  {news}", self.time()));
    }

    fn time(&self) -> String {
        format!("{:>4} s", self.start.elapsed().as_secs())
    }
}

/// A line of the progress.
fn columns([time, kafka, numbers @ ..]: [&str; 7]) -> String {
    let numbers = numbers.map(|number| format!("{number:>12}")).concat();
    format!("{time:>6}{kafka:>7}{numbers}")
}

impl Servers {
    async fn start() -> Result<Servers> {
        let binary = relay_binary()?;
        let postgres = tokio::task::spawn_blocking(|| Postgres::start(POSTGRES));
        let kafka = tokio::task::spawn_blocking(Kafka::start);
        let (postgres, kafka) = (postgres.await??, Arc::new(kafka.await??));
        kafka.create_topic(TOPIC, PARTITIONS).await?;
        kafka.create_topic(DIRECT_TOPIC, PARTITIONS).await?;
        let database = postgres.create_database().await?;
        database.create_outbox().await?;
        let config = format!(
            r#"
            [postgres]
            url = "{}"
            [kafka]
            brokers = ["{}"]
            [http]
            listen = "{{http}}"
            [[outbox]]
            topic = "{TOPIC}"
            "#,
            database.url(),
            kafka.bootstrap()
        );
        let relay = Relay::builder(binary).config(config).start()?;
        relay.wait_ready(READY_TIMEOUT).await?;
        Ok(Servers { relay, database, kafka, _postgres: postgres })
    }

    fn how_to_look_around(&self) -> Result<String> {
        let (database, http) = (self.database.url(), self.relay.http_address());
        let (brokers, jars) = (self.kafka.bootstrap(), downloads::kafka()?);
        Ok(format!(
            r#"
Everything still runs. The database (psql is in Debian's postgresql-client):
  psql {database}
  psql {database} -c "INSERT INTO outbox (aggregatetype, aggregateid, type, payload) \
    VALUES ('post', 'author-1', 'created', '{{\"body\": \"hello\"}}')"

What the Subscriber-Service gets:
  java -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp '{jars}/*' \
    org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server {brokers} \
    --topic {TOPIC} --from-beginning --formatter-property print.key=true \
    --formatter-property print.headers=true
  kcat -b {brokers} -C -t {TOPIC} -f '%k %h %s\n'

The relay (its configuration is {config}):
  curl http://{http}/status
  curl http://{http}/readyz
  curl http://{http}/metrics

Ctrl-C ends it all."#,
            jars = jars.display(),
            config = self.relay.config_path().display(),
        ))
    }
}

/// Cargo puts it next to this program.
fn relay_binary() -> Result<PathBuf> {
    let binary = std::env::current_exe().context("find this program")?.with_file_name("walrelay");
    let path = binary.display();
    ensure!(binary.is_file(), "there is no {path}: build it first, with `cargo build`");
    Ok(binary)
}
