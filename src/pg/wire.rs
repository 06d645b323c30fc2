//! The replication stream's socket: frames in, statuses out.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connect::Stream;
use super::frame::{BadFrame, Frame, Framed, frame};
use super::pace::Pace;

/// Size of the read buffer as long as no frame is larger.
const BUFFER_LEN: usize = 512 * 1024;

/// A connection in `CopyBoth` mode.
///
/// Frames are borrowed from the read buffer with [`peek`](Wire::peek) and given back with
/// [`consume`](Wire::consume); a frame that is not consumed is there again the next time.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    read: ReadBuffer,
    pace: Pace,
    /// What ended the stream, to be told once the bytes before it are.
    failed: Option<io::Error>,
    /// What is being written. At most one status: a newer one waits until this is out.
    write: Bytes,
    /// Reads that brought something since this was last asked for.
    reads: u64,
}

/// A rolling buffer.
#[derive(Debug)]
struct ReadBuffer {
    /// Bytes in `start..end` have been read and not been consumed.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// How many bytes the frame at `start` needs to be whole.
    needed: usize,
}

impl ReadBuffer {
    fn new(rest: &[u8]) -> ReadBuffer {
        let mut bytes = rest.to_vec();
        bytes.resize(rest.len().max(BUFFER_LEN), 0);
        ReadBuffer { bytes, start: 0, end: rest.len(), needed: 0 }
    }

    /// Makes room behind the unread bytes for the rest of the frame, and gives large frames'
    /// memory back once they are gone.
    fn free(&mut self) -> &mut [u8] {
        if self.start > 0 && (self.start == self.end || self.end == self.bytes.len()) {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let wanted = self.needed.max(BUFFER_LEN).max(self.end);
        if self.start == 0 && wanted != self.bytes.len() {
            // Grows with what has come, not with what a length field promises.
            let len = wanted.min(self.end.saturating_mul(2).max(BUFFER_LEN));
            // To that size: twice as much would be had for a moment otherwise.
            self.bytes.reserve_exact(len.saturating_sub(self.bytes.len()));
            self.bytes.resize(len.max(self.end), 0);
            self.bytes.shrink_to(len);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }
}

impl Wire {
    /// From a connection that has just entered `CopyBoth`; `rest` was read and not used.
    pub fn new(stream: Stream, rest: &[u8]) -> Wire {
        let (read, pace) = (ReadBuffer::new(rest), Pace::new(stream.socket()));
        Wire { stream, read, pace, failed: None, write: Bytes::new(), reads: 0 }
    }

    /// The next frame and its length, if it is there as a whole.
    pub fn peek(&mut self) -> Result<Option<(Frame<'_>, usize)>, BadFrame> {
        let ReadBuffer { bytes, start, end, needed } = &mut self.read;
        let unread = bytes.get(*start..*end).unwrap_or_default();
        match frame(unread)? {
            Framed::Complete { frame, len } => {
                *needed = 0;
                Ok(Some((frame, len)))
            }
            Framed::Incomplete { needed: more } => {
                *needed = more;
                self.pace.taken();
                Ok(None)
            }
        }
    }

    /// Gives up the first `len` bytes.
    pub fn consume(&mut self, len: usize) {
        self.read.start = self.read.start.saturating_add(len).min(self.read.end);
    }

    /// How often the socket has given something since this was last called. Few reads for many
    /// messages are what makes both ends fast.
    pub fn take_reads(&mut self) -> u64 {
        std::mem::take(&mut self.reads)
    }

    /// How long to let bytes gather before the next read, if at all.
    pub fn pause(&self, now: Instant) -> Option<Duration> {
        self.pace.pause(now)
    }

    /// Until when to let messages gather before any is taken, if at all.
    pub fn gathers_until(&self) -> Option<Instant> {
        self.pace.gathers_until(self.read.end - self.read.start)
    }

    /// Nothing more is to gather: what has come is taken.
    pub fn gathered(&mut self) {
        self.pace.taken();
    }

    /// Whether a message can be queued.
    pub fn is_writable(&self) -> bool {
        self.write.is_empty()
    }

    /// Queues a message; [`turn`](Wire::turn) writes it.
    pub fn queue(&mut self, message: &[u8]) {
        self.write = [self.write.as_ref(), message].concat().into();
    }

    /// Writes what is queued, and reads if asked to. Returns how many bytes were read, 0 at the
    /// end of the stream; without `read`, it returns only on an error.
    ///
    /// Writing never waits for reading nor the other way round: a status must reach the server
    /// while it is blocked in sending to us. Cancellation safe: what was read is in the buffer,
    /// what was written is off the queue.
    pub async fn turn(&mut self, read: bool) -> io::Result<usize> {
        poll_fn(|context| {
            self.poll_write(context)?;
            if read { self.poll_read(context) } else { Poll::Pending }
        })
        .await
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while !self.write.is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, &self.write) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    drop(self.write.split_to(written));
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        // TLS keeps bytes of its own.
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Reads all there is, as far as it fits.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let mut all = 0;
        while all < BUFFER_LEN {
            let free = self.read.free();
            if free.is_empty() {
                // Whole frames fill the buffer, and nobody consumes them. A read of no bytes would
                // pass for the end of the stream.
                break;
            }
            let mut free = ReadBuf::new(free);
            match Pin::new(&mut self.stream).poll_read(context, &mut free) {
                Poll::Ready(Ok(())) if free.filled().is_empty() => return Poll::Ready(Ok(all)),
                Poll::Ready(Ok(())) => {
                    all += free.filled().len();
                    self.read.end += free.filled().len();
                    self.reads += 1;
                }
                Poll::Ready(Err(error)) if all == 0 => return Poll::Ready(Err(error)),
                Poll::Ready(Err(error)) => {
                    // What came before it is taken first.
                    self.failed = Some(error);
                    break;
                }
                Poll::Pending => break,
            }
        }
        if all == 0 {
            return Poll::Pending;
        }
        self.pace.read(Instant::now(), all);
        Poll::Ready(Ok(all))
    }
}

/// Lets bytes gather in the socket. The runtime must not look there meanwhile: it would wake up
/// for each message, which is what this is to avoid.
#[expect(clippy::disallowed_methods, reason = "holds the loop up for at most 6 ms, on its own")]
pub async fn gather(pause: Duration) {
    std::thread::sleep(pause);
    // What else runs on this thread, and a look at the socket.
    tokio::task::yield_now().await;
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
