//! The pure middle of the relay: `CopyData` bodies in, records out, the frontier moved.
//!
//! No socket, no clock, no log. Whatever could lose, repeat or reorder an event is decided here
//! and in [`frontier`](crate::frontier), and tested against an oracle over random schedules.
//!
//! A row is handed to the producer when it is read; only its position waits for COMMIT. The pipe
//! outlives a connection: the next one starts at the frontier's LSN, Postgres sends again what
//! lies behind it, and rows at or before the last one handed over are stepped over. So a fault of
//! Postgres alone repeats nothing, even in the middle of a transaction.

mod offer;
mod refused;
mod step;

use std::collections::BTreeMap;

use crate::config::OnUpdate;
use crate::encode::Encoder;
use crate::frontier::{Frontier, Reached, Ticket};
use crate::lsn::{Lsn, Position};
use crate::outbox::{Outboxes, Place, Whose};
use crate::pg::Malformed;
use crate::pg::copy::Copy;
use crate::pg::known::Known;
use crate::pg::output::{Change, Tuple};
use crate::position::Start;

use refused::{Condemned, Form, Suspects};

pub use refused::{Flaw, Refused, Sink};
pub use step::{Instead, Step, StreamError, Stuck};

/// What has passed since the last look, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Transactions whose COMMIT was read.
    pub transactions: u64,
    /// Payload and key bytes handed to the producer.
    pub bytes: u64,
    /// Messages that would be events if they had come in a transaction.
    pub loose: u64,
}

/// A message as a row takes as much memory as the largest one before, up to this.
const KEPT_BYTES: usize = 1 << 20;

/// The transaction being read.
#[derive(Clone, Copy, Debug)]
struct Transaction {
    commit: Lsn,
    committed_us: i64,
    xid: u32,
    /// Number of the next row.
    row: u32,
}

/// From `CopyData` bodies to records.
#[derive(Debug)]
pub struct Pipe {
    outboxes: Outboxes,
    encoder: Encoder,
    frontier: Frontier,
    /// Between BEGIN and COMMIT.
    transaction: Option<Transaction>,
    /// Commit LSN of the last transaction this connection brought.
    last_commit: Lsn,
    /// The last row handed over or stepped over. The same row never is again.
    done: Option<Position>,
    /// The furthest row that was ever handed over.
    furthest: Option<Position>,
    /// As what the last row was handed over.
    form: Form,
    /// Rows that may be why the broker has refused a batch.
    suspects: Option<Suspects>,
    /// Rows that it was, once that is known. Each has cost a producer, so they are few.
    condemned: BTreeMap<Position, Condemned>,
    /// The highest LSN that came in.
    received: Lsn,
    epoch: u32,
    passed: Passed,
    /// The last message, as a row.
    row: Vec<u8>,
}

impl Pipe {
    /// A pipe that starts at the frontier.
    pub fn new(outboxes: Outboxes, frontier: Frontier) -> Pipe {
        Pipe {
            outboxes,
            encoder: Encoder::default(),
            frontier,
            transaction: None,
            last_commit: Lsn::ZERO,
            done: None,
            furthest: None,
            form: Form::Record,
            suspects: None,
            condemned: BTreeMap::new(),
            received: Lsn::ZERO,
            epoch: 0,
            passed: Passed::default(),
            row: Vec::new(),
        }
    }

    /// The frontier.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// The outboxes.
    pub fn outboxes(&self) -> &Outboxes {
        &self.outboxes
    }

    /// What is known of schemas.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Takes in what is answered about schemas, and tells what is asked.
    pub fn encoder_mut(&mut self) -> &mut Encoder {
        &mut self.encoder
    }

    /// What the catalog says of tables. Returns whether a row that was nobody's has a home now.
    pub fn know(&mut self, tables: &[Known]) -> bool {
        self.outboxes.know(tables)
    }

    /// The highest LSN received.
    pub fn received(&self) -> Lsn {
        self.received
    }

    /// What has passed since this was last called.
    pub fn passed(&mut self) -> Passed {
        std::mem::take(&mut self.passed)
    }

    /// Begins where a start has found out that it has to, with nothing in flight.
    pub fn start(&mut self, start: &Start) {
        self.frontier.begin(start.from, start.inside);
        self.done = start.inside;
        self.epoch = start.epoch;
        self.received = start.from;
    }

    /// How far everything is in Kafka. Once nothing is in flight, that is to the very row.
    pub fn reached(&self) -> Reached {
        let reached = self.frontier.reached();
        let behind = |done: &Position| done.commit >= reached.flush.lsn();
        match self.done.filter(behind) {
            Some(done) if self.frontier.is_idle() => Reached { inside: Some(done), ..reached },
            _ => reached,
        }
    }

    /// What is confirmed, and the last row handed over: either grows while anything gets on.
    pub fn progress(&self) -> (Lsn, Option<Position>) {
        (self.frontier.confirmed().lsn(), self.done)
    }

    /// A new connection begins at the frontier's LSN.
    pub fn reconnect(&mut self) {
        self.outboxes.forget_relations();
        self.encoder.forget_waiting();
        self.transaction = None;
        self.last_commit = Lsn::ZERO;
    }

    /// The producer is gone with everything it had in flight. What was not acked will be sent
    /// again once there is a new connection.
    pub fn restart(&mut self) {
        self.frontier.reset();
        self.done = self.frontier.reached().inside;
    }

    /// A record in flight is at fault, and the producer is gone. The broker does not say which one
    /// of a batch it is. So an eighth of them goes together next, and so on; if there was but one
    /// of them, it is that, and stuck when it comes again.
    pub fn suspect(&mut self, flaw: Flaw, reason: &str) {
        // Not the last one that was stepped over: it may lie behind.
        let Some(last) = self.frontier.last() else { return };
        let confirmed = self.frontier.confirmed().lsn();
        self.condemned.retain(|row, _| row.commit >= confirmed);
        let before = self.suspects.map(|suspects| suspects.last);
        if self.frontier.records() == 1 && before.is_some_and(|before| last <= before) {
            // What is in flight is what was handed over last.
            let (reason, refused) = (reason.to_owned(), self.form);
            let entry = self.condemned.entry(last);
            let condemned = Condemned { flaw, reason, refused };
            entry.and_modify(|it| it.refused = refused).or_insert(condemned);
        }
        let together = (self.frontier.records() / 8).max(1);
        let last = before.map_or(last, |before| before.max(last));
        self.suspects = Some(Suspects { last, together });
    }

    /// Rows that were refused are tried once more: they may have been made welcome.
    pub fn pardon(&mut self) {
        self.condemned.clear();
        if let Some(suspects) = &mut self.suspects {
            suspects.together = 1;
        }
    }

    /// The broker has these records. Returns the commit time of their transaction.
    pub fn acked(&mut self, ticket: Ticket, records: usize, bytes: usize) -> i64 {
        if let Some(suspects) = &mut self.suspects {
            // Twice as many with each round, as long as nothing is refused.
            suspects.together += records;
        }
        self.frontier.acked(ticket, records, bytes)
    }

    /// Steps over the row that the last [`take`](Pipe::take) was stuck at.
    pub fn skip_row(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            let row = transaction.row;
            self.done = Some(Position { epoch: self.epoch, commit: transaction.commit, row });
            transaction.row += 1;
        }
    }

    /// Takes one `CopyData` body.
    pub fn take(&mut self, body: &[u8], sink: &mut impl Sink) -> Result<Step, StreamError> {
        match Copy::parse(body).map_err(|malformed| self.malformed(malformed))? {
            Copy::Keepalive { end, reply } => {
                self.received = self.received.max(end);
                // Inside a transaction the LSN lies behind rows that are still to come.
                if self.transaction.is_none() {
                    self.frontier.advance(end);
                }
                Ok(if reply { Step::ReplyWanted } else { Step::Taken })
            }
            Copy::Data { at, change } => {
                self.received = self.received.max(at);
                let change = Change::parse(change).map_err(|bad| self.malformed(bad))?;
                self.change(&change, sink)
            }
            Copy::Unknown(_) => Ok(Step::Taken),
        }
    }

    fn change(&mut self, change: &Change<'_>, sink: &mut impl Sink) -> Result<Step, StreamError> {
        match *change {
            Change::Begin { commit, committed_us, xid } => self.begin(commit, committed_us, xid)?,
            Change::Commit { commit, end } => self.commit(commit, end)?,
            Change::Relation(ref relation) => self.outboxes.relation(relation),
            Change::Insert { relation, row } => return self.insert(relation, row, sink),
            Change::Update { relation } => return Ok(self.update(relation)),
            Change::Message { transactional, prefix, content } if self.outboxes.has_rules() => {
                return self.message(transactional, prefix, content, sink);
            }
            Change::Message { .. } | Change::Other(_) => {}
        }
        Ok(Step::Taken)
    }

    fn begin(&mut self, commit: Lsn, committed_us: i64, xid: u32) -> Result<(), StreamError> {
        let out_of_order = |what| Err(StreamError::OutOfOrder { what, at: commit });
        if self.transaction.is_some() {
            return out_of_order("a transaction began inside another");
        }
        if commit <= self.last_commit {
            return out_of_order("a transaction came after a later one");
        }
        if self.frontier.open().is_some_and(|open| open < commit) {
            return out_of_order("the rest of the transaction before it never came");
        }
        self.transaction = Some(Transaction { commit, committed_us, xid, row: 0 });
        Ok(())
    }

    fn commit(&mut self, commit: Lsn, end: Lsn) -> Result<(), StreamError> {
        match self.transaction.take() {
            Some(transaction) if transaction.commit == commit => {}
            _ => {
                let what = "a COMMIT came that no BEGIN announced";
                return Err(StreamError::OutOfOrder { what, at: commit });
            }
        }
        self.last_commit = commit;
        self.received = self.received.max(end);
        self.passed.transactions += 1;
        self.frontier.commit(commit, end);
        Ok(())
    }

    fn insert(
        &mut self,
        relation: u32,
        row: Tuple<'_>,
        sink: &mut impl Sink,
    ) -> Result<Step, StreamError> {
        let Some(place) = self.place()? else { return Ok(Step::Taken) };
        Ok(self.offer(Whose::Relation(relation), row, place, sink))
    }

    /// Each message of a transaction counts as a row, so that a row's number does not depend on
    /// the rules; those that are no events are stepped over.
    fn message(
        &mut self,
        transactional: bool,
        prefix: &[u8],
        content: &[u8],
        sink: &mut impl Sink,
    ) -> Result<Step, StreamError> {
        let rule = self.outboxes.rule(prefix);
        if !transactional {
            self.passed.loose += u64::from(rule.is_some());
            return Ok(rule.map_or(Step::Taken, Step::Loose));
        }
        let Some(place) = self.place()? else { return Ok(Step::Taken) };
        let Some(rule) = rule else {
            self.next_row();
            return Ok(Step::Taken);
        };
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        row.shrink_to(KEPT_BYTES);
        let fault = self.outboxes.write(rule, prefix, content, &mut row);
        let whose = Whose::Rule { rule, fault: fault.as_deref() };
        let step = match Tuple::of(&row) {
            Ok(tuple) => Ok(self.offer(whose, tuple, place, sink)),
            Err(malformed) => Err(self.malformed(malformed)),
        };
        self.row = row;
        step
    }

    fn next_row(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.row += 1;
        }
    }

    /// Where the row that has come stands; none if it is stepped over.
    #[inline]
    fn place(&mut self) -> Result<Option<Place>, StreamError> {
        let Some(transaction) = &mut self.transaction else {
            let what = "a row came outside a transaction";
            return Err(StreamError::OutOfOrder { what, at: self.last_commit });
        };
        let Transaction { commit, committed_us, xid, row: number } = *transaction;
        let position = Position { epoch: self.epoch, commit, row: number };
        if self.done.is_some_and(|done| position <= done) {
            transaction.row += 1;
            return Ok(None);
        }
        if commit < self.frontier.read() && self.frontier.open() != Some(commit) {
            // It would be confirmed without having been sent.
            let what = "a row came of a transaction from before what had been read";
            return Err(StreamError::OutOfOrder { what, at: commit });
        }
        Ok(Some(Place { position, committed_us, xid }))
    }

    fn update(&self, relation: u32) -> Step {
        let Some(transaction) = self.transaction else { return Step::Taken };
        let Transaction { commit, row, .. } = transaction;
        let next = Position { epoch: self.epoch, commit, row };
        match self.outboxes.on_update(relation) {
            _ if self.done.is_some_and(|done| next <= done) => Step::Taken,
            None | Some((OnUpdate::Ignore, _)) => Step::Taken,
            Some((OnUpdate::Warn, _)) => Step::Updated(relation),
            Some((OnUpdate::Halt, table)) => {
                Step::Stuck(Stuck::Updated { table: table.clone(), at: commit })
            }
        }
    }

    fn malformed(&self, malformed: Malformed) -> StreamError {
        let near = self.transaction.map_or(self.last_commit, |transaction| transaction.commit);
        StreamError::Malformed { malformed, near }
    }
}

#[cfg(test)]
#[path = "pipe_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "pipe_letters_tests.rs"]
mod letters_tests;

#[cfg(test)]
#[path = "pipe_steps_tests.rs"]
mod steps_tests;

#[cfg(test)]
#[path = "pipe_messages_tests.rs"]
mod messages_tests;
