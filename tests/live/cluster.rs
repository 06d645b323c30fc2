//! Three brokers: leaders and controllers that change, and replicas that are missing.

use std::collections::HashMap;
use std::time::Duration;

use lab::history::History;
use lab::load::{Load, PACED, Shape};
use lab::{Kafka, Postgres, Record, eventually, read_all};

use crate::scene::{LATEST, PATIENCE, Scene, judge, not_ready};

const PARTITIONS: u32 = 3;
const SHAPE: Shape = Shape { writers: 2, keys: 50, pause: Duration::from_millis(10), ..PACED };

/// What a consumer keeps that compares positions, as README tells it to.
fn without_repeats(records: &[Record]) -> Vec<Record> {
    let mut handled: HashMap<i32, String> = HashMap::new();
    let mut kept = Vec::new();
    for record in records {
        let position = record.header("walrelay-position").unwrap();
        let last = handled.entry(record.partition).or_default();
        if position > *last {
            *last = position;
            kept.push(record.clone());
        }
    }
    kept
}

/// The broker that leads the first partition, once it is another one than `before`.
async fn leader<'a>(kafka: &'a Kafka, topic: &str, before: Option<i32>) -> &'a lab::kafka::Broker {
    let led = async || {
        let leader = kafka.leader(topic, 0).await.ok()??;
        (Some(leader.id()) != before).then_some(leader)
    };
    eventually(PATIENCE, "a leader", led).await.unwrap()
}

async fn in_sync(kafka: &Kafka, topic: &str, replicas: usize) {
    let there = async || kafka.in_sync(topic, 0).await.is_ok_and(|now| now == replicas);
    eventually(PATIENCE, format!("{replicas} replicas in sync"), there).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn d12_d15_d21_leaders_come_and_go_and_too_few_replicas_are_back_pressure() {
    let kafka = Kafka::cluster(3).unwrap();
    let scene = Scene::on(Postgres::shared(LATEST), &kafka, 0).await;
    kafka.create_topic(&scene.topic, i32::try_from(PARTITIONS).unwrap()).await.unwrap();
    in_sync(&kafka, &scene.topic, 3).await;
    let relay = scene.relay().await;
    let history = History::default();
    let load = Load::start(&scene.database, SHAPE, &history).await.unwrap();
    let more = async |count: f64| {
        let before = relay.metric("walrelay_events_total").await.unwrap_or(0.0);
        let more = async || relay.metric("walrelay_events_total").await > Some(before + count);
        eventually(PATIENCE, "events", more).await.unwrap();
    };
    more(100.0).await;

    // D21: a leader dies, and the one that it had told of records comes after it.
    let first = leader(&kafka, &scene.topic, None).await;
    first.kill_9().unwrap();
    leader(&kafka, &scene.topic, Some(first.id())).await;
    more(100.0).await;
    first.start_again().unwrap();
    in_sync(&kafka, &scene.topic, 3).await;

    // D15: the controller and with it a broker are stopped in order, as in a rolling restart.
    let controller = kafka.active_controller().unwrap();
    controller.stop().unwrap();
    more(100.0).await;
    assert_ne!(kafka.active_controller().unwrap().id(), controller.id());
    controller.start_again().unwrap();
    in_sync(&kafka, &scene.topic, 3).await;

    // D12: with all three demanded, two are too few, and nobody is at fault who could be dropped.
    let setting = "min.insync.replicas=3";
    let bootstrap = kafka.bootstrap();
    let args = ["--bootstrap-server", &*bootstrap, "--entity-type", "topics", "--alter"];
    let args = [&args[..], &["--entity-name", &scene.topic, "--add-config", setting]].concat();
    kafka.run_tool("kafka.admin.ConfigCommand", &args, "").unwrap();
    let second = leader(&kafka, &scene.topic, None).await;
    second.kill_9().unwrap();
    in_sync(&kafka, &scene.topic, 2).await;
    not_ready(&relay, "records in flight and no ack for").await;
    // What was acked before may still be on its way to the slot; then nothing more is told.
    let stands = async || {
        let held = scene.confirmed().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        scene.confirmed().await == held
    };
    eventually(PATIENCE, "nothing confirmed without an ack", stands).await.unwrap();
    second.start_again().unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();

    let written = load.stop().await.unwrap();
    scene.followed(PATIENCE).await;
    // A leader that is new shows less than all until its followers have fetched once more.
    let all = async || {
        let records = read_all(&kafka.bootstrap(), &scene.topic).ok()?;
        (records.len() as u64 >= written).then_some(records)
    };
    let records = eventually(PATIENCE, "as many records as events", all).await.unwrap();
    let verdict = judge(&history, &scene.client, &records, PARTITIONS).await;
    println!("{written} events, {verdict}");
    assert!(verdict.is_faithful(), "{verdict}");
    let verdict = judge(&history, &scene.client, &without_repeats(&records), PARTITIONS).await;
    assert!(verdict.is_perfect(), "{verdict}");
    assert_eq!(relay.metric_where("walrelay_sessions_total", "closed").await, Some(0.0));
}
