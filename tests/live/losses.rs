//! What Postgres loses without a word. A bare reader shows the loss; the relay halts, with nothing
//! confirmed, and says what mends it.

use std::time::Duration;

use lab::{Kafka, Postgres, Reader, Record, Relay, eventually};
use walrelay::lsn::Lsn;

use crate::bare::{Got, read, read_from};
use crate::scene::{LATEST, PATIENCE, Scene, VERSIONS, insert, not_ready};

const PUBLISH: &str = "CREATE PUBLICATION walrelay FOR TABLE outbox WITH (publish = 'insert')";
const GONE: &str = "publication \"walrelay\" does not exist, so that rows are lost; run: CREATE \
                    PUBLICATION \"walrelay\" FOR TABLE \"public\".\"outbox\"";
const MOVED: &str = "was moved or made anew, and the events between were not sent";

/// A scene in which a relay has carried row 1 and has ended, or still runs.
struct Carried {
    scene: Scene<'static>,
    relay: Relay,
    reader: Reader,
}

impl Carried {
    async fn new(version: u16) -> Carried {
        let scene = Scene::new(version, 1).await;
        let relay = scene.relay().await;
        scene.insert("k", "1").await;
        let mut reader = scene.reader();
        reader.poll_until(1, PATIENCE).unwrap();
        scene.followed(PATIENCE).await;
        Carried { scene, relay, reader }
    }

    async fn stopped(version: u16) -> Carried {
        let carried = Carried::new(version).await;
        carried.relay.terminate_and_wait(PATIENCE).unwrap();
        carried
    }

    async fn execute(&self, sql: &str) {
        self.scene.execute(&sql.replace("NAME", &self.scene.topic)).await;
    }

    /// The relay halts for this reason and confirms nothing, whatever is written.
    async fn halts(&self, why: &str) {
        not_ready(&self.relay, why).await;
        let held = self.scene.confirmed().await;
        self.scene.execute("SELECT pg_switch_wal()").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(self.scene.confirmed().await, held, "something was confirmed");
    }

    /// Rows go through again.
    async fn goes_on(&mut self, row: &str) -> Vec<String> {
        self.relay.wait_ready(PATIENCE).await.unwrap();
        self.scene.insert("k", row).await;
        self.arrive(row)
    }

    fn arrive(&mut self, row: &str) -> Vec<String> {
        let there = |records: &[Record]| records.iter().any(|it| it.payload_text() == row);
        let records = self.reader.read_until(PATIENCE, "the row", there).unwrap();
        records.iter().map(Record::payload_text).collect()
    }

    /// What the messages tell the operator to do.
    async fn accept_gap(&mut self, row: &str) -> Vec<String> {
        self.relay.terminate_and_wait(PATIENCE).unwrap();
        let (url, brokers) = (self.scene.database.url(), self.scene.kafka.bootstrap());
        let accepting = self.scene.start_with(&url, &brokers, &["--accept-gap"]);
        self.relay = accepting;
        self.goes_on(row).await
    }
}

/// A11: a start beyond the server is taken, and everything below it skipped.
#[tokio::test(flavor = "multi_thread")]
async fn a11_future_position_refused() {
    for version in [14, LATEST] {
        let carried = Carried::stopped(version).await;
        carried.scene.insert("k", "2").await;
        assert_eq!(read(&carried.scene).await, Got::silently(1));
        let future: Lsn = "FF/0".parse().unwrap();
        let got = read_from(&carried.scene, "walrelay", future).await;
        assert_eq!(got, Got::silently(0), "{version}: the row is skipped");

        // The position of another server, under the name of this one.
        let Carried { scene, relay, .. } = &carried;
        let sql = "SELECT (SELECT system_identifier FROM pg_control_system())::text || '/' || oid
                   FROM pg_database WHERE datname = current_database()";
        let source: String = scene.client.query_one(sql, &[]).await.unwrap().get(0);
        let key = format!("{source}/{}", scene.topic);
        let value =
            r#"{"version":1,"timeline":1,"publication":"walrelay","epoch":0,"end_lsn":"FF/0"}"#;
        let bootstrap = scene.kafka.bootstrap();
        let args = [
            "--bootstrap-server",
            &bootstrap,
            "--topic",
            "__walrelay_positions",
            "--reader-property",
            "parse.key=true",
            "--reader-property",
            "key.separator=|",
        ];
        let line = format!("{key}|{value}\n");
        scene.kafka.run_tool("org.apache.kafka.tools.ConsoleProducer", &args, &line).unwrap();
        relay.start_again().unwrap();
        carried.halts("but what lies before FF/0 was delivered already").await;
    }
}

/// A12: a start below the slot is silently forwarded, whoever moved it.
#[tokio::test(flavor = "multi_thread")]
async fn a12_a_slot_that_was_moved_is_a_gap() {
    for version in [14, LATEST] {
        let mut carried = Carried::stopped(version).await;
        let before = carried.scene.confirmed().await;
        carried.scene.insert("k", "2").await;
        carried.execute("SELECT pg_replication_slot_advance('NAME', pg_current_wal_lsn())").await;
        let got = read_from(&carried.scene, "walrelay", before).await;
        assert_eq!(got, Got::silently(0), "{version}: the row is lost");

        carried.relay.start_again().unwrap();
        carried.halts(MOVED).await;
        carried.scene.insert("k", "3").await;
        assert_eq!(carried.accept_gap("4").await, ["1", "3", "4"]);
        assert!(carried.relay.log().contains("accepted a gap, from "));
        // And it was for once: the position is a new one, and good.
        carried.relay.terminate_and_wait(PATIENCE).unwrap();
        let relay = carried.scene.relay().await;
        assert!(!relay.log().contains("gap"));
    }
}

/// A13: a slot that was dropped and made anew looks like any other.
#[tokio::test(flavor = "multi_thread")]
async fn a13_a_slot_that_was_made_anew_is_a_gap() {
    const ANEW: &str = "SELECT pg_drop_replication_slot('NAME');
                        SELECT pg_create_logical_replication_slot('NAME', 'pgoutput')";
    let mut carried = Carried::stopped(LATEST).await;
    let before = carried.scene.confirmed().await;
    carried.scene.insert("k", "2").await;
    for statement in ANEW.split(';') {
        carried.execute(statement).await;
    }
    let got = read_from(&carried.scene, "walrelay", before).await;
    assert_eq!(got, Got::silently(0), "the row is lost");
    carried.relay.start_again().unwrap();
    carried.halts(MOVED).await;
    assert_eq!(carried.accept_gap("3").await, ["1", "3"]);

    // While it runs: its walsender is ended, and before it is back the slot is another.
    let sql = "DO $$ BEGIN
                   LOOP
                       PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots
                       WHERE slot_name = 'NAME' AND active;
                       BEGIN
                           PERFORM pg_drop_replication_slot('NAME');
                           EXIT;
                       EXCEPTION WHEN object_in_use THEN
                           PERFORM pg_sleep(0.001);
                       END;
                   END LOOP;
               END $$";
    carried.scene.followed(PATIENCE).await;
    carried.execute(sql).await;
    carried.scene.insert("k", "4").await;
    let remade = async || {
        let sql = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
        carried.scene.client.execute(sql, &[&carried.scene.topic]).await.is_ok()
    };
    eventually(PATIENCE, "the slot to be made anew", remade).await.unwrap();
    carried.halts("slot").await;
    let (_, text) = carried.relay.get("/readyz").await.unwrap();
    assert!(text.contains(MOVED) || text.contains("is gone"), "{text}");
}

/// B1: the publication comes into being after the slot.
#[tokio::test(flavor = "multi_thread")]
async fn b1_a_publication_made_after_the_slot_loses_rows() {
    for version in VERSIONS {
        let scene = Scene::new(version, 1).await;
        let slot =
            format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", scene.topic);
        scene.execute(&slot).await;
        scene.insert("k", "1").await;
        scene.execute(PUBLISH).await;
        scene.insert("k", "2").await;
        let got = read(&scene).await;
        if version < 18 {
            assert_eq!((got.rows, got.error.as_deref()), (0, Some("42704")), "{version}");
        } else {
            assert_eq!((got.rows, got.error.as_deref()), (1, None), "{version}");
            assert_eq!(got.warnings, ["55000"]);
        }
        // The slot cannot be read up to there; the relay says so and confirms nothing.
        let relay = scene.start(&scene.database.url(), &scene.kafka.bootstrap());
        not_ready(&relay, "rows were written while their publication did not exist").await;
        // What it says helps.
        relay.terminate_and_wait(PATIENCE).unwrap();
        let advance = "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())";
        scene.client.execute(advance, &[&scene.topic]).await.unwrap();
        let (url, brokers) = (scene.database.url(), scene.kafka.bootstrap());
        let relay = scene.start_with(&url, &brokers, &["--accept-gap"]);
        relay.wait_ready(PATIENCE).await.unwrap();
        scene.insert("k", "3").await;
        let mut reader = scene.reader();
        let third = |records: &[Record]| records.iter().any(|it| it.payload_text() == "3");
        reader.read_until(PATIENCE, "the third row", third).unwrap();
    }
}

/// B2: nobody looks at the names of publications when a stream starts.
#[tokio::test(flavor = "multi_thread")]
async fn b2_a_misspelt_publication_loses_rows() {
    for version in VERSIONS {
        let mut scene = Scene::new(version, 1).await;
        scene.execute(PUBLISH).await;
        let slot =
            format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", scene.topic);
        scene.execute(&slot).await;
        scene.insert("k", "1").await;
        let got = read_from(&scene, "walreley", Lsn::ZERO).await;
        let (error, warned) = (got.error.as_deref(), !got.warnings.is_empty());
        let expected = if version < 18 { (0, Some("42704"), false) } else { (0, None, true) };
        assert_eq!((got.rows, error, warned), expected, "{version}");
        if version >= 17 {
            assert_eq!(read_from(&scene, "", Lsn::ZERO).await, Got::silently(0), "{version}");
        }
        let held = scene.confirmed().await;
        scene.configure_postgres("publication = \"walreley\"");
        let relay = scene.start(&scene.database.url(), &scene.kafka.bootstrap());
        not_ready(&relay, "publication \"walreley\" does not exist, so that rows are lost").await;
        assert_eq!(scene.confirmed().await, held);
    }
}

/// B3: the publication is dropped under a running relay, and made again.
#[tokio::test(flavor = "multi_thread")]
async fn b3_a_dropped_publication_halts_the_relay() {
    for version in [14, 17, LATEST] {
        let mut carried = Carried::new(version).await;
        carried.scene.execute("DROP PUBLICATION walrelay").await;
        carried.halts(GONE).await;
        carried.scene.insert("k", "2").await;
        carried.scene.execute(PUBLISH).await;
        // Row 2 is not to be had any more. It is not confirmed: the stream ends there again.
        let why = "rows were written while their publication did not exist";
        not_ready(&carried.relay, why).await;
        carried.relay.restart().unwrap();
        not_ready(&carried.relay, why).await;
        carried.relay.terminate_and_wait(PATIENCE).unwrap();
        carried.execute("SELECT pg_replication_slot_advance('NAME', pg_current_wal_lsn())").await;
        carried.relay.start_again().unwrap();
        assert_eq!(carried.accept_gap("3").await, ["1", "3"], "{version}");
    }
}

/// B4: nothing in the stream tells that a table was taken out of the publication.
#[tokio::test(flavor = "multi_thread")]
async fn b4_a_table_taken_out_of_the_publication_halts_the_relay() {
    for version in [14, LATEST] {
        let mut carried = Carried::stopped(version).await;
        let out = "CREATE TABLE other (n int); ALTER PUBLICATION walrelay SET TABLE other";
        let back = "ALTER PUBLICATION \"walrelay\" ADD TABLE \"public\".\"outbox\"";
        carried.scene.execute(out).await;
        carried.scene.insert("k", "2").await;
        carried.scene.execute(back).await;
        carried.scene.insert("k", "3").await;
        assert_eq!(read(&carried.scene).await, Got::silently(1), "{version}: row 2 is lost");

        carried.relay.start_again().unwrap();
        carried.arrive("3");
        carried.scene.execute("ALTER PUBLICATION walrelay SET TABLE other").await;
        carried.halts("does not hold public.outbox, whose rows would be lost").await;
        carried.scene.execute(back).await;
        assert_eq!(carried.goes_on("4").await, ["1", "3", "4"]);
    }
}

/// B5: a migration drops the table and makes it again. The new one is not in the publication.
#[tokio::test(flavor = "multi_thread")]
async fn b5_a_table_made_anew_halts_the_relay() {
    for version in [14, LATEST] {
        let mut carried = Carried::new(version).await;
        carried.scene.execute("DROP TABLE outbox").await;
        carried.scene.database.create_outbox().await.unwrap();
        carried.halts("does not hold public.outbox, whose rows would be lost").await;
        carried.relay.terminate_and_wait(PATIENCE).unwrap();
        carried.scene.insert("k", "2").await;
        assert_eq!(read(&carried.scene).await, Got::silently(0), "{version}: row 2 is lost");
        carried.relay.start_again().unwrap();
        carried.scene.execute("ALTER PUBLICATION walrelay ADD TABLE outbox").await;
        assert_eq!(carried.goes_on("3").await, ["1", "3"]);
    }
}

/// B7 and B8: Postgres gives the slot up, for its size or for its age.
#[tokio::test(flavor = "multi_thread")]
async fn b7_b8_a_slot_that_postgres_gave_up_halts_the_relay() {
    let size = [("max_slot_wal_keep_size", "17MB"), ("max_wal_size", "32MB")];
    let age = [("idle_replication_slot_timeout", "1s"), ("max_wal_size", "32MB")];
    for (version, settings, why) in [
        (14, size, "it kept more log than max_slot_wal_keep_size allows"),
        (LATEST, size, "it kept more log than max_slot_wal_keep_size allows"),
        (LATEST, age, "nobody read it for longer than idle_replication_slot_timeout allows"),
    ] {
        let postgres = Postgres::start_with(version, &settings, None).unwrap();
        let scene = Scene::on(&postgres, Kafka::shared(), 1).await;
        let relay = scene.relay().await;
        scene.insert("k", "1").await;
        let mut reader = scene.reader();
        reader.poll_until(1, PATIENCE).unwrap();
        relay.terminate_and_wait(PATIENCE).unwrap();
        scene.insert("k", "2").await;
        let lost = async || {
            scene.execute("CREATE TABLE IF NOT EXISTS x (n int)").await;
            scene.execute("INSERT INTO x VALUES (1)").await;
            scene.execute("SELECT pg_switch_wal()").await;
            scene.execute("CHECKPOINT").await;
            let sql = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1";
            let row = scene.client.query_one(sql, &[&scene.topic]).await.unwrap();
            row.get::<_, String>(0) == "lost"
        };
        eventually(PATIENCE, "the slot to be lost", lost).await.unwrap();
        relay.start_again().unwrap();
        let what = format!("slot {} is lost: {why}", scene.topic);
        not_ready(&relay, &what).await;
        assert!(relay.log().contains(&what), "and it says so in the log");
        // What it says helps.
        let sql = format!("SELECT pg_drop_replication_slot('{}')", scene.topic);
        scene.execute(&sql).await;
        relay.terminate_and_wait(PATIENCE).unwrap();
        let (url, brokers) = (scene.database.url(), scene.kafka.bootstrap());
        let relay = scene.start_with(&url, &brokers, &["--accept-gap"]);
        relay.wait_ready(PATIENCE).await.unwrap();
        scene.insert("k", "3").await;
        let records = reader.poll_until(2, PATIENCE).unwrap();
        let rows: Vec<_> = records.iter().map(Record::payload_text).collect();
        assert_eq!(rows, ["1", "3"], "row 2 was lost with the slot, and is said to be");
        assert!(relay.log().contains("accepted a gap, from "), "{}", relay.log());
    }
}

/// B15: while another session makes the slot, it is there without a position.
#[tokio::test(flavor = "multi_thread")]
async fn b15_a_slot_in_the_making_is_waited_for() {
    let postgres = Postgres::start(LATEST).unwrap();
    let scene = Scene::on(&postgres, Kafka::shared(), 1).await;
    scene.execute(PUBLISH).await;
    let holder = scene.database.client().await.unwrap();
    holder.batch_execute("BEGIN; CREATE TABLE t (n int)").await.unwrap();
    let maker = scene.database.client().await.unwrap();
    let sql = format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", scene.topic);
    let making = tokio::spawn(async move { maker.batch_execute(&sql).await });
    let visible = async || {
        let sql = "SELECT confirmed_flush_lsn IS NULL FROM pg_replication_slots
                   WHERE slot_name = $1";
        let row = scene.client.query_opt(sql, &[&scene.topic]).await.unwrap();
        row.is_some_and(|row| row.get(0))
    };
    eventually(PATIENCE, "a slot without a position", visible).await.unwrap();
    let relay = scene.start(&scene.database.url(), &scene.kafka.bootstrap());
    not_ready(&relay, "slot").await;
    let (_, text) = relay.get("/readyz").await.unwrap();
    assert!(text.contains("is being created") || text.contains("is in use"), "{text}");
    holder.batch_execute("COMMIT").await.unwrap();
    making.await.unwrap().unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k", "1").await;
    scene.reader().poll_until(1, PATIENCE).unwrap();
}

/// B16: such a slot sends rows that are rolled back later.
#[tokio::test(flavor = "multi_thread")]
async fn b16_a_two_phase_slot_sends_rows_that_never_were() {
    for version in [15, LATEST] {
        let postgres = Postgres::start(version).unwrap();
        let scene = Scene::on(&postgres, Kafka::shared(), 1).await;
        scene.execute(PUBLISH).await;
        let sql = format!(
            "SELECT pg_create_logical_replication_slot('{}', 'pgoutput', false, true)",
            scene.topic
        );
        scene.execute(&sql).await;
        scene.execute("BEGIN").await;
        scene.insert("k", "1").await;
        scene.execute(&format!("PREPARE TRANSACTION '{}'", scene.topic)).await;
        assert_eq!(read(&scene).await, Got::silently(1), "{version}");
        // What is left prepared would hold up every other slot of the server.
        scene.execute(&format!("ROLLBACK PREPARED '{}'", scene.topic)).await;
        let relay = scene.start(&scene.database.url(), &scene.kafka.bootstrap());
        not_ready(&relay, "was created with two_phase and sends transactions that may yet").await;
        assert!(scene.reader().read_to_end(PATIENCE).unwrap().is_empty());
    }
}

/// B17: a prepared transaction comes when it commits, and holds the log until then.
#[tokio::test(flavor = "multi_thread")]
async fn b17_a_prepared_transaction_comes_with_its_commit() {
    let postgres = Postgres::start(LATEST).unwrap();
    let scene = Scene::on(&postgres, Kafka::shared(), 1).await;
    let relay = scene.relay().await;
    scene.execute("BEGIN").await;
    scene.insert("k", "1").await;
    scene.execute("PREPARE TRANSACTION 'late'").await;
    let rows: String = (2..1002).map(|n| insert("k", &n.to_string())).collect();
    scene.execute(&rows).await;
    let mut reader = scene.reader();
    reader.poll_until(1000, PATIENCE).unwrap();
    scene.execute("SELECT pg_switch_wal()").await;
    scene.followed(PATIENCE).await;
    let retained = async || relay.metric("walrelay_retained_wal_bytes").await > Some(100_000.0);
    eventually(PATIENCE, "log to be kept for it", retained).await.unwrap();
    scene.execute("COMMIT PREPARED 'late'").await;
    let records = reader.poll_until(1001, PATIENCE).unwrap();
    assert_eq!(records[1000].payload_text(), "1");
}

/// C9: what a role or a database sets changes the text of values, but not for the relay.
#[tokio::test(flavor = "multi_thread")]
async fn c9_settings_of_role_and_database_do_not_change_values() {
    let mut scene = Scene::new(LATEST, 1).await;
    // In braces as Postgres prints it, and without them by its type.
    scene.configure(
        "payload = \"body\"\n\
         headers = { at = \"{at}\", i = \"{i}\", f = \"f\", utc = \"at\", us = \"i\" }",
    );
    let name = &scene.topic;
    scene
        .execute(&format!(
            "ALTER TABLE outbox ADD COLUMN body bytea, ADD COLUMN at timestamptz,
                 ADD COLUMN f float8, ADD COLUMN i interval;
             CREATE ROLE {name}_role SUPERUSER LOGIN;
             ALTER ROLE {name}_role SET datestyle = 'German';
             ALTER ROLE {name}_role SET bytea_output = 'escape';
             ALTER DATABASE {name} SET timezone = 'Asia/Tokyo';
             ALTER DATABASE {name} SET extra_float_digits = -5;
             ALTER DATABASE {name} SET intervalstyle = 'iso_8601'"
        ))
        .await;
    let url = scene.database.url().replace("postgres@", &format!("{name}_role@"));
    let relay = scene.start(&url, &scene.kafka.bootstrap());
    relay.wait_ready(PATIENCE).await.unwrap();
    scene
        .execute(
            "INSERT INTO outbox (aggregatetype, aggregateid, type, body, at, f, i) VALUES
             ('a', 'k', 't', '\\x00ff5c', '2026-01-02 03:04:05+00', 0.1::float8 + 0.2, '1 day')",
        )
        .await;
    let mut reader = scene.reader();
    let record = &reader.poll_until(1, PATIENCE).unwrap()[0];
    assert_eq!(record.payload.as_deref(), Some([0x00, 0xFF, 0x5C].as_slice()));
    assert_eq!(record.header("at").as_deref(), Some("2026-01-02 03:04:05+00"));
    assert_eq!(record.header("f").as_deref(), Some("0.30000000000000004"));
    assert_eq!(record.header("i").as_deref(), Some("1 day"));
    assert_eq!(record.header("utc").as_deref(), Some("2026-01-02T03:04:05.000000Z"));
    assert_eq!(record.header("us").as_deref(), Some("86400000000"));
}

/// C14, C15 and C17: columns and rows that are not in the log, or not in the publication.
#[tokio::test(flavor = "multi_thread")]
async fn c14_c15_c17_what_is_left_out_is_lost() {
    const WHOLE: &str = "ALTER PUBLICATION walrelay SET TABLE outbox";
    const FILTER: &str = "ALTER PUBLICATION walrelay SET TABLE outbox WHERE (aggregateid <> 'k')";
    // Postgres lets no table become unlogged that is in a publication by its name.
    const UNLOGGED: &str = "DROP PUBLICATION walrelay;
                            CREATE PUBLICATION walrelay FOR ALL TABLES WITH (publish = 'insert');
                            ALTER TABLE outbox SET UNLOGGED";
    for (version, state, mended, why) in [
        (15, FILTER, WHOLE, "holds only those rows of public.outbox with"),
        (LATEST, FILTER, WHOLE, "holds only those rows of public.outbox with"),
        (14, UNLOGGED, "ALTER TABLE outbox SET LOGGED", "public.outbox is unlogged, so that"),
        (LATEST, UNLOGGED, "ALTER TABLE outbox SET LOGGED", "public.outbox is unlogged, so that"),
    ] {
        let mut carried = Carried::stopped(version).await;
        carried.scene.execute(state).await;
        carried.scene.insert("k", "2").await;
        assert_eq!(read(&carried.scene).await, Got::silently(0), "{version}: the row is lost");
        carried.relay.start_again().unwrap();
        carried.halts(why).await;
        carried.scene.execute(mended).await;
        assert_eq!(carried.goes_on("3").await, ["1", "3"]);
    }
    // C14: a row without its key halts the relay, and is not lost.
    let carried = Carried::new(LATEST).await;
    let generated = "ALTER TABLE outbox DROP COLUMN aggregateid;
                     ALTER TABLE outbox ADD COLUMN aggregateid text GENERATED ALWAYS AS ('g')
                     STORED;
                     INSERT INTO outbox (aggregatetype, type, payload) VALUES ('a', 't', '2')";
    carried.scene.execute(generated).await;
    not_ready(&carried.relay, "the table has no column aggregateid").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // What other databases wrote before the row may be forgotten, the row not.
    let (_, text) = carried.relay.get("/readyz").await.unwrap();
    let commit = text.split('-').nth(1).unwrap();
    let commit = Lsn::from_wire(u64::from_str_radix(commit, 16).unwrap());
    assert!(carried.scene.confirmed().await <= commit, "the row was confirmed: {text}");
}
