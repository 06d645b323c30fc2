//! The splitter, the read buffer in front of it, and the messages inside `CopyData`.
//!
//! An input is a list of chunk sizes and a byte stream. What comes out must be what a naive reader
//! finds in the whole stream, however it is cut up.

use std::cell::OnceCell;
use std::io::Write as _;
use std::os::unix::net::UnixStream;

use tokio::runtime::{Builder, Runtime};
use walrelay::lsn::Lsn;
use walrelay::pg::copy::Copy;
use walrelay::pg::frame::{FRAME_LEN_MAX, Frame, Framed, frame as cut};
use walrelay::pg::socket::Stream;
use walrelay::pg::wire::Wire;

use super::input::Input;
use super::testing::{data as xlog_data, keepalive};

/// No stream is longer: beyond the read buffer of 512 KiB, so that it grows and shrinks.
const STREAM_LEN_MAX: usize = 1280 << 10;

/// No stream comes in more chunks than about so many.
const CHUNKS_MAX: usize = 200;

/// A header: a tag and a length.
const HEADER_LEN: usize = 5;

/// The target.
pub fn frame(data: &[u8]) {
    let mut input = Input::of(data);
    let through_a_socket = input.below(8) == 7;
    let chunks: Vec<usize> = (0..=input.below(4)).map(|_| usize::from(input.u16())).collect();
    let bytes = stream(input, through_a_socket);
    let expected = naive(&bytes);
    // A chunk of no bytes is the whole rest.
    let least = bytes.len() / CHUNKS_MAX;
    let chunks = chunks.iter().map(|&len| if len == 0 { usize::MAX } else { len.max(least) });
    let chunks = chunks.cycle();
    check_splitter(&bytes, chunks.clone(), &expected);
    if through_a_socket {
        check_wire(&bytes, chunks, &expected);
    }
    for (_, body) in &expected.frames {
        check_copy(body);
    }
}

/// Pieces: bytes as they are, frames around some bytes, and frames too long to stand in an input,
/// which only the read buffer minds.
fn stream(mut input: Input<'_>, long: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !input.is_empty() && bytes.len() < STREAM_LEN_MAX {
        match input.below(8) {
            0 => bytes.extend_from_slice(input.bytes()),
            1..5 => put(&mut bytes, b'd', input.bytes()),
            5 => put(&mut bytes, input.byte(), input.bytes()),
            6 => {
                let len = usize::from(input.u16()) * 16;
                put(&mut bytes, b'd', &vec![b'w'; if long { len } else { len % 512 }]);
            }
            _ => bytes.extend_from_slice(input.clone().rest()),
        }
    }
    bytes.truncate(STREAM_LEN_MAX);
    bytes
}

fn put(bytes: &mut Vec<u8>, tag: u8, body: &[u8]) {
    let len = u32::try_from(body.len() + 4).unwrap();
    bytes.push(tag);
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(body);
}

/// What there is in a stream.
#[derive(Debug, PartialEq, Eq)]
struct Found<'a> {
    frames: Vec<(u8, &'a [u8])>,
    /// Whether it ends in a length that no frame has.
    bad: bool,
    /// Bytes in whole frames.
    used: usize,
}

fn naive(bytes: &[u8]) -> Found<'_> {
    let mut found = Found { frames: Vec::new(), bad: false, used: 0 };
    while let Some((header, rest)) = bytes[found.used..].split_at_checked(HEADER_LEN) {
        let len = i64::from(i32::from_be_bytes(header[1..].try_into().unwrap()));
        if !(4..=1 << 30).contains(&len) {
            found.bad = true;
            break;
        }
        let len = usize::try_from(len - 4).unwrap();
        let Some(body) = rest.get(..len) else { break };
        found.frames.push((header[0], body));
        found.used += HEADER_LEN + len;
    }
    found
}

fn check_splitter(bytes: &[u8], chunks: impl Iterator<Item = usize>, expected: &Found<'_>) {
    let mut got = Found { frames: Vec::new(), bad: false, used: 0 };
    let mut came = 0_usize;
    for chunk in chunks {
        came = bytes.len().min(came.saturating_add(chunk));
        // Nothing is asked again as long as the splitter knows that there are too few bytes.
        let mut needed = 0;
        while came - got.used >= needed {
            let unread = &bytes[got.used..came];
            match cut(unread) {
                Ok(Framed::Complete { frame: Frame { tag, body }, len }) => {
                    assert_eq!((tag, len), (unread[0], HEADER_LEN + body.len()));
                    assert!(std::ptr::eq(body, &raw const unread[HEADER_LEN..len]));
                    assert_eq!(cut(&unread[..len]), cut(unread), "no need of what is behind it");
                    let less = cut(&unread[..len - 1]);
                    assert_eq!(less, Ok(Framed::Incomplete { needed: len }), "all of it");
                    got.frames.push((tag, &bytes[got.used + HEADER_LEN..got.used + len]));
                    got.used += len;
                }
                Ok(Framed::Incomplete { needed: more }) => {
                    assert!(more > unread.len() && more <= FRAME_LEN_MAX + 1);
                    assert!(unread.len() >= HEADER_LEN || more == HEADER_LEN);
                    needed = more;
                }
                Err(bad) => {
                    assert_eq!(bad.tag, unread[0]);
                    assert_eq!(bad.len.to_be_bytes(), unread[1..HEADER_LEN]);
                    got.bad = true;
                    break;
                }
            }
        }
        if got.bad || came == bytes.len() {
            break;
        }
    }
    assert_eq!(got, *expected);
}

thread_local! {
    static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() };
}

/// The same from a socket, through the read buffer.
fn check_wire(bytes: &[u8], chunks: impl Iterator<Item = usize>, expected: &Found<'_>) {
    RUNTIME.with(|runtime| {
        let runtime =
            runtime.get_or_init(|| Builder::new_current_thread().enable_io().build().unwrap());
        runtime.block_on(through_wire(bytes, chunks, expected));
    });
}

async fn through_wire(bytes: &[u8], chunks: impl Iterator<Item = usize>, expected: &Found<'_>) {
    let (mut theirs, ours) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let ours = tokio::net::UnixStream::from_std(ours).unwrap();
    // What came with the answer to START_REPLICATION.
    let mut chunks = chunks.map(|len| len.min(1 << 15));
    let first = bytes.len().min(chunks.next().unwrap_or_default() % 100);
    let mut wire = Wire::new(Stream::Unix(ours), &bytes[..first]);
    let (mut sent, mut read, mut used, mut frames) = (first, first, 0, 0);
    loop {
        loop {
            let peeked = wire.peek();
            if let Ok(Some((Frame { tag, body }, len))) = peeked {
                assert_eq!(expected.frames.get(frames), Some(&(tag, body)));
                wire.consume(len);
                used += len;
                frames += 1;
            } else {
                let bad = peeked.is_err();
                assert!(!bad || expected.bad && used == expected.used);
                if bad {
                    return;
                }
                break;
            }
        }
        if read == bytes.len() {
            break;
        }
        if sent == read {
            let chunk = chunks.next().unwrap_or(1);
            let more = &bytes[sent..bytes.len().min(sent + chunk)];
            theirs.write_all(more).unwrap();
            sent += more.len();
        }
        let came = wire.turn(true).await.unwrap();
        assert!(came > 0 && came <= sent - read, "what came was sent");
        read += came;
    }
    assert_eq!((used, frames, expected.bad), (expected.used, expected.frames.len(), false));
}

/// A body is read as its layout says or not at all.
fn check_copy(body: &[u8]) {
    let u64_at = |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().unwrap());
    let parsed = Copy::parse(body);
    match body.first() {
        None => assert!(parsed.is_err()),
        Some(b'w') if body.len() < 25 => assert!(parsed.is_err()),
        Some(b'w') => {
            let (at, change) = (u64_at(1), &body[25..]);
            assert_eq!(parsed, Ok(Copy::Data { at: Lsn::from_wire(at), change }));
            assert_eq!(Copy::parse(&xlog_data(at, change)), parsed);
        }
        Some(b'k') if body.len() != 18 => assert!(parsed.is_err()),
        Some(b'k') => {
            let (end, reply) = (u64_at(1), body[17] != 0);
            assert_eq!(parsed, Ok(Copy::Keepalive { end: Lsn::from_wire(end), reply }));
            assert_eq!(Copy::parse(&keepalive(end, reply)), parsed);
        }
        Some(&tag) => assert_eq!(parsed, Ok(Copy::Unknown(tag))),
    }
}
