//! Publication and slot, in plain SQL: what there is, and making what is not.

use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use crate::lsn::Lsn;
use crate::pg::table::TableName;

/// How many connections may queue behind a slot's creation is not ours to decide; this long may
/// ours wait for the transactions before it, which `statement_timeout` does not end.
pub const SLOT_CREATION_MAX: std::time::Duration = std::time::Duration::from_secs(30);

/// A replication slot, as `pg_replication_slots` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The output plugin; physical slots have none.
    pub plugin: Option<String>,
    /// The database it decodes.
    pub database: Option<String>,
    /// The server process that reads it.
    pub active_pid: Option<i32>,
    /// Everything before it may be forgotten. `None` while the slot is being created.
    pub confirmed: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: String,
    /// Bytes of log that can be written until the slot is in danger; `None` without a limit.
    pub safe_wal_bytes: Option<u64>,
    /// Bytes of log that the server keeps for it.
    pub retained_wal_bytes: u64,
    /// Whether it sends transactions before they are decided.
    pub two_phase: bool,
    /// The server's position at the same moment.
    pub server: Lsn,
}

/// Publication or slot are not as they must be. Each message ends with what to do.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The question itself failed.
    #[error("{doing}: {}", words(.error))]
    Sql {
        /// What was being done.
        doing: &'static str,
        /// The server's answer.
        error: tokio_postgres::Error,
    },
    /// A table of the configuration does not exist.
    #[error("cannot create the publication: {0}; create the outbox tables")]
    NoTable(String),
    /// No publication, and none is to be made.
    #[error("publication {name} does not exist; run: {sql}")]
    NoPublication {
        /// Its name.
        name: String,
        /// What makes it.
        sql: String,
    },
    /// The publication leaves an outbox out.
    #[error(
        "publication {publication} does not hold {table}, whose rows would be lost; run: \
         ALTER PUBLICATION {publication} ADD TABLE {}", table.to_sql()
    )]
    NotPublished {
        /// Its name.
        publication: String,
        /// The table.
        table: TableName,
    },
    /// The publication leaves inserts out.
    #[error(
        "publication {0} does not publish inserts; run: \
         ALTER PUBLICATION {0} SET (publish = 'insert')"
    )]
    InsertsLeftOut(String),
    /// No slot, and none is to be made.
    #[error(
        "slot {slot} does not exist; run: \
         SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"
    )]
    NoSlot {
        /// Its name.
        slot: String,
    },
    /// There was a slot, and there is none.
    #[error(
        "slot {slot} is gone, and with it every event between its last position and now: \
         publication {publication} bears the mark that the slot once existed. Compare the outbox \
         with Kafka; then run once: walrelay run --accept-gap, and a new slot will start from now"
    )]
    Gap {
        /// Its name.
        slot: String,
        /// The publication with the mark.
        publication: String,
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
    /// The slot is not what it must be.
    #[error(
        "slot {slot} {wrong}; set postgres.slot to another name, or drop the slot if it is yours"
    )]
    WrongSlot {
        /// Its name.
        slot: String,
        /// What is wrong.
        wrong: String,
    },
    /// Postgres has thrown away what the slot had not read.
    #[error(
        "slot {0} is lost: it kept more log than max_slot_wal_keep_size allows, so Postgres \
         removed it, and events that were not yet in Kafka are not in the log any more. Compare \
         the outbox with Kafka, then drop the slot"
    )]
    Lost(String),
    /// The slot has moved without us.
    #[error(
        "slot {slot} was moved from {expected} to {found} by somebody else; the events between \
         were not sent. Compare the outbox with Kafka, then restart the relay"
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

fn words(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Publication, slot and tables by name.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The slot.
    pub slot: String,
    /// The publication.
    pub publication: String,
    /// The outbox tables.
    pub tables: Vec<TableName>,
    /// Whether to make what is missing on a first start.
    pub create: bool,
    /// Whether a slot that is gone may be made anew, although events are missing then.
    pub accept_gap: bool,
}

/// What [`Setup::prepare`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// The slot is there, and fit for use.
    Slot(Slot),
    /// There is none; now is the time to make it.
    NoSlot,
}

impl Setup {
    /// Makes or checks the publication, and looks at the slot.
    ///
    /// The publication comes first: rows are decoded with the catalog of their time, so that a
    /// slot older than its publication cannot read what lies between.
    pub async fn prepare(&self, client: &Client) -> Result<Prepared, SetupError> {
        let slot = slot(client, &self.slot).await?;
        let mark = self.publication(client, slot.is_some()).await?;
        if let Some(slot) = slot {
            self.check_slot(client, &slot).await?;
            if !mark {
                self.mark(client).await;
            }
            return Ok(Prepared::Slot(slot));
        }
        let (slot, publication) = (self.slot.clone(), escape_identifier(&self.publication));
        if mark && !self.accept_gap {
            Err(SetupError::Gap { slot, publication })
        } else if self.create {
            Ok(Prepared::NoSlot)
        } else {
            Err(SetupError::NoSlot { slot })
        }
    }

    /// Checks while a stream runs what nobody would tell: rows of a table that is not published
    /// any more are just not there.
    pub async fn check(&self, client: &Client) -> Result<(), SetupError> {
        self.publication(client, true).await.map(|_mark| ())
    }

    /// Returns whether the publication bears our mark.
    async fn publication(&self, client: &Client, slot_exists: bool) -> Result<bool, SetupError> {
        let doing = "looking for the publication";
        let sql = "SELECT pubinsert, pg_catalog.obj_description(oid, 'pg_publication') \
                   FROM pg_catalog.pg_publication WHERE pubname = $1";
        let found = query(client, doing, sql, &self.publication).await?;
        let Some(publication) = found.first() else {
            let sql = self.create_publication_sql();
            if slot_exists || !self.create {
                let name = self.publication.clone();
                return Err(SetupError::NoPublication { name, sql });
            }
            client.batch_execute(&sql).await.map_err(|error| match error.as_db_error() {
                Some(no_table) if *no_table.code() == SqlState::UNDEFINED_TABLE => {
                    SetupError::NoTable(no_table.message().to_owned())
                }
                _ => SetupError::Sql { doing: "creating the publication", error },
            })?;
            tracing::info!(publication = self.publication, "created the publication");
            return Ok(false);
        };
        let read = |error| SetupError::Sql { doing, error };
        if !publication.try_get::<_, bool>(0).map_err(read)? {
            return Err(SetupError::InsertsLeftOut(escape_identifier(&self.publication)));
        }
        self.check_tables(client).await?;
        let comment: Option<String> = publication.try_get(1).map_err(read)?;
        Ok(comment.is_some_and(|comment| comment == self.mark_text()))
    }

    async fn check_tables(&self, client: &Client) -> Result<(), SetupError> {
        let doing = "reading the publication's tables";
        let sql = "SELECT schemaname::text, tablename::text FROM pg_catalog.pg_publication_tables \
                   WHERE pubname = $1";
        let mut published = Vec::new();
        for row in query(client, doing, sql, &self.publication).await? {
            let name =
                |column| row.try_get(column).map_err(|error| SetupError::Sql { doing, error });
            published.push(TableName { schema: name(0)?, name: name(1)? });
        }
        let missing = self.tables.iter().find(|table| !published.contains(table));
        missing.map_or(Ok(()), |table| {
            let publication = escape_identifier(&self.publication);
            Err(SetupError::NotPublished { publication, table: table.clone() })
        })
    }

    async fn check_slot(&self, client: &Client, slot: &Slot) -> Result<(), SetupError> {
        let doing = "reading the name of the database";
        let row = client.query_one("SELECT current_database()::text", &[]).await;
        let database: String =
            row.and_then(|row| row.try_get(0)).map_err(|error| SetupError::Sql { doing, error })?;
        let name = self.slot.clone();
        let wrong = |wrong: String| Err(SetupError::WrongSlot { slot: name.clone(), wrong });
        match slot.plugin.as_deref() {
            Some("pgoutput") => {}
            Some(plugin) => return wrong(format!("decodes with {plugin}, not with pgoutput")),
            None => return wrong("is a physical one".to_owned()),
        }
        if slot.database.as_ref() != Some(&database) {
            let other = slot.database.as_deref().unwrap_or_default();
            return wrong(format!("belongs to database {other}, not to {database}"));
        }
        if slot.two_phase {
            return wrong(
                "was created with two_phase and sends transactions that may yet roll back"
                    .to_owned(),
            );
        }
        if slot.wal_status == "lost" {
            return Err(SetupError::Lost(name));
        }
        if let Some(pid) = slot.active_pid {
            return Err(SetupError::InUse { slot: name, pid });
        }
        if slot.confirmed.is_none() {
            return Err(SetupError::BeingCreated(name));
        }
        Ok(())
    }

    /// Leaves the mark that the slot exists, so that its absence will mean a gap and not a first
    /// start. Only the publication's owner may; without the mark, the slot is all there is.
    pub async fn mark(&self, client: &Client) {
        let publication = escape_identifier(&self.publication);
        let text = escape_literal(&self.mark_text());
        let sql = format!("COMMENT ON PUBLICATION {publication} IS {text}");
        if let Err(error) = client.batch_execute(&sql).await {
            tracing::warn!(
                "cannot mark the publication, so that a lost slot will look like a first start; \
                 run as its owner: {sql} ({})",
                words(&error)
            );
        }
    }

    fn mark_text(&self) -> String {
        format!("walrelay: slot {} exists", self.slot)
    }

    fn create_publication_sql(&self) -> String {
        let tables: Vec<_> = self.tables.iter().map(TableName::to_sql).collect();
        // Inserts only, so that UPDATE and DELETE need no replica identity and cost nothing. A
        // partitioned outbox comes under its own name, not under its partitions'.
        format!(
            "CREATE PUBLICATION {} FOR TABLE {} WITH (publish = 'insert', \
             publish_via_partition_root = true)",
            escape_identifier(&self.publication),
            tables.join(", ")
        )
    }

    /// The replication command that makes the slot.
    pub fn create_slot_command(&self) -> String {
        let slot = escape_identifier(&self.slot);
        format!("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput NOEXPORT_SNAPSHOT")
    }

    /// The replication command that starts the stream.
    pub fn start_command(&self, from: Lsn) -> String {
        let slot = escape_identifier(&self.slot);
        // A list of identifiers inside a literal.
        let publications = escape_literal(&escape_identifier(&self.publication));
        format!(
            "START_REPLICATION SLOT {slot} LOGICAL {from} \
             (proto_version '1', publication_names {publications})"
        )
    }
}

/// The slot of this name.
pub async fn slot(client: &Client, name: &str) -> Result<Option<Slot>, SetupError> {
    let doing = "looking for the slot";
    let sql = "SELECT plugin::text, database::text, active_pid, confirmed_flush_lsn::text, \
               wal_status, safe_wal_size, two_phase, pg_catalog.pg_current_wal_lsn()::text, \
               pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)::int8 \
               FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    let rows = query(client, doing, sql, name).await?;
    let slot = rows.first().map(read_slot).transpose();
    slot.map_err(|error| SetupError::Sql { doing, error })
}

fn read_slot(row: &Row) -> Result<Slot, tokio_postgres::Error> {
    let lsn = |text: Option<String>| text.and_then(|text| text.parse().ok());
    let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    Ok(Slot {
        plugin: row.try_get(0)?,
        database: row.try_get(1)?,
        active_pid: row.try_get(2)?,
        confirmed: lsn(row.try_get(3)?),
        wal_status: row.try_get::<_, Option<String>>(4)?.unwrap_or_default(),
        safe_wal_bytes: row.try_get::<_, Option<i64>>(5)?.map(bytes),
        two_phase: row.try_get(6)?,
        server: lsn(row.try_get(7)?).unwrap_or_default(),
        retained_wal_bytes: row.try_get::<_, Option<i64>>(8)?.map_or(0, bytes),
    })
}

async fn query(
    client: &Client,
    doing: &'static str,
    sql: &str,
    name: &str,
) -> Result<Vec<Row>, SetupError> {
    // The catalog's type `name` wants to be told apart from text.
    client.query(sql, &[&name]).await.map_err(|error| SetupError::Sql { doing, error })
}
