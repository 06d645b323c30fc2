//! A Subscriber-Service: reads a topic as a member of a consumer group and acts once per event id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};

use crate::RECONNECT_MAX_MS;

const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// A subscriber with a thread of its own, which lives as long as the process.
pub struct Subscriber {
    arrivals: Arc<Mutex<Arrivals>>,
}

/// What a subscriber has seen.
#[derive(Default)]
pub struct Arrivals {
    /// When each event came for the first time, by its id.
    first: HashMap<String, Instant>,
    repeated: usize,
    out_of_order: usize,
    /// The highest number of each key.
    highest: HashMap<String, i64>,
    /// Where each partition is to be read next.
    next: HashMap<i32, i64>,
    latest: Option<Instant>,
}

/// What matters of a record.
struct Event {
    partition: i32,
    offset: i64,
    id: String,
    key: String,
    /// Counts the posts of the key; absent in events that the Post-Service did not write.
    number: Option<i64>,
}

impl Subscriber {
    pub fn start(bootstrap: &str, group: &str, topic: &str) -> Result<Subscriber> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("reconnect.backoff.max.ms", RECONNECT_MAX_MS)
            .create()
            .with_context(|| format!("make the consumer of {group}"))?;
        consumer.subscribe(&[topic]).with_context(|| format!("subscribe to {topic}"))?;
        let subscriber = Subscriber { arrivals: Arc::default() };
        let arrivals = Arc::clone(&subscriber.arrivals);
        std::thread::spawn(move || {
            loop {
                // Errors tell of the outages; the client library reconnects on its own.
                if let Some(Ok(message)) = consumer.poll(POLL_TIMEOUT)
                    && let Some(event) = Event::of(&message)
                {
                    lock(&arrivals).take(event, Instant::now());
                }
            }
        });
        Ok(subscriber)
    }

    pub fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        lock(&self.arrivals)
    }
}

fn lock(arrivals: &Mutex<Arrivals>) -> MutexGuard<'_, Arrivals> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arrivals {
    /// Events, each counted once.
    pub fn events(&self) -> usize {
        self.first.len()
    }

    /// Records whose event had come before.
    pub fn repeated(&self) -> usize {
        self.repeated
    }

    /// Events that came for the first time after a later one of their key.
    pub fn out_of_order(&self) -> usize {
        self.out_of_order
    }

    /// When the event came, if it did.
    pub fn of(&self, id: &str) -> Option<Instant> {
        self.first.get(id).copied()
    }

    /// Whether nothing has come for so long.
    pub fn is_quiet(&self, duration: Duration) -> bool {
        self.latest.is_none_or(|latest| latest.elapsed() >= duration)
    }

    fn take(&mut self, event: Event, now: Instant) {
        self.latest = Some(now);
        let next = self.next.entry(event.partition).or_default();
        // After a rebalance the group begins where it last committed. That is its own repetition,
        // of the same records; what counts here is what publishers write twice.
        if event.offset < *next {
            return;
        }
        *next = event.offset + 1;
        if self.first.contains_key(&event.id) {
            self.repeated += 1;
            return;
        }
        self.first.insert(event.id, now);
        if let Some(number) = event.number {
            let highest = self.highest.entry(event.key).or_default();
            self.out_of_order += usize::from(number < *highest);
            *highest = number.max(*highest);
        }
    }
}

impl Event {
    /// `None` for a record without id, with which a subscriber cannot do anything.
    fn of(message: &BorrowedMessage<'_>) -> Option<Event> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let id = message.headers()?.iter().find(|header| header.key == "id")?.value?;
        let payload: Option<serde_json::Value> =
            message.payload().and_then(|payload| serde_json::from_slice(payload).ok());
        Some(Event {
            partition: message.partition(),
            offset: message.offset(),
            id: text(id),
            key: message.key().map(text).unwrap_or_default(),
            number: payload.and_then(|payload| payload.get("number")?.as_i64()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(events: &[(i64, &str, i64)]) -> Arrivals {
        let mut arrivals = Arrivals::default();
        for &(offset, id, number) in events {
            let (id, key, number) = (id.to_owned(), "key".to_owned(), Some(number));
            arrivals.take(Event { partition: 0, offset, id, key, number }, Instant::now());
        }
        arrivals
    }

    #[test]
    fn an_event_counts_once() {
        let seen = arrivals(&[(0, "a", 1), (1, "b", 2), (2, "a", 1)]);
        assert_eq!((seen.events(), seen.repeated(), seen.out_of_order()), (2, 1, 0));
    }

    #[test]
    fn a_record_read_again_is_no_repetition() {
        let seen = arrivals(&[(0, "a", 1), (1, "b", 2), (0, "a", 1), (1, "b", 2), (2, "c", 3)]);
        assert_eq!((seen.events(), seen.repeated(), seen.out_of_order()), (3, 0, 0));
    }

    #[test]
    fn an_event_after_a_later_one_is_out_of_order_and_a_gap_is_not() {
        let seen = arrivals(&[(0, "b", 2), (1, "e", 5), (2, "a", 1), (3, "f", 6)]);
        assert_eq!((seen.events(), seen.repeated(), seen.out_of_order()), (4, 0, 1));
    }
}
