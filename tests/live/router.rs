//! What Debezium's outbox router does to rows, behaviour by behaviour, and what we do.
//!
//! The recordings of `golden.rs` show it for configurations as they are met; here each case is one
//! sentence about the router, with its configuration in our own words, and says so where we differ
//! on purpose. Cases that send go through one relay, each with a table of its own; those that are
//! refused, or halt, have a relay each.

mod cases;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::join_all;
use lab::{Database, Kafka, Postgres, Record, Relay, eventually, read_all};
use tokio_postgres::Client;
use walrelay::lsn::Lsn;

use crate::scene::{LATEST, PATIENCE};
use cases::CASES;

/// The header that tells the records of one case from those of others.
const MARK: &str = "case";
/// How long a relay may take to say what is wrong.
const SAID_MAX: Duration = Duration::from_secs(30);
/// Of every topic.
const PARTITIONS: i32 = 3;

/// One behaviour.
struct Case {
    /// What Debezium does, with the section of its description.
    what: &'static str,
    /// How we differ from that on purpose, and why.
    differs: &'static str,
    /// The table, if it is not [`cases::COLUMNS`].
    columns: &'static str,
    /// Keys of its `[[outbox]]`.
    outbox: &'static str,
    /// Rows, each in a transaction of its own, or other statements, with `T` for the table.
    rows: &'static [&'static str],
    outcome: Outcome,
}

enum Outcome {
    /// These records come out, and no others.
    Sends(&'static [&'static str]),
    /// The relay does not begin, and says this.
    Refuses(&'static str),
    /// It sends these and halts, and says this.
    Halts(&'static [&'static str], &'static str),
}

use Outcome::{Halts, Refuses, Sends};

impl Case {
    /// Makes the table.
    async fn prepare(&self, client: &Client, table: &str) {
        let columns = if self.columns.is_empty() { cases::COLUMNS } else { self.columns };
        client.batch_execute(&format!("CREATE TABLE {table} ({columns})")).await.unwrap();
    }

    async fn write(&self, client: &Client, table: &str) {
        for row in self.rows {
            let sql = match row.strip_prefix('(') {
                Some(_) => format!("INSERT INTO {table} VALUES {row}"),
                None => row.replace(" T", &format!(" {table}")),
            };
            client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
    }

    fn outbox(&self, table: &str) -> String {
        let Case { outbox, .. } = self;
        format!(
            "[[outbox]]\ntable = '{table}'\nstatic_headers = {{ {MARK} = '{table}' }}\n{outbox}\n"
        )
    }

    fn records(&self) -> &'static [&'static str] {
        match self.outcome {
            Sends(records) | Halts(records, _) => records,
            Refuses(_) => &[],
        }
    }
}

/// A relay with these outboxes, whose slot and publication have this name.
fn relay(name: &str, database: &Database, kafka: &Kafka, outboxes: &str) -> Relay {
    let (url, slot) = (database.url(), format!("{}_{name}", database.name()));
    let config = format!(
        r#"
        [postgres]
        url = "{url}"
        slot = "{slot}"
        publication = "{name}"
        status_interval = "100ms"
        [kafka]
        brokers = ["{}"]
        [delivery]
        positions_topic = ""
        position_header = ""
        [http]
        listen = "{{http}}"
        {outboxes}
        "#,
        kafka.bootstrap()
    );
    Relay::builder(env!("CARGO_BIN_EXE_walrelay")).monitored().config(config).start().unwrap()
}

/// Waits until everything that is written by now is confirmed.
async fn followed(client: &Client, database: &Database, name: &str) {
    let row = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap();
    let written: Lsn = row.get::<_, String>(0).parse().unwrap();
    let slot = format!("{}_{name}", database.name());
    let there = async || {
        let sql = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1";
        let row = client.query_one(sql, &[&slot]).await.unwrap();
        row.get::<_, String>(0).parse::<Lsn>().unwrap() >= written
    };
    eventually(PATIENCE, "the slot to follow", there).await.unwrap();
}

/// Topic, key, value and headers, and partition and time if they are `wanted`.
fn shown(topic: &str, record: &Record, wanted: &str) -> String {
    let text = |bytes: Option<&[u8]>| match bytes {
        Some(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        None => "null".to_owned(),
    };
    let (key, value) = (text(record.key.as_deref()), text(record.payload.as_deref()));
    let mut shown = format!("{topic} {key} {value}");
    for (name, value) in &record.headers {
        // A number of the table, and a place in the log.
        let volatile = [MARK, "walrelay-table", "walrelay-commit-lsn"];
        if !volatile.contains(&name.as_str()) {
            write!(shown, " {name}={}", text(value.as_deref())).unwrap();
        }
    }
    if wanted.contains(" partition ") {
        write!(shown, " partition {}", record.partition).unwrap();
    }
    if wanted.contains(" time ") {
        write!(shown, " time {}", record.timestamp_ms.unwrap()).unwrap();
    }
    shown
}

/// Records come from several partitions: what counts is what came, and the order of each key.
fn compare(case: &Case, arrived: &[(String, Record)]) -> Result<(), String> {
    let mut left: Vec<&(String, Record)> = arrived.iter().collect();
    let mut last: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for wanted in case.records() {
        let found = left.iter().position(|(topic, it)| shown(topic, it, wanted) == **wanted);
        let Some(found) = found else {
            let there: Vec<_> = left.iter().map(|(topic, it)| shown(topic, it, wanted)).collect();
            return Err(format!("is missing:\n  {wanted}\namong:\n  {}", there.join("\n  ")));
        };
        let (topic, record) = left.remove(found);
        let before = last.insert((topic, record.partition), record.offset);
        if before.is_some_and(|before| before > record.offset) {
            return Err(format!("came too early: {wanted}"));
        }
    }
    let left: Vec<_> = left.iter().map(|(topic, it)| shown(topic, it, "")).collect();
    if left.is_empty() { Ok(()) } else { Err(format!("come beside: {left:#?}")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_behaviour_of_debeziums_router_is_ours_or_differs_as_it_says() {
    let (postgres, kafka) = (Postgres::shared(LATEST), Kafka::shared());
    let database = postgres.create_database().await.unwrap();
    let client = database.client().await.unwrap();
    let topic_of = |record: &str| record.split(' ').next().unwrap().to_owned();
    let topics: BTreeSet<String> =
        CASES.iter().flat_map(Case::records).map(|record| topic_of(record)).collect();
    for topic in &topics {
        kafka.create_topic(topic, PARTITIONS).await.unwrap();
    }
    let named: Vec<(String, &Case)> = (0..)
        .zip(CASES)
        .map(|(number, case): (usize, _)| (format!("case{number}"), case))
        .collect();
    let mut together = String::new();
    for (table, case) in &named {
        case.prepare(&client, table).await;
        if let Sends(_) = case.outcome {
            together += &case.outbox(table);
        }
    }

    let all = relay("together", &database, kafka, &together);
    all.wait_ready(PATIENCE).await.unwrap();
    let alone = named.iter().filter(|(_, case)| !matches!(case.outcome, Sends(_)));
    let failed = alone.map(|(table, case)| fails(case, table, &database, &client, kafka));
    let failed = join_all(failed).await;
    let mut wrong: Vec<String> = failed.into_iter().filter_map(Result::err).collect();
    for (table, case) in &named {
        if let Sends(_) = case.outcome {
            case.write(&client, table).await;
        }
    }
    followed(&client, &database, "together").await;

    let mut arrived: BTreeMap<String, Vec<(String, Record)>> = BTreeMap::new();
    for topic in topics {
        for record in read_all(&kafka.bootstrap(), &topic).unwrap() {
            if let Some(table) = record.header(MARK) {
                arrived.entry(table).or_default().push((topic.clone(), record));
            }
        }
    }
    for (table, case) in &named {
        let records = arrived.remove(table).unwrap_or_default();
        if let Err(what) = compare(case, &records) {
            let Case { what: does, differs, .. } = case;
            wrong.push(format!("{does} (we differ: {differs:?})\n{what}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n\n{}", wrong.len(), CASES.len(), wrong.join("\n\n"));
}

/// Plays a case that a relay of its own refuses, or halts at.
async fn fails(
    case: &Case,
    table: &str,
    database: &Database,
    client: &Client,
    kafka: &Kafka,
) -> Result<(), String> {
    let relay = relay(table, database, kafka, &case.outbox(table));
    let said = async |what: &str| {
        let what = what.replace('T', table);
        let said = async || {
            let says = relay.get("/readyz").await.map(|(_, says)| says).unwrap_or_default();
            says.contains(&what) || !relay.is_running() && relay.log().contains(&what)
        };
        let waited = eventually(SAID_MAX, format!("{what:?}"), said).await;
        waited.map_err(|error| format!("{}\n{error}\n{}", case.what, relay.log()))
    };
    match case.outcome {
        Sends(_) => Ok(()),
        Refuses(what) => said(what).await,
        Halts(_, what) => {
            relay.wait_ready(PATIENCE).await.map_err(|error| format!("{}: {error}", case.what))?;
            case.write(client, table).await;
            said(what).await
        }
    }
}
