//! When to read the stream: at once while it is slow, in gulps while it is fast.
//!
//! A walsender flushes every message by itself, and each flush wakes whoever waits for the socket.
//! A reader that wakes for each of them costs a core and slows the sender down, which over TCP
//! does the reader's part of the work as well. One that lets bytes gather takes dozens of messages
//! in a read; and what is read together goes to Kafka in one batch for each partition, whatever
//! `linger.ms` says.
//!
//! So a stream of more than [`FAST`] bytes a second is read every [`PERIOD`], and no more often;
//! unless a read brought [`MUCH`], because then the socket may be full and the sender waiting.

use std::time::{Duration, Instant};

/// Bytes a second from which on the stream is fast.
const FAST: f64 = 1_500_000.0;
/// Bytes that may come at once without making the stream a fast one.
const BURST: f64 = 64.0 * 1024.0;
/// How long bytes gather while the stream is fast. It is added to the latency of a stream with
/// thousands of rows a second, and a socket takes some 100 KiB, that is 50 MB/s.
const PERIOD: Duration = Duration::from_millis(2);
/// A read that brought as much is followed by the next one at once.
const MUCH: usize = 64 * 1024;

/// How fast the stream is.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// A leaky bucket: bytes that came faster than [`FAST`].
    level: f64,
    /// When something was last read, and how many bytes.
    last: Option<(Instant, usize)>,
}

impl Pace {
    /// So many bytes were read.
    pub(super) fn read(&mut self, now: Instant, bytes: usize) {
        let passed = self.last.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(at));
        let leaked = (self.level - passed.as_secs_f64() * FAST).max(0.0);
        // No more than it takes a moment to lose again.
        #[expect(clippy::cast_precision_loss, reason = "less than a GiB")]
        let came = bytes as f64;
        self.level = (leaked + came).min(2.0 * BURST);
        self.last = Some((now, bytes));
    }

    /// How long to let bytes gather before the next read, if at all.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        let (at, bytes) = self.last?;
        if self.level <= BURST || bytes >= MUCH {
            return None;
        }
        let pause = PERIOD.checked_sub(now.saturating_duration_since(at))?;
        (!pause.is_zero()).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: usize = 600;

    /// Reads for half a second what comes, a message every `gap`. Returns how often it read, and
    /// whether it ever paused.
    fn read_for(pace: &mut Pace, now: &mut Instant, gap: Duration) -> (usize, bool) {
        let (mut reads, mut paused, end) = (0, false, *now + Duration::from_millis(500));
        while *now < end {
            let pause = pace.pause(*now).unwrap_or_default();
            assert!(pause <= PERIOD, "{pause:?}");
            paused |= !pause.is_zero();
            let gathered = pause.max(gap);
            *now += gathered;
            let messages = gathered.as_micros() / gap.as_micros();
            pace.read(*now, MESSAGE * usize::try_from(messages).unwrap());
            reads += 1;
        }
        (reads, paused)
    }

    #[test]
    fn a_slow_stream_is_read_as_it_comes_and_a_fast_one_in_gulps() {
        let (mut now, mut pace) = (Instant::now(), Pace::default());
        let (slow, fast) = (Duration::from_millis(1), Duration::from_micros(20));
        assert_eq!(read_for(&mut pace, &mut now, slow), (500, false));
        // It reads each message, until it is known to be fast.
        let (reads, paused) = read_for(&mut pace, &mut now, fast);
        assert!(paused && (250..=250 + 120).contains(&reads), "{reads}");
        let (reads, _) = read_for(&mut pace, &mut now, fast);
        assert!((248..=252).contains(&reads), "{reads}");
        // And soon knows that it is slow again.
        read_for(&mut pace, &mut now, slow);
        assert_eq!(read_for(&mut pace, &mut now, slow), (500, false));
    }

    #[test]
    fn a_socket_that_may_be_full_is_read_at_once() {
        let (mut now, mut pace) = (Instant::now(), Pace::default());
        for _ in 0..10 {
            now += Duration::from_millis(1);
            pace.read(now, MUCH);
            assert_eq!(pace.pause(now), None);
        }
        pace.read(now, MUCH - 1);
        assert_eq!(pace.pause(now), Some(PERIOD));
        assert_eq!(pace.pause(now + PERIOD), None);
    }
}
