//! Finds out what must be known of a topic before a record can go there, on a thread of its own.
//!
//! The partition of a key depends on the count, so that a record waits until its topic's count is
//! known. Asking may take seconds, which the relay's loop does not have.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::types::RDKafkaRespErr;
use tokio::runtime::Handle;

use super::acks::Acks;
use super::native::{add_brokers, count_brokers};
use super::routes::{Answer, Counts, Description, Routes, Target};
use super::settings::Settings;
use crate::record::Record;

/// How long one question to a broker may take.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often a topic that has an answer is asked about again: it may grow, or go.
const REFRESH: Duration = Duration::from_secs(10);
/// How often a topic without an answer is.
const RETRY: Duration = Duration::from_secs(1);
/// How often, at most, librdkafka is told its brokers while none answers. It keeps each list: some
/// hundred KiB for a day without Kafka.
const REMIND: Duration = Duration::from_secs(10);

/// Where records go, and the thread that asks about topics.
#[derive(Debug)]
pub(super) struct Topics {
    /// What has been answered.
    pub(super) routes: Routes,
    questions: Sender<String>,
    answers: Arc<Mutex<Vec<(String, Answer)>>>,
}

impl Topics {
    /// Starts the thread, which ends when this is dropped.
    pub(super) fn start(
        producer: Arc<BaseProducer<Acks>>,
        settings: &Settings,
        before: Counts,
    ) -> std::io::Result<Topics> {
        let (questions, asked) = channel();
        let answers = Arc::default();
        let lookup = Lookup {
            producer,
            admin: None,
            client: settings.client.clone(),
            reminded: None,
            batch_bytes: settings.batch_bytes,
            runtime: Handle::current(),
            asked,
            answers: Arc::clone(&answers),
            due: BTreeMap::new(),
            greeting: Instant::now(),
        };
        thread::Builder::new().name("kafka-metadata".into()).spawn(move || lookup.run())?;
        Ok(Topics { routes: Routes::after(before), questions, answers })
    }

    /// Takes in what has been answered meanwhile.
    pub(super) fn refresh(&mut self) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, answer) in answers.drain(..) {
            self.routes.answered(name, answer);
        }
        drop(answers);
        self.routes.close_silent(Instant::now());
    }

    /// Where a record goes. `idle` says whether nothing is in flight.
    pub(super) fn target(&mut self, record: &Record<'_>, idle: impl FnOnce() -> bool) -> Target {
        let target = self.routes.target(record, idle);
        if target == Target::Ask {
            // The thread lives as long as the sender; and if it did not, the record waits.
            let _ = self.questions.send(record.topic.to_owned());
        }
        target
    }
}

/// The thread that asks.
struct Lookup {
    producer: Arc<BaseProducer<Acks>>,
    /// Made when it is first needed.
    admin: Option<AdminClient<DefaultClientContext>>,
    client: ClientConfig,
    /// When librdkafka was last told its brokers.
    reminded: Option<Instant>,
    /// The most bytes in a batch of several records.
    batch_bytes: usize,
    runtime: Handle,
    asked: Receiver<String>,
    answers: Arc<Mutex<Vec<(String, Answer)>>>,
    /// When each topic is to be asked about again.
    due: BTreeMap<String, Instant>,
    /// When to look whether a broker answers, while there is no topic to ask about.
    greeting: Instant,
}

impl Lookup {
    fn run(mut self) {
        loop {
            let next = self.due.values().min().copied().unwrap_or(self.greeting);
            match self.asked.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(name) => drop(self.due.insert(name, Instant::now())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.due.is_empty() {
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

    /// Finds out whether any broker answers at all, and goes on doing so: a relay without rows has
    /// a position to write, and would not notice that librdkafka has no broker left to ask.
    fn greet(&mut self) {
        let brokers = count_brokers(&self.producer, ANSWER_MAX);
        let answered = self.hear(brokers.as_ref().copied());
        self.greeting = Instant::now() + if answered { REFRESH } else { RETRY };
    }

    fn ask(&mut self, name: String) {
        let asked = self.producer.client().fetch_metadata(Some(&name), ANSWER_MAX);
        let heard = self.hear(asked.as_ref().map(|metadata| metadata.brokers().len()));
        let Some(metadata) = asked.ok().filter(|_| heard) else {
            // The count is as good as before; what cannot be sent waits in librdkafka.
            self.due.insert(name, Instant::now() + RETRY);
            return;
        };
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        let partitions = topic.map_or(0, |topic| topic.partitions().len());
        let error = topic.and_then(MetadataTopic::error);
        let answer = read_answer(&name, partitions, error)
            .and_then(|partitions| self.describe(&name, partitions));
        let again = if answer.is_ok() { REFRESH } else { RETRY };
        self.due.insert(name.clone(), Instant::now() + again);
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push((name, answer));
        self.producer.context().wake();
    }

    /// Takes in how many brokers the one that was asked lists. Returns whether that is an answer:
    /// by none, no record can be sent.
    fn hear(&mut self, brokers: Result<usize, &KafkaError>) -> bool {
        match brokers {
            Ok(1..) => self.producer.context().connected(),
            Ok(0) => self.unreachable("the broker that answers knows of no broker yet".to_owned()),
            Err(error) => {
                let reason = self.producer.context().trouble();
                self.unreachable(reason.unwrap_or_else(|| error.to_string()));
            }
        }
        matches!(brokers, Ok(1..))
    }

    /// The broker would refuse a batch for its size, although each record in it fits.
    fn describe(&mut self, name: &str, partitions: u32) -> Answer {
        // Without the right to know them (`DESCRIBE_CONFIGS`), the broker will have to say.
        let settings = self.settings(name).unwrap_or_default();
        let batch_bytes_max = settings.get("max.message.bytes").and_then(|max| max.parse().ok());
        match batch_bytes_max {
            Some(max) if max < self.batch_bytes => Err(format!(
                "topic {name} takes batches of at most {max} bytes; set batch.size in \
                 [kafka.properties] to {max} or less, or raise max.message.bytes of the topic"
            )),
            _ => {
                Ok(Description { partitions, batch_bytes_max, ahead_max_ms: ahead_max(&settings) })
            }
        }
    }

    /// What the topic is set to.
    fn settings(&mut self, topic: &str) -> Option<HashMap<String, String>> {
        if self.admin.is_none() {
            self.admin = self.client.create().ok();
        }
        let options = AdminOptions::new().request_timeout(Some(ANSWER_MAX));
        let resource = [ResourceSpecifier::Topic(topic)];
        let asked = self.admin.as_ref()?.describe_configs(&resource, &options);
        let Ok(mut answers) = self.runtime.block_on(asked) else {
            // It may know no brokers any more; a new one does.
            self.admin = None;
            return None;
        };
        let described = answers.pop()?.ok()?;
        let entries = described.entries.into_iter();
        Some(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect())
    }

    fn unreachable(&mut self, reason: String) {
        self.producer.context().disconnected(reason);
        if self.reminded.is_none_or(|at| at.elapsed() >= REMIND)
            && let Some(brokers) = self.client.get("bootstrap.servers")
        {
            add_brokers(&self.producer, brokers);
            self.reminded = Some(Instant::now());
        }
    }
}

/// How far a record's time may be ahead of the broker's clock, in milliseconds. Since Kafka 3.6 it
/// has a setting of its own (KIP-937), with an hour for a default.
fn ahead_max(settings: &HashMap<String, String>) -> Option<i64> {
    if settings.get("message.timestamp.type").is_some_and(|kind| kind == "LogAppendTime") {
        return None;
    }
    let both = "message.timestamp.difference.max.ms";
    let max = settings.get("message.timestamp.after.max.ms").or_else(|| settings.get(both));
    max?.parse().ok()
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
#[path = "topics_tests.rs"]
mod tests;
