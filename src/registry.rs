//! Asks a schema registry, on a thread of its own: an answer may take seconds, which the relay's
//! loop does not have.
//!
//! The registry speaks the REST interface of Confluent's, which Apicurio, Karapace and Redpanda
//! have as well. What it does not answer is asked again, for as long as it takes; what it has
//! answered is asked again now and then, because a subject may have a newer schema.

mod client;

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::config::{self, Encoding};
use crate::encode::{Answer, Encoder, Question};
use crate::schema::Schema;
use client::Client;

/// How often a subject that has an answer is asked about again.
const REFRESH: Duration = Duration::from_secs(10);
/// How often a subject without an answer is.
const RETRY: Duration = Duration::from_secs(1);

/// The thread that asks.
#[derive(Debug)]
pub struct Registry {
    questions: Sender<Question>,
    answers: Arc<Mutex<Vec<Answer>>>,
    answered: Arc<Notify>,
}

/// The registry cannot be asked as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Its certificate could not be judged.
    #[error("registry.ca_file: {0}")]
    Trust(String),
    /// The thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl Registry {
    /// Starts the thread, which ends when this is dropped.
    pub fn start(config: &config::Registry) -> Result<Registry, RegistryError> {
        let (questions, asked) = channel();
        let (answers, answered) = <(Arc<Mutex<Vec<Answer>>>, Arc<Notify>)>::default();
        let lookup = Lookup {
            client: Client::new(config).map_err(RegistryError::Trust)?,
            asked,
            answers: Arc::clone(&answers),
            answered: Arc::clone(&answered),
            due: BTreeMap::new(),
            known: HashMap::new(),
        };
        thread::Builder::new().name("schema-registry".into()).spawn(move || lookup.run())?;
        Ok(Registry { questions, answers, answered })
    }

    /// Tells the encoder what was answered.
    pub fn tell(&self, encoder: &mut Encoder) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        for answer in answers.drain(..) {
            encoder.answered(answer);
        }
    }

    /// Takes the encoder's questions, at once: it wakes nobody up for them.
    pub fn ask(&self, encoder: &mut Encoder) {
        for question in encoder.take_questions() {
            if let Err(error) = self.questions.send(question) {
                let Question { subject, number, .. } = error.0;
                let schema = Err("the thread that asks for schemas has died; restart the relay, \
                                  and report what it said last"
                    .to_owned());
                encoder.answered(Answer { subject, number, schema });
            }
        }
    }
}

/// Waits until there may be an answer to take; without a registry, for ever.
pub async fn answered(registry: Option<&Registry>) {
    match registry {
        Some(registry) => registry.answered.notified().await,
        None => std::future::pending().await,
    }
}

/// What a subject has that payloads can be encoded by, asked for once.
///
/// # Errors
/// Why it has nothing; what to do stands behind a "; ".
pub fn usable(
    config: &config::Registry,
    subject: &str,
    encoding: Encoding,
) -> Result<String, String> {
    let client = Client::new(config)?;
    let latest = client.latest(subject)?;
    let found = format!("version {}, schema {}", latest.version, latest.id);
    client.compile(subject, encoding, latest).map(|_| found)
}

/// What the thread works with.
struct Lookup {
    client: Client,
    asked: Receiver<Question>,
    answers: Arc<Mutex<Vec<Answer>>>,
    answered: Arc<Notify>,
    /// By subject, the last question, and when to ask again.
    due: BTreeMap<String, (Question, Instant)>,
    /// By subject, the schema that it had last: one is compiled once.
    known: HashMap<String, Arc<Schema>>,
}

impl Lookup {
    fn run(mut self) {
        loop {
            let next = self.due.values().map(|(_, at)| *at).min();
            let now = Instant::now();
            // Without anything to ask, until something is.
            let wait = next.map_or(REFRESH, |at| at.saturating_duration_since(now));
            match self.asked.recv_timeout(wait) {
                Ok(question) => {
                    let subject = question.subject.clone();
                    self.due.insert(subject, (question, Instant::now()));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            let due = self.due.values().filter(|(_, at)| *at <= now);
            let due: Vec<Question> = due.map(|(question, _)| question.clone()).collect();
            for question in due {
                self.ask(question);
            }
        }
    }

    fn ask(&mut self, question: Question) {
        let Question { subject, number, .. } = question.clone();
        let schema = self.schema(&question);
        let again = Instant::now() + if schema.is_ok() { REFRESH } else { RETRY };
        self.due.insert(subject.clone(), (question, again));
        let answer = Answer { subject, number, schema };
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
        self.answered.notify_one();
    }

    fn schema(&mut self, question: &Question) -> Result<Arc<Schema>, String> {
        let Question { subject, encoding, .. } = question;
        let latest = self.client.latest(subject)?;
        // An id stands for one schema for ever.
        if let Some(known) = self.known.get(subject).filter(|known| known.id() == latest.id) {
            return Ok(Arc::clone(known));
        }
        let schema = Arc::new(self.client.compile(subject, *encoding, latest)?);
        self.known.insert(subject.clone(), Arc::clone(&schema));
        Ok(schema)
    }
}
