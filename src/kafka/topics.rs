//! What must be known of a topic before a record can go there: how many partitions it has, asked
//! for on a thread of its own, and whether the broker knows us in the record's partition.
//!
//! The partition of a key depends on the count, so that a record waits until its topic's count is
//! known. Asking may take seconds, which the relay's loop does not have.
//!
//! A broker that has no record of a producer in a partition takes its batches with any sequence
//! number (`ProducerAppendInfo.checkSequence` in Kafka's storage module). If the very first batch
//! failed for good, those on their way behind it would get in, and pass it. So the first record
//! of a partition goes alone; from its ack on, the broker lets nothing in behind a gap.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::types::RDKafkaRespErr;
use tokio::runtime::Handle;

use super::acks::Acks;
use super::partition::partition;
use super::settings::Settings;
use crate::pipe::Refused;
use crate::record::Record;

/// How long one question to a broker may take.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often a topic that has an answer is asked about again: it may grow, or go.
const REFRESH: Duration = Duration::from_secs(10);
/// How often a topic without an answer is.
const RETRY: Duration = Duration::from_secs(1);
/// A partition counts as unknown to its broker again after no less than this without a record:
/// brokers forget a silent producer, after a day by default (`producer.id.expiration.ms`).
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// What a broker said about a topic, or why there are no records for it.
type Answer = Result<Description, String>;

/// What a broker said about a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Description {
    partitions: u32,
    /// `max.message.bytes`, if we may know.
    batch_bytes_max: Option<usize>,
}

/// The topics that records have gone to, or wait for.
#[derive(Debug)]
pub(super) struct Topics {
    known: HashMap<String, Topic>,
    questions: Sender<String>,
    answers: Arc<Mutex<Vec<(String, Answer)>>>,
    /// The topic that the last record had to wait for.
    awaited: Option<String>,
    /// When silent partitions were last looked for.
    swept: Instant,
}

#[derive(Debug, Default)]
struct Topic {
    /// Keys are spread over this many; `None` until the first answer.
    partitions: Option<u32>,
    /// What the last answer said, if it was something else.
    changed: Option<u32>,
    /// Larger batches are refused.
    batch_bytes_max: Option<usize>,
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
pub(super) enum Target {
    /// This partition; without a key, any.
    Partition(Option<u32>),
    /// This partition, with nothing behind it until it is acked.
    First(u32),
    /// Not known yet, or the topic is not to be had.
    Wait,
    /// The topic has another number of partitions now. A key may move only while nothing of it is
    /// in flight, or its records would race each other.
    WaitUntilIdle,
}

impl Topics {
    /// Starts the thread, which ends when this is dropped.
    pub(super) fn start(
        producer: Arc<BaseProducer<Acks>>,
        settings: &Settings,
    ) -> std::io::Result<Topics> {
        let (questions, asked) = channel();
        let answers = Arc::default();
        let lookup = Lookup {
            producer,
            admin: None,
            client: settings.client.clone(),
            batch_bytes: settings.batch_bytes,
            runtime: Handle::current(),
            asked,
            answers: Arc::clone(&answers),
            due: BTreeMap::new(),
        };
        thread::Builder::new().name("kafka-metadata".into()).spawn(move || lookup.run())?;
        let (known, awaited, swept) = (HashMap::new(), None, Instant::now());
        Ok(Topics { known, questions, answers, awaited, swept })
    }

    /// Takes in what has been answered meanwhile.
    pub(super) fn refresh(&mut self) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, answer) in answers.drain(..) {
            let topic = self.known.entry(name).or_default();
            match answer {
                Ok(Description { partitions, batch_bytes_max }) => {
                    topic.trouble = None;
                    topic.batch_bytes_max = batch_bytes_max;
                    let current = *topic.partitions.get_or_insert(partitions);
                    topic.changed = Some(partitions).filter(|changed| *changed != current);
                }
                Err(trouble) => {
                    topic.trouble = Some(trouble);
                    // It may come back as another topic of the same name.
                    topic.openings.clear();
                }
            }
        }
        drop(answers);
        self.close_silent(Instant::now());
    }

    /// The broker has the first record of a partition.
    pub(super) fn opened(&mut self, name: &str, partition: u32) {
        if let Some(topic) = self.known.get_mut(name) {
            topic.set_opening(partition, Opening::Open { used: true });
        }
    }

    fn close_silent(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) < SILENCE_MAX {
            return;
        }
        self.swept = now;
        for opening in self.known.values_mut().flat_map(|topic| &mut topic.openings) {
            *opening = match *opening {
                Opening::Open { used: true } => Opening::Open { used: false },
                Opening::Open { used: false } => Opening::Closed,
                other => other,
            };
        }
    }

    /// Where a record with this key goes. `idle` says whether nothing is in flight.
    pub(super) fn target(
        &mut self,
        name: &str,
        key: Option<&[u8]>,
        idle: impl FnOnce() -> bool,
    ) -> Target {
        let Some(topic) = self.known.get_mut(name) else {
            self.known.insert(name.to_owned(), Topic::default());
            // The thread lives as long as the sender; and if it did not, the record waits.
            let _ = self.questions.send(name.to_owned());
            return Target::Wait;
        };
        if topic.trouble.is_some() {
            self.awaited = Some(name.to_owned());
            return Target::Wait;
        }
        if topic.changed.is_some() {
            if !idle() {
                return Target::WaitUntilIdle;
            }
            topic.partitions = topic.changed.take();
        }
        match (topic.partitions, key) {
            (None, _) => Target::Wait,
            // Has no order that could be lost.
            (Some(_), None) => Target::Partition(None),
            (Some(partitions), Some(key)) => topic.keyed(partition(key, partitions)),
        }
    }

    /// Whether the topic takes a batch that holds this record alone.
    pub(super) fn check_size(&self, record: &Record<'_>) -> Result<(), Refused> {
        let topic = self.known.get(record.topic);
        let Some(max) = topic.and_then(|topic| topic.batch_bytes_max) else { return Ok(()) };
        let bytes = batch_bytes(record);
        if bytes <= max {
            return Ok(());
        }
        Err(Refused::Unsendable(format!(
            "its record takes {bytes} bytes, and topic {} takes {max}; raise max.message.bytes of \
             the topic",
            record.topic
        )))
    }

    /// A record was handed over, as the first of its partition if that is given.
    pub(super) fn sent(&mut self, name: &str, first: Option<u32>) {
        if let Some(topic) = self.known.get_mut(name) {
            topic.sent += 1;
            if let Some(partition) = first {
                topic.set_opening(partition, Opening::Asked);
            }
        }
        self.awaited = None;
    }

    /// Topics with the records handed over since this was last called.
    pub(super) fn take_sent(&mut self) -> impl Iterator<Item = (&str, u64)> {
        let sent = self.known.iter_mut().filter(|(_, topic)| topic.sent > 0);
        sent.map(|(name, topic)| (name.as_str(), std::mem::take(&mut topic.sent)))
    }

    /// Why the next record waits for its topic.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.known.get(self.awaited.as_ref()?)?.trouble.as_deref()
    }
}

impl Topic {
    /// Where a record with a key goes that belongs to this partition.
    fn keyed(&mut self, partition: u32) -> Target {
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

/// The thread that asks.
struct Lookup {
    producer: Arc<BaseProducer<Acks>>,
    /// Made when it is first needed.
    admin: Option<AdminClient<DefaultClientContext>>,
    client: ClientConfig,
    /// The most bytes in a batch of several records.
    batch_bytes: usize,
    runtime: Handle,
    asked: Receiver<String>,
    answers: Arc<Mutex<Vec<(String, Answer)>>>,
    /// When each topic is to be asked about again.
    due: BTreeMap<String, Instant>,
}

impl Lookup {
    fn run(mut self) {
        loop {
            let connected = self.producer.context().is_connected();
            let next = self.due.values().min().copied();
            let wait = match next {
                Some(next) => next.saturating_duration_since(Instant::now()),
                None if connected => REFRESH,
                None => Duration::ZERO,
            };
            match self.asked.recv_timeout(wait) {
                Ok(name) => drop(self.due.insert(name, Instant::now())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.due.is_empty() && !connected {
                self.greet();
            }
            let now = Instant::now();
            let due = self.due.iter().filter(|(_, at)| **at <= now);
            let due: Vec<_> = due.map(|(name, _)| name.clone()).collect();
            for name in due {
                self.ask(name);
            }
        }
    }

    /// Finds out whether any broker answers at all.
    fn greet(&mut self) {
        match self.producer.client().fetch_metadata(None, ANSWER_MAX) {
            Ok(_) => self.producer.context().connected(),
            Err(error) => self.unreachable(&error),
        }
    }

    fn ask(&mut self, name: String) {
        let answer = match self.producer.client().fetch_metadata(Some(&name), ANSWER_MAX) {
            Ok(metadata) => {
                self.producer.context().connected();
                let topic = metadata.topics().iter().find(|topic| topic.name() == name);
                let partitions = topic.map_or(0, |topic| topic.partitions().len());
                let error = topic.and_then(rdkafka::metadata::MetadataTopic::error);
                read_answer(&name, partitions, error)
                    .and_then(|partitions| self.describe(&name, partitions))
            }
            Err(error) => {
                // The count is as good as before; what cannot be sent waits in librdkafka.
                self.unreachable(&error);
                self.due.insert(name, Instant::now() + RETRY);
                return;
            }
        };
        let again = if answer.is_ok() { REFRESH } else { RETRY };
        self.due.insert(name.clone(), Instant::now() + again);
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push((name, answer));
        self.producer.context().wake();
    }

    /// The broker would refuse a batch for its size, although each record in it fits.
    fn describe(&mut self, name: &str, partitions: u32) -> Answer {
        let batch_bytes_max = self.batch_bytes_max(name);
        match batch_bytes_max {
            Some(max) if max < self.batch_bytes => Err(format!(
                "topic {name} takes batches of at most {max} bytes; set batch.size in \
                 [kafka.properties] to {max} or less, or raise max.message.bytes of the topic"
            )),
            _ => Ok(Description { partitions, batch_bytes_max }),
        }
    }

    /// Asks for the topic's `max.message.bytes`. Without the right to know it (`DESCRIBE_CONFIGS`),
    /// the broker will have to say.
    fn batch_bytes_max(&mut self, topic: &str) -> Option<usize> {
        if self.admin.is_none() {
            self.admin = self.client.create().ok();
        }
        let options = AdminOptions::new().request_timeout(Some(ANSWER_MAX));
        let resource = [ResourceSpecifier::Topic(topic)];
        let asked = self.admin.as_ref()?.describe_configs(&resource, &options);
        let described = self.runtime.block_on(asked).ok()?.pop()?.ok()?;
        described.get("max.message.bytes")?.value.as_ref()?.parse().ok()
    }

    fn unreachable(&self, error: &KafkaError) {
        let context = self.producer.context();
        let reason = context.trouble().unwrap_or_else(|| error.to_string());
        context.disconnected(reason);
    }
}

/// The partitions of a topic, or why records cannot go there; what to do stands behind a "; ".
pub(super) fn read_answer(
    name: &str,
    partitions: usize,
    error: Option<RDKafkaRespErr>,
) -> Result<u32, String> {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED as DENIED,
        RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART as UNKNOWN,
    };
    match error {
        None if partitions > 0 => u32::try_from(partitions).map_err(|error| error.to_string()),
        None | Some(UNKNOWN) => {
            Err(format!("topic {name} does not exist; create it, and its records will follow"))
        }
        Some(DENIED) => Err(format!(
            "topic {name}: access denied; the relay's Kafka user needs WRITE and DESCRIBE on it"
        )),
        Some(other) => {
            let code = rdkafka::error::RDKafkaErrorCode::from(other);
            Err(format!("topic {name}: {code}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Topics that have one answer, and nobody to ask.
    fn topics(name: &str, answer: Answer) -> Topics {
        let (questions, _) = channel();
        let answers = Arc::new(Mutex::new(vec![(name.to_owned(), answer)]));
        let (known, awaited, swept) = (HashMap::new(), None, Instant::now());
        let mut topics = Topics { known, questions, answers, awaited, swept };
        topics.refresh();
        topics
    }

    fn described(partitions: u32) -> Description {
        Description { partitions, batch_bytes_max: None }
    }

    fn target(topics: &mut Topics, key: Option<&[u8]>) -> Target {
        topics.target("t", key, || false)
    }

    #[test]
    fn the_first_record_of_a_partition_goes_alone() {
        let mut topics = topics("t", Ok(described(2)));
        let (a, b) = (Some(b"foobar".as_slice()), Some(b"abc".as_slice()));
        let (of_a, of_b) = (partition(b"foobar", 2), partition(b"abc", 2));
        assert_ne!(of_a, of_b);
        assert_eq!(target(&mut topics, a), Target::First(of_a));
        assert_eq!(target(&mut topics, a), Target::First(of_a), "it was not taken");
        topics.sent("t", Some(of_a));
        assert_eq!(target(&mut topics, a), Target::Wait);
        assert_eq!(target(&mut topics, b), Target::First(of_b), "another one need not wait");
        assert_eq!(target(&mut topics, None), Target::Partition(None), "nor what has no order");
        topics.opened("t", of_a);
        assert_eq!(target(&mut topics, a), Target::Partition(Some(of_a)));
    }

    #[test]
    fn a_silent_partition_and_a_lost_topic_are_unknown_again() {
        let mut topics = topics("t", Ok(described(1)));
        let key = Some(b"k".as_slice());
        topics.opened("t", 0);
        let start = topics.swept;
        topics.close_silent(start + SILENCE_MAX);
        assert_eq!(target(&mut topics, key), Target::Partition(Some(0)), "silent for a moment");
        topics.close_silent(start + SILENCE_MAX * 2);
        assert_eq!(target(&mut topics, key), Target::Partition(Some(0)), "used in between");
        topics.close_silent(start + SILENCE_MAX * 3);
        topics.close_silent(start + SILENCE_MAX * 4);
        assert_eq!(target(&mut topics, key), Target::First(0));

        topics.opened("t", 0);
        for answer in [Err("gone".to_owned()), Ok(described(1))] {
            topics.answers.lock().unwrap().push(("t".to_owned(), answer));
            topics.refresh();
        }
        assert_eq!(target(&mut topics, key), Target::First(0));
    }

    #[test]
    fn a_grown_topic_is_used_once_nothing_is_in_flight() {
        let mut topics = topics("t", Ok(described(1)));
        topics.opened("t", 0);
        topics.answers.lock().unwrap().push(("t".to_owned(), Ok(described(4))));
        topics.refresh();
        let key = Some(b"foobar".as_slice());
        assert_eq!(topics.target("t", key, || false), Target::WaitUntilIdle);
        let grown = topics.target("t", key, || true);
        assert_eq!(grown, Target::First(partition(b"foobar", 4)));
    }
}
