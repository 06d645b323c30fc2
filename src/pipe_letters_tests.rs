//! Rows that can never become records, where the outbox has a topic for them, or pointers for those
//! that are too large; and updates.

use super::*;
use crate::config::{OnOversize, OnPoison, Outbox};
use crate::frontier::Limits;
use crate::pg::table::TableName;
use crate::record::{Record, Timestamp};
use crate::template::{Source, Template};
use crate::testing::{Bytes, begin, commit, data, insert, relation};

const OID: u32 = 7;

/// What Kafka takes, and what it was given: topic, key, payload and headers in a line.
#[derive(Default)]
struct Given {
    lines: Vec<String>,
    tickets: Vec<Ticket>,
    /// Of each, the partition that it asks for, its time, and whether it was handed over before.
    terms: Vec<(Option<u32>, Timestamp, bool)>,
    /// Records with longer payloads are unsendable.
    payload_max: usize,
    full: bool,
    /// Takes none of this topic, whatever its size.
    closed: &'static str,
}

impl Sink for Given {
    fn send(&mut self, record: &Record<'_>, ticket: Ticket) -> Result<(), Refused> {
        if self.full {
            return Err(Refused::Full);
        }
        if record.payload.is_some_and(|payload| payload.len() > self.payload_max) {
            return Err(Refused::Unsendable(Flaw::Size, "too large".to_owned()));
        }
        if record.topic == self.closed {
            return Err(Refused::Unsendable(Flaw::Other, "not for us".to_owned()));
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
        self.terms.push((record.partition, record.timestamp, record.again));
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
        Ok(Step::Replaced(instead)) => match *instead {
            Instead::Letter(poison) => poison.reason,
            pointer @ Instead::Pointer { .. } => panic!("{pointer:?}"),
        },
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
        pipe.suspect(Flaw::Size, "the broker says no");
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

/// An outbox with pointers, whose topic takes values of 100 bytes. A pointer has 84 or so.
fn pointing() -> (Pipe, Given) {
    let pipe = pipe(|outbox| outbox.on_oversize = OnOversize::Pointer);
    (pipe, Given { payload_max: 100, ..Given::default() })
}

fn large() -> String {
    "x".repeat(200)
}

/// The pointer to the row of the transaction at 256 with this number.
fn pointer(row: u32) -> String {
    let value = r#"{"schema":"public","table":"outbox","id":"i","commit_lsn":"0/100","xid":1"#;
    format!("t1 k {value},\"bytes\":200}} id=i {AT}{row} pointer=public.outbox")
}

#[test]
fn a_pointer_goes_in_the_place_of_a_record_that_is_too_large_and_in_its_turn() {
    let (mut pipe, mut given) = pointing();
    let mut take = |row: &[u8]| pipe.take(row, &mut given);
    assert_eq!(take(&row(Some("1"), "good", Some("3"))), Ok(Step::Taken));
    let Ok(Step::Replaced(instead)) = take(&row(Some("1"), &large(), Some("3"))) else {
        panic!("no pointer")
    };
    assert_eq!(instead.policy(), "pointer");
    assert_eq!(
        instead.to_string(),
        "sent to topic t1 as a pointer, in place of 200 bytes committed at 0/100: row \
         00000000-0000000000000100-00000001 of public.outbox (id i): too large"
    );
    assert_eq!(take(&row(Some("1"), "good", Some("3"))), Ok(Step::Taken));
    let good = |row: u32| format!("t1 k good id=i {AT}{row}");
    assert_eq!(given.lines, [good(0), pointer(1), good(2)]);
    // It lands where the record would have.
    assert_eq!(given.terms[1], given.terms[0]);
    assert_eq!(given.terms[1].0, Some(3));
}

/// Nothing but size is mended by a smaller record.
#[test]
fn no_pointer_goes_where_it_would_be_of_no_use() {
    let said = |line: &str| line.split(' ').next().unwrap().to_owned();
    // What is wrong with the row itself, or with its topic.
    let (mut pipe, mut given) = pointing();
    given.closed = "t2";
    reason(pipe.take(&row(None, &large(), None), &mut given));
    reason(pipe.take(&row(Some("1"), "p", Some("-1")), &mut given));
    assert_eq!(reason(pipe.take(&row(Some("2"), "p", None), &mut given)), "not for us");
    assert_eq!(given.lines.iter().map(|line| said(line)).collect::<Vec<_>>(), ["dead"; 3]);
    // One that would be no smaller, or whose row cannot be told from others.
    given.payload_max = 9;
    let no_smaller = row(Some("1"), &"x".repeat(50), None);
    assert_eq!(reason(pipe.take(&no_smaller, &mut given)), "too large");
    given.payload_max = 100;
    for id in [None, Some(&b"\xFF"[..])] {
        let large = large();
        let row = [id, Some(b"k"), Some(b"1"), Some(large.as_bytes()), None];
        assert_eq!(reason(pipe.take(&data(0, &insert(OID, &row)), &mut given)), "too large");
    }
    // One that Kafka does not take either.
    given.payload_max = 50;
    assert_eq!(reason(pipe.take(&row(Some("1"), &large(), None), &mut given)), "too large");
    assert_eq!(given.lines.iter().map(|line| said(line)).collect::<Vec<_>>(), ["dead"; 7]);
    // And without a word of pointers.
    let mut pipe = self::pipe(|outbox| outbox.on_poison = OnPoison::Halt);
    given.payload_max = 100;
    let step = pipe.take(&row(Some("1"), &large(), None), &mut given);
    assert!(matches!(step, Ok(Step::Stuck(Stuck::Poison(_)))), "{step:?}");
}

/// A pointer is confirmed, counted, waited for and repeated as a record is.
#[test]
fn a_pointer_is_waited_for_and_comes_again_as_it_was() {
    let (mut pipe, mut given) = pointing();
    let large = row(Some("1"), &large(), None);
    given.full = true;
    assert_eq!(pipe.take(&large, &mut given), Ok(Step::Full));
    given.full = false;
    assert!(matches!(pipe.take(&large, &mut given), Ok(Step::Replaced(_))));
    pipe.take(&data(0, &commit(256, 266)), &mut given).unwrap();
    assert_eq!(pipe.frontier().confirmed().lsn().to_wire(), 50);
    begin_again(&mut pipe, &mut given);
    assert_eq!(pipe.take(&large, &mut given), Ok(Step::Taken), "the connection alone broke");
    pipe.restart();
    begin_again(&mut pipe, &mut given);
    assert!(matches!(pipe.take(&large, &mut given), Ok(Step::Replaced(_))));
    assert_eq!(given.lines, [pointer(0), pointer(0)]);
    assert_eq!(given.terms.iter().map(|terms| terms.2).collect::<Vec<_>>(), [false, true]);
    pipe.take(&data(0, &commit(256, 266)), &mut given).unwrap();
    let ticket = given.tickets.remove(1);
    pipe.acked(ticket, 1, ticket.charge());
    assert_eq!(pipe.frontier().confirmed().lsn().to_wire(), 266);
}

/// Only the broker may know what is too large: first the record, then its pointer, then its letter.
#[test]
fn what_the_broker_finds_too_large_goes_as_a_pointer_and_is_poison_if_that_is_refused_too() {
    let topics = |flaw: Flaw| {
        let (mut pipe, mut given) = pointing();
        given.payload_max = 1000;
        let large = row(Some("1"), &large(), None);
        assert_eq!(pipe.take(&large, &mut given), Ok(Step::Taken));
        let mut steps = Vec::new();
        loop {
            pipe.suspect(flaw, "the broker says no");
            pipe.restart();
            begin_again(&mut pipe, &mut given);
            let step = pipe.take(&large, &mut given).unwrap();
            let stuck = matches!(step, Step::Stuck(_));
            steps.push(match step {
                Step::Taken => "record",
                Step::Replaced(instead) => instead.policy(),
                Step::Stuck(Stuck::Poison(poison)) => {
                    assert_eq!(poison.reason, "the broker says no");
                    "stuck"
                }
                other => panic!("{other:?}"),
            });
            if stuck {
                break;
            }
        }
        // Somebody may have mended it.
        pipe.pardon();
        assert_eq!(pipe.take(&large, &mut given), Ok(Step::Taken));
        steps
    };
    assert_eq!(topics(Flaw::Size), ["record", "pointer", "dead_letter", "stuck"]);
    assert_eq!(topics(Flaw::Other), ["record", "dead_letter", "stuck"]);
}

/// A pointer that is refused here leaves its letter to the broker, which is asked once.
#[test]
fn a_letter_that_is_refused_behind_a_pointer_is_not_sent_again() {
    let (mut pipe, mut given) = pointing();
    let large = row(Some("1"), &large(), None);
    given.payload_max = 1000;
    assert_eq!(pipe.take(&large, &mut given), Ok(Step::Taken));
    let mut refuse = |given: &mut Given| {
        pipe.suspect(Flaw::Size, "the broker says no");
        pipe.restart();
        begin_again(&mut pipe, given);
        pipe.take(&large, given)
    };
    assert_eq!(refuse(&mut given), Ok(Step::Taken));
    // Now even a pointer is too large for what can be known here.
    given.closed = "t1";
    assert_eq!(reason(refuse(&mut given)), "the broker says no");
    assert!(matches!(refuse(&mut given), Ok(Step::Stuck(Stuck::Poison(_)))));
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
