//! What a service does that has no outbox: it publishes its event straight after the commit.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use crate::RECONNECT_MAX_MS;

/// The most that Kafka's client library tries for a record before the service gives it up.
const DELIVERY_TIMEOUT_MS: &str = "5000";

/// An honest producer: idempotent, acks from all replicas, as patient as a request can be.
pub struct DirectPublisher {
    topic: &'static str,
    producer: ThreadedProducer<GivenUp>,
}

/// Counts the records that were not delivered. A service logs each of them, and goes on: the
/// request was answered long ago, and nobody is left to try again.
#[derive(Default)]
struct GivenUp(AtomicU64);

impl DirectPublisher {
    pub fn new(bootstrap: &str, topic: &'static str) -> Result<DirectPublisher> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", DELIVERY_TIMEOUT_MS)
            .set("reconnect.backoff.max.ms", RECONNECT_MAX_MS)
            .create_with_context(GivenUp::default())
            .context("make the direct producer")?;
        Ok(DirectPublisher { topic, producer })
    }

    /// Hands the event to the client library and returns at once. A service cannot wait here: with
    /// Kafka down every request would hang for five seconds, and the post is committed anyway.
    pub fn publish(&self, id: &str, key: &str, payload: &str) {
        let headers = OwnedHeaders::new().insert(Header { key: "id", value: Some(id) });
        let record = BaseRecord::to(self.topic).key(key).payload(payload).headers(headers);
        if self.producer.send(record).is_err() {
            self.given_up_counter().fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The events that never got out.
    pub fn given_up(&self) -> u64 {
        self.given_up_counter().load(Ordering::Relaxed)
    }

    /// Whether each event was either delivered or given up.
    pub fn is_settled(&self) -> bool {
        self.producer.in_flight_count() == 0
    }

    fn given_up_counter(&self) -> &AtomicU64 {
        &self.producer.client().context().0
    }
}

impl ClientContext for GivenUp {}

impl ProducerContext for GivenUp {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
