//! Where a record goes: which partition, and whether it may go there now.
//!
//! A broker that has no record of a producer in a partition takes its batches with any sequence
//! number (`ProducerAppendInfo.checkSequence` in Kafka's storage module). If the very first batch
//! failed for good, those on their way behind it would get in, and pass it. So the first record
//! of a partition goes alone; from its ack on, the broker lets nothing in behind a gap.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::partition::partition;
use crate::pipe::{Flaw, Refused};
use crate::record::Record;

/// A partition counts as unknown to its broker again after no less than this without a record:
/// brokers forget a silent producer, after a day by default (`producer.id.expiration.ms`).
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// What a broker said about a topic, or why there are no records for it.
pub type Answer = Result<Description, String>;

/// What a broker said about a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// How many partitions it has.
    pub partitions: u32,
    /// `max.message.bytes`, if we may know.
    pub batch_bytes_max: Option<usize>,
    /// How far a record's time may be ahead (`message.timestamp.after.max.ms`), in milliseconds;
    /// none if that does not matter, or we may not know.
    pub ahead_max_ms: Option<i64>,
}

/// By topic, over how many partitions keys are spread.
pub type Counts = HashMap<String, u32>;

/// The topics that records have gone to, or wait for.
#[derive(Debug, Default)]
pub struct Routes {
    known: HashMap<String, Topic>,
    /// What a producer that is gone has spread keys over; counts until there is an answer.
    before: Counts,
    /// The topic that the last record had to wait for.
    awaited: Option<String>,
    /// When silent partitions were last looked for.
    swept: Option<Instant>,
}

#[derive(Debug, Default)]
struct Topic {
    /// Keys are spread over this many; `None` until the first answer.
    partitions: Option<u32>,
    /// What the last answer said, if it was something else.
    changed: Option<u32>,
    /// Larger batches are refused.
    batch_bytes_max: Option<usize>,
    /// Times that are further ahead are refused.
    ahead_max_ms: Option<i64>,
    /// Why records cannot go there now.
    trouble: Option<String>,
    /// By partition. What is not there is [`Opening::Closed`].
    openings: Vec<Opening>,
    /// Records handed over since the count was last fetched.
    sent: u64,
}

/// What the broker knows of us in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Opening {
    /// Nothing.
    #[default]
    Closed,
    /// The first record is on its way.
    Asked,
    /// Where we are; `used` since silent partitions were last looked for.
    Open { used: bool },
}

/// Where a record of a topic goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// Not known yet: the topic is to be asked about.
    Ask,
    /// This partition; without a key, any.
    Partition(Option<u32>),
    /// This partition, with nothing behind it until it is acked.
    First(u32),
    /// Not known yet, or the topic is not to be had.
    Wait,
    /// The row asks for a partition that the topic does not have; it has so many.
    Beyond(u32),
    /// The topic has another number of partitions now. A key may move only while nothing of it is
    /// in flight, or its records would race each other.
    WaitUntilIdle,
}

impl Routes {
    /// Goes on from the counts of a producer that is gone. What it had in flight may have arrived,
    /// and comes again: in the same partition, where it is a repeat, and new rows of its key come
    /// behind it.
    pub fn after(before: Counts) -> Routes {
        Routes { before, ..Routes::default() }
    }

    /// The counts in use.
    pub fn counts(&self) -> Counts {
        let known = self.known.iter();
        let known = known.filter_map(|(name, topic)| Some((name.clone(), topic.partitions?)));
        let mut counts = self.before.clone();
        counts.extend(known);
        counts
    }

    /// Takes in what was answered about a topic.
    pub fn answered(&mut self, name: String, answer: Answer) {
        let before = self.before.get(&name).copied();
        let topic = self.known.entry(name).or_default();
        match answer {
            Ok(Description { partitions, batch_bytes_max, ahead_max_ms }) => {
                topic.trouble = None;
                (topic.batch_bytes_max, topic.ahead_max_ms) = (batch_bytes_max, ahead_max_ms);
                // Topics only grow: one with fewer is another one of the same name.
                let current = topic.partitions.or(before).filter(|count| *count <= partitions);
                let current = *topic.partitions.insert(current.unwrap_or(partitions));
                topic.changed = Some(partitions).filter(|changed| *changed != current);
            }
            Err(trouble) => {
                topic.trouble = Some(trouble);
                // It may come back as another topic of the same name.
                topic.openings.clear();
            }
        }
    }

    /// The broker has the first record of a partition.
    pub fn opened(&mut self, name: &str, partition: u32) {
        if let Some(topic) = self.known.get_mut(name) {
            topic.set_opening(partition, Opening::Open { used: true });
        }
    }

    /// Forgets what the brokers know of us where they may have forgotten us.
    pub fn close_silent(&mut self, now: Instant) {
        let swept = *self.swept.get_or_insert(now);
        let since = now.saturating_duration_since(swept);
        if since < SILENCE_MAX {
            return;
        }
        // Who sends looks far more often: nothing was sent for so long, and no session was there.
        let silent = since >= SILENCE_MAX * 2;
        self.swept = Some(now);
        for opening in self.known.values_mut().flat_map(|topic| &mut topic.openings) {
            *opening = match *opening {
                Opening::Open { used: true } if !silent => Opening::Open { used: false },
                Opening::Open { .. } => Opening::Closed,
                other => other,
            };
        }
    }

    /// Where a record goes. `idle` says whether nothing is in flight.
    pub fn target(&mut self, record: &Record<'_>, idle: impl FnOnce() -> bool) -> Target {
        let Record { topic, key, partition, again, .. } = *record;
        self.place(topic, key, partition, again, idle)
    }

    fn place(
        &mut self,
        name: &str,
        key: Option<&[u8]>,
        asked: Option<u32>,
        again: bool,
        idle: impl FnOnce() -> bool,
    ) -> Target {
        let Some(topic) = self.known.get_mut(name) else {
            self.known.insert(name.to_owned(), Topic::default());
            return Target::Ask;
        };
        if topic.trouble.is_some() {
            self.awaited = Some(name.to_owned());
            return Target::Wait;
        }
        // A row that may be there already goes where it may be.
        if topic.changed.is_some() && !again {
            if !idle() {
                return Target::WaitUntilIdle;
            }
            topic.partitions = topic.changed.take();
        }
        let Some(partitions) = topic.partitions else { return Target::Wait };
        match (asked, key) {
            (Some(asked), _) if asked >= partitions => Target::Beyond(partitions),
            (Some(asked), _) => topic.ordered(asked),
            (None, Some(key)) => topic.ordered(partition(key, partitions)),
            // Has no order that could be lost.
            (None, None) => Target::Partition(None),
        }
    }

    /// Whether the topic takes a batch that holds this record alone.
    pub fn check_size(&self, record: &Record<'_>) -> Result<(), Refused> {
        let topic = self.known.get(record.topic);
        let Some(max) = topic.and_then(|topic| topic.batch_bytes_max) else { return Ok(()) };
        let bytes = batch_bytes(record);
        if bytes <= max {
            return Ok(());
        }
        let reason = format!(
            "its record takes {bytes} bytes, and topic {} takes {max}; raise max.message.bytes of \
             the topic",
            record.topic
        );
        Err(Refused::Unsendable(Flaw::Size, reason))
    }

    /// Whether the topic takes this time.
    pub fn check_time(&self, name: &str, time_ms: i64, now_ms: i64) -> Result<(), Refused> {
        let max = self.known.get(name).and_then(|topic| topic.ahead_max_ms);
        let ahead = time_ms.saturating_sub(now_ms);
        match max.filter(|max| ahead > *max) {
            None => Ok(()),
            Some(max) => {
                let reason = format!(
                    "its time is {} s ahead, and topic {name} takes {} s; raise \
                     message.timestamp.after.max.ms of the topic",
                    ahead / 1000,
                    max / 1000
                );
                Err(Refused::Unsendable(Flaw::Other, reason))
            }
        }
    }

    /// A record was handed over, as the first of its partition if that is given.
    pub fn sent(&mut self, name: &str, first: Option<u32>) {
        if let Some(topic) = self.known.get_mut(name) {
            topic.sent += 1;
            if let Some(partition) = first {
                topic.set_opening(partition, Opening::Asked);
            }
        }
        self.awaited = None;
    }

    /// Topics with the records handed over since this was last called.
    pub fn take_sent(&mut self) -> impl Iterator<Item = (&str, u64)> {
        let sent = self.known.iter_mut().filter(|(_, topic)| topic.sent > 0);
        sent.map(|(name, topic)| (name.as_str(), std::mem::take(&mut topic.sent)))
    }

    /// Why the next record waits for its topic.
    pub fn trouble(&self) -> Option<&str> {
        self.known.get(self.awaited.as_ref()?)?.trouble.as_deref()
    }
}

impl Topic {
    /// Where a record goes that belongs to this partition, behind those before it.
    fn ordered(&mut self, partition: u32) -> Target {
        match self.openings.get_mut(partition as usize) {
            Some(Opening::Open { used }) => {
                *used = true;
                Target::Partition(Some(partition))
            }
            Some(Opening::Asked) => Target::Wait,
            Some(Opening::Closed) | None => Target::First(partition),
        }
    }

    fn set_opening(&mut self, partition: u32, opening: Opening) {
        let index = partition as usize;
        if index >= self.openings.len() {
            self.openings.resize(index + 1, Opening::Closed);
        }
        if let Some(slot) = self.openings.get_mut(index) {
            *slot = opening;
        }
    }
}

/// The bytes of a batch that holds this record alone, uncompressed: a header of 61, and the record
/// with its lengths as varints (Kafka protocol guide, "Record Batch"). Each varint counts as five
/// bytes at most, so that the sum may be a few too many.
fn batch_bytes(record: &Record<'_>) -> usize {
    const BATCH_HEADER: usize = 61;
    // Attributes, and the deltas of time and offset, which are zero.
    const FIXED: usize = 3;
    let varint = |n: usize| match n {
        0..0x40 => 1,
        0x40..0x2000 => 2,
        0x2000..0x10_0000 => 3,
        0x10_0000..0x800_0000 => 4,
        _ => 5,
    };
    let sized = |bytes: Option<&[u8]>| {
        let length = bytes.map_or(0, <[u8]>::len);
        varint(length) + length
    };
    let headers = record.headers.iter();
    let headers: usize =
        headers.map(|(name, value)| sized(Some(name.as_bytes())) + sized(value)).sum();
    let body =
        FIXED + sized(record.key) + sized(record.payload) + varint(record.headers.len()) + headers;
    BATCH_HEADER + varint(body) + body
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Routes with one answer about one topic.
    fn routes(answer: Answer) -> Routes {
        let mut routes = Routes::default();
        routes.answered("t".to_owned(), answer);
        routes
    }

    fn described(partitions: u32) -> Description {
        Description { partitions, batch_bytes_max: None, ahead_max_ms: None }
    }

    fn target(routes: &mut Routes, key: Option<&[u8]>) -> Target {
        routes.place("t", key, None, false, || false)
    }

    #[test]
    fn what_is_not_known_is_asked_for_once() {
        let mut routes = Routes::default();
        assert_eq!(target(&mut routes, None), Target::Ask);
        assert_eq!(target(&mut routes, None), Target::Wait);
    }

    #[test]
    fn the_first_record_of_a_partition_goes_alone() {
        let mut routes = routes(Ok(described(2)));
        let (a, b) = (Some(b"foobar".as_slice()), Some(b"abc".as_slice()));
        let (of_a, of_b) = (partition(b"foobar", 2), partition(b"abc", 2));
        assert_ne!(of_a, of_b);
        assert_eq!(target(&mut routes, a), Target::First(of_a));
        assert_eq!(target(&mut routes, a), Target::First(of_a), "it was not taken");
        routes.sent("t", Some(of_a));
        assert_eq!(target(&mut routes, a), Target::Wait);
        assert_eq!(target(&mut routes, b), Target::First(of_b), "another one need not wait");
        assert_eq!(target(&mut routes, None), Target::Partition(None), "nor what has no order");
        routes.opened("t", of_a);
        assert_eq!(target(&mut routes, a), Target::Partition(Some(of_a)));
    }

    #[test]
    fn a_partition_that_the_row_names_counts_more_than_its_key() {
        let mut routes = routes(Ok(described(4)));
        let of_key = partition(b"foobar", 4);
        let key = Some(b"foobar".as_slice());
        for asked in (0..4).filter(|asked| *asked != of_key) {
            let mut place = || routes.place("t", key, Some(asked), false, || false);
            assert_eq!(place(), Target::First(asked));
            routes.opened("t", asked);
            let keyless = routes.place("t", None, Some(asked), false, || false);
            assert_eq!(keyless, Target::Partition(Some(asked)));
        }
        assert_eq!(target(&mut routes, key), Target::First(of_key));
        let beyond = routes.place("t", key, Some(4), false, || false);
        assert_eq!(beyond, Target::Beyond(4));
    }

    #[test]
    fn a_time_of_the_rows_own_may_be_ahead_as_far_as_the_topic_says() {
        let now = 1_770_091_506_789;
        let limited = Description { ahead_max_ms: Some(3_600_000), ..described(1) };
        let limited = routes(Ok(limited));
        for time in [0, now, now + 3_600_000] {
            assert_eq!(limited.check_time("t", time, now), Ok(()));
        }
        let refused = limited.check_time("t", now + 3_601_000, now);
        let reason = "its time is 3601 s ahead, and topic t takes 3600 s; raise \
                      message.timestamp.after.max.ms of the topic";
        assert_eq!(refused, Err(Refused::Unsendable(Flaw::Other, reason.to_owned())));
        assert!(limited.check_time("t", i64::MAX, now).is_err());
        assert_eq!(routes(Ok(described(1))).check_time("t", i64::MAX, now), Ok(()));
    }

    #[test]
    fn a_silent_partition_and_a_lost_topic_are_unknown_again() {
        let mut routes = routes(Ok(described(1)));
        let key = Some(b"k".as_slice());
        routes.opened("t", 0);
        let start = Instant::now();
        routes.close_silent(start);
        routes.close_silent(start + SILENCE_MAX);
        assert_eq!(target(&mut routes, key), Target::Partition(Some(0)), "silent for a moment");
        routes.close_silent(start + SILENCE_MAX * 2);
        assert_eq!(target(&mut routes, key), Target::Partition(Some(0)), "used in between");
        routes.close_silent(start + SILENCE_MAX * 3);
        routes.close_silent(start + SILENCE_MAX * 4);
        assert_eq!(target(&mut routes, key), Target::First(0));

        routes.opened("t", 0);
        routes.close_silent(start + SILENCE_MAX * 6);
        assert_eq!(target(&mut routes, key), Target::First(0), "nobody has looked for so long");

        routes.opened("t", 0);
        for answer in [Err("gone".to_owned()), Ok(described(1))] {
            routes.answered("t".to_owned(), answer);
        }
        assert_eq!(target(&mut routes, key), Target::First(0));
    }

    #[test]
    fn a_grown_topic_is_used_once_nothing_is_in_flight() {
        let mut routes = routes(Ok(described(1)));
        routes.opened("t", 0);
        routes.answered("t".to_owned(), Ok(described(4)));
        let key = Some(b"foobar".as_slice());
        assert_eq!(routes.place("t", key, None, false, || false), Target::WaitUntilIdle);
        let grown = routes.place("t", key, None, false, || true);
        assert_eq!(grown, Target::First(partition(b"foobar", 4)));
    }

    /// Behind what comes again in the old partition, a new record of another key in the new one
    /// would hide it from consumers that compare positions.
    #[test]
    fn what_comes_again_goes_where_it_went_although_the_topic_has_grown() {
        let mut before = routes(Ok(described(1)));
        before.opened("t", 0);
        let mut routes = Routes::after(before.counts());
        assert_eq!(target(&mut routes, None), Target::Ask);
        routes.answered("t".to_owned(), Err("closed to us for a while".to_owned()));
        assert_eq!(routes.counts(), before.counts(), "also if that producer fails as well");
        routes.answered("t".to_owned(), Ok(described(4)));
        let key = Some(b"foobar".as_slice());
        let again = |routes: &mut Routes| routes.place("t", key, None, true, || true);
        assert_eq!(again(&mut routes), Target::First(0));
        routes.opened("t", 0);
        assert_eq!(again(&mut routes), Target::Partition(Some(0)));
        assert_eq!(target(&mut routes, key), Target::WaitUntilIdle);
        let grown = routes.place("t", key, None, false, || true);
        assert_eq!(grown, Target::First(partition(b"foobar", 4)));
        assert_eq!(routes.counts(), Counts::from([("t".to_owned(), 4)]));
        // With fewer, it is another topic of the same name.
        let mut routes = Routes::after(routes.counts());
        routes.answered("t".to_owned(), Ok(described(2)));
        assert_eq!(again(&mut routes), Target::First(partition(b"foobar", 2)));
    }
}
