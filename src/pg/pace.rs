//! How often the stream is read: at once while little comes, in gulps while much does.
//!
//! A walsender flushes every message by itself, and over TCP each flush walks through the whole
//! stack on the sender's time. A reader that wakes up for each of them is slow, costs a core, and
//! slows the server down; one that lets bytes gather first is up to twice as fast for both.
//!
//! So reads are rationed, and a few may be saved up: a stream of some thousand messages a second
//! is read as it comes, and of a faster one a read takes what has come meanwhile.

use std::time::{Duration, Instant};

/// How often the stream may be read in the long run. Shorter, and reads bring little; longer, and
/// the socket's buffer fills up and the sender waits for us.
const PERIOD: Duration = Duration::from_micros(300);

/// Reads that may follow each other at once after a silence.
const SAVED_MAX: u32 = 16;

/// Rations reads.
#[derive(Debug)]
pub(super) struct Pace {
    /// When the next read would be due if all came at the same distance.
    due: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Pace {
        Pace { due: now }
    }

    /// Something was read.
    pub(super) fn read(&mut self, now: Instant) {
        let saved = now.checked_sub(PERIOD * SAVED_MAX).unwrap_or(now);
        self.due = self.due.max(saved) + PERIOD;
    }

    /// How long to let bytes gather before the next read; less than [`PERIOD`].
    pub(super) fn pause(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads as often as it may, as something comes every `gap`. Returns how often, and how long
    /// in all it paused.
    fn read_for(pace: &mut Pace, now: &mut Instant, gap: Duration) -> (u32, Duration) {
        let (mut reads, mut paused, end) = (0, Duration::ZERO, *now + Duration::from_secs(1));
        while *now < end {
            let pause = pace.pause(*now);
            assert!(pause <= PERIOD, "{pause:?}");
            *now += pause.max(gap);
            paused += pause;
            pace.read(*now);
            reads += 1;
        }
        (reads, paused)
    }

    #[test]
    fn a_slow_stream_is_read_as_it_comes_and_a_fast_one_in_gulps() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let (reads, paused) = read_for(&mut pace, &mut now, Duration::from_micros(400));
        assert_eq!((reads, paused), (2_500, Duration::ZERO));
        // It has saved some up, and then has to wait for each.
        let (reads, _) = read_for(&mut pace, &mut now, Duration::from_micros(10));
        let steady = 1_000_000 / 300;
        assert!((steady..=steady + SAVED_MAX + 1).contains(&reads), "{reads}");
        let (reads, _) = read_for(&mut pace, &mut now, Duration::from_micros(10));
        assert!((steady - 1..=steady + 1).contains(&reads), "nothing is saved up: {reads}");
    }
}
