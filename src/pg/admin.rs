//! Publication and slot, in plain SQL: what must be so before rows are read, and making what is
//! not there yet.

use std::time::Duration;

use tokio_postgres::Client;

use super::before::Changed;
use super::facts::{Facts, Table};
use super::known::Known;
use super::preconditions::checks;
use super::setup::Setup;
use super::slot::Slot;
use super::sql::SqlError;
use crate::verdict::{Check, Problem, Verdict};

/// How many connections may queue behind a slot's creation is not ours to decide; this long may
/// ours wait for the transactions before it, which `statement_timeout` does not end.
pub const SLOT_CREATION_MAX: Duration = Duration::from_secs(30);

/// Publication or slot are not as they must be. Each message ends with what to do.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The question itself failed.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// Something must be mended.
    #[error("{problem}")]
    Unfit {
        /// What, and what mends it.
        problem: Problem,
        /// The slot, if there is one.
        slot: Option<Box<Slot>>,
    },
    /// Somebody else is creating the slot, or its creation was given up half-way.
    #[error("slot {0} is being created by another session and has no position yet")]
    BeingCreated(String),
    /// Another process reads the slot.
    #[error("slot {slot} is in use by server process {pid}: another relay is at work")]
    InUse {
        /// Its name.
        slot: String,
        /// The server process.
        pid: i32,
    },
    /// Our own last connection reads the slot, as far as the server knows.
    #[error("slot {slot} is still held by server process {pid} of the connection before")]
    Lingering {
        /// Its name.
        slot: String,
        /// The server process.
        pid: i32,
    },
    /// The server, or its slot, is not what it was.
    #[error(transparent)]
    Changed(#[from] Changed),
}

/// What [`Setup::prepare`] and [`Setup::check`] found.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The slot; before the first start there is none.
    pub slot: Option<Slot>,
    /// The outbox tables and their parts.
    pub tables: Vec<Known>,
    /// What somebody should know.
    pub doubts: Vec<Problem>,
    /// OID of the database.
    pub database: u32,
}

impl Setup {
    /// Checks everything, makes the publication if it is missing and may be made, and looks at
    /// the slot.
    ///
    /// The publication comes first: rows are decoded with the catalog of their time, so that a
    /// slot older than its publication cannot read what lies between.
    pub async fn prepare(&self, client: &Client) -> Result<Seen, SetupError> {
        let facts = Facts::read(client, self).await?;
        let checks = checks(self, &facts);
        judge(&facts, &checks)?;
        if facts.publication.is_none() {
            let created = client.batch_execute(&self.create_publication_sql()).await;
            created.map_err(SqlError::when("creating the publication"))?;
            tracing::info!(publication = self.publication, "created the publication");
        }
        if let Some(slot) = &facts.slot {
            let name = self.slot.clone();
            match (slot.active_pid, slot.confirmed) {
                (Some(pid), _) => return Err(SetupError::InUse { slot: name, pid }),
                (None, None) => return Err(SetupError::BeingCreated(name)),
                (None, Some(_)) => {}
            }
            if facts.publication.as_ref().is_some_and(|it| !self.is_marked(it.comment.as_ref())) {
                self.mark(client).await;
            }
        }
        Ok(Seen::new(facts, checks))
    }

    /// Checks while a stream runs what nobody would tell: rows of a table that is not published
    /// any more are just not there.
    pub async fn check(&self, client: &Client) -> Result<Seen, SetupError> {
        let facts = Facts::read(client, self).await?;
        let checks = checks(self, &facts);
        judge(&facts, &checks)?;
        Ok(Seen::new(facts, checks))
    }

    /// Leaves the mark that the slot exists, so that its absence will mean a gap and not a first
    /// start. Only the publication's owner may; without the mark, the slot is all there is.
    pub async fn mark(&self, client: &Client) {
        let sql = self.mark_sql();
        if let Err(error) = client.batch_execute(&sql).await {
            tracing::warn!(
                "cannot mark the publication, so that a lost slot will look like a first start; \
                 run as its owner: {sql} ({})",
                SqlError::when("marking")(error)
            );
        }
    }
}

/// A slot that is there is not kept from being read by what shows at a row: those before it can
/// still be sent.
fn judge(facts: &Facts, checks: &[Check]) -> Result<(), SetupError> {
    let serious = |problem: &&Problem| problem.loses || facts.slot.is_none();
    let problem = checks.iter().filter_map(Check::failure).find(serious);
    problem.map_or(Ok(()), |problem| {
        let slot = facts.slot.clone().map(Box::new);
        Err(SetupError::Unfit { problem: problem.clone(), slot })
    })
}

impl Seen {
    fn new(facts: Facts, checks: Vec<Check>) -> Seen {
        let doubts = checks.into_iter().filter_map(|check| match check.verdict {
            Verdict::Doubtful(problem) => Some(problem),
            Verdict::Passed(_) | Verdict::Failed(_) => None,
        });
        // A table that is named itself belongs to its own outbox, whatever it is a part of.
        let mut tables = facts.tables;
        tables.sort_by_key(|table| !table.named);
        let mut known: Vec<Known> = Vec::new();
        for Table { oid, outbox, columns, .. } in tables {
            if !known.iter().any(|known| known.oid == oid) {
                known.push(Known { oid, outbox, columns });
            }
        }
        let database = facts.server.database_oid;
        Seen { slot: facts.slot, tables: known, doubts: doubts.collect(), database }
    }
}
