//! What a row becomes, key by key of its `[[outbox]]`.

use lab::Record;

use crate::scene::{LATEST, PATIENCE, Scene};

/// The relay's records of these rows, in the order of the log, all under one key.
async fn records(scene: &Scene<'_>, rows: &str, count: usize) -> Vec<Record> {
    scene.execute(rows).await;
    let mut reader = scene.reader();
    let mut records = reader.poll_until(count, PATIENCE).unwrap().to_vec();
    records.sort_by_key(|record| record.header("walrelay-position"));
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn time_and_partition_come_from_the_commit_and_the_key_or_from_columns() {
    let mut scene = Scene::new(LATEST, 4).await;
    let sql = "ALTER TABLE outbox ADD happened timestamptz, ADD shard smallint";
    scene.execute(sql).await;
    scene.configure("timestamp = \"happened\"\npartition = \"shard\"");
    let relay = scene.relay().await;
    let clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8";
    let now = async || scene.client.query_one(clock, &[]).await.unwrap().get::<_, i64>(0);
    let before = now().await;
    let insert = "INSERT INTO outbox (aggregatetype, aggregateid, type, payload, happened, shard)";
    let rows = format!(
        "{insert} VALUES ('t', 'k', 'e', '1', '2001-02-03 04:05:06.7899+02', 3),
                         ('t', 'k', 'e', '2', '1970-01-01 00:00:00.5Z', 0),
                         ('t', 'k', 'e', '3', NULL, NULL)"
    );
    let records = records(&scene, &rows, 3).await;
    let after = now().await;
    let places: Vec<_> = records.iter().map(|it| (it.partition, it.timestamp_ms)).collect();
    assert_eq!(places[..2], [(3, Some(981_165_906_789)), (0, Some(500))]);
    assert!((before..=after).contains(&places[2].1.unwrap()), "{before} {places:?} {after}");

    scene.execute(&format!("{insert} VALUES ('t', 'k', 'e', '4', NULL, 4)")).await;
    let told = "it asks for partition 4, and topic";
    relay.wait_for_log(PATIENCE, told).unwrap();
    let (status, text) = relay.get("/readyz").await.unwrap();
    assert!(status == 503 && text.contains(told), "{text}");
    // A later one may be mended: the topic grows.
    scene.kafka.add_partitions(&scene.topic, 5).await.unwrap();
    let mut reader = scene.reader();
    let all = |records: &[Record]| records.iter().any(|it| it.partition == 4);
    reader.read_until(PATIENCE, "the fifth partition", all).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_headers_and_tombstones_are_made_of_what_the_row_holds() {
    let mut scene = Scene::new(LATEST, 1).await;
    scene.configure(
        "key = \"{aggregatetype}/{aggregateid}\"
         tombstone_if_blank = true
         headers = { kind = \"type\", from = \"{$schema}.{$table}\", xid = \"{$xid}\" }
         static_headers = { app = \"shop\" }",
    );
    scene.execute("ALTER TABLE outbox ALTER payload TYPE text").await;
    let _relay = scene.relay().await;
    let rows = "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
                VALUES ('order', '7', 'placed', '{}'), ('order', '8', 'deleted', ' ')";
    let records = records(&scene, rows, 2).await;
    let keys: Vec<_> = records.iter().map(Record::key_text).collect();
    assert_eq!(keys, ["order/7", "order/8"]);
    assert_eq!(records[0].payload.as_deref(), Some(b"{}".as_slice()));
    assert_eq!(records[1].payload, None);
    let names: Vec<_> = records[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "kind", "from", "xid", "app", "walrelay-position"]);
    let header = |name| records[1].header(name);
    assert_eq!(header("from").as_deref(), Some("public.outbox"));
    assert_eq!(header("kind").as_deref(), Some("deleted"));
    assert_eq!(header("app").as_deref(), Some("shop"));
    let sql = "SELECT xmin::text FROM outbox LIMIT 1";
    let xid: String = scene.client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(header("xid"), Some(xid));
}

/// An append-only table of events that is no outbox: all of a row, also of a column that is new.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_any_table_becomes_json_in_the_types_of_its_columns() {
    let mut scene = Scene::new(LATEST, 1).await;
    scene
        .execute(
            "CREATE TYPE mood AS ENUM ('happy', 'so so');
             CREATE DOMAIN amount AS numeric(12, 3) CHECK (VALUE > 0);
             CREATE TABLE events (id bigint PRIMARY KEY, ok boolean, price amount, rate float8,
                 body jsonb, raw bytea, at timestamptz, local timestamp(3), day date, moods mood[],
                 tags text[], \"a \"\"b\"\"\" text, span interval, who uuid)",
        )
        .await;
    scene.configure("table = \"events\"\nkey = \"id\"\nheaders = {}\npayload = \"*\"");
    let _relay = scene.relay().await;
    let rows = r#"
        INSERT INTO events VALUES (9007199254740993, true, 12.500, 'NaN', '{"b": [1, null]}',
            '\x00ff41', '2026-02-03 05:05:06.789+01', '2026-02-03 04:05:06', 'infinity',
            '{happy,"so so",NULL}', '{{a,"b \"c"},{NULL,""}}', E'ü\n', '1 day 02:00',
            '00000000-0000-4000-8000-000000000099');
        INSERT INTO events (id, rate) VALUES (2, 1e-7);
        ALTER TABLE events ADD more smallint NOT NULL DEFAULT 7;
        INSERT INTO events (id) VALUES (3)"#;
    let records = records(&scene, rows, 3).await;
    let values: Vec<_> = records.iter().map(Record::payload_text).collect();
    let nulls = [
        r#""raw":null,"at":null,"local":null,"day":null,"moods":null,"tags":null,"#,
        r#""a \"b\"":null,"span":null,"who":null"#,
    ]
    .concat();
    let first = [
        r#"{"id":9007199254740993,"ok":true,"price":12.500,"rate":"NaN","body":{"b": [1, null]},"#,
        r#""raw":"AP9B","at":"2026-02-03T04:05:06.789Z","local":"2026-02-03T04:05:06","#,
        r#""day":"infinity","moods":["happy","so so",null],"tags":[["a","b \"c"],[null,""]],"#,
        r#""a \"b\"":"ü\n","span":"1 day 02:00:00","#,
        r#""who":"00000000-0000-4000-8000-000000000099"}"#,
    ];
    let row = |id: u8, rate: &str, more: &str| {
        format!(r#"{{"id":{id},"ok":null,"price":null,"rate":{rate},"body":null,{nulls}{more}}}"#)
    };
    assert_eq!(values, [first.concat(), row(2, "1e-07", ""), row(3, "null", ",\"more\":7")]);
    assert_eq!(records[0].key_text(), "9007199254740993");
}

/// An outbox in binary mode, and a table of events whose rows are the data, in structured mode.
#[tokio::test(flavor = "multi_thread")]
async fn rows_become_cloudevents_in_both_modes() {
    let mut scene = Scene::new(LATEST, 1).await;
    scene.execute("CREATE TABLE shipments (number int, at timestamptz, weight numeric)").await;
    let topic = scene.topic.clone();
    scene.configure(&format!(
        "cloudevents = \"binary\"
         cloudevents_attributes = {{ subject = \"{{aggregatetype}}/{{aggregateid}}\" }}
         [[outbox]]
         table = \"shipments\"
         topic = \"{topic}\"
         id = \"\"
         key = \"\"
         headers = {{}}
         payload = \"*\"
         cloudevents = \"structured\"
         [outbox.cloudevents_attributes]
         id = \"{{number}}\"
         source = \"/shop\"
         type = \"com.example.shipped\"
         time = \"at\"
         sequence = \"number\""
    ));
    let _relay = scene.relay().await;
    let rows = "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
                VALUES ('order', '7', 'com.example.placed', '{\"a\": 1}'),
                       ('order', '7', 'com.example.gone', NULL);
                INSERT INTO shipments VALUES (5, '2026-02-03 05:05:06.5+01', 1.50)";
    let records = records(&scene, rows, 3).await;
    let names = |record: &Record| {
        let names = record.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        names.join(" ")
    };
    let [placed, gone, shipped] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(
        names(placed),
        "id ce_specversion ce_id ce_source ce_type ce_time ce_subject content-type eventType \
         walrelay-position"
    );
    let header = |name| placed.header(name).unwrap();
    assert_eq!(header("ce_specversion"), "1.0");
    assert_eq!(header("ce_id"), header("id"));
    assert_eq!(header("ce_source"), "/public/outbox");
    assert_eq!(header("ce_type"), "com.example.placed");
    assert_eq!(header("ce_subject"), "order/7");
    assert_eq!(header("content-type"), "application/json");
    let sql =
        format!("SELECT (extract(epoch FROM '{}'::timestamptz) * 1000)::int8", header("ce_time"));
    let committed: i64 = scene.client.query_one(&sql, &[]).await.unwrap().get(0);
    assert!(placed.timestamp_ms.unwrap().abs_diff(committed) <= 1, "{placed:?}");
    assert_eq!(placed.payload_text(), "{\"a\": 1}");
    assert_eq!(gone.payload, None);
    assert_eq!(names(shipped), "content-type walrelay-position");
    let media = "application/cloudevents+json; charset=UTF-8";
    assert_eq!(shipped.header("content-type").as_deref(), Some(media));
    assert_eq!(
        shipped.payload_text(),
        "{\"specversion\":\"1.0\",\"id\":\"5\",\"source\":\"/shop\",\
         \"type\":\"com.example.shipped\",\"time\":\"2026-02-03T04:05:06.5Z\",\"sequence\":5,\
         \"datacontenttype\":\"application/json\",\
         \"data\":{\"number\":5,\"at\":\"2026-02-03T04:05:06.5Z\",\"weight\":1.50}}"
    );
}

/// What can be known before a row comes is refused before one comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_a_type_that_its_key_does_not_take_is_refused_at_the_start() {
    for (key, reason) in [
        ("partition", "set partition to a column of type smallint, integer or bigint"),
        ("timestamp", "set timestamp to a column of type timestamptz, timestamp or date, or"),
    ] {
        let mut scene = Scene::new(LATEST, 1).await;
        scene.configure(&format!("{key} = \"payload\""));
        let relay = scene.start(&scene.database.url(), &scene.kafka.bootstrap());
        relay.wait_for_log(PATIENCE, reason).unwrap();
        let (status, text) = relay.get("/readyz").await.unwrap();
        assert!(status == 503 && text.contains(reason), "{text}");
    }
}

/// Kafka takes records that are an hour ahead, and the others are known before they are sent.
#[tokio::test(flavor = "multi_thread")]
async fn d25_a_time_of_the_rows_own_that_is_too_far_ahead_is_poison() {
    let mut scene = Scene::new(LATEST, 1).await;
    scene.execute("ALTER TABLE outbox ADD happened timestamptz").await;
    scene.configure("timestamp = \"happened\"\non_poison = \"skip\"");
    let relay = scene.relay().await;
    let insert = "INSERT INTO outbox (aggregatetype, aggregateid, type, payload, happened)";
    let rows = format!(
        "{insert} VALUES ('t', 'k', 'e', '1', now()),
                         ('t', 'k', 'e', '2', now() + interval '2 hours'),
                         ('t', 'k', 'e', '3', now() + interval '30 minutes')"
    );
    let records = records(&scene, &rows, 2).await;
    assert_eq!(records.iter().map(Record::payload_text).collect::<Vec<_>>(), ["1", "3"]);
    relay.wait_for_log(PATIENCE, "skipped: row ").unwrap();
    let told = "s ahead, and topic";
    assert!(relay.log().contains(told), "{}", relay.log());
    assert_eq!(relay.metric_where("walrelay_poison_total", "policy=\"skip\"").await, Some(1.0));
    assert_eq!(relay.metric_where("walrelay_sessions_total", "kafka").await, Some(0.0));
}
