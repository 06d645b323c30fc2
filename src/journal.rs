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

    /// What may be told to Postgres.
    pub fn flush(&self) -> Flush {
        self.written.flush
    }

    /// Whether all of `reached` has been written.
    pub fn has_written(&self, reached: Reached) -> bool {
        self.own && self.written == reached
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
