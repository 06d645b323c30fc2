//! What Kafka does not take, and what is remembered of it.

use crate::frontier::Ticket;
use crate::lsn::Position;
use crate::record::Record;

/// Takes records in order.
pub trait Sink {
    /// Hands one record over; it is copied before this returns.
    ///
    /// # Errors
    /// Says why it was not taken; then nothing has happened, and the same record comes again.
    fn send(&mut self, record: &Record<'_>, ticket: Ticket) -> Result<(), Refused>;
}

/// Why a sink did not take a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not now. The cursor stays where it is until there is room.
    Full,
    /// Never: the record itself is at fault, for this reason.
    Unsendable(Flaw, String),
}

/// What is wrong with a record that Kafka never takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is too large, so that a smaller one may do in its place.
    Size,
    /// Anything else, which a smaller one would have as well.
    Other,
}

/// As what a row is handed over: each of them if those before it are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    /// As its record.
    Record,
    /// As a record that tells where the row is.
    Pointer,
    /// As a letter about the record that it cannot be.
    Letter,
}

/// Rows among which one is that the broker does not take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspects {
    /// The last of them.
    pub(super) last: Position,
    /// How many may be in flight at once.
    pub(super) together: usize,
}

/// A row that the broker does not take.
#[derive(Clone, Debug)]
pub(super) struct Condemned {
    /// What is wrong with its record.
    pub(super) flaw: Flaw,
    /// The same in words.
    pub(super) reason: String,
    /// The last form of it that was refused; so were those before.
    pub(super) refused: Form,
}
