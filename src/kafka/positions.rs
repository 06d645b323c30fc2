//! The topic that remembers how far the relay has got: read at a start, written on the way.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART as UNKNOWN;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::producer::Producer;
use crate::frontier::Reached;
use crate::journal::Journal;
use crate::position::{BadRecord, PositionRecord, Remembered, Source};

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
    /// It is not there.
    #[error("there is no topic {0}; a relay makes it as it starts for the first time")]
    Missing(String),
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

/// Makes the topic if it is missing. Returns whether it was.
pub async fn create(settings: &ClientConfig, topic: &str) -> Result<bool, PositionsError> {
    let failed = |reason: String| PositionsError::Create { topic: topic.to_owned(), reason };
    let admin: AdminClient<DefaultClientContext> =
        settings.create().map_err(|error: KafkaError| failed(error.to_string()))?;
    // The cluster knows best how many replicas a topic should have.
    // The brokers' own time: they would refuse a record whose time is ahead, and our clock may be.
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1))
        .set("cleanup.policy", "compact")
        .set("message.timestamp.type", "LogAppendTime");
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_MAX));
    let results = admin.create_topics([&new], &options.request_timeout(Some(ANSWER_MAX))).await;
    dismiss(admin);
    match results.map_err(|error| failed(error.to_string()))?.into_iter().next() {
        Some(Ok(_)) => Ok(true),
        None | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
        Some(Err((_, code))) => Err(failed(code.to_string())),
    }
}

/// Reads what is remembered of `source`. Blocks; may take a minute.
///
/// Must be called within a tokio runtime.
pub fn read(
    settings: &ClientConfig,
    topic: &str,
    source: &Source,
) -> Result<Remembered, PositionsError> {
    let consumer: BaseConsumer = settings.create().map_err(unreadable(topic))?;
    let found = read_with(&consumer, topic, source);
    dismiss(consumer);
    found
}

/// A client's threads end within a tenth of a second, which nobody needs to wait for.
fn dismiss(client: impl Send + 'static) {
    drop(tokio::task::spawn_blocking(move || drop(client)));
}

fn unreadable(topic: &str) -> impl Fn(KafkaError) -> PositionsError + Copy + '_ {
    move |error| PositionsError::Read { topic: topic.to_owned(), reason: error.to_string() }
}

fn read_with(
    consumer: &BaseConsumer,
    topic: &str,
    source: &Source,
) -> Result<Remembered, PositionsError> {
    let failed = unreadable(topic);
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_MAX).map_err(failed)?;
    let known = metadata.topics().iter().find(|it| it.name() == topic);
    if known.and_then(MetadataTopic::error) == Some(UNKNOWN) {
        return Err(PositionsError::Missing(topic.to_owned()));
    }
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
                    found.take(source, of, value).map_err(bad)?;
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

/// Hands a record over. Returns whether it was taken.
pub fn send(producer: &Producer, topic: &str, source: &Source, record: &PositionRecord) -> bool {
    producer.send_position(topic, PARTITION, &source.key(), &record.to_json(source))
}

/// The topic, and the record on its way there.
#[derive(Debug)]
pub struct Positions {
    topic: String,
    /// What has been written.
    pub journal: Journal,
}

impl Positions {
    /// Writes to this topic.
    pub fn new(topic: String, journal: Journal) -> Positions {
        Positions { topic, journal }
    }

    /// Writes, if it is time to, or in a hurry.
    pub fn write(&mut self, producer: &Producer, now: Instant, reached: Reached, hurry: bool) {
        let Some(record) = self.journal.due(now, reached, hurry) else { return };
        if send(producer, &self.topic, self.journal.source(), &record) {
            self.journal.sent(now, reached);
        }
    }
}
