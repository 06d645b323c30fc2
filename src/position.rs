//! The position record: what is remembered in Kafka of how far the relay has got, and what follows
//! from it at a start.
//!
//! The slot alone cannot be trusted with it. Up to version 16 Postgres forgets the latest
//! confirmed position when it restarts; a slot that was dropped and made anew looks like any other;
//! and no slot knows how far a transaction was sent. The record knows all three, and since the slot
//! is only confirmed up to what has been written here, a slot *beyond* the record proves a gap.

use std::cmp::Ordering;

use serde_json::{Value, json};

use crate::frontier::Reached;
use crate::lsn::{Lsn, Position};

/// The layout of the JSON, and the way rows are numbered.
const VERSION: u64 = 1;

/// Which stream a record is about. One record for each is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Postgres' system identifier.
    pub system: String,
    /// OID of the database.
    pub database: u32,
    /// The slot.
    pub slot: String,
}

impl Source {
    /// Key of the record, by which the topic is compacted.
    pub fn key(&self) -> String {
        format!("{}/{}/{}", self.system, self.database, self.slot)
    }

    /// Whether a key is of a slot of the same name, but in another cluster or database.
    pub fn is_namesake(&self, key: &str) -> bool {
        key != self.key() && key.rsplit('/').next() == Some(&*self.slot)
    }
}

/// What a position is worth: LSNs name other content on another timeline, and rows have other
/// numbers in another publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Postgres' timeline.
    pub timeline: u32,
    /// What numbers the rows: the publication, and messages if they count.
    pub publication: String,
    /// The epoch that positions bear.
    pub epoch: u32,
}

/// A position record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionRecord {
    /// Where it is valid.
    pub context: Context,
    /// Everything before it is in Kafka.
    pub end: Lsn,
    /// And behind it, the rows up to this one.
    pub inside: Option<Position>,
    /// Where a server of this identity was seen that had not got as far. It is refused for ever,
    /// because it may grow: once it is beyond `end`, nothing tells it from the one that was read.
    pub behind: Option<Lsn>,
}

/// What is remembered of one slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// The record of this very source.
    pub record: Option<PositionRecord>,
    /// The latest epoch of a slot of the same name elsewhere, with how far it was read.
    pub elsewhere: Option<(u32, Lsn)>,
    /// How far the same process has read before, on the timeline of the record.
    pub read: Lsn,
}

impl Remembered {
    /// Takes in a record of the topic, in the order in which they stand there.
    pub fn take(&mut self, source: &Source, key: &[u8], value: &[u8]) -> Result<(), BadRecord> {
        let key = String::from_utf8_lossy(key);
        if key == source.key() {
            let record = PositionRecord::parse(value)?;
            // Not the last one alone: behind it may stand what a relay that was cut off had under
            // way.
            self.record = Some(match self.record.take() {
                Some(before) => before.joined(record),
                None => record,
            });
        } else if source.is_namesake(&key)
            && let Ok(record) = PositionRecord::parse(value)
        {
            self.elsewhere = self.elsewhere.max(Some((record.context.epoch, record.end)));
        }
        Ok(())
    }
}

/// The record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the position record {0} is not one of this version's: {1}")]
pub struct BadRecord(pub String, pub String);

impl PositionRecord {
    /// The latest commit of which something was delivered.
    fn furthest(&self) -> Lsn {
        self.inside.map_or(self.end, |row| self.end.max(row.commit))
    }

    /// What this record and a later one of the same source tell together. Of two epochs the higher
    /// one counts, and within it the higher timeline: first starts all have the same epoch.
    /// Otherwise everything that either says is in Kafka is there: one may have got further into a
    /// transaction, and the other one further in front of it, to where the slot may stand by now.
    /// And a server that was behind stays so.
    #[must_use]
    pub fn joined(self, later: PositionRecord) -> PositionRecord {
        let history = |record: &PositionRecord| (record.context.epoch, record.context.timeline);
        match history(&self).cmp(&history(&later)) {
            Ordering::Less => return later,
            Ordering::Greater => return self,
            Ordering::Equal => {}
        }
        let end = self.end.max(later.end);
        // Rows have other numbers in another publication.
        let renumbered = self.context.publication != later.context.publication;
        let inside = if renumbered { later.inside } else { self.inside.max(later.inside) };
        let inside = inside.filter(|row| row.commit >= end);
        PositionRecord { end, inside, behind: later.behind.or(self.behind), ..later }
    }

    /// What there is to remember.
    pub fn new(context: Context, reached: Reached) -> PositionRecord {
        let end = reached.flush.lsn();
        PositionRecord { context, end, inside: reached.inside, behind: None }
    }

    /// The value of the record.
    pub fn to_json(&self, source: &Source) -> String {
        let PositionRecord { context, end, inside, behind } = self;
        json!({
            "version": VERSION,
            "system_identifier": source.system,
            "database": source.database,
            "slot": source.slot,
            "timeline": context.timeline,
            "publication": context.publication,
            "epoch": context.epoch,
            "end_lsn": end.to_string(),
            "commit_lsn": inside.map(|row| row.commit.to_string()),
            "row": inside.map(|row| row.row),
            "server_behind": behind.map(|server| server.to_string()),
        })
        .to_string()
    }

    /// Reads the value of a record.
    pub fn parse(value: &[u8]) -> Result<PositionRecord, BadRecord> {
        let shown = || String::from_utf8_lossy(value).chars().take(500).collect();
        let bad = |what: &str| BadRecord(shown(), what.to_owned());
        let json: Value = serde_json::from_slice(value).map_err(|error| bad(&error.to_string()))?;
        if json.get("version") != Some(&VERSION.into()) {
            return Err(bad("unknown version"));
        }
        let lsn = |name: &str| json.get(name)?.as_str()?.parse().ok();
        let number = |name: &str| json.get(name)?.as_u64().and_then(|n| u32::try_from(n).ok());
        let publication = json.get("publication").and_then(Value::as_str);
        let epoch = number("epoch").ok_or_else(|| bad("no epoch"))?;
        let inside = lsn("commit_lsn").zip(number("row"));
        Ok(PositionRecord {
            context: Context {
                timeline: number("timeline").ok_or_else(|| bad("no timeline"))?,
                publication: publication.ok_or_else(|| bad("no publication"))?.to_owned(),
                epoch,
            },
            end: lsn("end_lsn").ok_or_else(|| bad("no end_lsn"))?,
            inside: inside.map(|(commit, row)| Position { epoch, commit, row }),
            behind: lsn("server_behind"),
        })
    }
}

/// What a start finds.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// What is remembered.
    pub remembered: Remembered,
    /// Where the slot stands.
    pub slot: Lsn,
    /// Where the server writes.
    pub server: Lsn,
    /// The server's timeline.
    pub timeline: u32,
    /// Where it left the record's timeline, if it is on a later one.
    pub switched: Option<Lsn>,
    /// What numbers the rows now.
    pub publication: &'a str,
}

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// `START_REPLICATION` from here.
    pub from: Lsn,
    /// Rows up to this one are stepped over.
    pub inside: Option<Position>,
    /// The epoch of the positions to come.
    pub epoch: u32,
    /// What the operator should know.
    pub remark: Option<String>,
}

/// Events are missing between record and slot, or the record belongs to another history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// The slot is further than what was delivered.
    #[error(
        "the slot stands at {slot}, but only what lies before {record} was delivered: the slot was \
         moved or made anew, and the events between were not sent"
    )]
    SlotBeyond {
        /// The slot's position.
        slot: Lsn,
        /// The record's.
        record: Lsn,
    },
    /// The slot did not come along when a standby was promoted, or not far enough back.
    #[error(
        "a standby was promoted: timeline {before} was left at {switched}, and events up to \
         {record} were delivered{}; but the slot stands at {slot}, and the events from {from} to \
         there were not sent", lost(*.record, *.switched)
    )]
    SlotBeyondSwitch {
        /// The slot's position.
        slot: Lsn,
        /// The record's.
        record: Lsn,
        /// Where the record's timeline was left.
        switched: Lsn,
        /// The record's timeline.
        before: u32,
        /// Where it would have to go on.
        from: Lsn,
    },
    /// The server has not got as far as what was delivered, or had not when it was first seen.
    #[error(
        "Postgres was found at {server}, but what lies before {record} was delivered already: it \
         was restored from a backup, and events that are new there would be skipped"
    )]
    ServerBehind {
        /// The server's position when it was first seen.
        server: Lsn,
        /// The record's.
        record: Lsn,
    },
    /// The server is on a timeline from before a promotion.
    #[error(
        "Postgres is on timeline {now}, but timeline {record} was read before: it is the primary \
         of before the promotion, or was restored from a backup. If it is the old primary, stop \
         it, or take it out of postgres.url"
    )]
    EarlierTimeline {
        /// The server's timeline.
        now: u32,
        /// The record's.
        record: u32,
    },
    /// The server's history does not contain the record's timeline.
    #[error(
        "Postgres is on timeline {now}, whose history does not contain timeline {record} of the \
         last delivery: it was restored from a backup of another branch"
    )]
    OtherBranch {
        /// The server's timeline.
        now: u32,
        /// The record's.
        record: u32,
    },
}

/// What is said of events that were delivered and do not exist any more.
fn lost(record: Lsn, switched: Lsn) -> &'static str {
    if record > switched { ", of which Postgres has lost those behind that" } else { "" }
}

impl Found<'_> {
    /// Decides where to begin. With `accept_gap`, a gap is remarked upon and the slot counts.
    pub fn start(&self, accept_gap: bool) -> Result<Start, Gap> {
        let Some(record) = &self.remembered.record else { return Ok(self.first()) };
        match self.judge(record) {
            Err(gap) if accept_gap => {
                let end = match gap {
                    Gap::SlotBeyondSwitch { from, .. } => from,
                    _ => record.end,
                };
                let remark = format!("accepted a gap, from {end} to {}: {gap}", self.slot);
                let epoch = self.later_epoch(record);
                Ok(Start { from: self.slot, inside: None, epoch, remark: Some(remark) })
            }
            judged => judged,
        }
    }

    /// Nothing is known of this server and slot. LSNs of another server compare with nothing
    /// here, so that a cluster that takes the place of another one needs an epoch of its own.
    fn first(&self) -> Start {
        let (epoch, remark) = match self.remembered.elsewhere {
            None => (0, None),
            Some((epoch, end)) => {
                let remark = format!(
                    "nothing is remembered of this Postgres, and the slot counts; a slot of this \
                     name was read up to {end} of another Postgres or database. If this one took \
                     its place, compare the outbox with Kafka"
                );
                (epoch + 1, Some(remark))
            }
        };
        Start { from: self.slot, inside: None, epoch, remark }
    }

    fn judge(&self, record: &PositionRecord) -> Result<Start, Gap> {
        let Context { timeline, epoch, ref publication } = record.context;
        let (slot, end) = (self.slot, record.end);
        if let Some(server) = record.behind {
            return Err(Gap::ServerBehind { server, record: end });
        }
        if timeline > self.timeline {
            return Err(Gap::EarlierTimeline { now: self.timeline, record: timeline });
        }
        if timeline < self.timeline {
            let switched = self.switched;
            let branch = Gap::OtherBranch { now: self.timeline, record: timeline };
            return self.after_promotion(record, switched.ok_or(branch)?);
        }
        // What was read may be in Kafka, or get there; LSNs behind the server will name other rows.
        let (server, read) = (self.server, end.max(self.remembered.read));
        if server < read || record.inside.is_some_and(|row| server <= row.commit) {
            return Err(Gap::ServerBehind { server, record: read });
        }
        if slot > end {
            return Err(Gap::SlotBeyond { slot, record: end });
        }
        let renumbered = publication != self.publication && record.inside.is_some();
        let remark = renumbered.then(|| {
            format!(
                "rows are numbered by the publication {}, and were by {publication}: a transaction \
                 that was sent in part is sent again from its first row",
                self.publication
            )
        });
        let inside = record.inside.filter(|_| !renumbered);
        // Rows bear their positions a second time only if they are sent a second time.
        Ok(Start { from: end, inside, epoch, remark })
    }

    /// The epoch of positions that follow upon another history than the record's. Each promotion
    /// counts, whether or not a relay has seen it: one that was cut off may have a record under
    /// way of a timeline in between, and this start's must be the later one.
    fn later_epoch(&self, record: &PositionRecord) -> u32 {
        let Context { timeline, epoch, .. } = record.context;
        epoch.saturating_add(self.timeline.saturating_sub(timeline).max(1))
    }

    /// A standby was promoted at `switched`. LSNs behind it name other content now.
    fn after_promotion(&self, record: &PositionRecord, switched: Lsn) -> Result<Start, Gap> {
        let (from, epoch) = (record.end.min(switched), self.later_epoch(record));
        let (before, now) = (record.context.timeline, self.timeline);
        if self.slot > from {
            let (slot, record) = (self.slot, record.furthest());
            return Err(Gap::SlotBeyondSwitch { slot, record, switched, before, from });
        }
        let lost = record.end > switched || record.inside.is_some_and(|row| row.commit >= switched);
        let remark = if lost {
            format!(
                "a standby was promoted: timeline {now} leaves timeline {before} at {switched}, \
                 but events up to {} were delivered already. Those that lie between are in Kafka \
                 and were lost in Postgres; they cannot be taken back. Everything new is sent",
                record.furthest()
            )
        } else {
            format!(
                "a standby was promoted: timeline {now} follows timeline {before} at {switched}, \
                 behind everything that was delivered"
            )
        };
        // A transaction of the old timeline that was sent in part may not exist on the new one.
        let renumbered = record.context.publication != self.publication;
        let inside =
            record.inside.filter(|_| !lost && !renumbered).map(|row| Position { epoch, ..row });
        Ok(Start { from, inside, epoch, remark: Some(remark) })
    }
}

/// Where the timeline was left, from the content of a history file
/// (`TIMELINE_HISTORY`: parent timeline, switch LSN and reason on each line).
pub fn switched(history: &str, timeline: u32) -> Option<Lsn> {
    history.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let parent: u32 = fields.next()?.parse().ok()?;
        let lsn = fields.next()?.parse().ok()?;
        (parent == timeline).then_some(lsn)
    })
}

#[cfg(test)]
#[path = "position_tests.rs"]
mod tests;
