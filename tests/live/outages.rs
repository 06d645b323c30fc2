//! Postgres does not work as it should.

use std::process::Command;
use std::time::Duration;

use lab::history::History;
use lab::load::{Load, PACED, Shape};
use lab::{Kafka, Postgres, eventually, read_all};

use crate::scene::{LATEST, PATIENCE, Scene, insert, judge, not_ready};

/// The server process that streams.
async fn walsender(scene: &Scene<'_>) -> Option<i32> {
    let sql = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1";
    let client = scene.database.client().await.ok()?;
    client.query_one(sql, &[&scene.topic]).await.ok()?.get(0)
}

fn kill(signal: &str, pid: &impl ToString) {
    let output = Command::new("kill").arg(signal).arg(pid.to_string()).output().unwrap();
    assert!(output.status.success(), "kill {signal}: {output:?}");
}

/// B12 and B13: a walsender that dies takes all of Postgres with it, which recovers; and a server
/// that shuts down refuses connections for as long as a session lives.
#[tokio::test(flavor = "multi_thread")]
async fn b12_b13_a_crashed_walsender_and_a_slow_shutdown_repeat_nothing() {
    for version in [14, LATEST] {
        let postgres = Postgres::start(version).unwrap();
        let scene = Scene::on(&postgres, Kafka::shared(), 3).await;
        let relay = scene.relay().await;
        let history = History::default();
        for round in 1..=3 {
            let shape = Shape { writers: 2, pause: Duration::from_millis(1), ..PACED };
            let load = Load::start(&scene.database, shape, &history).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            let pid = async || walsender(&scene).await;
            let pid = eventually(PATIENCE, "a walsender", pid).await.unwrap();
            kill("-KILL", &pid);
            load.outlive_server().await.unwrap();
            let crashed = postgres.log().matches("terminated by signal 9: Killed").count();
            assert_eq!(crashed, round, "{version}");
            let recovered = async || scene.database.client().await.is_ok();
            eventually(PATIENCE, "Postgres to recover", recovered).await.unwrap();
            let ended = f64::from(u32::try_from(round).unwrap());
            let noticed = async || relay.metric("walrelay_sessions_total").await >= Some(ended);
            eventually(PATIENCE, "the relay to notice", noticed).await.unwrap();
            relay.wait_ready(PATIENCE).await.unwrap();
        }
        // A smart shutdown waits for the session that is open.
        let session = scene.database.client().await.unwrap();
        session.batch_execute(&insert("late", "{\"n\": 1}")).await.unwrap();
        kill("-TERM", &postgres.pid().unwrap());
        let sql = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots";
        session.batch_execute(sql).await.unwrap();
        not_ready(&relay, "57P03: the database system is shutting down").await;
        postgres.stop_immediate().unwrap();
        not_ready(&relay, "Connection refused").await;
        postgres.start_again().unwrap();
        relay.wait_ready(PATIENCE).await.unwrap();
        let client = scene.database.client().await.unwrap();
        client.batch_execute(&insert("late", "{\"n\": 2}")).await.unwrap();
        let all = async || {
            let records = read_all(&scene.kafka.bootstrap(), &scene.topic).unwrap();
            let late = records.iter().filter(|record| record.key_text() == "late").count();
            (late >= 2).then_some(records)
        };
        let mut records = eventually(PATIENCE, "the last row", all).await.unwrap();
        let late = records.extract_if(.., |record| record.key_text() == "late").count();
        assert_eq!(late, 2);
        let verdict = judge(&history, &client, &records, 3).await;
        assert!(verdict.is_perfect(), "{version}: {verdict}");
    }
}

/// B29: what a long transaction needs on disk while it is decoded cannot be written.
#[tokio::test(flavor = "multi_thread")]
async fn b29_a_disk_that_is_full_is_waited_for() {
    const ROWS: usize = 20_000;
    let settings = [("logical_decoding_work_mem", "64kB")];
    let postgres = Postgres::start_with(LATEST, &settings, None).unwrap();
    let scene = Scene::on(&postgres, Kafka::shared(), 1).await;
    let relay = scene.relay().await;
    scene.insert("k", "0").await;
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();
    // No file of this process may grow beyond 100 kB.
    let pid = walsender(&scene).await.unwrap();
    postgres.limit_files_of(pid, 100_000).unwrap();
    scene
        .execute(&format!(
            "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
             SELECT 'post', 'k', 'created', to_jsonb(g) FROM generate_series(1, {ROWS}) g"
        ))
        .await;
    // A write that was cut short counts as a full disk.
    let why = "ERROR 53100: could not write to data file for XID ";
    relay.wait_for_log(PATIENCE, why).unwrap();
    assert!(postgres.log().contains("No space left on device"), "{}", postgres.log());
    // The next process may write.
    let records = reader.poll_until(ROWS + 1, PATIENCE).unwrap();
    let numbers: Vec<usize> = records.iter().map(|it| it.payload_text().parse().unwrap()).collect();
    assert_eq!(numbers, (0..=ROWS).collect::<Vec<_>>());
    relay.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(relay.metric_where("walrelay_sessions_total", "reason=\"server\"").await, Some(1.0));
}

/// B9: a standby removes rows of the catalog that a slot of its own still needs.
#[tokio::test(flavor = "multi_thread")]
async fn b9_a_slot_that_a_standby_gave_up_halts_the_relay_after_its_promotion() {
    let primary = Postgres::start(LATEST).unwrap();
    let scene = Scene::on(&primary, Kafka::shared(), 1).await;
    scene.execute("CREATE PUBLICATION walrelay FOR TABLE outbox WITH (publish = 'insert')").await;
    let standby = primary.standby().setting("hot_standby_feedback", "off").start().await.unwrap();
    let there = scene.database.on(&standby);
    let (client, name) = (there.client().await.unwrap(), scene.topic.clone());
    let sql = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
    let making = tokio::spawn(async move { client.execute(sql, &[&name]).await });
    let made = async || {
        // On an idle primary nothing else says which transactions run.
        scene.execute("SELECT pg_log_standby_snapshot()").await;
        making.is_finished()
    };
    eventually(PATIENCE, "the slot on the standby", made).await.unwrap();
    making.await.unwrap().unwrap();
    let lost = async || {
        // Rows that their own transaction deletes were never visible to anybody's slot.
        for sql in ["CREATE TABLE gone (n int)", "DROP TABLE gone", "VACUUM pg_class"] {
            scene.execute(sql).await;
        }
        let client = there.client().await.unwrap();
        let sql = "SELECT invalidation_reason FROM pg_replication_slots WHERE slot_name = $1";
        let row = client.query_one(sql, &[&scene.topic]).await.unwrap();
        row.get::<_, Option<String>>(0)
    };
    let reason = eventually(PATIENCE, "the slot to be given up", lost).await.unwrap();
    assert_eq!(reason, "rows_removed");

    let relay = scene.start(&there.url(), &scene.kafka.bootstrap());
    not_ready(&relay, "is a standby; walrelay needs the primary").await;
    primary.stop_immediate().unwrap();
    standby.promote().await.unwrap();
    let why = format!("slot {} is lost: the reason it gives is rows_removed", scene.topic);
    not_ready(&relay, &why).await;
    assert!(relay.log().contains(&why), "{}", relay.log());
}
