//! How many partitions each topic has, asked for on a thread of its own.
//!
//! The partition of a key depends on the count, so that a record waits until its topic's count is
//! known. Asking may take seconds, which the relay's loop does not have.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::types::RDKafkaRespErr;

use super::acks::Acks;
use super::partition::partition;

/// How long one question to a broker may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often a topic that has an answer is asked about again: it may grow, or go.
const REFRESH: Duration = Duration::from_secs(10);
/// How often a topic without an answer is.
const RETRY: Duration = Duration::from_secs(1);

/// What a broker said about a topic: its partitions, or why there are none.
type Answer = Result<u32, String>;

/// The topics that records have gone to, or wait for.
#[derive(Debug)]
pub(super) struct Topics {
    known: HashMap<String, Topic>,
    questions: Sender<String>,
    answers: Arc<Mutex<Vec<(String, Answer)>>>,
    /// The topic that the last record had to wait for.
    awaited: Option<String>,
}

#[derive(Debug, Default)]
struct Topic {
    /// Keys are spread over this many; `None` until the first answer.
    partitions: Option<u32>,
    /// What the last answer said, if it was something else.
    changed: Option<u32>,
    /// Why records cannot go there now.
    trouble: Option<String>,
    /// Records handed over since the count was last fetched.
    sent: u64,
}

/// Where a record of a topic goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// This partition; without a key, any.
    Partition(Option<u32>),
    /// Not known yet, or the topic is not to be had.
    Wait,
    /// The topic has another number of partitions now. A key may move only while nothing of it is
    /// in flight, or its records would race each other.
    WaitUntilIdle,
}

impl Topics {
    /// Starts the thread, which ends when this is dropped.
    pub(super) fn start(producer: Arc<BaseProducer<Acks>>) -> std::io::Result<Topics> {
        let (questions, asked) = channel();
        let answers = Arc::default();
        let lookup =
            Lookup { producer, asked, answers: Arc::clone(&answers), due: BTreeMap::new() };
        thread::Builder::new().name("kafka-metadata".into()).spawn(move || lookup.run())?;
        Ok(Topics { known: HashMap::new(), questions, answers, awaited: None })
    }

    /// Takes in what has been answered meanwhile.
    pub(super) fn refresh(&mut self) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, answer) in answers.drain(..) {
            let topic = self.known.entry(name).or_default();
            match answer {
                Ok(partitions) => {
                    topic.trouble = None;
                    let current = *topic.partitions.get_or_insert(partitions);
                    topic.changed = Some(partitions).filter(|changed| *changed != current);
                }
                Err(trouble) => topic.trouble = Some(trouble),
            }
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
        match topic.partitions {
            Some(partitions) => Target::Partition(key.map(|key| partition(key, partitions))),
            None => Target::Wait,
        }
    }

    /// A record was handed over.
    pub(super) fn sent(&mut self, name: &str) {
        if let Some(topic) = self.known.get_mut(name) {
            topic.sent += 1;
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

/// The thread that asks.
struct Lookup {
    producer: Arc<BaseProducer<Acks>>,
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

    fn unreachable(&self, error: &KafkaError) {
        let context = self.producer.context();
        let reason = context.trouble().unwrap_or_else(|| error.to_string());
        context.disconnected(reason);
    }
}

fn read_answer(name: &str, partitions: usize, error: Option<RDKafkaRespErr>) -> Answer {
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
