//! What a process knows of its server from before, and whether the one it finds is still that.

use crate::lsn::Lsn;
use crate::remedy::Remedy;

/// A server's identity, from `IDENTIFY_SYSTEM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Made by `initdb`; a standby and a restored backup share it.
    pub identifier: String,
    /// Grows by one with each promotion.
    pub timeline: u32,
}

/// What the relay knows from before, in this process.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// The server it has read from; none before the first session.
    pub system: Option<System>,
    /// The server process that it read through.
    pub backend_pid: Option<i32>,
    /// The position it has confirmed, or may confirm.
    pub reached: Lsn,
    /// How far it has read. Rows up to there may be on their way.
    pub received: Lsn,
    /// Whether positions are remembered in Kafka, by this relay and by others.
    pub remembers: bool,
}

/// The server is not what it was a moment ago, or its slot is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Changed {
    /// The slot has moved without us, and nothing is remembered that could tell why.
    #[error(
        "slot {slot} was moved from {expected} to {found} by somebody else; the events between \
         were not sent. Compare the outbox with Kafka; then stop the relay and run once: \
         walrelay run --accept-gap"
    )]
    Moved {
        /// Its name.
        slot: String,
        /// What we have confirmed.
        expected: Lsn,
        /// Where it is.
        found: Lsn,
    },
    /// The slot has moved without us; another relay may have read from it meanwhile.
    #[error("slot {slot} was moved from {expected} to {found} by somebody else")]
    Overtaken {
        /// Its name.
        slot: String,
        /// What we have confirmed.
        expected: Lsn,
        /// Where it is.
        found: Lsn,
    },
    /// A standby was promoted while we ran.
    #[error("Postgres is on timeline {now} now, and was on {before}")]
    OtherTimeline {
        /// The timeline.
        now: u32,
        /// The one before.
        before: u32,
    },
    /// The server has an older state than a moment ago.
    #[error("Postgres is at {now}, and was beyond {before}")]
    WentBack {
        /// The server's position.
        now: Lsn,
        /// How far we have read.
        before: Lsn,
    },
    /// This is another server than a moment ago.
    #[error("{0}; the relay would skip events that are new there. Restart it once that is right")]
    OtherServer(String),
}

impl Changed {
    /// What follows.
    pub fn remedy(&self) -> Remedy {
        match self {
            Changed::WentBack { now, .. } => Remedy::BeginAgain { behind: Some(*now) },
            Changed::OtherTimeline { .. } | Changed::Overtaken { .. } => {
                Remedy::BeginAgain { behind: None }
            }
            Changed::Moved { .. } | Changed::OtherServer(_) => Remedy::Halt,
        }
    }
}

impl Before {
    /// Postgres takes any start position, also one it has not reached, and silently skips
    /// everything below it. So a server that is not the one we know must be found out here.
    pub fn check(&self, system: &System, server: Lsn) -> Result<(), Changed> {
        let Some(known) = &self.system else { return Ok(()) };
        if known.identifier != system.identifier {
            return Err(Changed::OtherServer(format!(
                "this is another Postgres than before: its system identifier is {}, not {}",
                system.identifier, known.identifier
            )));
        }
        if known.timeline != system.timeline {
            return Err(Changed::OtherTimeline { now: system.timeline, before: known.timeline });
        }
        if server < self.received {
            return Err(Changed::WentBack { now: server, before: self.received });
        }
        Ok(())
    }

    /// The slot stands where we have confirmed it or, if that was lost in a crash, before it.
    pub fn check_slot(&self, name: &str, found: Lsn) -> Result<(), Changed> {
        let expected = self.reached;
        if self.system.is_none() || found <= expected {
            return Ok(());
        }
        let slot = name.to_owned();
        Err(if self.remembers {
            Changed::Overtaken { slot, expected, found }
        } else {
            Changed::Moved { slot, expected, found }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(remembers: bool) -> Before {
        Before {
            system: Some(System { identifier: "7".to_owned(), timeline: 2 }),
            backend_pid: None,
            reached: Lsn::from_wire(100),
            received: Lsn::from_wire(150),
            remembers,
        }
    }

    #[test]
    fn a_server_that_has_less_than_was_read_went_back() {
        let (before, system) = (before(true), System { identifier: "7".to_owned(), timeline: 2 });
        assert_eq!(before.check(&system, Lsn::from_wire(150)), Ok(()));
        // What is confirmed is not enough: rows up to 150 are on their way.
        let less = Lsn::from_wire(149);
        let changed = before.check(&system, less).unwrap_err();
        assert_eq!(changed.remedy(), Remedy::BeginAgain { behind: Some(less) });
        let promoted = System { timeline: 3, ..system };
        let changed = before.check(&promoted, Lsn::from_wire(500)).unwrap_err();
        assert_eq!(changed, Changed::OtherTimeline { now: 3, before: 2 });
        assert_eq!(changed.remedy(), Remedy::BeginAgain { behind: None });
        let other = System { identifier: "8".to_owned(), timeline: 2 };
        let changed = before.check(&other, Lsn::from_wire(500)).unwrap_err();
        assert_eq!(changed.remedy(), Remedy::Halt);
    }

    #[test]
    fn a_slot_that_moved_is_another_relays_doing_if_that_is_remembered() {
        let again = Remedy::BeginAgain { behind: None };
        for (remembers, remedy) in [(true, again), (false, Remedy::Halt)] {
            let before = before(remembers);
            assert_eq!(before.check_slot("s", Lsn::from_wire(100)), Ok(()));
            let changed = before.check_slot("s", Lsn::from_wire(101)).unwrap_err();
            assert_eq!(changed.remedy(), remedy);
        }
        let fresh = Before { system: None, ..before(false) };
        assert_eq!(fresh.check_slot("s", Lsn::from_wire(101)), Ok(()));
    }
}
