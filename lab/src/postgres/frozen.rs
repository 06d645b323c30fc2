//! Server processes that get nothing done, as on a machine that hangs.

use anyhow::Result;

use super::Postgres;
use super::standby::PATIENCE;
use crate::eventually;
use crate::process::{Signal, is_pending, send, state_of};

/// Linux's number of it.
const SIGTERM: u32 = 15;

/// A server process that gets nothing done. Dropping this lets it go on.
#[derive(Debug)]
pub struct Frozen {
    pid: u32,
}

impl Frozen {
    /// Freezes one process.
    async fn new(pid: i32) -> Result<Frozen> {
        let frozen = Frozen { pid: u32::try_from(pid)? };
        send(Signal::Stop, &[frozen.pid])?;
        let stopped = async || state_of(frozen.pid) == Some('T');
        eventually(PATIENCE, "the server process to be frozen", stopped).await?;
        Ok(frozen)
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has been asked to end, which it will do once it goes on.
    pub fn is_asked_to_end(&self) -> bool {
        is_asked_to_end(self.pid)
    }
}

pub(super) fn is_asked_to_end(pid: u32) -> bool {
    is_pending(pid, SIGTERM)
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if state_of(self.pid) == Some('T') {
            drop(send(Signal::Cont, &[self.pid]));
        }
    }
}

impl Postgres {
    /// Freezes this standby's walreceiver: the server answers, but what the primary writes from
    /// here on does not reach it. Promoting the server lets it go on.
    pub async fn freeze_wal_receiver(&self) -> Result<Frozen> {
        let sql = "SELECT pid FROM pg_stat_wal_receiver WHERE status = 'streaming'";
        self.freeze("a walreceiver", sql).await
    }

    /// Freezes the walsender that reads a logical slot.
    pub async fn freeze_walsender(&self, slot: &str) -> Result<Frozen> {
        let sql = format!(
            "SELECT active_pid FROM pg_replication_slots
             WHERE slot_name = '{slot}' AND active_pid IS NOT NULL"
        );
        self.freeze("a walsender", &sql).await
    }

    /// Freezes the process whose id the query gives, once it gives one.
    async fn freeze(&self, what: &str, sql: &str) -> Result<Frozen> {
        let client = self.client("postgres").await?;
        let pid: i32 = eventually(PATIENCE, what, async || {
            Some(client.query_opt(sql, &[]).await.ok()??.get(0))
        })
        .await?;
        Frozen::new(pid).await
    }
}
