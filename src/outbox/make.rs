//! What is made of a row, because it does not stand in it as it is sent.

use std::io::Write as _;

use super::event::{Attribute, Event};
use super::plan::{Place, bytes_of};
use super::{row, span};
use crate::connect::{self, Kind, time};
use crate::pg::output::Tuple;
use crate::rewrite::Rewrite;
use crate::template::Fact;

/// Something that is made.
#[derive(Debug, PartialEq)]
pub(super) enum Make {
    /// The text of its position.
    Position,
    /// A template; NULL if one of its columns is.
    Text(Vec<Piece>),
    /// What becomes of that as a topic.
    Rewritten(Vec<Piece>, Box<Rewrite>),
    /// A column, by itself.
    Value(usize, Kind, Style),
    /// JSON, which is never NULL.
    Json(Vec<Json>),
    /// A part of the application's trace, by its name.
    Span(usize, &'static str),
    /// An attribute of a CloudEvent, as text.
    Attribute(Attribute),
    /// A CloudEvent, as JSON.
    Event(Box<Event>),
}

/// What is made, or stands in the row as it is.
#[derive(Debug, PartialEq)]
pub(super) enum Planned {
    /// A column.
    Column(usize),
    /// Something that is made.
    Made(Make),
}

impl Planned {
    /// As [`Make::fill`].
    pub(super) fn fill(
        &self,
        bytes: &mut Vec<u8>,
        row: Tuple<'_>,
        place: Place,
    ) -> Result<bool, Unmade> {
        match self {
            Planned::Made(make) => make.fill(bytes, row, place),
            Planned::Column(index) => {
                let text = bytes_of(row, *index);
                bytes.extend_from_slice(text.unwrap_or_default());
                Ok(text.is_some())
            }
        }
    }
}

/// Why something cannot be made.
pub(super) struct Unmade {
    /// The column that is at fault.
    pub(super) column: Option<usize>,
    pub(super) reason: String,
}

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    Column(usize),
    Fact(Fact),
}

/// Which of Kafka Connect's converters a value by itself goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// That of keys and values.
    String,
    /// That of headers.
    Header,
}

/// A piece of a JSON text.
#[derive(Debug, PartialEq)]
pub(super) enum Json {
    /// As it is.
    Literal(String),
    /// A column, as its type is written.
    Value(usize, Kind),
    /// A column, as JSON itself has its type.
    Natural(usize, Kind),
    /// A column that holds JSON, as it is.
    Document(usize),
    /// A text as a string.
    Text(Vec<Piece>),
    /// A column as the member `version`; nothing if it is NULL.
    Version(usize),
}

impl Make {
    /// Appends it. Returns whether it is something, and not NULL.
    ///
    /// # Errors
    /// Says why it cannot be made of this row.
    pub(super) fn fill(
        &self,
        bytes: &mut Vec<u8>,
        row: Tuple<'_>,
        place: Place,
    ) -> Result<bool, Unmade> {
        match self {
            Make::Position => bytes.extend_from_slice(&place.position.text()),
            Make::Text(pieces) => return Ok(fill_text(pieces, bytes, row, place)),
            Make::Rewritten(pieces, rewrite) => {
                let mut name = Vec::new();
                if !fill_text(pieces, &mut name, row, place) {
                    return Ok(false);
                }
                let name = String::from_utf8_lossy(&name);
                rewrite.apply(&name, bytes).map_err(|reason| Unmade { column: None, reason })?;
            }
            Make::Value(index, kind, style) => {
                let Some(text) = bytes_of(row, *index) else { return Ok(false) };
                let written = match style {
                    Style::String => kind.string(text, bytes),
                    Style::Header => kind.header(text, bytes),
                };
                written.map_err(|reason| Unmade { column: Some(*index), reason })?;
            }
            Make::Json(pieces) => {
                for piece in pieces {
                    piece.fill(bytes, row, place)?;
                }
            }
            Make::Span(index, name) => {
                let value = bytes_of(row, *index).and_then(|text| span::property(text, name));
                let Some(value) = value else { return Ok(false) };
                bytes.extend_from_slice(value.as_bytes());
            }
            Make::Attribute(attribute) => return attribute.fill(bytes, row, place),
            Make::Event(event) => event.fill(bytes, row, place)?,
        }
        Ok(true)
    }
}

/// Appends a text. Returns whether all of its columns are there; what was appended of one that
/// lacks some is no part of anything.
pub(super) fn fill_text(
    pieces: &[Piece],
    bytes: &mut Vec<u8>,
    row: Tuple<'_>,
    place: Place,
) -> bool {
    pieces.iter().all(|piece| {
        match piece {
            Piece::Literal(text) => bytes.extend_from_slice(text.as_bytes()),
            Piece::Fact(fact) => fact.fill(bytes, place),
            Piece::Column(index) => match bytes_of(row, *index) {
                Some(value) => bytes.extend_from_slice(value),
                None => return false,
            },
        }
        true
    })
}

impl Json {
    fn fill(&self, bytes: &mut Vec<u8>, row: Tuple<'_>, place: Place) -> Result<(), Unmade> {
        match self {
            Json::Literal(text) => bytes.extend_from_slice(text.as_bytes()),
            Json::Value(index, kind) => {
                let written = kind.json(bytes_of(row, *index), bytes);
                written.map_err(|reason| Unmade { column: Some(*index), reason })?;
            }
            Json::Natural(index, kind) => {
                let written = row::write(kind, bytes_of(row, *index), bytes);
                written.map_err(|reason| Unmade { column: Some(*index), reason })?;
            }
            Json::Document(index) => {
                bytes.extend_from_slice(bytes_of(row, *index).unwrap_or(b"null"));
            }
            Json::Text(pieces) => {
                let mut text = Vec::new();
                if fill_text(pieces, &mut text, row, place) {
                    connect::json_string(&text, bytes);
                } else {
                    bytes.extend_from_slice(b"null");
                }
            }
            Json::Version(index) => {
                if let Some(version) = bytes_of(row, *index) {
                    bytes.extend_from_slice(b",\"version\":");
                    bytes.extend_from_slice(version);
                }
            }
        }
        Ok(())
    }
}

impl Fact {
    fn fill(self, bytes: &mut Vec<u8>, place: Place) {
        // Writing to memory does not fail.
        let _ = match self {
            Fact::Xid => write!(bytes, "{}", place.xid),
            Fact::CommitLsn => write!(bytes, "{}", place.position.commit),
            Fact::CommitTime => write!(bytes, "{}", place.committed_ms()),
            Fact::CommitTimeIso => {
                time::iso_moment(place.committed(), bytes);
                bytes.write_all(b"Z")
            }
            // Known when the plan is made.
            Fact::Schema | Fact::Table => Ok(()),
        };
    }
}
