//! What the relay needs in Postgres, by name, and the SQL that makes it.

use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::table::TableName;
use crate::lsn::Lsn;

/// Publication, slot and tables by name.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The slot.
    pub slot: String,
    /// The publication.
    pub publication: String,
    /// The outbox tables.
    pub tables: Vec<Mapped>,
    /// Whether messages of `pg_logical_emit_message` are read as well; they need no table.
    pub messages: Messages,
    /// What to make of a publication that leaves out rows.
    pub row_filters: RowFilters,
    /// Whether to make what is missing on a first start.
    pub create: bool,
    /// Whether standbys are to have the slot as well.
    pub failover: bool,
    /// Whether a slot that is gone may be made anew, although events are missing then.
    pub accept_gap: bool,
    /// How our connections call themselves.
    pub application_name: String,
}

/// What is made of a publication with `WHERE`, which leaves out rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowFilters {
    /// Rows would be lost.
    #[default]
    Refuse,
    /// Another relay sends them.
    Allow,
}

/// What is done about messages of `pg_logical_emit_message`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Messages {
    /// The server does not send them.
    #[default]
    Ignored,
    /// They come among the rows, whatever the publication holds.
    Read,
}

/// An outbox table and what is taken from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The table.
    pub table: TableName,
    /// Each column, behind the key of the configuration that names it.
    pub columns: Vec<(&'static str, String)>,
    /// The same of those that the table may lack.
    pub optional: Vec<(&'static str, String)>,
}

impl Setup {
    /// Whether a publication with this comment bears the mark that the slot exists.
    pub fn is_marked(&self, comment: Option<&String>) -> bool {
        comment.is_some_and(|comment| *comment == self.mark_text())
    }

    fn mark_text(&self) -> String {
        format!("walrelay: slot {} exists", self.slot)
    }

    /// What leaves the mark.
    pub fn mark_sql(&self) -> String {
        let publication = escape_identifier(&self.publication);
        format!("COMMENT ON PUBLICATION {publication} IS {}", escape_literal(&self.mark_text()))
    }

    /// What makes the publication.
    pub fn create_publication_sql(&self) -> String {
        let tables: Vec<_> = self.tables.iter().map(|mapped| mapped.table.to_sql()).collect();
        // Messages are in no publication, and the stream needs one all the same.
        let tables = match tables.as_slice() {
            [] => String::new(),
            tables => format!(" FOR TABLE {}", tables.join(", ")),
        };
        // Inserts only, so that UPDATE and DELETE need no replica identity and cost nothing. A
        // partitioned outbox comes under its own name, not under its partitions'.
        format!(
            "CREATE PUBLICATION {}{tables} WITH (publish = 'insert', \
             publish_via_partition_root = true)",
            escape_identifier(&self.publication)
        )
    }

    /// What makes the slot, as SQL.
    pub fn create_slot_sql(&self) -> String {
        let slot = escape_literal(&self.slot);
        // temporary, two_phase, failover
        let failover = if self.failover { ", false, false, true" } else { "" };
        format!("SELECT pg_create_logical_replication_slot({slot}, 'pgoutput'{failover})")
    }

    /// The replication command that makes the slot.
    pub fn create_slot_command(&self) -> String {
        let slot = escape_identifier(&self.slot);
        // The options in parentheses came with version 15, FAILOVER with 17.
        let options =
            if self.failover { "(SNAPSHOT 'nothing', FAILOVER true)" } else { "NOEXPORT_SNAPSHOT" };
        format!("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput {options}")
    }

    /// The replication command that lets standbys have the slot as well.
    pub fn failover_command(&self) -> String {
        format!("ALTER_REPLICATION_SLOT {} (FAILOVER true)", escape_identifier(&self.slot))
    }

    /// The replication command that starts the stream.
    pub fn start_command(&self, from: Lsn) -> String {
        let slot = escape_identifier(&self.slot);
        // A list of identifiers inside a literal.
        let publications = escape_literal(&escape_identifier(&self.publication));
        let messages = match self.messages {
            Messages::Read => ", messages 'true'",
            Messages::Ignored => "",
        };
        format!(
            "START_REPLICATION SLOT {slot} LOGICAL {from} \
             (proto_version '1', publication_names {publications}{messages})"
        )
    }

    /// By what the rows of a transaction are numbered: the same publication numbers them
    /// differently with messages among them.
    pub fn numbering(&self) -> String {
        let messages = match self.messages {
            Messages::Read => " and messages",
            Messages::Ignored => "",
        };
        format!("{}{messages}", self.publication)
    }
}
