//! Times in Postgres' text form, as the session pins it: ISO, in UTC.

const MS_PER_DAY: i64 = 86_400_000;
const US_PER_DAY: i64 = 86_400_000_000;

/// Milliseconds since 1970-01-01 UTC; what is finer is cut off. `None` if it is no point in time
/// that could be written so: `infinity`, or another text.
pub fn epoch_ms(text: &[u8]) -> Option<i64> {
    let moment = Moment::parse(text)?;
    moment.days().checked_mul(MS_PER_DAY)?.checked_add(moment.us / 1000)
}

/// The same of a text as JSON has it (ISO 8601, RFC 3339): a `T` or a space before the time, and
/// any zone behind it; without one it is UTC.
pub fn iso_ms(text: &[u8]) -> Option<i64> {
    let (moment, ms_ahead) = iso(text)?;
    let ms = moment.days().checked_mul(MS_PER_DAY)?.checked_add(moment.us / 1000)?;
    ms.checked_sub(ms_ahead)
}

/// The same in microseconds.
pub fn iso_us(text: &[u8]) -> Option<i64> {
    let (moment, ms_ahead) = iso(text)?;
    let us = moment.days().checked_mul(US_PER_DAY)?.checked_add(moment.us)?;
    us.checked_sub(ms_ahead * 1000)
}

/// Such a text, and how far its zone is ahead of UTC, in milliseconds.
fn iso(text: &[u8]) -> Option<(Moment, i64)> {
    let text = str::from_utf8(text).ok()?;
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, "00:00:00"));
    let zone_at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (time, zone) = time.split_at_checked(zone_at)?;
    let moment = Moment { us: us_of_day(time)?, ..Moment::parse(date.as_bytes())? };
    Some((moment, ms_ahead(zone)?))
}

/// How far a zone like `+02`, `-0330` or `+05:30` is ahead of UTC, in milliseconds.
fn ms_ahead(zone: &str) -> Option<i64> {
    let sign = match zone.chars().next() {
        None | Some('Z' | 'z') => return (zone.len() <= 1).then_some(0),
        Some('-') => -1,
        Some(_) => 1,
    };
    let zone = zone.get(1..)?;
    let (hours, minutes) = match zone.len() {
        4 => zone.split_at_checked(2)?,
        _ => zone.split_once(':').unwrap_or((zone, "0")),
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 24 && minutes <= 59).then_some(sign * (hours * 60 + minutes) * 60_000)
}

/// A point in time in UTC; without a time of the day, midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// In the Gregorian calendar, which Postgres extends to all times: 0 is 1 BC.
    pub year: i64,
    /// `1..=12`.
    pub month: i64,
    /// `1..=31`.
    pub day: i64,
    /// Microseconds since midnight; what is finer is cut off.
    pub us: i64,
}

impl Moment {
    /// Reads a text. The forms are those of `EncodeDateTime` in Postgres' datetime.c:
    /// `2026-02-03 04:05:06.789+00`, the fraction and the zone only if there are any, years of
    /// more than four digits, ` BC` behind everything; a date is the same without a time.
    pub fn parse(text: &[u8]) -> Option<Moment> {
        let text = str::from_utf8(text).ok()?;
        let (text, before_christ) = match text.strip_suffix(" BC") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let text = text.strip_suffix("+00").unwrap_or(text);
        let (date, time) = text.split_once(' ').unwrap_or((text, "00:00:00"));
        let mut parts = date.splitn(3, '-').map(number);
        let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        // There is no year 0: 1 BC is the year before 1.
        let year = if before_christ { 1 - year } else { year };
        Some(Moment { year, month, day, us: us_of_day(time)? })
    }

    /// The point in time that is so many microseconds behind 1970-01-01. The reverse of
    /// [`days`](Moment::days).
    pub fn of_epoch_us(us: i64) -> Moment {
        let days = us.div_euclid(US_PER_DAY) + 719_468;
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year + era * 400 + i64::from(month <= 2);
        Moment { year, month, day, us: us.rem_euclid(US_PER_DAY) }
    }

    /// Days since 1970-01-01. A year begins with March here, so that the leap day is its last.
    pub fn days(self) -> i64 {
        let year = if self.month <= 2 { self.year - 1 } else { self.year };
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = (153 * ((self.month + 9) % 12) + 2) / 5 + self.day - 1;
        let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
        era * 146_097 + of_era - 719_468
    }
}

/// Microseconds since midnight of a time like `04:05:06.789`; what is finer is cut off. A day may
/// end with `24:00:00`.
pub fn us_of_day(time: &str) -> Option<i64> {
    let (hours, us) = clock(time)?;
    (hours <= 24).then_some(hours * 3_600_000_000 + us)
}

/// Hours, which may be more than a day has, and microseconds of the last one.
pub fn clock(time: &str) -> Option<(i64, i64)> {
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = whole.splitn(3, ':').map(number);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if minute > 59 || second > 60 {
        return None;
    }
    // Six digits of it are microseconds.
    number(fraction)?;
    let us = fraction.bytes().chain(*b"00000").take(6);
    let us = us.fold(0, |us, digit| us * 10 + i64::from(digit - b'0'));
    Some((hour, (minute * 60 + second) * 1_000_000 + us))
}

/// Digits and nothing else, few enough for what is computed with them.
fn number(text: &str) -> Option<i64> {
    let digits = text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_postgres_are_read_to_the_millisecond() {
        for (text, ms) in [
            ("1970-01-01 00:00:00", 0),
            ("1970-01-01 00:00:00+00", 0),
            ("1970-01-01", 0),
            ("2024-02-29 23:59:59.999999", 1_709_251_199_999),
            ("2024-03-01 00:00:00.5+00", 1_709_251_200_500),
            ("2000-01-01", 946_684_800_000),
            ("1969-12-31 23:59:59.999", -1),
            ("12024-01-01 00:00:00", 317_273_587_200_000),
            ("0001-01-01 00:00:00 BC", -62_167_219_200_000),
            ("0044-03-15 BC", -63_517_824_000_000),
            ("294276-12-31 23:59:59.999999", 9_224_318_015_999_999),
        ] {
            assert_eq!(epoch_ms(text.as_bytes()), Some(ms), "{text}");
        }
    }

    #[test]
    fn times_of_json_are_read_in_any_zone() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01", 0),
            ("1970-01-01T00:00:00.5", 500),
            ("1970-01-01T02:00:00+02:00", 0),
            ("1969-12-31t20:30:00.001-0330", 1),
            ("1970-01-01 01:00:00+01", 0),
            ("2024-02-29T23:59:59.999999+00:00", 1_709_251_199_999),
        ] {
            assert_eq!(iso_ms(text.as_bytes()), Some(ms), "{text}");
            assert_eq!(iso_us(text.as_bytes()).map(|us| us.div_euclid(1000)), Some(ms), "{text}");
        }
        for text in [
            "",
            "x",
            "1970-01-01T",
            "1970-01-01T00:00:00+",
            "1970-01-01T00:00:00Zx",
            "1970-01-01T00:00:00+99:00",
            "1970-01-01T00:00:00+1:x",
            "1970-01-01T00:00:00+é1",
            "infinity",
        ] {
            assert_eq!(iso_ms(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn microseconds_and_moments_are_the_same() {
        let day = |year, month, day| Moment { year, month, day, us: 0 };
        assert_eq!(Moment::of_epoch_us(0), day(1970, 1, 1));
        assert_eq!(Moment::of_epoch_us(-US_PER_DAY), day(1969, 12, 31));
        for days in (-800_000..3_000_000).step_by(13).chain([11_016, 11_017, -719_468, -719_469]) {
            let moment = Moment::of_epoch_us(days * US_PER_DAY + 7);
            assert_eq!((moment.days(), moment.us), (days, 7), "{moment:?}");
            let (year, month, day) = (moment.year, moment.month, moment.day);
            if year > 0 {
                let text = format!("{year:04}-{month:02}-{day:02} 00:00:00.000007");
                assert_eq!(Moment::parse(text.as_bytes()), Some(moment));
            }
        }
        for us in [i64::MIN, i64::MAX] {
            assert!((1..=12).contains(&Moment::of_epoch_us(us).month));
        }
    }

    #[test]
    fn what_is_no_point_in_time_is_none() {
        for text in [
            "",
            "infinity",
            "-infinity",
            "12:00:00",
            "2024-13-01",
            "2024-00-01",
            "2024-01-32",
            "2024-01",
            "2024-01-01 25:00:00",
            "2024-01-01 1:2",
            "2024-01-01 00:00:00.x",
            "2024-01-01 00:00:00+02",
            "x",
            "9999999999-01-01",
            "2024-01-01T00:00:00",
            "1e3-01-01",
        ] {
            assert_eq!(epoch_ms(text.as_bytes()), None, "{text}");
        }
        assert_eq!(epoch_ms(b"\xff"), None);
    }
}
