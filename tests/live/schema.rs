//! The outbox table changes while events flow: columns are found by name.

use lab::Record;

use crate::scene::{LATEST, PATIENCE, Scene, insert, not_ready};

/// Payloads of what has arrived once there are so many.
fn payloads(records: &[Record]) -> Vec<String> {
    records.iter().map(Record::payload_text).collect()
}

/// C1 and C2: also while nobody reads.
#[tokio::test(flavor = "multi_thread")]
async fn c1_c2_columns_come_go_and_move() {
    let scene = Scene::new(LATEST, 1).await;
    let relay = scene.relay().await;
    scene.insert("k", "1").await;
    for (change, payload) in [
        ("ALTER TABLE outbox ADD COLUMN note text DEFAULT 'n'", "2"),
        // Dropped and added again: the column stands last now.
        (
            "ALTER TABLE outbox DROP COLUMN payload; ALTER TABLE outbox ADD COLUMN payload jsonb",
            "3",
        ),
        ("ALTER TABLE outbox DROP COLUMN note", "4"),
        ("ALTER TABLE outbox ALTER COLUMN payload TYPE text", "5"),
        ("ALTER TABLE outbox ALTER COLUMN aggregateid TYPE char(1)", "6"),
    ] {
        scene.execute(change).await;
        scene.insert("k", payload).await;
    }
    // In one transaction with rows before and behind it, and rolled back.
    let between = format!(
        "BEGIN; {} ALTER TABLE outbox ADD COLUMN more int; {} COMMIT;
         BEGIN; ALTER TABLE outbox RENAME COLUMN payload TO body; ROLLBACK; {}",
        insert("k", "7"),
        insert("k", "8"),
        insert("k", "9")
    );
    scene.execute(&between).await;
    let mut reader = scene.reader();
    reader.poll_until(9, PATIENCE).unwrap();
    // While nobody reads: the columns change places.
    let unseen = format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}';
         ALTER TABLE outbox DROP COLUMN aggregateid; ALTER TABLE outbox DROP COLUMN payload;
         ALTER TABLE outbox ADD COLUMN payload jsonb; ALTER TABLE outbox ADD aggregateid text; {}",
        scene.topic,
        insert("k", "10")
    );
    scene.execute(&unseen).await;
    let records = reader.poll_until(10, PATIENCE).unwrap();
    assert_eq!(payloads(records), ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]);
    assert!(records.iter().all(|record| record.key_text() == "k"));
    assert_eq!(relay.metric_where("walrelay_sessions_total", "server").await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_column_halts_at_its_row_and_says_so() {
    let scene = Scene::new(LATEST, 1).await;
    let relay = scene.relay().await;
    scene.insert("k", "1").await;
    scene.execute("ALTER TABLE outbox RENAME COLUMN payload TO body").await;
    let renamed = insert("k", "2").replace("payload", "body");
    scene.execute(&renamed).await;
    let why = "public.outbox (id ";
    relay.wait_for_log(PATIENCE, why).unwrap();
    let (status, text) = relay.get("/readyz").await.unwrap();
    assert_eq!(status, 503);
    let remedy = "the table has no column payload; add it or change the mapping";
    assert!(text.contains(why) && text.contains(remedy), "{text}");
    // With the mapping changed, the relay goes on at this very row.
    relay.terminate_and_wait(PATIENCE).unwrap();
    let config = scene.config(&scene.database.url(), &scene.kafka.bootstrap());
    relay.write_config(&config.replace("[[outbox]]", "[[outbox]]\npayload = \"body\"")).unwrap();
    relay.start_again().unwrap();
    let mut reader = scene.reader();
    assert_eq!(payloads(reader.poll_until(2, PATIENCE).unwrap()), ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_table_halts_until_it_is_mapped() {
    let scene = Scene::new(LATEST, 1).await;
    let relay = scene.relay().await;
    scene.insert("k", "1").await;
    // To another name and back between two rows: nobody has to know.
    scene.execute("ALTER TABLE outbox RENAME TO other; ALTER TABLE other RENAME TO outbox").await;
    scene.insert("k", "2").await;
    scene.execute("ALTER TABLE outbox RENAME TO events").await;
    let why = "to the name it has now (\"walrelay\" holds public.events)";
    not_ready(&relay, why).await;
    relay.terminate_and_wait(PATIENCE).unwrap();

    // Rows of the old name wait in the log next to those of the new one.
    scene.execute("ALTER TABLE events RENAME TO outbox").await;
    scene.insert("k", "3").await;
    scene.execute("ALTER TABLE outbox RENAME TO events").await;
    scene.execute(&insert("k", "4").replace("outbox", "events")).await;
    let config = scene.config(&scene.database.url(), &scene.kafka.bootstrap());
    let mapped = config.replace("[[outbox]]", "[[outbox]]\ntable = \"public.events\"");
    relay.write_config(&mapped).unwrap();
    relay.start_again().unwrap();
    let mut reader = scene.reader();
    assert_eq!(payloads(reader.poll_until(4, PATIENCE).unwrap()), ["1", "2", "3", "4"]);
}

/// Dropping the rows silently would lose them if it is an outbox under another name.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_no_outbox_names_halts_at_its_row() {
    let scene = Scene::new(LATEST, 1).await;
    let relay = scene.relay().await;
    scene.execute("CREATE TABLE other (n int); ALTER PUBLICATION walrelay ADD TABLE other").await;
    relay.wait_for_log(PATIENCE, "names: its first row halts the relay").unwrap();
    scene.insert("k", "1").await;
    scene.execute("INSERT INTO other VALUES (1)").await;
    scene.insert("k", "2").await;
    not_ready(&relay, "the publication holds public.other, which no [[outbox]] names").await;
    let mut reader = scene.reader();
    assert_eq!(payloads(reader.read_to_end(PATIENCE).unwrap()), ["1"]);
}

/// B6: with `publish_via_partition_root` or without, and with partitions that come and go.
#[tokio::test(flavor = "multi_thread")]
async fn b6_rows_of_partitions_arrive_under_either_name() {
    for (version, via_root) in [(14, false), (LATEST, false), (LATEST, true)] {
        let scene = Scene::new(version, 1).await;
        scene
            .execute(&format!(
                "DROP TABLE outbox;
                 CREATE TABLE outbox (id uuid DEFAULT gen_random_uuid(), aggregatetype text,
                     aggregateid text, type text, payload jsonb) PARTITION BY LIST (aggregateid);
                 CREATE TABLE a PARTITION OF outbox FOR VALUES IN ('a');
                 CREATE TABLE b (type text, payload jsonb, id uuid, aggregateid text,
                     aggregatetype text);
                 ALTER TABLE outbox ATTACH PARTITION b FOR VALUES IN ('b');
                 CREATE PUBLICATION walrelay FOR TABLE outbox
                     WITH (publish = 'insert', publish_via_partition_root = {via_root})"
            ))
            .await;
        let relay = scene.relay().await;
        scene.insert("a", "1").await;
        scene.insert("b", "2").await;
        scene.execute("CREATE TABLE c PARTITION OF outbox FOR VALUES IN ('c')").await;
        scene.insert("c", "3").await;
        scene.execute("BEGIN").await;
        scene.insert("b", "4").await;
        scene.execute("ALTER TABLE outbox DETACH PARTITION b; COMMIT").await;
        let mut reader = scene.reader();
        reader.poll_until(4, PATIENCE).unwrap();
        relay.terminate_and_wait(PATIENCE).unwrap();
        scene.execute("CREATE TABLE d PARTITION OF outbox FOR VALUES IN ('d')").await;
        scene.insert("d", "5").await;
        relay.start_again().unwrap();
        let arrived = payloads(reader.poll_until(5, PATIENCE).unwrap());
        assert_eq!(arrived, ["1", "2", "3", "4", "5"], "{version}, {via_root}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_rows_of_any_shape_arrive_as_they_are() {
    let mut scene = Scene::new(LATEST, 1).await;
    scene.configure("payload = \"body\"\nheaders = { note = \"note\" }");
    scene
        .execute(
            "ALTER TABLE outbox RENAME COLUMN payload TO body;
             ALTER TABLE outbox ALTER COLUMN body TYPE bytea USING NULL;
             ALTER TABLE outbox ADD COLUMN note text",
        )
        .await;
    let _relay = scene.relay().await;
    let large = "x".repeat(700_000);
    scene
        .execute(&format!(
            "INSERT INTO outbox (aggregatetype, aggregateid, type, body, note) VALUES
             ('a', 'k1', 't', '\\x00ff10', NULL),
             ('a', '', 't', '\\x', ''),
             ('a', 'ключ', 't', NULL, '☃'),
             ('a', 'k4', 't', convert_to('{large}', 'UTF8'), 'large');
             DELETE FROM outbox; TRUNCATE outbox;"
        ))
        .await;
    let mut reader = scene.reader();
    let records = reader.poll_until(4, PATIENCE).unwrap();
    let payload = |index: usize| records[index].payload.as_deref();
    assert_eq!(payload(0), Some([0x00, 0xFF, 0x10].as_slice()));
    assert_eq!(payload(1), Some([].as_slice()), "empty is not a tombstone");
    assert_eq!(payload(2), None, "NULL is a tombstone");
    assert_eq!(payload(3).map(<[u8]>::len), Some(700_000));
    let keys: Vec<_> = records.iter().map(Record::key_text).collect();
    assert_eq!(keys, ["k1", "", "ключ", "k4"]);
    let notes = records.iter().map(|record| record.headers[1].clone());
    let notes: Vec<_> =
        notes.map(|(_, note)| note.map(|n| String::from_utf8(n).unwrap())).collect();
    assert_eq!(notes, [None, Some(String::new()), Some("☃".into()), Some("large".into())]);
}

/// E11: names go into SQL, into a list inside of a literal, and into commands.
#[tokio::test(flavor = "multi_thread")]
async fn e11_names_of_any_shape_are_quoted() {
    let mut scene = Scene::new(LATEST, 0).await;
    scene.topic = format!("{:_<63}", scene.topic);
    scene.kafka.create_topic(&scene.topic, 1).await.unwrap();
    let publication = r#"It's, a "Publication"; DROP TABLE outbox --"#;
    scene.configure_postgres(&format!("publication = {publication:?}"));
    scene.configure(r#"table = "\"O'Dd, Schema\".\"The \"\"Outbox\"\"; --\"""#);
    scene
        .execute(
            r#"CREATE SCHEMA "O'Dd, Schema";
               ALTER TABLE outbox SET SCHEMA "O'Dd, Schema";
               ALTER TABLE "O'Dd, Schema".outbox RENAME TO "The ""Outbox""; --";
               CREATE TABLE outbox (LIKE "O'Dd, Schema"."The ""Outbox""; --" INCLUDING ALL);"#,
        )
        .await;
    let faults = scene.faults();
    assert!(!faults.iter().any(|line| line.starts_with("FAIL")), "{faults:#?}");
    let relay = scene.relay().await;
    let row = insert("k", "1").replace("outbox", r#""O'Dd, Schema"."The ""Outbox""; --""#);
    scene.execute(&row).await;
    assert_eq!(scene.reader().poll_until(1, PATIENCE).unwrap()[0].payload_text(), "1");
    scene.followed(PATIENCE).await;
    let sql = "SELECT pubname FROM pg_publication";
    let made = scene.client.query_one(sql, &[]).await.unwrap();
    assert_eq!(made.get::<_, String>(0), publication);
    relay.wait_ready(PATIENCE).await.unwrap();
}
