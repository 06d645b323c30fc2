//! The wire over a pair of Unix sockets, whose other end is the test.

use std::pin::pin;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::testing::message;

fn pair(rest: &[u8]) -> (Wire, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Wire::new(Stream::Unix(ours), rest), theirs)
}

/// All frames that have come as a whole, consumed.
fn frames(wire: &mut Wire) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some((Frame { tag, body }, len)) = wire.peek().unwrap() {
        assert_eq!(len, body.len() + 5);
        frames.push(message(tag, body));
        wire.consume(len);
    }
    frames
}

/// Reads until so many bytes have come; frames may complete on the way.
async fn read(wire: &mut Wire, mut bytes: usize) -> Vec<Vec<u8>> {
    let mut came = frames(wire);
    while bytes > 0 {
        let read = wire.turn(true).await.unwrap();
        assert!(read > 0, "the stream ended {bytes} bytes too early");
        bytes -= read;
        came.extend(frames(wire));
    }
    came
}

/// Polls a future so many times, then drops it.
async fn poll_times<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Whether bytes of a frame are waiting that has not come as a whole.
fn is_inside_frame(wire: &Wire) -> bool {
    wire.read.start < wire.read.end
}

#[tokio::test]
async fn frames_arrive_whole_wherever_they_are_split() {
    let sent = [message(b'd', b"first"), message(b'c', b""), message(b'd', &[b'x'; 40])];
    let bytes = sent.concat();
    for split in 0..=bytes.len() {
        let (before, behind) = bytes.split_at(split);
        for rest in [[].as_slice(), before] {
            let (mut wire, mut peer) = pair(rest);
            let now = if rest.is_empty() { before } else { [].as_slice() };
            peer.write_all(now).await.unwrap();
            let mut came = read(&mut wire, now.len()).await;
            let whole = came.concat().len();
            assert_eq!(is_inside_frame(&wire), whole < split, "split at {split}");
            peer.write_all(behind).await.unwrap();
            came.extend(read(&mut wire, behind.len()).await);
            assert_eq!(came, sent, "split at {split}");
            assert!(!is_inside_frame(&wire));
        }
    }
}

#[tokio::test]
async fn frames_roll_through_the_buffer_byte_for_byte() {
    let frame = |number: usize| {
        let byte = u8::try_from(number % 251).unwrap();
        message(b'd', &vec![byte; number * 7919 % 30_000])
    };
    let sent: Vec<_> = (0..300).map(frame).collect();
    let bytes = sent.concat();
    assert!(bytes.len() > 8 * BUFFER_LEN);
    // What was read together with the answer to START_REPLICATION may be more than the buffer.
    for rest_len in [0, 1, BUFFER_LEN - 1, BUFFER_LEN, BUFFER_LEN + 1, 3 * BUFFER_LEN] {
        let (rest, behind) = bytes.split_at(rest_len);
        let (mut wire, mut peer) = pair(rest);
        let behind = behind.to_vec();
        let coming = behind.len();
        let writer = tokio::spawn(async move { peer.write_all(&behind).await });
        assert!(read(&mut wire, coming).await == sent, "rest of {rest_len} bytes");
        writer.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_large_frame_makes_the_buffer_grow_and_its_memory_is_given_back() {
    let large = message(b'd', &vec![7; 3_000_000]);
    let small = message(b'k', b"small");
    // The next frames wait behind the large one, or come later.
    for behind in [0, 2 * large.len() / small.len()] {
        let (mut wire, mut peer) = pair(b"");
        let bytes = [large.clone(), small.repeat(behind)].concat();
        let coming = bytes.len();
        let writer = tokio::spawn(async move {
            peer.write_all(&bytes).await.unwrap();
            peer
        });
        let came = read(&mut wire, coming).await;
        assert!(came[0] == large && came[1..].iter().all(|frame| *frame == small));
        assert_eq!(came.len(), 1 + behind);
        let mut peer = writer.await.unwrap();
        peer.write_all(&small).await.unwrap();
        assert_eq!(read(&mut wire, small.len()).await, std::slice::from_ref(&small));
        assert_eq!(wire.read.bytes.len(), BUFFER_LEN);
        assert!(wire.read.bytes.capacity() < 2 * BUFFER_LEN);
    }
}

#[tokio::test]
async fn a_promised_length_takes_no_memory_before_its_bytes_come() {
    let (mut wire, mut peer) = pair(b"");
    peer.write_all(&[b'd', 0x40, 0, 0, 0]).await.unwrap();
    assert!(read(&mut wire, 5).await.is_empty());
    let writer = tokio::spawn(async move {
        peer.write_all(&vec![0; 1_000_000]).await.unwrap();
        peer
    });
    let mut came = 5;
    while came < 1_000_005 {
        came += wire.turn(true).await.unwrap();
        assert_eq!(wire.peek(), Ok(None));
        assert!(wire.read.bytes.len() <= BUFFER_LEN.max(2 * came), "after {came} bytes");
    }
    assert!(is_inside_frame(&wire));
    drop(writer.await.unwrap());
}

#[tokio::test]
async fn a_frame_is_there_until_it_is_consumed() {
    let sent = [message(b'd', b"one"), message(b'd', b"two")];
    let (mut wire, _peer) = pair(&sent.concat());
    for _ in 0..3 {
        assert_eq!(wire.peek(), Ok(Some((Frame { tag: b'd', body: b"one" }, 8))));
    }
    wire.consume(8);
    assert_eq!(wire.peek(), Ok(Some((Frame { tag: b'd', body: b"two" }, 8))));
    wire.consume(usize::MAX);
    assert_eq!(wire.peek(), Ok(None));
    assert!(!is_inside_frame(&wire));
}

#[tokio::test]
async fn a_full_buffer_is_not_the_end_of_the_stream() {
    let frame = message(b'd', &[7; 1019]);
    let (mut wire, mut peer) = pair(&frame.repeat(BUFFER_LEN / frame.len()));
    assert_eq!(wire.read.end - wire.read.start, BUFFER_LEN);
    peer.write_all(&frame).await.unwrap();
    assert!(wire.peek().unwrap().is_some(), "whole frames wait, and nobody consumes them");
    assert!(poll_times(wire.turn(true), 10).await.is_none());
    assert_eq!(read(&mut wire, frame.len()).await.len(), BUFFER_LEN / frame.len() + 1);
}

#[tokio::test]
async fn the_end_of_the_stream_is_zero_bytes() {
    for (bytes, inside) in [(vec![], false), (b"d\0\0\0\x09he".to_vec(), true)] {
        let (mut wire, mut peer) = pair(b"");
        peer.write_all(&bytes).await.unwrap();
        drop(peer);
        read(&mut wire, bytes.len()).await;
        for _ in 0..2 {
            assert_eq!(wire.turn(true).await.unwrap(), 0);
        }
        assert_eq!(is_inside_frame(&wire), inside);
        wire.queue(b"into the void");
        assert!(wire.turn(false).await.is_err());
    }
}

#[tokio::test]
async fn a_bad_frame_stays_bad() {
    let (mut wire, mut peer) = pair(&message(b'd', b"good"));
    peer.write_all(b"d\0\0\0\0more").await.unwrap();
    assert_eq!(wire.turn(true).await.unwrap(), 9);
    assert!(wire.peek().unwrap().is_some());
    wire.consume(9);
    for _ in 0..3 {
        assert_eq!(wire.peek(), Err(BadFrame { tag: b'd', len: 0 }));
    }
}

/// A server that sends frames in pieces and reads statuses meanwhile; returns what it has read.
async fn serve(peer: UnixStream, sent: Vec<u8>) -> Vec<u8> {
    let (mut from, mut to) = peer.into_split();
    let writer = tokio::spawn(async move {
        for piece in sent.chunks(7) {
            to.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        to
    });
    let mut read = Vec::new();
    from.read_to_end(&mut read).await.unwrap();
    drop(writer.await.unwrap());
    read
}

#[tokio::test]
async fn a_turn_can_be_dropped_at_any_point() {
    let sent: Vec<_> = (0..100).map(|number| message(b'd', &[number; 20])).collect();
    for times in 0..8 {
        let (mut wire, peer) = pair(b"");
        let server = tokio::spawn(serve(peer, sent.concat()));
        let (mut came, mut queued) = (Vec::new(), Vec::new());
        for number in 0..200_u8 {
            if wire.is_writable() {
                queued.extend([number; 39]);
                wire.queue(&[number; 39]);
            }
            poll_times(wire.turn(number % 3 > 0), times).await.transpose().unwrap();
            came.extend(frames(&mut wire));
        }
        while came.len() < sent.len() {
            assert!(wire.turn(true).await.unwrap() > 0);
            came.extend(frames(&mut wire));
        }
        assert_eq!(came, sent, "dropped after {times} polls");
        while !wire.is_writable() {
            poll_times(wire.turn(false), 1).await;
        }
        drop(wire);
        assert!(server.await.unwrap() == queued, "dropped after {times} polls");
    }
}

#[tokio::test]
async fn a_status_goes_out_while_nothing_is_read() {
    let (mut wire, peer) = pair(b"");
    // The server sends until it is blocked.
    while peer.try_write(&[0; 10_000]).is_ok() {}
    let mut peer = peer;
    for number in 0..3 {
        wire.queue(&[number; 39]);
        let mut status = [0; 39];
        tokio::select! {
            ended = wire.turn(false) => panic!("{ended:?}"),
            read = peer.read_exact(&mut status) => assert_eq!(read.unwrap(), 39),
        }
        assert_eq!(status, [number; 39]);
        assert!(wire.is_writable());
    }
    assert!(!is_inside_frame(&wire), "nothing was read");
}

#[tokio::test]
async fn e12_rows_come_in_while_the_server_does_not_read() {
    let (mut wire, mut peer) = pair(b"");
    let status = vec![7; 4_000_000];
    assert!(wire.is_writable());
    wire.queue(&status);
    for number in 0..10 {
        let frame = message(b'd', &[number; 1000]);
        peer.write_all(&frame).await.unwrap();
        assert_eq!(read(&mut wire, frame.len()).await, [frame]);
        assert!(!wire.is_writable());
    }
    wire.queue(b"behind it");
    let mut read = vec![0; status.len() + 9];
    tokio::select! {
        ended = wire.turn(false) => panic!("{ended:?}"),
        read = peer.read_exact(&mut read) => { read.unwrap(); }
    }
    assert!(read == [status, b"behind it".to_vec()].concat());
    assert!(wire.is_writable());
}

#[tokio::test]
async fn many_messages_in_one_read_are_one_read() {
    let (mut wire, mut peer) = pair(&[]);
    let bytes = message(b'd', b"row").repeat(100);
    peer.write_all(&bytes).await.unwrap();
    assert_eq!(read(&mut wire, bytes.len()).await.len(), 100);
    assert_eq!((wire.take_reads(), wire.take_reads()), (1, 0));
}

/// A peer that sends something and then resets the connection.
#[tokio::test]
async fn what_came_before_an_error_is_taken_first() {
    for _ in 0..50 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        let mut wire = Wire::new(Stream::Tcp(ours), &[]);
        let sent = message(b'd', b"last words");
        theirs.write_all(&sent).await.unwrap();
        socket2::SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
        drop(theirs);
        assert_eq!(read(&mut wire, sent.len()).await, [sent]);
        assert_eq!(wire.turn(true).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

/// Messages of which each was flushed by itself come together, if one waits for them.
#[tokio::test]
async fn what_gathered_is_read_at_once() {
    let (mut wire, mut peer) = pair(&[]);
    let one = message(b'd', &[b'x'; 600]);
    let mut reads = 0;
    while wire.pause(Instant::now()).is_none() {
        peer.write_all(&one).await.unwrap();
        assert_eq!(read(&mut wire, one.len()).await.len(), 1);
        reads += wire.take_reads();
        assert!(reads < 10_000, "it never counts as fast");
    }
    for _ in 0..100 {
        peer.write_all(&one).await.unwrap();
    }
    assert_eq!(wire.turn(true).await.unwrap(), 100 * one.len());
    assert_eq!((frames(&mut wire).len(), wire.take_reads()), (100, 1));
}
