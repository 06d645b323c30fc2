//! The one place that sends.
//!
//! Records are handed to librdkafka from the relay's loop alone, and delivery reports are read by
//! one thread: order is the order of the calls, and nothing but that thread can delay an ack.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, UNIX_EPOCH};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, PurgeConfig};

use super::acks::Acks;
use super::native::Sender;
use super::routes::{Counts, Target};
use super::settings::Settings;
use super::topics::Topics;
use crate::frontier::Ticket;
use crate::pipe::{Flaw, Refused, Sink};
use crate::record::{Record, Timestamp};

/// How long the poll thread may take to notice that it is to end. Reports are served as they
/// come, whatever this is.
///
/// The wrapper waits in whole milliseconds and spins for what is left of them, 1 % of a core if
/// that is a whole one each time. These microseconds are over by the time that it wakes up.
const POLL: Duration = Duration::from_micros(100_060);

/// A Kafka producer and its threads.
pub struct Producer {
    inner: Arc<BaseProducer<Acks>>,
    sender: Sender,
    topics: Topics,
    /// Then only the broker can tell whether a record is too large.
    compresses: bool,
    stop: Arc<AtomicBool>,
    poller: Option<JoinHandle<()>>,
}

/// The producer could not be made; the properties contradict each other, or the system refuses.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// librdkafka says why.
    #[error("librdkafka refuses its configuration: {0}")]
    Settings(#[from] KafkaError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl Producer {
    /// Makes the producer and its threads. Does not wait for a broker. `before` is what the one
    /// before it has spread keys over.
    ///
    /// Must be called within a tokio runtime.
    pub fn start(settings: &Settings, before: Counts) -> Result<Producer, StartError> {
        let Settings { producer, compresses, .. } = settings;
        let inner: Arc<BaseProducer<Acks>> =
            Arc::new(producer.create_with_context(Acks::default())?);
        // First, because it ends by itself if the other thread cannot be started.
        let topics = Topics::start(Arc::clone(&inner), settings, before)?;
        let stop = Arc::new(AtomicBool::new(false));
        let poller = thread::Builder::new().name("kafka-poll".into()).spawn({
            let (inner, stop) = (Arc::clone(&inner), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    inner.poll(POLL);
                }
            }
        })?;
        let sender = Sender::new(Arc::clone(&inner));
        Ok(Producer { inner, sender, topics, compresses: *compresses, stop, poller: Some(poller) })
    }

    /// The delivery reports.
    pub fn acks(&self) -> &Acks {
        self.inner.context()
    }

    /// Takes in what the brokers said about topics and partitions meanwhile.
    pub fn refresh_topics(&mut self) {
        for (topic, partition) in self.inner.context().take_opened() {
            self.topics.routes.opened(&topic, partition);
        }
        self.topics.refresh();
    }

    /// Why records wait although brokers answer: a topic is missing or closed to us.
    pub fn topic_trouble(&self) -> Option<&str> {
        self.topics.routes.trouble()
    }

    /// Over how many partitions of each topic keys are spread.
    pub fn counts(&self) -> Counts {
        self.topics.routes.counts()
    }

    /// Topics with the records handed over since this was last called.
    pub fn take_sent(&mut self) -> impl Iterator<Item = (&str, u64)> {
        self.topics.routes.take_sent()
    }
}

impl Sink for Producer {
    fn send(&mut self, record: &Record<'_>, ticket: Ticket) -> Result<(), Refused> {
        // Not every failure stops librdkafka at once; nothing may pass the record that failed.
        if self.acks().has_failed() {
            return Err(Refused::Full);
        }
        let idle = || self.inner.in_flight_count() == 0;
        let (partition, first) = match self.topics.target(record, idle) {
            Target::Partition(partition) => (partition, None),
            Target::First(partition) => (Some(partition), Some(partition)),
            Target::Ask | Target::Wait | Target::WaitUntilIdle => return Err(Refused::Full),
            Target::Beyond(count) => {
                let asked = record.partition.unwrap_or_default();
                let reason = format!(
                    "it asks for partition {asked}, and topic {} has {count}, counted from 0; add \
                     partitions to it",
                    record.topic
                );
                return Err(Refused::Unsendable(Flaw::Other, reason));
            }
        };
        if !self.compresses {
            self.topics.routes.check_size(record)?;
        }
        let now_ms = now_ms();
        let check = |ms| self.topics.routes.check_time(record.topic, ms, now_ms).map(|()| ms);
        let timestamp_ms = match record.timestamp {
            // So far ahead it would be refused, and it is no row's fault that clocks differ.
            Timestamp::Committed(ms) => check(ms).unwrap_or(now_ms),
            Timestamp::Given(ms) => check(ms)?,
        };
        let ticket = if first.is_some() { ticket.as_first() } else { ticket };
        let partition = partition.and_then(|partition| i32::try_from(partition).ok());
        match self.sender.send(record, partition, timestamp_ms, ticket) {
            Ok(()) => {
                self.topics.routes.sent(record.topic, first);
                Ok(())
            }
            Err(error) => Err(self.refused(record, &error)),
        }
    }
}

impl Producer {
    /// Sends a position record. Returns whether it was taken; if not, it is tried again.
    pub fn send_position(&self, topic: &str, partition: i32, key: &str, value: &str) -> bool {
        let ticket = Ticket::POSITION.to_opaque();
        let record: BaseRecord<'_, str, str, usize> = BaseRecord::with_opaque_to(topic, ticket);
        match self.inner.send(record.key(key).payload(value).partition(partition)) {
            Ok(()) => true,
            Err((error, _)) => {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    self.acks().fail(topic, &error);
                }
                false
            }
        }
    }

    fn refused(&self, record: &Record<'_>, error: &KafkaError) -> Refused {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => Refused::Full,
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                let size = record.charge();
                let reason = format!(
                    "about {size} bytes are more than Kafka takes; raise message.max.bytes in \
                     [kafka.properties] and max.message.bytes of topic {}",
                    record.topic
                );
                Refused::Unsendable(Flaw::Size, reason)
            }
            // Whatever it is, it concerns the producer and not the record: the loop will find it
            // among the acks and begin anew.
            _ => {
                self.acks().fail(record.topic, error);
                Refused::Full
            }
        }
    }
}

/// Milliseconds since 1970-01-01 UTC.
fn now_ms() -> i64 {
    let now = UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

impl Drop for Producer {
    /// May take as long as a poll: 100 ms. What is in flight is given up, and sent again by
    /// whoever comes next.
    fn drop(&mut self) {
        // At once, and not when the last thread lets go of librdkafka: a record of this producer
        // must not arrive after the next one has begun, if that can be helped.
        self.inner.purge(PurgeConfig::default().queue().inflight());
        self.stop.store(true, Ordering::Relaxed);
        if let Some(poller) = self.poller.take() {
            let _ = poller.join();
        }
    }
}

#[cfg(test)]
#[path = "producer_tests.rs"]
mod tests;
