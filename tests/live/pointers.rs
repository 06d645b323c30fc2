//! Records that are larger than Kafka takes, where the outbox has pointers for them.

use lab::Record;

use crate::records::{alter, at, noise};
use crate::scene::{LATEST, PATIENCE, Scene, commit_of, insert};

/// What a consumer makes of a record: its value, or what the row has that it points to.
async fn fetched(scene: &Scene<'_>, record: &Record) -> String {
    let Some(table) = record.header("walrelay-pointer") else { return record.payload_text() };
    let pointer: serde_json::Value = serde_json::from_str(&record.payload_text()).unwrap();
    let text = |name: &str| pointer[name].as_str().unwrap().to_owned();
    assert_eq!((table.as_str(), text("schema").as_str()), ("public.outbox", "public"));
    assert_eq!(text("table"), "outbox");
    assert_eq!(Some(text("id")), record.header("id"));
    assert_eq!(text("commit_lsn"), commit_of(record).to_string());
    let sql = "SELECT payload::text, xmin::text::bigint FROM outbox WHERE id::text = $1";
    let row = scene.client.query_one(sql, &[&text("id")]).await.unwrap();
    let (payload, xid): (String, i64) = (row.get(0), row.get(1));
    assert_eq!(pointer["bytes"], payload.len());
    assert_eq!(pointer["xid"], xid);
    payload
}

fn position(record: &Record) -> String {
    record.header("walrelay-position").unwrap()
}

/// Each record once, in the order of the log. What comes again must be what came before.
fn each_once(records: &[Record]) -> Vec<Record> {
    let mut once: Vec<Record> = Vec::new();
    for record in records {
        match once.iter().find(|it| position(it) == position(record)) {
            Some(before) => {
                assert_eq!(before.payload, record.payload);
                assert_eq!(before.headers, record.headers);
                assert_eq!(before.partition, record.partition);
            }
            None => once.push(record.clone()),
        }
    }
    once.sort_by_key(position);
    once
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_too_large_goes_as_a_pointer_by_which_its_consumer_finds_it() {
    let mut scene = Scene::new(LATEST, 0).await;
    let roomy = [("max.message.bytes", "2000000")];
    scene.kafka.create_topic_with(&scene.topic, 3, &roomy).await.unwrap();
    scene.execute("ALTER TABLE outbox ADD shard integer").await;
    scene.configure("partition = \"shard\"\non_oversize = \"pointer\"");
    let relay = scene.relay().await;
    let home = at("k", 3);
    let elsewhere = (home + 1) % 3;
    // More than librdkafka takes, and more than the topic does.
    let [broad, broader] = [1_100_000, 2_500_000].map(|size| format!("\"{}\"", "x".repeat(size)));
    let payloads = ["0", &broad, "2", &broader, "4", &broad];
    let row = |payload: &str, shard: i32| {
        insert("k", payload)
            .replace("payload)", "payload, shard)")
            .replace(");", &format!(", {shard});"))
    };
    let mut rows: String = payloads[..5].iter().map(|payload| insert("k", payload)).collect();
    // The last one is no record at all: a relay that is killed begins again with the first.
    rows += &(row(payloads[5], elsewhere) + &row("6", -1));
    scene.execute(&rows).await;
    let mut reader = scene.reader();
    let records = each_once(reader.poll_until(6, PATIENCE).unwrap());
    for (number, record) in records.iter().enumerate() {
        assert_eq!(fetched(&scene, record).await, payloads[number], "row {number}");
        assert_eq!(record.key_text(), "k");
        assert_eq!(record.header("eventType").unwrap(), "created");
        assert_eq!(record.timestamp_ms, records[0].timestamp_ms);
        assert_eq!(record.partition, if number == 5 { elsewhere } else { home });
        let points = record.header("walrelay-pointer").is_some();
        assert_eq!(points, [1, 3, 5].contains(&number));
    }
    let commit = commit_of(&records[1]);
    let of =
        format!("in place of 1100002 bytes committed at {commit}: row {}", position(&records[1]));
    let id = records[1].header("id").unwrap();
    let said =
        format!("sent to topic {} as a pointer, {of} of public.outbox (id {id})", scene.topic);
    assert!(relay.log().contains(&said), "{said:?} is not in {}", relay.log());
    assert_eq!(relay.log().matches(" as a pointer, ").count(), 3);
    let counted = relay.metric_where("walrelay_poison_total", "policy=\"pointer\"").await;
    assert_eq!(counted, Some(3.0));
    let sessions = relay.metric_where("walrelay_sessions_total", "kafka").await;
    assert_eq!(sessions, Some(0.0), "a row is no reason to begin again");

    relay.wait_for_log(PATIENCE, "ERROR halted: row ").unwrap();
    relay.kill_9().unwrap();
    let config = scene.config(&scene.database.url(), &scene.kafka.bootstrap());
    let mended = "on_oversize = \"pointer\"\non_poison = \"skip\"";
    relay.write_config(&config.replace("on_oversize = \"pointer\"", mended)).unwrap();
    relay.start_again().unwrap();
    scene.insert("k", "7").await;
    let all = reader.poll_until(13, PATIENCE).unwrap();
    assert_eq!((all.len(), each_once(all).len()), (13, 7), "all of it again, and one more");
    scene.followed(PATIENCE).await;
}

/// Once it is compressed, only the broker can tell. Its refusal costs a producer, and no order.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_only_the_broker_finds_too_large_goes_as_a_pointer() {
    let mut scene = Scene::new(LATEST, 0).await;
    let narrow = [("max.message.bytes", "10000")];
    scene.kafka.create_topic_with(&scene.topic, 1, &narrow).await.unwrap();
    scene.configure(
        "on_oversize = \"pointer\"\n[kafka.properties]\n\"linger.ms\" = 50\n\
         \"batch.size\" = 10000\n\"compression.type\" = \"lz4\"",
    );
    let relay = scene.relay().await;
    let broad = format!("\"{}\"", noise(50_000));
    let payload = |number: usize| match number {
        7 | 8 | 15 | 29 => broad.clone(),
        number => number.to_string(),
    };
    scene.execute(&(0..30).map(|number| insert("k", &payload(number))).collect::<String>()).await;
    let mut reader = scene.reader();
    let all = |records: &[Record]| each_once(records).len() == 30;
    let records = each_once(reader.read_until(PATIENCE, "30 records", all).unwrap());
    for (number, record) in records.iter().enumerate() {
        assert_eq!(fetched(&scene, record).await, payload(number), "row {number}");
    }
    // Within the partition nothing passed what came before it.
    let mut firsts: Vec<String> = Vec::new();
    for record in reader.records() {
        if !firsts.contains(&position(record)) {
            firsts.push(position(record));
        }
    }
    assert!(firsts.is_sorted(), "{firsts:?}");
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.followed(PATIENCE).await;
    assert!(relay.log().matches(" as a pointer, ").count() >= 4);
    assert_eq!(relay.metric_where("walrelay_poison_total", "policy=\"halt\"").await, Some(0.0));

    // A topic that has room gets the whole of it.
    alter(&scene, "max.message.bytes=100000");
    scene.insert("k", &broad).await;
    let whole = |records: &[Record]| records.last().is_some_and(|it| it.payload_text() == broad);
    let records = reader.read_until(PATIENCE, "a large record", whole).unwrap();
    assert_eq!(records.last().unwrap().header("walrelay-pointer"), None);
}
