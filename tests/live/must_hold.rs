//! What the relay promises, under load.

use std::time::{Duration, Instant};

use lab::history::History;
use lab::load::{Kind, Load, MIXED, Shape, may_be_repeated, write_huge};
use lab::{Kafka, Postgres, Proxy, eventually};

use crate::scene::{LATEST, PATIENCE, Scene, commit_of, judge};

const MIB: u64 = 1 << 20;
/// 64 MiB and `max_in_flight_bytes`.
const MEMORY_MAX: u64 = (64 + 32) * MIB;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_mixed_events_arrive_once_and_in_order() {
    let scene = Scene::new(LATEST, 6).await;
    let relay = scene.relay().await;
    let sessions = relay.metric("walrelay_sessions_total").await;
    let history = History::default();
    let load = Load::start(&scene.database, MIXED, &history).await.unwrap();
    eventually(PATIENCE, "100,000 events", async || load.written() >= 100_000).await.unwrap();
    let written = load.stop().await.unwrap();
    let mut reader = scene.reader();
    let records = reader.poll_until(usize::try_from(written).unwrap(), PATIENCE).unwrap();
    let verdict = judge(&history, &scene.client, records, 6).await;
    assert!(verdict.is_perfect(), "{verdict}");
    assert_eq!(relay.metric("walrelay_sessions_total").await, sessions, "one was enough");
}

/// A22 and C6: nothing of it is confirmed before its end.
#[tokio::test(flavor = "multi_thread")]
async fn a22_c6_a_transaction_of_a_million_events_is_confirmed_whole_in_little_memory() {
    let postgres = Postgres::start(LATEST).unwrap();
    let scene = Scene::on(&postgres, Kafka::shared(), 3).await;
    // A busy machine may need more than a test is else given.
    scene.execute("SET statement_timeout = '180s'").await;
    let relay = scene.relay().await;
    let history = History::default();
    write_huge(&scene.database, &history, 1000, 1000).await.unwrap();
    let mut reader = scene.reader();
    let commit = commit_of(&reader.poll_until(1, PATIENCE).unwrap()[0]);
    let sent = async || relay.metric("walrelay_events_total").await.unwrap_or(0.0);
    let mut looks = 0;
    // What lies before it may be told late.
    while sent().await < 900_000.0 {
        let confirmed = scene.confirmed().await;
        assert!(confirmed <= commit, "{confirmed} was confirmed inside of {commit}");
        looks += 1;
    }
    assert!(looks > 10, "looked only {looks} times");
    let records = reader.poll_until(1_000_000, Duration::from_secs(120)).unwrap();
    let verdict = judge(&history, &scene.client, records, 3).await;
    assert!(verdict.is_perfect(), "{verdict}");
    let peak = relay.peak_rss_bytes().unwrap();
    assert!(peak < MEMORY_MAX, "{} MiB", peak / MIB);
    scene.followed(PATIENCE).await;
}

/// Enough to fill what may be in flight several times over while Kafka is away.
const HEAVY: Shape = Shape { writers: 4, keys: 500, padding: 500, ..MIXED };

/// A16: for twice as long as a walsender waits for a sign of life.
#[tokio::test(flavor = "multi_thread")]
async fn a16_kafka_down_for_a_minute_under_load_is_back_pressure() {
    let kafka = Kafka::start().unwrap();
    let scene = Scene::on(Postgres::shared(LATEST), &kafka, 6).await;
    let relay = scene.relay().await;
    // Creating the slot may have taken a second attempt.
    let sessions = relay.metric("walrelay_sessions_total").await;
    let history = History::default();
    let load = Load::start(&scene.database, HEAVY, &history).await.unwrap();
    let some = async || relay.metric("walrelay_events_total").await > Some(1000.0);
    eventually(PATIENCE, "some events", some).await.unwrap();

    kafka.kill_9().unwrap();
    let killed = Instant::now();
    let full = async || relay.metric("walrelay_in_flight_bytes").await > Some(30e6);
    let filled = eventually(PATIENCE, "the relay to be full", full).await;
    let status = relay.get("/status").await.unwrap().1;
    filled.unwrap_or_else(|error| panic!("{error}: {} written, {status}", load.written()));
    let unready = async || relay.get("/readyz").await.is_ok_and(|(status, _)| status == 503);
    eventually(PATIENCE, "the relay to say that it is not ready", unready).await.unwrap();
    // What was acked before is told with the next status.
    let told = async || killed.elapsed() > Duration::from_secs(5);
    eventually(PATIENCE, "the last status", told).await.unwrap();
    let held = scene.confirmed().await;
    let minute = async || killed.elapsed() > Duration::from_secs(60);
    eventually(2 * PATIENCE, "a minute", minute).await.unwrap();
    assert_eq!(scene.confirmed().await, held, "nothing may be confirmed without an ack");
    // All the while the walsender could not get rid of what it has, and kept the connection.
    let sql = "SELECT wait_event FROM pg_stat_activity
               JOIN pg_replication_slots ON pid = active_pid WHERE slot_name = $1";
    let row = scene.client.query_one(sql, &[&scene.topic]).await.unwrap();
    assert_eq!(row.get::<_, Option<&str>>(0), Some("WalSenderWriteData"));
    let written = load.stop().await.unwrap();

    kafka.start_again().unwrap();
    let mut reader = scene.reader();
    let records = reader.poll_until(usize::try_from(written).unwrap(), 2 * PATIENCE).unwrap();
    let verdict = judge(&history, &scene.client, records, 6).await;
    assert!(verdict.is_faithful(), "{verdict}");
    relay.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(relay.metric("walrelay_sessions_total").await, sessions, "Postgres hung up");
    let peak = relay.peak_rss_bytes().unwrap();
    println!("{written} events, {} repeated, peak {} MiB", verdict.repeated, peak / MIB);
    assert!(peak < MEMORY_MAX, "{} MiB", peak / MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_kill_9_at_ten_random_moments_loses_and_reorders_nothing() {
    let scene = Scene::new(LATEST, 6).await;
    let relay = scene.relay().await;
    let history = History::default();
    let load = Load::start(&scene.database, MIXED, &history).await.unwrap();
    let mut bound = 0;
    for round in 0..10_u64 {
        // Spread over the phases of a status interval, and the same in every run.
        let alive = Duration::from_millis(1300 + round * 7919 % 1300);
        bound += may_be_repeated(&relay, alive, Duration::from_secs(1)).await;
        relay.kill_9().unwrap();
        relay.start_again().unwrap();
        relay.wait_ready(PATIENCE).await.unwrap();
    }
    let written = load.stop().await.unwrap();
    scene.followed(PATIENCE).await;
    let mut reader = scene.reader();
    let records = reader.read_to_end(PATIENCE).unwrap();
    let verdict = judge(&history, &scene.client, records, 6).await;
    let repeated = verdict.repeated;
    println!("{written} events, {repeated} of at most {bound} repeated after ten kills");
    assert!(verdict.is_faithful(), "{verdict}");
    assert!(repeated <= bound, "{repeated} repeated, {bound} were in flight or not confirmed");
}

/// Enough for many thousand events between a record and its ack a second later.
const MUCH: Shape = Shape {
    writers: 2,
    mix: &[
        (3, Kind::Rows(500)),
        (3, Kind::Copied(200)),
        (1, Kind::Rows(1)),
        (1, Kind::RolledBack(20)),
        (1, Kind::Savepoints),
        (1, Kind::Prepared),
    ],
    ..MIXED
};

/// E7: also with much in flight, and in the middle of transactions.
#[tokio::test(flavor = "multi_thread")]
async fn e7_a_hundred_terminated_walsenders_repeat_nothing() {
    let kafka = Kafka::start().unwrap();
    let proxy = Proxy::start(Some(kafka.proxied_port()), kafka.proxied_target()).unwrap();
    let scene = Scene::on(Postgres::shared(LATEST), &kafka, 6).await;
    let relay = scene.start(&scene.database.url(), &kafka.proxied_bootstrap());
    relay.wait_ready(PATIENCE).await.unwrap();
    let history = History::default();
    let load = Load::start(&scene.database, MUCH, &history).await.unwrap();
    // Acks are late from here on, so that much is in flight at any time. (Of a partition that is
    // new to us, the first is waited for.)
    let some = async || relay.metric("walrelay_events_total").await >= Some(1000.0);
    eventually(PATIENCE, "some events", some).await.unwrap();
    proxy.delay(Duration::from_secs(1));
    let sql = "SELECT active_pid, pg_terminate_backend(active_pid) FROM pg_replication_slots
               WHERE slot_name = $1 AND active_pid IS NOT NULL";
    let (mut ended, mut most, mut with_many, mut last) = (0, 0.0_f64, 0, None);
    let mut terminate = async || {
        // A session that is ended before it gets anywhere only makes the relay wait longer.
        let many = async || relay.metric("walrelay_in_flight_records").await >= Some(10_000.0);
        let _ = eventually(Duration::from_secs(2), "10,000 in flight", many).await;
        tokio::time::sleep(Duration::from_millis(ended * 7919 % 200)).await;
        let in_flight = relay.metric("walrelay_in_flight_records").await.unwrap_or(0.0);
        let asked = scene.client.query_opt(sql, &[&scene.topic]).await.unwrap();
        let asked: Option<i32> = asked.map(|row| row.get(0));
        // One that is slow to end is asked again, and ends once.
        let another = asked.is_some() && asked != last;
        last = asked.or(last);
        most = most.max(in_flight);
        ended += u64::from(another);
        with_many += u64::from(another && in_flight >= 10_000.0);
        ended >= 100 && with_many >= 25
    };
    let done = eventually(3 * PATIENCE, "a hundred ended walsenders", &mut terminate).await;
    println!("{ended} ended, {with_many} of them with 10,000 in flight, up to {most}");
    done.unwrap();
    let written = load.stop().await.unwrap();
    proxy.pass().unwrap();
    let mut reader = scene.reader();
    let records = reader.poll_until(usize::try_from(written).unwrap(), PATIENCE).unwrap();
    let verdict = judge(&history, &scene.client, records, 6).await;
    assert!(verdict.is_perfect(), "{verdict}");
    let sessions = relay.metric("walrelay_sessions_total").await.unwrap();
    assert!(sessions >= 100.0, "the relay noticed only {sessions}");
}

/// A3, B25 and B26: without a row of ours, without a heartbeat and without a table for one, both
/// ends of the slot follow what its database and another one write.
#[tokio::test(flavor = "multi_thread")]
async fn a3_b25_b26_an_idle_outbox_in_a_busy_server_keeps_no_log() {
    const SEGMENT: f64 = 16.0 * 1024.0 * 1024.0;
    for version in [14, LATEST] {
        let postgres = Postgres::start(version).unwrap();
        let mut scene = Scene::on(&postgres, Kafka::shared(), 1).await;
        scene.configure_postgres("check_interval = \"1s\"");
        let relay = scene.relay().await;
        let elsewhere = postgres.client("postgres").await.unwrap();
        for client in [&scene.client, &elsewhere] {
            client.batch_execute("CREATE TABLE other (n int, text text)").await.unwrap();
            let begun = scene.written().await.to_wire();
            while scene.written().await.to_wire() - begun < 64 * MIB {
                let sql =
                    "INSERT INTO other SELECT g, repeat('x', 500) FROM generate_series(1, 9000) g";
                client.batch_execute(sql).await.unwrap();
            }
            let (asked, end) = (Instant::now(), scene.written().await.to_string());
            scene.followed(Duration::from_secs(5)).await;
            println!("Postgres {version}: followed within {:?}", asked.elapsed());
            // From time to time Postgres notes in the log which transactions run, and at such a
            // note the restart of the slot follows. A checkpoint writes one.
            client.batch_execute("CHECKPOINT").await.unwrap();
            let restart = async || {
                let sql = "SELECT restart_lsn >= $1::text::pg_lsn FROM pg_replication_slots";
                scene.client.query_one(sql, &[&end]).await.unwrap().get::<_, bool>(0)
            };
            eventually(PATIENCE, "the log to be let go", restart).await.unwrap();
            let little =
                async || relay.metric("walrelay_retained_wal_bytes").await < Some(2.0 * SEGMENT);
            eventually(PATIENCE, "the metric to say so", little).await.unwrap();
        }
        assert_eq!(relay.metric("walrelay_events_total").await, None, "there was no event");
    }
}
