//! Rows that can never become records, where the outbox has a topic for them; and updates.

use super::*;
use crate::config::{OnPoison, Outbox};
use crate::frontier::Limits;
use crate::pg::table::TableName;
use crate::template::{Source, Template};
use crate::testing::{Bytes, begin, commit, data, insert, relation};

const OID: u32 = 7;

/// What Kafka takes, and what it was given: topic, key, payload and headers in a line.
#[derive(Default)]
struct Given {
    lines: Vec<String>,
    tickets: Vec<Ticket>,
    /// Records with longer payloads are unsendable.
    payload_max: usize,
    full: bool,
}

impl Sink for Given {
    fn send(&mut self, record: &Record<'_>, ticket: Ticket) -> Result<(), Refused> {
        if self.full {
            return Err(Refused::Full);
        }
        if record.payload.is_some_and(|payload| payload.len() > self.payload_max) {
            return Err(Refused::Unsendable("too large".to_owned()));
        }
        let text = |bytes: Option<&[u8]>| {
            bytes.map_or("-".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        let headers = record.headers.iter().map(|(name, value)| {
            let name = name.strip_prefix("walrelay-").unwrap_or(name);
            format!("{name}={}", text(value))
        });
        let headers = headers.collect::<Vec<_>>().join(" ");
        let (key, payload) = (text(record.key), text(record.payload));
        self.lines.push(format!("{} {key} {payload} {headers}", record.topic));
        self.tickets.push(ticket);
        Ok(())
    }
}

fn pipe(change: impl FnOnce(&mut Outbox)) -> Pipe {
    let table = TableName { schema: "public".into(), name: "outbox".into() };
    let mut outbox = Outbox {
        id: Some("id".into()),
        key: Some(Source::Column("key".into())),
        partition: Some("shard".into()),
        on_poison: OnPoison::DeadLetter,
        dead_letter_topic: Some("dead".into()),
        ..Outbox::bare(table, "payload", Template::parse("t{topic}").unwrap())
    };
    change(&mut outbox);
    let limits = Limits { records: 10, bytes: 1 << 20, span: 100 };
    let frontier = Frontier::new(Lsn::from_wire(50), limits);
    let mut pipe = Pipe::new(Outboxes::new(vec![outbox], Some("position".into())), frontier);
    begin_again(&mut pipe, &mut Given::default());
    pipe
}

/// A connection that brings the transaction at 256.
fn begin_again(pipe: &mut Pipe, given: &mut Given) {
    pipe.reconnect();
    let columns = [("id", 25), ("key", 25), ("topic", 25), ("payload", 25), ("shard", 23)];
    for message in [relation(OID, "public", "outbox", &columns), begin(256, 263, 1)] {
        assert_eq!(pipe.take(&data(0, &message), given), Ok(Step::Taken));
    }
}

fn row(topic: Option<&str>, payload: &str, shard: Option<&str>) -> Vec<u8> {
    let [topic, shard] = [topic, shard].map(|text| text.map(str::as_bytes));
    data(0, &insert(OID, &[Some(b"i"), Some(b"k"), topic, Some(payload.as_bytes()), shard]))
}

fn reason(step: Result<Step, StreamError>) -> String {
    match step {
        Ok(Step::DeadLettered(poison)) => poison.reason,
        other => panic!("{other:?}"),
    }
}

const AT: &str = "position=00000000-0000000000000100-0000000";

#[test]
fn a_row_that_is_no_record_goes_to_its_topic_with_what_is_wrong() {
    let (mut pipe, mut given) = (pipe(|_| {}), Given { payload_max: 9, ..Given::default() });
    let mut take = |row: &[u8]| pipe.take(row, &mut given);
    assert_eq!(take(&row(Some("1"), "good", None)), Ok(Step::Taken));
    let null = "a column of the topic is NULL";
    assert_eq!(reason(take(&row(None, "p", None))), null);
    let illegal = reason(take(&row(Some(" "), "p", None)));
    let shard = reason(take(&row(Some("1"), "p", Some("-1"))));
    assert_eq!(reason(take(&row(Some("1"), "much too long", None))), "too large");
    assert_eq!(take(&row(Some("1"), "good", None)), Ok(Step::Taken));
    let said = |reason: &str| format!("reason={reason} table=public.outbox id=i commit-lsn=0/100");
    let expected = [
        format!("t1 k good id=i {AT}0"),
        format!("dead k p id=i {AT}1 {} payload-bytes=1", said(null)),
        format!("dead k p id=i {AT}2 {} topic=t  payload-bytes=1", said(&illegal)),
        format!("dead k p id=i {AT}3 {} topic=t1 payload-bytes=1", said(&shard)),
        // It does not fit there either: its table has it.
        format!("dead k - id=i {AT}4 {} topic=t1 payload-bytes=13", said("too large")),
        format!("t1 k good id=i {AT}5"),
    ];
    assert_eq!(given.lines, expected);
}

/// A letter is confirmed as a record is, counts as one, and waits as one.
#[test]
fn a_letter_is_waited_for() {
    let (mut pipe, mut given) = (pipe(|_| {}), Given { payload_max: 9, ..Given::default() });
    given.full = true;
    assert_eq!(pipe.take(&row(None, "p", None), &mut given), Ok(Step::Full));
    given.full = false;
    reason(pipe.take(&row(None, "p", None), &mut given));
    pipe.take(&data(0, &commit(256, 266)), &mut given).unwrap();
    assert_eq!(pipe.frontier().confirmed().lsn().to_wire(), 50);
    // The connection breaks: nothing comes twice.
    begin_again(&mut pipe, &mut given);
    assert_eq!(pipe.take(&row(None, "p", None), &mut given), Ok(Step::Taken));
    assert_eq!(given.lines.len(), 1);
    let ticket = given.tickets.remove(0);
    pipe.acked(ticket, 1, ticket.charge());
    assert_eq!(pipe.frontier().confirmed().lsn().to_wire(), 266);
}

/// The broker finds out what we could not: first that a record is not to be had, then its letter.
#[test]
fn what_the_broker_refuses_goes_as_a_letter_and_is_stuck_if_that_is_refused_too() {
    let (mut pipe, mut given) = (pipe(|_| {}), Given { payload_max: 9, ..Given::default() });
    let bad = row(Some("1"), "bad", None);
    let mut refuse = |pipe: &mut Pipe| {
        pipe.suspect("the broker says no");
        pipe.restart();
        begin_again(pipe, &mut given);
        pipe.take(&bad, &mut given)
    };
    assert_eq!(pipe.take(&bad, &mut Given { payload_max: 9, ..Given::default() }), Ok(Step::Taken));
    assert_eq!(refuse(&mut pipe), Ok(Step::Taken), "once more, alone");
    assert_eq!(reason(refuse(&mut pipe)), "the broker says no");
    let Ok(Step::Stuck(stuck)) = refuse(&mut pipe) else { panic!("the letter goes again") };
    assert!(stuck.to_string().contains("(id i): the broker says no;"), "{stuck}");
    let topics: Vec<_> = given.lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(topics, ["t1", "dead"]);
    // Somebody may have mended it.
    pipe.pardon();
    assert_eq!(pipe.take(&bad, &mut given), Ok(Step::Taken));
}

#[test]
fn no_letter_is_written_where_the_outbox_has_none() {
    for on_poison in [OnPoison::Halt, OnPoison::Skip] {
        let mut pipe = pipe(|outbox| outbox.on_poison = on_poison);
        let mut given = Given::default();
        let step = pipe.take(&row(None, "p", None), &mut given);
        assert!(matches!(step, Ok(Step::Stuck(Stuck::Poison(_)))), "{step:?}");
        assert_eq!(given.lines, [""; 0]);
    }
}

#[test]
fn an_update_is_no_event_and_the_outbox_says_what_is_to_be_done_about_it() {
    let update = |oid| data(0, &Bytes::tag(b'U').u32(oid).raw(b"N whatever").0);
    for (on_update, expected) in [
        (OnUpdate::Ignore, Step::Taken),
        (OnUpdate::Warn, Step::Updated(OID)),
        (
            OnUpdate::Halt,
            Step::Stuck(Stuck::Updated {
                table: TableName { schema: "public".into(), name: "outbox".into() },
                at: Lsn::from_wire(256),
            }),
        ),
    ] {
        let mut pipe = pipe(|outbox| outbox.on_update = on_update);
        let mut given = Given { payload_max: 9, ..Given::default() };
        assert_eq!(pipe.take(&update(OID), &mut given), Ok(expected));
        // Of a table that is not ours.
        assert_eq!(pipe.take(&update(OID + 1), &mut given), Ok(Step::Taken));
        // What was passed once is not spoken of again with the rows behind it.
        pipe.take(&row(Some("1"), "good", None), &mut given).unwrap();
        begin_again(&mut pipe, &mut given);
        assert_eq!(pipe.take(&update(OID), &mut given), Ok(Step::Taken));
        assert_eq!(given.lines, [format!("t1 k good id=i {AT}0")]);
    }
}
