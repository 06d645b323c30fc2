//! When a standby status is due, and what it says.
//!
//! Statuses go out on their own clock, whether or not anything is read: a walsender hangs up on a
//! client that is silent for `wal_sender_timeout`, but waits for ever for one that reports and
//! does not read. That is what lets an outage of Kafka be back-pressure instead of a reconnect.

use std::time::{Duration, Instant};

use crate::frontier::Flush;
use crate::lsn::Lsn;

/// Answers to the server's requests are at least this far apart unless there is news: during a
/// fast shutdown the walsender asks again the moment it is answered, 35,000 times a second.
const ANSWER_GAP: Duration = Duration::from_millis(100);

/// A whole frontend message: `CopyData` with a standby status update.
pub type StatusFrame = [u8; 39];

/// The clock of the statuses.
#[derive(Debug)]
pub struct Feedback {
    interval: Duration,
    last: Option<(Instant, Flush)>,
    answer_wanted: bool,
}

impl Feedback {
    /// A status at least every `interval`.
    pub fn new(interval: Duration) -> Feedback {
        Feedback { interval, last: None, answer_wanted: false }
    }

    /// The server asked for a status.
    pub fn want_answer(&mut self) {
        self.answer_wanted = true;
    }

    /// When [`due`](Feedback::due) may next say yes, if nothing else happens.
    pub fn next(&self, now: Instant) -> Instant {
        let Some((at, _)) = self.last else { return now };
        at + if self.answer_wanted { ANSWER_GAP.min(self.interval) } else { self.interval }
    }

    /// Whether a status should be sent now.
    pub fn due(&self, now: Instant, flush: Flush) -> bool {
        let Some((at, told)) = self.last else { return true };
        let since = now.saturating_duration_since(at);
        since >= self.interval || self.answer_wanted && (told != flush || since >= ANSWER_GAP)
    }

    /// A status was sent.
    pub fn sent(&mut self, now: Instant, flush: Flush) {
        self.last = Some((now, flush));
        self.answer_wanted = false;
    }
}

/// The message. `written` is for monitoring (`pg_stat_replication.write_lsn`); only `flush` lets
/// Postgres forget. Apply says the same as flush. `clock_us` is microseconds since 2000-01-01 UTC.
pub fn status(written: Lsn, flush: Flush, clock_us: i64, reply: bool) -> StatusFrame {
    let flush = flush.lsn().to_wire().to_be_bytes();
    let mut frame = [0; 39];
    let fields: [&[u8]; 8] = [
        b"d",
        &38_i32.to_be_bytes(),
        b"r",
        &written.to_wire().to_be_bytes(),
        &flush,
        &flush,
        &clock_us.to_be_bytes(),
        &[u8::from(reply)],
    ];
    let bytes = fields.into_iter().flatten();
    frame.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = *byte);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontier::{Frontier, Limits};

    fn flush(lsn: u64) -> Flush {
        Frontier::new(Lsn::from_wire(lsn), Limits { records: 1, bytes: 1, span: 1 }).confirmed()
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_status_is_laid_out_as_the_manual_says() {
        let frame = status(Lsn::from_wire(0x0102), flush(0x03), -2, true);
        let expected = b"d\0\0\0\x26r\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x03\
            \xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFE\x01";
        assert_eq!(frame, *expected);
    }

    #[test]
    fn one_goes_out_at_once_and_then_every_interval() {
        let start = Instant::now();
        let mut feedback = Feedback::new(1000 * MS);
        assert!(feedback.due(start, flush(1)) && feedback.next(start) == start);
        feedback.sent(start, flush(1));
        assert!(!feedback.due(start + 999 * MS, flush(2)));
        assert!(feedback.due(start + 1000 * MS, flush(1)));
        assert_eq!(feedback.next(start), start + 1000 * MS);
    }

    #[test]
    fn requests_are_answered_at_once_with_news_and_slowly_without() {
        let start = Instant::now();
        let mut feedback = Feedback::new(1000 * MS);
        feedback.sent(start, flush(1));
        feedback.want_answer();
        assert!(feedback.due(start + MS, flush(2)), "news");
        assert!(!feedback.due(start + MS, flush(1)), "no news");
        assert_eq!(feedback.next(start + MS), start + 100 * MS);
        assert!(feedback.due(start + 100 * MS, flush(1)));
        feedback.sent(start + 100 * MS, flush(1));
        assert!(!feedback.due(start + 300 * MS, flush(1)), "answered");
    }
}
