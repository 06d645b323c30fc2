//! One request, one answer: the part of the protocol before the stream.
//!
//! Generic over the transport, so that tests can script the other side.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::backend::{
    COMMAND_COMPLETE_TAG, DATA_ROW_TAG, EMPTY_QUERY_RESPONSE_TAG, ERROR_RESPONSE_TAG, Header,
    NOTICE_RESPONSE_TAG, NOTIFICATION_RESPONSE_TAG, PARAMETER_STATUS_TAG, READY_FOR_QUERY_TAG,
    ROW_DESCRIPTION_TAG,
};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::ConnectError;
use super::response::ServerError;

/// `CopyBothResponse`, which postgres-protocol does not know.
const COPY_BOTH_RESPONSE_TAG: u8 = b'W';

/// Nothing asked for here has a longer answer, and a peer that announces one is not Postgres.
const MESSAGE_MAX: usize = 16 << 20;

/// A server that warns without end must not fill the memory.
const NOTICES_MAX: usize = 100;

/// One row of a simple query, in text.
pub type Row = Vec<Option<String>>;

/// A message that is an answer.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

/// A connection on which both sides take turns.
pub(super) struct Dialogue<S> {
    stream: S,
    /// Read but not yet looked at.
    buffer: BytesMut,
    /// Whom to name in errors.
    peer: String,
    notices: Vec<ServerError>,
}

/// What bytes go over.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Transport for T {}

impl<S: Transport> Dialogue<S> {
    /// Sends what `write` puts into the buffer.
    pub(super) async fn send(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), ConnectError> {
        let mut out = BytesMut::new();
        write(&mut out).map_err(|error| self.broken(error))?;
        self.stream.write_all(&out).await.map_err(|error| self.broken(error))?;
        self.stream.flush().await.map_err(|error| self.broken(error))
    }

    /// The next answer. What the server may say at any time is dealt with on the way.
    pub(super) async fn read(&mut self) -> Result<Frame, ConnectError> {
        loop {
            let Some(frame) = self.take_frame()? else {
                self.fill().await?;
                continue;
            };
            match frame.tag {
                NOTICE_RESPONSE_TAG if self.notices.len() < NOTICES_MAX => {
                    self.notices.push(ServerError::parse(&frame.body));
                }
                NOTICE_RESPONSE_TAG | PARAMETER_STATUS_TAG | NOTIFICATION_RESPONSE_TAG => {}
                _ => return Ok(frame),
            }
        }
    }

    /// Runs one statement and gives its rows. After a `Server` error (that is not FATAL) the
    /// connection takes the next one.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Vec<Row>, ConnectError> {
        self.send(|out| frontend::query(sql, out)).await?;
        let mut rows = Vec::new();
        loop {
            let frame = self.read().await?;
            match frame.tag {
                DATA_ROW_TAG => {
                    let row = row(frame.body).ok_or_else(|| self.garbled("a damaged row"))?;
                    rows.push(row);
                }
                ROW_DESCRIPTION_TAG | COMMAND_COMPLETE_TAG | EMPTY_QUERY_RESPONSE_TAG => {}
                READY_FOR_QUERY_TAG => return Ok(rows),
                ERROR_RESPONSE_TAG => return Err(self.settle(&frame.body).await),
                _ => return Err(self.unexpected(&frame)),
            }
        }
    }

    /// Runs `START_REPLICATION`. From then on the stream is nobody's turn and everybody's.
    pub(super) async fn start_copy(&mut self, command: &str) -> Result<(), ConnectError> {
        self.send(|out| frontend::query(command, out)).await?;
        let frame = self.read().await?;
        match frame.tag {
            COPY_BOTH_RESPONSE_TAG => Ok(()),
            ERROR_RESPONSE_TAG => Err(self.settle(&frame.body).await),
            _ => Err(self.unexpected(&frame)),
        }
    }

    /// Reads on to the end of a refused command. If the server hangs up instead, as it does after
    /// FATAL, its reason is still the better error.
    async fn settle(&mut self, body: &[u8]) -> ConnectError {
        let refusal = self.refused(body);
        loop {
            match self.read().await {
                Ok(frame) if frame.tag != READY_FOR_QUERY_TAG => {}
                _ => return refusal,
            }
        }
    }

    fn take_frame(&mut self) -> Result<Option<Frame>, ConnectError> {
        let header = Header::parse(&self.buffer);
        let Some(header) = header.map_err(|error| self.garbled(&error.to_string()))? else {
            return Ok(None);
        };
        // The length counts itself but not the tag. It is checked before anything is reserved.
        let length = usize::try_from(header.len()).unwrap_or(usize::MAX);
        if length > MESSAGE_MAX {
            return Err(self.garbled(&format!("a message of {length} bytes")));
        }
        if self.buffer.len() <= length {
            return Ok(None);
        }
        let mut message = self.buffer.split_to(length + 1);
        message.advance(5);
        Ok(Some(Frame { tag: header.tag(), body: message.freeze() }))
    }

    async fn fill(&mut self) -> Result<(), ConnectError> {
        self.buffer.reserve(8 << 10);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err(ConnectError::Closed { host: self.peer.clone() }),
            Ok(_) => Ok(()),
            Err(error) => Err(self.broken(error)),
        }
    }
}

impl<S> Dialogue<S> {
    pub(super) fn new(stream: S, peer: String) -> Dialogue<S> {
        Dialogue { stream, buffer: BytesMut::new(), peer, notices: Vec::new() }
    }

    pub(super) fn take_notices(&mut self) -> Vec<ServerError> {
        std::mem::take(&mut self.notices)
    }

    pub(super) fn into_parts(self) -> (S, BytesMut) {
        (self.stream, self.buffer)
    }

    fn broken(&self, error: io::Error) -> ConnectError {
        let host = self.peer.clone();
        match error.kind() {
            io::ErrorKind::UnexpectedEof => ConnectError::Closed { host },
            _ => ConnectError::Io { host, source: error },
        }
    }

    pub(super) fn refused(&self, body: &[u8]) -> ConnectError {
        let error = Box::new(ServerError::parse(body));
        ConnectError::Server { host: self.peer.clone(), error }
    }

    pub(super) fn garbled(&self, what: &str) -> ConnectError {
        ConnectError::Protocol { host: self.peer.clone(), what: what.to_owned() }
    }

    pub(super) fn unexpected(&self, frame: &Frame) -> ConnectError {
        self.garbled(&format!("message {:?} out of turn", char::from(frame.tag)))
    }

    pub(super) fn denied(&self, reason: &str) -> ConnectError {
        ConnectError::Auth { host: self.peer.clone(), reason: reason.to_owned() }
    }
}

/// The columns of a `DataRow`; `None` if they do not fill it exactly.
fn row(mut body: Bytes) -> Option<Row> {
    let count = body.try_get_u16().ok()?;
    let mut row = Row::new();
    for _ in 0..count {
        row.push(match body.try_get_i32().ok()? {
            -1 => None,
            length => {
                let length = usize::try_from(length).ok().filter(|n| *n <= body.len())?;
                Some(String::from_utf8_lossy(&body.split_to(length)).into_owned())
            }
        });
    }
    body.is_empty().then_some(row)
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag], &length.to_be_bytes()[..], body].concat()
    }

    fn ready() -> Vec<u8> {
        message(READY_FOR_QUERY_TAG, b"I")
    }

    /// A dialogue with a server that says just this and hangs up.
    async fn with(server: &[u8]) -> Dialogue<DuplexStream> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        theirs.write_all(server).await.unwrap();
        theirs.shutdown().await.unwrap();
        // Somebody has to take what is asked.
        tokio::spawn(async move { theirs.read_to_end(&mut Vec::new()).await });
        Dialogue::new(ours, "db:5432".to_owned())
    }

    fn answer() -> Vec<u8> {
        [
            message(b'T', b"\0\0"),
            message(b'D', b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0"),
            message(b'N', b"VWARNING\0C01000\0Mcareful\0\0"),
            message(b'S', b"a\0b\0"),
            message(b'C', b"SELECT 1\0"),
            ready(),
        ]
        .concat()
    }

    #[tokio::test]
    async fn rows_come_back_and_notices_are_kept() {
        let mut dialogue = with(&answer()).await;
        let rows = dialogue.query("SELECT").await.unwrap();
        assert_eq!(rows, [[Some("ab".to_owned()), None, Some(String::new())]]);
        assert_eq!(dialogue.take_notices()[0].message, "careful");
        assert!(dialogue.take_notices().is_empty());
    }

    #[tokio::test]
    async fn every_prefix_of_an_answer_is_an_error() {
        let whole = answer();
        for end in 0..whole.len() {
            let error = with(&whole[..end]).await.query("SELECT").await.unwrap_err();
            assert!(matches!(error, ConnectError::Closed { .. }), "{end}: {error}");
        }
    }

    #[tokio::test]
    async fn a_refused_command_leaves_the_connection_usable() {
        let refusal = message(ERROR_RESPONSE_TAG, b"VERROR\0C42601\0Msyntax\0\0");
        let copy = message(COPY_BOTH_RESPONSE_TAG, b"\0\0\0");
        let server =
            [refusal.clone(), ready(), answer(), refusal, ready(), copy, b"rest".to_vec()].concat();
        let mut dialogue = with(&server).await;
        let error = dialogue.query("IDENTIFY_SYSTEM").await.unwrap_err().to_string();
        assert!(error.contains("pooler"), "{error}");
        assert_eq!(dialogue.query("SELECT").await.unwrap().len(), 1);
        assert_eq!(dialogue.start_copy("START").await.unwrap_err().sqlstate(), Some("42601"));
        dialogue.start_copy("START").await.unwrap();
        assert_eq!(dialogue.into_parts().1, b"rest"[..]);
    }

    #[tokio::test]
    async fn a_fatal_error_is_reported_though_the_server_hangs_up() {
        let fatal = message(ERROR_RESPONSE_TAG, b"VFATAL\0C57P01\0Mbye\0\0");
        let error = with(&fatal).await.query("SELECT").await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("57P01"));
    }

    #[tokio::test]
    async fn what_is_not_postgres_is_said_to_be_so() {
        let two_gib = [b'D', 0x7f, 0xff, 0xff, 0xff];
        for server in [
            &two_gib[..],
            b"HTTP/1.1 400 Bad Request\r\n",
            b"D\0\0\0\x03",
            b"D\xff\xff\xff\xff",
            &message(b'D', b""),
            &message(b'D', b"\0\x01\0\0\0\x05ab"),
            &message(b'D', b"\0\x01\xff\xff\xff\xfe"),
            &message(b'D', b"\0\0trailing"),
            &message(b'?', b""),
            &message(COPY_BOTH_RESPONSE_TAG, b"\0\0\0"),
        ] {
            let mut dialogue = with(server).await;
            let error = dialogue.query("SELECT").await.unwrap_err();
            assert!(matches!(error, ConnectError::Protocol { .. }), "{server:?}: {error}");
            assert!(dialogue.buffer.capacity() < 1 << 20, "reserved what it was told to");
        }
    }

    #[tokio::test]
    async fn warnings_without_end_are_not_hoarded() {
        let server = [message(b'N', b"Mw\0\0").repeat(3 * NOTICES_MAX), answer()].concat();
        let mut dialogue = with(&server).await;
        dialogue.query("SELECT").await.unwrap();
        assert_eq!(dialogue.take_notices().len(), NOTICES_MAX);
    }
}
