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
    /// The position it has reached.
    pub reached: Lsn,
}

/// The server is not what it was a moment ago, or its slot is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Changed {
    /// The slot has moved without us.
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
        /// What we have reached.
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
            Changed::OtherTimeline { .. } | Changed::WentBack { .. } => Remedy::BeginAgain,
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
        if server < self.reached {
            return Err(Changed::WentBack { now: server, before: self.reached });
        }
        Ok(())
    }

    /// The slot stands where we have confirmed it or, if that was lost in a crash, before it.
    pub fn check_slot(&self, name: &str, found: Lsn) -> Result<(), Changed> {
        let expected = self.reached;
        if self.system.is_some() && found > expected {
            return Err(Changed::Moved { slot: name.to_owned(), expected, found });
        }
        Ok(())
    }
}
