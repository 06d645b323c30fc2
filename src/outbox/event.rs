//! Rows as CloudEvents: version 1.0.2, with the Kafka Protocol Binding and the JSON Event Format of
//! that.

use std::io::Write as _;

use super::make::{Piece, Planned, Unmade, fill_text};
use super::plan::{Place, bytes_of};
use super::row;
use crate::config::{DATA_CONTENT_TYPE, REQUIRED_ATTRIBUTES};
use crate::connect::{Kind, json_string, time};
use crate::pg::output::Tuple;
use crate::pg::time::Moment;

/// `specversion`: "Compliant event producers MUST use a value of `1.0`" (CloudEvents).
pub(super) const VERSION: &str = "1.0";

/// How a value is known to be an event: "the Kafka message header property `content-type` MUST be
/// set to the media type of an event format" (Kafka Protocol Binding, section 3.3.1).
pub(super) const STRUCTURED: &str = "application/cloudevents+json; charset=UTF-8";

/// An attribute of an event.
#[derive(Debug, PartialEq)]
pub(super) struct Attribute {
    pub(super) name: String,
    pub(super) filling: Filling,
    /// What it is where that is NULL or empty; empty if it is left out then.
    pub(super) fallback: &'static str,
}

/// What an attribute is filled from.
#[derive(Debug, PartialEq)]
pub(super) enum Filling {
    /// A column, with its type.
    Column(usize, Kind),
    /// Text made of columns, as Postgres prints them.
    Text(Vec<Piece>),
}

/// An event in structured mode.
#[derive(Debug, PartialEq)]
pub(super) struct Event {
    pub(super) attributes: Vec<Attribute>,
    pub(super) data: Data,
}

/// The payload of an event, by what JSON makes of it.
#[derive(Debug, PartialEq)]
pub(super) enum Data {
    /// It is JSON.
    Json(Planned),
    /// It is text.
    Text(Planned),
    /// A `bytea`.
    Bytes(usize),
}

impl Attribute {
    /// Appends it as text, and returns whether it is there. "MUST be a non-empty string" is said of
    /// every attribute that CloudEvents itself has, so that an empty one is none.
    ///
    /// # Errors
    /// Says why the row is no event.
    pub(super) fn fill(
        &self,
        bytes: &mut Vec<u8>,
        row: Tuple<'_>,
        place: Place,
    ) -> Result<bool, Unmade> {
        let start = bytes.len();
        let mut text = Vec::new();
        if !self.text(&mut text, row, place)? || text.is_empty() {
            text = self.fallback.into();
        }
        let wrong = |reason| Unmade { column: None, reason };
        if text.is_empty() && REQUIRED_ATTRIBUTES.contains(&self.name.as_str()) {
            return Err(wrong(self.said(
                "is NULL or empty, and no event is without it: fill its columns, or set it in \
                 cloudevents_attributes to what is never NULL",
            )));
        }
        if text.is_empty() {
            return Ok(false);
        }
        match self.name.as_str() {
            "source" | "dataschema" => percent_encode(&text, bytes),
            _ => bytes.extend_from_slice(&text),
        }
        self.check(bytes.get(start..).unwrap_or_default()).map_err(wrong)?;
        Ok(true)
    }

    /// Appends what it is filled from. Returns whether that is something.
    fn text(&self, out: &mut Vec<u8>, row: Tuple<'_>, place: Place) -> Result<bool, Unmade> {
        let (index, kind) = match &self.filling {
            Filling::Text(pieces) => return Ok(fill_text(pieces, out, row, place)),
            Filling::Column(index, kind) => (*index, kind),
        };
        let Some(text) = bytes_of(row, index) else { return Ok(false) };
        let date = matches!(kind, Kind::Date | Kind::Timestamp | Kind::MicroTimestamp);
        let written = if self.name == "time" && date {
            // One without a time zone is in UTC, as it is for Kafka's own.
            let written = time::iso(text, out).ok_or_else(|| kind.unsendable(text));
            out.push(b'Z');
            written
        } else {
            row::text(kind, text, out)
        };
        written.map_err(|reason| Unmade { column: Some(index), reason })?;
        Ok(true)
    }

    /// What a text must be to be an attribute: "the control characters in the ranges U+0000-U+001F
    /// and U+007F-U+009F" and what Unicode calls noncharacters are disallowed (CloudEvents, "Type
    /// System"), and `time` "MUST adhere to the format specified in RFC 3339".
    fn check(&self, text: &[u8]) -> Result<(), String> {
        let Ok(text) = str::from_utf8(text) else {
            return Err(self.said("is no UTF-8; set it in cloudevents_attributes to what is"));
        };
        let noncharacter =
            |c| matches!(c, '\u{FDD0}'..='\u{FDEF}') || u32::from(c) & 0xFFFE == 0xFFFE;
        if let Some(c) = text.chars().find(|&c| c.is_control() || noncharacter(c)) {
            return Err(self.said(&format!(
                "holds {c:?}, which CloudEvents does not allow; set it in cloudevents_attributes \
                 to what has none"
            )));
        }
        if self.name == "time" && !is_rfc_3339(text.as_bytes()) {
            return Err(self.said(&format!(
                "is {text}, which is no time of RFC 3339; set it in cloudevents_attributes to a \
                 column of type timestamptz, and keep infinity out of that"
            )));
        }
        Ok(())
    }

    fn said(&self, what: &str) -> String {
        format!("the attribute {} of its event {what}", self.name)
    }

    /// Appends it as JSON. Those that CloudEvents itself has are text; of others, "Boolean" and
    /// "Integer", which has 32 bits, are what they are (JSON Event Format, section 2.2).
    fn json(&self, text: &[u8], out: &mut Vec<u8>) {
        const OWN: [&str; 7] =
            ["id", "source", "type", "time", "subject", "dataschema", DATA_CONTENT_TYPE];
        let whole = || str::from_utf8(text).ok()?.parse::<i32>().ok();
        match (&self.filling, text) {
            _ if OWN.contains(&self.name.as_str()) => json_string(text, out),
            (Filling::Column(_, Kind::Boolean), b"true" | b"false") => out.extend_from_slice(text),
            (Filling::Column(_, Kind::Int16 | Kind::Int32), _) => match whole() {
                // Writing to memory does not fail.
                Some(number) => drop(write!(out, "{number}")),
                None => json_string(text, out),
            },
            _ => json_string(text, out),
        }
    }
}

impl Event {
    /// Appends it.
    ///
    /// # Errors
    /// Says why the row is no event.
    pub(super) fn fill(
        &self,
        bytes: &mut Vec<u8>,
        row: Tuple<'_>,
        place: Place,
    ) -> Result<(), Unmade> {
        // Writing to memory does not fail.
        let _ = write!(bytes, "{{\"specversion\":\"{VERSION}\"");
        let mut declared = false;
        for attribute in &self.attributes {
            let mut text = Vec::new();
            if attribute.fill(&mut text, row, place)? {
                let _ = write!(bytes, ",\"{}\":", attribute.name);
                attribute.json(&text, bytes);
                declared |= attribute.name == DATA_CONTENT_TYPE && declares_json(&text);
            }
        }
        self.data.fill(declared, bytes, row, place)?;
        bytes.push(b'}');
        Ok(())
    }
}

impl Data {
    /// Appends the member, if there is a payload. `declared` is whether the content type is one of
    /// JSON: then "the data value MUST be stored directly as a JSON value", else as a string, and
    /// what is binary "MUST be represented as a JSON string expression containing the Base64
    /// encoded binary value, and use the member name `data_base64`" (JSON Event Format, section
    /// 3.1.1).
    fn fill(
        &self,
        declared: bool,
        bytes: &mut Vec<u8>,
        row: Tuple<'_>,
        place: Place,
    ) -> Result<(), Unmade> {
        let (Data::Json(payload) | Data::Text(payload)) = self else {
            return self.fill_base64(bytes, row);
        };
        let mut text = Vec::new();
        if !payload.fill(&mut text, row, place)? {
            return Ok(());
        }
        bytes.extend_from_slice(b",\"data\":");
        if !declared {
            json_string(&text, bytes);
            return Ok(());
        }
        if let Data::Text(_) = self {
            serde_json::from_slice::<serde_json::Value>(&text).map_err(|error| {
                let reason = format!(
                    "the datacontenttype of its event is one of JSON, and the payload is none: \
                     {error}; set datacontenttype in cloudevents_attributes to what it is"
                );
                Unmade { column: None, reason }
            })?;
        }
        bytes.extend_from_slice(&text);
        Ok(())
    }

    fn fill_base64(&self, bytes: &mut Vec<u8>, row: Tuple<'_>) -> Result<(), Unmade> {
        let Data::Bytes(index) = *self else { return Ok(()) };
        let Some(hex) = bytes_of(row, index) else { return Ok(()) };
        bytes.extend_from_slice(b",\"data_base64\":");
        let written = Kind::Bytes.json(Some(hex), bytes);
        written.map_err(|reason| Unmade { column: Some(index), reason })
    }
}

/// "a `datacontenttype` declares JSON-formatted content if its media type, when stripped of
/// parameters, has the form `*/json` or `*/*+json`" (JSON Event Format, section 3.1.1).
fn declares_json(content_type: &[u8]) -> bool {
    let media = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    let media = media.trim_ascii().to_ascii_lowercase();
    media.ends_with(b"/json") || media.contains(&b'/') && media.ends_with(b"+json")
}

/// Appends a URI, with those bytes encoded that none may have (RFC 3986, section 2).
fn percent_encode(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte) {
            out.push(byte);
        } else {
            // Writing to memory does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Whether it is like `2026-02-03T04:05:06.789Z`, or has an offset in place of the `Z`.
fn is_rfc_3339(text: &[u8]) -> bool {
    let like = |text: &[u8], shape: &[u8]| {
        text.len() == shape.len()
            && text.iter().zip(shape).all(|(byte, shape)| match shape {
                b'0' => byte.is_ascii_digit(),
                b'+' => matches!(byte, b'+' | b'-'),
                shape => byte == shape,
            })
    };
    let Some((moment, mut zone)) = text.split_at_checked(b"0000-00-00T00:00:00".len()) else {
        return false;
    };
    if let Some(fraction) = zone.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        zone = if digits > 0 { fraction.get(digits..).unwrap_or_default() } else { b"" };
    }
    let spaced: Vec<u8> =
        moment.iter().map(|&byte| if byte == b'T' { b' ' } else { byte }).collect();
    like(moment, b"0000-00-00T00:00:00")
        && (zone == b"Z" || like(zone, b"+00:00"))
        && Moment::parse(&spaced).is_some()
}
