//! The pipe between a walsender that may say anything and a Kafka that acks in any order.
//!
//! An input is a program: what comes, what is acked, what breaks. The relay's own part of the
//! contract is kept, as `relay` and `supervise` do: after an error the connection ends, a row is
//! stepped over only while the pipe is stuck at it, and a producer that is lost takes its records
//! with it. What must hold is small and asked after every step.

use std::collections::BTreeSet;

use walrelay::config::{
    Content, Format, Message, OnOversize, OnPoison, Outbox, POINTER_HEADER, Prefix,
};
use walrelay::frontier::{Frontier, Limits, Ticket};
use walrelay::lsn::{Lsn, Position};
use walrelay::outbox::Outboxes;
use walrelay::pg::known::Known;
use walrelay::pg::table::TableName;
use walrelay::pipe::{Flaw, Pipe, Refused, Sink, Step};
use walrelay::position::Start;
use walrelay::record::Record;
use walrelay::template::{CONTENT, PREFIX, REST, Source, Subject, Template};

use super::input::Input;
use super::testing::{
    Bytes, begin, commit, data as xlog_data, emitted, insert, keepalive, relation,
};

/// The target.
pub fn pipe(data: &[u8]) {
    let mut input = Input::of(data);
    let mut world = World::new(&mut input);
    while !input.is_empty() {
        world.step(&mut input);
        world.check();
    }
    world.finish();
}

/// `orders`, whose topic is in the row, and `files` with a column of bytes; and messages of two
/// kinds.
fn outboxes() -> Outboxes {
    let name = |name: &str| TableName { schema: "public".into(), name: name.into() };
    let text = |text: &str| Some(text.to_owned());
    let column = |name: &str| Source::Column(name.to_owned());
    let orders = Outbox {
        id: text("id"),
        key: Some(column("key")),
        headers: vec![("kind".into(), column("topic"))],
        on_poison: OnPoison::Skip,
        on_oversize: OnOversize::Pointer,
        ..Outbox::bare(name("orders"), "payload", Template::parse("o.{topic}").unwrap())
    };
    let files = Outbox {
        payload_format: Format::Json,
        headers: vec![("kind".into(), column("topic"))],
        header_format: Format::JsonWithSchema,
        on_poison: OnPoison::DeadLetter,
        dead_letter_topic: text("dead"),
        ..Outbox::bare(name("files"), "payload", Template::parse("files").unwrap())
    };
    let message = |prefix, content, columns: &[&str], mapping| Message {
        prefix: Prefix::parse(prefix).unwrap(),
        content,
        columns: columns.iter().map(|&name| name.to_owned()).collect(),
        mapping: Outbox { table: TableName::default(), ..mapping },
    };
    let json = Outbox { partition: text("shard"), timestamp: text("at"), ..orders.clone() };
    let columns = ["id", "key", "payload", "topic", "shard", "at"];
    let json = message("orders", Content::Json, &columns, json);
    let topic = Template::topic_over(Subject::Message, "{$rest}").unwrap();
    let raw = Outbox { key: Some(column(PREFIX)), ..Outbox::bare(name(""), CONTENT, topic) };
    let raw = Outbox { on_poison: OnPoison::Skip, ..raw };
    let raw = message("raw.*", Content::Raw, &[PREFIX, CONTENT, REST], raw);
    let outboxes = Outboxes::new(vec![orders, files], Some("position".into()));
    outboxes.with_messages(vec![json, raw])
}

/// Whether messages of this prefix are events.
fn is_event(prefix: &[u8]) -> bool {
    prefix == b"orders" || prefix.starts_with(b"raw.")
}

/// A record that Kafka has not acked.
#[derive(Debug)]
struct Flying {
    position: Position,
    ticket: Ticket,
}

#[derive(Debug, Default)]
struct Kafka {
    flying: Vec<Flying>,
    /// The last row this producer was given.
    last: Option<Position>,
    sent: usize,
    refusal: Option<Refused>,
}

impl Sink for Kafka {
    fn send(&mut self, record: &Record<'_>, ticket: Ticket) -> Result<(), Refused> {
        // What is too large has a pointer that is not.
        let points = record.headers.iter().any(|(name, _)| name == POINTER_HEADER);
        if let Some(refusal) = &self.refusal
            && (*refusal == Refused::Full || !points)
        {
            return Err(refusal.clone());
        }
        assert!(record.headers.iter().count() <= record.headers.len());
        assert!(!record.topic.is_empty() && ticket != Ticket::POSITION);
        assert!(ticket.charge() >= record.charge() && ticket.charge() < record.charge() + 64);
        // Behind it is what is said of a row that is no record.
        let mut headers = record.headers.iter();
        let (name, text) = headers.find(|(name, _)| *name == "position").unwrap();
        let position = position(name, std::str::from_utf8(text.unwrap()).unwrap());
        assert!(self.last < Some(position), "{position} after {:?}", self.last);
        self.last = Some(position);
        self.flying.push(Flying { position, ticket });
        self.sent += 1;
        Ok(())
    }
}

fn position(header: &str, text: &str) -> Position {
    assert_eq!((header, text.len()), ("position", Position::TEXT_LEN));
    let number = |part: &str| u64::from_str_radix(part, 16).unwrap();
    let [epoch, commit, row] = text.split('-').map(number).collect::<Vec<_>>()[..] else {
        panic!("{text}")
    };
    let narrow = |number: u64| u32::try_from(number).unwrap();
    Position { epoch: narrow(epoch), commit: Lsn::from_wire(commit), row: narrow(row) }
}

struct World {
    pipe: Pipe,
    kafka: Kafka,
    limits: Limits,
    /// What was confirmed at the last look.
    confirmed: Lsn,
    /// The message the pipe is stuck at or has no room for.
    held: Option<(Vec<u8>, bool)>,
    /// What an honest walsender would use for the next LSN.
    at: u64,
    /// The transaction it is in.
    inside: Option<u64>,
    /// The next row of the transaction that the pipe is in.
    next: Option<Position>,
    /// Rows of this history that Kafka has acked, or that were stepped over.
    settled: BTreeSet<Position>,
    /// Every row of this history that came.
    ever: BTreeSet<Position>,
    /// Rows that were lost with a producer, and must come again.
    owed: BTreeSet<Position>,
    /// Those of which the server has sent a later one first.
    passed_over: BTreeSet<Position>,
    /// Where this history began.
    start: Option<Position>,
    epoch: u32,
}

impl World {
    fn new(input: &mut Input<'_>) -> World {
        let records = 1 + input.below(12);
        let bytes = if input.flag() { 1 << 20 } else { 2000 };
        let limits = Limits { records, bytes, span: 1 + input.below(5) };
        let pipe = Pipe::new(outboxes(), Frontier::new(Lsn::ZERO, limits));
        let mut world = World {
            pipe,
            kafka: Kafka::default(),
            limits,
            confirmed: Lsn::ZERO,
            held: None,
            at: 16,
            inside: None,
            next: None,
            settled: BTreeSet::new(),
            ever: BTreeSet::new(),
            owed: BTreeSet::new(),
            passed_over: BTreeSet::new(),
            start: None,
            epoch: 0,
        };
        world.reconnect();
        world
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(32) {
            0..8 => self.rows(input),
            8..11 => self.begin(input),
            11..14 => self.commit(input),
            14..16 => self.keepalive(input),
            16..21 => self.ack(input),
            21 => self.refuse(input),
            22 => self.reconnect(),
            23 => self.restart(),
            24 => self.begin_elsewhere(input),
            25 => {
                self.pipe.suspect(Flaw::Size, "too large");
                self.restart();
            }
            26 => self.pipe.pardon(),
            27 => {
                let (oid, outbox) = (input.below(6).try_into().unwrap(), input.below(3));
                self.pipe.know(&[Known { oid, outbox, columns: Vec::new() }]);
            }
            28 => self.announce(input),
            29 => self.offer_again(input),
            30 => self.take(&xlog_data(input.u64(), input.bytes())),
            _ => self.take(input.bytes()),
        }
    }

    /// Any LSN, or a likely one.
    fn lsn(&self, input: &mut Input<'_>) -> u64 {
        let step = u64::from(input.byte());
        match step {
            0..200 => self.at.saturating_add(step),
            200..250 => self.at.saturating_sub((step - 200) * 8),
            _ => input.u64(),
        }
    }

    fn begin(&mut self, input: &mut Input<'_>) {
        let at = self.lsn(input);
        self.take(&xlog_data(at, &begin(at, input.byte().into(), 1)));
        (self.at, self.inside) = (at, Some(at));
    }

    fn commit(&mut self, input: &mut Input<'_>) {
        let end = self.lsn(input);
        let at = self.inside.take().unwrap_or(end);
        self.take(&xlog_data(end, &commit(at, end)));
        self.at = end;
    }

    fn keepalive(&mut self, input: &mut Input<'_>) {
        let end = self.lsn(input);
        self.take(&keepalive(end, input.flag()));
    }

    fn rows(&mut self, input: &mut Input<'_>) {
        let shape = input.byte();
        // Long enough for a pointer in its place, and a legal topic.
        let long = [b'a'; 200];
        let texts = [&b""[..], &long, b"a b", b"events", b"\\x00ff", b"\\x0", b"\xFF"];
        let text = |number: u8| texts.get(usize::from(number % 8)).copied();
        let row = [text(shape), Some(&b"key"[..]), text(shape >> 3), text(3 - (shape >> 7))];
        let insert = |oid, width: usize| xlog_data(self.at, &insert(oid, &row[..width]));
        let message = match input.byte() {
            wide @ 0..150 => insert(1 + u32::from(wide) % 2, 4),
            150..200 => self.message(input),
            odd => insert(u32::from(odd) % 6, usize::from(odd) % 5),
        };
        for _ in 0..=input.below(4) {
            self.take(&message);
        }
    }

    /// A message, more or less as it should be.
    fn message(&self, input: &mut Input<'_>) -> Vec<u8> {
        let kinds = input.byte();
        let prefix = [&b"orders"[..], b"raw.t", b"raw.", b"raw.a b", b"other", b"\xFF", b""];
        let prefix = prefix[usize::from(kinds % 7)];
        let odd = input.bytes();
        let topic = ["\"events\"", "5", "null", "\"a b\"", "\"\\uD800\"", "{\"a\":[\"}\"]}"];
        let topic = topic[usize::from(kinds >> 3) % 6];
        let content = format!(
            "{{\"id\":\"1\", \"topic\" : {topic},\"payload\":{{\"a\":[1]}},\"at\":{}}}",
            input.byte()
        );
        let content = if kinds & 128 == 0 { content.as_bytes() } else { odd };
        xlog_data(self.at, &emitted(kinds & 64 == 0, prefix, content))
    }

    /// Tables as they should be, and as somebody may have made them.
    fn announce(&mut self, input: &mut Input<'_>) {
        let oid = input.below(6).try_into().unwrap();
        let table = ["orders", "files", "stranger"][input.below(3)];
        let columns = ["id", "key", "payload", "topic", "more"];
        let first = input.below(3);
        let columns: Vec<_> =
            columns[first..].iter().map(|name| (*name, u32::from(input.byte() % 2) * 17)).collect();
        self.take(&xlog_data(0, &relation(oid, "public", table, &columns)));
    }

    fn offer_again(&mut self, input: &mut Input<'_>) {
        let Some((message, stuck)) = self.held.take() else { return };
        if stuck && input.flag() {
            self.pipe.skip_row();
            self.settled.extend(self.next);
            self.note(&message);
        } else {
            self.take(&message);
        }
    }

    fn take(&mut self, body: &[u8]) {
        // Whatever the pipe is held up by comes first.
        if self.held.is_some() {
            return;
        }
        let before = (self.pipe.progress(), self.kafka.sent);
        let step = self.pipe.take(body, &mut self.kafka);
        let moved = before != (self.pipe.progress(), self.kafka.sent);
        match step {
            Ok(
                Step::Taken
                | Step::ReplyWanted
                | Step::Updated(_)
                | Step::Loose(_)
                | Step::Replaced(_),
            ) => {
                self.note(body);
            }
            Ok(Step::Full) => {
                let refused = self.kafka.refusal == Some(Refused::Full);
                assert!(refused || !self.kafka.flying.is_empty(), "nothing will make room");
                assert!(!moved);
                self.held = Some((body.to_vec(), false));
            }
            Ok(Step::Stuck(stuck)) => {
                assert!(!stuck.to_string().is_empty() && !moved);
                assert_eq!(self.pipe.take(body, &mut self.kafka), Ok(Step::Stuck(stuck)));
                self.held = Some((body.to_vec(), true));
            }
            Err(error) => {
                assert!(!error.to_string().is_empty() && !moved);
                self.reconnect();
            }
        }
    }

    /// The message is done with. If it is a row, somebody has it: nothing else ever will.
    fn note(&mut self, body: &[u8]) {
        let (Some(b'w'), Some(tag)) = (body.first(), body.get(25)) else { return };
        let lsn = |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().unwrap());
        match tag {
            b'B' => {
                let commit = Lsn::from_wire(lsn(26));
                self.next = Some(Position { epoch: self.epoch, commit, row: 0 });
            }
            b'C' => self.next = None,
            b'M' if body[26] & 1 == 0 => {}
            b'M' if !body[35..].split(|byte| *byte == 0).next().is_some_and(is_event) => {
                // It counts, and nobody has it.
                if let Some(row) = &mut self.next {
                    row.row += 1;
                }
            }
            b'I' | b'M' => {
                let row = self.next.as_mut().unwrap();
                let flying = self.kafka.flying.iter().any(|record| record.position == *row);
                let known = flying || self.settled.contains(row) || Some(*row) <= self.start;
                // Nobody could tell a row that should have come before from one that did.
                let late = self.ever.last() > Some(row) && !self.ever.contains(row);
                assert!(known || late || self.passed_over.contains(row), "{row} is lost");
                if known {
                    self.ever.insert(*row);
                    self.owed.remove(row);
                    let behind = self.owed.split_off(row);
                    self.passed_over.append(&mut self.owed);
                    self.owed = behind;
                }
                row.row += 1;
            }
            _ => {}
        }
    }

    /// Records are acked one by one, or in runs of one transaction's.
    fn ack(&mut self, input: &mut Input<'_>) {
        let flying = &mut self.kafka.flying;
        if flying.is_empty() {
            return;
        }
        let chosen = flying[input.below(256) % flying.len()].ticket;
        let mut left = 1 + input.below(4);
        let (mut records, mut bytes) = (0, 0);
        flying.retain(|record| {
            let acked = left > 0 && record.ticket.same_span(chosen);
            if acked {
                (left, records) = (left - 1, records + 1);
                bytes += record.ticket.charge();
                self.settled.insert(record.position);
            }
            !acked
        });
        self.pipe.acked(chosen, records, bytes);
    }

    fn refuse(&mut self, input: &mut Input<'_>) {
        self.kafka.refusal = match input.below(3) {
            0 => None,
            1 => Some(Refused::Full),
            _ => Some(Refused::Unsendable(Flaw::Size, "too large".to_owned())),
        };
    }

    fn reconnect(&mut self) {
        self.pipe.reconnect();
        (self.held, self.inside, self.next) = (None, None, None);
        self.at = self.pipe.frontier().confirmed().lsn().to_wire();
        let columns = [("id", 25), ("key", 25), ("payload", 25), ("topic", 25)];
        self.take(&xlog_data(0, &relation(1, "public", "orders", &columns)));
        let columns = [("id", 25), ("key", 25), ("payload", 17), ("topic", 25)];
        self.take(&xlog_data(0, &relation(2, "public", "files", &columns)));
    }

    fn restart(&mut self) {
        self.pipe.restart();
        let lost = std::mem::take(&mut self.kafka);
        self.owed.extend(lost.flying.iter().map(|record| record.position));
        assert_eq!(self.pipe.reached(), self.pipe.frontier().reached());
        self.reconnect();
    }

    /// Another history: a record of ours tells where it begins.
    fn begin_elsewhere(&mut self, input: &mut Input<'_>) {
        let from = self.lsn(input);
        let epoch = u32::from(input.byte());
        let commit = Lsn::from_wire(from.saturating_add(input.below(8).try_into().unwrap()));
        let inside = Position { epoch, commit, row: input.byte().into() };
        let from = Lsn::from_wire(from);
        let inside = input.flag().then_some(inside);
        self.pipe.start(&Start { from, inside, epoch, remark: None });
        self.kafka = Kafka { last: inside, ..Kafka::default() };
        (self.confirmed, self.start, self.epoch) = (from, inside, epoch);
        self.settled.clear();
        for rows in [&mut self.ever, &mut self.owed, &mut self.passed_over] {
            rows.clear();
        }
        self.reconnect();
    }

    fn check(&mut self) {
        let frontier = self.pipe.frontier();
        let confirmed = frontier.confirmed().lsn();
        assert!(confirmed >= self.confirmed, "{confirmed} after {}", self.confirmed);
        self.confirmed = confirmed;
        let reached = frontier.reached();
        assert_eq!(reached.flush.lsn(), confirmed);
        assert!(reached.inside.is_none_or(|row| row.commit >= confirmed));
        assert!(self.pipe.reached().inside >= reached.inside);
        let mut bytes = 0;
        for Flying { position, ticket } in &self.kafka.flying {
            let commit = position.commit;
            assert!(confirmed <= commit, "{confirmed} is confirmed, {position} is not acked");
            assert!(reached.inside < Some(*position), "{reached:?}, {position} is not acked");
            bytes += ticket.charge();
        }
        let records = self.kafka.flying.len();
        assert_eq!((frontier.records(), frontier.bytes()), (records, bytes));
        assert_eq!(frontier.is_idle(), records == 0);
        assert!(records <= self.limits.records);
        assert!(bytes <= self.limits.bytes || records == 1, "{bytes} of {:?}", self.limits);
        if let Some(last) = frontier.last() {
            assert_eq!(Some(last), self.kafka.last);
        }
    }

    /// Whatever happened, an honest server and a willing Kafka get on.
    fn finish(&mut self) {
        self.kafka.refusal = None;
        self.restart();
        self.pipe.pardon();
        let confirmed = self.pipe.frontier().confirmed().lsn().to_wire();
        let inside = self.pipe.frontier().reached().inside;
        let at = inside.map_or(confirmed, |row| row.commit.to_wire().max(confirmed));
        let Some(at) = at.checked_add(100).filter(|at| *at < u64::MAX - 100) else { return };
        self.take(&xlog_data(at, &begin(at, 0, 1)));
        // Inside a transaction it may lie behind rows that are still to come.
        self.take(&keepalive(at + 50, true));
        let text = Some(&b"x"[..]);
        for _ in 0..5 {
            let row = xlog_data(at, &insert(1, &[text, text, text, text]));
            self.take(&row);
            while self.held.is_some() {
                self.ack(&mut Input::of(&[]));
                self.offer_again(&mut Input::of(&[]));
            }
        }
        self.take(&xlog_data(at, &commit(at, at + 10)));
        let message = Bytes::tag(b'M').raw(&[0]).u64(at).text("").u32(0);
        self.take(&xlog_data(at, &message.0));
        while !self.kafka.flying.is_empty() {
            self.ack(&mut Input::of(&[]));
            self.check();
        }
        assert_eq!(
            (self.kafka.sent, self.pipe.frontier().confirmed().lsn().to_wire()),
            (5, at + 10)
        );
    }
}
