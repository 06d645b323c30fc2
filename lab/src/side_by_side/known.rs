//! Where the two differ, and why.

use lab::Record;
use lab::debezium::without_nothing;
use serde_json::Value;

use crate::compare::{Compared, What};

/// A difference that is as it should be. One that does not occur any more is a mistake.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub scenario: &'static str,
    pub what: What,
    pub why: &'static str,
    /// Whether this is what makes the records differ.
    explains: Explains,
}

#[derive(Clone, Copy, Debug)]
enum Explains {
    /// Whatever it is.
    Anything,
    /// Debezium has the headers of its connector in front.
    ConnectorHeaders,
    /// Debezium has sent the text of a Java object, whose class this is.
    JavaText(&'static str),
    /// Nothing but these texts, in the place of each other.
    Replaced(&'static [(&'static str, &'static str)]),
    /// Debezium has sent the text `null`, and walrelay a tombstone.
    NullText,
    /// Both are the same JSON, but for what Debezium leaves out of it.
    SameJson,
    /// Debezium has sent the row again under its new primary key.
    NewPrimaryKey,
}

impl Known {
    pub fn explains(&self, scenario: &str, what: What, compared: &Compared) -> bool {
        if self.scenario != scenario || self.what != what {
            return false;
        }
        let theirs = compared.theirs.as_ref().map(|event| &event.record);
        let ours = compared.ours.as_ref().map(|event| &event.record);
        match (self.explains, theirs, ours) {
            (Explains::Anything, ..) => true,
            (Explains::NewPrimaryKey, Some(theirs), None) => {
                theirs.headers.iter().any(|(name, _)| name == "__debezium.oldkey")
            }
            (Explains::ConnectorHeaders, Some(theirs), Some(ours)) => {
                let own = |name: &str| !name.starts_with("__debezium.context.");
                theirs.headers.iter().filter(|(name, _)| own(name)).eq(&ours.headers)
            }
            (Explains::JavaText(class), Some(theirs), Some(_)) => {
                theirs.payload_text().starts_with(class)
            }
            (Explains::Replaced(texts), Some(theirs), Some(ours)) => {
                let replaced = |record: &Record| {
                    let text = match what {
                        What::Key => record.key_text(),
                        What::Headers => headers(record),
                        _ => record.payload_text(),
                    };
                    texts.iter().fold(text, |text, (theirs, ours)| text.replace(theirs, ours))
                };
                replaced(theirs) == replaced(ours)
            }
            (Explains::NullText, Some(theirs), Some(ours)) => {
                theirs.payload.as_deref() == Some(b"null") && ours.payload.is_none()
            }
            (Explains::SameJson, Some(theirs), Some(ours)) => {
                let [theirs, ours] = [theirs, ours].map(json);
                theirs.is_some() && theirs == ours
            }
            _ => false,
        }
    }
}

/// Headers in lines; one without a value has no `=`.
fn headers(record: &Record) -> String {
    let line = |(name, value): &(String, Option<Vec<u8>>)| match value {
        Some(value) => format!("{name}={}\n", String::from_utf8_lossy(value)),
        None => format!("{name}\n"),
    };
    record.headers.iter().map(line).collect::<Vec<_>>().concat()
}

/// The value without the members that Debezium leaves out when it takes JSON apart.
fn json(record: &Record) -> Option<Value> {
    let value = serde_json::from_slice(record.payload.as_deref()?).ok()?;
    Some(without_nothing(value))
}

const fn known(scenario: &'static str, what: What, explains: Explains, why: &'static str) -> Known {
    Known { scenario, what, why, explains }
}

/// In schemas.
const DEFAULTS: Explains = Explains::Replaced(&[
    (",\"default\":\"00000000-0000-0000-0000-000000000000\"", ""),
    (",\"default\":\"nobody\"", ""),
    (",\"default\":\"acme\"", ""),
    (",\"default\":\"here\"", ""),
]);
const WHY_DEFAULTS: &str =
    "Postgres' log has no defaults of columns; Debezium asks for them, and has them in schemas";
const WHY_NULL: &str =
    "NULL is null; where the column has a default, Debezium's converter sends that instead";

pub const KNOWN: &[Known] = &[
    known(
        "defaults",
        What::Headers,
        Explains::ConnectorHeaders,
        "the four headers of the connector (its name, task and run) say nothing of walrelay",
    ),
    known(
        "envelope with schema and version",
        What::Value,
        Explains::Replaced(&[
            (".outbox.customer.Value", ".outbox.order.Value"),
            (".outbox.Invoice.Value", ".outbox.order.Value"),
        ]),
        "a schema is named by the event's own topic; Debezium names all of a version as the first \
         one that it meets, whatever that is",
    ),
    known(
        "partition and time",
        What::Time,
        Explains::Anything,
        "the sink of Debezium Server ignores the time, so that the translation leaves it out as \
         well: Debezium's records bear the time of sending, walrelay's that of the commit",
    ),
    known(
        "expanded JSON",
        What::Value,
        Explains::SameJson,
        "JSON goes out as Postgres prints it: nothing is dropped, and white space stays",
    ),
    known(
        "expanded JSON",
        What::Value,
        Explains::NullText,
        "NULL is a tombstone where JSON goes out as it is; Debezium sends the text null",
    ),
    known(
        "expanded JSON in an envelope",
        What::Value,
        Explains::SameJson,
        "JSON goes out as Postgres prints it: nothing is dropped, and white space stays",
    ),
    known(
        "bytes as text",
        What::Value,
        Explains::JavaText("java.nio.HeapByteBuffer["),
        "bytes go out as they are; Debezium sends the name of a Java object instead of them",
    ),
    known("defaults of columns, schemas", What::Headers, DEFAULTS, WHY_DEFAULTS),
    known("defaults of columns, schemas", What::Key, DEFAULTS, WHY_DEFAULTS),
    known("defaults of columns, schemas", What::Partition, Explains::Anything, WHY_DEFAULTS),
    known("defaults of columns, schemas", What::Value, DEFAULTS, WHY_DEFAULTS),
    known(
        "NULL in spite of a default",
        What::Headers,
        Explains::Replaced(&[("\"acme\"", "null")]),
        WHY_NULL,
    ),
    known(
        "NULL in spite of a default",
        What::Value,
        Explains::Replaced(&[("\"here\"", "null")]),
        WHY_NULL,
    ),
    known(
        "other changes",
        What::Missing,
        Explains::NewPrimaryKey,
        "an update is no event; Debezium takes one of the primary key for a delete and an insert",
    ),
];
