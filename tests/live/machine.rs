//! What the machine does to the relay: clocks, descriptors, a network that goes dark, an end in
//! the middle of something.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::history::History;
use lab::load::{Load, MIXED, Shape, write_huge};
use lab::{Clock, Direction, Kafka, Postgres, Proxy, Record, Relay, eventually, read_all};
use walrelay::config::Config;
use walrelay::error::Error;
use walrelay::feedback::Feedback;
use walrelay::frontier::{Frontier, Limits};
use walrelay::health::Health;
use walrelay::kafka::producer::Producer;
use walrelay::kafka::routes::Counts;
use walrelay::kafka::settings::Settings;
use walrelay::lsn::Lsn;
use walrelay::metrics::Metrics;
use walrelay::outbox::Outboxes;
use walrelay::pg::connect::{SessionOptions, connect};
use walrelay::pg::wire::Wire;
use walrelay::pipe::Pipe;
use walrelay::shutdown::Shutdown;

use crate::brokers::limit;
use crate::scene::{LATEST, PATIENCE, Scene, judge};

fn numbers(records: &[Record]) -> Vec<u32> {
    records.iter().map(|record| record.payload_text().parse().unwrap()).collect()
}

/// Kafka refuses records of the future. But a record's time is that of its commit, or what our own
/// clock shows if the commit seems to lie too far ahead.
#[tokio::test(flavor = "multi_thread")]
async fn d25_e8_a_clock_that_jumps_is_of_no_account() {
    const HOURS: i64 = 3600;
    let mut scene = Scene::new(LATEST, 1).await;
    scene.configure("on_poison = \"skip\"");
    let clock = Clock::start().unwrap();
    let config = scene.config(&scene.database.url(), &scene.kafka.bootstrap());
    let relay =
        Relay::builder(env!("CARGO_BIN_EXE_walrelay")).monitored().config(config).clock(&clock);
    let relay = relay.start().unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k", "0").await;
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();
    let sessions = relay.metric("walrelay_sessions_total").await;

    // Time that passes is measured, and not told.
    clock.set(-2 * HOURS).unwrap();
    for n in 1..10 {
        scene.insert("k", &n.to_string()).await;
    }
    let records = reader.poll_until(10, PATIENCE).unwrap();
    let (before, after) = (records[0].timestamp_ms.unwrap(), records[9].timestamp_ms.unwrap());
    assert!(after < before - 3_600_000, "the clock did not jump: {before}, {after}");
    scene.followed(PATIENCE).await;
    relay.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(relay.metric("walrelay_sessions_total").await, sessions);

    clock.set(2 * HOURS).unwrap();
    for n in 10..20 {
        scene.insert("k", &n.to_string()).await;
    }
    let records = reader.poll_until(20, PATIENCE).unwrap();
    let ahead = records[19].timestamp_ms.unwrap() - before;
    assert!((0..3_600_000).contains(&ahead), "{ahead} ms are not the time of the commit");
    // Positions as well.
    scene.followed(PATIENCE).await;
    assert_eq!(relay.metric("walrelay_sessions_total").await, sessions);
    clock.set(0).unwrap();
    let mut arrived = numbers(reader.read_to_end(PATIENCE).unwrap());
    arrived.dedup();
    assert_eq!(arrived, (0..20).collect::<Vec<_>>());
    relay.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(relay.metric_where("walrelay_poison_total", "skip").await, Some(0.0));
}

/// Nothing comes from a server that hears us and lives. A limit of a second stands for the minute
/// of the real one.
#[tokio::test(flavor = "multi_thread")]
async fn e5_a_network_that_is_dark_one_way_ends_the_session() {
    let scene = Scene::new(LATEST, 1).await;
    let relay = scene.relay().await;
    relay.terminate_and_wait(PATIENCE).unwrap();
    let proxy = Proxy::start(None, ([127, 0, 0, 1], scene.postgres.port()).into()).unwrap();
    let text = scene.config(&scene.database.url_through(proxy.port()), &scene.kafka.bootstrap());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e5.toml");
    fs::write(&file, text.replace("{http}", "127.0.0.1:1")).unwrap();
    let config = Config::load(Some(&file), std::iter::empty()).unwrap();
    fs::remove_file(&file).unwrap();
    let conninfo = &config.postgres.conninfo;
    let mut connection = connect(conninfo, &SessionOptions::default()).await.unwrap();
    let command = format!(
        "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names 'walrelay')",
        scene.topic
    );
    connection.start_copy(&command).await.unwrap();
    let (stream, rest) = connection.into_parts();
    let limits = Limits { records: 1, bytes: 1, span: 1 };
    let outboxes = Outboxes::new(Vec::new(), None);
    let mut pipe = Pipe::new(outboxes, Frontier::new(Lsn::ZERO, limits));
    let mut producer = Producer::start(&Settings::new(&config), Counts::new()).unwrap();
    let (_news, news) = tokio::sync::mpsc::channel(1);
    let (health, metrics) = (Health::default(), Metrics::new().unwrap());
    let mut shutdown = Shutdown::on_signals().unwrap();
    let silence_max = Duration::from_secs(2);
    let session = walrelay::relay::Relay {
        registry: None,
        wire: Wire::new(stream, &rest),
        pipe: &mut pipe,
        producer: &mut producer,
        positions: None,
        feedback: Feedback::new(Duration::from_millis(200)),
        health: &health,
        metrics: &metrics,
        news,
        shutdown: &mut shutdown,
        shutdown_grace: Duration::ZERO,
        silence_max,
    };
    let heard = Duration::from_secs(4);
    let darkness = async {
        // An idle server that answers is not silent.
        tokio::time::sleep(heard).await;
        proxy.stall(Direction::ToClient);
        proxy.stats()
    };
    let begun = Instant::now();
    let (ended, before) = tokio::join!(session.run(), darkness);
    assert!(matches!(ended, Err(Error::Silent(_))), "{ended:?}");
    let (took, after) = (begun.elapsed(), proxy.stats());
    assert!(took > heard + silence_max / 2 && took < 3 * (heard + silence_max), "{took:?}");
    assert!(after.bytes_to_server > before.bytes_to_server, "it was not heard");
    assert!(ended.unwrap_err().to_string().starts_with("nothing came from Postgres for 2 s"));
}

/// Postgres goes on sending until the end of a transaction, whatever it is told.
#[tokio::test(flavor = "multi_thread")]
async fn e13_sigterm_inside_a_long_transaction_does_not_wait_for_its_end() {
    const ROWS: u32 = 30_000;
    let scene = Scene::new(LATEST, 1).await;
    let proxy = Proxy::start(None, ([127, 0, 0, 1], scene.postgres.port()).into()).unwrap();
    let relay = scene.start(&scene.database.url_through(proxy.port()), &scene.kafka.bootstrap());
    relay.wait_ready(PATIENCE).await.unwrap();
    // The whole of it takes a quarter of a minute.
    proxy.throttle(300_000);
    let sql = format!(
        "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
         SELECT 'post', 'k', 'created', to_jsonb(g) FROM generate_series(0, {ROWS} - 1) g"
    );
    scene.execute(&sql).await;
    let some = async || relay.metric("walrelay_events_total").await > Some(1000.0);
    eventually(PATIENCE, "some events", some).await.unwrap();
    let asked = Instant::now();
    assert!(relay.terminate_and_wait(PATIENCE).unwrap().success());
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(8), "took {took:?}");
    let bootstrap = scene.kafka.bootstrap();
    let sent = read_all(&bootstrap, &scene.topic).unwrap().len();
    assert!(sent > 1000 && sent < ROWS as usize, "{sent} were sent: not inside of it");
    proxy.pass().unwrap();
    relay.start_again().unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.followed(PATIENCE).await;
    let arrived = numbers(&read_all(&bootstrap, &scene.topic).unwrap());
    println!("ended within {took:?} with {sent} sent, {} arrived", arrived.len());
    assert!(arrived.iter().copied().eq(0..ROWS), "{} arrived", arrived.len());
}

/// What looks on from beside the stream may fail without any harm to the stream.
#[tokio::test(flavor = "multi_thread")]
async fn e14_the_lag_is_the_servers_and_its_connection_may_die() {
    let mut scene = Scene::new(LATEST, 1).await;
    scene.configure_postgres("check_interval = \"1s\"");
    let relay = scene.relay().await;
    let sessions = relay.metric("walrelay_sessions_total").await;
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = $1 AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let ended = scene.client.query_one(sql, &[&scene.topic]).await.unwrap();
    assert_eq!(ended.get::<_, i64>(0), 1);
    scene.insert("k", "1").await;
    scene.reader().poll_until(1, PATIENCE).unwrap();
    // The server's own end is told, also of what is no row of ours.
    let written = scene.written().await;
    let told = async || {
        let server = relay.metric("walrelay_server_lsn").await?;
        #[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
        let written = written.to_wire() as f64;
        (server >= written).then_some(())
    };
    eventually(PATIENCE, "the server's position", told).await.unwrap();
    let small = async || relay.metric("walrelay_lag_bytes").await < Some(1e6);
    eventually(PATIENCE, "a small lag", small).await.unwrap();
    assert_eq!(relay.metric("walrelay_sessions_total").await, sessions, "the stream ended, too");
    relay.wait_ready(PATIENCE).await.unwrap();
}

/// E6: with no more memory than README says that it takes, full to the brim in an outage, and with
/// a long transaction behind it. Stacks count in full here, and code not at all.
#[tokio::test(flavor = "multi_thread")]
async fn e6_under_a_limit_of_memory_a_burst_and_an_outage_end_nothing() {
    const LIMIT: u64 = (64 + 32) << 20;
    const BURST: Shape = Shape { writers: 4, keys: 500, padding: 500, ..MIXED };
    let kafka = Kafka::start().unwrap();
    let scene = Scene::on(Postgres::shared(LATEST), &kafka, 6).await;
    let config = scene.config(&scene.database.url(), &kafka.bootstrap());
    let relay =
        Relay::builder(env!("CARGO_BIN_EXE_walrelay")).monitored().config(config).memory_max(LIMIT);
    let relay = relay.start().unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(relay.memory_max(), Some(LIMIT));
    let sessions = relay.metric("walrelay_sessions_total").await;
    let (process, history) = (relay.pid(), History::default());
    let load = Load::start(&scene.database, BURST, &history).await.unwrap();
    let some = async || relay.metric("walrelay_events_total").await > Some(1000.0);
    eventually(PATIENCE, "some events", some).await.unwrap();

    kafka.kill_9().unwrap();
    let full = async || relay.metric("walrelay_in_flight_bytes").await > Some(30e6);
    eventually(PATIENCE, "the relay to be full", full).await.unwrap();
    load.stop().await.unwrap();
    write_huge(&scene.database, &history, BURST.keys, 200).await.unwrap();
    let unready = async || relay.get("/readyz").await.is_ok_and(|(status, _)| status == 503);
    eventually(PATIENCE, "the relay to say that it is not ready", unready).await.unwrap();
    kafka.start_again().unwrap();

    scene.followed(2 * PATIENCE).await;
    relay.wait_ready(PATIENCE).await.unwrap();
    let records = read_all(&kafka.bootstrap(), &scene.topic).unwrap();
    let verdict = judge(&history, &scene.client, &records, 6).await;
    let peak = relay.peak_rss_bytes().unwrap() >> 20;
    println!("{verdict}; peak {peak} MiB of {}", LIMIT >> 20);
    assert!(verdict.is_faithful(), "{verdict}");
    assert_eq!(relay.pid().filter(|_| relay.is_running()), process, "{}", relay.log());
    assert_eq!(relay.metric("walrelay_sessions_total").await, sessions, "{}", relay.log());
}

/// Without a descriptor there is no connection, and nothing is confirmed that was not delivered.
#[tokio::test(flavor = "multi_thread")]
async fn e17_out_of_descriptors_is_waited_out() {
    let scene = Scene::new(LATEST, 1).await;
    let relay = scene.relay().await;
    scene.insert("k", "0").await;
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();
    scene.followed(PATIENCE).await;
    let pid = relay.pid().unwrap();
    limit(pid, "--nofile=5:4096");
    let sql = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
               WHERE slot_name = $1";
    scene.client.query(sql, &[&scene.topic]).await.unwrap();
    relay.wait_for_log(PATIENCE, "Too many open files").unwrap();
    for n in 1..10 {
        scene.insert("k", &n.to_string()).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(relay.is_running() && reader.read_to_end(PATIENCE).unwrap().len() == 1);
    limit(pid, "--nofile=4096:4096");
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.followed(PATIENCE).await;
    assert_eq!(numbers(reader.read_to_end(PATIENCE).unwrap()), (0..10).collect::<Vec<_>>());
    assert!(relay.metric("walrelay_sessions_total").await >= Some(1.0));
}
