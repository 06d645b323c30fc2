//! Decimal numbers of any length: their unscaled values, and how Java's `BigDecimal` prints them.

use std::io::Write as _;

use super::json::{Base64, quote};
use super::{Form, Kind};

/// Up to this scale, `BigDecimal.toString` writes any number without an exponent.
pub(super) const PLAIN_SCALE_MAX: i16 = 6;

/// So many digits always fit 128 bits.
const SHORT_DIGITS_MAX: usize = 38;

/// The kind of a `numeric` of this modifier, as `numeric.c` packs it.
pub(super) fn kind(modifier: i32) -> Kind {
    let Some(packed) = modifier.checked_sub(4).filter(|packed| *packed >= 0) else {
        return Kind::VariableDecimal;
    };
    // Eleven bits with their sign; before Postgres 15 there were no scales that would be different.
    let scale = ((packed & 0x7FF) ^ 0x400) - 0x400;
    let (precision, scale) = (u16::try_from(packed >> 16), i16::try_from(scale));
    Kind::Decimal { precision: precision.unwrap_or_default(), scale: scale.unwrap_or_default() }
}

/// What a `numeric` may be beside a number.
pub(super) fn is_special(text: &[u8]) -> bool {
    matches!(text, b"NaN" | b"Infinity" | b"-Infinity")
}

/// Appends a `numeric` of this scale as `BigDecimal.toString` has it.
pub(super) fn string(text: &[u8], scale: i16, out: &mut Vec<u8>) -> Option<()> {
    if scale <= PLAIN_SCALE_MAX || is_special(text) {
        out.extend_from_slice(text);
        return Some(());
    }
    let unscaled = Digits::parse(text)?.unscaled(i32::from(scale))?;
    let mut digits = unscaled.significant();
    // The exponent if one digit were before the point.
    let count = i32::try_from(digits.clone().count()).ok()?.max(1);
    let exponent = count - 1 - i32::from(scale);
    if exponent >= -i32::from(PLAIN_SCALE_MAX) {
        out.extend_from_slice(text);
        return Some(());
    }
    if unscaled.negative {
        out.push(b'-');
    }
    out.push(digits.next().unwrap_or(b'0'));
    if count > 1 {
        out.push(b'.');
        out.extend(digits);
    }
    // Writing to memory does not fail.
    let _ = write!(out, "E{exponent}");
    Some(())
}

/// Appends a `numeric` without a scale: a struct of the least scale that holds it, and its digits.
pub(super) fn variable(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut digits = Digits::parse(text)?;
    while let Some(shorter) = digits.fraction.strip_suffix(b"0") {
        digits.fraction = shorter;
    }
    let scale = i32::try_from(digits.fraction.len()).ok()?;
    let unscaled = digits.unscaled(scale)?;
    let _ = write!(out, "{{\"scale\":{scale},\"value\":\"");
    unscaled.base64(out);
    out.extend_from_slice(b"\"}");
    Some(())
}

/// Appends a `money`.
pub(super) fn money(text: &[u8], form: Form, out: &mut Vec<u8>) -> Option<()> {
    let cents = cents(str::from_utf8(text).ok()?)?;
    if form == Form::Json {
        return quote(form, out, |out| {
            base64(&cents.to_be_bytes(), out);
            Some(())
        });
    }
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    let _ = write!(out, "{sign}{}.{:02}", cents / 100, cents % 100);
    Some(())
}

/// Reads `-$1,234.50`, with any symbol, or in parentheses in place of the sign. Other locales write
/// commas for points, and those must not be taken for thousands.
fn cents(text: &str) -> Option<i128> {
    let (negative, text) = match text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) {
        Some(text) => (true, text),
        None => text.strip_prefix('-').map_or((false, text), |text| (true, text)),
    };
    let number = text.trim_start_matches(|symbol: char| {
        !symbol.is_ascii_digit() && !matches!(symbol, ',' | '.' | '-')
    });
    let (negative, number) = match number.strip_prefix('-') {
        Some(number) if !negative => (true, number),
        _ => (negative, number),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "00"));
    let last = whole.rsplit(',').next()?;
    if whole.len() > 30 || last.is_empty() || last.len() != whole.len() && last.len() != 3 {
        return None;
    }
    // One digit are tens.
    let fraction = match fraction.as_bytes() {
        [tens] => [*tens, b'0'],
        [tens, ones] => [*tens, *ones],
        _ => return None,
    };
    let digits = whole.bytes().filter(|byte| *byte != b',').chain(fraction);
    let cents = fold(digits)?;
    Some(if negative { -cents } else { cents })
}

/// The number of these digits, which are at most [`SHORT_DIGITS_MAX`].
fn fold(mut digits: impl Iterator<Item = u8>) -> Option<i128> {
    digits.try_fold(0_i128, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| i128::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// A number in decimal digits.
pub(super) struct Digits<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
}

impl<'a> Digits<'a> {
    pub(super) fn parse(text: &'a [u8]) -> Option<Digits<'a>> {
        let (negative, text) = match text.strip_prefix(b"-") {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
            Some(point) => (text.get(..point)?, text.get(point + 1..)?),
            None => (text, &b""[..]),
        };
        let digits = whole.iter().chain(fraction).all(u8::is_ascii_digit);
        (digits && !whole.is_empty()).then_some(Digits { negative, whole, fraction })
    }

    /// The whole number that divided by ten to the power of the scale is this one. `None` if there
    /// is none.
    pub(super) fn unscaled(&self, scale: i32) -> Option<Unscaled<'a>> {
        let places = usize::try_from(scale.unsigned_abs()).ok()?;
        let zeros = |digits: &[u8]| digits.iter().all(|digit| *digit == b'0');
        let Digits { negative, whole, fraction } = *self;
        if scale < 0 {
            let kept = whole.len().saturating_sub(places);
            let (whole, cut) = whole.split_at_checked(kept)?;
            let even = zeros(cut) && zeros(fraction);
            return even.then_some(Unscaled { negative, parts: [whole, b""], zeros: 0 });
        }
        let (kept, cut) = fraction.split_at_checked(places).unwrap_or((fraction, b""));
        let parts = [whole, kept];
        zeros(cut).then_some(Unscaled { negative, parts, zeros: places - kept.len() })
    }
}

/// A whole number in decimal digits.
pub(super) struct Unscaled<'a> {
    negative: bool,
    parts: [&'a [u8]; 2],
    /// How many follow the parts.
    zeros: usize,
}

impl Unscaled<'_> {
    /// Its digits, from the first that is not zero.
    fn significant(&self) -> impl Iterator<Item = u8> + Clone {
        let parts = self.parts.into_iter().flatten().copied();
        parts.chain(std::iter::repeat_n(b'0', self.zeros)).skip_while(|digit| *digit == b'0')
    }

    /// Appends it as `BigInteger.toByteArray` and base64 have it.
    pub(super) fn base64(&self, out: &mut Vec<u8>) {
        self.with_bytes(|bytes| base64(bytes, out));
    }

    /// Its bytes in big-endian two's complement, some of which only repeat its sign.
    fn with_bytes<T>(&self, take: impl FnOnce(&[u8]) -> T) -> T {
        let digits = self.significant();
        let count = digits.clone().count();
        if count <= SHORT_DIGITS_MAX
            && let Some(number) = fold(digits.clone())
        {
            let number = if self.negative { -number } else { number };
            return take(&number.to_be_bytes());
        }
        take(&two_complement(digits, count, self.negative))
    }
}

/// The unscaled value of a decimal number in big-endian two's complement, as short as it can be.
/// `None` if the text is no such number, or not of so many digits, so many of them behind the
/// point.
pub fn unscaled(text: &str, precision: usize, scale: usize) -> Option<Vec<u8>> {
    let digits = Digits::parse(text.as_bytes())?;
    let unscaled = digits.unscaled(i32::try_from(scale).ok()?)?;
    let fits = unscaled.significant().count() <= precision;
    fits.then(|| unscaled.with_bytes(|bytes| shortest(bytes).to_vec()))
}

/// Big-endian two's complement without the bytes that only repeat the sign.
fn shortest(mut bytes: &[u8]) -> &[u8] {
    while let [sign @ (0 | 0xFF), rest @ ..] = bytes
        && rest.first().is_some_and(|next| (*next >= 0x80) == (*sign == 0xFF))
    {
        bytes = rest;
    }
    bytes
}

/// Appends a number in big-endian two's complement, without the bytes that only repeat its sign.
pub(super) fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    let mut base64 = Base64::new(out);
    for byte in shortest(bytes) {
        base64.push(*byte);
    }
    base64.end();
}

/// The bytes of a number of any length, at least one of them for its sign. A `numeric` has at most
/// 147,455 digits; that takes some ten milliseconds.
pub(super) fn two_complement(
    digits: impl Iterator<Item = u8>,
    count: usize,
    negative: bool,
) -> Vec<u8> {
    /// What 64 bits hold together with what is carried.
    const GROUP: usize = 18;
    let mut limbs: Vec<u64> = Vec::new();
    let (mut group, mut power) = (0, 1);
    for (index, digit) in digits.enumerate() {
        (group, power) = (group * 10 + u64::from(digit - b'0'), power * 10);
        // The first group is the short one.
        if (count - index - 1).is_multiple_of(GROUP) {
            multiply_add(&mut limbs, power, group);
            (group, power) = (0, 1);
        }
    }
    let mut bytes = vec![0];
    bytes.extend(limbs.iter().rev().flat_map(|limb| limb.to_be_bytes()));
    if negative {
        let mut carry = true;
        for byte in bytes.iter_mut().rev() {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    bytes
}

/// `limbs * factor + summand`, the lowest limb first.
fn multiply_add(limbs: &mut Vec<u64>, factor: u64, summand: u64) {
    let mut carry = summand;
    for limb in &mut *limbs {
        let product = u128::from(*limb) * u128::from(factor) + u128::from(carry);
        #[expect(clippy::cast_possible_truncation, reason = "two halves")]
        {
            (*limb, carry) = (product as u64, (product >> 64) as u64);
        }
    }
    if carry > 0 {
        limbs.push(carry);
    }
}
