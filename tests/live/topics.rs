//! Topics that go and come back, forget, or are paced.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::{Kafka, Record, eventually, read_all, wait_until};
use walrelay::config::Config;
use walrelay::kafka::partition::partition;
use walrelay::kafka::producer::Producer;
use walrelay::kafka::routes::Counts;
use walrelay::kafka::settings::Settings;

use crate::scene::{LATEST, PATIENCE, Scene, commit_of, insert, not_ready};

fn numbers(records: &[Record]) -> Vec<u32> {
    records.iter().map(|record| record.payload_text().parse().unwrap()).collect()
}

/// Adds a setting to a client, a topic or the like.
fn alter(kafka: &Kafka, kind: &str, name: &str, setting: &str) {
    let bootstrap = kafka.bootstrap();
    let what = ["--bootstrap-server", &*bootstrap, "--entity-type", kind, "--entity-name", name];
    let args = [&what[..], &["--alter", "--add-config", setting]].concat();
    kafka.run_tool("kafka.admin.ConfigCommand", &args, "").unwrap();
}

/// What was acknowledged before went with the topic. What comes after it waits, and says for what.
#[tokio::test(flavor = "multi_thread")]
async fn d14_a_deleted_topic_is_waited_for() {
    let mut scene = Scene::new(LATEST, 1).await;
    scene.configure("[kafka.properties]\n\"topic.metadata.propagation.max.ms\" = 2000");
    let relay = scene.relay().await;
    scene.insert("k", "0").await;
    scene.reader().poll_until(1, PATIENCE).unwrap();
    scene.followed(PATIENCE).await;
    scene.kafka.delete_topic(&scene.topic).await.unwrap();
    for n in 1..20 {
        scene.insert("k", &n.to_string()).await;
    }
    not_ready(&relay, "create it").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let held = scene.confirmed().await;
    scene.kafka.create_topic(&scene.topic, 1).await.unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.followed(PATIENCE).await;
    let records = read_all(&scene.kafka.bootstrap(), &scene.topic).unwrap();
    // What lies before the first of them may have been told late.
    assert!(held <= commit_of(&records[0]), "{held} was confirmed without an ack");
    assert_eq!(numbers(&records), (1..20).collect::<Vec<_>>());
}

/// A NULL key has no order, and says so by having no key; an empty key is a key like any other.
/// A compacted topic takes no record without a key, and the row is named that has none.
#[tokio::test(flavor = "multi_thread")]
async fn d18_d26_records_without_a_key_and_records_without_a_value() {
    let scene = Scene::new(LATEST, 4).await;
    scene.execute("ALTER TABLE outbox ALTER aggregateid DROP NOT NULL").await;
    let compacted = Scene::new(LATEST, 0).await;
    compacted.execute("ALTER TABLE outbox ALTER aggregateid DROP NOT NULL").await;
    let settings = [("cleanup.policy", "compact")];
    compacted.kafka.create_topic_with(&compacted.topic, 1, &settings).await.unwrap();
    let without_key = insert("k", "7").replace("'k'", "NULL");
    let without_value = insert("k1", "7").replace("'7'", "NULL");

    let _relay = scene.relay().await;
    let rows: String = (0..20).map(|n| insert("", &n.to_string()) + &without_key).collect();
    scene.execute(&rows).await;
    let mut reader = scene.reader();
    let records = reader.poll_until(40, PATIENCE).unwrap();
    let keyed: Vec<_> = records.iter().filter(|it| it.key.is_some()).cloned().collect();
    assert_eq!(numbers(&keyed), (0..20).collect::<Vec<_>>());
    let place = i32::try_from(partition(b"", 4)).unwrap();
    assert!(keyed.iter().all(|record| record.partition == place));
    assert_eq!(records.len() - keyed.len(), 20);

    let relay = compacted.relay().await;
    compacted.execute(&[&*insert("k1", "1"), &without_value].concat()).await;
    let mut reader = compacted.reader();
    assert_eq!(reader.poll_until(2, PATIENCE).unwrap()[1].payload, None, "a tombstone");
    compacted.followed(PATIENCE).await;
    compacted.execute(&without_key).await;
    not_ready(&relay, "a record without a key cannot go to a compacted topic").await;
    relay.wait_for_log(PATIENCE, "ERROR halted: row ").unwrap();
    alter(compacted.kafka, "topics", &compacted.topic, "cleanup.policy=delete");
    let records = reader.poll_until(3, PATIENCE).unwrap();
    assert_eq!((records.len(), records[2].key.clone()), (3, None));
    relay.wait_ready(PATIENCE).await.unwrap();
}

/// A broker that holds a client back says so nowhere: only the age of what is in flight grows.
#[tokio::test(flavor = "multi_thread")]
async fn d23_a_quota_slows_the_relay_down_and_nothing_else() {
    const ROWS: u32 = 300;
    let mut scene = Scene::new(LATEST, 1).await;
    let client = format!("\"client.id\" = \"{}\"\n\"batch.size\" = 4000", scene.topic);
    scene.configure(&format!("[kafka.properties]\n{client}"));
    alter(scene.kafka, "clients", &scene.topic, "producer_byte_rate=40000");
    let relay = scene.relay().await;
    let sessions = relay.metric("walrelay_sessions_total").await;
    let begun = Instant::now();
    let pad = "x".repeat(2000);
    let row = |n: u32| insert("k", &format!("{{\"n\": {n}, \"pad\": \"{pad}\"}}"));
    scene.execute(&(0..ROWS).map(row).collect::<String>()).await;
    let mut oldest = 0.0_f64;
    let all = async || {
        oldest = oldest.max(relay.metric("walrelay_last_ack_age_seconds").await.unwrap());
        relay.metric("walrelay_in_flight_records").await == Some(0.0)
            && relay.metric("walrelay_events_total").await == Some(f64::from(ROWS))
    };
    eventually(PATIENCE, "all to be acked", all).await.unwrap();
    let took = begun.elapsed();
    println!("{took:?}, the oldest was {oldest} s old");
    // 600 kB at 40 kB/s, less what a window of ten seconds allows beforehand.
    assert!(took > Duration::from_secs(2) && oldest > 1.0, "{took:?}, {oldest} s: no quota");
    let records = read_all(&scene.kafka.bootstrap(), &scene.topic).unwrap();
    let prefix = |n: u32| format!("{{\"n\": {n},");
    assert_eq!(records.len(), 300);
    assert!((0..).zip(&records).all(|(n, it)| it.payload_text().starts_with(&prefix(n))));
    assert_eq!(relay.metric("walrelay_sessions_total").await, sessions);
}

/// Without what is remembered, the slot counts, which is never beyond what was delivered.
#[tokio::test(flavor = "multi_thread")]
async fn d39_a_lost_positions_topic_loses_no_row() {
    let mut scene = Scene::new(LATEST, 1).await;
    let positions = format!("{}-positions", scene.topic);
    scene.configure(&format!(
        "[delivery]\npositions_topic = \"{positions}\"\n\
         [kafka.properties]\n\"topic.metadata.propagation.max.ms\" = 2000"
    ));
    let relay = scene.relay().await;
    scene.insert("k", "0").await;
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();
    scene.followed(PATIENCE).await;

    // While it runs: nothing is confirmed that is remembered nowhere, until it is again.
    scene.kafka.delete_topic(&positions).await.unwrap();
    scene.insert("k", "1").await;
    relay.wait_for_log(PATIENCE, &format!("a record of topic {positions}")).unwrap();
    scene.followed(PATIENCE).await;
    relay.wait_ready(PATIENCE).await.unwrap();
    assert!(!read_all(&scene.kafka.bootstrap(), &positions).unwrap().is_empty());

    // While it does not run.
    relay.terminate_and_wait(PATIENCE).unwrap();
    scene.kafka.delete_topic(&positions).await.unwrap();
    scene.insert("k", "2").await;
    relay.start_again().unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k", "3").await;
    scene.followed(PATIENCE).await;
    let mut arrived = numbers(reader.read_to_end(PATIENCE).unwrap());
    arrived.dedup();
    assert_eq!(arrived, [0, 1, 2, 3]);
}

/// Reports are served by a thread that waits for nobody: here with the runtime's only thread
/// blocked from the first record to the last ack.
#[tokio::test]
async fn d8_acks_come_while_the_loop_is_stuck() {
    let scene = Scene::new(LATEST, 1).await;
    let text = scene.config(&scene.database.url(), &scene.kafka.bootstrap());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("d8.toml");
    fs::write(&file, text.replace("{http}", "127.0.0.1:1")).unwrap();
    let config = Config::load(Some(&file), std::iter::empty()).unwrap();
    fs::remove_file(&file).unwrap();
    let producer = Producer::start(&Settings::new(&config), Counts::new()).unwrap();
    for n in 0..20 {
        assert!(producer.send_position(&scene.topic, 0, "k", &n.to_string()));
        let acked = || producer.acks().fetch(&mut Vec::new()).unwrap();
        wait_until(PATIENCE, "the ack", acked).unwrap();
    }
    drop(producer);
    let records = read_all(&scene.kafka.bootstrap(), &scene.topic).unwrap();
    assert_eq!(numbers(&records), (0..20).collect::<Vec<_>>());
}
