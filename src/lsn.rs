//! Positions in the write-ahead log and in the stream that a slot delivers.

use std::fmt;
use std::str::FromStr;

/// A log sequence number: a byte position in the write-ahead log.
///
/// Written as Postgres writes it, `16/B374D848`: both halves in hexadecimal, with or without
/// leading zeros. Order is numeric, never textual (`0/9` comes before `0/10`). There is no
/// arithmetic on purpose: "the next LSN" does not exist, and relays that added one lost rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// `0/0`, which Postgres uses for "none" (`InvalidXLogRecPtr`).
    pub const ZERO: Lsn = Lsn(0);

    /// From the eight bytes of the wire.
    pub const fn from_wire(raw: u64) -> Lsn {
        Lsn(raw)
    }

    /// For the eight bytes of the wire, and for gauges.
    pub const fn to_wire(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text is not two hexadecimal halves with a slash between them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an LSN (expected two hexadecimal numbers like 16/B374D848)")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Lsn, ParseLsnError> {
        fn half(digits: &str) -> Option<u64> {
            let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
            if plain && (1..=8).contains(&digits.len()) {
                u64::from_str_radix(digits, 16).ok()
            } else {
                None
            }
        }
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| ParseLsnError(text.to_owned()))
    }
}

/// Where a row stands in everything a slot ever delivers.
///
/// A change's own LSN would not do: all rows of one `COPY` share it, and a transaction that
/// commits later may hold smaller ones. The commit LSN grows strictly in the order of the stream,
/// and the row number orders the rows inside one transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Grows whenever LSNs start to name other content: another timeline, another slot.
    pub epoch: u32,
    /// The LSN of the transaction's commit record, known already from BEGIN.
    pub commit: Lsn,
    /// 0-based number of the inserted row within its transaction, over all published tables.
    /// Where messages are read, each transactional one counts as a row, whatever its prefix: so
    /// the number does not depend on which of them are events.
    pub row: u32,
}

impl Position {
    /// Length of the text form in bytes.
    pub const TEXT_LEN: usize = 34;

    /// The text form. Every row has one, and a formatter would take as long for it as the rest of
    /// the row takes.
    pub fn text(self) -> [u8; Position::TEXT_LEN] {
        let mut text = [b'-'; Position::TEXT_LEN];
        let (epoch, rest) = text.split_at_mut(9);
        let (commit, row) = rest.split_at_mut(17);
        hex(u64::from(self.epoch), epoch.split_at_mut(8).0);
        hex(self.commit.0, commit.split_at_mut(16).0);
        hex(u64::from(self.row), row);
        text
    }
}

/// Fills `digits` with as many of the number, the last ones.
fn hex(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        let nibble = (number & 0xF) as u8;
        *digit = if nibble < 10 { b'0' + nibble } else { b'A' - 10 + nibble };
        number >>= 4;
    }
}

/// Fixed-width hexadecimal `epoch-commit-row`, so that the order of the texts is the order of the
/// rows: `00000001-00000016B374D848-00000003`.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.text()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a14_reads_what_it_writes_with_or_without_leading_zeros() {
        for raw in [0, 9, 0x10, 1 << 32, 0x16_B374_D848, u64::MAX] {
            let lsn = Lsn(raw);
            assert_eq!(lsn.to_string().parse(), Ok(lsn));
        }
        assert_eq!("0/0000000A".parse(), Ok(Lsn(10)));
        assert_eq!("00000001/0A".parse(), Ok(Lsn(1 << 32 | 0xA)));
    }

    #[test]
    fn a14_order_is_numeric() {
        let parsed = ["0/9", "0/10", "1/0", "10/0"].map(|t| t.parse::<Lsn>().unwrap_or_default());
        assert!(parsed.is_sorted(), "{parsed:?}");
    }

    #[test]
    fn refuses_everything_else() {
        for text in ["", "/", "0", "0/", "/0", "g/0", "0/+1", "0/123456789", "0/0/0", " 0/0"] {
            let refused = text.parse::<Lsn>();
            assert_eq!(refused, Err(ParseLsnError(text.to_owned())));
        }
    }

    #[test]
    fn text_of_a_position_sorts_as_the_position_does() {
        let position = |epoch, commit, row| Position { epoch, commit: Lsn(commit), row };
        let ordered = [
            position(0, 9, 10),
            position(0, 0x10, 2),
            position(0, 0x10, 16),
            position(0, u64::MAX, 0),
            position(1, 1, 0),
        ];
        let texts = ordered.map(|p| p.to_string());
        assert!(ordered.is_sorted() && texts.is_sorted(), "{texts:?}");
        assert!(texts.iter().all(|t| t.len() == Position::TEXT_LEN));
        let text = position(0x1234_ABCD, 0x16_B374_D848, 3).to_string();
        assert_eq!(text, "1234ABCD-00000016B374D848-00000003");
    }
}
