//! Rows of all shapes, through the same messages that Postgres sends.

use super::*;
use crate::lsn::{Lsn, Position};
use crate::pg::oid::{BIGINT, BYTEA};
use crate::pg::output::Change;
use crate::record::Timestamp;
use crate::template::Template;
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

fn outbox() -> Outbox {
    let headers = [("eventType", "kind"), ("traceparent", "trace")];
    Outbox {
        table: table("public.outbox"),
        id: Some("id".into()),
        key: Some(Template::column("key")),
        payload: "body".into(),
        tombstone_if_blank: false,
        partition: None,
        timestamp: None,
        topic: Template::parse("events.{kind}").unwrap(),
        headers: headers.map(|(name, column)| (name.into(), Template::column(column))).to_vec(),
        on_poison: OnPoison::Halt,
        dead_letter_topic: None,
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
    let record = match outboxes.record(relation, row, place())? {
        Ok(record) => record,
        Err(poison) => return Ok(Err(poison)),
    };
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let headers = record.headers.iter().map(|(name, value)| (name.to_owned(), owned(value)));
    let headers: Vec<_> = headers.collect();
    assert_eq!(headers.len(), record.headers.len());
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
    let headers = ["b", "a"].map(|name| (name.to_owned(), Template::column("key"))).to_vec();
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
    assert_eq!(found.headers[0], header("id", b"\x00\x37\xFF"));
    assert_eq!(found.headers[2], header("traceparent", b"\x61"));
    let mut nulls = row;
    (nulls[2], nulls[3]) = (None, None);
    let found = made(&mut outboxes, &nulls);
    assert_eq!((found.key, found.payload), (None, None));

    let expected = "a bytea value does not come as \\x and hexadecimal digits";
    for bad in ["", "\\", "x00", "\\x0", "\\x0g", "\\x00 ", "\\000", "\\X00", "\\x+1", "\\xä0"] {
        let mut row = row;
        row[3] = Some(bad.as_bytes());
        assert_eq!(reason(&mut outboxes, &row), expected, "{bad:?}");
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
    let record = outboxes.record(OID, row, place()).unwrap().unwrap();
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

/// B6: a partition comes under its own name, and a renamed table under the one of its rows' time.
#[test]
fn tables_are_also_known_by_what_they_are_part_of() {
    let mut outboxes = with(|_| {});
    assert!(!outboxes.know(&[(OID, 0)]));
    announce(&mut outboxes, OID, "parts.outbox_2026", &COLUMNS);
    assert_eq!(map(&mut outboxes, OID, &ROW), Ok(Ok(whole())));
    // Announced before it was known.
    announce(&mut outboxes, OID + 1, "parts.outbox_2027", &COLUMNS);
    let stranger = Err(Unmapped::Stranger(table("parts.outbox_2027")));
    assert_eq!(map(&mut outboxes, OID + 1, &ROW), stranger);
    assert!(outboxes.know(&[(OID + 1, 0)]));
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
        table: table("audit.outbox"),
        id: None,
        key: None,
        payload: "trace".into(),
        tombstone_if_blank: false,
        partition: None,
        timestamp: None,
        topic: Template::parse("audit").unwrap(),
        headers: vec![("k".into(), Template::column("key"))],
        on_poison: OnPoison::Skip,
        dead_letter_topic: None,
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
    assert_eq!(outboxes.on_poison(&table("public.outbox")), OnPoison::Halt);
    assert_eq!(outboxes.on_poison(&table("audit.outbox")), OnPoison::Skip);
    assert_eq!(outboxes.on_poison(&table("public.other")), OnPoison::Halt);
}

#[test]
fn a_charge_counts_every_byte_of_the_record() {
    let large = vec![b'x'; 5000];
    let mut last = 0;
    for column in ["seen", "id", "kind", "key", "body", "trace"] {
        let mut outboxes = with(|outbox| outbox.topic = Template::parse("plain").unwrap());
        let message = insert(OID, &row(column, Some(&large)));
        let Ok(Change::Insert { row, .. }) = Change::parse(&message) else { panic!("no Insert") };
        let record = outboxes.record(OID, row, place()).unwrap().unwrap();
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
    let template = |text| Template::parse(text).unwrap();
    let mut outboxes = with(|outbox| {
        outbox.key = Some(template("{kind}/{key}"));
        outbox.headers = vec![
            ("both".into(), template("<{key}{{-{seen}-}}>")),
            ("facts".into(), template("{$schema}.{$table} {$xid} {$commit_lsn} {$commit_time}")),
            ("app".into(), Template::fixed("shop")),
            ("empty".into(), Template::fixed("")),
        ];
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
