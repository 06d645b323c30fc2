//! Starting without something, standing by, ending.

use std::time::{Duration, Instant};

use lab::{Kafka, Postgres, Proxy, Signal, eventually};

use crate::scene::{LATEST, PATIENCE, Scene, insert, not_ready};

#[tokio::test(flavor = "multi_thread")]
async fn d13_a_missing_topic_is_waited_for() {
    let scene = Scene::new(LATEST, 0).await;
    let relay = scene.start(&scene.database.url(), &scene.kafka.bootstrap());
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k", "1").await;
    not_ready(&relay, &format!("topic {} does not exist; create it", scene.topic)).await;
    scene.kafka.create_topic(&scene.topic, 3).await.unwrap();
    scene.reader().poll_until(1, PATIENCE).unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
}

/// E2: the end may be asked for while Postgres is away and Kafka has not acked.
#[tokio::test(flavor = "multi_thread")]
async fn e2_sigterm_between_two_sessions_repeats_nothing() {
    const ROWS: u32 = 500;
    let kafka = Kafka::start().unwrap();
    let to_kafka = Proxy::start(Some(kafka.proxied_port()), kafka.proxied_target()).unwrap();
    let mut scene = Scene::on(Postgres::shared(LATEST), &kafka, 1).await;
    let to_postgres = Proxy::start(None, ([127, 0, 0, 1], scene.postgres.port()).into()).unwrap();
    // Nothing is written in time by chance.
    scene.configure_postgres("status_interval = \"10s\"");
    let url = scene.database.url_through(to_postgres.port());
    let relay = scene.start(&url, &kafka.proxied_bootstrap());
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k", "0").await;
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();

    to_kafka.delay(Duration::from_secs(2));
    let rows: String = (1..=ROWS).map(|n| insert("k", &n.to_string())).collect();
    scene.execute(&rows).await;
    let sent = async || relay.metric("walrelay_events_total").await > Some(f64::from(ROWS));
    eventually(PATIENCE, "all rows to be sent", sent).await.unwrap();
    to_postgres.down().unwrap();
    not_ready(&relay, "connecting").await;
    let in_flight = relay.metric("walrelay_in_flight_records").await;
    assert!(in_flight > Some(0.0), "everything was acked: the test shows nothing");
    assert!(relay.terminate_and_wait(PATIENCE).unwrap().success());
    to_kafka.pass().unwrap();
    to_postgres.pass().unwrap();
    relay.start_again().unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k", "-1").await;
    reader.poll_until(502, PATIENCE).unwrap();
    let records = reader.read_to_end(PATIENCE).unwrap();
    let rows: Vec<_> = records.iter().map(lab::Record::payload_text).collect();
    let expected = (0..=ROWS).map(|n| n.to_string()).chain(["-1".to_owned()]);
    assert_eq!(rows, expected.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_database_is_waited_for() {
    let scene = Scene::new(LATEST, 1).await;
    let name = format!("{}_later", scene.topic);
    let url = scene.database.url().replace(scene.database.name(), &name);
    let relay = scene.start(&url, &scene.kafka.bootstrap());
    not_ready(&relay, "does not exist").await;
    scene.execute(&format!("CREATE DATABASE {name}")).await;
    not_ready(&relay, "create the outbox tables").await;
    let later = scene.postgres.client(&name).await.unwrap();
    later
        .batch_execute(
            "CREATE TABLE outbox (id int, aggregatetype text, aggregateid text, type text,
             payload text)",
        )
        .await
        .unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
    let event = insert("k", "1").replace("(aggregatetype", "(id, aggregatetype");
    later.batch_execute(&event.replace("('post'", "(7, 'post'")).await.unwrap();
    let mut reader = scene.reader();
    let records = reader.poll_until(1, PATIENCE).unwrap();
    assert_eq!(records[0].header("id").as_deref(), Some("7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_server_is_waited_for() {
    let postgres = Postgres::start(LATEST).unwrap();
    let scene = Scene::on(&postgres, Kafka::shared(), 1).await;
    postgres.stop_immediate().unwrap();
    let relay = scene.start(&scene.database.url(), &scene.kafka.bootstrap());
    not_ready(&relay, "Connection refused").await;
    postgres.start_again().unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
    let client = scene.database.client().await.unwrap();
    client.batch_execute(&insert("k", "1")).await.unwrap();
    scene.reader().poll_until(1, PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn d27_without_kafka_no_slot_is_made() {
    let kafka = Kafka::start().unwrap();
    let scene = Scene::on(Postgres::shared(LATEST), &kafka, 1).await;
    kafka.kill_9().unwrap();
    let relay = scene.start(&scene.database.url(), &kafka.bootstrap());
    not_ready(&relay, "waiting_for_kafka: ").await;
    not_ready(&relay, "Connection refused").await;
    let slots = "SELECT FROM pg_replication_slots WHERE slot_name = $1";
    assert!(scene.client.query(slots, &[&scene.topic]).await.unwrap().is_empty());
    kafka.start_again().unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k", "1").await;
    scene.reader().poll_until(1, PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b11_the_second_relay_stands_by_and_takes_over() {
    let scene = Scene::new(LATEST, 1).await;
    let first = scene.relay().await;
    let second = scene.start(&scene.database.url(), &scene.kafka.bootstrap());
    not_ready(&second, "another relay is at work").await;
    assert_eq!(second.metric("walrelay_standby").await, Some(1.0));
    scene.insert("k", "1").await;
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();
    first.kill_9().unwrap();
    second.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k", "2").await;
    // The first relay may not have confirmed the first row, which then comes again.
    let second = |records: &[lab::Record]| records.iter().any(|r| r.payload_text() == "2");
    reader.read_until(PATIENCE, "the second row", second).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn e3_a_relay_that_lost_the_slot_takes_it_back_where_the_other_left_it() {
    let scene = Scene::new(LATEST, 1).await;
    let first = scene.relay().await;
    scene.insert("k", "1").await;
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();
    let second = scene.start(&scene.database.url(), &scene.kafka.bootstrap());
    not_ready(&second, "another relay is at work").await;
    // The first is frozen and cut off; the second takes over and gets further.
    first.signal(Signal::Stop).unwrap();
    eventually(PATIENCE, "the first to be frozen", async || first.state() == Some('T'))
        .await
        .unwrap();
    let sql = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
               WHERE slot_name = $1";
    scene.client.query(sql, &[&scene.topic]).await.unwrap();
    second.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k", "2").await;
    let arrived = |payload: &'static str| {
        move |records: &[lab::Record]| records.iter().any(|r| r.payload_text() == payload)
    };
    reader.read_until(PATIENCE, "the second row", arrived("2")).unwrap();
    scene.followed(PATIENCE).await;
    first.signal(Signal::Cont).unwrap();
    not_ready(&first, "another relay is at work").await;
    second.kill_9().unwrap();
    first.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k", "3").await;
    reader.read_until(PATIENCE, "the third row", arrived("3")).unwrap();
}

/// A walsender that hangs does not notice that its connection broke, and keeps the slot.
#[tokio::test(flavor = "multi_thread")]
async fn the_relay_ends_the_server_process_that_it_left_behind() {
    let scene = Scene::new(LATEST, 1).await;
    let target = format!("127.0.0.1:{}", scene.postgres.port()).parse().unwrap();
    let proxy = Proxy::start(None, target).unwrap();
    let relay = scene.start(&scene.database.url_through(proxy.port()), &scene.kafka.bootstrap());
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k", "1").await;
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();

    let walsender = scene.postgres.freeze_walsender(&scene.topic).await.unwrap();
    proxy.cut().unwrap();
    scene.insert("k", "2").await;
    let held = format!(
        "slot {} is still held by server process {} of the connection before",
        scene.topic,
        walsender.pid()
    );
    not_ready(&relay, &held).await;
    let asked = async || walsender.is_asked_to_end();
    eventually(PATIENCE, "the server process to be asked to end", asked).await.unwrap();
    drop(walsender);
    relay.wait_ready(PATIENCE).await.unwrap();
    let records = reader.poll_until(2, PATIENCE).unwrap();
    let payloads: Vec<_> = records.iter().map(lab::Record::payload_text).collect();
    assert_eq!(payloads, ["1", "2"]);
    assert!(scene.postgres.log().contains("due to administrator command"));
}

#[tokio::test(flavor = "multi_thread")]
async fn e2_sigterm_settles_what_is_in_flight_and_confirms_it() {
    let scene = Scene::new(LATEST, 1).await;
    let relay = scene.relay().await;
    for round in 1..=5 {
        for n in 0..100 {
            scene.insert("k", &format!("{}", round * 100 + n)).await;
        }
        let asked = Instant::now();
        let status = relay.terminate_and_wait(PATIENCE).unwrap();
        assert!(status.success(), "{status}");
        assert!(asked.elapsed() < Duration::from_secs(2), "took {:?}", asked.elapsed());
        relay.start_again().unwrap();
        relay.wait_ready(PATIENCE).await.unwrap();
    }
    let mut reader = scene.reader();
    reader.poll_until(500, PATIENCE).unwrap();
    // Whatever was repeated would stand behind it by now.
    scene.insert("k", "\"end\"").await;
    let records = reader.poll_until(501, PATIENCE).unwrap();
    let numbers = records.iter().filter_map(|record| record.payload_text().parse().ok());
    assert_eq!(numbers.collect::<Vec<u32>>(), (100..600).collect::<Vec<u32>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_without_kafka_ends_within_the_grace_and_loses_nothing() {
    let kafka = Kafka::start().unwrap();
    let mut scene = Scene::on(Postgres::shared(LATEST), &kafka, 1).await;
    scene.configure("[delivery]\nshutdown_grace = \"1s\"");
    let relay = scene.relay().await;
    scene.insert("k", "1").await;
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();
    kafka.kill_9().unwrap();
    scene.insert("k", "2").await;
    not_ready(&relay, "no Kafka broker answers").await;
    let asked = Instant::now();
    assert!(relay.terminate_and_wait(PATIENCE).unwrap().success());
    assert!(asked.elapsed() < Duration::from_secs(5), "took {:?}", asked.elapsed());
    kafka.start_again().unwrap();
    relay.start_again().unwrap();
    // The ack of the first may have died with the broker.
    let second = |records: &[lab::Record]| records.iter().any(|r| r.payload_text() == "2");
    reader.read_until(PATIENCE, "the second row", second).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_slot_is_a_gap_and_not_a_first_start() {
    let scene = Scene::new(LATEST, 1).await;
    let relay = scene.relay().await;
    relay.terminate_and_wait(PATIENCE).unwrap();
    let sql = "SELECT pg_drop_replication_slot($1)";
    scene.client.execute(sql, &[&scene.topic]).await.unwrap();
    scene.insert("k", "1").await;
    relay.start_again().unwrap();
    not_ready(&relay, "is gone, and with it every event").await;
    not_ready(&relay, "run once: walrelay run --accept-gap").await;
    // Without the mark as well: the position record knows.
    scene.execute("COMMENT ON PUBLICATION walrelay IS NULL").await;
    not_ready(&relay, "was moved or made anew, and the events between were not sent").await;
}

/// A18 and A19: a walsender ends only when everything it has sent is confirmed. Until then it asks
/// for a status the moment it got one.
#[tokio::test(flavor = "multi_thread")]
async fn a18_a19_postgres_stops_although_kafka_is_down_and_rows_wait() {
    for version in [14, LATEST] {
        let (postgres, kafka) = (Postgres::start(version).unwrap(), Kafka::start().unwrap());
        let scene = Scene::on(&postgres, &kafka, 1).await;
        let target = format!("127.0.0.1:{}", postgres.port()).parse().unwrap();
        let proxy = Proxy::start(None, target).unwrap();
        let relay = scene.start(&scene.database.url_through(proxy.port()), &kafka.bootstrap());
        relay.wait_ready(PATIENCE).await.unwrap();
        scene.insert("k", "0").await;
        let mut reader = scene.reader();
        reader.poll_until(1, PATIENCE).unwrap();
        kafka.kill_9().unwrap();
        for n in 1..100 {
            scene.insert("k", &n.to_string()).await;
        }
        not_ready(&relay, "no Kafka broker answers").await;
        let (asked, before) = (Instant::now(), proxy.stats());
        postgres.stop_fast(Duration::from_secs(10)).unwrap();
        // Whoever answers each time does so 35,000 times a second, at 39 bytes.
        let told = proxy.stats().bytes_to_server - before.bytes_to_server;
        println!("Postgres {version} stopped within {:?}, told {told} bytes", asked.elapsed());
        assert!(told < 20_000, "{version}: {told} bytes were told");
        relay.wait_for_log(PATIENCE, "Postgres is shutting down").unwrap();

        postgres.start_again().unwrap();
        kafka.start_again().unwrap();
        relay.wait_ready(PATIENCE).await.unwrap();
        let all = |records: &[lab::Record]| records.iter().any(|r| r.payload_text() == "99");
        let records = reader.read_until(PATIENCE, "the last row", all).unwrap();
        let mut numbers: Vec<u32> =
            records.iter().map(|record| record.payload_text().parse().unwrap()).collect();
        numbers.dedup();
        assert!(numbers.is_sorted() && numbers.len() == 100, "{numbers:?}");
    }
}
