//! Cuts the byte stream of a Postgres connection into messages.

use super::fields::Fields;

/// The largest frame Postgres can send: a message buffer of its own ends at 1 GiB
/// (`MaxAllocSize`). A length beyond it is garbage, not a row.
pub const FRAME_LEN_MAX: usize = 1 << 30;

/// Tag and length, which stand before every body.
const HEADER_LEN: usize = 5;

/// One message as it came: the tag byte and the body behind the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What kind of message this is, in the letters of the protocol.
    pub tag: u8,
    /// All bytes behind the length field.
    pub body: &'a [u8],
}

/// What the bytes at hand amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed<'a> {
    /// Too few bytes: a frame can be cut once there are `needed` of them.
    Incomplete {
        /// Length of the whole frame, or of its header while that is all we can tell.
        needed: usize,
    },
    /// A frame, which takes up the first `len` bytes.
    Complete {
        /// The frame.
        frame: Frame<'a>,
        /// Bytes to consume: header and body.
        len: usize,
    },
}

/// The length field holds what no message can have; the connection is out of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message {:?} announces a length of {len} bytes", char::from(*tag))]
pub struct BadFrame {
    /// The tag byte in front of the length.
    pub tag: u8,
    /// The length as announced, which counts itself.
    pub len: i32,
}

/// Cuts the first frame off `bytes`, which begin at a frame's tag.
pub fn frame(bytes: &[u8]) -> Result<Framed<'_>, BadFrame> {
    let mut header = Fields::of(bytes);
    let (Ok(tag), Ok(len)) = (header.u8(), header.i32()) else {
        return Ok(Framed::Incomplete { needed: HEADER_LEN });
    };
    // The length counts itself, not the tag.
    let body_len = match usize::try_from(len) {
        Ok(len @ 4..=FRAME_LEN_MAX) => len - 4,
        _ => return Err(BadFrame { tag, len }),
    };
    let len = HEADER_LEN + body_len;
    match header.take(body_len) {
        Ok(body) => Ok(Framed::Complete { frame: Frame { tag, body }, len }),
        Err(_) => Ok(Framed::Incomplete { needed: len }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_is_incomplete_and_everything_longer_gives_the_same_frame() {
        let bytes = b"d\0\0\0\x09helloZ\0\0\0\x05I";
        for end in 0..bytes.len() {
            let needed = if end < 5 { 5 } else { 10 };
            let expected = if end < 10 {
                Framed::Incomplete { needed }
            } else {
                Framed::Complete { frame: Frame { tag: b'd', body: b"hello" }, len: 10 }
            };
            assert_eq!(frame(&bytes[..end]), Ok(expected), "prefix of {end} bytes");
        }
    }

    #[test]
    fn an_empty_body_is_a_frame() {
        let empty = Framed::Complete { frame: Frame { tag: b'c', body: b"" }, len: 5 };
        assert_eq!(frame(b"c\0\0\0\x04"), Ok(empty));
    }

    #[test]
    fn an_impossible_length_is_refused_before_anything_is_allocated() {
        for len in [0_i32, 3, -1, i32::MIN, i32::MAX, 1 + (1 << 30)] {
            let bytes = [b"d".as_slice(), &len.to_be_bytes()].concat();
            assert_eq!(frame(&bytes), Err(BadFrame { tag: b'd', len }));
        }
    }
}
