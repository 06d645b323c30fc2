//! check, init, status: commands that answer and end.

use lab::history::History;
use lab::load::{Load, MIXED};
use lab::{Kafka, Postgres, eventually};

use crate::scene::{LATEST, PATIENCE, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_slot_and_position() {
    let scene = Scene::new(LATEST, 1).await;
    let (url, brokers) = (scene.database.url(), scene.kafka.bootstrap());
    let relay = scene.relay().await;
    scene.insert("k", "1").await;
    scene.followed(PATIENCE).await;
    let (good, text) = scene.command(&url, &brokers, &["status"]);
    assert!(good, "{text}");
    for part in [
        &format!("slot          {}\n", scene.topic),
        "state         read by server process ",
        "(walrelay)\n",
        "confirmed     0/",
        " behind)\n",
        "retained log  ",
        "(reserved)\n",
        "safe log      no limit\n",
        "(epoch 0, timeline 1)\n",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    relay.terminate_and_wait(PATIENCE).unwrap();
    let (_, text) = scene.command(&url, &brokers, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["state"], "not read by anybody");
    assert_eq!(status["slot"]["wal_status"], "reserved");
    assert_eq!(status["position"]["end_lsn"], status["slot"]["confirmed_lsn"], "{status}");

    let sql = "SELECT pg_drop_replication_slot($1)";
    scene.client.execute(sql, &[&scene.topic]).await.unwrap();
    let (good, text) = scene.command(&url, &brokers, &["status"]);
    assert!(good && text.contains("state         no slot\n"), "{text}");
    let (good, text) = scene.command("postgres://postgres@127.0.0.1:1/x", &brokers, &["status"]);
    assert!(!good && text.contains("Connection refused"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_answers_in_json() {
    let scene = Scene::new(LATEST, 1).await;
    scene.execute("ALTER TABLE outbox SET UNLOGGED").await;
    let (url, brokers) = (scene.database.url(), scene.kafka.bootstrap());
    let (good, text) = scene.command(&url, &brokers, &["check", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(!good);
    assert_eq!(report["ok"], false);
    let checks = report["checks"].as_array().unwrap();
    let failed: Vec<_> = checks.iter().filter(|check| check["result"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{report}");
    assert_eq!(failed[0]["check"], "table public.outbox");
    assert_eq!(failed[0]["remedy"], "run: ALTER TABLE \"public\".\"outbox\" SET LOGGED");
}

/// The record is written while it is looked at, and must not seem to be ahead of the server.
#[tokio::test(flavor = "multi_thread")]
async fn check_finds_nothing_beside_a_busy_relay() {
    let scene = Scene::new(LATEST, 1).await;
    let relay = scene.relay().await;
    let load = Load::start(&scene.database, MIXED, &History::default()).await.unwrap();
    let some = async || relay.metric("walrelay_events_total").await > Some(1000.0);
    eventually(PATIENCE, "some events", some).await.unwrap();
    for _ in 0..5 {
        let failed = scene.faults().into_iter().filter(|line| line.starts_with("FAIL"));
        assert_eq!(failed.collect::<Vec<_>>(), Vec::<String>::new());
    }
    load.stop().await.unwrap();
}

/// The tests' topic is a plain name, so that a table made for it has no column for it.
const WITHOUT_TYPE: &str =
    "INSERT INTO outbox (aggregateid, type, payload) VALUES ('k', 'created', '1')";

/// The relay's role may do nothing but connect and replicate.
#[tokio::test(flavor = "multi_thread")]
async fn the_printed_sql_is_all_that_a_relay_without_rights_needs() {
    for version in [14, LATEST] {
        let mut scene = Scene::new(version, 1).await;
        scene.configure_postgres("create = false");
        scene.execute("DROP TABLE outbox").await;
        let role = format!("{}_role", scene.topic);
        let url = scene.database.url().replace("postgres@", &format!("{role}@"));
        let brokers = scene.kafka.bootstrap();
        let (good, sql) = scene.command(&url, &brokers, &["init", "--print", "--tables"]);
        assert!(good, "{sql}");
        for statement in sql.split_inclusive(";\n") {
            scene.execute(statement).await;
        }
        let (good, text) = scene.command(&url, &brokers, &["check"]);
        assert!(good, "{text}");
        let relay = scene.start(&url, &brokers);
        relay.wait_ready(PATIENCE).await.unwrap();
        scene.execute(WITHOUT_TYPE).await;
        scene.reader().poll_until(1, PATIENCE).unwrap();
        assert!(!relay.log().contains("WARN"), "{}", relay.log());
        // A slot that is gone is known by the mark, which the relay could not have left.
        relay.terminate_and_wait(PATIENCE).unwrap();
        let sql = format!("SELECT pg_drop_replication_slot('{}')", scene.topic);
        scene.execute(&sql).await;
        let (good, text) = scene.command(&url, &brokers, &["check"]);
        assert!(!good && text.contains("is gone, and with it every event"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn init_makes_what_a_first_start_would() {
    let scene = Scene::new(LATEST, 1).await;
    scene.execute("DROP TABLE outbox").await;
    let (url, brokers) = (scene.database.url(), scene.kafka.bootstrap());
    let (good, text) = scene.command(&url, &brokers, &["init"]);
    assert!(!good && text.contains("table public.outbox does not exist"), "{text}");
    for _ in 0..2 {
        let (good, text) = scene.command(&url, &brokers, &["init", "--tables"]);
        assert!(good, "{text}");
    }
    // Written before the relay has ever run.
    scene.execute(WITHOUT_TYPE).await;
    let _relay = scene.relay().await;
    scene.reader().poll_until(1, PATIENCE).unwrap();
}

/// B14: making a slot waits for every transaction that writes, and says for which.
#[tokio::test(flavor = "multi_thread")]
async fn b14_who_holds_up_the_slot_is_named() {
    for version in [14, LATEST] {
        let postgres = Postgres::start(version).unwrap();
        let scene = Scene::on(&postgres, Kafka::shared(), 1).await;
        let other = scene.database.client().await.unwrap();
        let sql = "SET application_name = 'long report'; CREATE TABLE t (n int); BEGIN; \
                   INSERT INTO t VALUES (1)";
        other.batch_execute(sql).await.unwrap();
        let relay = scene.start(&scene.database.url(), &scene.kafka.bootstrap());
        crate::scene::not_ready(&relay, "waits for server process ").await;
        let (_, text) = relay.get("/readyz").await.unwrap();
        assert!(text.contains("(postgres, long report, "), "{text}");
        other.batch_execute("PREPARE TRANSACTION 'left behind'").await.unwrap();
        crate::scene::not_ready(&relay, "waits for prepared transaction 'left behind'").await;
        other.batch_execute("COMMIT PREPARED 'left behind'").await.unwrap();
        relay.wait_ready(PATIENCE).await.unwrap();
    }
}

/// B10: a reader that is cut off from the world holds the slot until the server gives it up.
#[tokio::test(flavor = "multi_thread")]
async fn b10_a_slot_held_by_a_dead_connection_is_taken_over() {
    let scene = Scene::new(LATEST, 1).await;
    let target = format!("127.0.0.1:{}", scene.postgres.port()).parse().unwrap();
    let proxy = lab::Proxy::start(None, target).unwrap();
    let url = scene.database.url_through(proxy.port());
    let relay = scene.start(&url, &scene.kafka.bootstrap());
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k", "1").await;
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();
    scene.followed(PATIENCE).await;
    proxy.stall(lab::Direction::Both);
    relay.kill_9().unwrap();
    let next = scene.start(&scene.database.url(), &scene.kafka.bootstrap());
    crate::scene::not_ready(&next, "another relay is at work").await;
    next.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k", "2").await;
    let records = reader.poll_until(2, PATIENCE).unwrap();
    let payloads: Vec<_> = records.iter().map(lab::Record::payload_text).collect();
    assert_eq!(payloads, ["1", "2"]);
}
