//! The position record on its way: what has been written, and may therefore be confirmed.
//!
//! The slot is confirmed only up to what a record in Kafka says. One record is under way at a
//! time, so that the order of acks does not matter.

use std::time::{Duration, Instant};

use crate::frontier::{Flush, Reached};
use crate::position::{Context, PositionRecord, Source};

/// What has been written of one stream's position by this process.
#[derive(Debug)]
pub struct Journal {
    source: Source,
    context: Context,
    interval: Duration,
    written: Reached,
    /// Whether it was written by this process. A record that an earlier one had under way may
    /// arrive behind what a start has read, so that the start is written once more.
    own: bool,
    /// Sent and not acked.
    pending: Option<Reached>,
    last: Option<Instant>,
}

impl Journal {
    /// Nothing has been written by this process yet, but `start` is what a start has found.
    pub fn new(source: Source, context: Context, interval: Duration, start: Reached) -> Journal {
        let (written, own) = (start, false);
        Journal { source, context, interval, written, own, pending: None, last: None }
    }

    /// Which stream it is about.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Whether rows may be sent. A start may begin a later epoch. If its rows were in Kafka and it
    /// were not written, whoever comes next would begin the same place with an earlier one, and
    /// consumers would take new rows for repeats.
    pub fn has_begun(&self) -> bool {
        self.own
    }

    /// What may be told to Postgres.
    pub fn flush(&self) -> Flush {
        self.written.flush
    }

    /// Whether all of `reached` has been written.
    pub fn has_written(&self, reached: Reached) -> bool {
        self.own && self.written == reached
    }

    /// Since when a record has been under way.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.pending.and(self.last)
    }

    /// When a write may next be due, if `reached` has moved.
    pub fn next(&self, now: Instant, reached: Reached) -> Option<Instant> {
        let moved = self.pending.is_none() && !self.has_written(reached);
        moved.then(|| self.last.map_or(now, |last| last + self.interval))
    }

    /// The record to write, if it is time to, or in a hurry.
    pub fn due(&self, now: Instant, reached: Reached, hurry: bool) -> Option<PositionRecord> {
        let next = self.next(now, reached)?;
        (hurry || now >= next).then(|| PositionRecord::new(self.context.clone(), reached))
    }

    /// The record of `reached` was handed over.
    pub fn sent(&mut self, now: Instant, reached: Reached) {
        self.pending = Some(reached);
        self.last = Some(now);
    }

    /// The broker has the record.
    pub fn acked(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.written = pending;
            self.own = true;
        }
    }

    /// The producer is gone, and with it what was pending.
    pub fn restart(&mut self) {
        self.pending = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontier::{Frontier, Limits};
    use crate::lsn::Lsn;

    fn reached(lsn: u64) -> Reached {
        let limits = Limits { records: 1, bytes: 1, span: 1 };
        Frontier::new(Lsn::from_wire(lsn), limits).reached()
    }

    #[test]
    fn nothing_is_sent_before_the_start_is_written_nor_confirmed_before_it_is() {
        let source = Source { system: "7".into(), database: 5, slot: "s".into() };
        let context = Context { timeline: 1, publication: "p".into(), epoch: 3 };
        let (now, interval) = (Instant::now(), Duration::from_secs(1));
        let mut journal = Journal::new(source, context, interval, reached(100));
        assert!(!journal.has_begun() && !journal.has_written(reached(100)));
        let record = journal.due(now, reached(100), false).unwrap();
        assert_eq!((record.end, record.context.epoch), (Lsn::from_wire(100), 3));
        assert_eq!(journal.waiting_since(), None);
        journal.sent(now, reached(100));
        assert_eq!(journal.waiting_since(), Some(now));
        assert_eq!(journal.due(now, reached(110), true), None, "one at a time");
        journal.restart();
        assert_eq!(journal.waiting_since(), None);
        journal.acked();
        assert!(!journal.has_begun(), "of the producer before");
        journal.sent(now, reached(100));
        journal.acked();
        assert!(journal.has_begun() && journal.has_written(reached(100)));
        assert_eq!(journal.next(now, reached(100)), None);
        assert_eq!(journal.due(now, reached(110), false), None, "too early");
        assert!(journal.due(now + interval, reached(110), false).is_some());
        journal.sent(now, reached(110));
        assert_eq!(journal.flush(), reached(100).flush);
        journal.acked();
        assert_eq!(journal.flush(), reached(110).flush);
    }
}
