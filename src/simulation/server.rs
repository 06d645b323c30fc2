//! A model of Postgres: a log of committed transactions, a slot, and the walsender that reads it.
//!
//! What it sends are real bytes. A transaction is sent if its commit record does not lie before
//! the start (`SnapBuildXactNeedsSkip`), and a start before the slot is moved there silently.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::ops::Range;

use crate::testing::{Bytes, Random, begin, commit, data, insert, keepalive, relation};

/// OID of the outbox.
const TABLE: u32 = 16_384;

/// Bytes of a payload that a topic may find too large.
pub const LARGE: usize = 2000;

/// A row of the outbox. Its number is its index among all rows that were ever committed.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub key: u8,
    pub large: bool,
}

/// A committed transaction; rolled back ones never show.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub commit: u64,
    pub end: u64,
    pub rows: Range<usize>,
    /// Whether the table's columns stand in another order.
    altered: bool,
    /// Whether there was no publication, so that its rows are not to be had.
    unpublished: bool,
}

/// What a base backup or a standby has.
#[derive(Clone, Debug)]
pub struct State {
    pub log: Vec<Transaction>,
    /// Where the log ends.
    pub written: u64,
    pub timeline: u32,
    /// Timelines of before, and where each was left.
    left: Vec<(u32, u64)>,
    /// Where the slot stands.
    pub slot: Option<u64>,
    altered: bool,
    /// Somebody has dropped the publication, and will make it again.
    pub unpublished: bool,
}

#[derive(Debug)]
pub struct Server {
    pub state: State,
    /// All rows that were ever committed.
    pub rows: Vec<Row>,
    /// What a crash, or the way to a standby, leaves of the slot.
    pub saved: u64,
    /// The process that reads the slot.
    pub reader: Option<i32>,
    /// Statuses on their way, each to its reader.
    statuses: VecDeque<(i32, u64)>,
    processes: i32,
    /// No keepalive comes when there is nothing to send.
    pub quiet: bool,
}

impl Server {
    pub fn new() -> Server {
        let (log, left) = (Vec::new(), Vec::new());
        let (slot, altered, unpublished) = (None, false, false);
        let state = State { log, written: 100, timeline: 1, left, slot, altered, unpublished };
        let statuses = VecDeque::new();
        Server {
            state,
            rows: Vec::new(),
            saved: 0,
            reader: None,
            statuses,
            processes: 0,
            quiet: false,
        }
    }

    /// A transaction commits. Some have no row of the outbox, a few have many.
    pub fn commit(&mut self, random: &mut Random) {
        let state = &mut self.state;
        let rows = match random.below(12) {
            0 => 0,
            1 => 6 + random.index(7),
            _ => 1 + random.index(3),
        };
        let first = self.rows.len();
        for _ in 0..rows {
            let key = u8::try_from(random.below(4)).unwrap();
            self.rows.push(Row { key, large: random.below(16) == 0 });
        }
        let commit = state.written + random.below(20);
        let end = commit + 1 + random.below(10);
        let (altered, unpublished) = (state.altered, state.unpublished && rows > 0);
        let rows = first..first + rows;
        state.log.push(Transaction { commit, end, rows, altered, unpublished });
        state.written = end;
    }

    /// What is not for us: other tables, other databases, roll-backs; and an ALTER TABLE.
    pub fn other_log(&mut self, random: &mut Random) {
        self.state.written += 1 + random.below(50);
        self.state.altered ^= random.below(4) == 0;
    }

    /// A slot is made, here and now, and is on disk at once.
    pub fn create_slot(&mut self) -> u64 {
        self.saved = self.state.written;
        *self.state.slot.insert(self.saved)
    }

    /// The slot is written to disk, and comes to the standbys.
    pub fn save_slot(&mut self) {
        self.saved = self.state.slot.unwrap_or(0);
    }

    /// Crashes, and comes up again with what it had of the slot on disk.
    pub fn crash(&mut self) {
        self.state.slot = self.state.slot.map(|_| self.saved);
        self.hang_up();
    }

    pub fn hang_up(&mut self) {
        self.reader = None;
        self.statuses.clear();
    }

    /// A standby is promoted that may lack the last transactions, and has an older slot.
    pub fn promote(&mut self, random: &mut Random) {
        let since = self.state.left.last().map_or(100, |(_, left)| *left);
        let state = &mut self.state;
        let lost = random.index(state.log.len().min(3) + 1);
        let kept = state.log.len() - lost;
        if let Some(first) = state.log.get(kept)
            && first.commit >= since
        {
            let before = kept.checked_sub(1).map_or(since, |last| state.log[last].end).max(since);
            state.written = before + random.below(first.commit - before + 1);
            state.log.truncate(kept);
        }
        state.left.push((state.timeline, state.written));
        state.timeline += 1;
        self.saved = self.saved.min(state.written);
        self.crash();
    }

    /// A base backup takes the server's place.
    pub fn restore(&mut self, backup: State) {
        self.saved = backup.slot.unwrap_or(0);
        self.state = backup;
        self.hang_up();
    }

    /// The timeline's history file.
    pub fn history(&self) -> String {
        self.state.left.iter().fold(String::new(), |mut text, (timeline, left)| {
            let left = crate::lsn::Lsn::from_wire(*left);
            writeln!(text, "{timeline}\t{left}\tno recovery target specified").unwrap();
            text
        })
    }

    /// A connection is made.
    pub fn process(&mut self) -> i32 {
        self.processes += 1;
        self.processes
    }

    /// `START_REPLICATION`.
    pub fn start(&mut self, pid: i32, from: u64) -> Walsender {
        let start = from.max(self.state.slot.unwrap());
        self.reader = Some(pid);
        let next = self.state.log.iter().position(|it| it.commit >= start);
        let next = next.unwrap_or(self.state.log.len());
        let (wire, message, announced) = (Vec::new(), None, None);
        let (taken, arrived, failed, closed) = (0, 0, false, false);
        Walsender {
            pid,
            next,
            message,
            announced,
            read: start,
            wire,
            taken,
            arrived,
            failed,
            closed,
        }
    }

    /// A status comes over the wire.
    pub fn told(&mut self, pid: i32, flush: u64) {
        self.statuses.push_back((pid, flush));
    }

    /// Takes in the status that came first. It never moves the slot backwards.
    pub fn take_status(&mut self) {
        if let Some((pid, flush)) = self.statuses.pop_front()
            && self.reader == Some(pid)
        {
            self.state.slot = self.state.slot.map(|slot| slot.max(flush));
        }
    }

    /// The server notices that the reader is gone. It may have read its last statuses.
    pub fn let_go(&mut self, random: &mut Random) {
        for _ in 0..random.below(3) {
            self.take_status();
        }
        self.hang_up();
    }
}

/// One connection's stream.
#[derive(Debug)]
pub struct Walsender {
    pub pid: i32,
    /// The transaction that is sent, or will be next.
    next: usize,
    /// Its next message: BEGIN, rows and COMMIT; none between transactions.
    message: Option<usize>,
    /// As which layout the table was announced on this connection.
    announced: Option<bool>,
    /// How far the log is decoded.
    read: u64,
    /// Everything it wrote.
    wire: Vec<u8>,
    /// Of which so much has been consumed by the relay, and so much has arrived there.
    taken: usize,
    arrived: usize,
    /// It has ended with an error.
    failed: bool,
    /// Nothing more will arrive.
    pub closed: bool,
}

impl Walsender {
    /// Bytes that the relay has and has not consumed.
    pub fn bytes(&self) -> &[u8] {
        &self.wire[self.taken..self.arrived]
    }

    pub fn consume(&mut self, len: usize) {
        self.taken += len;
    }

    /// So many bytes more arrive, cut anywhere.
    pub fn carry(&mut self, bytes: usize) {
        if !self.closed {
            self.arrived = self.wire.len().min(self.arrived.saturating_add(bytes));
        }
    }

    /// The machine is gone; what was on its way as well.
    pub fn cut(&mut self) {
        (self.arrived, self.closed) = (self.taken, true);
    }

    fn write(&mut self, body: &[u8]) {
        self.write_as(b'd', body);
    }

    fn write_as(&mut self, tag: u8, body: &[u8]) {
        self.wire.push(tag);
        self.wire.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        self.wire.extend(body);
    }

    /// Writes a message more.
    pub fn write_next(&mut self, server: &Server, random: &mut Random) {
        if self.failed {
            return;
        }
        let Some(transaction) = server.state.log.get(self.next) else {
            if server.quiet {
                return;
            }
            // Nothing for us: as far as it has read, or all there is.
            let behind = server.state.written - self.read;
            self.read += if random.below(2) == 0 { behind } else { random.below(behind + 1) };
            return self.write(&keepalive(self.read, random.below(4) == 0));
        };
        let Some(message) = self.message else {
            if random.below(4) == 0 {
                self.read += random.below(transaction.commit - self.read + 1);
                return self.write(&keepalive(self.read, random.below(4) == 0));
            }
            if transaction.unpublished {
                return self.miss(transaction);
            }
            self.read = transaction.commit;
            self.message = Some(0);
            return self.write(&data(self.read, &begin(self.read, 0, 1)));
        };
        match random.below(20) {
            // Inside a transaction it may name any LSN, also one behind the rows.
            0 => return self.write(&keepalive(transaction.end, random.below(4) == 0)),
            1 => return self.write(&data(self.read, if self.pid % 2 == 0 { b"T" } else { b"D" })),
            _ => {}
        }
        let Some(number) = transaction.rows.clone().nth(message) else {
            (self.message, self.next, self.read) = (None, self.next + 1, transaction.end);
            let message = commit(transaction.commit, transaction.end);
            return self.write(&data(transaction.end, &message));
        };
        let altered = transaction.altered;
        if self.announced != Some(altered) {
            self.announced = Some(altered);
            return self.write(&data(0, &table(altered)));
        }
        self.message = Some(message + 1);
        self.write(&data(transaction.commit, &tuple(number, server.rows[number], altered)));
    }
}

impl Walsender {
    /// Since version 18 rows without a publication are left out with a warning; before that they
    /// are the end of the stream, again and again.
    fn miss(&mut self, transaction: &Transaction) {
        if self.pid % 2 == 0 {
            (self.next, self.read) = (self.next + 1, transaction.end);
            self.write_as(b'N', b"SWARNING\0C55000\0\0");
        } else {
            self.failed = true;
            self.write_as(b'E', b"SERROR\0C42704\0\0");
        }
    }
}

fn table(altered: bool) -> Vec<u8> {
    let columns: &[(&str, u32)] = if altered {
        &[("payload", 25), ("note", 25), ("key", 25), ("id", 25)]
    } else {
        &[("id", 25), ("key", 25), ("payload", 25), ("note", 25)]
    };
    relation(TABLE, "public", "outbox", columns)
}

fn tuple(number: usize, row: Row, altered: bool) -> Vec<u8> {
    let id = number.to_string();
    let payload = Bytes(vec![b' '; if row.large { LARGE } else { 0 }]).raw(id.as_bytes()).0;
    let (id, key) = (Some(id.as_bytes()), [b'a' + row.key]);
    let (key, payload, note) = (Some(key.as_slice()), Some(payload.as_slice()), None);
    insert(TABLE, &if altered { [payload, note, key, id] } else { [id, key, payload, note] })
}
