//! What is sent to Kafka for one row, borrowed from the read buffer.

use std::ops::Range;

use crate::config::Encoding;
use crate::lsn::Position;
use crate::pg::output::{Tuple, Value};
use crate::pg::table::TableName;

/// What a record costs beside its own bytes: librdkafka's message, its queue entries and our
/// span. An estimate on the generous side; that it suffices is what the live tests of the memory
/// bound show.
const OVERHEAD: usize = 384;

/// What one header costs beside its name and value in librdkafka (`rd_kafka_header_t` and the
/// allocator's rounding).
const HEADER_OVERHEAD: usize = 64;

/// One record, which dies before the next frame is read; librdkafka's copy is the first.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What it is made of, for what is said about it.
    pub origin: &'a Origin,
    /// Kafka topic, checked to be a legal name.
    pub topic: &'a str,
    /// `None` is a record without a key, which any partition may get.
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// What the payload, which is JSON, still has to become.
    pub encoded: Option<Encoded<'a>>,
    /// Name and value of each header, in the order they are sent.
    pub headers: Headers<'a>,
    /// The partition that the row asks for; without, the key decides.
    pub partition: Option<u32>,
    /// Its time.
    pub timestamp: Timestamp,
    /// What messages about the row call it by.
    pub id: Option<&'a [u8]>,
    /// Whether it was handed over before, to a producer that is gone: Kafka may have it already.
    pub again: bool,
}

/// How a payload is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded<'a> {
    /// As what.
    pub encoding: Encoding,
    /// The subject with the schema; without, it is the topic's.
    pub subject: Option<&'a str>,
}

/// What records are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The rows of an outbox table.
    Table(TableName),
    /// Messages under the rule of this prefix.
    Messages(String),
}

/// The time of a record, in milliseconds since 1970-01-01 UTC; never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamp {
    /// Of the commit, by Postgres' clock.
    Committed(i64),
    /// The row's own.
    Given(i64),
}

/// The headers of a record, taken from the row while they are read.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    /// Their names, and where their values are.
    pub fields: &'a [Header],
    /// The row they are taken from.
    pub row: Row<'a>,
}

/// A header, and where its value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Where its value is.
    pub value: Field,
    /// Whether there is none where the value is NULL; otherwise there is one without a value.
    pub omitted_if_null: bool,
}

impl Header {
    /// A header that is always there.
    pub fn new(name: &str, value: Field) -> Header {
        Header { name: name.to_owned(), value, omitted_if_null: false }
    }
}

impl<'a> Headers<'a> {
    /// Each header.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let row = self.row;
        self.fields.iter().filter_map(move |header| {
            let value = row.get(header.value);
            let omitted = header.omitted_if_null && value.is_none();
            (!omitted).then_some((header.name.as_str(), value))
        })
    }

    /// How many there are at the most.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

impl Record<'_> {
    /// The record as one that cannot be sent.
    pub fn poison(&self, position: Position, reason: String) -> Poison {
        let id = self.id.map(|id| String::from_utf8_lossy(id).into_owned());
        Poison { origin: self.origin.clone(), position, id, reason }
    }

    /// Memory that the record takes until it is acked, in bytes: what `max_in_flight_bytes` counts.
    pub fn charge(&self) -> usize {
        let size = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| HEADER_OVERHEAD + name.len() + size(value));
        OVERHEAD + size(self.key) + size(self.payload) + headers.sum::<usize>()
    }
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// In the row, as it came: the index of a column.
    Column(usize),
    /// Made of the row: an index into [`Row::made`].
    Made(usize),
}

/// A row with what was made of it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The values as they came.
    pub tuple: Tuple<'a>,
    /// Bytes that were made, one value behind the other.
    pub bytes: &'a [u8],
    /// Where in `bytes` each of them is; NULL is `None`.
    pub made: &'a [Option<Range<usize>>],
}

impl<'a> Row<'a> {
    /// The bytes of a value; `None` is NULL.
    pub fn get(&self, field: Field) -> Option<&'a [u8]> {
        match field {
            Field::Column(index) => match self.tuple.get(index) {
                Some(Value::Text(bytes)) => Some(bytes),
                Some(Value::Null) | None => None,
            },
            Field::Made(index) => self.bytes.get(self.made.get(index)?.clone()?),
        }
    }
}

/// A row that cannot become a record, whoever is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {position} of {origin}{id}: {reason}", what = .origin.what(), id = Id(.id))]
pub struct Poison {
    /// What it was to be made of.
    pub origin: Origin,
    /// Where the row is.
    pub position: Position,
    /// The row's `id` column, if it could be read.
    pub id: Option<String>,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl Origin {
    /// What one of them is.
    fn what(&self) -> &'static str {
        match self {
            Origin::Table(_) => "row",
            Origin::Messages(_) => "message",
        }
    }
}

/// Behind "rows of" or "messages of".
impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Table(table) => table.fmt(f),
            Origin::Messages(prefix) => write!(f, "prefix {prefix:?}"),
        }
    }
}

/// ` (id 7)`, or nothing.
struct Id<'a>(&'a Option<String>);

impl std::fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |id| write!(f, " (id {id})"))
    }
}
