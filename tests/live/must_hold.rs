//! What the relay promises, under load.

use std::time::{Duration, Instant};

use lab::{Kafka, Postgres, Proxy, eventually};

use crate::load::{Load, MIXED, Shape, Verdict, check, watch};
use crate::scene::{LATEST, PATIENCE, Scene};

const MIB: u64 = 1 << 20;
/// 64 MiB and `max_in_flight_bytes`.
const MEMORY_MAX: u64 = (64 + 32) * MIB;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_mixed_events_arrive_once_and_in_order() {
    let scene = Scene::new(LATEST, 6).await;
    let relay = scene.relay().await;
    let sessions = relay.metric("walrelay_sessions_total").await;
    let load = Load::start(&scene.database, MIXED).await;
    eventually(PATIENCE, "100,000 events", async || load.written() >= 100_000).await.unwrap();
    let written = load.stop().await;
    let mut reader = scene.reader();
    let records = reader.poll_until(usize::try_from(written).unwrap(), PATIENCE).unwrap();
    assert_eq!(check(&scene.client, records, 6).await, Verdict::default());
    assert_eq!(relay.metric("walrelay_sessions_total").await, sessions, "one was enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_of_a_million_events_takes_no_more_memory() {
    let postgres = Postgres::start(LATEST).unwrap();
    let scene = Scene::on(&postgres, Kafka::shared(), 3).await;
    let relay = scene.relay().await;
    scene
        .execute(
            "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
             SELECT 'post', 'k' || g % 1000, 'created',
                    jsonb_build_object('n', g / 1000 + 1, 'pad', repeat('x', 100))
             FROM generate_series(0, 999999) g;
             CREATE TABLE seq AS SELECT g AS key, 1000 AS n FROM generate_series(0, 999) g;",
        )
        .await;
    let mut reader = scene.reader();
    let records = reader.poll_until(1_000_000, Duration::from_secs(120)).unwrap();
    assert_eq!(check(&scene.client, records, 3).await, Verdict::default());
    let peak = relay.peak_rss_bytes().unwrap();
    assert!(peak < MEMORY_MAX, "{} MiB", peak / MIB);
    scene.followed(PATIENCE).await;
}

/// Enough to fill what may be in flight several times over while Kafka is away.
const HEAVY: Shape = Shape { writers: 4, keys: 500, padding: 500, paced_ms: None };

#[tokio::test(flavor = "multi_thread")]
async fn kafka_down_for_a_minute_under_load_is_back_pressure() {
    let kafka = Kafka::start().unwrap();
    let scene = Scene::on(Postgres::shared(LATEST), &kafka, 6).await;
    let relay = scene.relay().await;
    // Creating the slot may have taken a second attempt.
    let sessions = relay.metric("walrelay_sessions_total").await;
    let load = Load::start(&scene.database, HEAVY).await;
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
    let written = load.stop().await;

    kafka.start_again().unwrap();
    let mut reader = scene.reader();
    let records = reader.poll_until(usize::try_from(written).unwrap(), 2 * PATIENCE).unwrap();
    let verdict = check(&scene.client, records, 6).await;
    assert_eq!(Verdict { repeated: 0, ..verdict }, Verdict::default());
    relay.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(relay.metric("walrelay_sessions_total").await, sessions, "Postgres hung up");
    let peak = relay.peak_rss_bytes().unwrap();
    println!("{written} events, {} repeated, peak {} MiB", verdict.repeated, peak / MIB);
    assert!(peak < MEMORY_MAX, "{} MiB", peak / MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_at_ten_random_moments_loses_and_reorders_nothing() {
    let scene = Scene::new(LATEST, 6).await;
    let relay = scene.relay().await;
    let load = Load::start(&scene.database, MIXED).await;
    let mut bound = 0;
    for round in 0..10_u64 {
        // Spread over the phases of a status interval, and the same in every run.
        let alive = Duration::from_millis(1300 + round * 7919 % 1300);
        bound += watch(&relay, alive, Duration::from_secs(1)).await;
        relay.kill_9().unwrap();
        relay.start_again().unwrap();
        relay.wait_ready(PATIENCE).await.unwrap();
    }
    let written = load.stop().await;
    scene.followed(PATIENCE).await;
    let mut reader = scene.reader();
    let records = reader.read_to_end(PATIENCE).unwrap();
    let verdict = check(&scene.client, records, 6).await;
    let repeated = verdict.repeated;
    println!("{written} events, {repeated} of at most {bound} repeated after ten kills");
    assert_eq!(Verdict { repeated: 0, ..verdict }, Verdict::default());
    assert!(repeated <= bound, "{repeated} repeated, {bound} were in flight or not confirmed");
}

/// E7: also with much in flight, and in the middle of transactions.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_terminated_walsenders_repeat_nothing() {
    let kafka = Kafka::start().unwrap();
    let proxy = Proxy::start(Some(kafka.proxied_port()), kafka.proxied_target()).unwrap();
    let scene = Scene::on(Postgres::shared(LATEST), &kafka, 6).await;
    let relay = scene.start(&scene.database.url(), &kafka.proxied_bootstrap());
    relay.wait_ready(PATIENCE).await.unwrap();
    let load = Load::start(&scene.database, Shape { writers: 2, ..MIXED }).await;
    // Acks are late from here on, so that much is in flight at any time. (Of a partition that is
    // new to us, the first is waited for.)
    let some = async || relay.metric("walrelay_events_total").await >= Some(1000.0);
    eventually(PATIENCE, "some events", some).await.unwrap();
    proxy.delay(Duration::from_secs(1));
    let sql = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
               WHERE slot_name = $1 AND active_pid IS NOT NULL";
    let (mut ended, mut most, mut with_many) = (0, 0.0_f64, 0);
    let mut terminate = async || {
        tokio::time::sleep(Duration::from_millis(100 + ended * 7919 % 200)).await;
        let in_flight = relay.metric("walrelay_in_flight_records").await.unwrap_or(0.0);
        let rows = scene.client.query(sql, &[&scene.topic]).await.unwrap();
        most = most.max(in_flight);
        ended += u64::from(!rows.is_empty());
        with_many += u64::from(!rows.is_empty() && in_flight >= 10_000.0);
        ended >= 100 && with_many >= 25
    };
    let done = eventually(3 * PATIENCE, "a hundred ended walsenders", &mut terminate).await;
    println!("{ended} ended, {with_many} of them with 10,000 in flight, up to {most}");
    done.unwrap();
    let written = load.stop().await;
    proxy.pass().unwrap();
    let mut reader = scene.reader();
    let records = reader.poll_until(usize::try_from(written).unwrap(), PATIENCE).unwrap();
    assert_eq!(check(&scene.client, records, 6).await, Verdict::default());
    let sessions = relay.metric("walrelay_sessions_total").await.unwrap();
    assert!(sessions >= 100.0, "the relay noticed only {sessions}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_outbox_in_a_busy_database_keeps_no_log() {
    for version in [14, LATEST] {
        let scene = Scene::new(version, 1).await;
        let relay = scene.relay().await;
        scene.execute("CREATE TABLE other (n int, text text)").await;
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(8) {
            let sql =
                "INSERT INTO other SELECT g, repeat('x', 500) FROM generate_series(1, 2000) g";
            scene.execute(sql).await;
        }
        let asked = Instant::now();
        scene.followed(Duration::from_secs(5)).await;
        println!("Postgres {version}: followed within {:?}", asked.elapsed());
        drop(relay);
    }
}
