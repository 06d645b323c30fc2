//! Rows that become JSON, column by column in the types that JSON has.

use super::*;
use crate::config::{MissingColumns, OnOversize, Payload};
use crate::lsn::{Lsn, Position};
use crate::pg::oid;
use crate::pg::output::Change;
use crate::template::Template;
use crate::testing::{Random, insert, relation, seeds};

const TEXT: u32 = 25;
const TABLE: u32 = 16_384;
/// Types of the application's own: an enum, an array of it, a domain, a composite.
const MOOD: u32 = 16_500;
const MOODS: u32 = 16_501;
const AMOUNT: u32 = 16_502;
const PAIR: u32 = 16_503;

fn outbox(payload: Payload) -> Outbox {
    let table = TableName { schema: "public".into(), name: "events".into() };
    let topic = Template::parse("events").unwrap();
    Outbox { payload, ..Outbox::bare(table, "", topic) }
}

/// What the catalog says of a column.
fn known(name: &str, type_oid: u32) -> known::Column {
    let (base_oid, element_oid, labels) = match type_oid {
        MOOD => (MOOD, 0, "happy,sad"),
        MOODS => (MOODS, MOOD, "happy,sad"),
        AMOUNT => (oid::NUMERIC, 0, ""),
        _ => (type_oid, 0, ""),
    };
    known::Column {
        name: name.into(),
        type_oid,
        base_oid,
        modifier: -1,
        element_oid,
        labels: labels.into(),
        ..known::Column::default()
    }
}

fn announce(outboxes: &mut Outboxes, columns: &[(&str, u32)]) {
    let columns_known = columns.iter().map(|(name, oid)| known(name, *oid)).collect();
    outboxes.know(&[Known { oid: TABLE, outbox: 0, columns: columns_known }]);
    let message = relation(TABLE, "public", "events", columns);
    let Ok(Change::Relation(relation)) = Change::parse(&message) else { panic!("no Relation") };
    outboxes.relation(&relation);
}

fn value(outboxes: &mut Outboxes, row: &[Option<&[u8]>]) -> Result<String, String> {
    let message = insert(TABLE, row);
    let Ok(Change::Insert { relation, row }) = Change::parse(&message) else { panic!("no Insert") };
    let position = Position { epoch: 0, commit: Lsn::from_wire(7), row: 3 };
    let place = Place { position, committed_us: 0, xid: 1 };
    let record = outboxes
        .record(Whose::Relation(relation), row, place)
        .unwrap()
        .map_err(|poison| poison.reason)?;
    Ok(String::from_utf8(record.payload.unwrap().to_vec()).unwrap())
}

/// The value of a row with one column.
fn one(type_oid: u32, text: &[u8]) -> Result<String, String> {
    let mut outboxes = Outboxes::new(vec![outbox(Payload::Row)], None);
    announce(&mut outboxes, &[("x", type_oid)]);
    value(&mut outboxes, &[Some(text)])
}

#[test]
fn each_type_is_what_json_has_for_it() {
    for (type_oid, text, json) in [
        (oid::BOOLEAN, "t", "true"),
        (oid::BOOLEAN, "f", "false"),
        (oid::SMALLINT, "-3", "-3"),
        (oid::INTEGER, "42", "42"),
        (oid::BIGINT, "9223372036854775807", "9223372036854775807"),
        (oid::OID, "4294967295", "4294967295"),
        (oid::NUMERIC, "12.50", "12.50"),
        (oid::NUMERIC, "-0.000000000000000000001", "-0.000000000000000000001"),
        (oid::NUMERIC, "123456789012345678901234567890", "123456789012345678901234567890"),
        (oid::NUMERIC, "NaN", "\"NaN\""),
        (oid::NUMERIC, "-Infinity", "\"-Infinity\""),
        (AMOUNT, "7.10", "7.10"),
        (oid::REAL, "0.1", "0.1"),
        (oid::DOUBLE, "1e+20", "1e+20"),
        (oid::DOUBLE, "1.5e-07", "1.5e-07"),
        (oid::DOUBLE, "-0", "-0"),
        (oid::DOUBLE, "NaN", "\"NaN\""),
        (oid::DOUBLE, "Infinity", "\"Infinity\""),
        (oid::MONEY, "$1,234.50", "\"$1,234.50\""),
        (oid::JSON, "{\"b\":1 , \"b\": 2}", "{\"b\":1 , \"b\": 2}"),
        (oid::JSONB, "\"a\"", "\"a\""),
        (oid::JSONB, "null", "null"),
        (TEXT, "a \"q\" \\ ü\n", "\"a \\\"q\\\" \\\\ ü\\n\""),
        (TEXT, "", "\"\""),
        (TEXT, "7", "\"7\""),
        (
            oid::UUID,
            "00000000-0000-4000-8000-000000000099",
            "\"00000000-0000-4000-8000-000000000099\"",
        ),
        (oid::BYTEA, "\\x00ff41", "\"AP9B\""),
        (oid::BYTEA, "\\x", "\"\""),
        (oid::TIMESTAMPTZ, "2026-02-03 04:05:06.789+00", "\"2026-02-03T04:05:06.789Z\""),
        (oid::TIMESTAMPTZ, "2026-02-03 04:05:06+00", "\"2026-02-03T04:05:06Z\""),
        (oid::TIMESTAMPTZ, "0044-03-15 00:00:00+00 BC", "\"-0043-03-15T00:00:00Z\""),
        (oid::TIMESTAMPTZ, "-infinity", "\"-infinity\""),
        (oid::TIMESTAMP, "2026-02-03 04:05:06.000001", "\"2026-02-03T04:05:06.000001\""),
        (oid::TIMESTAMP, "12026-02-03 04:05:06", "\"+12026-02-03T04:05:06\""),
        (oid::TIMESTAMP, "infinity", "\"infinity\""),
        (oid::DATE, "2026-02-03", "\"2026-02-03\""),
        (oid::DATE, "0001-01-01 BC", "\"0000-01-01\""),
        (oid::DATE, "infinity", "\"infinity\""),
        (oid::TIME, "04:05:06.789", "\"04:05:06.789\""),
        (oid::TIMETZ, "04:05:06.789+02", "\"02:05:06.789Z\""),
        (oid::INTERVAL, "1 day 02:00:00", "\"1 day 02:00:00\""),
        (oid::BIT, "1", "\"1\""),
        (oid::VARBIT, "0101", "\"0101\""),
        (oid::POINT, "(1,2)", "\"(1,2)\""),
        (oid::BOX, "(2,2),(1,1)", "\"(2,2),(1,1)\""),
        (oid::INT2VECTOR, "1 2", "\"1 2\""),
        (oid::XML, "<a/>", "\"<a/>\""),
        (869, "10.0.0.1/24", "\"10.0.0.1/24\""),
        (MOOD, "sad", "\"sad\""),
        (PAIR, "(1,\"a b\")", "\"(1,\\\"a b\\\")\""),
        (MOODS, "{sad,NULL}", "[\"sad\",null]"),
        (1007, "{1,2,NULL}", "[1,2,null]"),
        (1007, "[0:1]={1,2}", "[1,2]"),
        (1007, "{}", "[]"),
        (1009, "{{a,\"b \\\"c\"},{\"NULL\",\"\"}}", "[[\"a\",\"b \\\"c\"],[\"NULL\",\"\"]]"),
        (1000, "{t,f}", "[true,false]"),
        (1001, "{\"\\\\x00ff\"}", "[\"AP8=\"]"),
        (1185, "{\"2026-02-03 04:05:06+00\"}", "[\"2026-02-03T04:05:06Z\"]"),
        (3807, "{\"{\\\"a\\\": 1}\",\"null\",NULL}", "[{\"a\": 1},null,null]"),
        (1231, "{1.50,NaN}", "[1.50,\"NaN\"]"),
    ] {
        assert_eq!(one(type_oid, text.as_bytes()), Ok(format!("{{\"x\":{json}}}")), "{type_oid}");
    }
}

#[test]
fn what_no_server_sends_is_said_and_not_guessed_at() {
    for (type_oid, text, noun) in [
        (oid::INTEGER, "", "whole number "),
        (oid::INTEGER, "07", "whole number 07"),
        (oid::INTEGER, "1 ", "whole number 1 "),
        (oid::NUMERIC, ".5", "number .5"),
        (oid::NUMERIC, "5.", "number 5."),
        (oid::NUMERIC, "1e", "number 1e"),
        (oid::NUMERIC, "+1", "number +1"),
        (oid::DOUBLE, "nan", "number nan"),
        (oid::BYTEA, "\\x0", "bytea \\x0"),
        (oid::DATE, "today", "date today"),
        (oid::TIMESTAMP, "2026-02-03T04:05:06", "timestamp 2026-02-03T04:05:06"),
        (oid::TIMETZ, "04:05", "time 04:05"),
        (1007, "{1,{2}", "array {1,{2}"),
        (1007, "{x}", "array {x}"),
    ] {
        let told = format!("the {noun} cannot be sent, which column x holds");
        assert_eq!(one(type_oid, text.as_bytes()), Err(told), "{type_oid} {text:?}");
    }
    // A database in `SQL_ASCII` has text of any bytes.
    assert_eq!(one(TEXT, b"a\xFFb"), Ok("{\"x\":\"a\u{FFFD}b\"}".to_owned()));
}

#[test]
fn all_columns_come_in_the_order_of_the_table_and_chosen_ones_in_their_own() {
    let table = [("id", oid::BIGINT), ("a \"b\"", TEXT), ("seen", oid::BOOLEAN)];
    let row: [Option<&[u8]>; 3] = [Some(b"7"), None, Some(b"t")];
    let of = |payload| {
        let mut outboxes = Outboxes::new(vec![outbox(payload)], None);
        announce(&mut outboxes, &table);
        value(&mut outboxes, &row)
    };
    let chosen =
        |names: &[&str]| Payload::Columns(names.iter().map(|name| (*name).to_owned()).collect());
    let whole = "{\"id\":7,\"a \\\"b\\\"\":null,\"seen\":true}";
    assert_eq!(of(Payload::Row), Ok(whole.to_owned()));
    assert_eq!(of(chosen(&["seen", "id"])), Ok("{\"seen\":true,\"id\":7}".to_owned()));
    let missing = "the table has no column gone, more; add it or change the mapping";
    assert_eq!(of(chosen(&["gone", "id", "more"])), Err(missing.to_owned()));
    // Without what it is made of there is no record, whatever else may be missing.
    let mut ignoring = outbox(chosen(&["gone"]));
    ignoring.missing_columns = MissingColumns::Ignore;
    let mut outboxes = Outboxes::new(vec![ignoring], None);
    announce(&mut outboxes, &table);
    assert!(value(&mut outboxes, &row).is_err());
}

#[test]
fn a_new_column_is_there_from_its_announcement_on() {
    let mut outboxes = Outboxes::new(vec![outbox(Payload::Row)], None);
    announce(&mut outboxes, &[]);
    assert_eq!(value(&mut outboxes, &[]), Ok("{}".to_owned()));
    announce(&mut outboxes, &[("id", oid::BIGINT)]);
    assert_eq!(value(&mut outboxes, &[Some(b"1")]), Ok("{\"id\":1}".to_owned()));
    announce(&mut outboxes, &[("id", oid::BIGINT), ("more", MOOD)]);
    let row: [Option<&[u8]>; 2] = [Some(b"2"), Some(b"sad")];
    assert_eq!(value(&mut outboxes, &row), Ok("{\"id\":2,\"more\":\"sad\"}".to_owned()));
}

/// A row that goes elsewhere takes its value along, and says how long it is.
#[test]
fn a_letter_has_the_row_as_far_as_it_can_be_made() {
    let mut outboxes = Outboxes::new(
        vec![Outbox {
            on_poison: OnPoison::DeadLetter,
            dead_letter_topic: Some("dead".into()),
            ..outbox(Payload::Row)
        }],
        None,
    );
    announce(&mut outboxes, &[("id", oid::BIGINT)]);
    for (id, payload, size) in [("7", Some("{\"id\":7}"), Some("8")), ("x", None, None)] {
        let message = insert(TABLE, &[Some(id.as_bytes())]);
        let Ok(Change::Insert { row, .. }) = Change::parse(&message) else { panic!("no Insert") };
        let position = Position { epoch: 0, commit: Lsn::from_wire(7), row: 3 };
        let place = Place { position, committed_us: 0, xid: 1 };
        let table = TableName { schema: "public".into(), name: "events".into() };
        let poison =
            Poison { origin: Origin::Table(table), position, id: None, reason: "why".into() };
        let letter = outboxes.letter(Whose::Relation(TABLE), row, place, &poison, true).unwrap();
        assert_eq!(letter.payload, payload.map(str::as_bytes));
        let said = letter.headers.iter().find(|(name, _)| *name == "walrelay-payload-bytes");
        assert_eq!(said.and_then(|(_, value)| value), size.map(str::as_bytes));
    }
}

/// Names and ids are anybody's: what points to them is JSON all the same.
#[test]
fn a_pointer_is_json_whatever_its_row_is_called() {
    let (schema, name, id) = ("My \"Schema\"", "a\\b", "7 \"q\" \\ ü\n");
    let table = TableName { schema: schema.into(), name: name.into() };
    let outbox = Outbox {
        table,
        id: Some("id".into()),
        on_oversize: OnOversize::Pointer,
        ..outbox(Payload::Row)
    };
    let mut outboxes = Outboxes::new(vec![outbox], None);
    let message = relation(TABLE, schema, name, &[("id", TEXT)]);
    let Ok(Change::Relation(relation)) = Change::parse(&message) else { panic!("no Relation") };
    outboxes.relation(&relation);
    let message = insert(TABLE, &[Some(id.as_bytes())]);
    let Ok(Change::Insert { row, .. }) = Change::parse(&message) else { panic!("no Insert") };
    let position = Position { epoch: 0, commit: Lsn::from_wire(7), row: 3 };
    let place = Place { position, committed_us: 0, xid: 1 };
    let pointer = outboxes.pointer(Whose::Relation(TABLE), row, place, 5000).unwrap();
    let value: serde_json::Value = serde_json::from_slice(pointer.payload.unwrap()).unwrap();
    assert_eq!(
        value,
        serde_json::json!({
            "schema": schema, "table": name, "id": id, "commit_lsn": "0/7", "xid": 1, "bytes": 5000
        })
    );
    let last = pointer.headers.iter().last();
    assert_eq!(last, Some(("walrelay-pointer", Some(&b"\"My \"\"Schema\"\"\".\"a\\b\""[..]))));
}

/// Whatever bytes there are: JSON, or a reason.
#[test]
fn any_bytes_become_json_or_a_reason() {
    const TYPES: [u32; 16] = [
        oid::BOOLEAN,
        oid::BIGINT,
        oid::NUMERIC,
        oid::DOUBLE,
        oid::BYTEA,
        oid::DATE,
        oid::TIME,
        oid::TIMESTAMP,
        oid::TIMESTAMPTZ,
        oid::TIMETZ,
        oid::INTERVAL,
        TEXT,
        MOODS,
        1007,
        1009,
        1185,
    ];
    const BYTES: &[u8] = b"0123456789-+.:eE {},\"\\tfNULx[]=BC\xFF\0";
    seeds(200, |mut random: Random| {
        for type_oid in TYPES {
            let length = random.below(12);
            let text: Vec<u8> = (0..length).map(|_| BYTES[random.index(BYTES.len())]).collect();
            if let Ok(json) = one(type_oid, &text) {
                let read: Result<serde_json::Value, _> = serde_json::from_str(&json);
                let large = read.as_ref().is_err_and(|it| it.to_string().contains("out of range"));
                assert!(read.is_ok() || large, "{type_oid} {text:?}: {json}");
            }
        }
    });
}
