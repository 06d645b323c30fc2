//! The pipe between a model of the walsender and a model of Kafka, beside a naive oracle.
//!
//! A schedule of random steps: messages come, records are acked in any order, alone or in runs,
//! the sink is full, rows are poison or refused for good and stepped over sooner or later, the
//! connection breaks anywhere, the producer is lost. After each step the frontier must equal
//! what the oracle finds by looking through everything there ever was, and each record sent must
//! be the very next row, under its own position.

use super::*;
use crate::config::{Content, Message, Outbox, Prefix};
use crate::frontier::Limits;
use crate::pg::table::TableName;
use crate::record::Record;
use crate::template::{Source, Template};
use crate::testing::{Random, begin, commit, data, emitted, insert, keepalive, relation, seeds};

const OID: u32 = 16_384;

fn outboxes() -> Outboxes {
    let table = TableName { schema: "public".into(), name: "outbox".into() };
    let outbox = Outbox {
        id: Some("id".into()),
        key: Some(Source::Column("key".into())),
        ..Outbox::bare(table, "payload", Template::parse("{topic}").unwrap())
    };
    let message = Message {
        prefix: Prefix::parse("event.*").unwrap(),
        content: Content::Json,
        columns: ["id", "key", "payload", "topic"].map(str::to_owned).to_vec(),
        mapping: Outbox { table: TableName::default(), ..outbox.clone() },
    };
    Outboxes::new(vec![outbox], Some("position".into())).with_messages(vec![message])
}

/// Now the number of records is the limit, now their bytes.
fn tight(random: &mut Random) -> Limits {
    let bytes = if random.below(2) == 0 { 1 << 20 } else { 3000 };
    Limits { records: 10, bytes, span: 4 }
}

/// No topic can be made for such a row.
fn is_poison(row: u64) -> bool {
    row % 11 == 4
}

/// Such a row is emitted, and not inserted.
fn is_message(row: u64) -> bool {
    row % 5 < 2
}

/// A transaction in the server's log.
#[derive(Clone, Debug)]
struct Logged {
    commit: u64,
    end: u64,
    /// Payloads, numbered through all transactions.
    rows: std::ops::Range<u64>,
}

impl Logged {
    fn messages(&self) -> Vec<Vec<u8>> {
        let columns = [("id", 25), ("key", 25), ("payload", 25), ("topic", 25)];
        let mut messages = vec![
            data(self.commit, &begin(self.commit, 0, 1)),
            data(0, &relation(OID, "public", "outbox", &columns)),
        ];
        for row in self.rows.clone() {
            let text = row.to_string();
            let text = Some(text.as_bytes());
            let topic = (!is_poison(row)).then_some(b"events".as_slice());
            if is_message(row) {
                let topic = topic.map_or("null", |_| "\"events\"");
                let content = format!(
                    r#" {{"more": [{row}], "topic": {topic}, "payload": {row}, "key": "{row}",
                        "id": "{row}"}} "#
                );
                let message = emitted(true, b"event.x", content.as_bytes());
                messages.push(data(self.commit - 1, &message));
                continue;
            }
            // Rows of one COPY share their LSN; it must not matter.
            messages.push(data(self.commit - 1, &insert(OID, &[text, text, text, topic])));
        }
        messages.push(data(self.end, &commit(self.commit, self.end)));
        messages
    }

    /// The position header of a row.
    fn position(&self, row: u64) -> String {
        format!("00000000-{:016X}-{:08X}", self.commit, row - self.rows.start)
    }
}

fn log(random: &mut Random) -> Vec<Logged> {
    let (mut at, mut row) = (100, 0);
    let transactions = (0..40).map(|_| {
        let rows = match random.below(10) {
            0..3 => 0,
            3..9 => 1 + random.below(4),
            _ => 20 + random.below(20),
        };
        let commit = at + 1 + random.below(50);
        let logged = Logged { commit, end: commit + 10, rows: row..row + rows };
        (at, row) = (logged.end, row + rows);
        logged
    });
    transactions.collect()
}

/// What Kafka has been given by the current producer.
#[derive(Debug, Default)]
struct Broker {
    /// Row, ticket, whether acked.
    records: Vec<(u64, Ticket, bool)>,
    /// The position header of the last one.
    position: Vec<u8>,
    full: bool,
    /// The next record is one that no Kafka takes.
    unsendable: bool,
}

impl Sink for Broker {
    fn send(&mut self, record: &Record<'_>, ticket: Ticket) -> Result<(), Refused> {
        if self.full {
            return Err(Refused::Full);
        }
        if std::mem::take(&mut self.unsendable) {
            return Err(Refused::Unsendable(Flaw::Size, "too large".to_owned()));
        }
        let payload = std::str::from_utf8(record.payload.unwrap()).unwrap();
        self.records.push((payload.parse().unwrap(), ticket, false));
        self.position = record.headers.iter().last().unwrap().1.unwrap().to_vec();
        Ok(())
    }
}

/// Everything that was sent or read since the producer began, in order.
#[derive(Debug)]
enum Event {
    Sent { row: u64, acked: bool },
    Read(u64),
}

struct World {
    random: Random,
    log: Vec<Logged>,
    pipe: Pipe,
    broker: Broker,
    /// What the current connection still brings.
    coming: std::collections::VecDeque<Vec<u8>>,
    events: Vec<Event>,
    /// Commit LSN of the transaction of which rows were sent, until its COMMIT is read.
    half_sent: Option<u64>,
    /// The next row that may be sent.
    next: u64,
}

impl World {
    fn new(mut random: Random) -> World {
        let log = log(&mut random);
        let pipe = Pipe::new(outboxes(), Frontier::new(Lsn::ZERO, tight(&mut random)));
        let mut world = World {
            random,
            log,
            pipe,
            broker: Broker::default(),
            coming: std::collections::VecDeque::new(),
            events: Vec::new(),
            half_sent: None,
            next: 0,
        };
        world.connect();
        world
    }

    /// The walsender sends every transaction whose commit record does not lie before the start.
    fn connect(&mut self) {
        let start = self.pipe.frontier().confirmed().lsn().to_wire();
        self.coming.clear();
        let mut passed = 0;
        for logged in self.log.iter().filter(|logged| logged.commit >= start) {
            if self.random.below(4) == 0 {
                let between = passed + self.random.below(logged.commit - passed);
                self.coming.push_back(keepalive(between, false));
                let prefix = [&b"event.x"[..], b"other"][self.random.index(2)];
                self.coming.push_back(data(between, &emitted(false, prefix, b"loose")));
            }
            for message in logged.messages() {
                // A keepalive inside a transaction may carry any LSN, also one behind the rows.
                if self.random.below(20) == 0 && message.get(25) != Some(&b'B') {
                    self.coming.push_back(keepalive(logged.end + 1000, true));
                }
                self.coming.push_back(message);
            }
            passed = logged.end;
        }
        let quiet = self.log.last().unwrap().end + 500;
        self.coming.push_back(keepalive(quiet, false));
    }

    fn step(&mut self) {
        match self.random.below(40) {
            0 => self.disconnect(),
            1 => self.lose_the_producer(),
            2 => self.broker.full = !self.broker.full,
            3 => self.broker.unsendable = true,
            4..12 => self.ack(),
            _ => self.message(),
        }
        self.check();
    }

    fn message(&mut self) {
        let Some(message) = self.coming.front() else { return };
        let sent = self.broker.records.len();
        match self.pipe.take(message, &mut self.broker).unwrap() {
            Step::Full => {
                assert_eq!(self.broker.records.len(), sent);
                let in_flight = self.pipe.frontier().records();
                assert!(self.broker.full || in_flight > 0, "full, and nothing in flight");
                return;
            }
            Step::Taken
            | Step::ReplyWanted
            | Step::Updated(_)
            | Step::Loose(_)
            | Step::Replaced(_) => {
                self.note(sent);
            }
            Step::Stuck(stuck) => {
                self.check_stuck(&stuck);
                assert_eq!(self.broker.records.len(), sent);
                if self.random.below(3) > 0 {
                    return;
                }
                self.pipe.skip_row();
                self.next += 1;
            }
        }
        self.coming.pop_front();
    }

    /// It is stuck at the next row only, never at one that was sent or stepped over.
    fn check_stuck(&self, stuck: &Stuck) {
        let Stuck::Poison(poison) = stuck else { panic!("{stuck}") };
        assert_eq!(poison.id, Some(self.next.to_string()));
        let of = self.log.iter().find(|logged| logged.rows.contains(&self.next)).unwrap();
        assert_eq!(poison.position.to_string(), of.position(self.next));
        assert!(is_poison(self.next) || poison.reason == "too large", "{poison}");
    }

    /// The oracle's own reading of the message, and of what it made the pipe send.
    fn note(&mut self, sent: usize) {
        if let Some((row, ..)) = self.broker.records.get(sent) {
            assert_eq!(*row, self.next, "not the next row");
            let of = self.log.iter().find(|logged| logged.rows.contains(row)).unwrap();
            assert_eq!(self.broker.position, of.position(*row).as_bytes());
            self.half_sent = Some(of.commit);
            self.events.push(Event::Sent { row: *row, acked: false });
            self.next += 1;
        }
        let Some(message) = self.coming.front() else { return };
        let number = |at: usize| u64::from_be_bytes(message[at..at + 8].try_into().unwrap());
        let read = match (message[0], message.get(25)) {
            (b'k', _) if self.pipe.transaction.is_none() => number(1),
            (b'w', Some(b'C')) => {
                self.half_sent.take_if(|commit| *commit == number(27));
                number(35)
            }
            _ => return,
        };
        // What is half sent lies behind it.
        let half = self.half_sent.and_then(|commit| self.log.iter().find(|l| l.commit == commit));
        let of_half = |event: &Event| match event {
            Event::Sent { row, .. } => half.is_some_and(|half| half.rows.contains(row)),
            Event::Read(_) => false,
        };
        let behind = self.events.iter().position(of_half).unwrap_or(self.events.len());
        self.events.insert(behind, Event::Read(read));
    }

    fn ack(&mut self) {
        let records = self.broker.records.iter_mut().filter(|(.., acked)| !*acked);
        let mut pending: Vec<_> = records.collect();
        if pending.is_empty() {
            return;
        }
        let (_, chosen, _) = *pending[self.random.index(pending.len())];
        pending.retain(|(_, ticket, _)| ticket.same_span(chosen));
        let first = self.random.index(pending.len());
        let run = 1 + self.random.index(pending.len() - first);
        let mut bytes = 0;
        for (row, ticket, acked) in &mut pending[first..first + run] {
            *acked = true;
            bytes += ticket.charge();
            for event in &mut self.events {
                match event {
                    Event::Sent { row: sent, acked } if sent == row => *acked = true,
                    _ => {}
                }
            }
        }
        self.pipe.acked(chosen, run, bytes);
    }

    fn disconnect(&mut self) {
        self.pipe.reconnect();
        self.connect();
    }

    fn lose_the_producer(&mut self) {
        let confirmed = self.confirmed();
        self.pipe.restart();
        self.broker.records.clear();
        self.events = vec![Event::Read(confirmed)];
        self.pipe.reconnect();
        self.half_sent = None;
        let first = self.log.iter().find(|logged| logged.commit >= confirmed);
        self.next = first.map_or(self.log.last().unwrap().rows.end, |logged| logged.rows.start);
        // Rows of a transaction that are known to be there are stepped over.
        if let Some(inside) = self.pipe.frontier().reached().inside {
            assert_eq!(first.map(|logged| logged.commit), Some(inside.commit.to_wire()));
            self.next += u64::from(inside.row) + 1;
        }
        self.connect();
    }

    /// The highest LSN read before the first row that is not acked.
    fn confirmed(&self) -> u64 {
        let done = |event: &&Event| !matches!(event, Event::Sent { acked: false, .. });
        let reads = self.events.iter().take_while(done).filter_map(|event| match event {
            Event::Read(lsn) => Some(*lsn),
            Event::Sent { .. } => None,
        });
        reads.max().unwrap_or(0)
    }

    fn check(&self) {
        let frontier = self.pipe.frontier();
        assert_eq!(frontier.confirmed().lsn().to_wire(), self.confirmed());
        let pending = self.broker.records.iter().filter(|(.., acked)| !acked);
        let bytes: usize = pending.clone().map(|(_, ticket, _)| ticket.charge()).sum();
        assert_eq!((frontier.records(), frontier.bytes()), (pending.count(), bytes));
    }
}

#[test]
fn random_schedules_lose_repeat_and_reorder_nothing() {
    seeds(300, |random| {
        let mut world = World::new(random);
        (0..600).for_each(|_| world.step());
        // And it gets to the end.
        world.broker.full = false;
        world.broker.unsendable = false;
        for _ in 0..10_000 {
            world.message();
            world.ack();
            world.check();
        }
        let last = world.log.last().unwrap();
        assert_eq!(world.next, last.rows.end, "every row was sent or stepped over");
        assert!(world.confirmed() >= last.end, "and confirmed");
    });
}
