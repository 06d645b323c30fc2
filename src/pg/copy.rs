//! The two messages a walsender sends inside `CopyData`.
//!
//! Layout: Postgres manual, "Streaming Replication Protocol", `XLogData` and
//! "Primary keepalive message".

use super::fields::{Fields, Malformed};
use crate::lsn::Lsn;

/// One `CopyData` body of a replication stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy<'a> {
    /// `XLogData`: one message of the output plugin.
    Data {
        /// For pgoutput the LSN of the change itself, and `0/0` for Relation and Type messages.
        /// Never the end of the server's log, whatever the field's name in the manual.
        at: Lsn,
        /// The plugin's message.
        change: &'a [u8],
    },
    /// A keepalive of the walsender.
    Keepalive {
        /// End of what has been decoded: every commit before it has been sent on this connection.
        end: Lsn,
        /// The server wants a status at once, or it will hang up.
        reply: bool,
    },
    /// Something newer than this protocol version, which the frame length lets us step over.
    Unknown(u8),
}

impl<'a> Copy<'a> {
    /// Reads the body of a `CopyData` message.
    pub fn parse(body: &'a [u8]) -> Result<Copy<'a>, Malformed> {
        let mut fields = Fields::of(body);
        match fields.u8()? {
            b'w' => {
                let at = fields.lsn()?;
                let _wal_end = fields.lsn()?;
                let _sent_at_us = fields.i64()?;
                Ok(Copy::Data { at, change: fields.rest() })
            }
            b'k' => {
                let end = fields.lsn()?;
                let _sent_at_us = fields.i64()?;
                let reply = fields.u8()? != 0;
                fields.end()?;
                Ok(Copy::Keepalive { end, reply })
            }
            tag => Ok(Copy::Unknown(tag)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{data, keepalive};

    #[test]
    fn reads_data_and_keepalives() {
        let at = Lsn::from_wire(1);
        assert_eq!(Copy::parse(&data(1, b"B...")), Ok(Copy::Data { at, change: b"B..." }));
        assert_eq!(Copy::parse(&data(1, b"")), Ok(Copy::Data { at, change: b"" }));
        let end = Lsn::from_wire(0x16_B374_D848);
        assert_eq!(
            Copy::parse(&keepalive(0x16_B374_D848, false)),
            Ok(Copy::Keepalive { end, reply: false })
        );
        assert_eq!(
            Copy::parse(&keepalive(0x16_B374_D848, true)),
            Ok(Copy::Keepalive { end, reply: true })
        );
        assert_eq!(Copy::parse(b"s whatever"), Ok(Copy::Unknown(b's')));
    }

    #[test]
    fn no_prefix_of_a_message_passes_for_one() {
        let whole = keepalive(9, true);
        for end in 0..whole.len() {
            assert_eq!(Copy::parse(&whole[..end]), Err(Malformed("too short")), "{end} bytes");
        }
        let longer = [whole.as_slice(), b"x"].concat();
        assert_eq!(Copy::parse(&longer), Err(Malformed("too long")));
    }
}
