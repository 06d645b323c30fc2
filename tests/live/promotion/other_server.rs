//! The server is not the one that was read, or not in the state that was read.

use std::time::Duration;

use lab::{Kafka, Postgres, Proxy, eventually};
use tokio_postgres::Client;
use walrelay::lsn::Lsn;

use super::{
    arrived, create_failover_slot, named, position, relay_on, remembered, switch_of, write,
};
use crate::scene::{LATEST, PATIENCE, Scene, not_ready};

/// The primary of before is started again and takes writes, as nothing of Postgres forbids.
#[tokio::test(flavor = "multi_thread")]
async fn b21_the_old_primary_that_comes_back_is_not_followed() {
    let primary = Postgres::start(LATEST).unwrap();
    let scene = Scene::on(&primary, Kafka::shared(), 1).await;
    let standby = primary.standby().slot("standby").sync_slots().start().await.unwrap();
    create_failover_slot(&scene).await;
    standby.sync_slot(&primary, &scene.topic).await.unwrap();
    let relay = relay_on(&scene, &[&primary, &standby]).await;
    write(&scene.client, "old", 3).await;
    standby.follow(&primary).await.unwrap();
    let mut reader = scene.reader();
    arrived(&mut reader, named("old", 3));
    primary.kill_9().unwrap();
    standby.promote().await.unwrap();
    switch_of(&standby).await;
    let client = scene.database.on(&standby).client().await.unwrap();
    write(&client, "new", 3).await;
    let delivered = || named("old", 3).chain(named("new", 3));
    arrived(&mut reader, delivered());

    // A relay that runs knows it from itself, one that starts from what is remembered.
    for (round, relay_lives) in [true, false].into_iter().enumerate() {
        if !relay_lives {
            relay.terminate_and_wait(PATIENCE).unwrap();
        }
        standby.stop_fast(PATIENCE).unwrap();
        primary.start_again().unwrap();
        let stray = scene.database.client().await.unwrap();
        write(&stray, "stray", 3).await;
        if !relay_lives {
            relay.start_again().unwrap();
        }
        not_ready(&relay, "Postgres is on timeline 1, but timeline 2 was read before").await;
        primary.kill_9().unwrap();
        standby.start_again().unwrap();
        relay.wait_ready(PATIENCE).await.unwrap();
        let client = scene.database.on(&standby).client().await.unwrap();
        write(&client, "last", 1).await;
        let last = (0..=round).flat_map(|_| named("last", 1));
        arrived(&mut reader, delivered().chain(last));
    }
}

/// A11 as well: an LSN that the server has not reached, or did not reach in this history.
async fn restored_backup(process_lives: bool) {
    let postgres = Postgres::start(LATEST).unwrap();
    let scene = Scene::on(&postgres, Kafka::shared(), 1).await;
    let relay = scene.relay().await;
    write(&scene.client, "kept", 5).await;
    let mut reader = scene.reader();
    arrived(&mut reader, named("kept", 5));
    postgres.stop_fast(PATIENCE).unwrap();
    let backup = postgres.back_up().unwrap();
    postgres.start_again().unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
    let client = scene.database.client().await.unwrap();
    write(&client, "undone", 200).await;
    let old = || named("kept", 5).chain(named("undone", 200));
    arrived(&mut reader, old());
    let written = async || remembered(&scene).end;
    let target = at(&client).await;
    eventually(PATIENCE, "the record", async || written().await >= target).await.unwrap();
    if process_lives {
        postgres.stop_fast(PATIENCE).unwrap();
    } else {
        relay.terminate_and_wait(PATIENCE).unwrap();
        postgres.stop_fast(PATIENCE).unwrap();
    }
    let delivered = written().await;
    postgres.restore(&backup).unwrap();
    let client = scene.database.client().await.unwrap();
    let restored = at(&client).await;
    assert!(restored < delivered, "the backup is not behind");
    if !process_lives {
        relay.start_again().unwrap();
    }
    not_ready(&relay, "it was restored from a backup").await;
    not_ready(&relay, "run once: walrelay run --accept-gap").await;

    // It grows beyond what was delivered, and looks like the server of before.
    while at(&client).await <= delivered {
        write(&client, "new", 1).await;
    }
    write(&client, "end", 1).await;
    let tried = relay.metric("walrelay_sessions_total").await.unwrap();
    let again = async || relay.metric("walrelay_sessions_total").await > Some(tried);
    eventually(PATIENCE, "another attempt", again).await.unwrap();
    not_ready(&relay, "it was restored from a backup").await;
    relay.restart().unwrap();
    not_ready(&relay, "it was restored from a backup").await;
    arrived(&mut reader, old());

    relay.terminate_and_wait(PATIENCE).unwrap();
    let url = scene.database.url();
    let accepting = scene.start_with(&url, &scene.kafka.bootstrap(), &["--accept-gap"]);
    accepting.wait_ready(PATIENCE).await.unwrap();
    let count = "SELECT count(*) FROM outbox WHERE payload::text LIKE '%new%'";
    let new: i64 = client.query_one(count, &[]).await.unwrap().get(0);
    let end =
        |records: &[lab::Record]| records.iter().any(|record| record.payload_text() == "\"end 0\"");
    let records = reader.read_until(PATIENCE, "the end", end).unwrap();
    let found = records.iter().filter(|record| record.payload_text() == "\"new 0\"");
    assert_eq!(found.count(), usize::try_from(new).unwrap(), "events of the new history");
}

#[tokio::test(flavor = "multi_thread")]
async fn b23_a_restored_backup_is_refused_also_when_it_has_grown() {
    restored_backup(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b23_a_relay_that_starts_on_a_restored_backup_refuses_it() {
    restored_backup(false).await;
}

/// The relay is asked to end before Kafka has what it found out; then the server grows.
#[tokio::test(flavor = "multi_thread")]
async fn b23_a_relay_does_not_end_before_it_is_written_that_a_backup_is_refused() {
    const FAR: Duration = Duration::from_millis(300);
    let (postgres, kafka) = (Postgres::start(LATEST).unwrap(), Kafka::start().unwrap());
    let proxy = Proxy::start(Some(kafka.proxied_port()), kafka.proxied_target()).unwrap();
    let scene = Scene::on(&postgres, &kafka, 1).await;
    let relay = scene.start(&scene.database.url(), &kafka.proxied_bootstrap());
    relay.wait_ready(PATIENCE).await.unwrap();
    postgres.stop_fast(PATIENCE).unwrap();
    let backup = postgres.back_up().unwrap();
    postgres.start_again().unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
    write(&scene.database.client().await.unwrap(), "undone", 200).await;
    arrived(&mut scene.reader(), named("undone", 200));
    let client = scene.database.client().await.unwrap();
    let target = at(&client).await;
    let written = async || remembered(&scene).end >= target;
    eventually(PATIENCE, "the record", written).await.unwrap();
    postgres.stop_fast(PATIENCE).unwrap();
    let delivered = remembered(&scene).end;
    postgres.restore(&backup).unwrap();
    proxy.delay(FAR);
    relay.wait_for_log(PATIENCE, "it was restored from a backup").unwrap();
    relay.terminate_and_wait(PATIENCE).unwrap();

    let client = scene.database.client().await.unwrap();
    while at(&client).await <= delivered {
        write(&client, "new", 1).await;
    }
    proxy.pass().unwrap();
    relay.start_again().unwrap();
    not_ready(&relay, "it was restored from a backup").await;
}

/// How far the server has written.
async fn at(client: &Client) -> Lsn {
    let row = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap();
    row.get::<_, String>(0).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn b23_another_cluster_is_refused_and_begins_a_new_epoch() {
    let postgres = Postgres::start(LATEST).unwrap();
    let scene = Scene::on(&postgres, Kafka::shared(), 1).await;
    let relay = scene.relay().await;
    write(&scene.client, "first", 3).await;
    let mut reader = scene.reader();
    arrived(&mut reader, named("first", 3));
    scene.followed(PATIENCE).await;
    postgres.stop_fast(PATIENCE).unwrap();
    postgres.start_anew().unwrap();
    let name = scene.database.name();
    let sql = format!("CREATE DATABASE {name}");
    postgres.client("postgres").await.unwrap().batch_execute(&sql).await.unwrap();
    scene.database.create_outbox().await.unwrap();
    let client = scene.database.client().await.unwrap();
    not_ready(&relay, "this is another Postgres than before: its system identifier is ").await;
    let slots = "SELECT FROM pg_replication_slots";
    assert!(client.query(slots, &[]).await.unwrap().is_empty(), "nothing is made there");

    // A restart says that it is meant, and what was delivered of the other one.
    let delivered = remembered(&scene).end;
    relay.restart().unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
    relay.wait_for_log(PATIENCE, &format!("up to {delivered} of another Postgres")).unwrap();
    write(&client, "second", 3).await;
    let records = arrived(&mut reader, named("first", 3).chain(named("second", 3)));
    assert_eq!((position(&records[2]).0, position(&records[3]).0), (0, 1), "the epoch grows");
}
