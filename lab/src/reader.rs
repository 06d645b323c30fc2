//! Reads topics back, to see what the relay really wrote.
//!
//! Partitions are assigned by hand: no consumer group, no rebalance, nothing committed. Reading
//! blocks the calling thread; a test with a single-threaded runtime that has to go on meanwhile
//! wraps it in `tokio::task::spawn_blocking`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const READ_ALL_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
const METADATA_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a consumer may bring nothing before another one takes its place.
const QUIET_MAX: Duration = Duration::from_secs(10);

/// A record as a consumer gets it. Ordered by partition, then offset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Counted from 0.
    pub partition: i32,
    /// In the partition.
    pub offset: i64,
    /// `None` for null, which is not the same as empty.
    pub key: Option<Vec<u8>>,
    /// `None` for a tombstone.
    pub payload: Option<Vec<u8>>,
    /// In the record's order, names may repeat.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// The key as text, lossily; empty for null.
    pub fn key_text(&self) -> String {
        text(self.key.as_deref())
    }

    /// The payload as text, lossily; empty for a tombstone.
    pub fn payload_text(&self) -> String {
        text(self.payload.as_deref())
    }

    /// The first header with this name, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        value.as_deref().map(|value| text(Some(value)))
    }
}

/// What a reader sees of transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Committed records only, up to the oldest open transaction.
    #[default]
    Committed,
    /// Everything, aborted records included.
    Uncommitted,
}

/// Everything that the topic holds now, ordered by partition and offset.
pub fn read_all(bootstrap: &str, topic: &str) -> Result<Vec<Record>> {
    read_all_with(bootstrap, topic, Isolation::Committed)
}

/// The same with a chosen isolation.
pub fn read_all_with(bootstrap: &str, topic: &str, isolation: Isolation) -> Result<Vec<Record>> {
    let mut reader = Reader::open_with(bootstrap, topic, isolation)?;
    reader.read_to_end(READ_ALL_TIMEOUT)?;
    let mut records = reader.records;
    records.sort();
    Ok(records)
}

/// Reads a topic from its beginning and goes on as it grows, in the partitions that the topic had
/// when the reader was opened.
pub struct Reader {
    config: ClientConfig,
    consumer: BaseConsumer,
    /// Where each partition is to be read next: after the last record, or from the beginning.
    next: BTreeMap<i32, Offset>,
    /// When a record last came, or the consumer began.
    heard: Instant,
    topic: String,
    /// In the order of arrival: offsets grow inside a partition, partitions interleave.
    records: Vec<Record>,
}

impl Reader {
    /// Opens the topic at its beginning; reads committed records only.
    pub fn open(bootstrap: &str, topic: &str) -> Result<Reader> {
        Reader::open_with(bootstrap, topic, Isolation::Committed)
    }

    /// The same with a chosen isolation.
    pub fn open_with(bootstrap: &str, topic: &str, isolation: Isolation) -> Result<Reader> {
        Reader::assigned(bootstrap, topic, isolation).with_context(|| format!("open topic {topic}"))
    }

    fn assigned(bootstrap: &str, topic: &str, isolation: Isolation) -> Result<Reader> {
        let isolation = match isolation {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        };
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap)
            // The client library insists on a name even where no group is joined.
            .set("group.id", "lab-reader")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", isolation)
            // A reader waits for the relay, so it had better look often and reconnect soon.
            .set("fetch.wait.max.ms", "50")
            .set("reconnect.backoff.max.ms", "500");
        let consumer: BaseConsumer = config.create()?;
        let metadata = consumer.fetch_metadata(Some(topic), METADATA_TIMEOUT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions = found.map(MetadataTopic::partitions).unwrap_or_default();
        ensure!(!partitions.is_empty(), "the topic does not exist");
        let next = partitions.iter().map(|partition| (partition.id(), Offset::Beginning));
        let (next, topic) = (next.collect(), topic.to_owned());
        let (heard, records) = (Instant::now(), Vec::new());
        let reader = Reader { config, consumer, next, heard, topic, records };
        reader.assign()?;
        Ok(reader)
    }

    /// Everything read so far.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Everything read so far, leaving nothing behind.
    pub fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// Reads on until it holds at least `count` records in total, or fails after `timeout`. It
    /// returns as soon as the count is reached, so it says nothing about records that follow:
    /// [`Reader::read_to_end`] does.
    pub fn poll_until(&mut self, count: usize, timeout: Duration) -> Result<&[Record]> {
        self.read_until(timeout, format!("{count} records"), |records| records.len() >= count)
    }

    /// Reads on until `done` says so of all records read so far, or fails after `timeout`.
    pub fn read_until(
        &mut self,
        timeout: Duration,
        what: impl fmt::Display,
        mut done: impl FnMut(&[Record]) -> bool,
    ) -> Result<&[Record]> {
        let deadline = Instant::now() + timeout;
        self.heard = Instant::now();
        while !done(&self.records) {
            ensure!(
                Instant::now() < deadline,
                "waited {timeout:?} in vain for: {what} ({} records of {} read)",
                self.records.len(),
                self.topic
            );
            self.step()?;
        }
        Ok(&self.records)
    }

    /// Reads everything up to where each partition ends now.
    pub fn read_to_end(&mut self, timeout: Duration) -> Result<&[Record]> {
        // The end of a partition is announced once, and an announcement that waits in the queue may
        // be of an earlier end.
        self.renew()?;
        let mut unfinished: BTreeSet<i32> = self.next.keys().copied().collect();
        let deadline = Instant::now() + timeout;
        while !unfinished.is_empty() {
            ensure!(
                Instant::now() < deadline,
                "partitions {unfinished:?} of {} were not read to their end in {timeout:?}",
                self.topic
            );
            if let Some(partition) = self.step()? {
                unfinished.remove(&partition);
            }
        }
        Ok(&self.records)
    }

    /// Goes on with a new consumer. It has no past; merely assigning the old one anew was seen to
    /// bring records of its past again. And the old one may have forgotten all its brokers, because
    /// one that was just starting knew of none (librdkafka's issue 5301): then it stays silent.
    fn renew(&mut self) -> Result<()> {
        self.consumer = self.config.create()?;
        // Knowing the leaders before the assignment spares its retry half a second later. Without
        // a broker, it has to be retried.
        drop(self.consumer.fetch_metadata(Some(&self.topic), QUIET_MAX / 2));
        self.heard = Instant::now();
        self.assign()
    }

    /// Takes one record in, or tells which partition ended. Goes on with a new consumer if nothing
    /// has come for long.
    fn step(&mut self) -> Result<Option<i32>> {
        if self.heard.elapsed() > QUIET_MAX {
            self.renew()?;
        }
        match self.consumer.poll(POLL_TIMEOUT) {
            None => Ok(None),
            Some(Ok(message)) => {
                let next = Offset::Offset(message.offset() + 1);
                self.next.insert(message.partition(), next);
                self.records.push(record_of(&message));
                self.heard = Instant::now();
                Ok(None)
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => Ok(Some(partition)),
            Some(Err(error)) if passes_by_itself(&error) => Ok(None),
            Some(Err(error)) => Err(error).with_context(|| format!("read {}", self.topic)),
        }
    }

    fn assign(&self) -> Result<()> {
        let mut assignment = TopicPartitionList::new();
        for (&partition, &next) in &self.next {
            assignment.add_partition_offset(&self.topic, partition, next)?;
        }
        Ok(self.consumer.assign(&assignment)?)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader of {} with {} records", self.topic, self.records.len())
    }
}

/// A broker that is down is what tests are about; the client library tries again on its own.
fn passes_by_itself(error: &KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::OperationTimedOut
                | Code::Resolve
                | Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
        )
    )
}

fn record_of(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map(|headers| {
        let headers = headers.iter();
        headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        timestamp_ms: message.timestamp().to_millis(),
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}
