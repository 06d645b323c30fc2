//! What single values of JSON are in Avro.

use std::borrow::Cow;

use serde_json::Value;

use super::{Node, Unit};
use crate::pg::time::{Moment, iso_us, us_of_day};

/// Up to here every whole number has a floating-point number of its own.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// So many digits of a decimal number come through a floating-point one unharmed (`DBL_DIG`).
const EXACT_DIGITS: usize = 15;

/// A number, or the number that a time is.
pub(super) fn number(node: &Node, value: &Value) -> Option<i64> {
    let Value::String(text) = value else { return whole(value) };
    match node {
        Node::Date => Moment::parse(text.as_bytes()).filter(|it| it.us == 0).map(Moment::days),
        Node::Time(unit) => unit.of_us(us_of_day(text)?),
        Node::Timestamp(unit) => unit.of_us(iso_us(text.as_bytes())?),
        _ => None,
    }
}

impl Unit {
    /// What is finer is cut off.
    fn of_us(self, us: i64) -> Option<i64> {
        match self {
            Unit::Millis => Some(us.div_euclid(1000)),
            Unit::Micros => Some(us),
            Unit::Nanos => us.checked_mul(1000),
        }
    }
}

/// A whole number; JSON does not tell 1.0 from 1.
fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = value.as_f64().filter(|it| it.fract() == 0.0 && it.abs() < EXACT_MAX)?;
        #[expect(clippy::cast_possible_truncation, reason = "a whole number of 53 bits")]
        Some(number as i64)
    })
}

/// A floating-point number. JSON has none of three, which Avro's JSON encoding writes as texts.
pub(super) fn float(value: &Value) -> Option<f64> {
    match value.as_str() {
        None => value.as_f64(),
        Some("NaN") => Some(f64::NAN),
        Some("Infinity" | "INF") => Some(f64::INFINITY),
        Some("-Infinity" | "-INF") => Some(f64::NEG_INFINITY),
        Some(_) => None,
    }
}

/// Bytes, each of them a character: "Unicode code points 0-255 are mapped to unsigned 8-bit byte
/// values 0-255" (of defaults; Avro's JSON encoding has the same).
pub(super) fn bytes(value: &Value) -> Option<Vec<u8>> {
    value.as_str()?.chars().map(|character| u8::try_from(character).ok()).collect()
}

/// The text of a decimal number.
pub(super) fn decimal(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => {
            let text = number.to_string();
            let digits = text.bytes().filter(u8::is_ascii_digit).count();
            let exact = number.is_i64() || number.is_u64() || digits <= EXACT_DIGITS;
            exact.then_some(Cow::Owned(text))
        }
        _ => None,
    }
}

/// The bytes of a UUID.
pub(super) fn uuid(value: &Value) -> Option<[u8; 16]> {
    let text = value.as_str()?;
    let digits = text.bytes().filter(|byte| *byte != b'-');
    let nibbles = digits.map(|byte| char::from(byte).to_digit(16));
    let nibbles: Vec<u32> = nibbles.collect::<Option<_>>()?;
    let bytes = nibbles.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    });
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}
