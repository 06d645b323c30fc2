//! Where the columns of an outbox stand in a row, and what is made of them.

use std::io::Write as _;
use std::ops::Range;

use super::Announced;
use crate::config::Outbox;
use crate::lsn::Position;
use crate::pg::oid::{BIGINT, BYTEA, is_date, is_whole};
use crate::pg::output::{Tuple, Value};
use crate::pg::time::epoch_ms;
use crate::record::{Field, Row, Timestamp};
use crate::template::{Fact, Part, Template, check_topic};

/// 2000-01-01, from where Postgres counts, in milliseconds since 1970-01-01.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;

/// The header that the row's `id` becomes.
const ID: &str = "id";

/// Where a row stands, and what is known of its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its position.
    pub position: Position,
    /// When its transaction committed, in microseconds since 2000-01-01 UTC.
    pub committed_us: i64,
    /// Its transaction's number.
    pub xid: u32,
}

impl Place {
    /// When its transaction committed, in milliseconds since 1970-01-01 UTC.
    fn committed_ms(&self) -> i64 {
        (self.committed_us.div_euclid(1000)).saturating_add(POSTGRES_EPOCH_MS).max(0)
    }
}

/// How a table's rows become records, until the next Relation message says otherwise.
#[derive(Debug)]
pub(super) struct Plan {
    /// Index into the configured outboxes.
    pub(super) outbox: usize,
    /// How many columns were announced.
    pub(super) columns: usize,
    pub(super) topic: Field,
    pub(super) id: Option<Field>,
    pub(super) key: Option<Field>,
    pub(super) payload: Field,
    pub(super) headers: Vec<(String, Field)>,
    tombstone_if_blank: bool,
    partition: Option<usize>,
    timestamp: Option<(usize, Clock)>,
    /// In the order of [`Field::Made`].
    makes: Vec<Make>,
    /// Why no row can become a record: what the table lacks.
    unfit: Option<String>,
}

/// Buffers that outlive a row, so that none is allocated for each.
#[derive(Debug)]
pub(super) struct Scratch {
    bytes: Vec<u8>,
    made: Vec<Option<Range<usize>>>,
    /// What a record of the row has beside bytes.
    pub(super) partition: Option<u32>,
    pub(super) timestamp: Timestamp,
}

impl Default for Scratch {
    fn default() -> Scratch {
        let (bytes, made) = (Vec::new(), Vec::new());
        Scratch { bytes, made, partition: None, timestamp: Timestamp::Committed(0) }
    }
}

impl Scratch {
    pub(super) fn row<'a>(&'a self, tuple: Tuple<'a>) -> Row<'a> {
        Row { tuple, bytes: &self.bytes, made: &self.made }
    }
}

/// What does not stand in the row as it is.
#[derive(Debug, PartialEq, Eq)]
enum Make {
    /// The text of its position.
    Position,
    /// The bytes of a `bytea` column.
    Bytea(usize),
    /// A template; NULL if one of its columns is.
    Text(Vec<Piece>),
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Column(usize),
    Fact(Fact),
}

/// What a time is written as.
#[derive(Clone, Copy, Debug)]
enum Clock {
    /// A date, with or without a time.
    Text,
    /// Milliseconds since 1970-01-01 UTC.
    Milliseconds,
}

impl Plan {
    pub(super) fn new(
        index: usize,
        outbox: &Outbox,
        columns: &[Announced],
        position_header: Option<&str>,
    ) -> Plan {
        let mut planner =
            Planner { outbox, columns, makes: Vec::new(), missing: Vec::new(), wrong: None };
        let id = outbox.id.as_ref().map(|name| planner.field(name));
        let key = outbox.key.as_ref().map(|template| planner.template(template));
        let payload = planner.field(&outbox.payload);
        let mut headers: Vec<_> = id.into_iter().map(|field| (ID.to_owned(), field)).collect();
        for (name, template) in &outbox.headers {
            headers.push((name.clone(), planner.template(template)));
        }
        let topic = planner.template(&outbox.topic);
        let partition = outbox.partition.as_ref().map(|name| planner.partition(name));
        let timestamp = outbox.timestamp.as_ref().and_then(|name| planner.timestamp(name));
        if let Some(name) = position_header {
            headers.push((name.to_owned(), planner.make(Make::Position)));
        }
        Plan {
            outbox: index,
            columns: columns.len(),
            topic,
            id,
            key,
            payload,
            headers,
            tombstone_if_blank: outbox.tombstone_if_blank && matches!(payload, Field::Column(_)),
            partition,
            timestamp,
            unfit: planner.unfit(),
            makes: planner.makes,
        }
    }

    /// Makes what does not stand in the row as it is.
    ///
    /// # Errors
    /// Says why the row cannot become a record.
    pub(super) fn fill(
        &self,
        scratch: &mut Scratch,
        row: Tuple<'_>,
        place: Place,
    ) -> Result<(), String> {
        let Scratch { bytes, made, .. } = scratch;
        bytes.clear();
        made.clear();
        if let Some(unfit) = &self.unfit {
            return Err(unfit.clone());
        }
        for make in &self.makes {
            let start = bytes.len();
            let some = make.fill(bytes, row, place)?;
            made.push(some.then_some(start..bytes.len()));
        }
        scratch.partition = self.partition_of(row)?;
        scratch.timestamp = self.timestamp_of(row, place)?;
        match scratch.row(row).get(self.topic) {
            None => Err("a column of the topic is NULL".to_owned()),
            Some(topic) => check_topic(&String::from_utf8_lossy(topic)),
        }
    }

    /// The row's payload; `None` is a tombstone.
    pub(super) fn payload_of<'a>(&self, row: Row<'a>) -> Option<&'a [u8]> {
        // As `String.trim` of Java has it.
        let blank = |bytes: &[u8]| bytes.iter().all(|byte| *byte <= b' ');
        row.get(self.payload).filter(|bytes| !(self.tombstone_if_blank && blank(bytes)))
    }

    fn partition_of(&self, row: Tuple<'_>) -> Result<Option<u32>, String> {
        let Some(text) = self.partition.and_then(|index| bytes_of(row, index)) else {
            return Ok(None);
        };
        let number = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        number.map(Some).ok_or_else(|| {
            let text = String::from_utf8_lossy(text);
            format!("the column of its partition holds {text}, and partitions count from 0")
        })
    }

    fn timestamp_of(&self, row: Tuple<'_>, place: Place) -> Result<Timestamp, String> {
        let column = self.timestamp.and_then(|(index, clock)| Some((bytes_of(row, index)?, clock)));
        let Some((text, clock)) = column else {
            return Ok(Timestamp::Committed(place.committed_ms()));
        };
        let ms = match clock {
            Clock::Text => epoch_ms(text),
            Clock::Milliseconds => str::from_utf8(text).ok().and_then(|text| text.parse().ok()),
        };
        ms.filter(|ms| *ms >= 0).map(Timestamp::Given).ok_or_else(|| {
            let text = String::from_utf8_lossy(text);
            format!("the column of its timestamp holds {text}, and Kafka's times begin with 1970")
        })
    }
}

/// Finds columns by their names, and notes what is wrong with them.
struct Planner<'a> {
    outbox: &'a Outbox,
    columns: &'a [Announced],
    makes: Vec<Make>,
    missing: Vec<String>,
    wrong: Option<String>,
}

impl Planner<'_> {
    fn column(&mut self, name: &str) -> (usize, Option<u32>) {
        let found = self.columns.iter().position(|(column, _)| column == name);
        if found.is_none() && !self.missing.iter().any(|it| it == name) {
            self.missing.push(name.to_owned());
        }
        let type_oid = found.and_then(|index| self.columns.get(index)).map(|(_, oid)| *oid);
        // Never read: a row of a plan that misses something is poison.
        (found.unwrap_or(usize::MAX), type_oid)
    }

    fn field(&mut self, name: &str) -> Field {
        match self.column(name) {
            (index, Some(BYTEA)) => self.make(Make::Bytea(index)),
            (index, _) => Field::Column(index),
        }
    }

    fn template(&mut self, template: &Template) -> Field {
        if let [Part::Column(name)] = template.parts() {
            return self.field(name);
        }
        let piece = |part: &Part| match part {
            Part::Literal(text) => Piece::Literal(text.clone()),
            Part::Column(name) => Piece::Column(self.column(name).0),
            Part::Fact(Fact::Schema) => Piece::Literal(self.outbox.table.schema.clone()),
            Part::Fact(Fact::Table) => Piece::Literal(self.outbox.table.name.clone()),
            Part::Fact(fact) => Piece::Fact(*fact),
        };
        let pieces = template.parts().iter().map(piece).collect();
        self.make(Make::Text(pieces))
    }

    /// What is used twice is made once.
    fn make(&mut self, make: Make) -> Field {
        let known = self.makes.iter().position(|it| *it == make);
        Field::Made(known.unwrap_or_else(|| {
            self.makes.push(make);
            self.makes.len() - 1
        }))
    }

    fn partition(&mut self, name: &str) -> usize {
        let (index, type_oid) = self.column(name);
        if type_oid.is_some_and(|oid| !is_whole(oid)) {
            self.wrong = Some(format!("column {name} cannot be the partition: it is no number"));
        }
        index
    }

    fn timestamp(&mut self, name: &str) -> Option<(usize, Clock)> {
        let (index, type_oid) = self.column(name);
        match type_oid? {
            BIGINT => Some((index, Clock::Milliseconds)),
            oid if is_date(oid) => Some((index, Clock::Text)),
            _ => {
                self.wrong = Some(format!("column {name} cannot be the timestamp: it is no date"));
                None
            }
        }
    }

    fn unfit(&self) -> Option<String> {
        if self.missing.is_empty() {
            return self.wrong.clone();
        }
        let missing = self.missing.join(", ");
        Some(format!("the table has no column {missing}; add it or change the mapping"))
    }
}

impl Make {
    /// Appends it. Returns whether it is something, and not NULL.
    fn fill(&self, bytes: &mut Vec<u8>, row: Tuple<'_>, place: Place) -> Result<bool, String> {
        match self {
            Make::Position => bytes.extend_from_slice(&place.position.text()),
            Make::Bytea(index) => {
                let Some(hex) = bytes_of(row, *index) else { return Ok(false) };
                decode_bytea(hex, bytes)
                    .ok_or("a bytea value does not come as \\x and hexadecimal digits")?;
            }
            Make::Text(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Literal(text) => bytes.extend_from_slice(text.as_bytes()),
                        Piece::Column(index) => match bytes_of(row, *index) {
                            Some(value) => bytes.extend_from_slice(value),
                            None => return Ok(false),
                        },
                        Piece::Fact(fact) => fact.fill(bytes, place),
                    }
                }
            }
        }
        Ok(true)
    }
}

impl Fact {
    fn fill(self, bytes: &mut Vec<u8>, place: Place) {
        // Writing to memory does not fail.
        let _ = match self {
            Fact::Xid => write!(bytes, "{}", place.xid),
            Fact::CommitLsn => write!(bytes, "{}", place.position.commit),
            Fact::CommitTime => write!(bytes, "{}", place.committed_ms()),
            // Known when the plan is made.
            Fact::Schema | Fact::Table => Ok(()),
        };
    }
}

/// The text of a column; `None` is NULL.
fn bytes_of(row: Tuple<'_>, index: usize) -> Option<&[u8]> {
    match row.get(index) {
        Some(Value::Text(bytes)) => Some(bytes),
        Some(Value::Null) | None => None,
    }
}

/// `\x` and two digits a byte: `bytea_output = hex`, which the session pins.
fn decode_bytea(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, []) = text.strip_prefix(b"\\x")?.as_chunks::<2>() else { return None };
    for &[high, low] in pairs {
        out.push(digit(high)? << 4 | digit(low)?);
    }
    Some(())
}
