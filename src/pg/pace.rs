//! When to read the stream: at once while it is slow, in gulps while it is fast.
//!
//! A walsender flushes every message by itself, and each flush wakes whoever waits for the socket.
//! A reader that wakes for each of them costs a core and slows the sender down, which over TCP
//! does the reader's part of the work as well. One that lets bytes gather takes dozens of messages
//! in a read. So a stream of more than [`FAST`] bytes a second is read every [`PERIOD`], and no
//! more often; unless a read brought [`MUCH`], because then the socket may be full and the sender
//! waiting. A Unix socket soon is: of its 208 KiB each small message takes 768 bytes or more, so
//! that it holds some 270, and read every 2 ms it gave 33,000 events a second. It is read twice as
//! often, which made 98,000 events a second 113,000 (and with a hundred rows a transaction 190,000
//! 205,000).
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
//! Over TCP on the same machine, a segment is taken in by whoever sends it, in his time. A stream
//! of small messages costs the walsender most where each is a segment of its own, and least where
//! the receive window is closed while it writes: then they gather in its socket, and go together
//! once we have read. So there the receive buffer has a fixed size (the kernel would let it grow
//! until it is never full), it is read once and not until it is empty, and the rest between two is
//! as long as it takes to fill it. That is not known, and found by trying: a little shorter after
//! each read of a full buffer, longer after one that was not. `make bench`, 300,000 rows, medians
//! of two, with and without (six partitions, two cores; the bare reader reads to nowhere):
//!
//! | | events/s | of the bare reader's | us/event of the walsender | of the relay |
//! |---|---|---|---|---|
//! | one row a transaction | 86,000 to 131,000 | 0.74 to 1.12 | 10.7 to 7.0 | 3.4 to 2.6 |
//! | a hundred rows | 171,000 to 252,000 | 0.67 to 0.98 | 5.7 to 3.8 | 1.9 to 1.5 |
//!
//! A buffer of 64 KiB does not help, and one of 16 KiB stalls behind a row of 8 KiB: a loopback
//! device has segments of up to 64 KiB, which do not fit into its window.

use std::time::{Duration, Instant};

/// From where on the stream is fast.
const FAST: Threshold = Threshold { bytes_a_second: 1_500_000.0, at_once: 64.0 * 1024.0 };
/// From where on it is at the pace of a backlog.
const FLOOD: Threshold = Threshold { bytes_a_second: 10_000_000.0, at_once: 512.0 * 1024.0 };
/// How long bytes gather while the stream is fast, which is a part of its latency.
const PERIOD: Duration = Duration::from_micros(500);
/// A read that brought as much is followed by the next one at once.
const MUCH: usize = 64 * 1024;
/// The same for a Unix socket.
const UNIX_PERIOD: Duration = Duration::from_micros(250);
const UNIX_MUCH: usize = 32 * 1024;
/// What gathers of a fast stream before it is taken.
const SIP: Gulp = Gulp { time: Duration::from_millis(2), bytes: 128 * 1024 };
/// The same of a flood: half of the read buffer at most, so that the next read finds room.
const DRAUGHT: Gulp = Gulp { time: Duration::from_millis(8), bytes: 256 * 1024 };

/// What the receive buffer is given over TCP on the same machine. The kernel takes twice as much,
/// for what it needs itself (socket(7)).
pub(super) const WINDOW_BYTES: u32 = 128 * 1024;
/// The longest rest between two reads of it, but for the one that lets it fill.
const REST_MAX: Duration = Duration::from_millis(2);
const REST_MIN: Duration = Duration::from_micros(50);

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

/// Where the stream comes from, as far as it matters for how to read it.
#[derive(Debug, Default)]
pub(super) enum Socket {
    /// From another machine, or encrypted.
    #[default]
    Network,
    /// A Unix socket.
    Unix,
    /// TCP on the same machine.
    Loopback(Window),
}

/// A receive buffer of fixed size, which is to be full whenever it is read.
#[derive(Debug)]
pub(super) struct Window {
    /// A read that brought as much has found it full.
    full: usize,
    /// How long it takes to fill, as far as that is known.
    rest: Duration,
}

impl Window {
    /// Of a buffer that the kernel says is so large. A part of it is the kernel's own.
    pub(super) fn of(buffer: usize) -> Window {
        Window { full: buffer / 8 * 3, rest: REST_MAX / 2 }
    }

    fn read(&mut self, bytes: usize) {
        let factor = if bytes >= self.full { 0.99 } else { 1.05 };
        self.rest = self.rest.mul_f64(factor).clamp(REST_MIN, REST_MAX);
    }

    /// How long to rest after a read. What the sender has gathered is gone with a buffer that was
    /// not full; it is given the time to gather again.
    fn rest(&self, bytes: usize) -> Duration {
        if bytes >= self.full { self.rest } else { self.rest * 3 }
    }
}

/// How fast the stream is.
#[derive(Debug, Default)]
pub(super) struct Pace {
    socket: Socket,
    fast: Bucket,
    flood: Bucket,
    /// When something was last read, and how many bytes.
    last: Option<(Instant, usize)>,
    /// When the first of what is to be taken was read.
    first: Option<Instant>,
}

impl Pace {
    /// Of a stream that comes from there.
    pub(super) fn new(socket: Socket) -> Pace {
        Pace { socket, ..Pace::default() }
    }

    /// So many bytes were read.
    pub(super) fn read(&mut self, now: Instant, bytes: usize) {
        let passed = self.last.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(at));
        self.fast.fill(&FAST, passed, bytes);
        self.flood.fill(&FLOOD, passed, bytes);
        self.last = Some((now, bytes));
        if let Socket::Loopback(window) = &mut self.socket
            && self.flood.is_over(&FLOOD)
        {
            window.read(bytes);
        }
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
        let fast = |much| self.fast.is_over(&FAST) && bytes < much;
        let rest = match &self.socket {
            Socket::Loopback(window) if self.flood.is_over(&FLOOD) => window.rest(bytes),
            Socket::Unix if fast(UNIX_MUCH) => UNIX_PERIOD,
            Socket::Network | Socket::Loopback(_) if fast(MUCH) => PERIOD,
            _ => return None,
        };
        let pause = rest.checked_sub(now.saturating_duration_since(at))?;
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

    /// Reads what a sender has at this rate of a buffer of so many bytes, two thousand times.
    /// Returns how many of the second half of them found it full, and the bytes a second.
    fn read_window(bytes: usize, bytes_a_second: f64) -> (usize, f64) {
        let (start, mut pace) =
            (Instant::now(), Pace::new(Socket::Loopback(Window::of(2 * bytes))));
        let (mut now, mut sent, mut read, mut full) = (start, 0.0, 0.0, 0);
        for number in 0..2000 {
            // Something has to be done with what was read.
            now += pace.pause(now).unwrap_or_default() + Duration::from_micros(100);
            sent = (now - start).as_secs_f64() * bytes_a_second;
            let waiting = sent - read;
            #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "a test")]
            let came = (waiting as usize).min(bytes);
            full += usize::from(number >= 1000 && came == bytes);
            read += f64::from(u32::try_from(came).unwrap());
            pace.read(now, came);
        }
        assert!(sent - read < 20.0 * f64::from(u32::try_from(bytes).unwrap()), "{}", sent - read);
        (full, read / (now - start).as_secs_f64())
    }

    #[test]
    fn a_buffer_of_fixed_size_is_mostly_full_when_it_is_read() {
        let window = usize::try_from(WINDOW_BYTES).unwrap();
        for megabytes in [80.0, 110.0, 300.0] {
            let (full, rate) = read_window(window, megabytes * 1e6);
            assert!(full > 600, "{full} of 1000 at {megabytes} MB/s");
            assert!(rate > megabytes * 0.98e6, "{rate} of {megabytes} MB/s");
        }
        // A slower stream does not fill it, and is not slowed down by that; and the kernel may
        // give less than was asked for (`net.core.rmem_max`).
        for (window, megabytes) in [(window, 20.0), (window / 4, 20.0)] {
            let (_, rate) = read_window(window, megabytes * 1e6);
            assert!(rate > megabytes * 0.98e6, "{rate} of {megabytes} MB/s");
        }
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
        // A Unix socket is so sooner.
        pace.socket = Socket::Unix;
        assert_eq!(pace.pause(now), None);
        pace.read(now, UNIX_MUCH - 1);
        assert_eq!(pace.pause(now), Some(UNIX_PERIOD));
    }
}
