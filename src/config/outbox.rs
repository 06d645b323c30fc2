//! What an `[[outbox]]` says, which the core works by.

use crate::pg::table::TableName;
use crate::template::Template;

/// `[[outbox]]`: a table, and how a row of it becomes a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbox {
    /// The table.
    pub table: TableName,
    /// The column that becomes the header `id`.
    pub id: Option<String>,
    /// The key; records without one have no order among each other.
    pub key: Option<Template>,
    /// The column that becomes the value.
    pub payload: String,
    /// Whether an empty payload is no payload: a tombstone.
    pub tombstone_if_blank: bool,
    /// The topic.
    pub topic: Template,
    /// The column with the number of the partition; where it is NULL, the key decides.
    pub partition: Option<String>,
    /// The column with the record's time; without, or where it is NULL, it is that of the commit.
    pub timestamp: Option<String>,
    /// Header names and what fills them: those from columns in the order of their names, and
    /// behind them those that are always the same.
    pub headers: Vec<(String, Template)>,
    /// What to do about a row that cannot become a record.
    pub on_poison: OnPoison,
    /// Where rows go that cannot become a record.
    pub dead_letter_topic: Option<String>,
}

/// `on_poison`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPoison {
    /// Stay at the row, say what is wrong with it, and try again.
    Halt,
    /// Count it, log it, go on.
    Skip,
}
