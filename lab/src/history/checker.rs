//! Compares what arrived with what was committed. Pure: no server, no clock.

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::history::seen::Seen;
use crate::history::{EventId, Truth};

/// As many faults are described; the others are only counted.
const DESCRIBED_MAX: usize = 12;

/// What the check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Records looked at.
    pub records: u64,
    /// Committed and not arrived.
    pub lost: u64,
    /// Arrived and never committed: rolled back, or never written.
    pub invented: u64,
    /// Arrived for the first time behind a later event of the same key.
    pub reordered: u64,
    /// On a partition on which the key has no business.
    pub misplaced: u64,
    /// With another key or content than was written.
    pub mangled: u64,
    /// Arrived for the first time with a position that is missing, or not beyond those before it.
    pub unsorted: u64,
    /// Arrived more than once: how many records too many.
    pub repeated: u64,
    /// The longest run of repeats in one partition.
    pub longest_run: u64,
    /// Records before which something is left out that a replay from there would have held.
    pub torn: u64,
    /// Arrived, and gone in Postgres with a timeline that was left.
    pub diverged: u64,
    /// The first faults, in words.
    pub described: Vec<String>,
}

impl Verdict {
    /// Nothing is lost, invented, out of order or changed. Repeats are another matter.
    pub fn is_faithful(&self) -> bool {
        let Verdict { lost, invented, reordered, misplaced, mangled, unsorted, .. } = self;
        [lost, invented, reordered, misplaced, mangled, unsorted].into_iter().all(|n| *n == 0)
    }

    /// Faithful, and nothing came twice.
    pub fn is_perfect(&self) -> bool {
        self.is_faithful() && self.repeated == 0
    }

    fn note(&mut self, fault: &str, seen: &Seen) {
        let Seen { partition, offset, id, n, position, .. } = seen;
        self.describe(|| {
            let id = id.map_or_else(|| "no id".to_owned(), |id| id.to_string());
            format!("{fault}: {partition}/{offset} {id} n={n:?} at {position:?}")
        });
    }

    fn describe(&mut self, text: impl FnOnce() -> String) {
        if self.described.len() < DESCRIBED_MAX {
            self.described.push(text());
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records: {} lost, {} invented, {} reordered, {} misplaced, {} mangled, \
             {} unsorted; {} repeated (longest run {}, {} torn), {} diverged",
            self.records,
            self.lost,
            self.invented,
            self.reordered,
            self.misplaced,
            self.mangled,
            self.unsorted,
            self.repeated,
            self.longest_run,
            self.torn,
            self.diverged
        )?;
        self.described.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// Judges what was read of a topic, each partition from its beginning.
///
/// `homes` tells the partitions of a key (by its number), one after the other as the topic grew.
pub fn check(truth: &Truth, seen: &[Seen], homes: &impl Fn(u32) -> Vec<i32>) -> Verdict {
    let mut verdict = Verdict { records: seen.len() as u64, ..Verdict::default() };
    let mut places = HashMap::new();
    let mut stage = |record: &Seen| {
        let key = record.id?.key;
        let places: &mut Vec<i32> = places.entry(key).or_insert_with(|| homes(key));
        places.iter().position(|place| *place == record.partition)
    };
    // What is in an earlier home of its key is older.
    let mut records: Vec<(Option<usize>, &Seen)> =
        seen.iter().map(|record| (stage(record), record)).collect();
    records.sort_by_key(|(stage, record)| (*stage, record.partition, record.offset));
    let mut first: HashMap<EventId, (i32, i64)> = HashMap::new();
    let mut last: HashMap<u32, u32> = HashMap::new();
    for (stage, record) in records {
        let Some(id) = record.id else {
            verdict.invented += 1;
            verdict.note("invented, by no writer", record);
            continue;
        };
        if stage.is_none() {
            verdict.misplaced += 1;
            verdict.note("misplaced", record);
        }
        let known = truth.numbers.get(&id);
        if !record.intact || known.is_some_and(|n| record.n != Some(*n)) {
            verdict.mangled += 1;
            verdict.note("mangled", record);
        }
        if first.contains_key(&id) {
            continue;
        }
        first.insert(id, (record.partition, record.offset));
        let last = last.entry(id.key).or_default();
        match known {
            Some(n) if n < last => {
                verdict.reordered += 1;
                verdict.note(&format!("reordered, behind {last}"), record);
            }
            Some(n) => *last = *n,
            None if truth.diverged.contains(&id.transaction) => verdict.diverged += 1,
            None => {
                verdict.invented += 1;
                verdict.note("invented, by no committed transaction", record);
            }
        }
    }
    let missing: HashSet<_> = truth.numbers.keys().filter(|id| !first.contains_key(id)).collect();
    verdict.lost = missing.len() as u64;
    let mut missing: Vec<_> = missing.into_iter().collect();
    missing.sort();
    for id in missing {
        verdict.describe(|| {
            let n = truth.numbers.get(id).copied();
            format!("lost: {id} n={n:?}{}", neighbours(seen, *id, n.unwrap_or_default()))
        });
    }
    check_partitions(&mut verdict, seen, &first);
    verdict
}

/// What arrived of the same transaction, and of the same key next to it: they tell when and where
/// a lost event should have been.
fn neighbours(seen: &[Seen], lost: EventId, n: u32) -> String {
    let is_near = |it: &&Seen| {
        it.id.is_some_and(|id| {
            let beside = it.n.is_some_and(|other| other.abs_diff(n) <= 1);
            id.transaction == lost.transaction || id.key == lost.key && beside
        })
    };
    let told = seen.iter().filter(is_near).take(DESCRIBED_MAX).map(|it| {
        let Seen { partition, offset, id, n, position, .. } = it;
        let id = id.map(|id| id.to_string()).unwrap_or_default();
        format!("\n    near it: {partition}/{offset} {id} n={n:?} at {position:?}")
    });
    told.collect()
}

/// Where a partition's reader is.
#[derive(Default)]
struct Along<'a> {
    /// First occurrences here, numbered in their order.
    order: HashMap<EventId, usize>,
    /// The number of the record before.
    before: Option<usize>,
    /// Repeats in a row.
    run: u64,
    position: Option<&'a str>,
}

/// Within a partition: positions grow but for repeats, and repeats are replays without a hole.
fn check_partitions(verdict: &mut Verdict, seen: &[Seen], first: &HashMap<EventId, (i32, i64)>) {
    let mut sorted: Vec<&Seen> = seen.iter().collect();
    sorted.sort_by_key(|record| (record.partition, record.offset));
    let mut partitions: HashMap<i32, Along<'_>> = HashMap::new();
    for record in sorted {
        let Some(id) = record.id else { continue };
        let along = partitions.entry(record.partition).or_default();
        if first.get(&id) == Some(&(record.partition, record.offset)) {
            let number = along.order.len();
            if along.before.map_or(0, |before| before + 1) != number {
                verdict.torn += 1;
            }
            along.order.insert(id, number);
            (along.before, along.run) = (Some(number), 0);
            let position = record.position.as_deref();
            if position.is_none() || position <= along.position {
                verdict.unsorted += 1;
                verdict.note(&format!("unsorted, behind {:?}", along.position), record);
            }
            along.position = position.max(along.position);
            continue;
        }
        verdict.repeated += 1;
        // One from another partition is of the time before the topic grew.
        if let Some(&number) = along.order.get(&id) {
            let follows = along.before.map(|before| before + 1) == Some(number);
            if !follows {
                if along.before < Some(number) {
                    verdict.torn += 1;
                }
                along.run = 0;
            }
            along.before = Some(number);
        }
        along.run += 1;
        verdict.longest_run = verdict.longest_run.max(along.run);
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
