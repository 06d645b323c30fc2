//! Reads the fields of a message, big-endian, in the order the protocol lists them.

use crate::lsn::Lsn;

/// A message ended too early, went on too long or held what it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub &'static str);

/// The bytes of a message that have not been read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// All of `bytes`, unread.
    pub fn of(bytes: &'a [u8]) -> Fields<'a> {
        Fields { rest: bytes }
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed("too short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed("too short"))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A 16-bit count, which the protocol never sends negative.
    pub fn count(&mut self) -> Result<u16, Malformed> {
        let count = i16::from_be_bytes(self.array()?);
        u16::try_from(count).map_err(|_| Malformed("negative count"))
    }

    /// A signed 32-bit integer.
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    /// An unsigned 32-bit integer: an OID or a transaction id.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A signed 64-bit integer: a timestamp in microseconds since 2000-01-01 UTC.
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    /// An LSN.
    pub fn lsn(&mut self) -> Result<Lsn, Malformed> {
        self.array().map(u64::from_be_bytes).map(Lsn::from_wire)
    }

    /// Bytes behind a 32-bit length.
    pub fn sized(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.i32()?).map_err(|_| Malformed("negative length"))?;
        self.take(len)
    }

    /// Bytes up to a NUL.
    pub fn terminated(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.rest.iter().position(|&b| b == 0).ok_or(Malformed("no end of text"))?;
        let bytes = self.take(end)?;
        self.take(1)?;
        Ok(bytes)
    }

    /// Text up to a NUL. The session asks for UTF-8, so all names are; in a
    /// `SQL_ASCII` database they may be anything, and then this is an error.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.terminated()?).map_err(|_| Malformed("a name is not UTF-8"))
    }

    /// Whatever is left, as it is.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Checks that nothing is left: a longer message than expected means we misread it.
    pub fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("too long")) }
    }
}
