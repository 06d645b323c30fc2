//! Rows of all shapes, through the same messages that Postgres sends.

use super::*;
use crate::config::{Envelope, Format, MissingColumns};
use crate::lsn::{Lsn, Position};
use crate::pg::oid::{BIGINT, BOOLEAN, BYTEA};
use crate::pg::output::Change;
use crate::record::Timestamp;
use crate::rewrite::Rewrite;
use crate::template::{Source, Template};
use crate::testing::{insert, relation};

const TEXT: u32 = 25;
const OID: u32 = 16_384;
const COMMIT: u64 = 0x16_B374_D848;
const COMMITTED_MS: i64 = 1_770_091_506_789;

/// The table that most tests use; `body` is always the payload.
const COLUMNS: [(&str, u32); 6] =
    [("id", TEXT), ("kind", TEXT), ("key", TEXT), ("body", TEXT), ("trace", TEXT), ("seen", TEXT)];

fn table(text: &str) -> TableName {
    let (schema, name) = text.split_once('.').unwrap();
    TableName { schema: schema.into(), name: name.into() }
}

fn column(name: &str) -> Source {
    Source::Column(name.into())
}

fn outbox() -> Outbox {
    let headers = [("eventType", "kind"), ("traceparent", "trace")];
    let topic = Template::parse("events.{kind}").unwrap();
    Outbox {
        id: Some("id".into()),
        key: Some(column("key")),
        headers: headers.map(|(name, of)| (name.into(), column(of))).to_vec(),
        ..Outbox::bare(table("public.outbox"), "body", topic)
    }
}

fn with(change: impl FnOnce(&mut Outbox)) -> Outboxes {
    let mut outbox = outbox();
    change(&mut outbox);
    let mut outboxes = Outboxes::new(vec![outbox], Some("position".into()));
    announce(&mut outboxes, OID, "public.outbox", &COLUMNS);
    outboxes
}

fn announce(outboxes: &mut Outboxes, oid: u32, name: &str, columns: &[(&str, u32)]) {
    let name = table(name);
    let message = relation(oid, &name.schema, &name.name, columns);
    let Ok(Change::Relation(relation)) = Change::parse(&message) else { panic!("no Relation") };
    outboxes.relation(&relation);
}

/// Where all rows stand: the third of a transaction of 2026-02-03 04:05:06.789012.
fn place() -> Place {
    let position = Position { epoch: 0, commit: Lsn::from_wire(COMMIT), row: 3 };
    Place { position, committed_us: 823_406_706_789_012, xid: 4711 }
}

/// A record with everything it borrows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Made {
    topic: String,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    partition: Option<u32>,
    timestamp: Timestamp,
}

type Row<'a> = [Option<&'a [u8]>];

fn map(outboxes: &mut Outboxes, oid: u32, row: &Row<'_>) -> Result<Result<Made, Poison>, Unmapped> {
    let message = insert(oid, row);
    let Ok(Change::Insert { relation, row }) = Change::parse(&message) else { panic!("no Insert") };
    let record = match outboxes.record(Whose::Relation(relation), row, place())? {
        Ok(record) => record,
        Err(poison) => return Ok(Err(poison)),
    };
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let headers = record.headers.iter().map(|(name, value)| (name.to_owned(), owned(value)));
    let headers: Vec<_> = headers.collect();
    assert!(headers.len() <= record.headers.len());
    let (key, payload) = (owned(record.key), owned(record.payload));
    let Record { partition, timestamp, .. } = record;
    let topic = record.topic.to_owned();
    Ok(Ok(Made { topic, key, payload, headers, partition, timestamp }))
}

fn made(outboxes: &mut Outboxes, row: &Row<'_>) -> Made {
    map(outboxes, OID, row).unwrap().unwrap()
}

fn reason(outboxes: &mut Outboxes, row: &Row<'_>) -> String {
    map(outboxes, OID, row).unwrap().unwrap_err().reason
}

/// A whole row of [`COLUMNS`], in their order.
const ROW: [Option<&[u8]>; 6] =
    [Some(b"7"), Some(b"created"), Some(b"k1"), Some(b"{}"), Some(b"00-ab"), Some(b"not mapped")];

/// [`ROW`] with one value replaced.
fn row<'a>(column: &str, value: Option<&'a [u8]>) -> [Option<&'a [u8]>; 6] {
    let index = COLUMNS.iter().position(|(name, _)| *name == column).unwrap();
    let mut row = ROW;
    row[index] = value;
    row
}

fn header(name: &str, value: &[u8]) -> (String, Option<Vec<u8>>) {
    (name.to_owned(), Some(value.to_vec()))
}

fn whole() -> Made {
    let headers = vec![
        header("id", b"7"),
        header("eventType", b"created"),
        header("traceparent", b"00-ab"),
        header("position", b"00000000-00000016B374D848-00000003"),
    ];
    let (key, payload) = (Some(b"k1".to_vec()), Some(b"{}".to_vec()));
    Made {
        topic: "events.created".into(),
        key,
        payload,
        headers,
        partition: None,
        timestamp: Timestamp::Committed(COMMITTED_MS),
    }
}

#[test]
fn columns_are_found_by_name_whatever_their_order() {
    let mut outboxes = with(|_| {});
    for start in 0..COLUMNS.len() {
        let (mut columns, mut row) = (COLUMNS, ROW);
        columns.rotate_left(start);
        row.rotate_left(start);
        announce(&mut outboxes, OID, "public.outbox", &columns);
        assert_eq!(made(&mut outboxes, &row), whole(), "{columns:?}");
    }
}

#[test]
fn a_new_announcement_moves_the_columns() {
    let mut outboxes = with(|_| {});
    assert_eq!(made(&mut outboxes, &ROW), whole());
    // ALTER TABLE: one column added in front of the others in the row, two swapped.
    let columns =
        [("added", 17), ("body", TEXT), ("kind", TEXT), ("key", TEXT), ("id", TEXT), ("trace", 25)];
    announce(&mut outboxes, OID, "public.outbox", &columns);
    let row: [Option<&[u8]>; 6] =
        [Some(b"garbage"), Some(b"{}"), Some(b"created"), Some(b"k1"), Some(b"7"), Some(b"00-ab")];
    assert_eq!(made(&mut outboxes, &row), whole());
}

#[test]
fn the_same_name_in_other_capitals_or_another_schema_is_another() {
    let mut outboxes = with(|outbox| outbox.payload = "Body".into());
    assert!(reason(&mut outboxes, &ROW).starts_with("the table has no column Body;"));
    announce(&mut outboxes, OID, "audit.outbox", &COLUMNS);
    assert_eq!(map(&mut outboxes, OID, &ROW), Err(Unmapped::Stranger(table("audit.outbox"))));
}

/// A template, the value of its column, and the topic or what is wrong with it.
type TopicCase<'a> = (&'a str, Option<&'a [u8]>, Result<String, String>);

#[test]
fn the_topic_is_what_the_template_makes_of_the_row() {
    let long = "x".repeat(242);
    let too_long = "x".repeat(243);
    let at_most = "a topic name has at most 249 characters";
    let only = "is not allowed in a topic name (only letters, digits, \".\", \"_\" and \"-\")";
    let cases: [TopicCase<'_>; 16] = [
        ("plain", Some(b"created"), Ok("plain".into())),
        ("plain", None, Ok("plain".into())),
        ("{kind}", Some(b"a.b_c-D9"), Ok("a.b_c-D9".into())),
        ("a.{kind}", Some(b"b"), Ok("a.b".into())),
        ("a.{kind}", Some(b""), Ok("a.".into())),
        ("{kind}.{kind}-{key}", Some(b"b"), Ok("b.b-k1".into())),
        ("events.{kind}", Some(long.as_bytes()), Ok(format!("events.{long}"))),
        ("events.{kind}", Some(too_long.as_bytes()), Err(at_most.into())),
        ("a.{kind}", None, Err("a column of the topic is NULL".into())),
        ("{kind}", Some(b""), Err("a topic name cannot be empty".into())),
        ("{kind}", Some(b"."), Err("\".\" cannot be a topic name".into())),
        (".{kind}", Some(b"."), Err("\"..\" cannot be a topic name".into())),
        ("a.{kind}", Some(b"b c"), Err(format!("' ' {only}"))),
        ("a.{kind}", Some(b"b/../c"), Err(format!("'/' {only}"))),
        ("a.{kind}", Some("ä".as_bytes()), Err(format!("'ä' {only}"))),
        ("a.{kind}", Some(b"b\xFF"), Err(format!("'\u{FFFD}' {only}"))),
    ];
    for (template, kind, expected) in cases {
        let mut outboxes = with(|outbox| outbox.topic = Template::parse(template).unwrap());
        let topic = map(&mut outboxes, OID, &row("kind", kind)).unwrap();
        let topic = topic.map(|made| made.topic).map_err(|poison| poison.reason);
        assert_eq!(topic, expected, "{template} with {kind:?}");
    }
}

#[test]
fn a_row_after_a_bad_one_is_made_from_itself_alone() {
    let mut outboxes = with(|_| {});
    assert!(map(&mut outboxes, OID, &row("kind", Some(b"b c"))).unwrap().is_err());
    assert_eq!(made(&mut outboxes, &ROW), whole());
}

#[test]
fn d18_no_key_an_empty_key_and_a_key() {
    let key = |outboxes: &mut Outboxes, value| made(outboxes, &row("key", value)).key;
    let mut outboxes = with(|_| {});
    assert_eq!(key(&mut outboxes, None), None);
    assert_eq!(key(&mut outboxes, Some(b"")), Some(vec![]));
    assert_eq!(key(&mut outboxes, Some(b"\xFF\0")), Some(b"\xFF\0".to_vec()));
    let mut outboxes = with(|outbox| outbox.key = None);
    assert_eq!(key(&mut outboxes, Some(b"k1")), None);
}

#[test]
fn a_null_payload_is_a_tombstone_and_an_empty_one_is_not() {
    let payload = |value| made(&mut with(|_| {}), &row("body", value)).payload;
    assert_eq!(payload(None), None);
    assert_eq!(payload(Some(b"")), Some(vec![]));
    assert_eq!(payload(Some(b"\\x00")), Some(b"\\x00".to_vec()), "text that looks like bytea");
}

#[test]
fn headers_stand_in_order_and_null_is_a_header_without_a_value() {
    let mut outboxes = with(|_| {});
    let mut expected = whole();
    for (column, name) in [("id", "id"), ("trace", "traceparent")] {
        for (value, bytes) in [(None, None), (Some(b"".as_slice()), Some(vec![]))] {
            let made = made(&mut outboxes, &row(column, value));
            let index = made.headers.iter().position(|(header, _)| header == name).unwrap();
            expected.headers[index].1 = bytes;
            assert_eq!(made, expected);
        }
        expected = whole();
    }
    let names = |outbox: Outbox, position: Option<&str>| -> Vec<String> {
        let mut outboxes = Outboxes::new(vec![outbox], position.map(str::to_owned));
        announce(&mut outboxes, OID, "public.outbox", &COLUMNS);
        made(&mut outboxes, &ROW).headers.into_iter().map(|(name, _)| name).collect()
    };
    let bare = Outbox { id: None, headers: Vec::new(), ..outbox() };
    assert_eq!(names(Outbox { id: None, ..outbox() }, None), ["eventType", "traceparent"]);
    assert_eq!(names(bare.clone(), Some("p")), ["p"]);
    assert_eq!(names(bare, None), [""; 0]);
    // The same column twice, and an id that is the key as well.
    let headers = ["b", "a"].map(|name| (name.to_owned(), column("key"))).to_vec();
    let twice = Outbox { id: Some("key".into()), headers, ..outbox() };
    assert_eq!(names(twice, None), ["id", "b", "a"]);
}

#[test]
fn bytea_columns_become_the_bytes_that_they_mean() {
    let mut outboxes = with(|_| {});
    let columns = COLUMNS.map(|(name, _)| (name, if name == "kind" { TEXT } else { BYTEA }));
    announce(&mut outboxes, OID, "public.outbox", &columns);
    let row: [Option<&[u8]>; 6] = [
        Some(b"\\x0037ff"),
        Some(b"created"),
        Some(b"\\x"),
        Some(b"\\xDEADbeef"),
        Some(b"\\x61"),
        Some(b"not mapped, not read"),
    ];
    let found = made(&mut outboxes, &row);
    assert_eq!(found.key, Some(vec![]));
    assert_eq!(found.payload, Some(b"\xDE\xAD\xBE\xEF".to_vec()));
    // Headers are for reading, and `SimpleHeaderConverter` has them so.
    assert_eq!(found.headers[0], header("id", b"ADf/"));
    assert_eq!(found.headers[2], header("traceparent", b"YQ=="));
    let mut nulls = row;
    (nulls[2], nulls[3]) = (None, None);
    let found = made(&mut outboxes, &nulls);
    assert_eq!((found.key, found.payload), (None, None));

    for bad in ["", "\\", "x00", "\\x0", "\\x0g", "\\x00 ", "\\000", "\\X00", "\\x+1", "\\xä0"] {
        let mut row = row;
        row[3] = Some(bad.as_bytes());
        let expected = format!("the bytea {bad} cannot be sent, which column body holds");
        assert_eq!(reason(&mut outboxes, &row), expected);
    }
}

#[test]
fn columns_that_are_missing_are_all_listed_once() {
    let row: [Option<&[u8]>; 1] = [Some(b"k1")];
    let mut outboxes = with(|_| {});
    announce(&mut outboxes, OID, "public.outbox", &[("key", TEXT)]);
    let missing = "the table has no column id, body, kind, trace; add it or change the mapping";
    assert_eq!(reason(&mut outboxes, &row), missing);
    // They are added, and all is well.
    announce(&mut outboxes, OID, "public.outbox", &COLUMNS);
    assert_eq!(made(&mut outboxes, &ROW), whole());
}

#[test]
fn poison_says_where_the_row_is_and_what_is_wrong() {
    let text = |outboxes: &mut Outboxes, row: &Row<'_>| {
        map(outboxes, OID, row).unwrap().unwrap_err().to_string()
    };
    let mut outboxes = with(|_| {});
    assert_eq!(
        text(&mut outboxes, &row("kind", None)),
        "row 00000000-00000016B374D848-00000003 of public.outbox (id 7): \
         a column of the topic is NULL"
    );
    let mut null_id = row("id", None);
    null_id[1] = None;
    assert_eq!(
        text(&mut outboxes, &null_id),
        "row 00000000-00000016B374D848-00000003 of public.outbox: a column of the topic is NULL"
    );
    let mut without_id = with(|outbox| outbox.id = None);
    assert_eq!(
        text(&mut without_id, &row("kind", None)),
        "row 00000000-00000016B374D848-00000003 of public.outbox: a column of the topic is NULL"
    );
    // A refusal that comes later says the same.
    let message = insert(OID, &ROW);
    let Ok(Change::Insert { row, .. }) = Change::parse(&message) else { panic!("no Insert") };
    let record = outboxes.record(Whose::Relation(OID), row, place()).unwrap().unwrap();
    assert_eq!(
        record.poison(place().position, "too large".to_owned()).to_string(),
        "row 00000000-00000016B374D848-00000003 of public.outbox (id 7): too large"
    );
}

#[test]
fn tables_that_are_not_ours_or_not_announced_have_no_records() {
    let mut outboxes = with(|_| {});
    announce(&mut outboxes, OID + 1, "public.other", &COLUMNS);
    let stranger = map(&mut outboxes, OID + 1, &ROW).unwrap_err();
    assert_eq!(stranger, Unmapped::Stranger(table("public.other")));
    let text = stranger.to_string();
    assert!(text.starts_with("the publication holds public.other, which no [[outbox]] names;"));
    let unannounced = map(&mut outboxes, OID + 2, &ROW).unwrap_err();
    assert_eq!(unannounced, Unmapped::Unannounced(OID + 2));
    assert_eq!(unannounced.to_string(), "a row came for relation 16386, which was not announced");
    // Renamed to ours, and away from it.
    announce(&mut outboxes, OID, "public.old", &COLUMNS);
    announce(&mut outboxes, OID + 1, "public.outbox", &COLUMNS);
    assert_eq!(map(&mut outboxes, OID, &ROW), Err(Unmapped::Stranger(table("public.old"))));
    assert_eq!(map(&mut outboxes, OID + 1, &ROW), Ok(Ok(whole())));
}

fn known(oid: u32) -> Known {
    Known { oid, ..Known::default() }
}

/// B6: a partition comes under its own name, and a renamed table under the one of its rows' time.
#[test]
fn tables_are_also_known_by_what_they_are_part_of() {
    let mut outboxes = with(|_| {});
    assert!(!outboxes.know(&[known(OID)]));
    announce(&mut outboxes, OID, "parts.outbox_2026", &COLUMNS);
    assert_eq!(map(&mut outboxes, OID, &ROW), Ok(Ok(whole())));
    // Announced before it was known.
    announce(&mut outboxes, OID + 1, "parts.outbox_2027", &COLUMNS);
    let stranger = Err(Unmapped::Stranger(table("parts.outbox_2027")));
    assert_eq!(map(&mut outboxes, OID + 1, &ROW), stranger);
    assert!(outboxes.know(&[known(OID + 1)]));
    assert_eq!(map(&mut outboxes, OID + 1, &ROW), Ok(Ok(whole())));
    // Detached, and not read to its end.
    assert!(!outboxes.know(&[]));
    assert_eq!(map(&mut outboxes, OID, &ROW), Ok(Ok(whole())));
}

#[test]
fn a_row_that_does_not_fit_its_announcement_is_not_guessed_at() {
    let mut outboxes = with(|_| {});
    let wider = [ROW.as_slice(), &[None]].concat();
    for row in [&[], &ROW[..3], &ROW[..5], &wider] {
        let misfit = map(&mut outboxes, OID, row).unwrap_err().to_string();
        let values = row.len();
        let expected =
            format!("a row of public.outbox came with {values} values for 6 announced columns");
        assert_eq!(misfit, expected);
    }
    assert_eq!(made(&mut outboxes, &ROW), whole());
}

#[test]
fn a_new_connection_announces_everything_anew() {
    let mut outboxes = with(|_| {});
    outboxes.forget_relations();
    assert_eq!(map(&mut outboxes, OID, &ROW), Err(Unmapped::Unannounced(OID)));
    announce(&mut outboxes, OID, "public.outbox", &COLUMNS);
    assert_eq!(made(&mut outboxes, &ROW), whole());
}

#[test]
fn each_outbox_has_a_mapping_of_its_own() {
    let audit = Outbox {
        headers: vec![("k".into(), column("key"))],
        on_poison: OnPoison::Skip,
        ..Outbox::bare(table("audit.outbox"), "trace", Template::parse("audit").unwrap())
    };
    let mut outboxes = Outboxes::new(vec![outbox(), audit], None);
    announce(&mut outboxes, OID, "public.outbox", &COLUMNS);
    announce(&mut outboxes, OID + 1, "audit.outbox", &COLUMNS);
    let mut first = whole();
    first.headers.pop();
    let headers = vec![header("k", b"k1")];
    let payload = Some(b"00-ab".to_vec());
    let second = Made { topic: "audit".into(), key: None, payload, headers, ..whole() };
    for _ in 0..2 {
        assert_eq!(map(&mut outboxes, OID, &ROW), Ok(Ok(first.clone())));
        assert_eq!(map(&mut outboxes, OID + 1, &ROW), Ok(Ok(second.clone())));
    }
    assert_eq!(outboxes.on_poison(&Origin::Table(table("public.outbox"))), OnPoison::Halt);
    assert_eq!(outboxes.on_poison(&Origin::Table(table("audit.outbox"))), OnPoison::Skip);
    assert_eq!(outboxes.on_poison(&Origin::Table(table("public.other"))), OnPoison::Halt);
}

#[test]
fn a_charge_counts_every_byte_of_the_record() {
    let large = vec![b'x'; 5000];
    let mut last = 0;
    for column in ["seen", "id", "kind", "key", "body", "trace"] {
        let mut outboxes = with(|outbox| outbox.topic = Template::parse("plain").unwrap());
        let message = insert(OID, &row(column, Some(&large)));
        let Ok(Change::Insert { row, .. }) = Change::parse(&message) else { panic!("no Insert") };
        let record = outboxes.record(Whose::Relation(OID), row, place()).unwrap().unwrap();
        let size = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let headers = record.headers.iter().map(|(name, value)| name.len() + size(value));
        let bytes = size(record.key) + size(record.payload) + headers.sum::<usize>();
        assert!(record.charge() >= record.topic.len() + bytes, "{column}");
        let counted = record.charge() > 5000;
        assert_eq!(counted, column != "seen", "{column}: what is not sent is not counted");
        last = last.max(record.charge());
    }
    assert!(last < 6000, "{last}: nothing is counted twice");
}

#[test]
fn keys_and_headers_may_be_templates_over_all_columns() {
    let template = |text| Source::Template(Template::parse(text).unwrap());
    let mut outboxes = with(|outbox| {
        outbox.key = Some(template("{kind}/{key}"));
        outbox.headers = vec![
            ("both".into(), template("<{key}{{-{seen}-}}>")),
            ("facts".into(), template("{$schema}.{$table} {$xid} {$commit_lsn} {$commit_time}")),
        ];
        outbox.static_headers =
            [("app", "shop"), ("empty", "")].map(|(name, text)| (name.into(), text.into())).into();
    });
    let found = made(&mut outboxes, &ROW);
    assert_eq!(found.key, Some(b"created/k1".to_vec()));
    let facts = format!("public.outbox 4711 16/B374D848 {COMMITTED_MS}");
    let expected = [
        header("id", b"7"),
        header("both", b"<k1{-not mapped-}>"),
        header("facts", facts.as_bytes()),
        header("app", b"shop"),
        header("empty", b""),
        header("position", b"00000000-00000016B374D848-00000003"),
    ];
    assert_eq!(found.headers, expected);
    // As `||` has it in SQL: NULL if one of them is.
    let found = made(&mut outboxes, &row("key", None));
    assert_eq!((found.key, &found.headers[1].1), (None, &None));
    assert_eq!(found.headers[2..], expected[2..]);
}

/// A type, a value, and the time or what is wrong with it.
type TimeCase<'a> = (u32, Option<&'a [u8]>, Result<Timestamp, String>);

#[test]
fn the_time_is_that_of_the_commit_or_of_a_column() {
    const TIMESTAMPTZ: u32 = 1184;
    let begins = ", and Kafka's times begin with 1970";
    let (given, committed) = (Timestamp::Given, Ok(Timestamp::Committed(COMMITTED_MS)));
    let cases: [TimeCase<'_>; 9] = [
        (TIMESTAMPTZ, Some(b"2026-02-03 04:05:06.7899+00"), Ok(given(COMMITTED_MS))),
        (TIMESTAMPTZ, Some(b"1970-01-01 00:00:00+00"), Ok(given(0))),
        (TIMESTAMPTZ, None, committed.clone()),
        (TIMESTAMPTZ, Some(b"infinity"), Err(format!("infinity{begins}"))),
        (TIMESTAMPTZ, Some(b"1969-12-31 23:59:59+00"), Err(format!("59+00{begins}"))),
        (BIGINT, Some(b"1234567890123"), Ok(given(1_234_567_890_123))),
        (BIGINT, Some(b"-1"), Err(format!("holds -1{begins}"))),
        (BIGINT, None, committed),
        (TEXT, Some(b"2026-02-03"), Err("cannot be the timestamp: it is no date".to_owned())),
    ];
    for (oid, value, expected) in cases {
        let mut outboxes = with(|outbox| outbox.timestamp = Some("seen".into()));
        let columns = COLUMNS.map(|(name, text)| (name, if name == "seen" { oid } else { text }));
        announce(&mut outboxes, OID, "public.outbox", &columns);
        let found = map(&mut outboxes, OID, &row("seen", value)).unwrap();
        match (found, expected) {
            (Ok(made), Ok(expected)) => assert_eq!(made.timestamp, expected, "{value:?}"),
            (Err(poison), Err(reason)) => assert!(poison.reason.ends_with(&reason), "{poison}"),
            (found, _) => panic!("{value:?}: {found:?}"),
        }
    }
}

#[test]
fn a_column_may_name_the_partition() {
    for oid in [20, 21, 23] {
        let mut outboxes = with(|outbox| outbox.partition = Some("seen".into()));
        let columns = COLUMNS.map(|(name, text)| (name, if name == "seen" { oid } else { text }));
        announce(&mut outboxes, OID, "public.outbox", &columns);
        let partition =
            |outboxes: &mut Outboxes, value| made(outboxes, &row("seen", value)).partition;
        assert_eq!(partition(&mut outboxes, Some(b"0")), Some(0));
        assert_eq!(partition(&mut outboxes, Some(b"17")), Some(17));
        assert_eq!(partition(&mut outboxes, None), None);
        let expected = "the column of its partition holds -1, and partitions count from 0";
        assert_eq!(reason(&mut outboxes, &row("seen", Some(b"-1"))), expected);
    }
    let mut outboxes = with(|outbox| outbox.partition = Some("seen".into()));
    let expected = "column seen cannot be the partition: it is no number";
    assert_eq!(reason(&mut outboxes, &row("seen", Some(b"1"))), expected);
}

/// What is blank is what `String.trim` of Java leaves nothing of.
#[test]
fn a_blank_payload_is_a_tombstone_if_that_is_asked_for() {
    let mut outboxes = with(|outbox| outbox.tombstone_if_blank = true);
    for blank in ["", " ", "\t\r\n \x01\x1f"] {
        let found = made(&mut outboxes, &row("body", Some(blank.as_bytes())));
        assert_eq!(found, Made { payload: None, ..whole() }, "{blank:?}");
    }
    for text in ["{}", "null", " x ", "\u{a0}", "\u{3000}", "\x7f"] {
        let found = made(&mut outboxes, &row("body", Some(text.as_bytes())));
        assert_eq!(found.payload.as_deref(), Some(text.as_bytes()), "{text:?}");
    }
    // Bytes are what they are, also none.
    let columns = COLUMNS.map(|(name, text)| (name, if name == "body" { BYTEA } else { text }));
    announce(&mut outboxes, OID, "public.outbox", &columns);
    for (hex, bytes) in [("\\x", b"".as_slice()), ("\\x20", b" ")] {
        let found = made(&mut outboxes, &row("body", Some(hex.as_bytes())));
        assert_eq!(found.payload.as_deref(), Some(bytes));
    }
}

/// A row whose columns are of other types than text.
fn typed(outbox: Outbox, columns: &[(&str, u32, &str)], not_null: &[&str]) -> Result<Made, Poison> {
    let mut outboxes = Outboxes::new(vec![outbox], None);
    let known = columns.iter().map(|&(name, type_oid, _)| known::Column {
        name: name.to_owned(),
        type_oid,
        base_oid: type_oid,
        modifier: -1,
        not_null: not_null.contains(&name),
        ..known::Column::default()
    });
    outboxes.know(&[Known { oid: OID, outbox: 0, columns: known.collect() }]);
    let announced: Vec<_> = columns.iter().map(|&(name, oid, _)| (name, oid)).collect();
    announce(&mut outboxes, OID, "public.outbox", &announced);
    let row = columns.iter().map(|&(.., text)| (text != "NULL").then_some(text.as_bytes()));
    map(&mut outboxes, OID, &row.collect::<Vec<_>>()).unwrap()
}

/// One with all that the tests of formats use.
fn shaped(change: impl FnOnce(&mut Outbox)) -> Outbox {
    let mut outbox = Outbox {
        id: Some("id".into()),
        key: Some(column("key")),
        headers: vec![("seen".into(), column("seen"))],
        ..Outbox::bare(table("public.outbox"), "body", Template::parse("t").unwrap())
    };
    change(&mut outbox);
    outbox
}

const UUID: u32 = 2950;
const JSONB: u32 = 3802;

const TYPED: [(&str, u32, &str); 4] = [
    ("id", UUID, "u"),
    ("key", BIGINT, "7"),
    ("body", JSONB, "{\"a\": \"\u{1F680}\"}"),
    ("seen", BOOLEAN, "t"),
];

fn text(bytes: Option<&Vec<u8>>) -> &str {
    bytes.map_or("-", |bytes| str::from_utf8(bytes).unwrap())
}

#[test]
fn key_payload_and_headers_have_formats_of_their_own() {
    let all = |made: &Made| {
        let headers = made.headers.iter().map(|(_, value)| text(value.as_ref()).to_owned());
        let (key, payload) = (text(made.key.as_ref()), text(made.payload.as_ref()));
        [key.to_owned(), payload.to_owned()].into_iter().chain(headers).collect::<Vec<_>>()
    };
    let of = |format| {
        let outbox = shaped(|outbox| {
            (outbox.key_format, outbox.payload_format) = (format, format);
            outbox.header_format = format;
            outbox.static_headers = vec![("static".into(), "as it is".into())];
        });
        all(&typed(outbox, &TYPED, &["id", "key"]).unwrap())
    };
    let body = "{\"a\": \"\u{1F680}\"}";
    let quoted = r#""{\"a\": \"\uD83D\uDE80\"}""#;
    assert_eq!(of(Format::String), ["7", body, "u", "true", "as it is"]);
    assert_eq!(of(Format::Json), ["7", quoted, "\"u\"", "true", "as it is"]);
    let with = |schema: &str, value: &str| format!("{{\"schema\":{schema},\"payload\":{value}}}");
    let json = r#"{"type":"string","optional":true,"name":"io.debezium.data.Json","version":1}"#;
    let uuid = r#"{"type":"string","optional":false,"name":"io.debezium.data.Uuid","version":1}"#;
    let expected = [
        with(r#"{"type":"int64","optional":false}"#, "7"),
        with(json, quoted),
        with(uuid, "\"u\""),
        with(r#"{"type":"boolean","optional":true}"#, "true"),
        "as it is".to_owned(),
    ];
    assert_eq!(of(Format::JsonWithSchema), expected);
}

/// With a converter in between, NULL is a text too.
#[test]
fn null_is_nothing_as_text_and_null_as_json() {
    let nulls = TYPED.map(|(name, oid, _)| (name, oid, "NULL"));
    let of = |format, blank| {
        let outbox = shaped(|outbox| {
            (outbox.key_format, outbox.payload_format) = (format, format);
            (outbox.header_format, outbox.tombstone_if_blank) = (format, blank);
        });
        let made = typed(outbox, &nulls, &[]).unwrap();
        let header = made.headers[1].1.clone();
        [made.key, made.payload, header].map(|bytes| text(bytes.as_ref()).to_owned())
    };
    assert_eq!(of(Format::String, false), ["-", "-", "-"]);
    assert_eq!(of(Format::Json, false), ["null", "null", "null"]);
    assert_eq!(of(Format::Json, true), ["null", "-", "null"]);
}

#[test]
fn an_envelope_holds_the_payload_and_more() {
    let outbox = |format, change: fn(&mut Outbox)| {
        shaped(|outbox| {
            outbox.payload_format = format;
            outbox.envelope = Envelope {
                members: vec![("z".into(), "seen".into()), ("k\"".into(), "key".into())],
                schema_name: Template::parse("s.{key}.Value").unwrap(),
                schema_version: Some("key".into()),
            };
            change(outbox);
        })
    };
    let made = |outbox: Outbox| {
        let payload = typed(outbox, &TYPED, &["key"]).unwrap().payload;
        text(payload.as_ref()).to_owned()
    };
    let body = "{\"a\": \"\u{1F680}\"}";
    let quoted = r#""{\"a\": \"\uD83D\uDE80\"}""#;
    let value = |payload: &str| format!("{{\"payload\":{payload},\"z\":true,\"k\\\"\":7}}");
    assert_eq!(made(outbox(Format::String, |_| {})), value(body));
    assert_eq!(made(outbox(Format::Json, |_| {})), value(quoted));
    let whole = made(outbox(Format::JsonWithSchema, |_| {}));
    let end = format!(
        "{}{}\"payload\":{}}}",
        r#"},{"type":"int64","optional":false,"field":"k\""}],"optional":false,"#,
        r#""name":"s.7.Value","version":7},"#,
        value(quoted)
    );
    assert!(
        whole.starts_with(r#"{"schema":{"type":"struct","fields":[{"type":"string","#),
        "{whole}"
    );
    assert!(whole.ends_with(&end), "{whole}");
    // A tombstone has nothing around it.
    let blank =
        TYPED.map(|(name, oid, text)| (name, oid, if name == "body" { "NULL" } else { text }));
    let tombstone = outbox(Format::Json, |outbox| outbox.tombstone_if_blank = true);
    assert_eq!(typed(tombstone, &blank, &[]).unwrap().payload, None);
    let null = typed(outbox(Format::Json, |_| {}), &blank, &[]).unwrap().payload;
    assert_eq!(text(null.as_ref()), value("null"));
}

#[test]
fn columns_that_may_be_missing_are_done_without() {
    let change = |outbox: &mut Outbox| {
        outbox.headers.push(("gone".into(), column("gone")));
        let both = Template::parse("{seen}{gone}").unwrap();
        outbox.headers.push(("both".into(), Source::Template(both)));
        outbox.envelope.members = vec![("gone".into(), "gone".into()), ("s".into(), "seen".into())];
        (outbox.partition, outbox.span_context) = (Some("gone".into()), Some("none".into()));
    };
    let told = typed(shaped(change), &TYPED, &[]).unwrap_err().reason;
    assert_eq!(told, "the table has no column gone; add it or change the mapping");
    let ignoring = shaped(|outbox| {
        change(outbox);
        outbox.missing_columns = MissingColumns::Ignore;
    });
    let made = typed(ignoring, &TYPED, &[]).unwrap();
    let names: Vec<_> = made.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names, made.partition), (vec!["id", "seen"], None));
    assert_eq!(text(made.payload.as_ref()), "{\"payload\":{\"a\": \"\u{1F680}\"},\"s\":true}");
    // Without its payload or its key there is no record.
    let outbox = shaped(|outbox| {
        (outbox.payload, outbox.key) = ("gone".into(), Some(column("gone")));
        outbox.missing_columns = MissingColumns::Ignore;
    });
    assert_eq!(typed(outbox, &TYPED, &[]).unwrap_err().reason, told);
}

#[test]
fn the_trace_of_a_row_becomes_headers_in_front_of_the_others() {
    let of = |context: &'static str| {
        let outbox = shaped(|outbox| outbox.span_context = Some("trace".into()));
        let columns = [TYPED.as_slice(), &[("trace", TEXT, context)]].concat();
        let headers = typed(outbox, &columns, &[]).unwrap().headers;
        let line = |(name, value): &(String, _)| format!("{name}={}", text(Option::as_ref(value)));
        headers.iter().map(line).collect::<Vec<_>>()
    };
    let rest = ["id=u", "seen=true"];
    assert_eq!(of("NULL"), rest);
    assert_eq!(of("other=1"), rest);
    let all = of("#c\nbaggage=a\\=b\ntraceparent: 00-1-2-01\ntracestate=x\n");
    assert_eq!(
        all,
        [["traceparent=00-1-2-01", "tracestate=x", "baggage=a=b"].as_slice(), &rest].concat()
    );
}

#[test]
fn a_topic_may_be_made_of_another() {
    let of = |name: &'static str| {
        let mut outboxes = with(|outbox| {
            outbox.topic = Template::parse("{kind}").unwrap();
            outbox.topic_rewrite = Some(Rewrite::new("(.*)-v(\\d+)", "$2.$1").unwrap());
        });
        let found = map(&mut outboxes, OID, &row("kind", Some(name.as_bytes()))).unwrap();
        found.map(|made| made.topic).map_err(|poison| poison.reason)
    };
    assert_eq!(of("order-v2"), Ok("2.order".to_owned()));
    assert_eq!(of("order"), Ok("order".to_owned()));
    assert!(of("a b-v2").unwrap_err().starts_with("' ' is not allowed"));
}
