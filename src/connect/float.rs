//! Floats as Java's `Double.toString` and `Float.toString` write them, since Java 19.

use std::fmt::LowerExp;
use std::io::Write as _;
use std::str::FromStr;

/// Appends a `double precision`; what is no number is put between quotes in JSON.
pub(super) fn double(text: &[u8], json: bool, out: &mut Vec<u8>) -> Option<()> {
    if special(text, json, out) {
        return Some(());
    }
    let value: f64 = finite(text)?;
    write(value, value.is_subnormal(), out)
}

/// Appends a `real`, as [`double`] does.
pub(super) fn real(text: &[u8], json: bool, out: &mut Vec<u8>) -> Option<()> {
    if special(text, json, out) {
        return Some(());
    }
    let value: f32 = finite(text)?;
    write(value, value.is_subnormal(), out)
}

/// The value of a `double precision`.
pub(super) fn double_value(text: &[u8]) -> Option<f64> {
    match text {
        b"NaN" => Some(f64::NAN),
        b"Infinity" => Some(f64::INFINITY),
        b"-Infinity" => Some(f64::NEG_INFINITY),
        _ => finite(text),
    }
}

/// Appends what is no number; Postgres and Java call it the same.
fn special(text: &[u8], json: bool, out: &mut Vec<u8>) -> bool {
    let special = matches!(text, b"NaN" | b"Infinity" | b"-Infinity");
    if special {
        let quote: &[u8] = if json { b"\"" } else { b"" };
        for part in [quote, text, quote] {
            out.extend_from_slice(part);
        }
    }
    special
}

/// A number in digits. Rust would read more: `inf`, `+1`, `.5`.
fn finite<T: FromStr + Into<f64> + Copy>(text: &[u8]) -> Option<T> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let value: T = match digits.first() {
        Some(b'0'..=b'9') => str::from_utf8(text).ok()?.parse().ok()?,
        _ => return None,
    };
    value.into().is_finite().then_some(value)
}

fn write<T: LowerExp>(value: T, subnormal: bool, out: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 32];
    let Scientific { negative, mut lead, mut tail, mut exponent } =
        Scientific::parse(print(&mut buffer, format_args!("{value:e}"))?)?;
    // Java looks for the nearest number of two digits if one digit would do. It is another number
    // only where floats are so coarse that their neighbours begin with other digits.
    let mut again = [0; 32];
    if subnormal && tail.is_empty() {
        let two = Scientific::parse(print(&mut again, format_args!("{value:.1e}"))?)?;
        (lead, exponent) = (two.lead, two.exponent);
        tail = two.tail.strip_suffix(b"0").unwrap_or(two.tail);
    }
    if negative {
        out.push(b'-');
    }
    let places = usize::try_from(exponent.unsigned_abs()).ok()?;
    match exponent {
        -3..=-1 => {
            out.extend_from_slice(b"0.");
            out.extend(std::iter::repeat_n(b'0', places - 1));
            out.push(lead);
            out.extend_from_slice(tail);
        }
        0..=6 => {
            out.push(lead);
            let (whole, fraction) = tail.split_at_checked(places).unwrap_or((tail, b""));
            out.extend_from_slice(whole);
            out.extend(std::iter::repeat_n(b'0', places - whole.len()));
            out.push(b'.');
            out.extend_from_slice(if fraction.is_empty() { b"0" } else { fraction });
        }
        _ => {
            out.extend_from_slice(&[lead, b'.']);
            out.extend_from_slice(if tail.is_empty() { b"0" } else { tail });
            // Writing to memory does not fail.
            let _ = write!(out, "E{exponent}");
        }
    }
    Some(())
}

/// A number like `-1.25e-7`.
struct Scientific<'a> {
    negative: bool,
    /// The digit before the point.
    lead: u8,
    /// Those behind it.
    tail: &'a [u8],
    exponent: i32,
}

impl Scientific<'_> {
    fn parse(text: &[u8]) -> Option<Scientific<'_>> {
        let (negative, text) = match text.strip_prefix(b"-") {
            Some(text) => (true, text),
            None => (false, text),
        };
        let end = text.iter().position(|byte| *byte == b'e')?;
        let exponent = super::parse(text.get(end + 1..)?)?;
        let (lead, tail) = text.get(..end)?.split_first()?;
        let tail = tail.strip_prefix(b".").unwrap_or(tail);
        Some(Scientific { negative, lead: *lead, tail, exponent })
    }
}

/// Prints without a String.
fn print<'a>(buffer: &'a mut [u8; 32], text: std::fmt::Arguments<'_>) -> Option<&'a [u8]> {
    let mut rest = buffer.as_mut_slice();
    rest.write_fmt(text).ok()?;
    let left = rest.len();
    buffer.get(..buffer.len() - left)
}
