//! What every test sets up: a database with an outbox, a topic, and a relay between them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::history::History;
use lab::history::checker::{Verdict, check};
use lab::history::seen::Seen;
use lab::{Database, Kafka, Postgres, Reader, Record, Relay, eventually};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use walrelay::kafka::partition::partition;
use walrelay::lsn::Lsn;

pub const VERSIONS: [u16; 5] = [14, 15, 16, 17, 18];
/// The version of tests for which it does not matter.
pub const LATEST: u16 = 18;
/// Servers on a machine with two busy cores need patience; a test that passes never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A database of its own, on a server that the tests share.
pub struct Scene<'a> {
    pub postgres: &'a Postgres,
    pub kafka: &'a Kafka,
    pub database: Database,
    pub client: Client,
    /// Also the name of the slot.
    pub topic: String,
    postgres_more: String,
    has_outbox: bool,
    more: String,
}

impl Scene<'static> {
    /// On servers that the tests share. A test that holds a transaction open for long, or leaves
    /// one prepared, needs a Postgres of its own: the slots of all others would wait for it.
    pub async fn new(version: u16, partitions: i32) -> Scene<'static> {
        Scene::on(Postgres::shared(version), Kafka::shared(), partitions).await
    }
}

impl<'a> Scene<'a> {
    /// With Debezium's default outbox table, and a topic of so many partitions.
    pub async fn on(postgres: &'a Postgres, kafka: &'a Kafka, partitions: i32) -> Scene<'a> {
        let database = postgres.create_database().await.unwrap();
        Scene::in_database(database, postgres, kafka, partitions).await
    }

    /// The same in a database that has been made for it, and is empty.
    pub async fn in_database(
        database: Database,
        postgres: &'a Postgres,
        kafka: &'a Kafka,
        partitions: i32,
    ) -> Scene<'a> {
        database.create_outbox().await.unwrap();
        let client = database.client().await.unwrap();
        // A test that waits for a lock fails, and does not hang.
        client.batch_execute("SET statement_timeout = '60s'").await.unwrap();
        let topic = database.name().to_owned();
        if partitions > 0 {
            kafka.create_topic(&topic, partitions).await.unwrap();
        }
        let (postgres_more, more) = (String::new(), String::new());
        let has_outbox = true;
        Scene { postgres, kafka, database, client, topic, postgres_more, has_outbox, more }
    }

    /// Adds sections to the configuration of relays started from here on.
    pub fn configure(&mut self, more: &str) {
        self.more.push_str(more);
    }

    /// Takes the outbox out of it.
    pub fn without_outbox(&mut self) {
        self.has_outbox = false;
    }

    /// The same for keys of `[postgres]`.
    pub fn configure_postgres(&mut self, more: &str) {
        self.postgres_more.push_str(more);
    }

    /// The relay's configuration, with these servers.
    pub fn config(&self, url: &str, brokers: &str) -> String {
        let Scene { topic, more, postgres_more, .. } = self;
        // Of the topic that the scene has now: a test may have renamed it.
        let outbox = self.has_outbox.then(|| format!("[[outbox]]\ntopic = \"{topic}\""));
        let outbox = outbox.unwrap_or_default();
        let brokers = brokers.replace(',', "\", \"");
        format!(
            r#"
            [postgres]
            url = "{url}"
            slot = "{topic}"
            {postgres_more}
            [kafka]
            brokers = ["{brokers}"]
            [http]
            listen = "{{http}}"
            {outbox}
            {more}
            "#
        )
    }

    /// Starts a relay, and waits until it is ready.
    pub async fn relay(&self) -> Relay {
        let relay = self.start(&self.database.url(), &self.kafka.bootstrap());
        relay.wait_ready(PATIENCE).await.unwrap();
        relay
    }

    /// Starts a relay, and does not wait.
    pub fn start(&self, url: &str, brokers: &str) -> Relay {
        self.start_with(url, brokers, &[])
    }

    /// Starts a relay with more arguments, and does not wait.
    pub fn start_with(&self, url: &str, brokers: &str, args: &[&str]) -> Relay {
        let config = self.config(url, brokers);
        let binary = env!("CARGO_BIN_EXE_walrelay");
        Relay::builder(binary)
            .monitored()
            .config(config)
            .args(args.iter().copied())
            .start()
            .unwrap()
    }

    /// Runs one of the commands that answer and end: whether it was a good answer, and the answer.
    pub fn command(&self, url: &str, brokers: &str, args: &[&str]) -> (bool, String) {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.toml", self.topic));
        let config = self.config(url, brokers).replace("{http}", "127.0.0.1:1");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_walrelay"));
        let output = command.args(args).arg("--config").arg(&file).output().unwrap();
        std::fs::remove_file(&file).unwrap();
        let answer = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(answer).unwrap())
    }

    /// What `walrelay check` finds fault with: the lines of what failed and what is doubtful.
    pub fn faults(&self) -> Vec<String> {
        let (good, text) = self.command(&self.database.url(), &self.kafka.bootstrap(), &["check"]);
        let text = text.replace("\n      -> ", "; ");
        let faults = text.lines().filter(|line| !line.starts_with("ok "));
        let faults: Vec<_> = faults.map(|line| line.replace(&self.topic, "NAME")).collect();
        assert_eq!(good, !faults.iter().any(|line| line.starts_with("FAIL")), "{text}");
        faults
    }

    pub fn reader(&self) -> Reader {
        Reader::open(&self.kafka.bootstrap(), &self.topic).unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    /// One event in a transaction of its own.
    pub async fn insert(&self, key: &str, payload: &str) {
        self.execute(&insert(key, payload)).await;
    }

    /// `confirmed_flush_lsn` of the slot.
    pub async fn confirmed(&self) -> Lsn {
        let sql = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots
                   WHERE slot_name = $1";
        self.lsn(sql, &[&self.topic]).await
    }

    /// Where the server writes now.
    pub async fn written(&self) -> Lsn {
        self.lsn("SELECT pg_current_wal_lsn()::text", &[]).await
    }

    /// Waits until the slot has got to where the server writes now. Other tests write as well, so
    /// that it never stays there.
    pub async fn followed(&self, patience: Duration) {
        let target = self.written().await;
        let there = async || self.confirmed().await >= target;
        eventually(patience, "the slot to follow", there).await.unwrap();
    }

    async fn lsn(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Lsn {
        let row = self.client.query_one(sql, parameters).await.unwrap();
        row.get::<_, String>(0).parse().unwrap()
    }
}

/// The statement that writes an event; the payload is JSON.
pub fn insert(key: &str, payload: &str) -> String {
    format!(
        "INSERT INTO outbox (aggregatetype, aggregateid, type, payload) \
         VALUES ('post', '{key}', 'created', '{payload}');"
    )
}

/// Waits until `/readyz` says no for this reason; the relay goes on running.
pub async fn not_ready(relay: &Relay, why: &str) {
    let said = async || {
        let (status, text) = relay.get("/readyz").await.ok()?;
        (status == 503 && text.contains(why)).then_some(())
    };
    let (_, last) = relay.get("/readyz").await.unwrap_or_default();
    eventually(PATIENCE, &format!("{why:?}, not {last:?}"), said).await.unwrap();
    assert!(relay.is_running());
}

/// The LSN of the commit that a record's row came with. What is confirmed may get there, and not
/// beyond, before the record is acked.
pub fn commit_of(record: &Record) -> Lsn {
    let position = record.header("walrelay-position").unwrap();
    let commit = u64::from_str_radix(position.split('-').nth(1).unwrap(), 16).unwrap();
    Lsn::from_wire(commit)
}

/// Compares all that arrived in a topic of so many partitions with what was committed.
pub async fn judge(
    history: &History,
    client: &Client,
    records: &[Record],
    partitions: u32,
) -> Verdict {
    judge_grown(history, client, records, &[partitions]).await
}

/// The same for a topic that had these numbers of partitions, one after the other.
pub async fn judge_grown(
    history: &History,
    client: &Client,
    records: &[Record],
    counts: &[u32],
) -> Verdict {
    let truth = history.settle(client).await.unwrap();
    let seen: Vec<Seen> = records.iter().map(Seen::of).collect();
    check(&truth, &seen, &|key| {
        let key = format!("k{key}");
        let home = |count: &u32| i32::try_from(partition(key.as_bytes(), *count)).unwrap();
        counts.iter().map(home).collect()
    })
}
