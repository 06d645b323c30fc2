//! The replication slot, as the catalog has it.

use tokio_postgres::{Client, Row};

use super::sql::SqlError;
use crate::lsn::Lsn;

/// A row of `pg_replication_slots`, and who reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Why Postgres gave it up, in the words of version 17 and later.
    pub invalidation_reason: Option<String>,
    /// Bytes of log that can be written until the slot is in danger; `None` without a limit.
    pub safe_wal_bytes: Option<u64>,
    /// Bytes of log that the server keeps for it.
    pub retained_wal_bytes: u64,
    /// Whether it sends transactions before they are decided.
    pub two_phase: bool,
    /// Whether standbys are to have it as well; `None` before version 17.
    pub failover: Option<bool>,
    /// The server's position at the same moment.
    pub server: Lsn,
    /// Its reader, while there is one.
    pub reader: Option<Reader>,
}

/// The walsender that reads a slot, as `pg_stat_replication` and `pg_stat_activity` show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    /// The name the client gave itself.
    pub application_name: String,
    /// How far the walsender has got in reading the log.
    pub sent: Lsn,
    /// `async`, or how commits wait for it.
    pub sync_state: String,
    /// What it waits for, as `type/event`.
    pub wait_event: Option<String>,
}

/// The slot of this name.
pub async fn slot(client: &Client, name: &str) -> Result<Option<Slot>, SqlError> {
    // Columns that older versions lack are read through JSON.
    let sql = "
        SELECT s.plugin::text, s.database::text, s.active_pid, s.confirmed_flush_lsn::text,
               s.wal_status, s.safe_wal_size, s.two_phase, at.lsn::text,
               pg_catalog.pg_wal_lsn_diff(at.lsn, s.restart_lsn)::int8,
               pg_catalog.to_jsonb(s) ->> 'invalidation_reason',
               (pg_catalog.to_jsonb(s) ->> 'failover')::bool,
               r.application_name, r.sent_lsn::text, r.sync_state,
               a.wait_event_type || '/' || a.wait_event
        FROM pg_catalog.pg_replication_slots s
        CROSS JOIN pg_catalog.pg_current_wal_lsn() AS at (lsn)
        LEFT JOIN pg_catalog.pg_stat_replication r ON r.pid = s.active_pid
        LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
        WHERE s.slot_name = $1";
    // The catalog's type `name` wants to be told apart from text.
    let rows = client.query(sql, &[&name]).await;
    let slot = rows.and_then(|rows| rows.first().map(read_slot).transpose());
    slot.map_err(SqlError::when("looking for the slot"))
}

fn read_slot(row: &Row) -> Result<Slot, tokio_postgres::Error> {
    let lsn = |text: Option<String>| text.and_then(|text| text.parse().ok());
    let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    let text = |index| Ok(row.try_get::<_, Option<String>>(index)?.unwrap_or_default());
    let active_pid: Option<i32> = row.try_get(2)?;
    let reader = Reader {
        application_name: text(11)?,
        sent: lsn(row.try_get(12)?).unwrap_or_default(),
        sync_state: text(13)?,
        wait_event: row.try_get(14)?,
    };
    Ok(Slot {
        plugin: row.try_get(0)?,
        database: row.try_get(1)?,
        active_pid,
        confirmed: lsn(row.try_get(3)?),
        wal_status: text(4)?,
        invalidation_reason: row.try_get(9)?,
        safe_wal_bytes: row.try_get::<_, Option<i64>>(5)?.map(bytes),
        two_phase: row.try_get(6)?,
        failover: row.try_get(10)?,
        server: lsn(row.try_get(7)?).unwrap_or_default(),
        retained_wal_bytes: row.try_get::<_, Option<i64>>(8)?.map_or(0, bytes),
        reader: active_pid.map(|_| reader),
    })
}
