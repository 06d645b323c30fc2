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
//! What is read of a fast stream is not taken before it has gathered for [`GULP`] or is [`FULL`]:
//! what goes to Kafka together makes fewer and larger batches, without a `linger.ms` for which a
//! slow stream would have to wait as well. Measured with `make bench` (Postgres 18, Kafka 4.1,
//! two cores, one row a transaction), of the relay's processor time and of the events:
//!
//! | | TCP: us/event | of the broker's | Unix: us/event | events/s |
//! |---|---|---|---|---|
//! | taken as it is read | 8.6 | 11.4 | 8.0 | 66,000 |
//! | the same, `linger.ms` of 1 | 7.2 | 9.0 | 7.6 | 66,000 |
//! | in gulps | 5.3 | 7.1 | 5.1 | 73,000 |

use std::time::{Duration, Instant};

/// Bytes a second from which on the stream is fast.
const FAST: f64 = 1_500_000.0;
/// Bytes that may come at once without making the stream a fast one.
const BURST: f64 = 64.0 * 1024.0;
/// How long bytes gather while the stream is fast, which is a part of its latency.
const PERIOD: Duration = Duration::from_micros(500);
/// A read that brought as much is followed by the next one at once.
const MUCH: usize = 64 * 1024;
/// How long what is read of a fast stream gathers before it is taken.
const GULP: Duration = Duration::from_millis(2);
/// As much is taken at once: half of the read buffer, so that the next read finds room.
const FULL: usize = 128 * 1024;

/// How fast the stream is.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// A leaky bucket: bytes that came faster than [`FAST`].
    level: f64,
    /// When something was last read, and how many bytes.
    last: Option<(Instant, usize)>,
    /// When the first of what is to be taken was read.
    first: Option<Instant>,
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
        self.first.get_or_insert(now);
    }

    /// What was read is taken.
    pub(super) fn taken(&mut self) {
        self.first = None;
    }

    /// Until when to let messages gather, of which `held` bytes are there, before they are taken.
    pub(super) fn gathers_until(&self, held: usize) -> Option<Instant> {
        let until = self.first? + GULP;
        (self.level > BURST && held < FULL).then_some(until)
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
        read_for(&mut pace, &mut now, Duration::from_micros(20));
        pace.taken();
        assert_eq!(pace.gathers_until(MESSAGE), None, "nothing has come since");
        pace.read(now, MESSAGE);
        let until = Some(now + GULP);
        // Whatever comes behind it does not draw it out.
        pace.read(now + PERIOD, MESSAGE);
        assert_eq!(pace.gathers_until(2 * MESSAGE), until);
        assert_eq!(pace.gathers_until(FULL), None);
        pace.taken();
        pace.read(now + PERIOD, MESSAGE);
        assert_eq!(pace.gathers_until(MESSAGE), Some(now + PERIOD + GULP));
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
