//! Where the columns of an outbox stand in a row, and what is made of them.

use std::ops::Range;

use super::make::{Make, Unmade};
use crate::config::{CONTENT_TYPE, Encoding, POINTER_HEADER, attribute_header};
use crate::lsn::Position;
use crate::pg::output::{Tuple, Value};
use crate::pg::time::{Moment, epoch_ms, iso_ms};
use crate::record::{Encoded, Field, Header, Headers, Origin, Poison, Record, Row, Timestamp};
use crate::template::check_topic;

/// 2000-01-01, from where Postgres counts, in milliseconds since 1970-01-01.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;

/// The end of the year 9999, in microseconds since 1970-01-01.
const RFC_3339_US_MAX: i64 = 253_402_300_799_999_999;

/// A row of this many bytes is rare enough to allocate for it anew, and large enough not to keep
/// the memory.
const KEPT_BYTES: usize = 1 << 20;

/// What is said of a row that is no record, in headers of these names: what is wrong; the table;
/// the row's `id`; where its transaction's commit record is in the log; the topic that it was for;
/// the bytes of the payload, in Postgres' text form if it is a column; for a message, in place of a
/// table, the prefix that its rule names.
const LETTER_HEADERS: [&str; 7] = [
    "walrelay-reason",
    "walrelay-table",
    "walrelay-id",
    "walrelay-commit-lsn",
    "walrelay-topic",
    "walrelay-payload-bytes",
    "walrelay-prefix",
];

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
    pub(super) fn committed_ms(&self) -> i64 {
        (self.committed_us.div_euclid(1000)).saturating_add(POSTGRES_EPOCH_MS).max(0)
    }

    /// The same as a point in time, of which RFC 3339 has those up to the year 9999.
    pub(super) fn committed(&self) -> Moment {
        let us = self.committed_us.saturating_add(POSTGRES_EPOCH_MS * 1000);
        Moment::of_epoch_us(us.clamp(0, RFC_3339_US_MAX))
    }
}

/// How a table's rows become records, until the next Relation message says otherwise.
#[derive(Debug)]
pub(super) struct Plan {
    /// Index into the configured outboxes, or messages.
    pub(super) outbox: usize,
    /// What its rows are.
    pub(super) origin: Origin,
    /// The columns that were announced.
    pub(super) columns: Vec<String>,
    pub(super) topic: Field,
    /// The column that messages call a row by.
    pub(super) id: Option<usize>,
    pub(super) key: Option<Field>,
    pub(super) payload: Field,
    /// What becomes of it by a schema, and the subject, if it has one of its own.
    pub(super) encoding: Option<(Encoding, Option<Field>)>,
    /// The column it is made of, if it is one.
    pub(super) payload_column: Option<usize>,
    pub(super) headers: Vec<Header>,
    /// If the payload is a CloudEvent: what was made of it, and the header that says so.
    pub(super) event: Option<[usize; 2]>,
    /// The headers of what goes to the topic for rows that are no records.
    pub(super) letter_headers: Vec<Header>,
    /// Those of what goes in place of a record that is too large, if something does.
    pub(super) pointer_headers: Option<Vec<Header>>,
    pub(super) tombstone_if_blank: bool,
    pub(super) partition: Option<usize>,
    pub(super) timestamp: Option<(usize, Clock)>,
    /// In the order of [`Field::Made`].
    pub(super) makes: Vec<Make>,
    /// Why no row can become a record: what the table lacks.
    pub(super) unfit: Option<String>,
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
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.made.clear();
        self.partition = None;
        self.timestamp = Timestamp::Committed(0);
    }

    /// The next thing that is made; where that fails, it is NULL.
    fn make(
        &mut self,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<bool, Unmade>,
    ) -> Result<(), Unmade> {
        let start = self.bytes.len();
        let filled = fill(&mut self.bytes);
        let some = matches!(filled, Ok(true));
        self.made.push(some.then_some(start..self.bytes.len()));
        filled.map(|_| ())
    }

    /// Takes back a header that says that the payload is an event, if it is none.
    fn disclaim(&mut self, event: usize, header: usize, with_payload: bool) {
        let is_event = with_payload && self.made.get(event).is_some_and(Option::is_some);
        if let Some(header) = self.made.get_mut(header).filter(|_| !is_event) {
            *header = None;
        }
    }

    pub(super) fn row<'a>(&'a self, tuple: Tuple<'a>) -> Row<'a> {
        Row { tuple, bytes: &self.bytes, made: &self.made }
    }
}

/// What a time is written as.
#[derive(Clone, Copy, Debug)]
pub(super) enum Clock {
    /// A date, with or without a time.
    Text,
    /// Milliseconds since 1970-01-01 UTC.
    Milliseconds,
    /// The one or the other, in the forms that JSON has for them.
    Json,
}

impl Plan {
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
        scratch.clear();
        if let Some(unfit) = &self.unfit {
            return Err(unfit.clone());
        }
        for make in &self.makes {
            let made = scratch.make(|bytes| make.fill(bytes, row, place));
            made.map_err(|unmade| self.said(unmade))?;
        }
        scratch.partition = self.partition_of(row)?;
        scratch.timestamp = self.timestamp_of(row, place)?;
        match scratch.row(row).get(self.topic) {
            None => Err("a column of the topic is NULL".to_owned()),
            Some(topic) => check_topic(&String::from_utf8_lossy(topic)),
        }?;
        let Some((_, Some(subject))) = self.encoding else { return Ok(()) };
        match scratch.row(row).get(subject).map(str::from_utf8) {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) => Err("the subject of its schema is no UTF-8".to_owned()),
            None => Err("a column of the subject of its schema is NULL".to_owned()),
        }
    }

    /// The record of a row of which everything has been made.
    pub(super) fn record<'a>(&'a self, scratch: &'a Scratch, tuple: Tuple<'a>) -> Record<'a> {
        let row = scratch.row(tuple);
        Record {
            origin: &self.origin,
            // It was checked.
            topic: text(row.get(self.topic)),
            key: self.key.and_then(|key| row.get(key)),
            payload: self.payload_of(row),
            encoded: self.encoding.map(|(encoding, subject)| Encoded {
                encoding,
                // It was checked, too.
                subject: subject.map(|field| text(row.get(field))),
            }),
            headers: Headers { fields: &self.headers, row },
            partition: scratch.partition,
            timestamp: scratch.timestamp,
            id: self.id.and_then(|id| bytes_of(tuple, id)),
            again: false,
        }
    }

    /// Makes what a record of the row has, and in place of its value, of so many bytes, one that
    /// tells where the row is. Returns where that is; none if it would not tell the row from
    /// others, or would be no smaller.
    pub(super) fn fill_pointer(
        &self,
        scratch: &mut Scratch,
        row: Tuple<'_>,
        place: Place,
        bytes: usize,
    ) -> Option<Field> {
        let Origin::Table(table) = &self.origin else { return None };
        // JSON has no other bytes than those of UTF-8.
        let id = str::from_utf8(bytes_of(row, self.id?)?).ok()?;
        let quoted = |text: &str| serde_json::Value::from(text);
        let value = format!(
            r#"{{"schema":{},"table":{},"id":{},"commit_lsn":"{}","xid":{},"bytes":{bytes}}}"#,
            quoted(&table.schema),
            quoted(&table.name),
            quoted(id),
            place.position.commit,
            place.xid,
        );
        if value.len() >= bytes {
            return None;
        }
        self.fill(scratch, row, place).ok()?;
        for text in [value, table.to_string()] {
            let _ = scratch.make(|bytes| {
                bytes.extend_from_slice(text.as_bytes());
                Ok(true)
            });
        }
        Some(Field::Made(self.makes.len()))
    }

    /// The headers of what goes in place of a record that is too large: its own, without those
    /// that would make an event of it, and the one that says what it is.
    pub(super) fn pointer_headers(own: &[Header], is_event: bool, makes: usize) -> Vec<Header> {
        let claims = [attribute_header("specversion"), CONTENT_TYPE.to_owned()];
        let own = own.iter().filter(|header| !(is_event && claims.contains(&header.name)));
        // Behind its value.
        let said = Header::new(POINTER_HEADER, Field::Made(makes + 1));
        own.cloned().chain([said]).collect()
    }

    fn said(&self, Unmade { column, reason }: Unmade) -> String {
        match column.and_then(|index| self.columns.get(index)) {
            Some(column) => format!("{reason}, which column {column} holds"),
            None => reason,
        }
    }

    /// Makes what can be made of a row that is no record, and what is said of it.
    pub(super) fn fill_letter(
        &self,
        scratch: &mut Scratch,
        row: Tuple<'_>,
        place: Place,
        poison: &Poison,
        with_payload: bool,
    ) {
        scratch.clear();
        for make in &self.makes {
            // Why it cannot be made is said already.
            let _ = scratch.make(|bytes| make.fill(bytes, row, place));
        }
        if let Some([event, header]) = self.event {
            scratch.disclaim(event, header, with_payload);
        }
        scratch.timestamp = Timestamp::Committed(place.committed_ms());
        let topic = scratch.row(row).get(self.topic).map(<[u8]>::to_vec);
        let payload = match self.payload_column {
            Some(column) => bytes_of(row, column),
            None => scratch.row(row).get(self.payload),
        };
        let size = payload.map(|it| it.len().to_string().into_bytes());
        let (table, prefix) = match &poison.origin {
            Origin::Table(table) => (Some(table.to_string().into_bytes()), None),
            Origin::Messages(prefix) => (None, Some(prefix.clone().into_bytes())),
        };
        let said: [Option<Vec<u8>>; LETTER_HEADERS.len()] = [
            Some(poison.reason.clone().into_bytes()),
            table,
            poison.id.clone().map(String::into_bytes),
            Some(place.position.commit.to_string().into_bytes()),
            topic,
            size,
            prefix,
        ];
        for text in said {
            let _ = scratch.make(|bytes| {
                bytes.extend_from_slice(text.as_deref().unwrap_or_default());
                Ok(text.is_some())
            });
        }
    }

    /// The headers of a row that is no record: its own, and what is said of it.
    pub(super) fn letter_headers(own: &[Header], makes: usize) -> Vec<Header> {
        let said = LETTER_HEADERS.iter().enumerate().map(|(index, name)| Header {
            omitted_if_null: true,
            ..Header::new(name, Field::Made(makes + index))
        });
        own.iter().cloned().chain(said).collect()
    }

    /// The row's payload; `None` is a tombstone.
    pub(super) fn payload_of<'a>(&self, row: Row<'a>) -> Option<&'a [u8]> {
        // As `String.trim` of Java has it. An empty `bytea` comes as `\\x` and is none.
        let blank = |bytes: &[u8]| bytes.iter().all(|byte| *byte <= b' ');
        // A closure: finding a column walks the row, and most outboxes have no use for it.
        let column = || self.payload_column.and_then(|index| bytes_of(row.tuple, index));
        if self.tombstone_if_blank && column().is_none_or(blank) {
            return None;
        }
        row.get(self.payload)
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
        let number = || str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        let ms = match clock {
            Clock::Text => epoch_ms(text),
            Clock::Milliseconds => number(),
            Clock::Json => number().or_else(|| iso_ms(text)),
        };
        ms.filter(|ms| *ms >= 0).map(Timestamp::Given).ok_or_else(|| {
            let text = String::from_utf8_lossy(text);
            format!("the column of its timestamp holds {text}, and Kafka's times begin with 1970")
        })
    }
}

/// Text that was checked.
fn text(bytes: Option<&[u8]>) -> &str {
    bytes.and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
}

/// The text of a column; `None` is NULL.
pub(super) fn bytes_of(row: Tuple<'_>, index: usize) -> Option<&[u8]> {
    match row.get(index) {
        Some(Value::Text(bytes)) => Some(bytes),
        Some(Value::Null) | None => None,
    }
}
