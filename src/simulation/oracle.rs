//! What must hold after every step, whatever has happened.
//!
//! It looks at the broker's and the server's side alone: what became of each row that was ever
//! committed, what the slot was told, and what a consumer that compares positions makes of it.

use super::broker::Broker;
use super::server::Server;
use crate::lsn::{Lsn, Position};
use crate::position::PositionRecord;

/// What became of a row.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
struct Fate {
    key: usize,
    commit: u64,
    row: u32,
    /// The row of the same key that committed before it, in the history that the server has.
    before: Option<usize>,
    /// Whether it is in that history, and was not lost with a promotion or a restored backup.
    exists: bool,
    /// Whether it is in Kafka.
    delivered: bool,
    /// How often it may yet come again: something has failed while it was under way.
    repeats: u32,
    /// The epoch in which a consumer that drops repeats has taken it.
    consumed: Option<u32>,
    /// Somebody moved the slot past it.
    passed: bool,
    /// Somebody accepted that it is missing.
    forgone: bool,
}

#[derive(Debug, Default)]
pub struct Oracle {
    fates: Vec<Fate>,
    /// The last row of each key.
    last: [Option<usize>; 4],
    /// The highest position that a consumer has seen of each key.
    seen: [Option<Position>; 4],
    /// Transactions at the head of the log whose rows are all in Kafka, or need not be.
    settled: usize,
    /// Two relays are at work, and what one sends the other one may have sent.
    pub shared: bool,
    /// How many repeats there were.
    pub repeated: u64,
}

impl Oracle {
    /// The server's last transaction has committed.
    pub fn committed(&mut self, server: &Server) {
        let transaction = server.state.log.last().unwrap();
        for (row, number) in (0..).zip(transaction.rows.clone()) {
            let key = usize::from(server.rows[number].key);
            let before = self.last[key].replace(number);
            let commit = transaction.commit;
            self.fates.push(Fate { key, commit, row, before, exists: true, ..Fate::default() });
        }
    }

    /// The server has another history now.
    pub fn rewritten(&mut self, server: &Server) {
        self.settled = 0;
        self.last = [None; 4];
        self.fates.iter_mut().for_each(|fate| fate.exists = false);
        for number in server.state.log.iter().flat_map(|it| it.rows.clone()) {
            let fate = &mut self.fates[number];
            fate.exists = true;
            fate.before = self.last[fate.key].replace(number);
        }
    }

    /// A record was handed over: it must be one of a row, as it was committed.
    pub fn sent(&self, number: usize, key: &[u8], position: Position) {
        let fate = self.fates.get(number).expect("a record of a row that was never committed");
        assert_eq!(key, [b'a' + u8::try_from(fate.key).unwrap()], "row {number} under another key");
        let place = (position.commit.to_wire(), position.row);
        assert_eq!(place, (fate.commit, fate.row), "row {number} bears another position");
    }

    /// The broker has one record more.
    pub fn delivered(&mut self, number: usize, position: Position) {
        let gone = |fate: &Fate| fate.delivered || fate.forgone;
        let earlier = self.fates[number].before;
        let before = earlier.is_none_or(|before| gone(&self.fates[before]));
        let fate = &mut self.fates[number];
        if fate.delivered {
            self.repeated += 1;
            let allowed = self.shared || fate.repeats > 0;
            assert!(allowed, "row {number} was repeated");
            fate.repeats = fate.repeats.saturating_sub(1);
        }
        fate.delivered = true;
        let (exists, key, consumed) = (fate.exists, fate.key, fate.consumed);
        assert!(before || !exists, "row {number} passed {earlier:?} of its key");
        let new = self.seen[key].is_none_or(|seen| seen < position);
        if new {
            let twice = consumed.is_some_and(|epoch| epoch == position.epoch);
            assert!(!twice, "a consumer takes row {number} for a new one twice");
            (self.fates[number].consumed, self.seen[key]) = (Some(position.epoch), Some(position));
        } else {
            let same = self.seen[key].is_some_and(|seen| seen.epoch == position.epoch);
            let lost = exists && same && consumed.is_none();
            assert!(!lost, "a consumer takes row {number} for a repeat, and it is none");
        }
    }

    /// Whether every row of these transactions is where it must be.
    fn is_settled(&self, rows: std::ops::Range<usize>) -> bool {
        self.fates[rows].iter().all(|fate| fate.delivered || fate.passed || fate.forgone)
    }

    /// Nothing is confirmed beyond what is in Kafka. `flush` was told to the server, or is what
    /// its slot says.
    pub fn check(&mut self, server: &Server, flush: u64) {
        let log = &server.state.log;
        while log.get(self.settled).is_some_and(|it| self.is_settled(it.rows.clone())) {
            self.settled += 1;
        }
        if let Some(first) = log.get(self.settled) {
            let rows = first.rows.clone();
            assert!(flush <= first.commit, "{flush} confirmed, but {rows:?} are not in Kafka");
        }
    }

    /// A stream begins: what lies before it is in Kafka, under way there, or given up by somebody.
    pub fn check_start(&self, server: &Server, start: u64, broker: &Broker, client: usize) {
        let skipped = server.state.log.iter().skip(self.settled).filter(|it| it.commit < start);
        for number in skipped.flat_map(|it| it.rows.clone()) {
            let fate = &self.fates[number];
            let safe = fate.delivered || fate.forgone || broker.carries(client, number);
            assert!(safe, "a stream began behind row {number}, which was not sent");
        }
    }

    /// Somebody moved the slot.
    pub fn slot_moved(&mut self, server: &Server) {
        let slot = server.state.slot.unwrap_or(server.state.written);
        self.fates.iter_mut().filter(|it| it.commit < slot).for_each(|it| it.passed = true);
    }

    /// Somebody says that the slot counts, whatever is missing before it; and what lies behind it
    /// may come again.
    pub fn gap_accepted(&mut self, server: &Server) {
        let slot = server.state.slot.unwrap_or(server.state.written);
        for fate in self.fates.iter_mut().filter(|fate| fate.exists) {
            if fate.commit < slot {
                fate.forgone |= fate.consumed.is_none();
            } else {
                fate.repeats += u32::from(fate.delivered);
            }
        }
    }

    /// What is behind this place may come again, where it has been sent.
    pub fn may_repeat(&mut self, end: Lsn, inside: Option<Position>, broker: &Broker) {
        let inside = inside.map(|it| (it.commit.to_wire(), it.row));
        let mut sent: Vec<_> = self.fates.iter().map(|fate| fate.delivered).collect();
        broker.under_way().for_each(|number| sent[number] = true);
        for (fate, _) in self.fates.iter_mut().zip(sent).filter(|(_, sent)| *sent) {
            let behind = inside.is_none_or(|inside| inside < (fate.commit, fate.row));
            fate.repeats += u32::from(behind && fate.commit >= end.to_wire());
        }
    }

    /// A relay has forgotten everything: what the topic remembers is what counts.
    pub fn forgot(&mut self, broker: &Broker) {
        let (end, inside) =
            remembered(broker).map_or_else(Default::default, |it| (it.end, it.inside));
        self.may_repeat(end, inside, broker);
    }

    /// Rows that lie behind this place and are, or may come to be, in Kafka.
    pub fn reaches_beyond(&self, written: u64, broker: &Broker) -> bool {
        let beyond = |fate: &Fate| fate.commit >= written;
        self.fates.iter().any(|fate| fate.delivered && beyond(fate))
            || broker.under_way().any(|number| beyond(&self.fates[number]))
    }

    /// At the end: everything that exists is there, consumed and confirmed.
    pub fn is_done(&self, server: &Server) -> bool {
        let consumed = |fate: &Fate| !fate.exists || fate.consumed.is_some() || fate.forgone;
        // What would come again on a new connection is not confirmed.
        let comes_again = |slot| server.state.log.iter().any(|it| it.commit >= slot);
        let confirmed = server.state.slot.is_some_and(|slot| {
            if server.quiet { !comes_again(slot) } else { slot == server.state.written }
        });
        confirmed && self.fates.iter().all(consumed)
    }
}

/// The record in the topic that tells of the most, by the oracle's own reckoning.
pub fn remembered(broker: &Broker) -> Option<&PositionRecord> {
    broker.positions.iter().max_by_key(|record| {
        let commit = record.inside.map_or(record.end, |row| row.commit);
        (record.context.epoch, commit.max(record.end), record.inside.map(|row| row.row))
    })
}

/// Whether it is remembered that a server was behind.
pub fn is_refused(broker: &Broker) -> bool {
    let epoch = remembered(broker).map(|record| record.context.epoch);
    let mut records = broker.positions.iter();
    records.any(|record| record.behind.is_some() && Some(record.context.epoch) == epoch)
}
