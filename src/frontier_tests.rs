//! The frontier beside a naive oracle, which keeps every event there ever was and looks through
//! all of them after each step. Equality matters: "never beyond an unacked record" would also let
//! a frontier live that never moves.

use super::*;
use crate::testing::{Random, seeds};

fn lsn(raw: u64) -> Lsn {
    Lsn::from_wire(raw)
}

const ROOMY: Limits = Limits { records: usize::MAX, bytes: usize::MAX, span: usize::MAX };
const TIGHT: Limits = Limits { records: 8, bytes: 400_000, span: 3 };

fn row(commit: u64, row: u32) -> Position {
    Position { epoch: 0, commit: lsn(commit), row }
}

/// One thing the stream brought, in order.
#[derive(Debug)]
enum Event {
    Record {
        row: Position,
        ticket: Ticket,
        acked: bool,
    },
    /// Everything up to this LSN has been read.
    Passed(Lsn),
    /// A span was cut behind this row.
    Cut(Position),
}

/// All events ever.
#[derive(Debug, Default)]
struct Oracle {
    events: Vec<Event>,
}

impl Oracle {
    fn reached(&self) -> (Lsn, Option<Position>) {
        let (mut confirmed, mut inside) = (Lsn::ZERO, None);
        for event in &self.events {
            match event {
                Event::Record { acked: false, .. } => break,
                Event::Record { .. } => {}
                Event::Passed(lsn) => {
                    confirmed = confirmed.max(*lsn);
                    inside = inside.filter(|row: &Position| row.commit >= confirmed);
                }
                Event::Cut(row) => inside = Some(*row),
            }
        }
        (confirmed, inside)
    }

    fn pending(&mut self) -> Vec<(Ticket, &mut bool)> {
        let pending = self.events.iter_mut().filter_map(|event| match event {
            Event::Record { ticket, acked, .. } if !*acked => Some((*ticket, acked)),
            _ => None,
        });
        pending.collect()
    }
}

struct Run {
    random: Random,
    frontier: Frontier,
    oracle: Oracle,
    clock: u64,
    open: Option<Position>,
    /// Records since the transaction began or its span was cut.
    uncut: usize,
}

impl Run {
    fn tick(&mut self) -> Lsn {
        self.clock += 2 + self.random.below(100);
        lsn(self.clock)
    }

    fn step(&mut self) {
        let before = self.frontier.confirmed().lsn();
        match self.random.below(10) {
            0..3 => self.record(),
            3..5 => self.commit(),
            5 => self.keepalive(),
            6 if self.random.below(20) == 0 => self.lose_the_producer(),
            _ => self.ack(),
        }
        let pending = self.oracle.pending();
        let bytes: usize = pending.iter().map(|(ticket, _)| ticket.charge()).sum();
        let records = pending.len();
        assert_eq!((self.frontier.records(), self.frontier.bytes()), (records, bytes));
        let Reached { flush, inside } = self.frontier.reached();
        assert_eq!((flush.lsn(), inside), self.oracle.reached());
        assert!(flush.lsn() >= before, "what was told to Postgres is taken back");
        assert!(records <= TIGHT.records && self.frontier.spans.len() <= TIGHT.records);
        assert!(records <= 1 || bytes <= TIGHT.bytes);
    }

    fn record(&mut self) {
        let row = *self.open.get_or_insert(row(self.clock + 1, 0));
        let charge = usize::try_from(self.random.below(100_000)).unwrap();
        if !self.frontier.has_room(charge) {
            return;
        }
        let ticket = self.frontier.ticket(row, charge);
        assert!((charge..charge + 64).contains(&ticket.charge()));
        self.frontier.sent(row, 0, ticket);
        self.oracle.events.push(Event::Record { row, ticket, acked: false });
        self.open = Some(Position { row: row.row + 1, ..row });
        self.uncut += 1;
        if self.uncut == TIGHT.span {
            self.oracle.events.push(Event::Cut(row));
            self.uncut = 0;
        }
    }

    fn commit(&mut self) {
        let commit = self.open.take().map_or(lsn(self.clock + 1), |row| row.commit);
        self.uncut = 0;
        let end = self.tick();
        self.frontier.commit(commit, end);
        self.oracle.events.push(Event::Passed(end));
    }

    /// In front of a transaction that is half sent, or behind everything.
    fn keepalive(&mut self) {
        let fresh = self.open.is_none() && self.random.below(2) == 0;
        let at = if fresh { self.tick() } else { lsn(self.clock - self.clock / 20) };
        let at = self.open.map_or(at, |open| at.min(open.commit));
        self.frontier.advance(at);
        let of_open = |event: &Event| match (self.open, event) {
            (Some(open), Event::Record { row, .. } | Event::Cut(row)) => row.commit == open.commit,
            _ => false,
        };
        let behind = self.oracle.events.iter().position(of_open);
        let behind = behind.unwrap_or(self.oracle.events.len());
        self.oracle.events.insert(behind, Event::Passed(at));
    }

    fn ack(&mut self) {
        let mut pending = self.oracle.pending();
        if pending.is_empty() {
            return;
        }
        let chosen = self.random.index(pending.len());
        let (ticket, acked) = &mut pending[chosen];
        **acked = true;
        self.frontier.acked(*ticket, 1, ticket.charge());
    }

    fn lose_the_producer(&mut self) {
        let (confirmed, inside) = self.oracle.reached();
        self.frontier.reset();
        self.uncut = 0;
        self.oracle.events = vec![Event::Passed(confirmed)];
        // The transaction comes again, without the rows that are known to be there.
        self.oracle.events.extend(inside.map(Event::Cut));
        self.open = inside.map(|row| Position { row: row.row + 1, ..row });
    }
}

/// A8 and A15: acks in any order, a lost producer; and what is confirmed only grows.
#[test]
fn a8_a15_equals_the_oracle_after_every_step_of_random_schedules() {
    seeds(400, |random| {
        let frontier = Frontier::new(Lsn::ZERO, TIGHT);
        let mut run =
            Run { random, frontier, oracle: Oracle::default(), clock: 0, open: None, uncut: 0 };
        (0..200).for_each(|_| run.step());
    });
}

#[test]
fn a_ticket_survives_the_trip_through_a_pointer() {
    let mut frontier = Frontier::new(Lsn::ZERO, ROOMY);
    frontier.first = Ticket::SPAN_MASK;
    for commit in [1, 2, 3] {
        let ticket = frontier.ticket(row(commit, 0), 1 << 20);
        frontier.sent(row(commit, 0), 0, ticket);
        frontier.commit(lsn(commit), lsn(commit * 10));
        let back = Ticket::from_opaque(ticket.to_opaque());
        assert_eq!((back, back.charge()), (ticket, 1 << 20));
        let first = Ticket::from_opaque(ticket.as_first().to_opaque());
        assert!(first.is_first() && !back.is_first());
        assert_eq!((first.charge(), first.same_span(back)), (1 << 20, true));
        // The number of the span has gone through its 40 bits.
        frontier.acked(first, 1, first.charge());
        assert_eq!(frontier.confirmed().lsn(), lsn(commit * 10));
    }
    assert_eq!(frontier.first, Ticket::SPAN_MASK + 3);
}

#[test]
fn there_is_room_for_one_record_of_any_size_but_not_for_a_second() {
    let mut frontier = Frontier::new(Lsn::ZERO, Limits { records: 2, bytes: 1000, span: 9 });
    assert!(frontier.has_room(5000));
    let large = frontier.ticket(row(1, 0), 5000);
    frontier.sent(row(1, 0), 0, large);
    assert!(!frontier.has_room(1));
    frontier.acked(large, 1, large.charge());
    for n in 1..3 {
        assert!(frontier.has_room(400));
        let ticket = frontier.ticket(row(1, n), 400);
        frontier.sent(row(1, n), 0, ticket);
    }
    assert!(!frontier.has_room(0), "two records are the limit");
}

#[test]
fn what_stands_open_holds_everything_behind_it() {
    let mut frontier = Frontier::new(lsn(5), ROOMY);
    let ticket = frontier.ticket(row(10, 0), 1);
    frontier.sent(row(10, 0), 77, ticket);
    assert_eq!(frontier.acked(ticket, 1, ticket.charge()), 77);
    assert_eq!((frontier.confirmed().lsn(), frontier.open()), (lsn(5), Some(lsn(10))));
    // After a reconnect an earlier transaction comes again: it must not close this one.
    frontier.commit(lsn(7), lsn(8));
    assert_eq!((frontier.confirmed().lsn(), frontier.open()), (lsn(8), Some(lsn(10))));
    frontier.commit(lsn(10), lsn(12));
    assert_eq!((frontier.confirmed().lsn(), frontier.open()), (lsn(12), None));
}

#[test]
#[should_panic(expected = "an ack for a record that is not in flight")]
fn a_second_ack_for_the_same_record_is_a_bug_of_ours() {
    let mut frontier = Frontier::new(Lsn::ZERO, ROOMY);
    let ticket = frontier.ticket(row(1, 0), 1);
    frontier.sent(row(1, 0), 0, ticket);
    frontier.acked(ticket, 1, ticket.charge());
    frontier.acked(ticket, 1, ticket.charge());
}
