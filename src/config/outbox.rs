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
    /// The column that becomes the key; records without one have no order among each other.
    pub key: Option<String>,
    /// The column that becomes the value.
    pub payload: String,
    /// The topic.
    pub topic: Template,
    /// Header names and the columns that fill them, in the order of the names.
    pub headers: Vec<(String, String)>,
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
