//! What was written, by those who wrote it: the truth that arrivals are compared with.
//!
//! Each key has a counter in the table `seq`. A transaction that writes an event of a key moves
//! the counter and puts its value into the payload. The row lock on the counter makes the order of
//! the commits the order of the numbers, and a rollback takes the number back: so whatever is
//! committed, the events of a key are 1, 2, 3 … up to its counter.
//!
//! Each transaction also leaves its own number in the table `wrote`. Where the connection died
//! during COMMIT, that tells afterwards how it ended.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use tokio_postgres::Client;

pub mod checker;
pub mod seen;

/// The tables that the truth is in.
pub(crate) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS seq (key int PRIMARY KEY, n int NOT NULL);
    CREATE TABLE IF NOT EXISTS wrote (number bigint PRIMARY KEY);";

/// Names one event: a UUID that says which transaction wrote it, in which statement, of which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId {
    /// The transaction's number; no two transactions of a process have the same.
    pub transaction: u64,
    /// Counted in the transaction; a step writes at most one event of a key.
    pub step: u32,
    /// The number in the key `k7`.
    pub key: u32,
}

impl EventId {
    /// Reads a UUID as Postgres prints it.
    pub fn parse(text: &str) -> Option<EventId> {
        let digits: String = text.chars().filter(|&c| c != '-').collect();
        let bits = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
        let part = |shift: u32| u32::try_from(bits >> shift & 0xFFFF_FFFF).ok();
        let transaction = u64::try_from(bits >> 64).ok()?;
        Some(EventId { transaction, step: part(32)?, key: part(0)? })
    }

    /// The first and the last that a transaction can have.
    pub(crate) fn range(transaction: u64) -> [String; 2] {
        [0, u32::MAX].map(|n| EventId { transaction, step: n, key: n }.to_string())
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:08x}{:08x}", self.transaction, self.step, self.key)
    }
}

/// An event, with its place among those of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which.
    pub id: EventId,
    /// From 1.
    pub n: u32,
}

/// How a transaction ended, as far as its writer knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server said so.
    Committed(Vec<Event>),
    /// It was rolled back, or never asked to commit.
    RolledBack,
    /// The connection died before the answer. What it wrote, as far as that is known.
    Unknown(Vec<Event>),
}

#[derive(Debug, Default)]
struct Log {
    transactions: BTreeMap<u64, Outcome>,
    committed: u64,
    /// Transactions up to this one may be missing on the timeline that counts in the end.
    forked_after: u64,
}

/// A log of transactions that writers share. Clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<Log>>);

static NUMBER: AtomicU64 = AtomicU64::new(1);

impl History {
    /// A transaction begins; returns its number. Its outcome is unknown until it is told.
    pub fn begin(&self) -> u64 {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        self.lock().transactions.insert(number, Outcome::Unknown(Vec::new()));
        number
    }

    /// A transaction ended.
    pub fn end(&self, transaction: u64, outcome: Outcome) {
        let mut log = self.lock();
        if let Outcome::Committed(events) = &outcome {
            log.committed += events.len() as u64;
        }
        log.transactions.insert(transaction, outcome);
    }

    /// Events known to be committed so far.
    pub fn committed(&self) -> u64 {
        self.lock().committed
    }

    /// The number of the next transaction to begin.
    pub fn next(&self) -> u64 {
        NUMBER.load(Ordering::Relaxed)
    }

    /// The server was replaced by one that need not know all that was committed until now.
    pub fn fork(&self) {
        self.lock().forked_after = self.next() - 1;
    }

    /// Resolves what is unknown with the help of the database, and holds all against it.
    ///
    /// # Errors
    /// If the history does not fit the database: then it cannot be used to judge others.
    pub async fn settle(&self, client: &Client) -> Result<Truth> {
        let rows = client.query("SELECT number FROM wrote", &[]).await?;
        let wrote = rows.iter().map(|row| u64::try_from(row.get::<_, i64>(0)));
        let wrote: HashSet<u64> = wrote.collect::<Result<_, _>>()?;
        let (transactions, forked_after) = {
            let log = self.lock();
            (log.transactions.clone(), log.forked_after)
        };
        let mut truth = Truth::default();
        for (number, outcome) in transactions {
            let (there, may_be_gone) = (wrote.contains(&number), number <= forked_after);
            match outcome {
                Outcome::RolledBack => {
                    ensure!(!there, "transaction {number} was rolled back, and is there");
                }
                Outcome::Committed(events) if there => truth.commit(events),
                Outcome::Unknown(events) if there && !events.is_empty() => truth.commit(events),
                Outcome::Unknown(_) if there => truth.commit(events_of(client, number).await?),
                Outcome::Committed(events) => {
                    ensure!(may_be_gone, "Postgres lost transaction {number} after its commit");
                    truth.diverge(number, events.len());
                }
                Outcome::Unknown(events) if may_be_gone => truth.diverge(number, events.len()),
                Outcome::Unknown(_) => {}
            }
        }
        let rows = client.query("SELECT key, n FROM seq WHERE n > 0", &[]).await?;
        let counters = rows.iter().map(|row| {
            let (key, n): (i32, i32) = (row.get(0), row.get(1));
            Ok((u32::try_from(key)?, u32::try_from(n)?))
        });
        truth.fits(&counters.collect::<Result<_>>()?)?;
        Ok(truth)
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The events of a transaction that are in the table.
pub(crate) async fn events_of(
    client: &impl tokio_postgres::GenericClient,
    transaction: u64,
) -> Result<Vec<Event>, tokio_postgres::Error> {
    let [first, last] = EventId::range(transaction);
    let sql = format!(
        "SELECT id::text, (payload->>'n')::int FROM outbox WHERE id BETWEEN '{first}' AND '{last}'"
    );
    let rows = client.query(&sql, &[]).await?;
    let event = |row: &tokio_postgres::Row| {
        let n = u32::try_from(row.get::<_, i32>(1)).ok()?;
        Some(Event { id: EventId::parse(row.get(0))?, n })
    };
    Ok(rows.iter().filter_map(event).collect())
}

/// What is committed, on the timeline that counts.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    numbers: HashMap<EventId, u32>,
    /// Transactions that were committed, or may have been, on a timeline that was left.
    diverged: HashSet<u64>,
    /// The events of them that were known to be committed.
    diverged_events: u64,
}

impl Truth {
    /// Adds the events of a committed transaction.
    pub fn commit(&mut self, events: impl IntoIterator<Item = Event>) {
        self.numbers.extend(events.into_iter().map(|event| (event.id, event.n)));
    }

    /// Adds a transaction that is gone with its timeline; its events may have arrived before.
    pub fn diverge(&mut self, transaction: u64, events: usize) {
        self.diverged.insert(transaction);
        self.diverged_events += events as u64;
    }

    /// Takes committed transactions out, which nobody may get to see. Returns how many events.
    pub fn forget(&mut self, transactions: &Range<u64>) -> u64 {
        let before = self.events();
        self.numbers.retain(|id, _| !transactions.contains(&id.transaction));
        before - self.events()
    }

    /// How many events are committed.
    pub fn events(&self) -> u64 {
        self.numbers.len() as u64
    }

    /// How many committed events are gone with a timeline that was left.
    pub fn diverged_events(&self) -> u64 {
        self.diverged_events
    }

    /// Whether the events of each key are 1, 2, 3 … up to its counter.
    fn fits(&self, counters: &HashMap<u32, u32>) -> Result<()> {
        let mut found: HashMap<u32, Vec<u32>> = HashMap::new();
        for (id, n) in &self.numbers {
            found.entry(id.key).or_default().push(*n);
        }
        ensure!(found.len() == counters.len(), "the history has other keys than the database");
        for (key, mut numbers) in found {
            numbers.sort_unstable();
            let last = counters.get(&key).context("a key that the database does not know")?;
            ensure!(
                numbers.iter().copied().eq(1..=*last),
                "the history of key {key} ends at {:?} with {} events, the database's at {last}",
                numbers.last(),
                numbers.len()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid() {
        let id = EventId { transaction: 0x0123_4567_89AB, step: 7, key: u32::MAX };
        assert_eq!(EventId::parse("00000123-4567-89ab-0000-0007ffffffff"), Some(id));
        assert_eq!(EventId::parse(&id.to_string()), Some(id));
        assert_eq!(EventId::parse("00000123-4567-89ab-0000-0007fffffff"), None);
        assert_eq!(EventId::parse("k1"), None);
    }

    #[test]
    fn a_history_that_does_not_fit_the_database_judges_nobody() {
        let event = |transaction, n| Event { id: EventId { transaction, step: 0, key: 1 }, n };
        let mut truth = Truth::default();
        truth.commit([event(1, 1), event(2, 2)]);
        assert!(truth.fits(&HashMap::from([(1, 2)])).is_ok());
        assert!(truth.fits(&HashMap::from([(1, 3)])).is_err(), "an event that nobody noted");
        assert!(truth.fits(&HashMap::from([(1, 1)])).is_err(), "an event that is not there");
        assert!(truth.fits(&HashMap::from([(1, 2), (2, 1)])).is_err(), "a key that nobody noted");
    }
}
