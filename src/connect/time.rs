//! Dates, times and intervals.

use std::io::Write as _;

use crate::pg::time::{self, Moment};

const US_PER_DAY: i64 = 86_400_000_000;

/// What Debezium's two infinite dates come to: years that its date type just holds, with the days
/// cut to 32 bits.
const INFINITE_DAYS: [i32; 2] = [-2_147_472_692, -2_147_472_691];

/// What the driver of Postgres takes for `infinity` and `-infinity`, in microseconds.
const INFINITE_US: [i64; 2] = [9_223_372_036_825_200_000, -9_223_372_036_832_400_000];

/// Days since 1970-01-01.
pub(super) fn days(text: &[u8]) -> Option<i32> {
    infinite(text, INFINITE_DAYS).or_else(|| Moment::parse(text)?.days().try_into().ok())
}

/// Milliseconds since 1970-01-01.
pub(super) fn epoch_ms(text: &[u8]) -> Option<i64> {
    infinite(text, INFINITE_US.map(|us| us / 1000)).or_else(|| time::epoch_ms(text))
}

/// Microseconds since 1970-01-01, if 64 bits hold them: up to the year 294246.
pub(super) fn epoch_us(text: &[u8]) -> Option<i64> {
    infinite(text, INFINITE_US).or_else(|| {
        let moment = Moment::parse(text)?;
        moment.days().checked_mul(US_PER_DAY)?.checked_add(moment.us)
    })
}

fn infinite<T: Copy>(text: &[u8], [future, past]: [T; 2]) -> Option<T> {
    match text {
        b"infinity" => Some(future),
        b"-infinity" => Some(past),
        _ => None,
    }
}

/// Milliseconds since midnight.
pub(super) fn ms_of_day(text: &[u8]) -> Option<i64> {
    Some(us_of_day(text)? / 1000)
}

/// Microseconds since midnight.
pub(super) fn us_of_day(text: &[u8]) -> Option<i64> {
    time::us_of_day(str::from_utf8(text).ok()?)
}

/// Appends a `timestamptz`, with so many digits behind its seconds. Infinity keeps its name.
pub(super) fn zoned_timestamp(text: &[u8], digits: u8, out: &mut Vec<u8>) -> Option<()> {
    if let b"infinity" | b"-infinity" = text {
        out.extend_from_slice(text);
        return Some(());
    }
    let moment = Moment::parse(text)?;
    date(moment, out);
    out.push(b'T');
    clock(moment.us, out);
    let digits = digits.min(6);
    if digits > 0 {
        let fraction = moment.us % 1_000_000 / 10_i64.pow(6 - u32::from(digits));
        let _ = write!(out, ".{fraction:0width$}", width = usize::from(digits));
    }
    out.push(b'Z');
    Some(())
}

/// Appends a `date` as ISO 8601 has it. Infinity keeps its name.
pub(crate) fn iso_date(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if let b"infinity" | b"-infinity" = text {
        out.extend_from_slice(text);
    } else {
        date(Moment::parse(text)?, out);
    }
    Some(())
}

/// Appends a point in time as ISO 8601 has it, without a zone, and with no more digits behind its
/// seconds than are needed. Infinity keeps its name.
pub(crate) fn iso(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if let b"infinity" | b"-infinity" = text {
        out.extend_from_slice(text);
        return Some(());
    }
    iso_moment(Moment::parse(text)?, out);
    Some(())
}

/// The same of one that has been read.
pub(crate) fn iso_moment(moment: Moment, out: &mut Vec<u8>) {
    date(moment, out);
    out.push(b'T');
    clock(moment.us, out);
    fraction(moment.us, out);
}

/// Appends a `timetz`, with no more digits behind its seconds than are needed.
pub(crate) fn zoned_time(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let text = str::from_utf8(text).ok()?;
    let (time, zone) = text.split_at_checked(text.rfind(['+', '-'])?)?;
    let west = zone.starts_with('-');
    let mut parts = zone.get(1..)?.splitn(3, ':').map(|part| part.parse::<u8>().ok());
    let hours = i64::from(parts.next()??);
    let minutes = i64::from(parts.next().unwrap_or(Some(0))?);
    let seconds = i64::from(parts.next().unwrap_or(Some(0))?);
    let zone = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000;
    let us = time::us_of_day(time)? + if west { zone } else { -zone };
    let us = us.rem_euclid(US_PER_DAY);
    clock(us, out);
    fraction(us, out);
    out.push(b'Z');
    Some(())
}

/// Appends the day.
fn date(Moment { year, month, day, .. }: Moment, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = match year {
        ..0 => write!(out, "{year:05}"),
        0..=9999 => write!(out, "{year:04}"),
        _ => write!(out, "+{year}"),
    };
    let _ = write!(out, "-{month:02}-{day:02}");
}

/// Appends the whole seconds.
fn clock(us: i64, out: &mut Vec<u8>) {
    let seconds = us / 1_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    // Writing to memory does not fail.
    let _ = write!(out, "{hours:02}:{minutes:02}:{:02}", seconds % 60);
}

/// Appends what there is of a second's fraction, without zeros at its end.
fn fraction(us: i64, out: &mut Vec<u8>) {
    let (mut fraction, mut width) = (us % 1_000_000, 6);
    if fraction > 0 {
        while fraction % 10 == 0 {
            (fraction, width) = (fraction / 10, width - 1);
        }
        // Writing to memory does not fail.
        let _ = write!(out, ".{fraction:0width$}");
    }
}

/// Microseconds of an interval like `1 year 2 mons -3 days +04:05:06.789`. A month has a twelfth
/// of 365.25 days; Debezium computes in floats, and so do we, in the same order.
pub(super) fn interval_us(text: &[u8]) -> Option<i64> {
    const DAYS_PER_MONTH: f64 = 365.25 / 12.0;
    let text = str::from_utf8(text).ok()?;
    let (mut months, mut days, mut clock) = (0, 0, [0.0; 3]);
    let mut words = text.split(' ');
    while let Some(word) = words.next() {
        if word.contains(':') {
            clock = clock_of(word)?;
            if words.next().is_some() {
                return None;
            }
            break;
        }
        let number: i32 = word.parse().ok()?;
        match words.next()? {
            "year" | "years" => months = number.checked_mul(12)?,
            "mon" | "mons" => months = number.checked_add(months)?,
            "day" | "days" => days = number,
            _ => return None,
        }
    }
    let days = f64::from(months) * DAYS_PER_MONTH + f64::from(days);
    let [hours, minutes, seconds] = clock;
    let seconds = (((days * 24.0 + hours) * 60.0) + minutes) * 60.0 + seconds;
    #[expect(clippy::cast_possible_truncation, reason = "to zero, as Java does")]
    Some((seconds * 1e6) as i64)
}

/// Hours, minutes and seconds of a word like `-04:05:06.789`; hours may be many.
fn clock_of(word: &str) -> Option<[f64; 3]> {
    let sign = if word.starts_with('-') { -1.0 } else { 1.0 };
    let (hours, us) = time::clock(word.trim_start_matches(['+', '-']))?;
    let (hours, us) = (u32::try_from(hours).ok()?, u32::try_from(us).ok()?);
    let (minutes, us) = (us / 60_000_000, us % 60_000_000);
    let seconds = f64::from(us / 1_000_000) + f64::from(us % 1_000_000) / 1e6;
    Some([f64::from(hours), f64::from(minutes), seconds].map(|part| sign * part))
}
