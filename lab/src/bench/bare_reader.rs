//! The fastest reader there can be: it takes what the walsender has, and does nothing with it.
//!
//! A walsender sends each message by itself. A reader that wakes for each of them costs the
//! sender more than itself; this one lets bytes gather while there are many, as it pauses after a
//! read that brought little. It runs in a process of its own, so that its processor time is known.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

const BUFFER_LEN: usize = 1 << 20;
/// A read that brought less than this has emptied the socket.
const LITTLE: usize = 64 * 1024;

/// Reads a slot, and says what it took.
#[derive(clap::Args)]
pub struct Options {
    /// A directory with a Unix socket, or 127.0.0.1
    #[arg(long)]
    pub host: String,
    #[arg(long)]
    pub port: u16,
    #[arg(long)]
    pub database: String,
    #[arg(long)]
    pub slot: String,
    /// How many rows to wait for
    #[arg(long)]
    pub rows: u64,
    /// Microseconds to pause after a read that brought little
    #[arg(long, default_value_t = 400)]
    pub pause_us: u64,
    /// Where to write the stream's bytes
    #[arg(long)]
    pub record: Option<std::path::PathBuf>,
}

trait Socket: Read + Write {}
impl<T: Read + Write> Socket for T {}

pub fn run(options: &Options) -> Result<()> {
    let mut socket: Box<dyn Socket> = if options.host.starts_with('/') {
        let path = format!("{}/.s.PGSQL.{}", options.host, options.port);
        Box::new(UnixStream::connect(&path).with_context(|| format!("connect to {path}"))?)
    } else {
        Box::new(TcpStream::connect((&*options.host, options.port)).context("connect")?)
    };
    let mut stream = Stream { buffer: vec![0; BUFFER_LEN], ..Stream::default() };
    socket.write_all(&startup(&options.database))?;
    while stream.next(&mut socket)?.0 != b'Z' {}
    let command = format!(
        "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names 'walrelay')",
        options.slot
    );
    socket.write_all(&message(b'Q', &[command.as_bytes(), b"\0"].concat()))?;
    while stream.next(&mut socket)?.0 != b'W' {}

    (stream.reads, stream.pause) = (0, Duration::from_micros(options.pause_us));
    stream.record = options.record.is_some().then(Vec::new);
    let mut rows = 0;
    loop {
        // XLogData has 24 bytes of its own before the plugin's message.
        match stream.next(&mut socket)? {
            (b'd', Some(b'w'), Some(b'I')) => rows += 1,
            (b'd', Some(b'w'), Some(b'C')) if rows >= options.rows => break,
            _ => {}
        }
    }
    if let (Some(path), Some(bytes)) = (&options.record, &stream.record) {
        std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))?;
    }
    println!("{}", json!({ "rows": rows, "reads": stream.reads }));
    Ok(())
}

#[derive(Default)]
struct Stream {
    buffer: Vec<u8>,
    /// What has been read and not looked at.
    start: usize,
    end: usize,
    reads: u64,
    pause: Duration,
    record: Option<Vec<u8>>,
}

impl Stream {
    /// The next frame's tag, and of a `CopyData` the tags of its message and the plugin's.
    fn next(&mut self, socket: &mut impl Read) -> Result<(u8, Option<u8>, Option<u8>)> {
        let len = loop {
            let unread = self.buffer.get(self.start..self.end).unwrap_or_default();
            match unread.split_first_chunk::<5>() {
                Some((&[_, a, b, c, d], _)) => {
                    let len = 1 + usize::try_from(u32::from_be_bytes([a, b, c, d]))?;
                    if len <= unread.len() {
                        break len;
                    }
                    self.fill(socket, len)?;
                }
                None => self.fill(socket, 5)?,
            }
        };
        let frame = self.buffer.get(self.start..self.start + len).context("a frame")?;
        let tag = |index: usize| frame.get(index).copied();
        let tags = (tag(0).context("a tag")?, tag(5), tag(5 + 25));
        if tags.0 == b'E' {
            bail!("Postgres: {}", String::from_utf8_lossy(frame));
        }
        if let Some(record) = &mut self.record {
            record.extend_from_slice(frame);
        }
        self.start += len;
        Ok(tags)
    }

    fn fill(&mut self, socket: &mut impl Read, needed: usize) -> Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        self.buffer.resize(BUFFER_LEN.max(needed), 0);
        let read = socket.read(self.buffer.get_mut(self.end..).unwrap_or_default())?;
        if read == 0 {
            bail!("Postgres hung up");
        }
        self.end += read;
        self.reads += 1;
        if read < LITTLE && !self.pause.is_zero() {
            lab::pause(self.pause);
        }
        Ok(())
    }
}

fn startup(database: &str) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    // Nobody reports to the server, which must not take it amiss.
    let options = "-c wal_sender_timeout=0";
    let settings =
        ["user", "postgres", "database", database, "replication", "database", "options", options];
    for text in settings {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    message(0, &body).split_off(1)
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[tag], len.to_be_bytes().as_slice(), body].concat()
}
