//! A backlog is read to its end, and what that took.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::process::{Child, Launch};
use lab::{Debezium, Kafka, Relay, RunDir, eventually, usage};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;

use crate::backlog::Backlog;
use crate::debezium;
use crate::history;
use crate::report::Measured;

/// As many as the goals of the relay are stated for.
pub const PARTITIONS: i32 = 6;
pub const START_MAX: Duration = Duration::from_secs(60);
/// The longest time for any contender to get on.
pub const STUCK: Duration = Duration::from_secs(300);
/// Between two looks at a process whose end is near.
const LOOK: Duration = Duration::from_millis(5);

/// Who reads.
#[derive(Clone, Debug)]
pub enum Contender {
    /// Postgres' own tool, to nowhere.
    Recvlogical,
    /// [`bare_reader`](crate::bare_reader).
    Bare { unix: bool },
    /// A relay's binary.
    Relay { name: String, binary: PathBuf, unix: bool, headers: bool },
    /// Debezium Server, as it comes or tuned.
    Debezium { tuned: bool },
}

impl Contender {
    pub fn name(&self) -> String {
        let over = |unix: &bool| if *unix { "Unix" } else { "TCP" };
        match self {
            Contender::Recvlogical => "pg_recvlogical, TCP".to_owned(),
            Contender::Bare { unix } => format!("bare reader, {}", over(unix)),
            Contender::Relay { name, unix, headers, .. } => {
                let without = if *headers { "" } else { ", no headers" };
                format!("{name}, {}{without}", over(unix))
            }
            Contender::Debezium { tuned: false } => "Debezium".to_owned(),
            Contender::Debezium { tuned: true } => "Debezium, tuned".to_owned(),
        }
    }

    fn is_relay(&self) -> bool {
        matches!(self, Contender::Relay { .. } | Contender::Debezium { .. })
    }
}

/// What runs while a slot is drained. Dropping it ends it.
enum Process {
    Tool { child: Child, _run: RunDir },
    Relay(Relay),
    Debezium(Debezium),
}

/// What a relay reads, and where that goes.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    pub slot: &'a str,
    pub publication: &'a str,
    /// A name or a template.
    pub topic: &'a str,
}

/// Where everything runs.
pub struct Stage<'a> {
    pub kafka: &'a Kafka,
    pub properties: &'a [String],
}

impl Stage<'_> {
    /// A relay from a slot to the topic of the same name, with the defaults but for what is asked.
    pub fn start_relay(
        &self,
        binary: &Path,
        url: &str,
        slot: &str,
        headers: bool,
    ) -> Result<Relay> {
        self.start_relay_of(
            binary,
            url,
            Way { slot, publication: "walrelay", topic: slot },
            headers,
        )
    }

    /// The same from a publication to topics.
    pub fn start_relay_of(
        &self,
        binary: &Path,
        url: &str,
        way: Way<'_>,
        headers: bool,
    ) -> Result<Relay> {
        let Way { slot, publication, topic } = way;
        let properties = self.properties.iter().filter_map(|property| property.split_once('='));
        let properties = properties.map(|(name, value)| format!("\"{name}\" = \"{value}\""));
        let properties = properties.collect::<Vec<_>>().join("\n");
        let (delivery, outbox) = if headers {
            ("", "")
        } else {
            ("[delivery]\nposition_header = \"\"", "id = \"\"\nheaders = {}")
        };
        let brokers = self.kafka.bootstrap();
        let config = format!(
            "[postgres]\nurl = \"{url}\"\nslot = \"{slot}\"\npublication = \"{publication}\"\n\
             row_filters = \"allow\"\n\
             [kafka]\nbrokers = [\"{brokers}\"]\n[kafka.properties]\n{properties}\n{delivery}\n\
             [http]\nlisten = \"{{http}}\"\n[[outbox]]\ntopic = \"{topic}\"\n{outbox}\n"
        );
        Relay::builder(binary).config(config).start()
    }

    /// Reads a copy of the backlog's slot to its end.
    pub async fn drain(
        &self,
        backlog: &mut Backlog,
        rows: u64,
        contender: &Contender,
    ) -> Result<Measured> {
        let slot = backlog.slot().await?;
        if contender.is_relay() {
            self.kafka.create_topic(&slot, PARTITIONS).await?;
        }
        let measured = self.measure(backlog, rows, contender, &slot).await;
        let measured = measured.with_context(|| contender.name())?;
        if contender.is_relay() {
            let (brokers, topic) = (self.kafka.bootstrap(), slot.clone());
            let checked = move || history::check(&brokers, &topic, rows);
            tokio::task::spawn_blocking(checked).await?.with_context(|| contender.name())?;
            self.kafka.delete_topic(&slot).await?;
        }
        Ok(measured)
    }

    async fn measure(
        &self,
        backlog: &Backlog,
        rows: u64,
        contender: &Contender,
        slot: &str,
    ) -> Result<Measured> {
        let process = self.start(backlog, rows, contender, slot).await?;
        let pid = process.pid().context("no process")?;
        let walsender = eventually(START_MAX, "the slot to be read", async || {
            backlog.walsender(slot).await.ok().flatten()
        });
        let walsender = walsender.await.with_context(|| process.log())?;
        let broker = self.kafka.pid().context("no broker")?;
        // Connecting is measured elsewhere.
        let begun = Instant::now();
        let mut meter = Meter::new([vec![pid], vec![walsender], vec![broker]]);
        match &process {
            Process::Tool { child, .. } => {
                while child.is_running() {
                    ensure!(begun.elapsed() < STUCK, "no end:\n{}", process.log());
                    meter.look();
                    tokio::time::sleep(LOOK).await;
                }
            }
            Process::Relay(_) | Process::Debezium(_) => {
                let ends = Ends::of(&self.kafka.bootstrap(), slot)?;
                let mut records = 0;
                while records < rows {
                    ensure!(begun.elapsed() < STUCK, "{records} records:\n{}", process.log());
                    tokio::time::sleep(pace(begun, f64_of(records), f64_of(rows))).await;
                    meter.look();
                    records = ends.records()?;
                }
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        meter.look();
        let reads = process.reads(rows).await?;
        let [cpu, walsender, broker] = meter.used();
        Ok(Measured { seconds, rows, cpu, walsender, broker, peak_bytes: meter.peak_bytes, reads })
    }

    async fn start(
        &self,
        backlog: &Backlog,
        rows: u64,
        contender: &Contender,
        slot: &str,
    ) -> Result<Process> {
        let database = &backlog.database;
        let port = database.port().to_string();
        let tool = |launch: fn(&RunDir) -> Result<Launch>, args: Vec<String>| {
            let run = RunDir::create("reader")?;
            Ok::<_, anyhow::Error>(Process::Tool {
                child: launch(&run)?.args(args).spawn()?,
                _run: run,
            })
        };
        match contender {
            Contender::Recvlogical => {
                let end = backlog.end().await?;
                let args = ["--host=127.0.0.1", "--username=postgres", "--start", "--no-loop"];
                let mut args = args.map(str::to_owned).to_vec();
                args.extend([format!("--port={port}"), format!("--dbname={}", database.name())]);
                args.extend([format!("--slot={slot}"), format!("--endpos={end}")]);
                let options = ["--option=proto_version=1", "--option=publication_names=walrelay"];
                args.extend(options.map(str::to_owned));
                args.push("--file=/dev/null".to_owned());
                tool(|run| Ok(Launch::new("pg_recvlogical", run.join("log"))), args)
            }
            Contender::Bare { unix } => {
                let sockets = database.socket_dir().display().to_string();
                let host = if *unix { sockets } else { "127.0.0.1".to_owned() };
                let mut args = vec!["bare-reader".to_owned(), format!("--host={host}")];
                args.extend([format!("--port={port}"), format!("--database={}", database.name())]);
                args.extend([format!("--slot={slot}"), format!("--rows={rows}")]);
                tool(|run| Ok(Launch::new(std::env::current_exe()?, run.join("log"))), args)
            }
            Contender::Relay { binary, unix, headers, .. } => {
                let url = if *unix { database.unix_url() } else { database.url() };
                Ok(Process::Relay(self.start_relay(binary, &url, slot, *headers)?))
            }
            Contender::Debezium { tuned } => {
                let started = debezium::start(database, &self.kafka.bootstrap(), slot, *tuned);
                Ok(Process::Debezium(started?))
            }
        }
    }
}

/// How long to leave a relay alone that has got so far: half the way, so that being watched costs
/// it next to nothing and its end is not missed.
pub fn pace(begun: Instant, records: f64, rows: f64) -> Duration {
    if records <= 0.0 {
        return LOOK;
    }
    let left = begun.elapsed().as_secs_f64() / records * (rows - records).max(0.0);
    Duration::from_secs_f64(left / 2.0).clamp(LOOK, LOOK * 50)
}

#[expect(clippy::cast_precision_loss, reason = "rows are counted in millions")]
pub fn f64_of(count: u64) -> f64 {
    count as f64
}

impl Process {
    fn pid(&self) -> Option<u32> {
        match self {
            Process::Tool { child, .. } => Some(child.pid()),
            Process::Relay(relay) => relay.pid(),
            Process::Debezium(debezium) => Some(debezium.pid()),
        }
    }

    fn log(&self) -> String {
        match self {
            Process::Tool { child, .. } => child.log(),
            Process::Relay(relay) => relay.log(),
            Process::Debezium(debezium) => debezium.log(),
        }
    }

    /// How often the socket was read, if it is known. Whoever ended must have ended well.
    async fn reads(&self, rows: u64) -> Result<Option<f64>> {
        match self {
            Process::Relay(relay) => Ok(relay.metric("walrelay_stream_reads_total").await),
            Process::Debezium(_) => Ok(None),
            Process::Tool { child, .. } => {
                let status = child.wait_timeout(LOOK)?.context("it still runs")?;
                ensure!(status.success(), "{status}:\n{}", child.log());
                let log = child.log();
                let said = log.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
                let Some(said) = said else { return Ok(None) };
                match said.get("rows").and_then(Value::as_u64) {
                    Some(read) if read == rows => Ok(said.get("reads").and_then(Value::as_f64)),
                    read => bail!("{read:?} rows of {rows}"),
                }
            }
        }
    }
}

/// Processor time of three kinds of processes since it was made, and the memory of the first.
pub struct Meter {
    pids: [Vec<u32>; 3],
    begun: [Duration; 3],
    now: [Duration; 3],
    /// Of each process of the first kind, added up.
    pub peak_bytes: u64,
}

impl Meter {
    pub fn new(pids: [Vec<u32>; 3]) -> Meter {
        let begun = pids.each_ref().map(|pids| cpu(pids).unwrap_or_default());
        Meter { pids, begun, now: begun, peak_bytes: 0 }
    }

    /// Of a process that has gone, the last look counts.
    pub fn look(&mut self) {
        for (now, pids) in self.now.iter_mut().zip(&self.pids) {
            *now = cpu(pids).unwrap_or(*now);
        }
        let [first, ..] = &self.pids;
        let peaks = first.iter().map(|pid| usage::peak_rss_bytes(*pid));
        self.peak_bytes = peaks.sum::<Option<u64>>().unwrap_or(self.peak_bytes);
    }

    /// Seconds.
    pub fn used(&self) -> [f64; 3] {
        let mut used = self.now;
        for (now, begun) in used.iter_mut().zip(self.begun) {
            *now = now.saturating_sub(begun);
        }
        used.map(|time| time.as_secs_f64())
    }
}

/// Of all of these processes, as long as each is there.
fn cpu(pids: &[u32]) -> Option<Duration> {
    pids.iter().map(|pid| usage::cpu(*pid)).sum()
}

/// Looks at how many records a topic has: those that are acked, and no others.
pub struct Ends {
    consumer: BaseConsumer,
    topic: String,
}

impl Ends {
    pub fn of(bootstrap: &str, topic: &str) -> Result<Ends> {
        let consumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
        Ok(Ends { consumer, topic: topic.to_owned() })
    }

    pub fn records(&self) -> Result<u64> {
        let end = |partition| {
            let (_, high) = self.consumer.fetch_watermarks(&self.topic, partition, STUCK)?;
            Ok(u64::try_from(high)?)
        };
        (0..PARTITIONS).map(end).sum()
    }
}
