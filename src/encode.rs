//! From a payload that is JSON to what the schema of its subject says: Avro, Protobuf, or JSON that
//! is valid.
//!
//! A value begins as Confluent's serializers have it, so that their deserializers read it: a zero
//! byte, the schema's id in four bytes, big-endian; then what the schema's kind has
//! (`AbstractKafkaSchemaSerDe` and Confluent's "Wire format").
//!
//! Schemas are not asked for here: the [`Encoder`] says which ones it lacks, is told them by who
//! asks, and keeps rows waiting meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Encoding, SUBJECT_SUFFIX};
use crate::lsn::Position;
use crate::record::{Encoded, Record};
use crate::schema::{Schema, other_kind};

/// A value of this many bytes is rare enough to allocate for it anew, and large enough not to keep
/// the memory.
const KEPT_BYTES: usize = 1 << 20;

/// A subject whose schema is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its name.
    pub subject: String,
    /// What kind of schema it must have.
    pub encoding: Encoding,
    /// Questions are counted, so that an answer to an older one is known.
    pub number: u64,
}

/// What there is to know of a subject.
#[derive(Debug)]
pub struct Answer {
    /// Its name.
    pub subject: String,
    /// The last question that had been put when the answer was looked for.
    pub number: u64,
    /// Its latest schema, or why there is none that can be used.
    pub schema: Result<Arc<Schema>, String>,
}

/// Why a payload is not encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unencoded {
    /// Not yet: the cursor stays where it is until there is an answer.
    Waits,
    /// It does not fit its schema, for this reason.
    Unfit(String),
}

/// The schemas of the subjects that records have had so far.
///
/// It grows with the subjects, as what is known of topics grows with the topics.
#[derive(Debug, Default)]
pub struct Encoder {
    subjects: HashMap<String, Subject>,
    questions: Vec<Question>,
    /// How many questions there were.
    asked: u64,
    /// The subject that the last record waits for.
    awaited: Option<String>,
    /// Buffers that outlive a record.
    name: String,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Subject {
    schema: Option<Arc<Schema>>,
    /// Why there is no newer one.
    trouble: Option<String>,
    doubt: Option<Doubt>,
}

/// A payload did not fit. Its author may have registered a schema first that it does fit, so that
/// it is not to blame before the registry has been asked again.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// Whose payload.
    position: Position,
    /// The question that was put because of it.
    question: u64,
    /// Whether that was answered.
    resolved: bool,
}

impl Encoder {
    /// What becomes of a record's payload.
    ///
    /// # Errors
    /// The record waits for its schema, or its payload does not fit it.
    pub(crate) fn encode(
        &mut self,
        record: &Record<'_>,
        encoded: Encoded<'_>,
        position: Position,
    ) -> Result<&[u8], Unencoded> {
        self.name.clear();
        match encoded.subject {
            Some(subject) => self.name.push_str(subject),
            None => self.name.extend([record.topic, SUBJECT_SUFFIX]),
        }
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        let Encoder { subjects, questions, asked, awaited, name, bytes } = self;
        let mut ask = || {
            *asked += 1;
            let (subject, encoding, number) = (name.clone(), encoded.encoding, *asked);
            questions.push(Question { subject, encoding, number });
            number
        };
        let wait = |awaited: &mut Option<String>| {
            if awaited.as_ref() != Some(name) {
                *awaited = Some(name.clone());
            }
            Err(Unencoded::Waits)
        };
        let Some(subject) = subjects.get_mut(name) else {
            subjects.insert(name.clone(), Subject::default());
            ask();
            return wait(awaited);
        };
        let Some(schema) = &subject.schema else { return wait(awaited) };
        if schema.encoding() != encoded.encoding {
            // Two outboxes contradict each other; whose question came first has the schema.
            subject.trouble = Some(other_kind(name, schema.encoding().name(), encoded.encoding));
            return wait(awaited);
        }
        match (schema.write(record.payload.unwrap_or_default(), bytes), subject.doubt) {
            (Ok(()), _) => {
                (subject.doubt, *awaited) = (None, None);
                Ok(bytes)
            }
            (Err(misfit), Some(doubt)) if doubt.position == position && doubt.resolved => {
                *awaited = None;
                let id = schema.id();
                let reason =
                    format!("its payload does not fit schema {id} of subject {name}: {misfit}");
                Err(Unencoded::Unfit(reason))
            }
            (Err(_), doubt) => {
                if doubt.is_none_or(|doubt| doubt.position != position) {
                    subject.doubt = Some(Doubt { position, question: ask(), resolved: false });
                }
                wait(awaited)
            }
        }
    }

    /// Takes in what was found out about a subject.
    pub fn answered(&mut self, Answer { subject, number, schema }: Answer) {
        let subject = self.subjects.entry(subject).or_default();
        match schema {
            Ok(schema) => {
                (subject.schema, subject.trouble) = (Some(schema), None);
                if let Some(doubt) = &mut subject.doubt {
                    doubt.resolved |= number >= doubt.question;
                }
            }
            // What was known goes on being good.
            Err(trouble) => subject.trouble = Some(trouble),
        }
    }

    /// The questions that have come up since this was last called.
    pub fn take_questions(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.questions)
    }

    /// Why the last record waits, if it is for a schema and more than an answer is missing.
    pub fn trouble(&self) -> Option<&str> {
        self.subjects.get(self.awaited.as_ref()?)?.trouble.as_deref()
    }

    /// Nothing waits any more: what comes next may be another record.
    pub(crate) fn forget_waiting(&mut self) {
        self.awaited = None;
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
