//! What an `[[outbox]]` says, which the core works by.

use super::cloudevents::CloudEvents;
use crate::pg::table::TableName;
use crate::rewrite::Rewrite;
use crate::template::{Source, Template};

/// The header by which a pointer is known; it holds the table of the row that it points to.
pub const POINTER_HEADER: &str = "walrelay-pointer";

/// What a subject is called that is a topic's: `TopicNameStrategy`, the default of Confluent's
/// serializers and deserializers, for values.
pub const SUBJECT_SUFFIX: &str = "-value";

/// `[[outbox]]`: a table, and how a row of it becomes a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Outbox {
    /// The table.
    pub table: TableName,
    /// The column that becomes the header `id`.
    pub id: Option<String>,
    /// The key; records without one have no order among each other.
    pub key: Option<Source>,
    /// How the key is written.
    pub key_format: Format,
    /// What becomes the value.
    pub payload: Payload,
    /// How the payload is written.
    pub payload_format: Format,
    /// What becomes of it after that, by a registered schema.
    pub encoding: Option<Encoding>,
    /// The subject that the schema is registered under; without, it is `TOPIC-value`.
    pub schema_subject: Option<Template>,
    /// Whether an empty payload is no payload: a tombstone.
    pub tombstone_if_blank: bool,
    /// What goes into the value beside the payload.
    pub envelope: Envelope,
    /// The topic.
    pub topic: Template,
    /// What becomes of the topic's name.
    pub topic_rewrite: Option<Rewrite>,
    /// The column with the number of the partition; where it is NULL, the key decides.
    pub partition: Option<String>,
    /// The column with the record's time; without, or where it is NULL, it is that of the commit.
    pub timestamp: Option<String>,
    /// The column with the application's trace, as text of `java.util.Properties`.
    pub span_context: Option<String>,
    /// Whether records are CloudEvents.
    pub cloudevents: CloudEvents,
    /// Header names and what fills them, in order.
    pub headers: Vec<(String, Source)>,
    /// How headers that are filled from the row are written.
    pub header_format: Format,
    /// Headers that are always the same.
    pub static_headers: Vec<(String, String)>,
    /// What to do about columns of headers, envelope and partition that the table lacks.
    pub missing_columns: MissingColumns,
    /// What to do about a row that is changed.
    pub on_update: OnUpdate,
    /// What to do about a row that cannot become a record.
    pub on_poison: OnPoison,
    /// Where rows go that cannot become a record.
    pub dead_letter_topic: Option<String>,
    /// What to do about a row whose record is larger than Kafka takes.
    pub on_oversize: OnOversize,
}

impl Outbox {
    /// The topic, if it is the same one for all rows.
    pub fn fixed_topic(&self) -> Option<String> {
        self.rewritten(self.topic.fixed(&self.table)?)
    }

    /// The subject of its payloads' schema, if they have one, and it is the same for all rows.
    pub fn fixed_subject(&self) -> Option<String> {
        self.encoding?;
        match &self.schema_subject {
            Some(subject) => subject.fixed(&self.table),
            None => self.fixed_topic().map(|topic| format!("{topic}{SUBJECT_SUFFIX}")),
        }
    }

    /// What `topic_regex` makes of a topic.
    pub fn rewritten(&self, topic: String) -> Option<String> {
        let Some(rewrite) = &self.topic_rewrite else { return Some(topic) };
        let mut written = Vec::new();
        rewrite.apply(&topic, &mut written).ok()?;
        String::from_utf8(written).ok()
    }

    /// One whose records have a payload, and nothing else.
    pub fn bare(table: TableName, payload: &str, topic: Template) -> Outbox {
        Outbox {
            table,
            id: None,
            key: None,
            key_format: Format::String,
            payload: payload.into(),
            payload_format: Format::String,
            encoding: None,
            schema_subject: None,
            tombstone_if_blank: false,
            envelope: Envelope {
                members: Vec::new(),
                schema_name: Template::default(),
                schema_version: None,
            },
            topic,
            topic_rewrite: None,
            partition: None,
            timestamp: None,
            span_context: None,
            cloudevents: CloudEvents::default(),
            headers: Vec::new(),
            header_format: Format::String,
            static_headers: Vec::new(),
            missing_columns: MissingColumns::Error,
            on_update: OnUpdate::Warn,
            on_poison: OnPoison::Halt,
            dead_letter_topic: None,
            on_oversize: OnOversize::Poison,
        }
    }
}

/// What becomes the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A column.
    Column(String),
    /// A JSON object of these columns, in this order.
    Columns(Vec<String>),
    /// A JSON object of all columns that the table has.
    Row,
}

/// A column's name.
impl From<&str> for Payload {
    fn from(column: &str) -> Payload {
        Payload::Column(column.to_owned())
    }
}

impl Payload {
    /// Each column that it names.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        let columns = match self {
            Payload::Column(column) => std::slice::from_ref(column),
            Payload::Columns(columns) => columns,
            Payload::Row => &[],
        };
        columns.iter().map(String::as_str)
    }
}

/// A value with more than the payload: `{"payload": …, "type": …}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// Each further member and its column, in order; without any, the payload is the value.
    pub members: Vec<(String, String)>,
    /// What its schema is called, where the value bears one.
    pub schema_name: Template,
    /// The column with the schema's version.
    pub schema_version: Option<String>,
}

/// How a value is written: what the converters of Kafka Connect are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Its text.
    String,
    /// As JSON.
    Json,
    /// As JSON, with what it is beside it: `{"schema": …, "payload": …}`.
    JsonWithSchema,
}

/// What a payload that is JSON is sent as, by a registered schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Avro.
    Avro,
    /// Protobuf.
    Protobuf,
    /// As it is, if it is valid.
    JsonSchema,
}

impl Encoding {
    /// What registries call such schemas.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Avro => "AVRO",
            Encoding::Protobuf => "PROTOBUF",
            Encoding::JsonSchema => "JSON",
        }
    }
}

/// `missing_columns`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingColumns {
    /// Without them there is no record.
    Error,
    /// The record does without them.
    Ignore,
}

/// `on_update`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUpdate {
    /// Nothing.
    Ignore,
    /// Say it in the log, and go on.
    Warn,
    /// Stay at it.
    Halt,
}

/// `on_poison`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPoison {
    /// Stay at the row, say what is wrong with it, and try again.
    Halt,
    /// Send it to another topic with what is wrong, count it, log it, go on.
    DeadLetter,
    /// Count it, log it, go on.
    Skip,
}

/// `on_oversize`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOversize {
    /// What `on_poison` says.
    Poison,
    /// Send in its place where the row is, if that is not too large as well.
    Pointer,
}
