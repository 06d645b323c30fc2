//! What follows from the end of a session.

use crate::lsn::Lsn;

/// What follows from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Connect again, soon.
    Reconnect,
    /// Begin again with a new producer, from what is confirmed.
    Restart,
    /// Begin again as a new process would, from what is remembered in Kafka.
    BeginAgain {
        /// Where the server is, if it has less than was read from it. By the next look it may have
        /// more, of other content.
        behind: Option<Lsn>,
    },
    /// Another relay is at work: wait until it goes.
    StandBy,
    /// Somebody must mend something; try again now and then, for it may have been done.
    Halt,
}
