//! Rows as CloudEvents. What is expected follows the examples of CloudEvents 1.0.2, its Kafka
//! Protocol Binding and its JSON Event Format.

use super::*;
use crate::config::{CloudEvents, ContentMode, Format, MissingColumns, OnOversize, Payload};
use crate::lsn::{Lsn, Position};
use crate::pg::oid;
use crate::pg::output::Change;
use crate::template::{Source, Template};
use crate::testing::{Random, insert, relation, seeds};

const TEXT: u32 = 25;
const TABLE: u32 = 16_384;
/// A row of the table that most tests use.
type Row<'a> = [Option<&'a [u8]>; 4];

/// That table.
const COLUMNS: [(&str, u32); 4] =
    [("id", oid::UUID), ("type", TEXT), ("body", oid::JSONB), ("more", TEXT)];
const ROW: Row<'static> =
    [Some(b"4-4"), Some(b"com.example.placed"), Some(b"{\"a\": 1}"), Some(b"x")];

/// 2026-02-03 04:05:06.789012
const COMMITTED_US: i64 = 823_406_706_789_012;

const HEAD: &str = "{\"specversion\":\"1.0\",\"id\":\"4-4\",\"source\":\"/public/outbox\",\
                    \"type\":\"com.example.placed\",\"time\":\"2026-02-03T04:05:06.789012Z\"";

fn name() -> TableName {
    TableName { schema: "public".into(), name: "outbox".into() }
}

fn outbox(mode: ContentMode, attributes: &[(&str, &str)]) -> Outbox {
    let attribute =
        |&(name, text): &(&str, &str)| (name.to_owned(), Source::attribute(text).unwrap());
    let attributes = attributes.iter().map(attribute).collect();
    Outbox {
        id: Some("id".into()),
        key: Some(Source::Column("more".into())),
        cloudevents: CloudEvents { mode: Some(mode), attributes },
        ..Outbox::bare(name(), "body", Template::parse("t").unwrap())
    }
}

/// A value and the headers in front of the position.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
}

impl Made {
    fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(it, _)| it == name)?;
        header.1.as_deref()
    }

    fn names(&self) -> Vec<&str> {
        self.headers.iter().map(|(name, _)| name.as_str()).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn of(record: &Record<'_>) -> Made {
    assert!(record.headers.iter().count() <= record.headers.len());
    let headers = record.headers.iter().map(|(name, value)| (name.to_owned(), value.map(text)));
    Made { value: record.payload.map(text), headers: headers.collect() }
}

fn announced(outbox: Outbox, columns: &[(&str, u32)]) -> Outboxes {
    let mut outboxes = Outboxes::new(vec![outbox], None);
    let message = relation(TABLE, "public", "outbox", columns);
    let Ok(Change::Relation(relation)) = Change::parse(&message) else { panic!("no Relation") };
    outboxes.relation(&relation);
    outboxes
}

fn place() -> Place {
    let position = Position { epoch: 0, commit: Lsn::from_wire(7), row: 3 };
    Place { position, committed_us: COMMITTED_US, xid: 1 }
}

fn typed(outbox: Outbox, columns: &[(&str, u32)], row: &[Option<&[u8]>]) -> Result<Made, String> {
    let mut outboxes = announced(outbox, columns);
    let message = insert(TABLE, row);
    let Ok(Change::Insert { row, .. }) = Change::parse(&message) else { panic!("no Insert") };
    let record = outboxes.record(Whose::Relation(TABLE), row, place()).unwrap();
    record.map(|record| of(&record)).map_err(|poison| poison.reason)
}

fn made(outbox: Outbox) -> Made {
    typed(outbox, &COLUMNS, &ROW).unwrap()
}

/// [`COLUMNS`] and [`ROW`] with one column changed.
fn with<'a>(
    name: &str,
    type_oid: u32,
    value: Option<&'a [u8]>,
) -> ([(&'static str, u32); 4], Row<'a>) {
    let index = COLUMNS.iter().position(|(it, _)| *it == name).unwrap();
    let (mut columns, mut row) = (COLUMNS, ROW);
    (columns[index].1, row[index]) = (type_oid, value);
    (columns, row)
}

/// The extension `x` in both modes: the header, and the member.
fn extension(type_oid: u32, value: &str) -> Result<[Option<String>; 2], String> {
    let (columns, row) = with("more", type_oid, Some(value.as_bytes()));
    let binary = typed(outbox(ContentMode::Binary, &[("x", "more")]), &columns, &row)?;
    let structured = typed(outbox(ContentMode::Structured, &[("x", "more")]), &columns, &row)?;
    let value = structured.value.unwrap();
    let member = value.strip_prefix(HEAD).unwrap();
    let member =
        member.strip_suffix(",\"datacontenttype\":\"application/json\",\"data\":{\"a\": 1}}");
    let member = member.unwrap().strip_prefix(",\"x\":").map(str::to_owned);
    Ok([binary.header("ce_x").map(str::to_owned), member])
}

#[test]
fn in_binary_mode_attributes_are_headers_and_the_payload_stays_as_it_is() {
    let attributes = [("subject", "more"), ("region", "eu-{more}")];
    let mut outbox = outbox(ContentMode::Binary, &attributes);
    outbox.headers = vec![("more".into(), Source::Column("more".into()))];
    outbox.static_headers = vec![("app".into(), "shop".into())];
    let made = made(outbox);
    let expected = [
        ("id", "4-4"),
        ("ce_specversion", "1.0"),
        ("ce_id", "4-4"),
        ("ce_source", "/public/outbox"),
        ("ce_type", "com.example.placed"),
        ("ce_time", "2026-02-03T04:05:06.789012Z"),
        ("ce_subject", "x"),
        ("ce_region", "eu-x"),
        ("content-type", "application/json"),
        ("more", "x"),
        ("app", "shop"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
    assert_eq!(made.headers, expected);
    assert_eq!(made.value.as_deref(), Some("{\"a\": 1}"));
}

#[test]
fn in_structured_mode_the_value_is_the_event() {
    let attributes = [("subject", "\"{more}\""), ("datacontenttype", "application/vnd.shop+json")];
    let mut outbox = outbox(ContentMode::Structured, &attributes);
    outbox.headers = vec![("more".into(), Source::Column("more".into()))];
    let made = made(outbox);
    let names = ["id", "content-type", "more"];
    assert_eq!(made.names(), names);
    let media = "application/cloudevents+json; charset=UTF-8";
    assert_eq!(made.header("content-type"), Some(media));
    let value = format!(
        "{HEAD},\"subject\":\"\\\"x\\\"\",\"datacontenttype\":\"application/vnd.shop+json\",\
         \"data\":{{\"a\": 1}}}}"
    );
    assert_eq!(made.value, Some(value));
}

#[test]
fn every_attribute_can_be_given() {
    let attributes = [
        ("type", "com.example.{more}"),
        ("time", "{$commit_time_iso}"),
        ("id", "{id}/{more}"),
        ("source", "https://shop.example/My Orders?ü={more}#%20"),
    ];
    let made = made(outbox(ContentMode::Binary, &attributes));
    assert_eq!(made.header("ce_type"), Some("com.example.x"));
    assert_eq!(made.header("ce_id"), Some("4-4/x"));
    assert_eq!(
        made.header("ce_source"),
        Some("https://shop.example/My%20Orders?%C3%BC=x#%20"),
        "what no URI has is encoded"
    );
    // Without an `id` that becomes a header, there is still one for the event.
    let mut without = outbox(ContentMode::Binary, &[("id", "more")]);
    without.id = None;
    let made = self::made(without);
    assert_eq!((made.header("id"), made.header("ce_id")), (None, Some("x")));
}

/// The type of a payload, its text, the content type, the value in binary mode, and the data with
/// its member in structured mode.
type DataCase<'a> = (u32, Option<&'a str>, &'a str, Option<&'a str>, &'a str);

#[test]
fn the_content_type_follows_from_the_payload() {
    let (json, text) = ("application/json", "text/plain; charset=UTF-8");
    let bytes = "application/octet-stream";
    let cases: [DataCase<'_>; 10] = [
        (oid::JSONB, Some("[1]"), json, Some("[1]"), ",\"data\":[1]"),
        (oid::JSON, Some("null"), json, Some("null"), ",\"data\":null"),
        (oid::JSONB, None, json, None, ""),
        (TEXT, Some("a \"b\""), text, Some("a \"b\""), ",\"data\":\"a \\\"b\\\"\""),
        (TEXT, Some(""), text, Some(""), ",\"data\":\"\""),
        (TEXT, None, text, None, ""),
        (oid::BIGINT, Some("7"), text, Some("7"), ",\"data\":\"7\""),
        (oid::XML, Some("<a/>"), "application/xml", Some("<a/>"), ",\"data\":\"<a/>\""),
        (oid::BYTEA, Some("\\x414243"), bytes, Some("ABC"), ",\"data_base64\":\"QUJD\""),
        (oid::BYTEA, None, bytes, None, ""),
    ];
    for (type_oid, payload, media, value, data) in cases {
        let (columns, row) = with("body", type_oid, payload.map(str::as_bytes));
        let binary = typed(outbox(ContentMode::Binary, &[]), &columns, &row).unwrap();
        assert_eq!(binary.header("content-type"), Some(media));
        assert_eq!(binary.value.as_deref(), value, "{payload:?}");
        let structured = typed(outbox(ContentMode::Structured, &[]), &columns, &row).unwrap();
        let event = format!("{HEAD},\"datacontenttype\":\"{media}\"{data}}}");
        assert_eq!(structured.value, Some(event));
    }
}

#[test]
fn what_is_made_json_of_the_payload_is_json() {
    let value = |change: fn(&mut Outbox)| {
        let mut outbox = outbox(ContentMode::Structured, &[]);
        change(&mut outbox);
        let (columns, row) = with("body", oid::BYTEA, Some(b"\\x4142"));
        let value = typed(outbox, &columns, &row).unwrap().value.unwrap();
        let head = format!("{HEAD},\"datacontenttype\":\"application/json\",\"data\":");
        value.strip_prefix(&head).unwrap().strip_suffix('}').unwrap().to_owned()
    };
    assert_eq!(value(|outbox| outbox.payload_format = Format::Json), "\"QUI=\"");
    let row = value(|outbox| outbox.payload = Payload::Columns(vec!["body".into(), "more".into()]));
    assert_eq!(row, "{\"body\":\"QUI=\",\"more\":\"x\"}");
    let envelope = value(|outbox| outbox.envelope.members = vec![("m".into(), "more".into())]);
    assert_eq!(envelope, "{\"payload\":\"QUI=\",\"m\":\"x\"}");
}

/// What is declared decides, as far as the payload is that.
#[test]
fn a_content_type_that_is_given_decides_how_data_is_embedded() {
    let data = |type_oid, payload: &str, media: &str| {
        let (columns, row) = with("body", type_oid, Some(payload.as_bytes()));
        let outbox = outbox(ContentMode::Structured, &[("datacontenttype", media)]);
        let value = typed(outbox, &columns, &row)?.value.unwrap();
        let (_, data) = value.split_once(",\"data").unwrap();
        let (_, data) = data.split_once(",\"data").unwrap();
        Ok::<_, String>(data.to_owned())
    };
    let told = |result: Result<String, String>| result.unwrap_err();
    for media in ["application/json", "Text/JSON; charset=x", "a/b+json"] {
        assert_eq!(data(TEXT, " [1]", media), Ok("\": [1]}".to_owned()));
        let reason = told(data(TEXT, "[1", media));
        let start = "the datacontenttype of its event is one of JSON, and the payload is none: EOF";
        assert!(reason.starts_with(start), "{reason}");
    }
    for media in ["text/plain", "application/jsonx", "json/x"] {
        assert_eq!(data(oid::JSONB, "{\"a\": 1}", media), Ok("\":\"{\\\"a\\\": 1}\"}".to_owned()));
    }
    let base64 = Ok("_base64\":\"QQ==\"}".to_owned());
    assert_eq!(data(oid::BYTEA, "\\x41", "application/json"), base64);
    assert!(told(data(oid::BYTEA, "\\x4", "a/b")).contains("the bytea \\x4 cannot be sent"));
    // From a column, and where that is NULL, by the payload.
    let outbox = outbox(ContentMode::Binary, &[("datacontenttype", "more")]);
    let (columns, mut row) = with("more", TEXT, Some(b"a/b"));
    let made = typed(outbox.clone(), &columns, &row).unwrap();
    assert_eq!(made.header("content-type"), Some("a/b"));
    row[3] = None;
    let made = typed(outbox, &columns, &row).unwrap();
    assert_eq!(made.header("content-type"), Some("application/json"));
}

#[test]
fn an_attribute_of_each_type_as_text_and_as_json() {
    for (type_oid, value, text, json) in [
        (TEXT, "a \"b\"", "a \"b\"", "\"a \\\"b\\\"\""),
        (TEXT, "7", "7", "\"7\""),
        (TEXT, "\"a\"", "\"a\"", "\"\\\"a\\\"\""),
        (TEXT, "\"", "\"", "\"\\\"\""),
        (oid::INTEGER, "\"", "\"", "\"\\\"\""),
        (oid::BOOLEAN, "t", "true", "true"),
        (oid::BIT, "1", "1", "\"1\""),
        (oid::SMALLINT, "-7", "-7", "-7"),
        (oid::INTEGER, "7", "7", "7"),
        // An Integer of CloudEvents has 32 bits.
        (oid::BIGINT, "7", "7", "\"7\""),
        (oid::NUMERIC, "7.50", "7.50", "\"7.50\""),
        (oid::BYTEA, "\\x4142", "QUI=", "\"QUI=\""),
        (oid::DATE, "2026-02-03", "2026-02-03", "\"2026-02-03\""),
        (
            oid::TIMESTAMPTZ,
            "2026-02-03 04:05:06+00",
            "2026-02-03T04:05:06Z",
            "\"2026-02-03T04:05:06Z\"",
        ),
        (1007, "{1,2}", "[1,2]", "\"[1,2]\""),
        (1009, "{a}", "[\"a\"]", "\"[\\\"a\\\"]\""),
    ] {
        let expected = [Some(text.to_owned()), Some(json.to_owned())];
        assert_eq!(extension(type_oid, value), Ok(expected), "{type_oid}");
    }
    // The attributes that have a type of their own keep it.
    let (columns, row) = with("id", oid::INTEGER, Some(b"7"));
    let made = typed(outbox(ContentMode::Structured, &[]), &columns, &row).unwrap();
    assert!(made.value.unwrap().starts_with("{\"specversion\":\"1.0\",\"id\":\"7\","));
}

#[test]
fn no_event_is_without_what_it_must_have_and_any_is_without_the_rest() {
    for mode in [ContentMode::Binary, ContentMode::Structured] {
        for value in [None, Some(b"".as_slice())] {
            for (attribute, column) in [("id", "id"), ("type", "type"), ("source", "more")] {
                let (columns, row) = with(column, TEXT, value);
                let found = typed(outbox(mode, &[("source", "more")]), &columns, &row);
                let told = format!(
                    "the attribute {attribute} of its event is NULL or empty, and no event is \
                     without it: fill its columns, or set it in cloudevents_attributes to what is \
                     never NULL"
                );
                assert_eq!(found, Err(told), "{mode:?}");
            }
            let (columns, row) = with("more", TEXT, value);
            let attributes = [("subject", "more"), ("x", "more"), ("time", "more")];
            let made = typed(outbox(mode, &attributes), &columns, &row).unwrap();
            let absent = |name: &str| {
                let member = format!("\"{name}\":");
                made.header(&format!("ce_{name}")).is_none()
                    && !made.value.as_ref().unwrap().contains(&member)
            };
            assert!(["subject", "x", "time"].into_iter().all(absent), "{made:?}");
        }
    }
    // NULL in a template is NULL.
    let (columns, row) = with("more", TEXT, None);
    let outbox = outbox(ContentMode::Binary, &[("subject", "a-{more}")]);
    assert!(!typed(outbox, &columns, &row).unwrap().names().contains(&"ce_subject"));
}

#[test]
fn columns_that_attributes_lack() {
    let attributes = [("subject", "gone"), ("x", "{lost}"), ("source", "/{more}")];
    let strict = outbox(ContentMode::Binary, &attributes);
    let told = "the table has no column gone, lost; add it or change the mapping";
    assert_eq!(typed(strict.clone(), &COLUMNS, &ROW), Err(told.to_owned()));
    let ignoring = Outbox { missing_columns: MissingColumns::Ignore, ..strict };
    let made = self::made(ignoring.clone());
    assert!(!made.names().iter().any(|name| ["ce_subject", "ce_x"].contains(name)), "{made:?}");
    // Without what an event must have there is none.
    let told = "the table has no column type; add it or change the mapping";
    let columns = [COLUMNS[0], COLUMNS[2], COLUMNS[3]];
    let row = [ROW[0], ROW[2], ROW[3]];
    assert_eq!(typed(ignoring, &columns, &row), Err(told.to_owned()));
}

#[test]
fn what_cannot_be_an_attribute_is_said() {
    for (value, told) in [
        (b"a\nb".as_slice(), "holds '\\n', which CloudEvents does not allow"),
        (b"\x7F", "holds '\\u{7f}', which"),
        ("\u{85}".as_bytes(), "holds '\\u{85}', which"),
        ("\u{FDD0}".as_bytes(), "holds '\\u{fdd0}', which"),
        ("\u{1FFFE}".as_bytes(), "holds '\\u{1fffe}', which"),
        (b"a\xFF", "is no UTF-8"),
    ] {
        for mode in [ContentMode::Binary, ContentMode::Structured] {
            let (columns, row) = with("more", TEXT, Some(value));
            let reason = typed(outbox(mode, &[("x", "more")]), &columns, &row).unwrap_err();
            assert!(
                reason.starts_with(&format!("the attribute x of its event {told}")),
                "{reason}"
            );
        }
    }
}

#[test]
fn the_time_is_one_of_rfc_3339() {
    let time = |type_oid, value: &str| {
        let (columns, row) = with("more", type_oid, Some(value.as_bytes()));
        let made = typed(outbox(ContentMode::Binary, &[("time", "more")]), &columns, &row)?;
        Ok::<_, String>(made.header("ce_time").unwrap().to_owned())
    };
    for (type_oid, value, expected) in [
        (oid::TIMESTAMPTZ, "2026-02-03 04:05:06.7+00", "2026-02-03T04:05:06.7Z"),
        (oid::TIMESTAMP, "2026-02-03 04:05:06", "2026-02-03T04:05:06Z"),
        (oid::DATE, "2026-02-03", "2026-02-03T00:00:00Z"),
        (TEXT, "2026-02-03T04:05:06.789+02:00", "2026-02-03T04:05:06.789+02:00"),
    ] {
        assert_eq!(time(type_oid, value), Ok(expected.to_owned()));
    }
    for (type_oid, value) in [
        (oid::TIMESTAMPTZ, "infinity"),
        (oid::DATE, "-infinity"),
        (oid::TIMESTAMP, "12026-02-03 04:05:06"),
        (oid::TIMESTAMP, "0044-03-15 00:00:00 BC"),
        (TEXT, "2026-02-03 04:05:06+00"),
        (TEXT, "2026-02-03T04:05:06"),
        (TEXT, "2026-02-03T04:05:06.Z"),
        (TEXT, "2026-13-03T04:05:06Z"),
        (TEXT, "2026-02-03T04:05:06+02"),
        (TEXT, "today"),
        (oid::BIGINT, "7"),
    ] {
        let reason = time(type_oid, value).unwrap_err();
        assert!(reason.contains("which is no time of RFC 3339; set it in"), "{value}: {reason}");
    }
    let mut place = place();
    for (us, expected) in [
        (i64::MIN, "1970-01-01T00:00:00Z"),
        (0, "2000-01-01T00:00:00Z"),
        (i64::MAX, "9999-12-31T23:59:59.999999Z"),
    ] {
        place.committed_us = us;
        let mut outboxes = announced(outbox(ContentMode::Binary, &[]), &COLUMNS);
        let message = insert(TABLE, &ROW);
        let Ok(Change::Insert { row, .. }) = Change::parse(&message) else { panic!("no Insert") };
        let record = outboxes.record(Whose::Relation(TABLE), row, place).unwrap().unwrap();
        assert_eq!(of(&record).header("ce_time"), Some(expected));
    }
}

/// A letter says that it is an event only if it is one.
#[test]
fn a_letter_of_no_event_does_not_pass_for_one() {
    let letter = |mode, value: Option<&[u8]>, with_payload| {
        let (columns, row) = with("type", TEXT, value);
        let mut outbox = outbox(mode, &[]);
        outbox.on_poison = OnPoison::DeadLetter;
        outbox.dead_letter_topic = Some("dead".into());
        let mut outboxes = announced(outbox, &columns);
        let message = insert(TABLE, &row);
        let Ok(Change::Insert { row, .. }) = Change::parse(&message) else { panic!("no Insert") };
        let position = place().position;
        let poison =
            Poison { origin: Origin::Table(name()), position, id: None, reason: "why".into() };
        of(&outboxes.letter(Whose::Relation(TABLE), row, place(), &poison, with_payload).unwrap())
    };
    let whole = letter(ContentMode::Structured, Some(b"t"), true);
    assert!(whole.value.as_ref().unwrap().starts_with("{\"specversion\""), "{whole:?}");
    assert!(whole.header("content-type").unwrap().starts_with("application/cloudevents+json"));
    let without_type = letter(ContentMode::Structured, None, true);
    assert_eq!(without_type.value.as_deref(), Some("{\"a\": 1}"));
    assert!(!without_type.names().contains(&"content-type"), "{without_type:?}");
    let large = letter(ContentMode::Structured, Some(b"t"), false);
    assert!(large.value.is_none() && !large.names().contains(&"content-type"), "{large:?}");
    let binary = letter(ContentMode::Binary, None, true);
    assert_eq!(binary.value.as_deref(), Some("{\"a\": 1}"));
    assert!(binary.header("ce_id").is_some() && !binary.names().contains(&"ce_type"));
}

/// A pointer is no event, whatever its row is.
#[test]
fn a_pointer_does_not_pass_for_an_event() {
    let pointer = |mode| {
        let (columns, row) = with("type", TEXT, Some(b"t"));
        let outbox = Outbox { on_oversize: OnOversize::Pointer, ..outbox(mode, &[]) };
        let mut outboxes = announced(outbox, &columns);
        let message = insert(TABLE, &row);
        let Ok(Change::Insert { row, .. }) = Change::parse(&message) else { panic!("no Insert") };
        of(&outboxes.pointer(Whose::Relation(TABLE), row, place(), 1000).unwrap())
    };
    for mode in [ContentMode::Structured, ContentMode::Binary] {
        let pointer = pointer(mode);
        let value: serde_json::Value =
            serde_json::from_str(pointer.value.as_ref().unwrap()).unwrap();
        assert_eq!(value["bytes"], 1000);
        let names = pointer.names();
        assert_eq!(names.last(), Some(&"walrelay-pointer"));
        assert!(names.contains(&"id"), "{names:?}");
        assert!(
            !names.contains(&"content-type") && !names.contains(&"ce_specversion"),
            "{names:?}"
        );
        assert_eq!(names.contains(&"ce_type"), mode == ContentMode::Binary, "{names:?}");
    }
}

#[test]
fn any_bytes_become_an_event_or_a_reason() {
    const TYPES: [u32; 8] =
        [TEXT, oid::BOOLEAN, oid::INTEGER, oid::BYTEA, oid::TIMESTAMPTZ, oid::TIMETZ, 1007, 1009];
    const BYTES: &[u8] = b"0123456789-+.:eE {},\"\\tfNULxTZ\xC2\x85\xFF\0";
    seeds(200, |mut random: Random| {
        for type_oid in TYPES {
            let mut bytes = || {
                let length = random.below(24);
                (0..length).map(|_| BYTES[random.index(BYTES.len())]).collect::<Vec<u8>>()
            };
            let (more, body) = (bytes(), bytes());
            let (mut columns, mut row) = with("more", type_oid, Some(&more));
            (columns[2].1, row[2]) = (TEXT, Some(body.as_slice()));
            let media = ["text/plain", "a/json"][random.index(2)];
            let name = ["time", "source", "subject", "x"][random.index(4)];
            let attributes = [(name, "more"), ("datacontenttype", media)];
            let outbox = outbox(ContentMode::Structured, &attributes);
            if let Ok(made) = typed(outbox, &columns, &row) {
                let value = made.value.unwrap();
                assert!(serde_json::from_str::<serde_json::Value>(&value).is_ok(), "{value}");
            }
        }
    });
}
