//! Messages of `pg_logical_emit_message` among rows.

use super::*;
use crate::config::{Content, Message, OnPoison, Outbox, Prefix};
use crate::frontier::Limits;
use crate::pg::table::TableName;
use crate::record::Record;
use crate::template::{CONTENT, PREFIX, Source, Subject, Template};
use crate::testing::{begin, commit, data, emitted, insert, relation};

const OID: u32 = 7;

/// `topic payload row`, and headers that tell of a letter.
#[derive(Default)]
struct Given {
    lines: Vec<String>,
    tickets: Vec<Ticket>,
    full: bool,
}

impl Sink for Given {
    fn send(&mut self, record: &Record<'_>, ticket: Ticket) -> Result<(), Refused> {
        if self.full {
            return Err(Refused::Full);
        }
        let text = |bytes: Option<&[u8]>| {
            bytes.map_or("-".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        let headers = record.headers.iter().map(|(name, value)| {
            let value = text(value);
            match name.strip_prefix("walrelay-") {
                Some(name) => format!(" {name}={value}"),
                None => format!(" {}", &value[value.len() - 1..]),
            }
        });
        let headers = headers.collect::<String>();
        self.lines.push(format!("{} {}{headers}", record.topic, text(record.payload)));
        self.tickets.push(ticket);
        Ok(())
    }
}

fn outboxes(on_poison: OnPoison) -> Outboxes {
    let table = TableName { schema: "public".into(), name: "outbox".into() };
    let rows = Outbox::bare(table, "payload", Template::parse("rows").unwrap());
    let topic = |text| Template::topic_over(Subject::Message, text).unwrap();
    let json = Outbox {
        on_poison,
        dead_letter_topic: Some("dead".into()),
        ..Outbox::bare(TableName::default(), "payload", topic("{topic}"))
    };
    let raw = Outbox {
        key: Some(Source::Column(PREFIX.into())),
        ..Outbox::bare(TableName::default(), CONTENT, topic("{$prefix}"))
    };
    let rule = |prefix, content, columns: &[&str], mapping| Message {
        prefix: Prefix::parse(prefix).unwrap(),
        content,
        columns: columns.iter().map(|&name| name.to_owned()).collect(),
        mapping,
    };
    let rules = vec![
        rule("json", Content::Json, &["payload", "topic"], json),
        rule("raw*", Content::Raw, &[PREFIX, CONTENT], raw),
    ];
    Outboxes::new(vec![rows], Some("position".into())).with_messages(rules)
}

fn pipe(on_poison: OnPoison) -> Pipe {
    let limits = Limits { records: 10, bytes: 1 << 20, span: 2 };
    let mut pipe = Pipe::new(outboxes(on_poison), Frontier::new(Lsn::from_wire(50), limits));
    connect(&mut pipe);
    pipe
}

fn connect(pipe: &mut Pipe) {
    pipe.reconnect();
    let table = relation(OID, "public", "outbox", &[("payload", 25)]);
    assert_eq!(pipe.take(&data(0, &table), &mut Given::default()), Ok(Step::Taken));
}

fn message(prefix: &str, content: &str) -> Vec<u8> {
    data(60, &emitted(true, prefix.as_bytes(), content.as_bytes()))
}

fn row(payload: &str) -> Vec<u8> {
    data(60, &insert(OID, &[Some(payload.as_bytes())]))
}

/// A transaction with rows and messages of all kinds.
fn transaction() -> Vec<Vec<u8>> {
    vec![
        data(60, &begin(256, 0, 1)),
        message("raw.a", "0"),
        row("1"),
        message("watermark", "of somebody else"),
        message("json", r#"{"topic":"t","payload":{"n":3}}"#),
        row("4"),
        message("raw", "5"),
        data(266, &commit(256, 266)),
    ]
}

const LINES: [&str; 5] = ["raw.a 0 0", "rows 1 1", "t {\"n\":3} 3", "rows 4 4", "raw 5 5"];

#[test]
fn messages_and_rows_come_in_their_order_and_are_numbered_together() {
    let (mut pipe, mut given) = (pipe(OnPoison::Halt), Given::default());
    for message in transaction() {
        assert_eq!(pipe.take(&message, &mut given), Ok(Step::Taken));
    }
    assert_eq!(given.lines, LINES);
    assert_eq!(pipe.frontier().confirmed().lsn().to_wire(), 50);
    for ticket in given.tickets.drain(..) {
        pipe.acked(ticket, 1, ticket.charge());
    }
    assert_eq!(pipe.frontier().confirmed().lsn().to_wire(), 266);
    assert_eq!(pipe.passed(), Passed { transactions: 1, bytes: 19, loose: 0 });
}

/// Wherever the connection breaks, or the producer is lost with all that is in flight.
#[test]
fn a_new_start_inside_a_transaction_repeats_and_loses_nothing() {
    let all = transaction();
    for broken in 1..all.len() {
        let (mut pipe, mut given) = (pipe(OnPoison::Halt), Given::default());
        for message in &all[..broken] {
            assert_eq!(pipe.take(message, &mut given), Ok(Step::Taken));
        }
        connect(&mut pipe);
        for message in &all {
            assert_eq!(pipe.take(message, &mut given), Ok(Step::Taken));
        }
        assert_eq!(given.lines, LINES, "broken at {broken}");
    }
    for acked in 0..LINES.len() {
        let (mut pipe, mut given) = (pipe(OnPoison::Halt), Given::default());
        for message in &all[..all.len() - 1] {
            pipe.take(message, &mut given).unwrap();
        }
        for ticket in given.tickets.drain(..acked) {
            pipe.acked(ticket, 1, ticket.charge());
        }
        let inside = pipe.frontier().reached().inside.map_or(0, |row| row.row + 1);
        pipe.restart();
        connect(&mut pipe);
        given.lines.clear();
        for message in &all {
            assert_eq!(pipe.take(message, &mut given), Ok(Step::Taken));
        }
        let behind = |line: &&&str| line[line.len() - 1..].parse::<u32>().unwrap() >= inside;
        let expected: Vec<_> = LINES.iter().filter(behind).collect();
        assert_eq!(given.lines.iter().collect::<Vec<_>>(), expected, "{acked} acked");
    }
}

#[test]
fn outside_of_a_transaction_a_message_is_no_event_and_somebody_should_know() {
    let (mut pipe, mut given) = (pipe(OnPoison::Halt), Given::default());
    let loose = |prefix: &[u8]| data(60, &emitted(false, prefix, b"x"));
    assert_eq!(pipe.take(&loose(b"json"), &mut given), Ok(Step::Loose(0)));
    assert_eq!(pipe.take(&loose(b"raw.x"), &mut given), Ok(Step::Loose(1)));
    assert_eq!(pipe.take(&loose(b"other"), &mut given), Ok(Step::Taken));
    assert_eq!(pipe.take(&loose(b"\xFF"), &mut given), Ok(Step::Taken));
    assert_eq!(pipe.outboxes().origin(1).unwrap().to_string(), "prefix \"raw*\"");
    assert_eq!((pipe.passed().loose, given.lines.len()), (2, 0));
    // It does not count as a row either.
    for message in transaction() {
        pipe.take(&message, &mut given).unwrap();
        let between = pipe.take(&loose(b"json"), &mut given);
        assert_eq!(between, Ok(Step::Loose(0)));
    }
    assert_eq!(given.lines, LINES);
    // One of a transaction needs one.
    let error = pipe.take(&message("other", "x"), &mut given).unwrap_err();
    assert!(error.to_string().contains("a row came outside a transaction"), "{error}");
}

#[test]
fn without_a_rule_messages_are_nothing_at_all() {
    let limits = Limits { records: 10, bytes: 1 << 20, span: 2 };
    let outboxes = Outboxes::new(Vec::new(), None);
    let mut pipe = Pipe::new(outboxes, Frontier::new(Lsn::from_wire(50), limits));
    for transactional in [true, false] {
        let message = data(60, &emitted(transactional, b"json", b"x"));
        assert_eq!(pipe.take(&message, &mut Given::default()), Ok(Step::Taken));
    }
    assert_eq!(pipe.passed(), Passed::default());
}

#[test]
fn poison_is_held_skipped_or_sent_elsewhere() {
    let bad = message("json", "no json");
    let started = |on_poison| {
        let mut pipe = pipe(on_poison);
        pipe.take(&data(60, &begin(256, 0, 1)), &mut Given::default()).unwrap();
        pipe
    };
    for on_poison in [OnPoison::Halt, OnPoison::Skip] {
        let (mut pipe, mut given) = (started(on_poison), Given::default());
        let Ok(Step::Stuck(stuck)) = pipe.take(&bad, &mut given) else { panic!("not stuck") };
        let Stuck::Poison(poison) = &stuck else { panic!("{stuck}") };
        assert_eq!(pipe.outboxes().on_poison(&poison.origin), on_poison);
        assert_eq!(pipe.take(&bad, &mut given), Ok(Step::Stuck(stuck.clone())));
        pipe.skip_row();
        pipe.take(&row("1"), &mut given).unwrap();
        assert_eq!(given.lines, ["rows 1 1"]);
    }
    let (mut pipe, mut given) = (started(OnPoison::DeadLetter), Given::default());
    given.full = true;
    assert_eq!(pipe.take(&bad, &mut given), Ok(Step::Full));
    given.full = false;
    let null = message("json", r#"{"payload":"p"}"#);
    for bad in [&bad, &null] {
        let step = pipe.take(bad, &mut given);
        assert!(matches!(step, Ok(Step::Replaced(_))), "{step:?}");
    }
    let reason = "its content is no JSON (expected ident at line 1 column 2), as its [[message]] \
                  says";
    let end = "commit-lsn=0/100 payload-bytes=";
    assert_eq!(
        given.lines,
        [
            format!("dead no json 0 reason={reason} {end}7 prefix=json"),
            format!("dead p 1 reason=a column of the topic is NULL {end}1 prefix=json"),
        ]
    );
}
