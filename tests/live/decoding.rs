//! What the stream holds beside plain rows, and rows that are not plain.

use std::time::Duration;

use futures_util::SinkExt;
use lab::{Kafka, Postgres, Record};

use crate::scene::{LATEST, PATIENCE, Scene, insert, not_ready};

fn payloads(records: &[Record]) -> Vec<String> {
    records.iter().map(Record::payload_text).collect()
}

/// A6 and C18: neither the LSN of a row nor the number that it got from a sequence is the order
/// of commits, and rows of one COPY share their LSN.
#[tokio::test(flavor = "multi_thread")]
async fn a6_c18_events_come_in_the_order_of_commits() {
    let scene = Scene::new(LATEST, 1).await;
    scene.execute("ALTER TABLE outbox DROP COLUMN id, ADD COLUMN id bigserial").await;
    let relay = scene.relay().await;
    let mut late = scene.database.client().await.unwrap();
    let transaction = late.transaction().await.unwrap();
    transaction.batch_execute(&insert("k", "\"first written\"")).await.unwrap();
    scene.insert("k", "\"first committed\"").await;
    transaction.batch_execute(&insert("k", "\"last written\"")).await.unwrap();
    transaction.commit().await.unwrap();
    let copy = "COPY outbox (aggregatetype, aggregateid, type, payload) FROM STDIN";
    let mut sink = Box::pin(scene.client.copy_in(copy).await.unwrap());
    let rows: Vec<_> = (0..100).map(|n| format!("post\tk\tcreated\t{n}\n")).collect();
    sink.send(std::io::Cursor::new(rows.concat())).await.unwrap();
    sink.as_mut().finish().await.unwrap();

    let mut reader = scene.reader();
    let records = reader.poll_until(103, PATIENCE).unwrap();
    let expected = ["\"first committed\"", "\"first written\"", "\"last written\""];
    let copied = (0..100).map(|n: u32| n.to_string());
    let expected: Vec<_> = expected.into_iter().map(str::to_owned).chain(copied).collect();
    assert_eq!(payloads(records), expected);
    let ids = records[..3].iter().map(|record| record.header("id").unwrap());
    assert_eq!(ids.collect::<Vec<_>>(), ["2", "1", "3"], "the sequence says otherwise");
    let positions = records.iter().map(|record| record.header("walrelay-position").unwrap());
    assert!(positions.is_sorted_by(|one, next| one < next));
    assert_eq!(relay.metric("walrelay_events_total").await, Some(103.0));
}

/// C3, C7, C8, C20 and C21: everything that pgoutput can send, of which only inserts are events.
/// A second slot, which is asked for messages as well, shows that the stream holds it all.
#[tokio::test(flavor = "multi_thread")]
async fn c3_c7_c8_c20_c21_of_all_that_the_stream_holds_only_inserts_are_events() {
    const MESSAGE: &str = "SELECT pg_logical_emit_message";
    for version in [14, LATEST] {
        let mut scene = Scene::new(version, 1).await;
        scene.configure("headers = { mood = \"mood\" }");
        scene
            .execute(
                "CREATE TYPE mood AS ENUM ('gay', 'sad');
                 ALTER TABLE outbox ADD COLUMN mood mood;
                 ALTER TABLE outbox ALTER COLUMN payload SET STORAGE EXTERNAL;
                 ALTER TABLE outbox REPLICA IDENTITY FULL;
                 CREATE PUBLICATION walrelay FOR TABLE outbox",
            )
            .await;
        let relay = scene.relay().await;
        let witness = format!("{}_witness", scene.topic);
        let sql = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
        scene.client.execute(sql, &[&witness]).await.unwrap();

        let toasted = format!("\"{}\"", "x".repeat(10_000));
        let with_mood = insert("k", &toasted).replace("payload)", "payload, mood)");
        let with_mood = with_mood.replace("');", "', 'sad');");
        scene.execute(&with_mood).await;
        // The TOASTed value is left out of what the update sends.
        scene.execute("UPDATE outbox SET mood = 'gay'").await;
        let changed = "UPDATE outbox SET payload = '\"changed\"'; DELETE FROM outbox;";
        scene.execute(&format!("BEGIN; {} {changed} COMMIT", insert("k", "2"))).await;
        scene.execute(&format!("{MESSAGE}(true, 'p', 'm'); {MESSAGE}(false, 'p', 'm')")).await;
        scene.execute("BEGIN").await;
        scene.execute(&format!("{MESSAGE}(true, 'p', 'm'); {MESSAGE}(false, 'p', 'm')")).await;
        scene.execute(&format!("{} ROLLBACK", insert("k", "\"rolled back\""))).await;
        let origin = format!(
            "SELECT pg_replication_origin_create('{0}');
             SELECT pg_replication_origin_session_setup('{0}'); {1}
             SELECT pg_replication_origin_session_reset();
             SELECT pg_replication_origin_drop('{0}'); TRUNCATE outbox",
            scene.topic,
            insert("k", "3")
        );
        for statement in origin.split(';') {
            scene.execute(statement).await;
        }
        scene.insert("k", "4").await;

        let kinds = "
            SELECT chr(get_byte(data, 0)) || count(*)
            FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, 'proto_version', '1',
                 'publication_names', 'walrelay', 'messages', 'true')
            WHERE get_byte(data, 0) NOT IN (ascii('B'), ascii('C'), ascii('R'))
            GROUP BY get_byte(data, 0) ORDER BY get_byte(data, 0)";
        let kinds = scene.client.query(kinds, &[&witness]).await.unwrap();
        let kinds: Vec<String> = kinds.iter().map(|row| row.get(0)).collect();
        let [kinds @ .., types] = &*kinds else { panic!("an empty stream") };
        assert_eq!(kinds, ["D2", "I4", "M3", "O1", "T1", "U3"], "{version}");
        assert!(types.starts_with('Y'), "{version}: no type was announced, but {types}");
        scene.client.execute("SELECT pg_drop_replication_slot($1)", &[&witness]).await.unwrap();

        let mut reader = scene.reader();
        let records = reader.poll_until(4, PATIENCE).unwrap();
        assert_eq!(payloads(records), [&toasted, "2", "3", "4"]);
        assert_eq!(records[0].header("mood").as_deref(), Some("sad"));
        scene.followed(PATIENCE).await;
        assert_eq!(relay.metric("walrelay_events_total").await, Some(4.0));
        assert_eq!(relay.get("/readyz").await.unwrap().0, 200);
    }
}

/// C11: names and values in any script.
#[tokio::test(flavor = "multi_thread")]
async fn c11_names_may_be_of_any_script() {
    let mut scene = Scene::new(LATEST, 1).await;
    scene.configure(
        "table = '\"схема 🗄\".\"события\"'\nid = \"№\"\nkey = \"ключ🗝\"\npayload = \"тело\"\n\
         headers = { mood = \"😀\" }",
    );
    scene.configure_postgres("publication = \"издание ✉\"");
    scene
        .execute(
            "CREATE SCHEMA \"схема 🗄\"; CREATE TYPE \"вид\" AS ENUM ('да', '否');
             CREATE TABLE \"схема 🗄\".\"события\"
                 (\"№\" int, \"ключ🗝\" text, \"тело\" text, \"😀\" \"вид\")",
        )
        .await;
    let relay = scene.relay().await;
    scene.execute("INSERT INTO \"схема 🗄\".\"события\" VALUES (1, 'ключ🗝', '{☃', '否')").await;
    let mut reader = scene.reader();
    let record = &reader.poll_until(1, PATIENCE).unwrap()[0];
    assert_eq!((record.key_text(), record.payload_text()), ("ключ🗝".into(), "{☃".into()));
    assert_eq!(record.header("mood").as_deref(), Some("否"));
    scene.execute("ALTER TABLE \"схема 🗄\".\"события\" RENAME COLUMN \"тело\" TO \"тѣло\"").await;
    scene.execute("INSERT INTO \"схема 🗄\".\"события\" VALUES (2, 'ключ🗝', '}', '否')").await;
    not_ready(&relay, "row 00000000-").await;
    not_ready(&relay, "of \"схема 🗄\".\"события\" (id 2)").await;
    not_ready(&relay, "the table has no column тело").await;
}

/// C12: the text of a database in another encoding comes in UTF-8. Only `SQL_ASCII` has none, and
/// its bytes come as they are.
#[tokio::test(flavor = "multi_thread")]
async fn c12_databases_need_not_be_utf8() {
    for version in [14, LATEST] {
        for (encoding, bytes) in [("LATIN1", "é".as_bytes()), ("SQL_ASCII", b"\xE9\xFF")] {
            let postgres = Postgres::shared(version);
            let options = format!("ENCODING '{encoding}' TEMPLATE template0");
            let database = postgres.create_database_with(&options).await.unwrap();
            let mut scene = Scene::in_database(database, postgres, Kafka::shared(), 1).await;
            scene.configure("headers = { type = \"type\" }");
            scene.execute("ALTER TABLE outbox ALTER COLUMN payload TYPE text").await;
            let relay = scene.relay().await;
            let text = if encoding == "LATIN1" { "'é'" } else { "E'\\xE9\\xFF'" };
            let row = insert("KEY", "TEXT").replace("created", "TEXT").replace("'KEY'", text);
            scene.execute(&row.replace("'TEXT'", text)).await;
            scene.insert("k", "2").await;
            let mut reader = scene.reader();
            let records = reader.poll_until(2, PATIENCE).unwrap();
            let first = &records[0];
            assert_eq!(first.key.as_deref(), Some(bytes), "{version} {encoding}");
            assert_eq!(first.payload.as_deref(), Some(bytes), "{version} {encoding}");
            let header = first.headers.iter().find(|(name, _)| name == "type").unwrap();
            assert_eq!(header.1.as_deref(), Some(bytes), "{version} {encoding}");
            assert_eq!(records[1].payload_text(), "2");
            assert_eq!(relay.metric("walrelay_events_total").await, Some(2.0));
        }
    }
}

/// C13: a row whose text is longer than Postgres can make ends the stream, and so each time. It is
/// said where, nothing is confirmed, and the operator can leave the row behind.
#[tokio::test(flavor = "multi_thread")]
async fn c13_a_row_that_postgres_cannot_decode_halts_the_relay() {
    let mut scene = Scene::new(LATEST, 1).await;
    scene.configure("headers = { bits = \"bits\" }");
    scene.execute("ALTER TABLE outbox ADD COLUMN bits varbit").await;
    let relay = scene.relay().await;
    scene.insert("k", "1").await;
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();
    scene.followed(PATIENCE).await;
    // 168 MB, of which each bit takes a byte as text.
    let large = insert("k", "2").replace("payload)", "payload, bits)").replace("'2')", "'2', b)");
    scene
        .execute(&format!(
            "DO $$ DECLARE b varbit := B'0'::bit(83886080); BEGIN
                 FOR n IN 1..4 LOOP b := b || b; END LOOP;
                 {large}
             END $$"
        ))
        .await;
    scene.insert("k", "3").await;
    not_ready(&relay, "ERROR XX000: invalid memory alloc request size 1342177281").await;
    not_ready(&relay, "in the change callback, associated LSN ").await;
    not_ready(&relay, "pg_replication_slot_advance").await;
    scene.execute("SELECT pg_switch_wal()").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Nothing has stepped over it: it is what the next start comes upon.
    let text = relay.log();
    let at = text.split("associated LSN ").nth(1).unwrap().split(')').next().unwrap();
    relay.terminate_and_wait(PATIENCE).unwrap();
    relay.start_again().unwrap();
    not_ready(&relay, &format!("associated LSN {at}")).await;
    relay.terminate_and_wait(PATIENCE).unwrap();
    let advance = "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())";
    scene.client.execute(advance, &[&scene.topic]).await.unwrap();
    let (url, brokers) = (scene.database.url(), scene.kafka.bootstrap());
    let relay = scene.start_with(&url, &brokers, &["--accept-gap"]);
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k", "4").await;
    assert_eq!(payloads(reader.poll_until(2, PATIENCE).unwrap()), ["1", "4"]);
}

/// C16: Postgres 14 tells of every transaction in the database, also those without an event.
#[tokio::test(flavor = "multi_thread")]
async fn c16_transactions_without_events_cost_little_and_are_confirmed() {
    const TRANSACTIONS: u32 = 20_000;
    for version in [14, LATEST] {
        let scene = Scene::new(version, 1).await;
        let relay = scene.relay().await;
        scene.execute("CREATE TABLE other (n int); SET synchronous_commit = off").await;
        let seconds = async || relay.metric("process_cpu_seconds_total").await.unwrap();
        let told = async || relay.metric("walrelay_transactions_total").await.unwrap();
        let (begun, before) = (seconds().await, told().await);
        let many = format!(
            "DO $$ BEGIN FOR n IN 1..{TRANSACTIONS} LOOP
                 INSERT INTO other VALUES (n); COMMIT;
             END LOOP; END $$"
        );
        scene.execute(&many).await;
        scene.followed(PATIENCE).await;
        let (cpu, told) = (seconds().await - begun, told().await - before);
        println!("Postgres {version}: {told} transactions told, {cpu} s of CPU");
        assert_eq!(told >= f64::from(TRANSACTIONS), version == 14, "{version}: {told}");
        assert!(cpu < 2.0, "{version}: {cpu} s of CPU for nothing");
        scene.insert("k", "1").await;
        scene.reader().poll_until(1, PATIENCE).unwrap();
    }
}
