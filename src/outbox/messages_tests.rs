//! Messages of all shapes, under rules as the configuration has them.

use crate::config::Config;
use crate::lsn::{Lsn, Position};
use crate::outbox::{Outboxes, Place, Whose};
use crate::pg::output::Tuple;
use crate::record::Timestamp;

/// Outboxes with these `[[message]]` entries.
fn outboxes(messages: &str) -> Outboxes {
    let text = format!(
        "postgres.url = 'postgres://u@h/d'\nkafka.brokers = ['k:1']\n\
         delivery.position_header = ''\n{messages}"
    );
    let config = Config::parse("walrelay.toml", &text, []).unwrap_or_else(|it| panic!("{it}"));
    Outboxes::new(config.outboxes, None).with_messages(config.messages)
}

/// `topic key payload headers`, or why there is no record; and its time and partition.
fn map(outboxes: &mut Outboxes, prefix: &str, content: &[u8]) -> (String, String) {
    let rule = outboxes.rule(prefix.as_bytes()).unwrap();
    let mut row = Vec::new();
    let fault = outboxes.write(rule, prefix.as_bytes(), content, &mut row);
    let whose = Whose::Rule { rule, fault: fault.as_deref() };
    let position = Position { epoch: 0, commit: Lsn::from_wire(0x100), row: 3 };
    let place = Place { position, committed_us: 0, xid: 4711 };
    let tuple = Tuple::of(&row).unwrap();
    let text = |bytes: Option<&[u8]>| {
        bytes.map_or("-".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    let record = match outboxes.record(whose, tuple, place).unwrap() {
        Ok(record) => record,
        Err(poison) => return (poison.to_string(), String::new()),
    };
    let headers = record.headers.iter().map(|(name, value)| format!("{name}={}", text(value)));
    let headers = headers.collect::<Vec<_>>().join(" ");
    let (key, payload) = (text(record.key), text(record.payload));
    let time = match record.timestamp {
        Timestamp::Committed(_) => "commit".to_owned(),
        Timestamp::Given(ms) => ms.to_string(),
    };
    let place = record.partition.map_or(time.clone(), |partition| format!("{time} {partition}"));
    (format!("{} {key} {payload} {headers}", record.topic), place)
}

fn made(outboxes: &mut Outboxes, prefix: &str, content: &str) -> String {
    map(outboxes, prefix, content.as_bytes()).0
}

#[test]
fn members_are_what_columns_are() {
    let mut outboxes = outboxes("[[message]]\nprefix = 'orders'");
    let mut check = |content: &str, record: &str| {
        assert_eq!(made(&mut outboxes, "orders", content), record, "{content}");
    };
    check(
        r#"{"id":"7","aggregatetype":"order","aggregateid":"k","type":"made","payload":{"a": 1}}"#,
        r#"outbox.event.order k {"a": 1} id=7 eventType=made"#,
    );
    // In any order, with white space and members of no account; a payload byte for byte.
    check(
        " {\n\"payload\" :\t[1.50, \"}\", {\"a\\\"\": null}] , \"x\":{\"id\":9},
          \"aggregatetype\":\"o\",\"id\":1e3 } ",
        "outbox.event.o - [1.50, \"}\", {\"a\\\"\": null}] id=1e3 eventType=-",
    );
    check(
        r#"{"payload":"{\"a\":\"\u00e9\ud83d\ude00\"}","aggregatetype":"o","aggregateid":true}"#,
        "outbox.event.o true {\"a\":\"é😀\"} id=- eventType=-",
    );
    // NULL is a tombstone; the last of two counts, as in jsonb; names may be written with escapes.
    check(
        r#"{"payload":1,"p\u0061yload":null,"aggregatetype":"a","aggregatetype":"b"}"#,
        "outbox.event.b - - id=- eventType=-",
    );
    check(r#"{"aggregatetype":"a","payload":""}"#, "outbox.event.a -  id=- eventType=-");
}

#[test]
fn a_content_that_is_no_object_is_poison() {
    let mut outboxes = outboxes("[[message]]\nprefix = 'orders'");
    let start = "message 00000000-0000000000000100-00000003 of prefix \"orders\": ";
    for (content, reason) in [
        (&b""[..], "its content is no JSON (EOF while parsing a value at line 1 column 0)"),
        (b"{\"a\":1", "its content is no JSON (EOF while parsing an object at line 1 column 6)"),
        (b"{} {}", "its content is no JSON (trailing characters at line 1 column 4)"),
        (b"{\"a\":\"\xFF\"}", "its content is no JSON (invalid unicode code point"),
        (b"[1]", "its content is JSON, but no object"),
        (b"null", "its content is JSON, but no object"),
        (b"{\"id\":\"\\ud800\"}", "member id of its content has half a character in an escape"),
        (b"{}", "a column of the topic is NULL"),
        (b"{\"aggregatetype\":\"a b\"}", "' ' is not allowed in a topic name"),
    ] {
        let told = map(&mut outboxes, "orders", content).0;
        let found = told.strip_prefix(start).is_some_and(|told| told.starts_with(reason));
        assert!(found, "{told}");
    }
    // What no rule names is of no account, whatever it holds.
    let told = made(&mut outboxes, "orders", r#"{"x":"\ud800","aggregatetype":"a","\ud800":1}"#);
    assert_eq!(told, "outbox.event.a - - id=- eventType=-");
}

#[test]
fn a_raw_content_is_the_value_and_the_prefix_says_the_rest() {
    let mut outboxes = outboxes(
        "[[message]]\nprefix = 'raw'\ncontent = 'raw'
         [[message]]\nprefix = 'a.*'\ncontent = 'raw'\ntopic = 't.{$rest}'\nkey = '{$xid}'
         tombstone_if_blank = true
         headers = { of = '{$prefix}', at = '{$commit_lsn}' }\nstatic_headers = { app = 'shop' }",
    );
    let content = "not {json} \u{0}";
    assert_eq!(made(&mut outboxes, "raw", content), format!("raw - {content} "));
    let whole = "t.b.c 4711 x of=a.b.c at=0/100 app=shop";
    assert_eq!(made(&mut outboxes, "a.b.c", "x"), whole);
    assert_eq!(made(&mut outboxes, "a.b", ""), "t.b 4711 - of=a.b at=0/100 app=shop");
    assert_eq!(map(&mut outboxes, "raw", b"\xFF").0, "raw - \u{FFFD} ");
}

#[test]
fn the_longest_prefix_that_fits_counts() {
    let topics = ["a", "a*", "*", "ab.*", "ab.c*"].map(|prefix| {
        let topic = format!("t{}{}", prefix.len(), prefix.replace('*', "_"));
        format!("[[message]]\nprefix = '{prefix}'\ncontent = 'raw'\ntopic = '{topic}'\n")
    });
    let mut all = outboxes(&topics.concat());
    for (prefix, topic) in [
        ("a", "t1a"),
        ("ab", "t2a_"),
        ("", "t1_"),
        ("b", "t1_"),
        ("ab.", "t4ab._"),
        ("ab.cd", "t5"),
    ] {
        let record = made(&mut all, prefix, "x");
        assert!(record.starts_with(topic), "{prefix}: {record}");
    }
    let some = outboxes(&topics[0]);
    assert_eq!(
        [&b"a"[..], b"ab", b"", b"\xFF"].map(|it| some.rule(it)),
        [Some(0), None, None, None]
    );
    assert!(some.has_rules() && !outboxes("").has_rules());
}

/// Members say by themselves what they are: a time is a number, or a text with any zone.
#[test]
fn times_and_partitions_are_members_too() {
    let mut outboxes = outboxes(
        "[[message]]\nprefix = 'p'\ntopic = 't'\nid = ''\nheaders = {}\ntimestamp = 'at'
         partition = 'shard'\nkey_format = 'json'\nspan_context = 'span'",
    );
    for (content, place) in [
        (r#"{"at":1500,"shard":3}"#, "1500 3"),
        (r#"{"at":"1970-01-01T02:00:01.5+02:00","shard":"3"}"#, "1500 3"),
        (r#"{"at":"1970-01-01 00:00:01.5"}"#, "1500"),
        (r#"{"at":null,"shard":null}"#, "commit"),
    ] {
        assert_eq!(map(&mut outboxes, "p", content.as_bytes()).1, place, "{content}");
    }
    let keyed = r#"{"aggregateid":"k","span":"traceparent=00-ab\nx=y"}"#;
    assert_eq!(made(&mut outboxes, "p", keyed), "t \"k\" - traceparent=00-ab");
    for content in [r#"{"at":"soon"}"#, r#"{"at":-1}"#, r#"{"shard":1.5}"#, r#"{"shard":[1]}"#] {
        let told = made(&mut outboxes, "p", content);
        assert!(told.contains(" of prefix \"p\": the column of its "), "{told}");
    }
}
