//! One scenario: rows are written once, and each side reads them from a slot of its own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Database, Debezium, Kafka, Postgres, Relay, RunDir, read_all};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio_postgres::Client;

use crate::compare::{Compared, Event, compare};
use crate::scenario::{Scenario, Side};
use crate::scenarios::FUNCTIONS;

/// So that it shows where a key goes.
const PARTITIONS: i32 = 6;
/// The longest time for a scenario. What is not there by then is missing.
const PATIENCE: Duration = Duration::from_secs(120);
/// Nothing more is expected when all is there and nothing has come for so long.
const QUIET: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(100);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// As much of a log as is shown of a side that did not get on.
const LOG_LINES: usize = 40;

/// Counts inserts that are committed, whatever becomes of the rows.
const COUNTED: &str = "
CREATE TABLE inserted (n bigint GENERATED ALWAYS AS IDENTITY);
CREATE FUNCTION count_insert() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO inserted DEFAULT VALUES; RETURN NULL; END';
CREATE TRIGGER counted AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION count_insert();
";

/// Where everything runs.
pub struct Stage<'a> {
    pub postgres: &'a Postgres,
    pub kafka: &'a Kafka,
    /// The binary of walrelay.
    pub binary: &'a Path,
}

/// What came of a scenario.
pub struct Played {
    /// Rows that were inserted.
    pub rows: usize,
    pub compared: Vec<Compared>,
}

impl Stage<'_> {
    pub async fn play(&self, number: usize, scenario: &Scenario) -> Result<Played> {
        let database = self.postgres.create_database().await?;
        let play = Play { stage: self, number, scenario, database: &database };
        let played = play.play().await;
        database.remove().await?;
        played
    }
}

struct Play<'a> {
    stage: &'a Stage<'a>,
    number: usize,
    scenario: &'a Scenario,
    database: &'a Database,
}

impl Play<'_> {
    async fn play(&self) -> Result<Played> {
        let client = self.database.client().await?;
        self.set(&client).await?;
        for (number, rows) in self.scenario.rows.iter().enumerate() {
            let context = || format!("write the rows, query {}", number + 1);
            client.batch_execute(rows).await.with_context(context)?;
        }
        let rows: i64 = client.query_one("SELECT count(*) FROM inserted", &[]).await?.get(0);
        let rows = usize::try_from(rows)?;
        self.read(rows).await?;
        let [theirs, ours] = Side::BOTH.map(|side| self.events(side));
        let compared = compare(theirs?, ours?, self.scenario.has_times());
        Ok(Played { rows, compared })
    }

    /// Everything that the rows need, and slots that begin before them.
    async fn set(&self, client: &Client) -> Result<()> {
        let table = format!("CREATE TABLE outbox ({}); {COUNTED}", self.scenario.columns);
        client.batch_execute(&(table + FUNCTIONS)).await.context("make the table")?;
        for side in Side::BOTH {
            let name = self.slot(side);
            let sql = format!("CREATE PUBLICATION {name} FOR TABLE outbox");
            client.batch_execute(&sql).await.context("make the publication")?;
            let sql = "SELECT pg_create_logical_replication_slot($1::text, 'pgoutput')";
            client.execute(sql, &[&name]).await.context("make the slot")?;
            for topic in self.topics(side) {
                self.stage.kafka.create_topic(&topic, PARTITIONS).await?;
            }
        }
        Ok(())
    }

    /// Lets both sides read until they have sent all rows.
    async fn read(&self, rows: usize) -> Result<()> {
        let debezium = Debezium::start(&self.properties(Side::Debezium))?;
        let config = self.migrated()? + "\n[http]\nlisten = \"{http}\"\n";
        let relay = Relay::builder(self.stage.binary).config(config);
        // Which the translation asks for, because there is a password in the properties.
        let relay = relay.env("PGPASSWORD", "unused").start()?;
        let ends = Ends::of(&self.stage.kafka.bootstrap())?;
        let begun = Instant::now();
        let (mut before, mut changed) = ([0; 2], Instant::now());
        loop {
            let [theirs, ours] = Side::BOTH.map(|side| ends.records(self.topics(side)));
            let sent = [theirs?, ours?];
            if sent != before {
                (before, changed) = (sent, Instant::now());
            }
            if sent.iter().all(|sent| *sent >= rows) && changed.elapsed() > QUIET {
                return Ok(());
            }
            let runs = [debezium.is_running(), relay.is_running()];
            if runs.contains(&false) || begun.elapsed() > PATIENCE {
                let logs = [debezium.log(), relay.log()];
                for ((side, log), sent) in Side::BOTH.into_iter().zip(&logs).zip(sent) {
                    eprintln!("{} has sent {sent} of {rows}:\n{}", side.name(), end_of(log));
                }
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn properties(&self, side: Side) -> String {
        let brokers = self.stage.kafka.bootstrap();
        self.scenario.properties(self.database, &brokers, &self.slot(side), &self.prefix(side))
    }

    /// What `walrelay migrate debezium` makes of the properties.
    fn migrated(&self) -> Result<String> {
        let run = RunDir::create("migrate")?;
        let file = run.join("application.properties");
        fs::write(&file, self.properties(Side::Walrelay))?;
        let output = Command::new(self.stage.binary)
            .args(["migrate", "debezium"])
            .arg(&file)
            .output()
            .with_context(|| format!("run {}", self.stage.binary.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "migrate ended with {}: {said}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// All that a side has sent.
    fn events(&self, side: Side) -> Result<Vec<Event>> {
        let prefix = self.prefix(side);
        let mut events = Vec::new();
        for topic in self.topics(side) {
            let name = topic.strip_prefix(&prefix).unwrap_or(&topic);
            let records = read_all(&self.stage.kafka.bootstrap(), &topic)?;
            let event = |record| Event { topic: name.to_owned(), record };
            events.extend(records.into_iter().map(event));
        }
        Ok(events)
    }

    /// Also the name of the publication.
    fn slot(&self, side: Side) -> String {
        format!("{}_{}", side.name().to_lowercase(), self.number)
    }

    fn prefix(&self, side: Side) -> String {
        format!("{}.{}.", side.name().to_lowercase(), self.number)
    }

    fn topics(&self, side: Side) -> impl Iterator<Item = String> {
        let prefix = self.prefix(side);
        self.scenario.topics.iter().map(move |topic| format!("{prefix}{topic}"))
    }
}

/// Looks at how many records topics have.
struct Ends(BaseConsumer);

impl Ends {
    fn of(bootstrap: &str) -> Result<Ends> {
        Ok(Ends(ClientConfig::new().set("bootstrap.servers", bootstrap).create()?))
    }

    fn records(&self, topics: impl Iterator<Item = String>) -> Result<usize> {
        let mut records = 0;
        for topic in topics {
            for partition in 0..PARTITIONS {
                let (_, end) = self.0.fetch_watermarks(&topic, partition, REQUEST_TIMEOUT)?;
                records += usize::try_from(end)?;
            }
        }
        Ok(records)
    }
}

fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let first = lines.len().saturating_sub(LOG_LINES);
    lines.into_iter().skip(first).collect::<Vec<_>>().join("\n")
}
