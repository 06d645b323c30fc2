//! What Debezium's outbox router made of rows, and what we make of them.
//!
//! `tests/golden/` holds recordings of Debezium 3.6: tables, rows, a connector's configuration and
//! the records that came out. Each configuration is translated by `walrelay migrate debezium`, and
//! a relay with it is given the same rows. `golden.md` lists where the outcome differs, and why.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::debezium::without_nothing;
use lab::{Kafka, Postgres, Record, Relay, read_all};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use walrelay::lsn::Lsn;

use crate::scene::{LATEST, PATIENCE};

/// How many recordings are played at a time.
const AT_ONCE: usize = 4;
/// A relay that says the same for so long has come to a halt.
const HALTED: Duration = Duration::from_millis(1500);
/// Tells the records of one relay from those of others in the same topic.
const MARK: &str = "vector";

/// Rows, and what each deployment of Debezium made of them.
struct Case {
    name: String,
    recorded: Value,
}

/// What `golden.md` says of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Differs {
    /// Values are the same JSON, but for what Debezium leaves out of it.
    AsJson,
    /// Values are others.
    Values,
    /// Keys are others, and so partitions.
    Keys,
    /// Headers are others.
    Headers,
    /// Times are others.
    Times,
    /// Debezium sends more: records of its own, or rows from before it was started.
    Fewer,
    /// Debezium fails or drops rows, and we go on.
    GoesOn,
    /// The same, and values are others.
    GoesOnWithValues,
    /// The configuration is not translated.
    Untranslated,
    /// The relay does not begin.
    Refused,
    /// The relay stops at a row, with everything before it sent.
    Halts,
}

/// How a relay ended up.
#[derive(Debug)]
enum Outcome {
    Done,
    #[expect(dead_code, reason = "what was said, for a test that fails")]
    Untranslated(String),
    #[expect(dead_code, reason = "the same")]
    Refused(String),
    #[expect(dead_code, reason = "the same")]
    Halted(String),
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recording_of_debezium_comes_out_the_same_or_is_listed() {
    let cases = cases();
    let mut listed = listed();
    let (postgres, kafka) = (Postgres::shared(LATEST), Kafka::shared());
    let topics = cases.iter().flat_map(Case::vectors).flat_map(|(_, vector)| records(vector));
    let mut topics: Vec<&str> = topics.map(|record| text(&record["topic"])).collect();
    // And where we go on.
    topics.extend(["outbox.event.Customer", "outbox.event.Order", "outbox.event.7"]);
    topics.sort_unstable();
    topics.dedup();
    for topic in &topics {
        kafka.create_topic(topic, 6).await.unwrap();
    }

    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let played = cases.iter().map(|case| {
        let turns = Arc::clone(&turns);
        async move {
            let _turn = turns.acquire().await.unwrap();
            play(case, postgres, kafka).await
        }
    });
    let outcomes = futures_util::future::join_all(played).await;

    let bootstrap = kafka.bootstrap();
    let mut arrived: BTreeMap<String, Vec<(String, Record)>> = BTreeMap::new();
    for topic in topics {
        for mut record in read_all(&bootstrap, topic).unwrap() {
            if let Some(mark) = record.header(MARK) {
                record.headers.retain(|(name, _)| name != MARK);
                arrived.entry(mark).or_default().push((topic.to_owned(), record));
            }
        }
    }
    let mut wrong = Vec::new();
    let mut count = 0;
    for (case, outcomes) in cases.iter().zip(outcomes) {
        for ((deployment, vector), outcome) in case.vectors().zip(outcomes) {
            let name = format!("{}.{deployment}", case.name);
            let differs = listed.remove(&name);
            let arrived = arrived.remove(&name).unwrap_or_default();
            count += 1;
            if let Err(what) = judge(vector, &outcome, &arrived, differs) {
                wrong.push(format!("{name} ({differs:?}): {what}"));
            }
        }
    }
    wrong.extend(listed.into_keys().map(|name| format!("{name} is listed, and there is none")));
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(count, 322);
}

/// All recordings.
fn cases() -> Vec<Case> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let only = std::env::var("WALRELAY_GOLDEN").unwrap_or_default();
    let mut cases: Vec<Case> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| Case {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            recorded: serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap(),
        })
        .filter(|case| case.name.starts_with(&only))
        .collect();
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    cases
}

/// What differs, by recording: the rows of the table in `golden.md`, `| case | deployments |
/// verdict | why |`, where no deployment is all of them.
fn listed() -> BTreeMap<String, Differs> {
    let text = include_str!("golden.md");
    let mut listed = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [case, deployments, verdict, why] = cells.as_slice() else { panic!("{line}") };
        assert!(!why.is_empty(), "{line}");
        let differs = match *verdict {
            "same JSON" => Differs::AsJson,
            "other values" => Differs::Values,
            "other keys" => Differs::Keys,
            "other headers" => Differs::Headers,
            "other times" => Differs::Times,
            "fewer" => Differs::Fewer,
            "goes on" => Differs::GoesOn,
            "goes on, other values" => Differs::GoesOnWithValues,
            "not translated" => Differs::Untranslated,
            "refused" => Differs::Refused,
            "halts" => Differs::Halts,
            _ => panic!("{line}"),
        };
        for case in cases().iter().filter(|it| it.name.split('-').next() == Some(case)) {
            for (deployment, _) in case.vectors() {
                let named = deployments.split(' ').any(|it| it == deployment);
                if *deployments == "all" || named {
                    let before = listed.insert(format!("{}.{deployment}", case.name), differs);
                    assert_eq!(before, None, "twice: {line}");
                }
            }
        }
    }
    listed
}

impl Case {
    /// Each deployment and its recording.
    fn vectors(&self) -> impl Iterator<Item = (&str, &Value)> {
        let vectors = self.recorded["vectors"].as_object().unwrap();
        vectors.iter().map(|(deployment, vector)| (deployment.as_str(), vector))
    }

    fn sql(&self, name: &str) -> &str {
        self.recorded[name].as_str().unwrap_or_default()
    }
}

fn records(vector: &Value) -> &Vec<Value> {
    vector["records"].as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Plays a case to one relay for each deployment.
async fn play(case: &Case, postgres: &Postgres, kafka: &Kafka) -> Vec<Outcome> {
    let database = postgres.create_database().await.unwrap();
    let client = database.client().await.unwrap();
    client.batch_execute(case.sql("setup")).await.unwrap();
    let publication =
        format!("CREATE PUBLICATION golden FOR TABLE outbox {}", case.sql("publication"));
    client.batch_execute(&publication).await.unwrap();
    client.batch_execute(case.sql("before")).await.unwrap();
    let mut relays = Vec::new();
    for (number, (deployment, vector)) in case.vectors().enumerate() {
        let slot = format!("{}_{number}", database.name());
        let config = match translated(deployment, vector) {
            Ok(config) => config + "\n[http]\nlisten = \"{http}\"\n",
            Err(refused) => {
                relays.push((slot, Err(Outcome::Untranslated(refused))));
                continue;
            }
        };
        let mark = format!("{}.{deployment}", case.name);
        let relay = Relay::builder(env!("CARGO_BIN_EXE_walrelay"))
            .config(config)
            .env("WALRELAY__POSTGRES__URL", &database.url())
            .env("WALRELAY__POSTGRES__SLOT", &slot)
            .env("WALRELAY__POSTGRES__PUBLICATION", "golden")
            .env("WALRELAY__POSTGRES__CREATE", "true")
            .env("WALRELAY__POSTGRES__STATUS_INTERVAL", "100ms")
            .env("WALRELAY__KAFKA__BROKERS", &kafka.bootstrap())
            .env("WALRELAY__DELIVERY__POSITIONS_TOPIC", "")
            .env("WALRELAY__OUTBOX__0__STATIC_HEADERS__VECTOR", &mark);
        relays.push((slot, Ok(relay.start().unwrap())));
    }
    let mut outcomes = Vec::new();
    for (slot, relay) in relays {
        outcomes.push(match relay {
            Err(untranslated) => (slot, Err(untranslated)),
            Ok(relay) => match settled(&relay, async || ready(&relay).await).await {
                Some(said) => (slot, Err(Outcome::Refused(said))),
                None => (slot, Ok(relay)),
            },
        });
    }
    client.batch_execute(case.sql("rows")).await.unwrap();
    let row = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap();
    let written: Lsn = row.get::<_, String>(0).parse().unwrap();
    let confirmed = async |slot: &str| {
        let sql = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1";
        let row = client.query_one(sql, &[&slot]).await.unwrap();
        row.get::<_, String>(0).parse::<Lsn>().unwrap() >= written
    };
    let mut ended = Vec::new();
    for (slot, relay) in outcomes {
        ended.push(match relay {
            Err(outcome) => outcome,
            Ok(relay) => match settled(&relay, async || confirmed(&slot).await).await {
                None => Outcome::Done,
                Some(said) => Outcome::Halted(said),
            },
        });
    }
    ended
}

async fn ready(relay: &Relay) -> bool {
    relay.get("/readyz").await.is_ok_and(|(status, _)| status == 200)
}

/// Waits until it is so, or the relay has come to a halt: then what it says.
async fn settled(relay: &Relay, so: impl AsyncFn() -> bool) -> Option<String> {
    let began = Instant::now();
    let mut said = (String::new(), Instant::now());
    loop {
        if so().await {
            return None;
        }
        if !relay.is_running() {
            return Some(relay.log());
        }
        let says = match relay.get("/readyz").await {
            Ok((503, says)) => says,
            _ => String::new(),
        };
        if says != said.0 {
            said = (says, Instant::now());
        }
        // What it says while it connects passes by itself.
        let halted = ["row ", "set ", "run:", "create it"].iter().any(|it| said.0.contains(it));
        if halted && said.1.elapsed() > HALTED {
            return Some(said.0);
        }
        assert!(began.elapsed() < PATIENCE, "neither done nor halted: {said:?}\n{}", relay.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The connector's configuration as its users write it, translated.
fn translated(deployment: &str, vector: &Value) -> Result<String, String> {
    let pairs = |name: &str, prefix: &str| {
        let pairs = vector[name].as_object().unwrap().iter();
        let pairs = pairs.map(|(key, value)| (format!("{prefix}{key}"), text(value).to_owned()));
        // So it is written where the default was recorded.
        pairs.filter(|(_, value)| !value.ends_with(" (default)")).collect::<Vec<_>>()
    };
    let fixed = [
        ("connector.class", "io.debezium.connector.postgresql.PostgresConnector"),
        ("plugin.name", "pgoutput"),
        ("publication.autocreate.mode", "disabled"),
        ("database.hostname", "localhost"),
        ("database.user", "relay"),
        ("database.dbname", "app"),
    ];
    let router = "io.debezium.transforms.outbox.EventRouter".to_owned();
    let of_source =
        |prefix: &str| fixed.map(|(key, value)| (format!("{prefix}{key}"), value.into()));
    let migrated = if deployment.starts_with("connect") {
        let mut config = Map::new();
        let all = of_source("").into_iter().chain(pairs("connector", ""));
        let all = all.chain(pairs("options", "transforms.outbox."));
        let all = all.chain(pairs("converters", "")).chain([
            ("transforms".to_owned(), "outbox".to_owned()),
            ("transforms.outbox.type".to_owned(), router),
        ]);
        config.extend(all.map(|(key, value)| (key, Value::from(value))));
        walrelay::migrate::debezium("connector.json", &Value::from(config).to_string())
    } else {
        let all = of_source("debezium.source.").into_iter();
        let all = all.chain(pairs("connector", "debezium.source."));
        let all = all.chain(pairs("options", "debezium.transforms.outbox."));
        let all = all.chain(pairs("converters", "debezium.")).chain([
            ("debezium.transforms".to_owned(), "outbox".to_owned()),
            ("debezium.transforms.outbox.type".to_owned(), router),
            ("debezium.sink.type".to_owned(), "kafka".to_owned()),
            ("debezium.sink.kafka.producer.bootstrap.servers".to_owned(), "localhost:1".to_owned()),
        ]);
        let line =
            |(key, value): (String, String)| format!("{key}={}\n", value.replace('\\', r"\\"));
        walrelay::migrate::debezium("application.properties", &all.map(line).collect::<String>())
    };
    migrated.map_err(|refused| refused.to_string())
}

/// Whether the outcome is the recorded one, or differs as it is said to.
fn judge(
    vector: &Value,
    outcome: &Outcome,
    arrived: &[(String, Record)],
    differs: Option<Differs>,
) -> Result<(), String> {
    use Differs::{Fewer, GoesOn, GoesOnWithValues, Halts, Refused, Untranslated};
    let fails = !vector["error"].is_null();
    match (differs, outcome) {
        (Some(Untranslated), Outcome::Untranslated(_)) | (Some(Refused), Outcome::Refused(_)) => {
            let sends = !fails && !records(vector).is_empty();
            return if sends { Err("what Debezium can do is refused".to_owned()) } else { Ok(()) };
        }
        (Some(Halts), Outcome::Halted(_)) if fails => {}
        (Some(GoesOn | GoesOnWithValues), Outcome::Done) => {}
        (None | Some(Fewer), Outcome::Done) if !fails => {}
        (Some(Untranslated | Refused | Halts | GoesOn) | None, outcome) => {
            return Err(format!(
                "Debezium {}: {outcome:?}",
                if fails { "fails" } else { "goes on" }
            ));
        }
        (Some(_), Outcome::Done) => {}
        (Some(_), outcome) => return Err(format!("{outcome:?}")),
    }
    let mut left: Vec<_> = arrived.iter().collect();
    let mut last: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for expected in records(vector) {
        let place = left.iter().position(|(topic, record)| {
            topic == text(&expected["topic"]) && is_the_same(expected, record, differs)
        });
        match place {
            None if differs == Some(Fewer) => {}
            None => {
                let topic = text(&expected["topic"]);
                let there = left.iter().filter(|(it, _)| it == topic).map(|(_, it)| shown(it));
                let there = there.collect::<Vec<_>>().join("\n    ");
                return Err(format!("is missing:\n    {expected}\namong:\n    {there}"));
            }
            Some(index) => {
                let (topic, record) = left.remove(index);
                // In the order of the recording, which is that of the rows.
                // Without a key, Debezium's producer chose another partition.
                if !expected["partition"].is_null() {
                    let before = last.insert((topic, record.partition), record.offset);
                    if before.is_some_and(|before| before > record.offset) {
                        return Err(format!("came too early: {}", shown(record)));
                    }
                }
            }
        }
    }
    let goes_on = matches!(differs, Some(GoesOn | GoesOnWithValues));
    if left.is_empty() == goes_on {
        let left: Vec<_> = left.iter().map(|(_, record)| shown(record)).collect();
        return Err(format!("what comes beside: {left:?}"));
    }
    Ok(())
}

fn is_the_same(expected: &Value, record: &Record, differs: Option<Differs>) -> bool {
    let volatile = |what: &str| expected.get(what).is_some_and(|it| it == true);
    let keys = differs == Some(Differs::Keys) || volatile("key_volatile");
    let partition =
        expected["partition"].as_i64().is_none_or(|it| it == i64::from(record.partition));
    let timestamp = expected["timestamp_ms"].as_i64();
    (keys || (partition && bytes(&expected["key"]) == record.key))
        && (differs == Some(Differs::Times)
            || timestamp.is_none_or(|it| Some(it) == record.timestamp_ms))
        && same_value(expected, record, differs)
        && (differs == Some(Differs::Headers) || same_headers(expected, record))
}

fn same_value(expected: &Value, record: &Record, differs: Option<Differs>) -> bool {
    if let Some(sum) = expected.get("value_sha256") {
        let payload = record.payload.as_deref().unwrap_or_default();
        let digits = Sha256::digest(payload).into_iter().map(|byte| format!("{byte:02x}"));
        return digits.collect::<Vec<_>>().concat() == text(sum);
    }
    let value = bytes(&expected["value"]);
    match differs {
        Some(Differs::Values | Differs::GoesOnWithValues) => true,
        Some(Differs::AsJson) => {
            let parsed = |bytes: &Option<Vec<u8>>| {
                bytes.as_ref().map(|bytes| serde_json::from_slice(bytes).map(without_nothing).ok())
            };
            let ours = parsed(&record.payload);
            ours != Some(None) && parsed(&value) == ours
        }
        _ => expected.get("value_volatile").is_some() || value == record.payload,
    }
}

fn same_headers(expected: &Value, record: &Record) -> bool {
    let volatile = expected.get("headers_volatile").and_then(Value::as_array);
    let skipped = |name: &str| volatile.is_some_and(|names| names.iter().any(|it| it == name));
    let headers = expected["headers"].as_array().unwrap().iter();
    let headers = headers.map(|pair| (text(&pair[0]), bytes(&pair[1])));
    let headers = headers.filter(|(name, _)| !skipped(name));
    let ours = record.headers.iter().map(|(name, value)| (name.as_str(), value.clone()));
    headers.eq(ours.filter(|(name, _)| !skipped(name)))
}

/// Text, hexadecimal where it is none, or nothing.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone().into_bytes()),
        hex => {
            let digits =
                text(&hex["hex"]).as_bytes().chunks(2).map(|it| str::from_utf8(it).unwrap());
            Some(digits.map(|it| u8::from_str_radix(it, 16).unwrap()).collect())
        }
    }
}

fn shown(record: &Record) -> String {
    let shown = |bytes: Option<&[u8]>| bytes.map(|it| String::from_utf8_lossy(it).into_owned());
    let headers = record.headers.iter().map(|(name, value)| (name, shown(value.as_deref())));
    format!(
        "partition {} key {:?} value {:?} time {:?} headers {:?}",
        record.partition,
        shown(record.key.as_deref()),
        shown(record.payload.as_deref()),
        record.timestamp_ms,
        headers.collect::<Vec<_>>()
    )
}
