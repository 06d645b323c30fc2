//! What becomes of a message, and what does not.

use std::fmt;

use crate::lsn::Lsn;
use crate::outbox::Unmapped;
use crate::pg::Malformed;
use crate::pg::table::TableName;
use crate::record::Poison;

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Done with it.
    Taken,
    /// Done with it, and the server wants a status at once.
    ReplyWanted,
    /// Done with it: a row of this relation was changed, which is no event, and somebody should
    /// know.
    Updated(u32),
    /// Done with it: a message under this rule came outside of any transaction. It is no event, and
    /// somebody should know.
    Loose(usize),
    /// Nothing happened; offer the same message again when acks have made room.
    Full,
    /// Done with it: a row that cannot be sent, in whose place something else was.
    Replaced(Box<Instead>),
    /// A row that cannot be sent. It has been neither sent nor stepped over.
    Stuck(Stuck),
}

/// What is sent in place of a record that cannot be. Displayed, it is what somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instead {
    /// A record in the topic for rows that are none.
    Letter(Poison),
    /// A record that tells where the row is.
    Pointer {
        /// What is too large for Kafka.
        poison: Poison,
        /// Where the record went, and the pointer in its place.
        topic: String,
        /// So many its value has.
        bytes: usize,
    },
}

impl Instead {
    /// What the metrics call it.
    pub fn policy(&self) -> &'static str {
        match self {
            Instead::Letter(_) => "dead_letter",
            Instead::Pointer { .. } => "pointer",
        }
    }
}

impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Instead::Letter(poison) => write!(f, "sent to the dead-letter topic: {poison}"),
            Instead::Pointer { poison, topic, bytes } => {
                let commit = poison.position.commit;
                write!(
                    f,
                    "sent to topic {topic} as a pointer, in place of {bytes} bytes committed at \
                     {commit}: {poison}"
                )
            }
        }
    }
}

/// Why a row cannot be sent. Another connection would bring the same row again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// The row is at fault; the outbox has a policy for it.
    #[error("{0}; to go on without it, set on_poison to \"dead_letter\" or \"skip\"")]
    Poison(Poison),
    /// A row of a table that is not ours, or not known.
    #[error("transaction {at}: {unmapped}")]
    Unmapped {
        /// Which.
        unmapped: Unmapped,
        /// The transaction it stands in.
        at: Lsn,
    },
    /// A row was changed, and the outbox has it that none is.
    #[error(
        "transaction {at}: a row of {table} was updated, which is no event; insert a row for each \
         event, or set on_update of its [[outbox]] to \"warn\" or \"ignore\""
    )]
    Updated {
        /// Of which table.
        table: TableName,
        /// The transaction it stands in.
        at: Lsn,
    },
}

/// The stream cannot be followed any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// A message that the protocol does not allow.
    #[error("{malformed} (near {near})")]
    Malformed {
        /// What is wrong with it.
        malformed: Malformed,
        /// The transaction it stands in or after.
        near: Lsn,
    },
    /// BEGIN, COMMIT and rows do not come in the order they must.
    #[error("{what} (at {at}); nothing behind it will be confirmed")]
    OutOfOrder {
        /// What came.
        what: &'static str,
        /// The transaction it belongs to.
        at: Lsn,
    },
}
