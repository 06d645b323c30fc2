//! A broker that freezes, forgets, is late or has no room left.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::{Kafka, Postgres, Proxy, Record, Relay, Signal, eventually, read_all};

use crate::scene::{LATEST, PATIENCE, Scene, insert, not_ready};

/// Rows 0, 1, 2 … in a transaction.
async fn rows(scene: &Scene<'_>, count: u32) {
    let sql = format!(
        "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
         SELECT 'post', 'k', 'created', to_jsonb(g) FROM generate_series(0, {count} - 1) g"
    );
    scene.execute(&sql).await;
}

fn numbers(records: &[Record]) -> Vec<u32> {
    records.iter().map(|record| record.payload_text().parse().unwrap()).collect()
}

/// The processor's time that a relay has taken, in clock ticks, of which a second has a hundred.
fn ticks(relay: &Relay) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", relay.pid().unwrap())).unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

async fn frozen(kafka: &Kafka) {
    kafka.signal(Signal::Stop).unwrap();
    eventually(PATIENCE, "T", async || kafka.state() == Some('T')).await.unwrap();
}

/// Requests time out and are sent again, and when the broker thaws it finds both. While it does
/// not, what may be in flight is, and nothing turns in circles.
#[tokio::test(flavor = "multi_thread")]
async fn d3_d4_d6_d7_a_frozen_broker_leaves_no_gap_and_no_second_copy() {
    const ROWS: u32 = 20_000;
    let kafka = Kafka::start().unwrap();
    let mut scene = Scene::on(Postgres::shared(LATEST), &kafka, 1).await;
    scene.configure(
        "[delivery]\nmax_in_flight = 1000\n\
         [kafka.properties]\n\"socket.timeout.ms\" = 1000\n[log]\nlevel = \"debug\"",
    );
    let relay = scene.relay().await;
    scene.insert("k", "0").await;
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();
    scene.followed(PATIENCE).await;

    frozen(&kafka).await;
    rows(&scene, ROWS).await;
    let full = async || relay.metric("walrelay_in_flight_records").await == Some(1000.0);
    eventually(PATIENCE, "the relay to be full", full).await.unwrap();
    relay.wait_for_log(PATIENCE, "Timed out ProduceRequest").unwrap();
    let held = scene.confirmed().await;
    let (begun, before) = (Instant::now(), ticks(&relay));
    not_ready(&relay, "").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (spent, passed) = (ticks(&relay) - before, begun.elapsed());
    println!("{spent} ticks in {passed:?}");
    assert!(u128::from(spent) * 10 < passed.as_millis() / 10, "{spent} ticks in {passed:?}");
    assert_eq!(scene.confirmed().await, held, "nothing may be confirmed without an ack");
    assert_eq!(relay.metric("walrelay_in_flight_records").await, Some(1000.0));

    kafka.signal(Signal::Cont).unwrap();
    scene.followed(PATIENCE).await;
    let arrived = numbers(reader.read_to_end(PATIENCE).unwrap());
    assert_eq!(arrived, (0..1).chain(0..ROWS).collect::<Vec<_>>());
    relay.wait_ready(PATIENCE).await.unwrap();
}

/// Requests of a killed relay arrive behind those of the next. Nobody can take them back; but each
/// key's first occurrences are in order, and positions tell the rest.
#[tokio::test(flavor = "multi_thread")]
async fn d5_late_requests_of_a_killed_relay_are_told_by_their_positions() {
    let kafka = Kafka::start().unwrap();
    let proxy = Proxy::start(Some(kafka.proxied_port()), kafka.proxied_target()).unwrap();
    let mut scene = Scene::on(Postgres::shared(LATEST), &kafka, 1).await;
    // Few requests: no more than five are under way, and all records must be in them.
    scene.configure("[kafka.properties]\n\"linger.ms\" = 100");
    let relay = scene.start(&scene.database.url(), &kafka.proxied_bootstrap());
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k", "0").await;
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();
    scene.followed(PATIENCE).await;

    // So much later is what the relay sends from here on, and what it hears.
    proxy.delay(Duration::from_secs(12));
    scene.execute(&(1..=20).map(|n| insert("k", &n.to_string())).collect::<String>()).await;
    let sent = async || relay.metric("walrelay_in_flight_records").await == Some(20.0);
    eventually(PATIENCE, "20 records in flight", sent).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    relay.kill_9().unwrap();
    let next = scene.relay().await;
    scene.execute(&(21..=40).map(|n| insert("k", &n.to_string())).collect::<String>()).await;
    reader.poll_until(41, PATIENCE).unwrap();

    // The evidence: they do come.
    let late = |records: &[Record]| records.len() >= 61;
    let records = reader.read_until(PATIENCE, "the late ones", late).unwrap();
    assert_eq!(numbers(records), (0..=40).chain(1..=20).collect::<Vec<_>>());
    let positions: Vec<_> =
        records.iter().map(|record| record.header("walrelay-position").unwrap()).collect();
    assert!(positions[..41].is_sorted(), "{positions:?}");
    assert!(positions[41..].iter().all(|late| *late < positions[40]), "{positions:?}");
    assert!(next.is_running());
}

/// A broker forgets a producer that is silent for long. The next record must neither be refused
/// for its sequence number for ever, nor be lost.
#[tokio::test(flavor = "multi_thread")]
async fn d20_a_producer_that_the_broker_has_forgotten_goes_on() {
    let kafka = Kafka::start_with(&[
        ("producer.id.expiration.ms", "1000"),
        ("producer.id.expiration.check.interval.ms", "500"),
    ])
    .unwrap();
    let scene = Scene::on(Postgres::shared(LATEST), &kafka, 1).await;
    let relay = scene.relay().await;
    for n in 0..5 {
        scene.insert("k", &n.to_string()).await;
    }
    let mut reader = scene.reader();
    reader.poll_until(5, PATIENCE).unwrap();
    let known = || {
        let bootstrap = kafka.bootstrap();
        let args = ["--bootstrap-server", &*bootstrap, "describe-producers", "--partition", "0"];
        let args = [&args[..], &["--topic", &scene.topic]].concat();
        let text = kafka.run_tool("org.apache.kafka.tools.TransactionsCommand", &args, "").unwrap();
        text.lines().filter(|line| !line.is_empty()).count() - 1
    };
    eventually(PATIENCE, "the broker to forget", async || known() == 0).await.unwrap();
    for n in 5..10 {
        scene.insert("k", &n.to_string()).await;
    }
    let arrived = |records: &[Record]| records.iter().any(|it| it.payload_text() == "9");
    reader.read_until(PATIENCE, "the last row", arrived).unwrap();
    scene.followed(PATIENCE).await;
    assert_eq!(numbers(reader.read_to_end(PATIENCE).unwrap()), (0..10).collect::<Vec<_>>());
    relay.wait_ready(PATIENCE).await.unwrap();
}

/// To the broker it is the same whether the disk is full or its files may not grow.
#[tokio::test(flavor = "multi_thread")]
async fn d22_a_broker_without_room_is_back_pressure() {
    let kafka = Kafka::start().unwrap();
    let scene = Scene::on(Postgres::shared(LATEST), &kafka, 1).await;
    let relay = scene.relay().await;
    scene.insert("k", "0").await;
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();
    scene.followed(PATIENCE).await;
    let broker = &kafka.brokers()[0];
    limit(broker.pid().unwrap(), "--fsize=100000");
    let count = 5000;
    rows(&scene, count).await;
    not_ready(&relay, "").await;
    let ended = async || !broker.is_running();
    eventually(PATIENCE, "the broker to give up its only disk", ended).await.unwrap();
    assert!(broker.log().contains("File too large"), "{}", broker.log());
    not_ready(&relay, "no Kafka broker answers").await;
    assert!(relay.metric("walrelay_in_flight_records").await > Some(0.0));

    kafka.start_again().unwrap();
    scene.followed(PATIENCE).await;
    let records = read_all(&kafka.bootstrap(), &scene.topic).unwrap();
    let mut arrived = numbers(&records);
    // What was written and not acked may come again, from where it was confirmed.
    arrived.remove(0);
    let mut firsts = Vec::new();
    for n in &arrived {
        if firsts.last().is_none_or(|last| n > last) {
            firsts.push(*n);
        }
    }
    assert_eq!(firsts, (0..count).collect::<Vec<_>>());
    relay.wait_ready(PATIENCE).await.unwrap();
}

/// Sets a limit of a running process.
pub fn limit(pid: u32, limit: &str) {
    let status = Command::new("prlimit").args(["--pid", &pid.to_string(), limit]).status();
    assert!(status.unwrap().success());
}
