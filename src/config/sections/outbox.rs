//! `[[outbox]]`: its keys, their defaults and their rules.

use std::collections::BTreeMap;

use config::{Value, ValueKind};

use super::super::cloudevents::CloudEvents;
use super::super::outbox::{
    Encoding, Envelope, Format, MissingColumns, OnOversize, OnPoison, OnUpdate, Outbox,
    POINTER_HEADER, Payload,
};
use super::super::reader::Reader;
use super::super::value::{Words, check_header, expected, flag, optional, table_name, text, word};
use super::cloudevents;
use crate::pg::table::TableName;
use crate::rewrite::Rewrite;
use crate::template::{
    CONTENT, SPAN_HEADERS, Source, Subject, Template, check_identifier, check_topic,
};

/// What a key of an `[[outbox]]` means that the entry does not give.
pub(super) const DEFAULTS: &str = r#"
table = "public.outbox"
id = "id"
key = "aggregateid"
key_format = "string"
payload = "payload"
payload_format = "string"
schema_subject = ""
tombstone_if_blank = false
envelope = {}
schema_name = "{$schema}.{$table}.Value"
schema_version = ""
topic = "outbox.event.{aggregatetype}"
topic_regex = ""
topic_replacement = ""
partition = ""
timestamp = ""
span_context = ""
cloudevents = ""
cloudevents_attributes = {}
headers = { eventType = "type" }
header_format = "string"
static_headers = {}
missing_columns = "error"
on_update = "warn"
on_poison = "halt"
dead_letter_topic = ""
on_oversize = "poison"
"#;

pub(in super::super) const FORMATS: &Words<Format> = &[
    ("string", Some(Format::String)),
    ("json", Some(Format::Json)),
    ("json_with_schema", Some(Format::JsonWithSchema)),
];
/// How payloads are written, and what becomes of that.
pub(in super::super) const PAYLOAD_FORMATS: &Words<(Format, Option<Encoding>)> = &[
    ("string", Some((Format::String, None))),
    ("json", Some((Format::Json, None))),
    ("json_with_schema", Some((Format::JsonWithSchema, None))),
    ("avro", Some((Format::String, Some(Encoding::Avro)))),
    ("protobuf", Some((Format::String, Some(Encoding::Protobuf)))),
    ("json_schema", Some((Format::String, Some(Encoding::JsonSchema)))),
];
pub(in super::super) const MISSING_COLUMNS: &Words<MissingColumns> =
    &[("error", Some(MissingColumns::Error)), ("ignore", Some(MissingColumns::Ignore))];
pub(in super::super) const ON_UPDATE: &Words<OnUpdate> = &[
    ("ignore", Some(OnUpdate::Ignore)),
    ("warn", Some(OnUpdate::Warn)),
    ("halt", Some(OnUpdate::Halt)),
];
pub(in super::super) const ON_POISON: &Words<OnPoison> = &[
    ("halt", Some(OnPoison::Halt)),
    ("dead_letter", Some(OnPoison::DeadLetter)),
    ("skip", Some(OnPoison::Skip)),
];
pub(in super::super) const ON_OVERSIZE: &Words<OnOversize> =
    &[("poison", Some(OnOversize::Poison)), ("pointer", Some(OnOversize::Pointer))];

/// What stands for all columns in `payload`.
pub(in super::super) const WHOLE_ROW: &str = "*";
/// The header that `id` becomes.
const ID_HEADER: &str = "id";
/// The member of an envelope that the payload becomes.
const PAYLOAD_MEMBER: &str = "payload";

/// Reads one entry. `tables` are those of the entries before it.
pub(super) fn read(
    index: usize,
    section: &mut Reader<'_>,
    position_header: Option<&str>,
    tables: &mut BTreeMap<TableName, usize>,
    subject: Subject,
) -> Option<Outbox> {
    let table = section.read("table", |value| {
        let table = table_name(value)?;
        let first = *tables.entry(table.clone()).or_insert(index);
        if first == index { Ok(table) } else { Err(format!("outbox[{first}] has {table} already")) }
    });
    let id = section.read("id", optional(check_identifier));
    let key = section.read("key", |value| match text(value)? {
        "" => Ok(None),
        text => Source::over(subject, text).map(Some),
    });
    let key_format = section.read("key_format", word(FORMATS));
    let shape = shape(subject, section);
    let topic = section.read("topic", |value| Template::topic_over(subject, text(value)?));
    let regex = section.read("topic_regex", |value| {
        let regex = text(value)?;
        Rewrite::new(regex, "").map(|_| regex.to_owned())
    });
    let topic_rewrite =
        section.read("topic_replacement", |value| topic_rewrite(regex.as_deref(), value));
    let partition = section.read("partition", optional(check_identifier));
    let timestamp = section.read("timestamp", optional(check_identifier));
    let span_context = section.read("span_context", optional(check_identifier));
    let others = cloudevents::Others {
        id: id.as_ref(),
        tombstone: shape.as_ref().is_some_and(|shape| shape.tombstone_if_blank),
        encoding: shape.as_ref().is_some_and(|shape| shape.encoding.is_some()),
        position_header,
    };
    let spans = matches!(span_context, Some(Some(_)));
    let on_oversize = oversize(section, id.as_ref(), position_header);
    let pointers = on_oversize == Some(OnOversize::Pointer);
    let (cloudevents, headers, static_headers) =
        headers(section, &others, (spans, pointers), subject);
    let header_format = section.read("header_format", word(FORMATS));
    let missing_columns = section.read("missing_columns", word(MISSING_COLUMNS));
    let on_update = section.read("on_update", word(ON_UPDATE));
    let poison = poison(section);
    let Shape { payload, payload_format, encoding, schema_subject, tombstone_if_blank, envelope } =
        shape?;
    let (on_poison, dead_letter_topic) = poison?;
    Some(Outbox {
        table: table?,
        id: id?,
        key: key?,
        key_format: key_format?,
        payload,
        payload_format,
        encoding,
        schema_subject,
        tombstone_if_blank,
        envelope,
        topic: topic?,
        topic_rewrite: topic_rewrite?,
        partition: partition?,
        timestamp: timestamp?,
        span_context: span_context?,
        cloudevents: cloudevents?,
        headers: headers?,
        header_format: header_format?,
        static_headers: static_headers?,
        missing_columns: missing_columns?,
        on_update: on_update?,
        on_poison,
        dead_letter_topic,
        on_oversize: on_oversize?,
    })
}

/// What becomes of a row that is no record.
fn poison(section: &mut Reader<'_>) -> Option<(OnPoison, Option<String>)> {
    let on_poison = section.read("on_poison", word(ON_POISON));
    let topic = section.read("dead_letter_topic", |value| {
        let topic = optional(check_topic)(value)?;
        if topic.is_none() && on_poison == Some(OnPoison::DeadLetter) {
            return Err("on_poison sends rows there, and it is not given".to_owned());
        }
        Ok(topic)
    });
    Some((on_poison?, topic?))
}

/// What becomes of a row whose record is too large.
fn oversize(
    section: &mut Reader<'_>,
    id: Option<&Option<String>>,
    position_header: Option<&str>,
) -> Option<OnOversize> {
    let on_oversize = section.read("on_oversize", |value| {
        let on_oversize = word(ON_OVERSIZE)(value)?;
        if on_oversize == OnOversize::Pointer && id == Some(&None) {
            return Err("a pointer tells the id of its row, and the key \"id\" names no column; \
                        set id, or on_oversize = \"poison\""
                .to_owned());
        }
        Ok(on_oversize)
    })?;
    if on_oversize == OnOversize::Pointer && position_header == Some(POINTER_HEADER) {
        let told = format!("delivery.position_header has the header {POINTER_HEADER:?} already");
        section.mistake("on_oversize", told);
    }
    Some(on_oversize)
}

/// What the value is made of, and how it is written.
struct Shape {
    payload: Payload,
    payload_format: Format,
    encoding: Option<Encoding>,
    schema_subject: Option<Template>,
    tombstone_if_blank: bool,
    envelope: Envelope,
}

fn shape(subject: Subject, section: &mut Reader<'_>) -> Option<Shape> {
    let payload = section.read("payload", |value| match (subject, payload(value)?) {
        (Subject::Message, Payload::Columns(_) | Payload::Row) => Err(format!(
            "a message is no row; {CONTENT:?} is all of its content, or name one member of it"
        )),
        (_, payload) => Ok(payload),
    });
    let (format, encoding) = section.read("payload_format", word(PAYLOAD_FORMATS)).unzip();
    let encoding = encoding.flatten();
    let schema_subject = section.read("schema_subject", |value| match (text(value)?, encoding) {
        ("", _) => Ok(None),
        (_, None) if format.is_some() => Err("payload_format has no use for a schema".to_owned()),
        (text, _) => Template::over(subject, text).map(Some),
    });
    let tombstone = section.read("tombstone_if_blank", flag);
    let envelope = envelope(section);
    if encoding.is_some() && envelope.as_ref().is_some_and(|it| !it.members.is_empty()) {
        let told = "payload_format encodes the payload by a schema, which has no place for more; \
                    name the columns in payload that the value is to have";
        section.mistake("envelope", told);
    }
    if let Some(Payload::Columns(_) | Payload::Row) = payload {
        if format.is_some_and(|format| format != Format::String) {
            let told = "the payload is a row, which is JSON already; leave it \"string\"";
            section.mistake("payload_format", told);
        }
        if tombstone == Some(true) {
            section.mistake("tombstone_if_blank", "the payload is a row, which is never blank");
        }
        if envelope.as_ref().is_some_and(|envelope| !envelope.members.is_empty()) {
            let told = "the payload is a row; name the columns there that it is to have";
            section.mistake("envelope", told);
        }
    }
    Some(Shape {
        payload: payload?,
        payload_format: format?,
        encoding,
        schema_subject: schema_subject?,
        tombstone_if_blank: tombstone?,
        envelope: envelope?,
    })
}

/// `payload`: a column, or a list of them, which in the environment has commas.
fn payload(value: &Value) -> Result<Payload, String> {
    let columns: Vec<&str> = match &value.kind {
        ValueKind::Array(list) => list.iter().map(text).collect::<Result<_, _>>()?,
        ValueKind::String(text) if text == WHOLE_ROW => return Ok(Payload::Row),
        ValueKind::String(text) if text.contains(',') => text.split(',').map(str::trim).collect(),
        ValueKind::String(text) => {
            return check_identifier(text).map(|()| Payload::Column(text.clone()));
        }
        _ => return Err(expected("a column, a list of columns or \"*\"", value)),
    };
    if columns.is_empty() {
        return Err("expected at least one column; \"*\" stands for all".to_owned());
    }
    for (index, column) in columns.iter().enumerate() {
        check_identifier(column)?;
        if columns.iter().take(index).any(|it| it == column) {
            return Err(format!("column {column} is there twice"));
        }
    }
    Ok(Payload::Columns(columns.into_iter().map(str::to_owned).collect()))
}

/// `cloudevents`, `headers` and `static_headers`.
fn headers(
    section: &mut Reader<'_>,
    others: &cloudevents::Others<'_>,
    (spans, pointers): (bool, bool),
    subject: Subject,
) -> (Option<CloudEvents>, Option<Pairs<Source>>, Option<Pairs<String>>) {
    let cloudevents = cloudevents::read(section, others);
    let id = others.id.and_then(Option::as_deref);
    let mut taken = Taken {
        id: id.is_some(),
        spans,
        pointers,
        position: others.position_header,
        events: cloudevents.iter().flat_map(|events| events.headers(id)).collect(),
        names: Vec::new(),
    };
    if taken.id && taken.position == Some(ID_HEADER) {
        section.mistake("id", "delivery.position_header has the header \"id\" already");
    }
    let headers = section.pairs("headers", |name, value| {
        taken.check(name)?;
        Source::over(subject, text(value)?)
    });
    taken.names = headers.iter().flatten().map(|(name, _)| name.clone()).collect();
    let static_headers = section.pairs("static_headers", |name, value| {
        taken.check(name)?;
        text(value).map(str::to_owned)
    });
    (cloudevents, headers, static_headers)
}

/// Names, each with what belongs to it, in order.
type Pairs<T> = Vec<(String, T)>;

fn envelope(section: &mut Reader<'_>) -> Option<Envelope> {
    let members = section.pairs("envelope", |name, value| {
        if name == PAYLOAD_MEMBER {
            return Err("the payload has this member already".to_owned());
        }
        let column = text(value)?;
        check_identifier(column).map(|()| column.to_owned())
    });
    let schema_name = section.read("schema_name", |value| Template::parse(text(value)?));
    let schema_version = section.read("schema_version", optional(check_identifier));
    Some(Envelope { members: members?, schema_name: schema_name?, schema_version: schema_version? })
}

/// `topic_replacement`, for this `topic_regex`.
fn topic_rewrite(regex: Option<&str>, value: &Value) -> Result<Option<Rewrite>, String> {
    match (regex, text(value)?) {
        (None, _) | (Some(""), "") => Ok(None),
        (Some(""), _) => Err("there is no topic_regex whose find it would replace".to_owned()),
        (Some(regex), replacement) => Rewrite::new(regex, replacement).map(Some),
    }
}

/// The names of headers that are there already.
struct Taken<'a> {
    id: bool,
    spans: bool,
    pointers: bool,
    position: Option<&'a str>,
    events: Vec<String>,
    names: Vec<String>,
}

impl Taken<'_> {
    fn check(&self, name: &str) -> Result<(), String> {
        check_header(name)?;
        let already = |what: &str| Err(format!("{what} has this header already"));
        match name {
            ID_HEADER if self.id => already("the column of the key \"id\""),
            _ if self.spans && SPAN_HEADERS.contains(&name) => {
                already("the column of the key \"span_context\"")
            }
            _ if self.events.iter().any(|it| it == name) => already("the key \"cloudevents\""),
            POINTER_HEADER if self.pointers => already("the key \"on_oversize\""),
            _ if self.position == Some(name) => already("delivery.position_header"),
            _ if self.names.iter().any(|it| it == name) => already("the key \"headers\""),
            _ => Ok(()),
        }
    }
}
