//! The topic that remembers how far the relay has got: read at a start, written on the way.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::producer::Producer;
use crate::frontier::{Flush, Reached};
use crate::position::{BadRecord, Context, PositionRecord, Remembered, Source};

/// The topic has one partition: records of one key must have one order.
const PARTITION: i32 = 0;
/// How long Kafka may take for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long reading the topic may take. It is compacted, and holds little.
const READ_MAX: Duration = Duration::from_secs(60);

/// The position topic is of no use. Each message ends with what to do.
#[derive(Debug, thiserror::Error)]
pub enum PositionsError {
    /// It is not there and cannot be made.
    #[error(
        "cannot create topic {topic}: {reason}; create it with one partition and \
         cleanup.policy=compact, or set delivery.positions_topic = \"\" to do without"
    )]
    Create {
        /// Its name.
        topic: String,
        /// Kafka's words.
        reason: String,
    },
    /// It cannot be read.
    #[error("cannot read topic {topic}: {reason}; the relay needs READ and DESCRIBE on it")]
    Read {
        /// Its name.
        topic: String,
        /// Kafka's words.
        reason: String,
    },
    /// Kafka did not answer in time.
    #[error("Kafka did not give the records of topic {0} in time")]
    Slow(String),
    /// The record is not one of ours.
    #[error("topic {topic}: {bad}; delete the record, or set delivery.positions_topic to another")]
    Bad {
        /// Its name.
        topic: String,
        /// What is wrong with it.
        bad: BadRecord,
    },
}

/// Makes the topic if it is missing.
pub async fn create(settings: &ClientConfig, topic: &str) -> Result<(), PositionsError> {
    let failed = |reason: String| PositionsError::Create { topic: topic.to_owned(), reason };
    let admin: AdminClient<DefaultClientContext> =
        settings.create().map_err(|error: KafkaError| failed(error.to_string()))?;
    // The cluster knows best how many replicas a topic should have.
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1)).set("cleanup.policy", "compact");
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_MAX));
    let results = admin.create_topics([&new], &options.request_timeout(Some(ANSWER_MAX))).await;
    match results.map_err(|error| failed(error.to_string()))?.into_iter().next() {
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(failed(code.to_string())),
    }
}

/// Reads what is remembered of `source`. Blocks; may take a minute.
pub fn read(
    settings: &ClientConfig,
    topic: &str,
    source: &Source,
) -> Result<Remembered, PositionsError> {
    let failed = |error: KafkaError| PositionsError::Read {
        topic: topic.to_owned(),
        reason: error.to_string(),
    };
    let consumer: BaseConsumer = settings.create().map_err(failed)?;
    let (low, high) = consumer.fetch_watermarks(topic, PARTITION, ANSWER_MAX).map_err(failed)?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, PARTITION, Offset::Offset(low)).map_err(failed)?;
    consumer.assign(&partitions).map_err(failed)?;
    let mut found = Remembered::default();
    let mut next = low;
    let deadline = Instant::now() + READ_MAX;
    while next < high {
        if Instant::now() > deadline {
            return Err(PositionsError::Slow(topic.to_owned()));
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                next = record.offset() + 1;
                if let (Some(of), Some(value)) = (record.key(), record.payload()) {
                    let bad = |bad| PositionsError::Bad { topic: topic.to_owned(), bad };
                    take(&mut found, source, of, value).map_err(bad)?;
                }
            }
            // The last offsets may have been compacted away, or be a transaction's marker.
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            Some(Err(error)) => return Err(failed(error)),
            None => {}
        }
    }
    Ok(found)
}

fn take(
    found: &mut Remembered,
    source: &Source,
    key: &[u8],
    value: &[u8],
) -> Result<(), BadRecord> {
    let key = String::from_utf8_lossy(key);
    if key == source.key() {
        let record = PositionRecord::parse(value)?;
        // The last one, but for what a relay that was cut off had under way.
        let before = found.record.take().filter(|before| before.is_beyond(&record));
        found.record = before.or(Some(record));
    } else if source.is_namesake(&key)
        && let Ok(record) = PositionRecord::parse(value)
    {
        found.elsewhere = found.elsewhere.max(Some((record.context.epoch, record.end)));
    }
    Ok(())
}

/// Writes a record that has a server refused, which a later start must know.
pub fn write_refusal(producer: &Producer, topic: &str, source: &Source, record: &PositionRecord) {
    producer.send_position(topic, PARTITION, &source.key(), &record.to_json(source));
}

/// What has been written to the topic, and may therefore be confirmed.
#[derive(Debug)]
pub struct Positions {
    topic: String,
    source: Source,
    context: Context,
    interval: Duration,
    written: Reached,
    /// Whether it was written by this process. A record that an earlier one had under way may
    /// arrive behind what a start has read, so that the start is written once more.
    own: bool,
    /// Sent and not acked. At most one, so that the order of acks does not matter.
    pending: Option<Reached>,
    last: Option<Instant>,
}

impl Positions {
    /// Nothing has been written by this process yet, but `start` is what a start has found.
    pub fn new(
        topic: String,
        source: Source,
        context: Context,
        interval: Duration,
        start: Reached,
    ) -> Positions {
        let (written, own) = (start, false);
        Positions { topic, source, context, interval, written, own, pending: None, last: None }
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

    /// Writes, if it is time to, or in a hurry.
    pub fn write(&mut self, producer: &Producer, now: Instant, reached: Reached, hurry: bool) {
        let Some(next) = self.next(now, reached) else { return };
        if now < next && !hurry {
            return;
        }
        let record = PositionRecord::new(self.context.clone(), reached);
        let value = record.to_json(&self.source);
        if producer.send_position(&self.topic, PARTITION, &self.source.key(), &value) {
            self.pending = Some(reached);
            self.last = Some(now);
        }
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
