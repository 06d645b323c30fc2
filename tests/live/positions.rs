//! The position record: a restart repeats less, and a gap is proven.

use std::time::Duration;

use lab::history::History;
use lab::load::{Load, MIXED, Shape, may_be_repeated, write_huge};
use lab::{Kafka, Postgres, eventually, read_all};
use tokio_postgres::types::ToSql;
use walrelay::lsn::Lsn;

use crate::scene::{LATEST, PATIENCE, Scene, judge};

/// A10: up to version 16 a slot goes back when Postgres restarts, even after a clean stop.
#[tokio::test(flavor = "multi_thread")]
async fn a10_a_slot_that_went_back_repeats_nothing() {
    // Up to version 16 a clean stop is enough.
    for (version, clean) in [(14, true), (15, true), (15, false), (LATEST, false)] {
        let postgres = Postgres::start(version).unwrap();
        let scene = Scene::on(&postgres, Kafka::shared(), 1).await;
        let relay = scene.relay().await;
        for n in 0..50 {
            scene.insert("k", &n.to_string()).await;
        }
        scene.reader().poll_until(50, PATIENCE).unwrap();
        relay.terminate_and_wait(PATIENCE).unwrap();
        let before = scene.confirmed().await;
        if clean {
            postgres.stop_fast(PATIENCE).unwrap();
        } else {
            postgres.stop_immediate().unwrap();
        }
        postgres.start_again().unwrap();
        let client = scene.database.client().await.unwrap();
        let sql = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots";
        let after: String = client.query_one(sql, &[]).await.unwrap().get(0);
        let after: Lsn = after.parse().unwrap();
        assert!(after < before, "the slot did not go back: the test shows nothing");

        relay.start_again().unwrap();
        relay.wait_ready(PATIENCE).await.unwrap();
        client.batch_execute(&crate::scene::insert("k", "50")).await.unwrap();
        let last = async || {
            let records = read_all(&scene.kafka.bootstrap(), &scene.topic).unwrap();
            records.iter().any(|record| record.payload_text() == "50").then_some(records)
        };
        let records = eventually(PATIENCE, "the last row", last).await.unwrap();
        let numbers = records.iter().map(|record| record.payload_text().parse().unwrap());
        assert_eq!(numbers.collect::<Vec<u32>>(), (0..=50).collect::<Vec<u32>>());
    }
}

/// A7: a long transaction does not begin again at its first row.
#[tokio::test(flavor = "multi_thread")]
async fn a7_a_kill_inside_a_long_transaction_repeats_what_was_in_flight() {
    const ROWS: u32 = 1_000_000;
    let postgres = Postgres::start(LATEST).unwrap();
    let scene = Scene::on(&postgres, Kafka::shared(), 3).await;
    let relay = scene.relay().await;
    relay.terminate_and_wait(PATIENCE).unwrap();
    let config = scene.config(&scene.database.url(), &scene.kafka.bootstrap());
    let often = "[postgres]\nstatus_interval = \"100ms\"";
    relay.write_config(&config.replace("[postgres]", often)).unwrap();
    relay.start_again().unwrap();
    let history = History::default();
    write_huge(&scene.database, &history, 1000, ROWS / 1000).await.unwrap();
    let mut bound = 0;
    for _ in 0..3 {
        let far = async || {
            let sent = relay.metric("walrelay_events_total").await.unwrap_or(0.0);
            sent > 20_000.0
        };
        eventually(PATIENCE, "some way into the transaction", far).await.unwrap();
        bound +=
            may_be_repeated(&relay, Duration::from_millis(300), Duration::from_millis(100)).await;
        relay.kill_9().unwrap();
        relay.start_again().unwrap();
    }
    let done = async || {
        let records = read_all(&scene.kafka.bootstrap(), &scene.topic).unwrap();
        (judge(&history, &scene.client, &records, 3).await.lost == 0).then_some(records)
    };
    let records = eventually(2 * PATIENCE, "all of it", done).await.unwrap();
    let verdict = judge(&history, &scene.client, &records, 3).await;
    let repeated = verdict.repeated;
    println!("{repeated} of {ROWS}, at most {bound}, repeated after three kills");
    assert!(verdict.is_faithful(), "{verdict}");
    assert!(repeated <= bound, "{repeated} repeated, {bound} were in flight or not written");
    scene.followed(PATIENCE).await;
}

/// What README tells consumers to do, as it stands there.
#[tokio::test(flavor = "multi_thread")]
async fn d35_a_consumer_drops_repeats_with_one_comparison() {
    let readme = include_str!("../../README.md");
    let mut blocks = readme.split("```sql\n").filter_map(|it| it.split("```").next());
    let rule = blocks.find(|block| block.contains("handled")).unwrap();
    let (create, note) = rule.split_once("\n\n").unwrap();

    let scene = Scene::new(LATEST, 3).await;
    let relay = scene.relay().await;
    let history = History::default();
    let shape = Shape { writers: 4, keys: 100, ..MIXED };
    let load = Load::start(&scene.database, shape, &history).await.unwrap();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        relay.kill_9().unwrap();
        relay.start_again().unwrap();
        relay.wait_ready(PATIENCE).await.unwrap();
    }
    load.stop().await.unwrap();
    scene.followed(PATIENCE).await;
    let records = read_all(&scene.kafka.bootstrap(), &scene.topic).unwrap();
    let verdict = judge(&history, &scene.client, &records, 3).await;
    assert!(verdict.repeated > 0, "nothing was repeated: the test shows nothing");

    scene.execute(create).await;
    let note = scene.client.prepare(note).await.unwrap();
    scene.execute("BEGIN").await;
    let mut kept = Vec::new();
    for record in &records {
        let position = record.header("walrelay-position").unwrap();
        let handled = [&scene.topic as &(dyn ToSql + Sync), &record.partition, &position];
        if scene.client.execute(&note, &handled).await.unwrap() == 1 {
            kept.push(record.clone());
        }
    }
    assert_eq!(kept.len() + usize::try_from(verdict.repeated).unwrap(), records.len());
    let verdict = judge(&history, &scene.client, &kept, 3).await;
    assert!(verdict.is_perfect(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_position_topic_the_slot_is_all_there_is() {
    let mut scene = Scene::new(LATEST, 1).await;
    scene.configure("[delivery]\npositions_topic = \"\"");
    let relay = scene.relay().await;
    scene.insert("k", "1").await;
    scene.reader().poll_until(1, PATIENCE).unwrap();
    scene.followed(PATIENCE).await;
    relay.restart().unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
}
