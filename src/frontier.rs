//! Which part of the stream is safely in Kafka, and so may be confirmed to Postgres.
//!
//! Records are acked in any order; Postgres takes one LSN, below which it forgets everything. The
//! frontier keeps a *span* for each transaction that has records, oldest first, and moves past a
//! span only when it is closed (its COMMIT has been read) and has no record pending. Confirmed is
//! always the *end* of a commit or an LSN from a keepalive: confirming the commit's own LSN would
//! have the transaction sent again on every reconnect.
//!
//! A long transaction is several spans: one is cut after so many records. Postgres cannot be told
//! that a part of a transaction is done, but a position record can, so that a restart need not
//! begin again at the first of a million rows.
//!
//! Transactions without records, and keepalives, only push the end of what stands before them.
//! They take no space. The number of spans is bounded like the number of records in flight: when
//! one partition hangs, what the others get on with is not endless.

use std::collections::VecDeque;

use crate::lsn::{Lsn, Position};

/// An LSN that may be confirmed. Only a [`Frontier`] makes one, so that nothing else can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flush(Lsn);

/// How far everything is in Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// What may be told to Postgres.
    pub flush: Flush,
    /// And behind it, the rows up to this one of the transaction that follows.
    pub inside: Option<Position>,
}

impl Flush {
    /// The position itself.
    pub fn lsn(self) -> Lsn {
        self.0
    }
}

/// Travels through librdkafka with a record and comes back with its ack.
///
/// Holds the low 40 bits of the span's number, the record's charge in units of 64 bytes, and
/// whether the record is the first of its partition, so that an ack needs no look-up and carries
/// no allocation. 40 bits would repeat after a trillion transactions, of which at most a million
/// are in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(usize);

const _: () = assert!(usize::BITS == 64, "a ticket needs a pointer of 64 bits");

impl Ticket {
    /// Not of a record of a row, but of the position record. (A charge of zero is no row's.)
    pub const POSITION: Ticket = Ticket(0);

    const SPAN_BITS: u32 = 40;
    const SPAN_MASK: u64 = (1 << Ticket::SPAN_BITS) - 1;
    const UNIT: usize = 64;
    const UNITS_MAX: usize = (1 << 23) - 1;
    const FIRST: usize = 1 << 63;

    fn units(charge: usize) -> usize {
        charge.div_ceil(Ticket::UNIT).min(Ticket::UNITS_MAX)
    }

    fn new(span: u64, charge: usize) -> Ticket {
        let units = Ticket::units(charge);
        Ticket(units << Ticket::SPAN_BITS | usize::try_from(span & Ticket::SPAN_MASK).unwrap_or(0))
    }

    /// For librdkafka's opaque pointer.
    pub fn to_opaque(self) -> usize {
        self.0
    }

    /// From librdkafka's opaque pointer.
    pub fn from_opaque(opaque: usize) -> Ticket {
        Ticket(opaque)
    }

    /// Whether both stand for records of the same transaction.
    pub fn same_span(self, other: Ticket) -> bool {
        self.span() == other.span()
    }

    /// The same, of a record whose ack is awaited before another one follows.
    #[must_use]
    pub fn as_first(self) -> Ticket {
        Ticket(self.0 | Ticket::FIRST)
    }

    /// Whether it was made by [`as_first`](Ticket::as_first).
    pub fn is_first(self) -> bool {
        self.0 & Ticket::FIRST != 0
    }

    /// Bytes given back when the record is acked, rounded up to the unit.
    pub fn charge(self) -> usize {
        (self.0 >> Ticket::SPAN_BITS & Ticket::UNITS_MAX) * Ticket::UNIT
    }

    fn span(self) -> u64 {
        self.0 as u64 & Ticket::SPAN_MASK
    }
}

/// How much may be sent and not yet acked.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records.
    pub records: usize,
    /// Bytes, as [`Record::charge`](crate::record::Record::charge) counts them.
    pub bytes: usize,
    /// Records after which a transaction's span is cut.
    pub span: usize,
}

/// A transaction with records in flight, or a part of it.
#[derive(Debug)]
struct Span {
    /// The last row in it, and so its transaction.
    last: Position,
    /// Commit time, microseconds since 2000-01-01 UTC.
    committed_us: i64,
    /// What is reached once this span is done.
    end: End,
    /// Records sent.
    sent: usize,
    /// Records sent and not acked.
    pending: usize,
}

/// Where a span ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Not known yet: more of the transaction is to come.
    Open,
    /// After its last row, with more of the transaction to come.
    Cut,
    /// With the transaction, here.
    Commit(Lsn),
}

/// The low-water mark of the stream.
#[derive(Debug)]
pub struct Frontier {
    /// Everything that ends at or before it is in Kafka, or was never ours to send.
    confirmed: Lsn,
    /// The row up to which the transaction behind `confirmed` is in Kafka as well.
    inside: Option<Position>,
    /// Oldest first; only the last one may be open.
    spans: VecDeque<Span>,
    /// Number of the first span. Numbers are never used twice.
    first: u64,
    records: usize,
    bytes: usize,
    limits: Limits,
}

impl Frontier {
    /// A frontier at `confirmed` with nothing in flight.
    pub fn new(confirmed: Lsn, limits: Limits) -> Frontier {
        let spans = VecDeque::new();
        Frontier { confirmed, inside: None, spans, first: 0, records: 0, bytes: 0, limits }
    }

    /// What may be told to Postgres.
    pub fn confirmed(&self) -> Flush {
        Flush(self.confirmed)
    }

    /// How far everything is in Kafka, to the row.
    pub fn reached(&self) -> Reached {
        Reached { flush: self.confirmed(), inside: self.inside }
    }

    /// Records in flight.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Bytes in flight.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything sent has been acked. A transaction may still be open.
    pub fn is_idle(&self) -> bool {
        self.records == 0
    }

    /// Whether a record of this charge may be sent. One may always be: a record larger than the
    /// limit must get through as well, alone.
    pub fn has_room(&self, charge: usize) -> bool {
        self.records == 0
            || (self.records < self.limits.records
                && self.spans.len() < self.limits.records
                && self.bytes + Ticket::units(charge) * Ticket::UNIT <= self.limits.bytes)
    }

    /// Up to where everything has been read: it is confirmed, or will be with what is in flight.
    pub fn read(&self) -> Lsn {
        match self.spans.back() {
            Some(&Span { end: End::Commit(end), .. }) => end.max(self.confirmed),
            _ => self.confirmed,
        }
    }

    /// The transaction that has records in flight and whose COMMIT has not been read.
    pub fn open(&self) -> Option<Lsn> {
        let last = self.spans.back().filter(|span| !matches!(span.end, End::Commit(_)));
        last.map(|span| span.last.commit)
    }

    /// The last row that was sent, while anything is in flight.
    pub fn last(&self) -> Option<Position> {
        self.spans.back().filter(|_| !self.is_idle()).map(|span| span.last)
    }

    /// The ticket for the next record. Changes nothing until [`sent`](Frontier::sent), because
    /// the producer may have no room.
    pub fn ticket(&self, row: Position, charge: usize) -> Ticket {
        let spans = self.spans.len() as u64;
        let joins = self.spans.back().is_some_and(|span| span.takes(row));
        Ticket::new(self.first + spans - u64::from(joins), charge)
    }

    /// The row's record was handed to the producer.
    ///
    /// # Panics
    /// If another transaction is still open: transactions never interleave in this protocol, and
    /// [`Pipe`](crate::pipe::Pipe) has made sure of it.
    pub fn sent(&mut self, row: Position, committed_us: i64, ticket: Ticket) {
        let open = self.open();
        assert!(open.is_none_or(|open| open == row.commit), "a transaction began inside another");
        if !self.spans.back().is_some_and(|span| span.takes(row)) {
            let span = Span { last: row, committed_us, end: End::Open, sent: 0, pending: 0 };
            self.spans.push_back(span);
        }
        if let Some(span) = self.spans.back_mut() {
            span.last = row;
            span.sent += 1;
            span.pending += 1;
            if span.sent >= self.limits.span {
                span.end = End::Cut;
            }
        }
        self.records += 1;
        self.bytes += ticket.charge();
    }

    /// Ends the span of the last record, so that its ack is progress by itself.
    pub fn cut(&mut self) {
        if let Some(span) = self.spans.back_mut().filter(|span| span.end == End::Open) {
            span.end = End::Cut;
        }
    }

    /// COMMIT of the transaction at `commit` was read; `end` is where it ends.
    pub fn commit(&mut self, commit: Lsn, end: Lsn) {
        if self.open() == Some(commit) {
            if let Some(span) = self.spans.back_mut() {
                span.end = End::Commit(end);
            }
            self.settle();
        } else {
            self.advance(end);
        }
    }

    /// Everything before `lsn` has been read: from a keepalive between transactions, or the end
    /// of a transaction without records. It becomes confirmed when everything sent before it is.
    ///
    /// A transaction of which a connection that broke has brought a part, and which this one has
    /// not begun yet, lies behind it.
    pub fn advance(&mut self, lsn: Lsn) {
        let lsn = self.open().map_or(lsn, |open| lsn.min(open));
        let before = self.spans.iter_mut().rev().find_map(|span| match &mut span.end {
            End::Commit(end) => Some(end),
            End::Open | End::Cut => None,
        });
        match before {
            Some(end) => *end = lsn.max(*end),
            None => self.confirm(lsn),
        }
    }

    fn confirm(&mut self, lsn: Lsn) {
        self.confirmed = self.confirmed.max(lsn);
        self.inside = self.inside.filter(|row| row.commit >= self.confirmed);
    }

    /// The broker has one record more. Returns when its transaction committed, in microseconds
    /// since 2000-01-01 UTC.
    ///
    /// # Panics
    /// If the ticket is not one in flight. Tickets come from our own producer, each once, and
    /// both are thrown away together.
    pub fn acked(&mut self, ticket: Ticket, records: usize, bytes: usize) -> i64 {
        let offset = ticket.span().wrapping_sub(self.first) & Ticket::SPAN_MASK;
        let span = usize::try_from(offset).ok().and_then(|offset| self.spans.get_mut(offset));
        let span = span.filter(|span| span.pending >= records);
        #[expect(clippy::expect_used, reason = "a wrong ticket is our own fault, never a peer's")]
        let span = span.expect("an ack for a record that is not in flight");
        span.pending -= records;
        let committed_us = span.committed_us;
        self.records -= records;
        self.bytes -= bytes;
        self.settle();
        committed_us
    }

    /// Begins at another place, with nothing in flight.
    pub fn begin(&mut self, confirmed: Lsn, inside: Option<Position>) {
        self.reset();
        self.confirmed = confirmed;
        self.inside = inside;
    }

    /// Forgets everything in flight: the producer is gone, and what it had not acked will be sent
    /// again from [`confirmed`](Frontier::confirmed).
    pub fn reset(&mut self) {
        self.first += self.spans.len() as u64;
        self.spans.clear();
        self.records = 0;
        self.bytes = 0;
    }

    fn settle(&mut self) {
        while let Some(&Span { last, end, pending: 0, .. }) = self.spans.front() {
            match end {
                End::Open => return,
                End::Cut => self.inside = Some(last),
                End::Commit(end) => self.confirm(end),
            }
            self.spans.pop_front();
            self.first += 1;
        }
    }
}

impl Span {
    /// Whether a record of this row belongs to the span.
    fn takes(&self, row: Position) -> bool {
        self.end == End::Open && self.last.commit == row.commit
    }
}

#[cfg(test)]
#[path = "frontier_tests.rs"]
mod tests;
