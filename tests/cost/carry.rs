//! Recorded bytes of a walsender, carried from frame to frontier.
//!
//! The recordings are what Postgres 18 sent for 200 rows like those of `make bench`, in 200
//! transactions and in two (`bench bare-reader --record`).

use std::hint::black_box;
use std::path::Path;

use walrelay::config::Config;
use walrelay::frontier::{Frontier, Limits, Ticket};
use walrelay::lsn::Lsn;
use walrelay::outbox::Outboxes;
use walrelay::pg::frame::{Framed, frame};
use walrelay::pipe::{Pipe, Refused, Sink, Step};
use walrelay::record::Record;

/// One row a transaction.
pub const W1: &[u8] = include_bytes!("w1.bin");
/// A hundred rows a transaction.
pub const W2: &[u8] = include_bytes!("w2.bin");
/// In each recording.
pub const ROWS: usize = 200;

/// Looks at all that a producer would look at, and takes so many records before they are acked.
#[derive(Default)]
pub struct Null {
    pending: Vec<Ticket>,
    /// Records taken.
    pub records: usize,
}

impl Null {
    const ROOM: usize = 64;

    /// With the room it will need.
    pub fn new() -> Null {
        Null { pending: Vec::with_capacity(Null::ROOM), records: 0 }
    }

    fn ack(&mut self, pipe: &mut Pipe) {
        for ticket in self.pending.drain(..) {
            pipe.acked(ticket, 1, ticket.charge());
        }
    }
}

impl Sink for Null {
    fn send(&mut self, record: &Record<'_>, ticket: Ticket) -> Result<(), Refused> {
        if self.pending.len() == Null::ROOM {
            return Err(Refused::Full);
        }
        black_box((record.topic, record.key, record.payload));
        for header in record.headers.iter() {
            black_box(header);
        }
        self.pending.push(ticket);
        self.records += 1;
        Ok(())
    }
}

/// The smallest configuration there is: Debezium's table, all headers.
pub fn config() -> Config {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/minimal.toml");
    Config::load(Some(&file), []).unwrap()
}

/// A pipe as a session begins with it.
pub fn pipe(config: &Config) -> Pipe {
    let outboxes = Outboxes::new(config.outboxes.clone(), config.delivery.position_header.clone());
    let limits = Limits { records: 50_000, bytes: 32 << 20, span: 1000 };
    Pipe::new(outboxes, Frontier::new(Lsn::ZERO, limits))
}

/// Hands frames over as long as the sink takes them. Returns the bytes used.
pub fn carry(pipe: &mut Pipe, sink: &mut impl Sink, bytes: &[u8]) -> usize {
    let mut used = 0;
    while let Framed::Complete { frame, len } = frame(&bytes[used..]).unwrap() {
        match pipe.take(frame.body, sink).unwrap() {
            Step::Taken
            | Step::ReplyWanted
            | Step::Updated(_)
            | Step::Loose(_)
            | Step::Replaced(_) => {
                used += len;
            }
            Step::Full => break,
            Step::Stuck(stuck) => panic!("{stuck}"),
        }
    }
    used
}

/// Carries all of it, acks included. Callgrind counts what happens inside, by this name.
#[inline(never)]
pub fn carry_all(pipe: &mut Pipe, sink: &mut Null, bytes: &[u8]) {
    let mut used = 0;
    while used < bytes.len() {
        used += carry(pipe, sink, &bytes[used..]);
        sink.ack(pipe);
    }
}
