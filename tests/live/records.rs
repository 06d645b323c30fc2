//! What Kafka thinks of the records: partitions, sizes, policies.

use std::collections::HashMap;

use lab::{eventually, read_all};

use crate::scene::{LATEST, PATIENCE, Scene, insert};

#[tokio::test(flavor = "multi_thread")]
async fn keys_land_where_a_java_producer_puts_them() {
    let scene = Scene::new(LATEST, 12).await;
    let java = format!("{}.java", scene.topic);
    scene.kafka.create_topic(&java, 12).await.unwrap();
    let keys: Vec<String> =
        (0..1000).map(|n| format!("ключ-{}", "x".repeat(n % 7) + &n.to_string())).collect();
    let lines = keys.join(":1\n") + ":1\n";
    let bootstrap = scene.kafka.bootstrap();
    let args = [
        "--bootstrap-server",
        &bootstrap,
        "--topic",
        &java,
        "--reader-property",
        "parse.key=true",
        "--reader-property",
        "key.separator=:",
    ];
    scene.kafka.run_tool("org.apache.kafka.tools.ConsoleProducer", &args, &lines).unwrap();
    let _relay = scene.relay().await;
    let rows: String = keys.iter().map(|key| insert(key, "1")).collect();
    scene.execute(&rows).await;
    let mut reader = scene.reader();
    let ours = reader.poll_until(1000, PATIENCE).unwrap();
    let places = |records: &[lab::Record]| -> HashMap<String, i32> {
        records.iter().map(|record| (record.key_text(), record.partition)).collect()
    };
    let theirs = places(&read_all(&bootstrap, &java).unwrap());
    assert_eq!(theirs.len(), 1000);
    assert_eq!(places(ours), theirs);
}

const THREE: [&str; 3] = ["1", "2", "3"];

/// Three rows, of which the second has so many bytes.
fn three_rows(size: usize) -> String {
    let large = format!("\"{}\"", "x".repeat(size));
    [insert("k", "\"1\""), insert("k", &large), insert("k", "\"3\"")].concat()
}

/// First occurrences in the order of the log; the large payload is called 2.
fn first_occurrences(records: &[lab::Record]) -> Vec<String> {
    let names = records.iter().map(|record| match record.payload_text() {
        text if text.len() > 10 => "2".to_owned(),
        text => text.trim_matches('"').to_owned(),
    });
    let mut seen = Vec::new();
    names.for_each(|name| {
        if !seen.contains(&name) {
            seen.push(name);
        }
    });
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_too_large_for_the_producer_halts_the_relay_until_it_is_mended() {
    let scene = Scene::new(LATEST, 0).await;
    let roomy = [("max.message.bytes", "2000000")];
    scene.kafka.create_topic_with(&scene.topic, 1, &roomy).await.unwrap();
    let relay = scene.relay().await;
    scene.execute(&three_rows(1_100_000)).await;
    relay.wait_for_log(PATIENCE, "are more than Kafka takes; raise message.max.bytes").unwrap();
    let (status, text) = relay.get("/readyz").await.unwrap();
    assert!(status == 503 && text.contains("public.outbox (id "), "{text}");
    assert_eq!(relay.metric_where("walrelay_poison_total", "policy=\"halt\"").await, Some(1.0));
    let mut reader = scene.reader();
    assert_eq!(first_occurrences(reader.poll_until(1, PATIENCE).unwrap()), ["1"]);

    relay.terminate_and_wait(PATIENCE).unwrap();
    let config = scene.config(&scene.database.url(), &scene.kafka.bootstrap());
    let mended = "[kafka.properties]\n\"message.max.bytes\" = 2000000\n[http]";
    relay.write_config(&config.replace("[http]", mended)).unwrap();
    relay.start_again().unwrap();
    // The first row stood in the same transaction, and may come again.
    let all = |records: &[lab::Record]| first_occurrences(records).len() == 3;
    assert_eq!(first_occurrences(reader.read_until(PATIENCE, "three", all).unwrap()), THREE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_too_large_is_skipped_if_the_operator_says_so() {
    let mut scene = Scene::new(LATEST, 1).await;
    scene.configure("on_poison = \"skip\"");
    let relay = scene.relay().await;
    scene.execute(&three_rows(1_100_000)).await;
    let mut reader = scene.reader();
    assert_eq!(first_occurrences(reader.poll_until(2, PATIENCE).unwrap()), ["1", "3"]);
    relay.wait_for_log(PATIENCE, "skipped: row ").unwrap();
    assert_eq!(relay.metric_where("walrelay_poison_total", "policy=\"skip\"").await, Some(1.0));
}

/// A broker takes any sequence number from a producer that it does not know yet. So a record that
/// it refuses must not be the first of its partition with others on their way behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_broker_refuses_lets_nothing_pass() {
    let mut scene = Scene::new(LATEST, 0).await;
    let narrow = [("max.message.bytes", "10000")];
    scene.kafka.create_topic_with(&scene.topic, 1, &narrow).await.unwrap();
    // Each record is a batch, and up to five of them are under way at once.
    scene.configure("[kafka.properties]\n\"batch.num.messages\" = 1\n\"linger.ms\" = 0");
    let relay = scene.relay().await;
    let large = format!("\"{}\"", "x".repeat(50_000));
    let rows: String = (3..200).map(|n| insert("k", &format!("\"{n}\""))).collect();
    scene.execute(&(insert("k", &large) + &rows)).await;
    let why = format!("Kafka did not take a record of topic {}", scene.topic);
    relay.wait_for_log(PATIENCE, &why).unwrap();
    let restarted =
        async || relay.metric_where("walrelay_sessions_total", "kafka").await >= Some(4.0);
    eventually(PATIENCE, "some more attempts", restarted).await.unwrap();
    let mut reader = scene.reader();
    let through = first_occurrences(reader.read_to_end(PATIENCE).unwrap());
    assert_eq!(through, [""; 0]);

    let bootstrap = scene.kafka.bootstrap();
    let args = [
        "--bootstrap-server",
        &bootstrap,
        "--alter",
        "--entity-type",
        "topics",
        "--entity-name",
        &scene.topic,
        "--add-config",
        "max.message.bytes=100000",
    ];
    scene.kafka.run_tool("kafka.admin.ConfigCommand", &args, "").unwrap();
    let all = async || {
        let records = read_all(&bootstrap, &scene.topic).unwrap();
        (first_occurrences(&records).len() >= 198).then_some(records)
    };
    let records = eventually(PATIENCE, "all of them", all).await.unwrap();
    let expected: Vec<_> = (2..200).map(|n| n.to_string()).collect();
    assert_eq!(first_occurrences(&records), expected);
}
