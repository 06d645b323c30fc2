//! Columns in the types that JSON itself has. Nobody converts them in between, so this is not what
//! Kafka Connect makes of them (`connect`), whose kinds tell the columns apart here as well.

use crate::connect::{Kind, array, json_string, time};

/// Appends a column as JSON:
///
/// - booleans, and numbers with the digits that Postgres prints; `NaN` and infinities as strings,
///   because JSON has no such numbers;
/// - `json` and `jsonb` as they are;
/// - dates and times as strings in ISO 8601, with a `Z` if their type has a time zone; infinities
///   keep their names;
/// - `bytea` as a string in base64;
/// - arrays as arrays of that;
/// - everything else as a string of its text.
///
/// No text is NULL.
///
/// # Errors
/// Says why it cannot be sent; nothing is appended then.
pub(super) fn write(kind: &Kind, text: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), String> {
    let start = out.len();
    append(kind, text, out).ok_or_else(|| {
        out.truncate(start);
        kind.unsendable(text.unwrap_or_default())
    })
}

/// Appends a column as text: what [`write`] puts into its strings.
///
/// # Errors
/// Says why it cannot be sent; nothing is appended then.
pub(super) fn text(kind: &Kind, text: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    match (kind, text) {
        (Kind::Boolean, b"t" | b"f") | (Kind::Array(_), _) => write(kind, Some(text), out),
        (
            Kind::Bytes
            | Kind::Date
            | Kind::Timestamp
            | Kind::MicroTimestamp
            | Kind::ZonedTimestamp { .. }
            | Kind::ZonedTime,
            _,
        ) => {
            let mut quoted = Vec::new();
            write(kind, Some(text), &mut quoted)?;
            // There is nothing escaped in these.
            let bare = quoted.strip_prefix(b"\"").and_then(|it| it.strip_suffix(b"\""));
            out.extend_from_slice(bare.unwrap_or(&quoted));
            Ok(())
        }
        _ => {
            out.extend_from_slice(text);
            Ok(())
        }
    }
}

/// Appends it, or a part of it and `None` if it is not what this kind looks like.
fn append(kind: &Kind, text: Option<&[u8]>, out: &mut Vec<u8>) -> Option<()> {
    let Some(text) = text else {
        out.extend_from_slice(b"null");
        return Some(());
    };
    match (kind, text) {
        (Kind::Boolean, b"t") => out.extend_from_slice(b"true"),
        (Kind::Boolean, b"f") => out.extend_from_slice(b"false"),
        (
            Kind::Int16
            | Kind::Int32
            | Kind::Int64
            | Kind::Float
            | Kind::Double
            | Kind::Decimal { .. }
            | Kind::VariableDecimal,
            _,
        ) => number(text, out)?,
        (Kind::Text { name: Some(JSON) }, _) => out.extend_from_slice(text),
        (Kind::Bytes, _) => kind.json(Some(text), out).ok()?,
        (Kind::Date, _) => quoted(out, |out| time::iso_date(text, out))?,
        (Kind::Timestamp | Kind::MicroTimestamp, _) => quoted(out, |out| time::iso(text, out))?,
        (Kind::ZonedTimestamp { .. }, _) => quoted(out, |out| zoned(text, out))?,
        (Kind::ZonedTime, _) => quoted(out, |out| time::zoned_time(text, out))?,
        (Kind::Array(element), _) => {
            array::write(text, ",", out, |value, out| append(element, value, out))?;
        }
        // A `time` is in ISO 8601 as it comes. A bit by itself is Connect's boolean, not ours.
        _ => json_string(text, out),
    }
    Some(())
}

/// What `json` and `jsonb` are called.
const JSON: &str = "io.debezium.data.Json";

/// A point in time; those at the end of time are in no zone.
fn zoned(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    time::iso(text, out)?;
    if !text.ends_with(b"infinity") {
        out.push(b'Z');
    }
    Some(())
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Option<()>) -> Option<()> {
    out.push(b'"');
    write(out)?;
    out.push(b'"');
    Some(())
}

/// Appends a number as it is.
fn number(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match text {
        b"NaN" | b"Infinity" | b"-Infinity" => json_string(text, out),
        _ if is_number(text) => out.extend_from_slice(text),
        _ => return None,
    }
    Some(())
}

/// Whether JSON takes it for a number (RFC 8259, section 6), as it does all that Postgres prints.
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &mut &[u8]| {
        let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        *text = text.get(count..).unwrap_or_default();
        count
    };
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    let leading_zero = rest.starts_with(b"0");
    let whole = digits(&mut rest);
    if whole == 0 || leading_zero && whole > 1 {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        rest = fraction;
        if digits(&mut rest) == 0 {
            return false;
        }
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        rest = exponent.strip_prefix(b"-").or(exponent.strip_prefix(b"+")).unwrap_or(exponent);
        if digits(&mut rest) == 0 {
            return false;
        }
    }
    rest.is_empty()
}
