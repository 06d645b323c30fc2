//! Values of columns as Debezium's Postgres connector and the converters of Kafka Connect write
//! them, so that a topic goes on with the bytes it had.
//!
//! The connector's modes are its defaults: `decimal.handling.mode=precise`,
//! `time.precision.mode=adaptive`, `binary.handling.mode=bytes`,
//! `interval.handling.mode=numeric`. Text comes as our session pins it: ISO dates in UTC,
//! hexadecimal `bytea`, shortest floats.
//!
//! Where its output is of no use, ours differs, and only as `StringConverter` has it: an object's
//! identity, `[B@1b2c`, or `java.nio.HeapByteBuffer[pos=0 lim=3 cap=3]` cannot be a key. So a
//! `bytea` is its bytes, and `numeric` without a scale, bits and points are Postgres' own text.

pub(crate) mod array;
mod decimal;
mod float;
mod json;
mod schema;
pub(crate) mod time;

use std::io::Write as _;

use crate::pg::oid;
use decimal::Digits;
pub use decimal::unscaled;
pub(crate) use json::base64;
pub use json::json_string;
use json::{Base64, hex, quote};

/// What a column is to Kafka Connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text that stays as it is, and whatever has no kind of its own.
    Text {
        /// Of its schema, such as `io.debezium.data.Json`.
        name: Option<&'static str>,
    },
    /// One of the labels of an enum.
    Enum {
        /// The labels, in order.
        allowed: Vec<String>,
    },
    /// A `boolean`, or one bit.
    Boolean,
    /// A `smallint`.
    Int16,
    /// An `integer`.
    Int32,
    /// A `bigint`, or an `oid`.
    Int64,
    /// A `real`.
    Float,
    /// A `double precision`.
    Double,
    /// A `numeric` of so many digits, so many of them behind the point.
    Decimal {
        /// All digits.
        precision: u16,
        /// Digits behind the point; below zero, zeros before it that are not stored.
        scale: i16,
    },
    /// A `numeric` that fixes neither precision nor scale.
    VariableDecimal,
    /// A `money`: two digits behind the point.
    Money,
    /// A `bytea`.
    Bytes,
    /// Bits, at most so many.
    Bits {
        /// `i32::MAX` if there is no limit.
        length: u32,
    },
    /// A `date`: days since 1970-01-01.
    Date,
    /// A `time(0)` to `time(3)`: milliseconds since midnight.
    Time,
    /// A finer `time`: microseconds since midnight.
    MicroTime,
    /// A `timestamp(0)` to `timestamp(3)`: milliseconds since 1970-01-01.
    Timestamp,
    /// A finer `timestamp`: microseconds since 1970-01-01.
    MicroTimestamp,
    /// A `timestamptz`: text in ISO 8601, in UTC.
    ZonedTimestamp {
        /// Digits of a second's fraction, at most 6.
        digits: u8,
    },
    /// A `timetz`: text in ISO 8601, in UTC.
    ZonedTime,
    /// An `interval` in microseconds, its months of 30.4375 days.
    Interval,
    /// A `point`.
    Point,
    /// An array of any number of dimensions.
    Array(Box<Kind>),
}

/// A column as the catalog, or the stream, describes it.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    /// `pg_type.oid`; of a domain, that of its base type.
    pub type_oid: u32,
    /// `atttypmod`, or `typtypmod` of a domain; -1 is none.
    pub modifier: i32,
    /// Of an enum or an array of it, in order; empty otherwise.
    pub labels: &'a [String],
    /// `typelem` of an array, 0 otherwise; not needed for built-in arrays.
    pub element: u32,
}

/// Who reads what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    String,
    StringElement,
    Header,
    HeaderElement,
    Json,
}

impl Form {
    /// The form of what is inside.
    fn element(self) -> Form {
        match self {
            Form::String | Form::StringElement => Form::StringElement,
            Form::Header | Form::HeaderElement => Form::HeaderElement,
            Form::Json => Form::Json,
        }
    }

    /// Whether text is put between quotes.
    fn quotes(self) -> bool {
        matches!(self, Form::HeaderElement | Form::Json)
    }
}

const NULL: &[u8] = b"null";

impl Kind {
    /// The kind of a column.
    pub fn of(described: &Described<'_>) -> Kind {
        let modifier = u32::try_from(described.modifier).ok();
        let millis = modifier.is_some_and(|digits| digits <= 3);
        let named = |name| Kind::Text { name: Some(name) };
        match described.type_oid {
            oid::BOOLEAN => Kind::Boolean,
            oid::SMALLINT => Kind::Int16,
            oid::INTEGER => Kind::Int32,
            oid::BIGINT | oid::OID => Kind::Int64,
            oid::REAL => Kind::Float,
            oid::DOUBLE => Kind::Double,
            oid::NUMERIC => decimal::kind(described.modifier),
            oid::MONEY => Kind::Money,
            oid::BYTEA => Kind::Bytes,
            oid::BIT if described.modifier <= 1 => Kind::Boolean,
            oid::VARBIT if modifier == Some(1) => Kind::Boolean,
            oid::BIT | oid::VARBIT => {
                Kind::Bits { length: modifier.unwrap_or(i32::MAX.unsigned_abs()) }
            }
            oid::DATE => Kind::Date,
            oid::TIME if millis => Kind::Time,
            oid::TIME => Kind::MicroTime,
            oid::TIMESTAMP if millis => Kind::Timestamp,
            oid::TIMESTAMP => Kind::MicroTimestamp,
            oid::TIMESTAMPTZ => {
                let digits = u8::try_from(described.modifier).map_or(6, |digits| digits.min(6));
                Kind::ZonedTimestamp { digits }
            }
            oid::TIMETZ => Kind::ZonedTime,
            oid::INTERVAL => Kind::Interval,
            oid::POINT => Kind::Point,
            oid::UUID => named("io.debezium.data.Uuid"),
            oid::JSON | oid::JSONB => named("io.debezium.data.Json"),
            oid::XML => named("io.debezium.data.Xml"),
            oid::TSVECTOR => named("io.debezium.data.Tsvector"),
            // Their `typelem` is no sign of an array, and their text is none.
            oid::NAME | oid::INT2VECTOR | oid::OIDVECTOR | oid::LSEG | oid::BOX | oid::LINE => {
                Kind::Text { name: None }
            }
            array => match oid::element(array).unwrap_or(described.element) {
                0 if !described.labels.is_empty() => {
                    Kind::Enum { allowed: described.labels.to_vec() }
                }
                // Boxes are parted by semicolons, because they have commas inside.
                0 | oid::BOX => Kind::Text { name: None },
                type_oid => {
                    let element = Described { type_oid, element: 0, ..*described };
                    Kind::Array(Box::new(Kind::of(&element)))
                }
            },
        }
    }

    /// Appends the value as `StringConverter` has it, which is Java's `toString`, but for what the
    /// module's description excepts.
    ///
    /// # Errors
    /// Says why it cannot be sent; nothing is appended then.
    pub fn string(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        self.write(text, Form::String, out)
    }

    /// Appends the value as `SimpleHeaderConverter` has it: JSON for what has parts, and base64 for
    /// bytes.
    ///
    /// # Errors
    /// Says why it cannot be sent; nothing is appended then.
    pub fn header(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        self.write(text, Form::Header, out)
    }

    /// Appends the value as `JsonConverter` has it, without its schema. No text is NULL.
    ///
    /// # Errors
    /// Says why it cannot be sent; nothing is appended then.
    pub fn json(&self, text: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), String> {
        if let Some(text) = text {
            return self.write(text, Form::Json, out);
        }
        out.extend_from_slice(NULL);
        Ok(())
    }

    /// The schema as `JsonConverter` prints it beside a value; `field` is its name in a struct.
    pub fn schema(&self, optional: bool, field: Option<&str>) -> String {
        let mut out = Vec::new();
        schema::write(self, optional, field, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Whether [`string`](Kind::string) and [`header`](Kind::header) copy the text as it is, so
    /// that it may as well stay where it is.
    pub fn is_verbatim(&self) -> bool {
        match self {
            Kind::Text { .. } | Kind::Enum { .. } | Kind::Int16 | Kind::Int32 | Kind::Int64 => true,
            // Java writes smaller numbers than that in another way.
            Kind::Decimal { scale, .. } => *scale <= decimal::PLAIN_SCALE_MAX,
            _ => false,
        }
    }

    fn write(&self, text: &[u8], form: Form, out: &mut Vec<u8>) -> Result<(), String> {
        let start = out.len();
        self.append(text, form, out).ok_or_else(|| {
            out.truncate(start);
            format!("{}{}", self.unsendable(text), self.remedy(text))
        })
    }

    /// What is said of a value that is not what this kind looks like.
    pub(crate) fn unsendable(&self, text: &[u8]) -> String {
        let (shown, more) = match text.split_at_checked(60) {
            Some((shown, _)) => (shown, "…"),
            None => (text, ""),
        };
        format!("the {} {}{more} cannot be sent", self.noun(), String::from_utf8_lossy(shown))
    }

    /// Appends it, or a part of it and `None` if it is not what this kind looks like.
    fn append(&self, text: &[u8], form: Form, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Kind::Text { .. } | Kind::Enum { .. } => json::text(text, form, out),
            Kind::Int16 | Kind::Int32 | Kind::Int64 if form != Form::Json => {
                out.extend_from_slice(text);
            }
            Kind::Int16 => number(parse::<i16>(text)?, out),
            Kind::Int32 => number(parse::<i32>(text)?, out),
            Kind::Int64 => number(parse::<i64>(text)?, out),
            Kind::Boolean => out.extend_from_slice(match text {
                b"t" | b"1" => b"true",
                b"f" | b"0" => b"false",
                _ => return None,
            }),
            Kind::Float => float::real(text, form == Form::Json, out)?,
            Kind::Double => float::double(text, form == Form::Json, out)?,
            Kind::Date => number(time::days(text)?, out),
            Kind::Time => number(time::ms_of_day(text)?, out),
            Kind::MicroTime => number(time::us_of_day(text)?, out),
            Kind::Timestamp => number(time::epoch_ms(text)?, out),
            Kind::MicroTimestamp => number(time::epoch_us(text)?, out),
            Kind::Interval => number(time::interval_us(text)?, out),
            Kind::ZonedTimestamp { digits } => {
                quote(form, out, |out| time::zoned_timestamp(text, *digits, out))?;
            }
            Kind::ZonedTime => quote(form, out, |out| time::zoned_time(text, out))?,
            Kind::Array(element) => {
                let separator = if form.element() == Form::StringElement { ", " } else { "," };
                array::write(text, separator, out, |value, out| {
                    let Some(value) = value else {
                        out.extend_from_slice(NULL);
                        return Some(());
                    };
                    element.append(value, form.element(), out)
                })?;
            }
            _ => self.append_bytes(text, form, out)?,
        }
        Some(())
    }

    /// What Connect knows as bytes, or as a struct that holds some.
    fn append_bytes(&self, text: &[u8], form: Form, out: &mut Vec<u8>) -> Option<()> {
        let readable = matches!(form, Form::String | Form::StringElement);
        match self {
            Kind::Decimal { scale, .. } if form == Form::Json => {
                let unscaled = Digits::parse(text)?.unscaled(i32::from(*scale))?;
                quote(form, out, |out| {
                    unscaled.base64(out);
                    Some(())
                })
            }
            Kind::Decimal { scale, .. } => decimal::string(text, *scale, out),
            Kind::VariableDecimal if !readable => decimal::variable(text, out),
            Kind::Money => decimal::money(text, form, out),
            Kind::Bytes if form == Form::String => {
                hex(text)?.try_for_each(|byte| byte.map(|byte| out.push(byte)))
            }
            Kind::Bytes if !readable => quote(form, out, |out| {
                let mut base64 = Base64::new(out);
                hex(text)?.try_for_each(|byte| byte.map(|byte| base64.push(byte)))?;
                base64.end();
                Some(())
            }),
            Kind::Bits { .. } if !readable => quote(form, out, |out| bits(text, out)),
            Kind::Point if !readable => point(text, form, out),
            _ => {
                out.extend_from_slice(text);
                Some(())
            }
        }
    }

    fn noun(&self) -> &'static str {
        match self {
            Kind::Text { .. } | Kind::Enum { .. } => "text",
            Kind::Boolean => "boolean",
            Kind::Int16 | Kind::Int32 | Kind::Int64 => "whole number",
            Kind::Float | Kind::Double | Kind::Decimal { .. } | Kind::VariableDecimal => "number",
            Kind::Money => "money",
            Kind::Bytes => "bytea",
            Kind::Bits { .. } => "bit string",
            Kind::Date => "date",
            Kind::Time | Kind::MicroTime | Kind::ZonedTime => "time",
            Kind::Timestamp | Kind::MicroTimestamp | Kind::ZonedTimestamp { .. } => "timestamp",
            Kind::Interval => "interval",
            Kind::Point => "point",
            Kind::Array(_) => "array",
        }
    }

    fn remedy(&self, text: &[u8]) -> &'static str {
        match self {
            Kind::Decimal { .. } | Kind::VariableDecimal if decimal::is_special(text) => {
                ": Connect's decimals are numbers only; keep it out of the column with a CHECK"
            }
            Kind::Money => ": lc_monetary must be one that writes it like -$1,234.50, such as C",
            _ => "",
        }
    }
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    str::from_utf8(text).ok()?.parse().ok()
}

fn number(number: impl Into<i64>, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = write!(out, "{}", number.into());
}

/// The lowest bits first, in as few bytes as hold all that are set.
fn bits(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut base64 = Base64::new(out);
    let zeros = text.iter().take_while(|digit| **digit == b'0').count();
    for byte in text.get(zeros..)?.rchunks(8) {
        base64.push(byte.iter().try_fold(0, |byte, digit| match digit {
            b'0' => Some(byte << 1),
            b'1' => Some(byte << 1 | 1),
            _ => None,
        })?);
    }
    base64.end();
    Some(())
}

/// A struct of its coordinates and of the same in Well-Known Binary.
fn point(text: &[u8], form: Form, out: &mut Vec<u8>) -> Option<()> {
    let text = text.strip_prefix(b"(")?.strip_suffix(b")")?;
    let comma = text.iter().position(|byte| *byte == b',')?;
    let (x_text, y_text) = (text.get(..comma)?, text.get(comma + 1..)?);
    out.extend_from_slice(b"{\"x\":");
    let x = float::double_value(x_text)?;
    float::double(x_text, form == Form::Json, out)?;
    out.extend_from_slice(b",\"y\":");
    let y = float::double_value(y_text)?;
    float::double(y_text, form == Form::Json, out)?;
    out.extend_from_slice(b",\"wkb\":\"");
    let mut base64 = Base64::new(out);
    // Little endian, and the number of a point.
    let head = [1, 1, 0, 0, 0].into_iter();
    head.chain(x.to_le_bytes()).chain(y.to_le_bytes()).for_each(|byte| base64.push(byte));
    base64.end();
    out.extend_from_slice(b"\",\"srid\":null}");
    Some(())
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
