//! Messages of `pg_logical_emit_message`: events without a table.

use lab::{Kafka, Postgres, Record, Relay};

use crate::scene::{LATEST, PATIENCE, Scene, insert};

/// Objects of JSON under `event.`, bytes under `raw.`, all to the scene's topic.
fn rules(topic: &str) -> String {
    format!(
        "\n[[message]]\nprefix = \"event.*\"\ntopic = \"{topic}\"
         \n[[message]]\nprefix = \"raw.*\"\ncontent = \"raw\"\ntopic = \"{topic}\"
         key = \"{{$rest}}\"\nheaders = {{ of = \"{{$prefix}}\" }}\n"
    )
}

fn emit(transactional: bool, prefix: &str, content: &str) -> String {
    format!("SELECT pg_logical_emit_message({transactional}, '{prefix}', {content});")
}

/// Many raw messages in one transaction, by their numbers, with others between them.
fn many(count: u32) -> String {
    format!(
        "SELECT count(pg_logical_emit_message(true, CASE part WHEN 0 THEN 'other' ELSE 'raw.n' END,
                                              n::text))
         FROM generate_series(1, {count}) n, generate_series(0, 1) part"
    )
}

fn payloads(records: &[Record]) -> Vec<String> {
    records.iter().map(Record::payload_text).collect()
}

fn numbers(count: u32) -> Vec<String> {
    (1..=count).map(|n| n.to_string()).collect()
}

/// So that a transaction of some size takes its time.
const SLOWLY: &str = "\n[delivery]\nmax_in_flight = 20\n";

#[tokio::test(flavor = "multi_thread")]
async fn c20_messages_and_rows_arrive_in_the_order_of_commits() {
    for version in [14, LATEST] {
        let mut scene = Scene::new(version, 1).await;
        scene.configure(&rules(&scene.topic));
        let relay = scene.relay().await;
        let mut late = scene.database.client().await.unwrap();
        let transaction = late.transaction().await.unwrap();
        transaction.batch_execute(&emit(true, "raw.late", "'late'")).await.unwrap();
        let object = "jsonb_build_object('payload', jsonb_build_object('n', 2), 'id', 7,
                                         'aggregateid', 'k2', 'type', 'made')::text";
        let mixed = [
            insert("k1", "1"),
            emit(true, "event.made", object),
            emit(true, "other", "'of no account'"),
            emit(true, "raw.k3", "'3'"),
            insert("k4", "4"),
        ];
        scene.execute(&format!("BEGIN; {} COMMIT", mixed.concat())).await;
        transaction.commit().await.unwrap();
        // What rolls back is not there, unless it was never part of a transaction.
        let gone = emit(true, "raw.gone", "'gone'");
        scene.execute(&format!("BEGIN; {gone} ROLLBACK")).await;
        let loose = emit(false, "raw.loose", "'loose'") + &emit(false, "other", "'loose'");
        scene.execute(&format!("BEGIN; {loose} ROLLBACK")).await;
        let bytes = emit(true, "raw.bytes", "'\\x00ff'::bytea");
        let partly = format!("BEGIN; SAVEPOINT s; {gone} ROLLBACK TO s; {bytes} COMMIT");
        scene.execute(&partly).await;

        let mut reader = scene.reader();
        let records = reader.poll_until(6, PATIENCE).unwrap().to_vec();
        assert_eq!(payloads(&records[..5]), ["1", "{\"n\": 2}", "3", "4", "late"], "{version}");
        assert_eq!(records[5].payload.as_deref(), Some(&b"\x00\xff"[..]));
        let keys: Vec<_> = records.iter().map(Record::key_text).collect();
        assert_eq!(keys, ["k1", "k2", "k3", "k4", "late", "bytes"]);
        let header = |record: usize, name| records[record].header(name);
        assert_eq!(header(1, "id").as_deref(), Some("7"));
        assert_eq!(header(1, "eventType").as_deref(), Some("made"));
        assert_eq!(header(2, "of").as_deref(), Some("raw.k3"));
        let positions = records.iter().map(|record| record.header("walrelay-position").unwrap());
        let positions: Vec<_> = positions.collect();
        assert!(positions.is_sorted_by(|one, next| one < next), "{positions:?}");
        // The message of no account has a number, too.
        assert!(positions[2].ends_with("-00000003"), "{positions:?}");

        scene.followed(PATIENCE).await;
        relay.wait_for_log(PATIENCE, "messages of prefix \"raw.*\" came outside of").unwrap();
        assert_eq!(relay.metric("walrelay_loose_messages_total").await, Some(1.0));
        assert_eq!(relay.metric("walrelay_events_total").await, Some(6.0));
        assert_eq!(relay.get("/readyz").await.unwrap().0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_need_no_table() {
    for version in [14, LATEST] {
        let mut scene = Scene::new(version, 1).await;
        scene.without_outbox();
        let prefix = scene.topic.clone();
        let rule = format!("\n[[message]]\nprefix = \"{prefix}\"\ncontent = \"raw\"\n");
        scene.configure(&rule);
        scene.execute("DROP TABLE outbox").await;
        let (url, brokers) = (scene.database.url(), scene.kafka.bootstrap());
        let (good, sql) = scene.command(&url, &brokers, &["init", "--print", "--tables"]);
        assert!(good && sql.contains("CREATE PUBLICATION \"walrelay\" WITH (publish"), "{sql}");
        let (good, text) = scene.command(&url, &brokers, &["check"]);
        assert!(good && text.contains(&format!("ok    topic {prefix}: ")), "{text}");
        let relay = scene.relay().await;
        let tables = "SELECT count(*) FROM pg_publication_tables WHERE pubname = 'walrelay'";
        let row = scene.client.query_one(tables, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0);
        // Rows of tables come and go, and are nobody's.
        scene.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await;
        scene.execute(&emit(true, &prefix, "'1'")).await;
        let mut reader = scene.reader();
        let records = reader.poll_until(1, PATIENCE).unwrap();
        assert_eq!((records[0].payload_text().as_str(), &records[0].key), ("1", &None));
        scene.followed(PATIENCE).await;
        let (good, text) = scene.command(&url, &brokers, &["status"]);
        assert!(good && text.contains("state         read by server process "), "{text}");
        // An idle one retains no log either.
        scene.execute("SELECT pg_switch_wal()").await;
        scene.followed(PATIENCE).await;
        relay.terminate_and_wait(PATIENCE).unwrap();
        // Topics of these tests have one replica.
        let faults = scene.faults();
        assert!(faults.iter().all(|fault| fault.starts_with("warn  topic NAME")), "{faults:?}");
        scene.execute(&emit(true, &prefix, "'2'")).await;
        relay.start_again().unwrap();
        assert_eq!(payloads(reader.poll_until(2, PATIENCE).unwrap()), ["1", "2"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_neither_lost_nor_repeated_when_postgres_or_the_relay_restarts() {
    const EACH: u32 = 20_000;
    let postgres = Postgres::start(LATEST).unwrap();
    let mut scene = Scene::on(&postgres, Kafka::shared(), 1).await;
    scene.configure(&(rules(&scene.topic) + SLOWLY));
    let relay = scene.relay().await;
    let mut reader = scene.reader();
    // Postgres dies while a long transaction is being sent.
    scene.execute(&many(EACH)).await;
    reader.poll_until(10, PATIENCE).unwrap();
    postgres.kill_9().unwrap();
    postgres.start_again().unwrap();
    scene.client = scene.database.client().await.unwrap();
    let first = reader.poll_until(EACH as usize, PATIENCE).unwrap();
    assert_eq!(payloads(first), numbers(EACH));
    scene.followed(PATIENCE).await;
    // The relay ends inside of another one.
    reader.take();
    scene.execute(&many(EACH)).await;
    reader.poll_until(10, PATIENCE).unwrap();
    relay.terminate_and_wait(PATIENCE).unwrap();
    let inside = reader.read_to_end(PATIENCE).unwrap().len();
    relay.start_again().unwrap();
    scene.execute(&emit(true, "raw.last", "'last'")).await;
    let records = reader.poll_until(EACH as usize + 1, PATIENCE).unwrap();
    let expected = [numbers(EACH), vec!["last".to_owned()]].concat();
    assert_eq!(payloads(records), expected, "{inside} before the end");
    println!("{inside} of {EACH} messages were sent when the relay ended");
}

/// Rows of a transaction have other numbers with messages among them.
#[tokio::test(flavor = "multi_thread")]
async fn e15_messages_that_are_new_in_the_configuration_number_rows_anew() {
    const ROWS: usize = 20_000;
    let mut scene = Scene::new(LATEST, 1).await;
    scene.configure(SLOWLY);
    let relay: Relay = scene.relay().await;
    let mut reader = scene.reader();
    let rows = format!(
        "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
         SELECT 'post', pg_logical_emit_message(true, 'raw.n', n::text)::text, 'made', to_jsonb(n)
         FROM generate_series(1, {ROWS}) n"
    );
    scene.execute(&rows).await;
    reader.poll_until(10, PATIENCE).unwrap();
    relay.terminate_and_wait(PATIENCE).unwrap();
    let before = reader.read_to_end(PATIENCE).unwrap().len();
    scene.configure(&rules(&scene.topic));
    let config = scene.config(&scene.database.url(), &scene.kafka.bootstrap());
    relay.write_config(&config).unwrap();
    relay.start_again().unwrap();
    let records = reader.poll_until(before + 2 * ROWS, PATIENCE).unwrap();
    let rows: Vec<_> = records[..before].iter().map(Record::payload_text).collect();
    assert_eq!(rows, numbers(u32::try_from(before).unwrap()));
    let pairs = numbers(u32::try_from(ROWS).unwrap());
    let pairs: Vec<_> = pairs.iter().flat_map(|n| [n.clone(), n.clone()]).collect();
    assert!(before < ROWS, "it did not end inside of the transaction");
    assert_eq!(payloads(&records[before..]), pairs);
    let remark = "rows are numbered by the publication walrelay and messages, and were by walrelay";
    relay.wait_for_log(PATIENCE, remark).unwrap();
}
