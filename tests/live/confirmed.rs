//! What Postgres is told, and when: it forgets what is confirmed.

use std::time::{Duration, Instant};

use lab::{Kafka, Postgres, Relay, Signal, eventually, read_all};
use tokio_postgres::Client;

use crate::bare::{Got, read};
use crate::scene::{LATEST, PATIENCE, Scene, insert, not_ready};

/// A1 and A2: what a frozen broker has not acked is not confirmed, however far the log has been
/// read; so it is there when the relay is killed.
#[tokio::test(flavor = "multi_thread")]
async fn a1_a2_nothing_is_confirmed_that_a_frozen_broker_has_not() {
    let kafka = Kafka::start().unwrap();
    let scene = Scene::on(Postgres::shared(LATEST), &kafka, 1).await;
    let relay = scene.relay().await;
    scene.insert("k", "0").await;
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();
    scene.followed(PATIENCE).await;

    kafka.signal(Signal::Stop).unwrap();
    let frozen = async || kafka.state() == Some('T');
    eventually(PATIENCE, "the broker to be frozen", frozen).await.unwrap();
    scene.insert("k", "1").await;
    let first = scene.written().await;
    scene.execute(&(2..1000).map(|n| insert("k", &n.to_string())).collect::<String>()).await;
    // Behind the rows come keepalives with the position of what other tables wrote.
    scene.execute("CREATE TABLE other AS SELECT g FROM generate_series(1, 50000) g").await;
    let (end, in_log) = (scene.written().await, Duration::from_secs(3));
    let read = async || {
        let sql = "SELECT write_lsn >= $2::text::pg_lsn FROM pg_stat_replication
                   JOIN pg_replication_slots ON pid = active_pid WHERE slot_name = $1";
        let row = scene.client.query_opt(sql, &[&scene.topic, &end.to_string()]).await.unwrap();
        row.is_some_and(|row| row.get(0))
    };
    eventually(PATIENCE, "the log to be read", read).await.unwrap();
    assert_eq!(relay.metric("walrelay_in_flight_records").await, Some(999.0));
    let since = Instant::now();
    while since.elapsed() < in_log {
        let confirmed = scene.confirmed().await;
        assert!(confirmed <= first, "{confirmed} was confirmed, and Kafka ends before {first}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    relay.kill_9().unwrap();
    kafka.signal(Signal::Cont).unwrap();
    relay.start_again().unwrap();
    // A new reader each time: the old one may stay at what it had when its broker froze.
    let all = async || {
        let records = read_all(&kafka.bootstrap(), &scene.topic).unwrap();
        records.iter().any(|record| record.payload_text() == "999").then_some(records)
    };
    let records = eventually(PATIENCE, "the last row", all).await.unwrap();
    // What the dead relay had sent may come before or between; the order of the first ones stands.
    let mut numbers: Vec<u32> = Vec::new();
    for number in records.iter().map(|record| record.payload_text().parse().unwrap()) {
        if numbers.last().is_none_or(|last| number > *last) {
            numbers.push(number);
        }
    }
    assert_eq!(numbers, (0..1000).collect::<Vec<u32>>());
    relay.wait_ready(PATIENCE).await.unwrap();
}

/// A4 and A5: what is confirmed is the end of a transaction, and neither its beginning, with which
/// it would come again each time, nor a byte behind its end, with which the next would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn a4_a5_what_is_confirmed_never_comes_again_and_the_next_row_does() {
    let scene = Scene::new(LATEST, 1).await;
    let relay = scene.relay().await;
    let mut reader = scene.reader();
    for n in 0..5 {
        // One while it runs, and one while it does not.
        scene.insert("k", &(2 * n).to_string()).await;
        reader.poll_until(2 * n + 1, PATIENCE).unwrap();
        relay.terminate_and_wait(PATIENCE).unwrap();
        assert_eq!(read(&scene).await, Got::silently(0), "{n}: it comes again");
        scene.insert("k", &(2 * n + 1).to_string()).await;
        assert_eq!(read(&scene).await, Got::silently(1), "{n}: the next one does not come");
        relay.start_again().unwrap();
        relay.wait_ready(PATIENCE).await.unwrap();
    }
    let records = reader.poll_until(10, PATIENCE).unwrap();
    let numbers: Vec<u32> = records.iter().map(|it| it.payload_text().parse().unwrap()).collect();
    assert_eq!(numbers, (0..10).collect::<Vec<u32>>());
}

/// A17 and A20: a server whose `wal_sender_timeout` is 0 never asks for a status, and gets them
/// all the same, with the right time.
#[tokio::test(flavor = "multi_thread")]
async fn a17_a20_a_server_that_never_asks_is_told_all_the_same() {
    let scene = Scene::new(LATEST, 1).await;
    let never = format!("ALTER DATABASE {} SET wal_sender_timeout = 0", scene.topic);
    scene.execute(&never).await;
    let client = scene.database.client().await.unwrap();
    let setting = client.query_one("SHOW wal_sender_timeout", &[]).await.unwrap();
    assert_eq!(setting.get::<_, String>(0), "0");

    let relay = scene.relay().await;
    // Idle, and busy.
    scene.followed(Duration::from_secs(5)).await;
    scene.execute("CREATE TABLE other AS SELECT g FROM generate_series(1, 10000) g").await;
    scene.insert("k", "1").await;
    scene.followed(Duration::from_secs(5)).await;
    let prompt = async || {
        let sql = "SELECT abs(extract(epoch FROM clock_timestamp() - reply_time))::float8
                   FROM pg_stat_replication
                   JOIN pg_replication_slots ON pid = active_pid WHERE slot_name = $1";
        let row = client.query_one(sql, &[&scene.topic]).await.unwrap();
        row.get::<_, f64>(0) < 1.0
    };
    eventually(Duration::from_secs(10), "a status with the time of now", prompt).await.unwrap();
    assert_eq!(relay.metric("walrelay_postgres_connected").await, Some(1.0));
}

async fn synchronous_standby_names(client: &Client, names: &str) {
    let sql = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
    client.batch_execute(&sql).await.unwrap();
    client.execute("SELECT pg_reload_conf()", &[]).await.unwrap();
}

/// A21: with `*`, the walsender of a relay is a synchronous standby, and commits wait for Kafka.
#[tokio::test(flavor = "multi_thread")]
async fn a21_a_relay_that_commits_wait_for_is_refused_or_said() {
    let names = [("synchronous_standby_names", "*"), ("synchronous_commit", "local")];
    let postgres = Postgres::start_with(LATEST, &names, None).unwrap();
    let mut scene = Scene::on(&postgres, Kafka::shared(), 1).await;
    scene.configure_postgres("check_interval = \"1s\"");
    let why = "makes the relay a synchronous standby: while Kafka is down, every commit";
    let relay = scene.start(&scene.database.url(), &scene.kafka.bootstrap());
    not_ready(&relay, why).await;
    let slots = "SELECT FROM pg_replication_slots";
    assert!(scene.client.query(slots, &[]).await.unwrap().is_empty());
    synchronous_standby_names(&scene.client, "").await;
    relay.wait_ready(PATIENCE).await.unwrap();

    // Set under a relay that runs: it says so and goes on, for without it commits wait as well.
    synchronous_standby_names(&scene.client, "*").await;
    let warned = format!("WARN synchronous_standby_names = '*' {why}");
    relay.wait_for_log(PATIENCE, &warned).unwrap();
    let state = async || {
        let sql = "SELECT sync_state FROM pg_stat_replication";
        scene.client.query_one(sql, &[]).await.unwrap().get::<_, String>(0) == "sync"
    };
    eventually(PATIENCE, "the walsender to be synchronous", state).await.unwrap();
    let writer = scene.database.client().await.unwrap();
    writer.batch_execute("SET synchronous_commit = on").await.unwrap();
    writer.batch_execute(&insert("k", "1")).await.unwrap();
    // What is warned of: nobody confirms, and the commit waits.
    freeze(&relay).await;
    let row = insert("k", "2");
    let mut commit = std::pin::pin!(writer.batch_execute(&row));
    let second = Duration::from_secs(1);
    assert!(tokio::time::timeout(second, &mut commit).await.is_err(), "it did not wait");
    relay.signal(Signal::Cont).unwrap();
    tokio::time::timeout(PATIENCE, commit).await.unwrap().unwrap();
    scene.reader().poll_until(2, PATIENCE).unwrap();
}

async fn freeze(relay: &Relay) {
    relay.signal(Signal::Stop).unwrap();
    let frozen = async || relay.state() == Some('T');
    eventually(PATIENCE, "the relay to be frozen", frozen).await.unwrap();
}
