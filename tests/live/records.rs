//! What Kafka thinks of the records: partitions, sizes, policies.

use std::collections::HashMap;
use std::time::Duration;

use lab::history::History;
use lab::load::{Load, PACED};
use lab::{eventually, read_all};
use walrelay::kafka::partition::partition;

use crate::scene::{LATEST, PATIENCE, Scene, commit_of, insert, judge_grown, not_ready};

#[tokio::test(flavor = "multi_thread")]
async fn d17_keys_land_where_a_java_producer_puts_them() {
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
async fn d10_e10_a_row_too_large_for_the_producer_halts_the_relay_until_it_is_mended() {
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
    let sessions = relay.metric_where("walrelay_sessions_total", "kafka").await;
    assert_eq!(sessions, Some(0.0), "a row is no reason to begin again");

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
async fn f3_a_row_too_large_is_skipped_if_the_operator_says_so() {
    let mut scene = Scene::new(LATEST, 1).await;
    scene.configure("on_poison = \"skip\"");
    let relay = scene.relay().await;
    scene.execute(&three_rows(1_100_000)).await;
    let mut reader = scene.reader();
    assert_eq!(first_occurrences(reader.poll_until(2, PATIENCE).unwrap()), ["1", "3"]);
    relay.wait_for_log(PATIENCE, "skipped: row ").unwrap();
    // Which it was, for whoever has to make up for it.
    let log = relay.log();
    let told = log.lines().find(|line| line.contains("skipped: row ")).unwrap();
    let position = reader.records()[0].header("walrelay-position").unwrap();
    let (transaction, _) = position.rsplit_once('-').unwrap();
    let named = format!("{transaction}-00000001 of public.outbox (id ");
    assert!(told.contains(&named), "{told} does not name {named}");
    assert_eq!(relay.metric_where("walrelay_poison_total", "policy=\"skip\"").await, Some(1.0));
}

/// What is wrong is found before it is sent, or by the broker, which alone knows what a batch is
/// once it is compressed.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_can_never_become_records_go_to_the_dead_letter_topic_in_their_turn() {
    let mut scene = Scene::new(LATEST, 0).await;
    let dead = format!("{}-dead", scene.topic);
    for (topic, bytes) in [(&scene.topic, "10000"), (&dead, "100000")] {
        let narrow = [("max.message.bytes", bytes)];
        scene.kafka.create_topic_with(topic, 1, &narrow).await.unwrap();
    }
    scene.execute("ALTER TABLE outbox ADD shard integer").await;
    scene.configure(&format!(
        "partition = \"shard\"\non_poison = \"dead_letter\"\ndead_letter_topic = \"{dead}\"\n\
         [kafka.properties]\n\"compression.type\" = \"lz4\"\n\"batch.size\" = 10000",
    ));
    let relay = scene.relay().await;
    let row = |payload: &str, shard: &str| {
        "INSERT INTO outbox (aggregatetype, aggregateid, type, payload, shard) VALUES ".to_owned()
            + &format!("('post', 'k', 'created', '{payload}', {shard});")
    };
    let broad = format!("\"{}\"", noise(50_000));
    let rows = [row("1", "0"), row("2", "-1"), row("3", "0"), row(&broad, "0"), row("5", "0")];
    scene.execute(&rows.concat()).await;
    let mut reader = scene.reader();
    let all = |records: &[lab::Record]| first_occurrences(records).len() == 3;
    let through = reader.read_until(PATIENCE, "three records", all).unwrap();
    assert_eq!(first_occurrences(through), ["1", "3", "5"]);
    let bootstrap = scene.kafka.bootstrap();
    // What was in flight with a record that is refused comes again, letters too.
    let letters = async || {
        let mut letters = read_all(&bootstrap, &dead).ok()?;
        letters.sort_by_key(|letter| letter.header("walrelay-position"));
        letters.dedup_by_key(|letter| letter.header("walrelay-position"));
        (letters.len() == 2).then_some(letters)
    };
    let letters = eventually(PATIENCE, "two letters", letters).await.unwrap();
    let header = |letter: usize, name: &str| letters[letter].header(name).unwrap();
    let no_partition = "the column of its partition holds -1, and partitions count from 0";
    assert_eq!(header(0, "walrelay-reason"), no_partition);
    assert!(header(1, "walrelay-reason").starts_with("MessageSizeTooLarge"));
    assert_eq!(letters[0].payload_text(), "2");
    assert_eq!(letters[1].payload_text(), broad);
    assert_eq!(header(1, "walrelay-payload-bytes"), broad.len().to_string());
    for (letter, row) in [(0, "1"), (1, "3")] {
        assert_eq!(letters[letter].key_text(), "k");
        assert_eq!(header(letter, "walrelay-table"), "public.outbox");
        assert_eq!(header(letter, "walrelay-topic"), scene.topic);
        assert_eq!(header(letter, "walrelay-id"), header(letter, "id"));
        let position = header(letter, "walrelay-position");
        assert!(position.ends_with(&format!("-0000000{row}")), "{position}");
    }
    scene.followed(PATIENCE).await;
    let counted = relay.metric_where("walrelay_poison_total", "dead_letter").await.unwrap();
    assert!(counted >= 2.0, "{counted}");
    relay.wait_ready(PATIENCE).await.unwrap();
}

/// Payloads that no compression makes much smaller.
pub fn noise(bytes: usize) -> String {
    let mut random = 1_u64;
    let mut digit = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from_digit(u32::try_from(random >> 60).unwrap(), 16).unwrap()
    };
    (0..bytes).map(|_| digit()).collect()
}

pub fn alter(scene: &Scene<'_>, setting: &str) {
    let bootstrap = scene.kafka.bootstrap();
    let topic = ["--bootstrap-server", &bootstrap, "--entity-type", "topics"];
    let change = ["--alter", "--entity-name", &scene.topic, "--add-config", setting];
    let args = [topic.as_slice(), &change].concat();
    scene.kafka.run_tool("kafka.admin.ConfigCommand", &args, "").unwrap();
}

/// D11: without compression it is known beforehand that the broker would refuse a record.
#[tokio::test(flavor = "multi_thread")]
async fn d11_a_row_too_large_for_its_topic_halts_the_relay_until_the_topic_is_mended() {
    let mut scene = Scene::new(LATEST, 0).await;
    let narrow = [("max.message.bytes", "10000")];
    scene.kafka.create_topic_with(&scene.topic, 1, &narrow).await.unwrap();
    let relay = scene.relay().await;
    // Before anything else: together they may be too large as well.
    scene.insert("k", "\"0\"").await;
    not_ready(&relay, "takes batches of at most 10000 bytes; set batch.size").await;
    drop(relay);
    scene.configure("[kafka.properties]\n\"batch.size\" = 10000");
    let relay = scene.relay().await;
    scene.reader().poll_until(1, PATIENCE).unwrap();
    scene.execute(&three_rows(50_000)).await;
    let why = format!("bytes, and topic {} takes 10000; raise max.message.bytes", scene.topic);
    not_ready(&relay, &why).await;
    let mut reader = scene.reader();
    assert_eq!(first_occurrences(reader.poll_until(2, PATIENCE).unwrap()), ["0", "1"]);
    // What it says the record takes is enough, to the byte.
    let (_, text) = relay.get("/readyz").await.unwrap();
    let bytes = text.split("its record takes ").nth(1).unwrap().split(' ').next().unwrap();
    alter(&scene, &format!("max.message.bytes={bytes}"));
    let all = first_occurrences(reader.poll_until(4, PATIENCE).unwrap());
    assert_eq!(all, ["0", "1", "2", "3"]);
    relay.wait_ready(PATIENCE).await.unwrap();
    let failed = relay.metric_where("walrelay_sessions_total", "kafka").await;
    assert!(failed < Some(1.0), "the broker never saw it before");
}

/// A9: the failed record of one topic holds what is confirmed, whatever the other topic acks.
#[tokio::test(flavor = "multi_thread")]
async fn a9_a_record_that_failed_is_not_confirmed_though_others_are_acked() {
    let mut scene = Scene::new(LATEST, 0).await;
    let (wide, narrow) = (format!("{}.wide", scene.topic), format!("{}.narrow", scene.topic));
    scene.kafka.create_topic(&wide, 1).await.unwrap();
    let small = [("max.message.bytes", "10000")];
    scene.kafka.create_topic_with(&narrow, 1, &small).await.unwrap();
    scene.configure(
        "[kafka.properties]\n\"batch.size\" = 10000\n\"linger.ms\" = 0\n\
         \"compression.type\" = \"lz4\"",
    );
    let config = scene.config(&scene.database.url(), &scene.kafka.bootstrap());
    let by_type = format!("topic = \"{}.{{aggregatetype}}\"", scene.topic);
    let relay = scene.relay().await;
    relay.terminate_and_wait(PATIENCE).unwrap();
    let topic = format!("topic = \"{}\"", scene.topic);
    relay.write_config(&config.replace(&topic, &by_type)).unwrap();
    relay.start_again().unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
    let of =
        |name: &str, payload: &str| insert("k", payload).replace("'post'", &format!("'{name}'"));
    // Both topics are known to the relay from here on, and nothing of theirs goes alone.
    scene.execute(&(of("wide", "0") + &of("narrow", "0"))).await;
    scene.followed(PATIENCE).await;
    let bad = of("narrow", &format!("\"{}\"", noise(50_000)));
    let good: String = (1..100).map(|n| of("wide", &n.to_string())).collect();
    // In one batch, so that one read of the relay brings it all.
    scene.execute(&format!("{bad} {good}")).await;
    not_ready(&relay, "MessageSizeTooLarge (Broker: Message size too large)").await;
    let mut reader = lab::Reader::open(&scene.kafka.bootstrap(), &wide).unwrap();
    let acked = reader.read_to_end(PATIENCE).unwrap().len();
    println!("{acked} records of the other topic were acked");
    assert!(acked > 1, "nothing behind the failed record was acked: the test shows nothing");
    scene.execute("SELECT pg_switch_wal()").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let held = scene.confirmed().await;
    scene.topic.clone_from(&narrow);
    alter(&scene, "max.message.bytes=100000");
    relay.wait_ready(PATIENCE).await.unwrap();
    let last = |records: &[lab::Record]| records.iter().any(|it| it.payload_text() == "99");
    let records = reader.read_until(PATIENCE, "the last row", last).unwrap();
    let expected: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(first_occurrences(records), expected);
    let records = read_all(&scene.kafka.bootstrap(), &narrow).unwrap();
    assert_eq!(first_occurrences(&records), ["0", "2"]);
    let commit = commit_of(records.last().unwrap());
    assert!(held <= commit, "{held} was confirmed, and the failed record's commit is {commit}");
}

/// A broker takes any sequence number from a producer that it does not know yet. So a record that
/// it refuses must not be the first of its partition with others on their way behind it.
#[tokio::test(flavor = "multi_thread")]
async fn d9_d20_a_record_that_the_broker_refuses_lets_nothing_pass() {
    let mut scene = Scene::new(LATEST, 0).await;
    let narrow = [("max.message.bytes", "10000")];
    scene.kafka.create_topic_with(&scene.topic, 1, &narrow).await.unwrap();
    // Each record is a batch, up to five of them are under way at once, and what they will take
    // is known to nobody before they are compressed.
    scene.configure(
        "[kafka.properties]\n\"batch.num.messages\" = 1\n\"batch.size\" = 10000\n\
         \"linger.ms\" = 0\n\
         \"compression.type\" = \"lz4\"",
    );
    let relay = scene.relay().await;
    let rows: String = (3..200).map(|n| insert("k", &format!("\"{n}\""))).collect();
    scene.execute(&(insert("k", &format!("\"{}\"", noise(50_000))) + &rows)).await;
    let why = format!("Kafka did not take a record of topic {}", scene.topic);
    relay.wait_for_log(PATIENCE, &why).unwrap();
    relay.wait_for_log(PATIENCE, "ERROR halted: row ").unwrap();
    let why = "): MessageSizeTooLarge (Broker: Message size too large); raise max.message.bytes of";
    not_ready(&relay, why).await;
    let mut reader = scene.reader();
    let through = first_occurrences(reader.read_to_end(PATIENCE).unwrap());
    assert_eq!(through, [""; 0]);

    alter(&scene, "max.message.bytes=100000");
    let bootstrap = scene.kafka.bootstrap();
    let all = async || {
        let records = read_all(&bootstrap, &scene.topic).unwrap();
        (first_occurrences(&records).len() >= 198).then_some(records)
    };
    let records = eventually(PATIENCE, "all of them", all).await.unwrap();
    let expected: Vec<_> = (2..200).map(|n| n.to_string()).collect();
    assert_eq!(first_occurrences(&records), expected);
}

/// D11: the neighbours of a refused record are innocent, and not skipped with it.
#[tokio::test(flavor = "multi_thread")]
async fn d11_only_the_refused_record_of_a_batch_is_skipped() {
    let mut scene = Scene::new(LATEST, 0).await;
    let narrow = [("max.message.bytes", "10000")];
    scene.kafka.create_topic_with(&scene.topic, 1, &narrow).await.unwrap();
    scene.configure(
        "on_poison = \"skip\"\n[kafka.properties]\n\"linger.ms\" = 50\n\"batch.size\" = 10000\n\
         \"compression.type\" = \"lz4\"",
    );
    let relay = scene.relay().await;
    let large = format!("\"{}\"", noise(50_000));
    let row = |n: usize| match n {
        7 | 8 | 15 => insert("k", &large),
        n => insert("k", &format!("\"{n}\"")),
    };
    scene.execute(&(0..30).map(row).collect::<String>()).await;
    let mut reader = scene.reader();
    let last = |records: &[lab::Record]| records.iter().any(|it| it.payload_text() == "\"29\"");
    let records = reader.read_until(PATIENCE, "the last row", last).unwrap();
    let expected = (0..30).filter(|n| ![7, 8, 15].contains(n)).map(|n| n.to_string());
    assert_eq!(first_occurrences(records), expected.collect::<Vec<_>>());
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.followed(PATIENCE).await;
    let skipped = relay.log().matches("skipped: row ").count();
    assert!(skipped >= 3, "{skipped}");
}

/// D16: a topic that grows moves keys, but never one with a record of it under way.
#[tokio::test(flavor = "multi_thread")]
async fn d16_a_topic_that_grows_reorders_no_key() {
    let scene = Scene::new(LATEST, 2).await;
    let relay = scene.relay().await;
    let history = History::default();
    let load = Load::start(&scene.database, PACED, &history).await.unwrap();
    let some = async || relay.metric("walrelay_events_total").await > Some(1000.0);
    eventually(PATIENCE, "some events", some).await.unwrap();
    scene.kafka.add_partitions(&scene.topic, 6).await.unwrap();
    let bootstrap = scene.kafka.bootstrap();
    let mut reader = scene.reader();
    let grown = |records: &[lab::Record]| records.iter().any(|record| record.partition > 1);
    reader.read_until(PATIENCE, "a record in a new partition", grown).unwrap();
    load.stop().await.unwrap();
    scene.followed(PATIENCE).await;
    let mut records = read_all(&bootstrap, &scene.topic).unwrap();
    // Within a partition the log has the order of the stream, and each key moved once.
    let position = |record: &lab::Record| record.header("walrelay-position").unwrap();
    assert!(records.is_sorted_by_key(|record| (record.partition, position(record))));
    records.sort_by_key(position);
    let mut places: HashMap<String, Vec<i32>> = HashMap::new();
    for record in &records {
        let places = places.entry(record.key_text()).or_default();
        if places.last() != Some(&record.partition) {
            places.push(record.partition);
        }
    }
    for (key, places) in &places {
        let (before, after) = (at(key, 2), at(key, 6));
        let may = [vec![before], vec![after], vec![before, after]];
        assert!(may.contains(places), "{key} was on {places:?}, not on {before}, then {after}");
    }
    assert!(places.values().any(|places| places.len() == 2), "no key moved");
    let verdict = judge_grown(&history, &scene.client, &records, &[2, 6]).await;
    assert!(verdict.is_perfect(), "{verdict}");
}

pub fn at(key: &str, partitions: u32) -> i32 {
    i32::try_from(partition(key.as_bytes(), partitions)).unwrap()
}
