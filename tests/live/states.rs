//! What is not as it must be, and the exact words about it: what was found, and what mends it.

use lab::{Kafka, Pooler, Postgres};

use crate::scene::{LATEST, Scene, not_ready};

/// The publication, made by hand.
const PUBLISH: &str = "CREATE PUBLICATION walrelay FOR TABLE outbox WITH (publish = 'insert');";
const CREATE: &str = "CREATE PUBLICATION \"walrelay\" FOR TABLE \"public\".\"outbox\" WITH \
                      (publish = 'insert', publish_via_partition_root = true)";
const AGAIN: &str = "run: BEGIN; LOCK TABLE \"public\".\"outbox\" IN SHARE ROW EXCLUSIVE MODE; \
                     ALTER PUBLICATION \"walrelay\" DROP TABLE \"public\".\"outbox\"; \
                     ALTER PUBLICATION \"walrelay\" ADD TABLE \"public\".\"outbox\"; COMMIT";

/// A database in this state, before the first start, and what is wrong with it.
async fn check(version: u16, state: &str, expected: &[&str]) {
    let scene = Scene::new(version, 1).await;
    scene.execute(state).await;
    assert_eq!(faults(&scene), expected, "{version}: {state}");
}

/// Without what every topic of the lab is told: it has one broker.
fn faults(scene: &Scene<'_>) -> Vec<String> {
    let mut faults = scene.faults();
    faults.retain(|line| !line.contains("acknowledged once a single broker has it"));
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_wrong_before_and_after_a_start() {
    let scene = Scene::new(LATEST, 1).await;
    assert_eq!(faults(&scene), [""; 0]);
    let relay = scene.relay().await;
    scene.insert("k", "1").await;
    scene.followed(crate::scene::PATIENCE).await;
    relay.terminate_and_wait(crate::scene::PATIENCE).unwrap();
    assert_eq!(faults(&scene), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn outbox_tables() {
    const ROWS: &str = "FAIL  rows of public.outbox: publication \"walrelay\"";
    check(
        LATEST,
        "DROP TABLE outbox",
        &["FAIL  table public.outbox: table public.outbox does not exist; create the outbox \
           tables, or set table of its [[outbox]] to the name it has now"],
    )
    .await;
    check(
        LATEST,
        "ALTER TABLE outbox RENAME TO events; CREATE VIEW outbox AS SELECT * FROM events",
        &["FAIL  table public.outbox: public.outbox is not a table, so that nothing of it is in \
           the log; set table of its [[outbox]] to the table that is written to"],
    )
    .await;
    check(
        LATEST,
        "ALTER TABLE outbox DROP COLUMN payload",
        &["FAIL  table public.outbox: table public.outbox has no column payload, which payload of \
           its [[outbox]] names; add the column, or set payload to another"],
    )
    .await;
    // C17
    check(
        LATEST,
        "ALTER TABLE outbox SET UNLOGGED",
        &["FAIL  table public.outbox: table public.outbox is unlogged, so that its rows are not \
           in the log; run: ALTER TABLE \"public\".\"outbox\" SET LOGGED"],
    )
    .await;
    // C14
    for version in [14, 15, LATEST] {
        let generated = format!(
            "ALTER TABLE outbox DROP COLUMN aggregateid;
             ALTER TABLE outbox ADD COLUMN aggregateid text GENERATED ALWAYS AS
                 (payload ->> 'key') STORED; {PUBLISH}"
        );
        let expected = format!(
            "{ROWS} leaves out column aggregateid of public.outbox, which is generated; set key \
             of its [[outbox]] to a column that is written"
        );
        check(version, &generated, &[&expected]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b31_publications() {
    const ROWS: &str = "FAIL  rows of public.outbox: publication \"walrelay\"";
    // C15
    for version in [15, LATEST] {
        let list = "CREATE PUBLICATION walrelay FOR TABLE outbox (id, payload) \
                    WITH (publish = 'insert')";
        let expected = format!("{ROWS} leaves out column aggregateid of public.outbox; {AGAIN}");
        check(version, list, &[&expected]).await;
        let filter = "CREATE PUBLICATION walrelay FOR TABLE outbox WHERE (type <> 'x') \
                      WITH (publish = 'insert')";
        let expected = format!(
            "{ROWS} holds only those rows of public.outbox with ((type)::text <> 'x'::text); \
             {AGAIN}; or, if another relay sends the others, set postgres.row_filters to \"allow\""
        );
        check(version, filter, &[&expected]).await;
    }
    // B2
    let other = "CREATE TABLE other (n int); CREATE PUBLICATION walrelay FOR TABLE other";
    let expected = format!(
        "{ROWS} does not hold public.outbox, whose rows would be lost; run: ALTER PUBLICATION \
         \"walrelay\" ADD TABLE \"public\".\"outbox\""
    );
    let stranger = "warn  strangers: publication \"walrelay\" holds public.other, which no \
                    [[outbox]] names: its first row halts the relay; run: ALTER PUBLICATION \
                    \"walrelay\" DROP TABLE \"public\".\"other\", or add an [[outbox]]";
    let identity = "warn  replica identity: publication \"walrelay\" publishes updates and \
                    deletes, and public.outbox has no primary key: the application's own UPDATE \
                    and DELETE fail there; run: ALTER PUBLICATION \"walrelay\" SET (publish = \
                    'insert')";
    check(LATEST, other, &[&expected, stranger]).await;
    check(
        LATEST,
        "ALTER TABLE outbox DROP CONSTRAINT outbox_pkey;
         CREATE PUBLICATION walrelay FOR TABLE outbox",
        &[identity],
    )
    .await;
    check(
        LATEST,
        "CREATE PUBLICATION walrelay FOR TABLE outbox WITH (publish = 'update')",
        &["FAIL  publication: publication \"walrelay\" does not publish inserts; run: ALTER \
           PUBLICATION \"walrelay\" SET (publish = 'insert')"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_to_be_created() {
    let mut scene = Scene::new(LATEST, 1).await;
    scene.configure_postgres("create = false");
    let expected = [
        format!("FAIL  publication: publication \"walrelay\" does not exist; run: {CREATE}"),
        "FAIL  slot: slot NAME does not exist; run: SELECT \
         pg_create_logical_replication_slot('NAME', 'pgoutput')"
            .to_owned(),
    ];
    assert_eq!(faults(&scene), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles() {
    let scene = Scene::new(LATEST, 1).await;
    let role = format!("{}_role", scene.topic);
    scene.execute(&format!("CREATE ROLE {role} LOGIN REPLICATION")).await;
    let url = scene.database.url().replace("postgres@", &format!("{role}@"));
    let brokers = scene.kafka.bootstrap();
    let (good, text) = scene.command(&url, &brokers, &["check"]);
    let expected = format!(
        "FAIL  publication: publication \"walrelay\" does not exist, and role {role}, which does \
         not own public.outbox, may not make it\n      -> run as the owner: {CREATE}\n"
    );
    assert!(!good && text.contains(&expected), "{text}");
    scene.execute(&format!("ALTER TABLE outbox OWNER TO {role}")).await;
    let (good, text) = scene.command(&url, &brokers, &["check"]);
    let expected = format!(
        "FAIL  publication: publication \"walrelay\" does not exist, and role {role} may not make \
         it\n      -> run: GRANT CREATE ON DATABASE \"{}\" TO \"{role}\"\n",
        scene.topic
    );
    assert!(!good && text.contains(&expected), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slots() {
    let other = "set postgres.slot to another name, or drop the slot if it is yours";
    let make = |scene: &Scene<'_>, sql: &str| sql.replace("NAME", &scene.topic);
    for (sql, what) in [
        ("SELECT pg_create_physical_replication_slot('NAME')", "is a physical one"),
        // B16
        (
            "SELECT pg_create_logical_replication_slot('NAME', 'pgoutput', false, true)",
            "was created with two_phase and sends transactions that may yet roll back",
        ),
    ] {
        let scene = Scene::new(LATEST, 1).await;
        scene.execute(PUBLISH).await;
        scene.execute(&make(&scene, sql)).await;
        assert_eq!(faults(&scene), [format!("FAIL  slot: slot NAME {what}; {other}")]);
        let relay = scene.start(&scene.database.url(), &scene.kafka.bootstrap());
        not_ready(&relay, what).await;
    }
    let scene = Scene::new(LATEST, 1).await;
    scene.execute(PUBLISH).await;
    let client = scene.postgres.client("postgres").await.unwrap();
    let sql = "SELECT pg_create_logical_replication_slot('NAME', 'pgoutput')";
    client.batch_execute(&make(&scene, sql)).await.unwrap();
    let what = "FAIL  slot: slot NAME belongs to database postgres, not to NAME";
    assert_eq!(faults(&scene), [format!("{what}; {other}")]);
    let sql = format!("SELECT pg_drop_replication_slot('{}')", scene.topic);
    client.batch_execute(&sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b28_servers_without_room_or_rights() {
    // B28
    for (settings, expected) in [
        (
            [("wal_level", "replica"), ("max_wal_senders", "5")],
            "FAIL  wal_level: wal_level is replica, so that the log cannot be decoded; run: ALTER \
             SYSTEM SET wal_level = 'logical'; then restart Postgres",
        ),
        (
            [("max_replication_slots", "1"), ("max_wal_senders", "5")],
            "FAIL  slot: all 1 replication slots of the server are in use; drop one that nobody \
             needs (see pg_replication_slots), or raise max_replication_slots and restart Postgres",
        ),
        (
            [("max_wal_senders", "0"), ("max_replication_slots", "5")],
            "FAIL  connection: Postgres: HOST: FATAL 53300: number of requested standby \
             connections exceeds \"max_wal_senders\" (currently 0); raise max_wal_senders or \
             max_connections, or end what is not needed",
        ),
        // B8
        (
            [("idle_replication_slot_timeout", "1min"), ("max_wal_senders", "5")],
            "warn  idle slots: idle_replication_slot_timeout is 60 s: a relay that is down for \
             longer loses its slot, and events with it; raise it to a day or more, or set it to 0",
        ),
        // A21
        (
            [("synchronous_standby_names", "*"), ("max_wal_senders", "5")],
            "FAIL  synchronous standby: synchronous_standby_names = '*' makes the relay a \
             synchronous standby: while Kafka is down, every commit in Postgres waits; name the \
             standbys in it, and not \"*\" or \"walrelay\"",
        ),
    ] {
        let postgres = Postgres::start_with(LATEST, &settings, None).unwrap();
        let client = postgres.client("postgres").await.unwrap();
        // Nobody acknowledges commits there.
        client.batch_execute("ALTER SYSTEM SET synchronous_commit = local").await.unwrap();
        client.execute("SELECT pg_reload_conf()", &[]).await.unwrap();
        if settings[0].0 == "max_replication_slots" {
            let sql = "SELECT pg_create_physical_replication_slot('taken')";
            client.batch_execute(sql).await.unwrap();
        }
        let scene = Scene::on(&postgres, Kafka::shared(), 1).await;
        let host = format!("127.0.0.1:{}", postgres.port());
        let faults: Vec<_> =
            faults(&scene).iter().map(|line| line.replace(&host, "HOST")).collect();
        assert_eq!(faults, [expected], "{settings:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_topics_that_may_lose_records() {
    // D1: what any topic of a single broker is told, however many replicas are to be in sync, and
    // one that prefers to be there over being complete.
    let scene = Scene::new(LATEST, 0).await;
    let settings = [("min.insync.replicas", "2"), ("unclean.leader.election.enable", "true")];
    scene.kafka.create_topic_with(&scene.topic, 1, &settings).await.unwrap();
    let unclean = "warn  topic NAME: topic NAME may be led by a replica that lacks records \
                   (unclean.leader.election); set unclean.leader.election.enable = false on the \
                   topic";
    let single = "warn  topic NAME: a record of topic NAME is acknowledged once a single broker \
                  has it; with three replicas, set min.insync.replicas = 2 on the topic, so that \
                  the loss of one broker loses nothing";
    assert_eq!(scene.faults(), [unclean, single]);

    let scene = Scene::new(LATEST, 0).await;
    let missing = "FAIL  topic NAME: topic NAME does not exist; create it, and its records will \
                   follow";
    assert_eq!(faults(&scene), [missing]);
    let settings = [("max.message.bytes", "10000")];
    scene.kafka.create_topic_with(&scene.topic, 1, &settings).await.unwrap();
    let narrow = "FAIL  topic NAME: topic NAME takes batches of at most 10000 bytes; set \
                  batch.size in [kafka.properties] to 10000 or less, or raise max.message.bytes \
                  of the topic";
    assert_eq!(faults(&scene), [narrow]);

    let mut scene = Scene::new(LATEST, 0).await;
    let settings = [("cleanup.policy", "compact"), ("min.insync.replicas", "2")];
    scene.kafka.create_topic_with(&scene.topic, 1, &settings).await.unwrap();
    let positions = format!("{}-positions", scene.topic);
    scene.configure(&format!("[delivery]\npositions_topic = \"{positions}\""));
    scene.kafka.create_topic(&positions, 2).await.unwrap();
    let compacted = "warn  topic NAME: topic NAME is compacted: of the events of a key only the \
                     last may stay; set cleanup.policy = delete on the topic, unless that is meant";
    let forgetful = "FAIL  topic NAME-positions: topic NAME-positions has cleanup.policy=delete, \
                     so that positions are deleted; set cleanup.policy = compact on the topic";
    assert_eq!(faults(&scene), [compacted, forgetful]);
    scene.kafka.delete_topic(&positions).await.unwrap();
    let settings = [("cleanup.policy", "compact")];
    scene.kafka.create_topic_with(&positions, 2, &settings).await.unwrap();
    let wide = "FAIL  topic NAME-positions: topic NAME-positions has 2 partitions, and only the \
                first is used; delete it while no relay runs, or set delivery.positions_topic to \
                another name";
    assert_eq!(faults(&scene), [compacted, wide]);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_not_there() {
    let scene = Scene::new(LATEST, 1).await;
    let (good, text) = scene.command(&scene.database.url(), "127.0.0.1:1", &["check"]);
    let expected = "FAIL  brokers: no broker of kafka.brokers answers (Meta data fetch error: \
                    BrokerTransportFailure (Local: Broker transport failure))\n      -> check \
                    kafka.brokers, and security.protocol and sasl.* in [kafka.properties]\n";
    assert!(!good && text.starts_with(expected), "{text}");
    let url = "postgres://postgres@127.0.0.1:1/app";
    let (good, text) = scene.command(url, &scene.kafka.bootstrap(), &["check"]);
    let expected = "FAIL  connection: Postgres: 127.0.0.1:1: Connection refused (os error 111): \
                    is Postgres running there, and does its listen_addresses include this \
                    address?";
    assert!(!good && text.contains(expected), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b27_a_pooler_in_between_is_named() {
    let scene = Scene::new(LATEST, 1).await;
    let pooler = "a connection pooler seems to stand in between, which cannot carry replication: \
                  let postgres.url lead to Postgres itself";
    // Poolers refuse what they do not know, or drop it and pass an ordinary session on.
    for (drops, refusal) in [
        (vec![], "FATAL 08P01: unsupported startup parameter: replication"),
        (
            vec!["replication", "options"],
            "ERROR 42601: syntax error at or near \"IDENTIFY_SYSTEM\"",
        ),
    ] {
        let between = Pooler::start(scene.postgres, &drops).unwrap();
        let url = scene.database.url_through(between.port());
        let said = format!("127.0.0.1:{}: {refusal}; {pooler}", between.port());
        let (good, text) = scene.command(&url, &scene.kafka.bootstrap(), &["check"]);
        assert!(!good && text.replace("\n      -> ", "; ").contains(&said), "{text}");
        let relay = scene.start(&url, &scene.kafka.bootstrap());
        not_ready(&relay, &said).await;
        // It did stand in between.
        assert!(between.log().contains("login attempt") || between.log().contains("replication"));
    }
}
