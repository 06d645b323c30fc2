//! Payloads that are encoded by the schemas of a registry, which is Apicurio's.

use lab::{Proxy, Record, Registry, RunDir, Signal};

use crate::guarded::Authority;
use crate::scene::{LATEST, PATIENCE, Scene, insert, not_ready};

const AVRO: &str = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "id", "type": "long"},
    {"name": "note", "type": ["null", "string"], "default": null},
    {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line",
        "fields": [{"name": "sku", "type": "string"}, {"name": "count", "type": "int"}]}}}
]}"#;

const PROTOBUF: &str = r#"syntax = "proto3";
package shop;
import "line.proto";
message Order { int64 id = 1; string note = 2; repeated Line lines = 3; }"#;

const LINE: &str = r#"syntax = "proto3";
package shop;
message Line { string sku = 1; int32 count = 2; }"#;

const JSON: &str = r#"{"type": "object", "required": ["id"], "properties":
    {"id": {"type": "integer"}, "note": {"type": "string"}, "lines": {"type": "array"}}}"#;

const ORDER: &str = r#"{"id": 7, "note": "hi", "lines": [{"sku": "a", "count": 3}]}"#;

/// A scene whose payloads are encoded so, with more keys for its outbox, and the subject of its
/// topic.
async fn scene(format: &str, more: &str) -> (Scene<'static>, String) {
    let mut scene = Scene::new(LATEST, 1).await;
    let registry = Registry::shared().url();
    let more = more.replace("TOPIC", &scene.topic);
    scene.configure(&format!(
        "payload_format = \"{format}\"\n{more}\n[registry]\nurl = \"{registry}\""
    ));
    let subject = format!("{}-value", scene.topic);
    (scene, subject)
}

/// The value that a schema of this id makes of these bytes.
fn value(id: u32, rest: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), rest].concat()
}

fn payloads(records: &[Record]) -> Vec<Option<Vec<u8>>> {
    records.iter().map(|record| record.payload.clone()).collect()
}

fn register(subject: &str, kind: &str, schema: &str) -> u32 {
    Registry::shared().register(subject, kind, schema, &[]).unwrap()
}

/// The bytes are those of the specifications: Avro's "Binary Encoding", Protobuf's "Encoding",
/// Confluent's "Wire format".
#[tokio::test(flavor = "multi_thread")]
async fn payloads_are_what_the_specifications_make_of_them() {
    let avro = [&[14, 2, 4][..], b"hi", &[2, 2], b"a", &[6, 0]].concat();
    let line = [&[0x0A, 1][..], b"a", &[0x10, 3]].concat();
    let protobuf = [&[0, 8, 7, 0x12, 2][..], b"hi", &[0x1A, 5], &line].concat();
    for (format, kind, schema, expected) in [
        ("avro", "AVRO", AVRO, avro),
        ("protobuf", "PROTOBUF", PROTOBUF, protobuf),
        // As Postgres prints a `jsonb`.
        ("json_schema", "JSON", JSON, ORDER.as_bytes().to_vec()),
    ] {
        let (scene, subject) = scene(format, "").await;
        let references = match kind {
            "PROTOBUF" => {
                let line = format!("{subject}-line");
                register(&line, kind, LINE);
                vec![line]
            }
            _ => Vec::new(),
        };
        let references: Vec<_> = references.iter().map(|it| ("line.proto", it.as_str())).collect();
        let id = Registry::shared().register(&subject, kind, schema, &references).unwrap();
        scene.execute("ALTER TABLE outbox ALTER payload TYPE json").await;
        let _relay = scene.relay().await;
        scene.insert("k", ORDER).await;
        // A tombstone is one.
        scene.execute(&insert("k", "null").replace("'null'", "NULL")).await;
        let records = scene.reader().poll_until(2, PATIENCE).unwrap().to_vec();
        assert_eq!(payloads(&records), [Some(value(id, &expected)), None], "{format}");
        assert_eq!(records[0].key_text(), "k");
        scene.followed(PATIENCE).await;
    }
}

/// A whole row, subjects by the kind of event, and references of Avro.
#[tokio::test(flavor = "multi_thread")]
async fn subjects_follow_their_template_and_rows_can_be_payloads() {
    let keys = "id = \"\"\nkey = \"aggregatetype\"\nheaders = {}\n\
                payload = [\"at\", \"amount\"]\nschema_subject = \"TOPIC.{type}\"";
    let (scene, subject) = scene("avro", keys).await;
    let money = format!("{subject}-money");
    register(
        &money,
        "AVRO",
        r#"{"type": "fixed", "name": "Money", "namespace": "shop", "size": 3,
            "logicalType": "decimal", "precision": 6, "scale": 2}"#,
    );
    let schema = r#"{"type": "record", "name": "Paid", "fields": [
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "amount", "type": "shop.Money"}]}"#;
    let references = [("shop.Money", money.as_str())];
    let paid = format!("{}.paid", scene.topic);
    let id = Registry::shared().register(&paid, "AVRO", schema, &references).unwrap();
    scene.execute("ALTER TABLE outbox ADD at timestamptz, ADD amount numeric(6, 2)").await;
    let _relay = scene.relay().await;
    let insert = "INSERT INTO outbox (aggregatetype, aggregateid, type, at, amount) VALUES \
                  ('k', '', 'paid', '1970-01-01 00:00:00.5+00', -1.5)";
    scene.execute(insert).await;
    let records = scene.reader().poll_until(1, PATIENCE).unwrap().to_vec();
    // Half a million microseconds, and minus 150 hundredths.
    let expected = [0xC0, 0x84, 0x3D, 0xFF, 0xFF, 0x6A];
    assert_eq!(payloads(&records), [Some(value(id, &expected))]);
}

/// No row is at fault for a schema that is missing, or of another kind.
#[tokio::test(flavor = "multi_thread")]
async fn records_wait_for_a_schema_that_can_be_used() {
    let (scene, subject) = scene("avro", "").await;
    let missing = format!("subject {subject} has no schema in the registry; register one");
    let fault = format!("FAIL  subject NAME-value: {missing}").replace(&scene.topic, "NAME");
    assert!(scene.faults().iter().any(|it| it.starts_with(&fault)), "{:?}", scene.faults());
    let relay = scene.relay().await;
    scene.insert("k", ORDER).await;
    not_ready(&relay, &missing).await;
    register(&subject, "JSON", JSON);
    not_ready(&relay, &format!("subject {subject} has a schema of type JSON")).await;
    assert_eq!(lab::read_all(&scene.kafka.bootstrap(), &scene.topic).unwrap().len(), 0);
    Registry::shared().forget(&subject).unwrap();
    let id = register(&subject, "AVRO", AVRO);
    let records = scene.reader().poll_until(1, PATIENCE).unwrap().to_vec();
    assert_eq!(records[0].payload.as_ref().unwrap()[..5], value(id, &[]));
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.followed(PATIENCE).await;
    let poisoned = relay.metric_where("walrelay_poison_total", "policy=\"halt\"").await;
    assert_eq!(poisoned, Some(0.0));
    assert!(!scene.faults().iter().any(|it| it.contains("subject")), "{:?}", scene.faults());
}

/// A service registers its new schema first, and then writes by it: the relay, which knows the one
/// before, must not take that for a mistake. What does not fit the new one either, is.
#[tokio::test(flavor = "multi_thread")]
async fn a_payload_is_held_against_the_schema_of_its_time() {
    let policy = "on_poison = \"dead_letter\"\ndead_letter_topic = \"TOPIC.dead\"";
    let (scene, subject) = scene("avro", policy).await;
    let letters = format!("{}.dead", scene.topic);
    scene.kafka.create_topic(&letters, 1).await.unwrap();
    let field = |more: &str| {
        format!(
            r#"{{"type": "record", "name": "Order", "fields": [{{"name": "id", "type": "long"}}
                {more}]}}"#
        )
    };
    let first = register(&subject, "AVRO", &field(""));
    let relay = scene.relay().await;
    scene.insert("k", r#"{"id": 1}"#).await;
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();
    let more = r#", {"name": "note", "type": "string", "default": ""}"#;
    let second = register(&subject, "AVRO", &field(more));
    scene.insert("k", r#"{"id": 2, "note": "x"}"#).await;
    let wrong = [
        (r#"{"id": 3, "other": 1}"#, "the schema has no field other"),
        (r#"{"id": "4"}"#, "id: expected a whole number of 64 bits, got a text"),
    ];
    for (payload, _) in wrong {
        scene.insert("k", payload).await;
    }
    scene.insert("k", r#"{"id": 5}"#).await;
    let expected = [value(first, &[2]), value(second, b"\x04\x02x"), value(second, &[10, 0])];
    let expected = expected.map(Some);
    assert_eq!(payloads(reader.poll_until(3, PATIENCE).unwrap()), expected);
    let poison = lab::read_all(&scene.kafka.bootstrap(), &letters).unwrap();
    for (letter, (payload, why)) in poison.iter().zip(wrong) {
        assert_eq!(letter.payload_text(), payload);
        let reason = letter.header("walrelay-reason").unwrap();
        let told = format!("does not fit schema {second} of subject {subject}: {why}");
        assert_eq!(reason, format!("its payload {told}"));
    }
    assert_eq!(poison.len(), wrong.len());
    scene.followed(PATIENCE).await;
    relay.wait_ready(PATIENCE).await.unwrap();
}

/// What is known goes on being used; what is not known waits, and is no poison.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_hangs_or_is_gone_is_back_pressure() {
    let registry = Registry::start(None).unwrap();
    let proxy = Proxy::start(None, registry.address()).unwrap();
    let mut scene = Scene::new(LATEST, 1).await;
    let url = registry.url().replace(&registry.address().to_string(), &proxy.address());
    scene.configure(&format!(
        "on_poison = \"skip\"\npayload_format = \"json_schema\"\n\
         schema_subject = \"{{aggregatetype}}\"\n[registry]\nurl = \"{url}\""
    ));
    for subject in ["post", "other"] {
        registry.register(subject, "JSON", JSON, &[]).unwrap();
    }
    let relay = scene.relay().await;
    let mut reader = scene.reader();
    let of_other = |payload: &str| insert("k", payload).replace("'post'", "'other'");
    scene.insert("k", r#"{"id": 1}"#).await;
    reader.poll_until(1, PATIENCE).unwrap();

    registry.signal(Signal::Stop).unwrap();
    scene.insert("k", r#"{"id": 2}"#).await;
    reader.poll_until(2, PATIENCE).unwrap();
    // For all that is known, there is a schema by now that it fits.
    scene.insert("k", r#"{"id": "3"}"#).await;
    not_ready(&relay, "does not answer").await;
    assert!(!relay.log().contains("skipped"), "{}", relay.log());
    registry.signal(Signal::Cont).unwrap();
    relay.wait_for_log(PATIENCE, "skipped: row ").unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();

    proxy.down().unwrap();
    scene.execute(&of_other(r#"{"id": 4}"#)).await;
    not_ready(&relay, "does not answer").await;
    assert_eq!(lab::read_all(&scene.kafka.bootstrap(), &scene.topic).unwrap().len(), 2);
    proxy.accept().unwrap();
    let records = reader.poll_until(3, PATIENCE).unwrap();
    assert!(records[2].payload_text().ends_with(r#"{"id": 4}"#));
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.followed(PATIENCE).await;
}

/// Its certificate is judged, and nothing is told to another.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_can_be_asked_over_tls() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let (certificate, key) = ours.issue("registry", &["localhost"]);
    let folder = RunDir::create("tls").unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (certificate, key) = (file("cert.pem", &certificate), file("key.pem", &key));
    let (ours, others) = (file("ours.pem", &ours.pem()), file("others.pem", &others.pem()));
    let registry = Registry::start(Some((&certificate, &key))).unwrap();
    let mut scene = Scene::new(LATEST, 1).await;
    let config = |ca: &std::path::Path| {
        format!(
            "payload_format = \"json_schema\"\n[registry]\nurl = \"{}\"\nca_file = \"{}\"",
            registry.secure_url(),
            ca.display()
        )
    };
    let id = registry.register(&format!("{}-value", scene.topic), "JSON", JSON, &[]).unwrap();
    scene.configure(&config(&others));
    let relay = scene.relay().await;
    scene.insert("k", ORDER).await;
    not_ready(&relay, "invalid peer certificate: UnknownIssuer").await;
    let mended = scene.config(&scene.database.url(), &scene.kafka.bootstrap());
    let mended = mended.replace(&others.display().to_string(), &ours.display().to_string());
    relay.write_config(&mended).unwrap();
    relay.restart().unwrap();
    let records = scene.reader().poll_until(1, PATIENCE).unwrap().to_vec();
    assert_eq!(records[0].payload.as_ref().unwrap()[..5], value(id, &[]));
}
