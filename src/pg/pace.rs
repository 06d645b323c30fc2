//! When to read the stream: at once while it is slow, in gulps while it is fast.
//!
//! A walsender flushes every message by itself, and each flush wakes whoever waits for the socket.
//! A reader that wakes for each of them costs a core and slows the sender down, which over TCP
//! does the reader's part of the work as well. One that lets bytes gather takes dozens of messages
//! in a read. So a stream of more than [`FAST`] bytes a second is read every [`PERIOD`], and no
//! more often; unless a read brought [`MUCH`], because then the socket may be full and the sender
//! waiting. It soon is: of a Unix socket's 208 KiB each small message takes 768 bytes or more, so
//! that it holds some 270, and read every 2 ms it gave 33,000 events a second.
//!
//! What is read of a fast stream is not taken before a [`Gulp`] has gathered: what goes to Kafka
//! together makes fewer and larger batches, without a `linger.ms` for which a slow stream would
//! have to wait as well. A stream at the pace of a backlog gathers more, since who is behind waits
//! for the whole of it and not for one event. Measured with `make bench` (Postgres 18, Kafka 4.1,
//! two cores, one row a transaction), of the relay's processor time and of the events:
//!
//! | | TCP: us/event | of the broker's | Unix: us/event | events/s |
//! |---|---|---|---|---|
//! | taken as it is read | 8.6 | 11.4 | 8.0 | 66,000 |
//! | the same, `linger.ms` of 1 | 7.2 | 9.0 | 7.6 | 66,000 |
//! | in gulps of 2 ms | 5.3 | 7.1 | 5.1 | 73,000 |
//!
//! With gulps of 8 ms for a flood, the broker's went on from 10.9 to 5.7 us over a Unix socket,
//! and the relay's with a hundred rows a transaction from 4.4 to 3.5.
//!
//! Over TCP a stream of small messages is sent either one by one, at 17 us of the walsender's
//! time, or in large segments at 10 us, namely when the receive window is full each time we read.
//! A window of 16 to 32 KiB makes sure of that, and was given up again: with the segments of a
//! loopback device it stalls behind a row of 8 KiB, and with smaller ones it carries such rows
//! at a third of the speed.

use std::time::{Duration, Instant};

/// From where on the stream is fast.
const FAST: Threshold = Threshold { bytes_a_second: 1_500_000.0, at_once: 64.0 * 1024.0 };
/// From where on it is at the pace of a backlog.
const FLOOD: Threshold = Threshold { bytes_a_second: 10_000_000.0, at_once: 512.0 * 1024.0 };
/// How long bytes gather while the stream is fast, which is a part of its latency.
const PERIOD: Duration = Duration::from_micros(500);
/// A read that brought as much is followed by the next one at once.
const MUCH: usize = 64 * 1024;
/// What gathers of a fast stream before it is taken.
const SIP: Gulp = Gulp { time: Duration::from_millis(2), bytes: 128 * 1024 };
/// The same of a flood: half of the read buffer at most, so that the next read finds room.
const DRAUGHT: Gulp = Gulp { time: Duration::from_millis(8), bytes: 256 * 1024 };

/// A pace.
#[derive(Debug)]
struct Threshold {
    bytes_a_second: f64,
    /// Bytes that may come at once without being taken for this pace.
    at_once: f64,
}

/// What is taken together.
#[derive(Debug)]
struct Gulp {
    /// No more than comes within this time.
    time: Duration,
    /// As much is taken at once.
    bytes: usize,
}

/// A leaky bucket: bytes that came faster than at a pace.
#[derive(Debug, Default)]
struct Bucket(f64);

impl Bucket {
    fn fill(&mut self, pace: &Threshold, passed: Duration, bytes: usize) {
        let leaked = (self.0 - passed.as_secs_f64() * pace.bytes_a_second).max(0.0);
        #[expect(clippy::cast_precision_loss, reason = "less than a GiB")]
        let came = bytes as f64;
        // No more than it takes a moment to lose again.
        self.0 = (leaked + came).min(2.0 * pace.at_once);
    }

    fn is_over(&self, pace: &Threshold) -> bool {
        self.0 > pace.at_once
    }
}

/// How fast the stream is.
#[derive(Debug, Default)]
pub(super) struct Pace {
    fast: Bucket,
    flood: Bucket,
    /// When something was last read, and how many bytes.
    last: Option<(Instant, usize)>,
    /// When the first of what is to be taken was read.
    first: Option<Instant>,
}

impl Pace {
    /// So many bytes were read.
    pub(super) fn read(&mut self, now: Instant, bytes: usize) {
        let passed = self.last.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(at));
        self.fast.fill(&FAST, passed, bytes);
        self.flood.fill(&FLOOD, passed, bytes);
        self.last = Some((now, bytes));
        self.first.get_or_insert(now);
    }

    /// What was read is taken.
    pub(super) fn taken(&mut self) {
        self.first = None;
    }

    /// Until when to let messages gather, of which `held` bytes are there, before they are taken.
    pub(super) fn gathers_until(&self, held: usize) -> Option<Instant> {
        let gulp = match (self.flood.is_over(&FLOOD), self.fast.is_over(&FAST)) {
            (true, _) => DRAUGHT,
            (false, true) => SIP,
            (false, false) => return None,
        };
        (held < gulp.bytes).then_some(self.first? + gulp.time)
    }

    /// How long to let bytes gather before the next read, if at all.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        let (at, bytes) = self.last?;
        if !self.fast.is_over(&FAST) || bytes >= MUCH {
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
        assert!(paused && (1000..=1000 + 120).contains(&reads), "{reads}");
        let (reads, _) = read_for(&mut pace, &mut now, fast);
        assert!((998..=1002).contains(&reads), "{reads}");
        // And soon knows that it is slow again.
        read_for(&mut pace, &mut now, slow);
        assert_eq!(read_for(&mut pace, &mut now, slow), (500, false));
    }

    #[test]
    fn what_is_read_of_a_fast_stream_is_taken_in_gulps() {
        let (mut now, mut pace) = (Instant::now(), Pace::default());
        pace.read(now, MESSAGE);
        assert_eq!(pace.gathers_until(MESSAGE), None, "slow");
        pace.taken();
        // 6 MB/s, and 30.
        for (gap_us, gulp) in [(100, SIP), (20, DRAUGHT)] {
            read_for(&mut pace, &mut now, Duration::from_micros(gap_us));
            pace.taken();
            assert_eq!(pace.gathers_until(MESSAGE), None, "nothing has come since");
            pace.read(now, MESSAGE);
            let until = Some(now + gulp.time);
            // Whatever comes behind it does not draw it out.
            pace.read(now + PERIOD, MESSAGE);
            assert_eq!(pace.gathers_until(2 * MESSAGE), until);
            assert_eq!(pace.gathers_until(gulp.bytes), None);
            pace.taken();
            pace.read(now + PERIOD, MESSAGE);
            assert_eq!(pace.gathers_until(MESSAGE), Some(now + PERIOD + gulp.time));
        }
        // A flood that has ebbed away is gone before it has been noticed.
        read_for(&mut pace, &mut now, Duration::from_micros(100));
        pace.read(now, MESSAGE);
        assert!(pace.gathers_until(MESSAGE) <= Some(now + SIP.time));
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
