//! What happens to Postgres.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Hurt;
use crate::load::{Kind, Shape, write_one};
use crate::process::{send, state_of};
use crate::torture::fault::{Fault, Wire};
use crate::torture::stage::{NAME, PATIENCE, blocking};
use crate::{Proxy, Signal, eventually};

/// A walsender that cannot reach its receiver waits for `wal_sender_timeout`.
const STOP_TIMEOUT: Duration = Duration::from_secs(45);

impl Hurt<'_> {
    pub(super) async fn postgres_away(&self) -> Result<String> {
        let postgres = self.stage.primary();
        let fault = self.fault;
        let victim = Arc::clone(&postgres);
        let stopped = blocking(move || match fault {
            Fault::PostgresImmediateStop => victim.stop_immediate(),
            Fault::PostgresFastStop => victim.stop_fast(STOP_TIMEOUT),
            _ => victim.kill_9(),
        });
        stopped.await?;
        ensure!(!postgres.is_running(), "it runs");
        self.last().await;
        blocking(move || postgres.start_again()).await?;
        Ok("the process was gone".to_owned())
    }

    pub(super) async fn postgres_frozen(&self) -> Result<String> {
        let postgres = self.stage.primary();
        let pid = postgres.pid().context("no process")?;
        postgres.signal(Signal::Stop)?;
        let frozen = async || state_of(pid) == Some('T');
        eventually(PATIENCE, "Postgres to freeze", frozen).await?;
        self.last().await;
        postgres.signal(Signal::Cont)?;
        Ok("state T".to_owned())
    }

    pub(super) async fn backend_crash(&self) -> Result<String> {
        const SAID: &str = "was terminated by signal 9";
        let postgres = self.stage.primary();
        let before = postgres.log().matches(SAID).count();
        let client = self.stage.client().await?;
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        send(Signal::Kill, &[u32::try_from(pid)?])?;
        let said = async || postgres.log().matches(SAID).count() > before;
        eventually(PATIENCE, "Postgres to notice", said).await?;
        let back = async || self.stage.client().await.is_ok();
        eventually(PATIENCE, "Postgres to be back", back).await?;
        Ok(format!("backend {pid} {SAID}"))
    }

    /// Whether somebody reads the slot.
    pub(super) async fn has_walsender(&self) -> bool {
        let sql = "SELECT FROM pg_replication_slots
                   WHERE slot_name = $1 AND active_pid IS NOT NULL";
        let Ok(client) = self.stage.client().await else { return false };
        client.query_opt(sql, &[&NAME]).await.is_ok_and(|row| row.is_some())
    }

    /// By how many seconds the relay's last status is ahead of Postgres.
    pub(super) async fn relay_is_ahead(&self) -> Option<i64> {
        let sql = "SELECT extract(epoch FROM reply_time - clock_timestamp())::int8
                   FROM pg_stat_replication JOIN pg_replication_slots ON pid = active_pid
                   WHERE slot_name = $1 AND reply_time IS NOT NULL";
        let client = self.stage.client().await.ok()?;
        client.query_opt(sql, &[&NAME]).await.ok()??.get(0)
    }

    /// Rows that are updated and deleted come in the stream, and are no events.
    pub(super) async fn publication_altered(&self) -> Result<String> {
        self.publish("insert, update, delete").await?;
        // While the table is renamed, or the server away, there are none.
        let update = "UPDATE outbox SET id = id WHERE ctid IN (SELECT ctid FROM outbox LIMIT 10)";
        let updated = async {
            let client = self.stage.client().await?;
            Ok::<_, anyhow::Error>(client.execute(update, &[]).await?)
        };
        let updated = updated.await.unwrap_or(0);
        self.last().await;
        self.publish("insert").await?;
        Ok(format!("{updated} rows were updated"))
    }

    async fn publish(&self, what: &str) -> Result<()> {
        let sql = format!("ALTER PUBLICATION walrelay SET (publish = '{what}')");
        let altered = async || {
            let Ok(client) = self.stage.client().await else { return false };
            client.batch_execute(&sql).await.is_ok()
        };
        eventually(PATIENCE, format!("to publish {what}"), altered).await
    }

    pub(super) async fn walsender_terminated(&self) -> Result<String> {
        let client = self.stage.client().await?;
        let sql = "SELECT active_pid, pg_terminate_backend(active_pid)
                   FROM pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL";
        let pid: i32 = eventually(PATIENCE, "a walsender", async || {
            let row = client.query_opt(sql, &[&NAME]).await.ok()??;
            row.get::<_, bool>(1).then(|| row.get(0))
        })
        .await?;
        let pid = u32::try_from(pid)?;
        // A walsender that cannot write does not hear of it before the proxy reads again.
        let gone = async || matches!(state_of(pid), None | Some('Z'));
        eventually(PATIENCE, "the walsender to end", gone).await?;
        Ok(format!("walsender {pid}"))
    }

    /// The wire is slow, so that the stop comes in the middle of the transaction. Nobody else
    /// writes, so that what is sent is of it.
    pub(super) async fn half_sent(&self) -> Result<String> {
        let load = self.stage.load()?;
        let quiet = self.stage.writing.write().await;
        load.pause().await?;
        let mut stopped = Ok(None);
        for _ in 0..3 {
            stopped = self.stop_half_sent().await;
            if !matches!(stopped, Ok(None)) {
                break;
            }
        }
        load.resume();
        drop(quiet);
        stopped?.context("another relay each time")
    }

    /// `None` if the relay ended meanwhile, so that nobody knows how much was sent.
    async fn stop_half_sent(&self) -> Result<Option<String>> {
        let stage = self.stage;
        stage.followed(PATIENCE).await?;
        let proxies = stage.proxies(Wire::Postgres);
        for proxy in proxies {
            proxy.throttle(500_000);
        }
        let sent = async || stage.relay.metric("walrelay_events_total").await;
        let (process, before) = (stage.relay.pid(), sent().await.unwrap_or(0.0));
        let kind = Kind::Huge(stage.plan.huge().div_ceil(stage.plan.shape.keys));
        let shape = Shape { padding: 100, ..stage.plan.shape };
        let write = async || {
            let client = stage.writer().await?;
            write_one(client, shape, &stage.history, kind).await
        };
        let rows = self.persist(write).await?;
        let some = async || {
            stage.relay.pid() != process || sent().await.is_some_and(|now| now > before + 500.0)
        };
        eventually(PATIENCE, "a part of the transaction", some).await?;
        let postgres = stage.primary();
        let victim = Arc::clone(&postgres);
        blocking(move || victim.stop_immediate()).await?;
        let now = sent().await;
        // What the proxies hold of it is lost on its way.
        proxies.iter().try_for_each(Proxy::cut)?;
        proxies.iter().try_for_each(Proxy::pass)?;
        blocking(move || postgres.start_again()).await?;
        let Some(now) = now.filter(|_| stage.relay.pid() == process) else { return Ok(None) };
        let (sent, rows) = (now - before, f64::from(u32::try_from(rows)?));
        ensure!(sent < rows, "{sent} records were sent, and {rows} written");
        Ok(Some(format!("stopped {sent} records after the beginning of {rows}")))
    }

    /// A write that is cut short counts as a full disk. The next walsender may write.
    pub(super) async fn disk_full(&self) -> Result<String> {
        const SAID: &str = "could not write to data file for XID";
        let postgres = self.stage.primary();
        let before = postgres.log().matches(SAID).count();
        let (keys, rows) = (self.stage.plan.shape.keys, self.stage.plan.huge());
        let sql = "SELECT active_pid FROM pg_replication_slots
                   WHERE slot_name = $1 AND active_pid IS NOT NULL";
        // The relay may be killed meanwhile, and have another walsender then.
        let full = async || {
            let client = self.stage.client().await.ok()?;
            let pid: i32 = client.query_opt(sql, &[&NAME]).await.ok()??.get(0);
            // It also writes to the log.
            let limit = u64::try_from(postgres.log().len()).unwrap_or(0) + 100_000;
            postgres.limit_files_of(pid, limit).ok()?;
            self.write(Kind::Huge(rows.div_ceil(keys))).await.ok().filter(|rows| *rows > 0)?;
            let said = async || postgres.log().matches(SAID).count() > before;
            eventually(Duration::from_secs(15), "a full disk", said).await.ok()
        };
        eventually(PATIENCE, "the walsender to find its disk full", full).await?;
        Ok(SAID.to_owned())
    }

    /// The standby is frozen for a while before, so that it does not know the last transactions.
    pub(super) async fn promotion(&self) -> Result<String> {
        let standby = Arc::clone(self.stage.standby.as_ref().context("no standby")?);
        let primary = self.stage.primary();
        let replayed = "SELECT pg_last_wal_replay_lsn()::text";
        // Who wants silence may wait for the standby, and has to wait until it is there.
        let writing = self.stage.writing.read().await;
        let frozen = standby.freeze_wal_receiver().await?;
        tokio::time::sleep(self.lasts.min(Duration::from_secs(5))).await;
        // There is something that the standby does not know, also if nobody else writes.
        let (client, shape) = (self.stage.writer().await?, self.stage.plan.shape);
        write_one(client, shape, &self.stage.history, Kind::Rows(1)).await?;
        let known: String =
            standby.client("postgres").await?.query_one(replayed, &[]).await?.get(0);
        let written = "SELECT pg_current_wal_flush_lsn()::text, \
                       pg_current_wal_flush_lsn() > $1::text::pg_lsn";
        let row = primary.client("postgres").await?.query_one(written, &[&known]).await?;
        let (written, more): (String, bool) = (row.get(0), row.get(1));
        ensure!(more, "the standby knew {known} of {written}, which is all");
        primary.kill_9()?;
        self.stage.history.fork();
        drop(writing);
        standby.promote().await?;
        drop(frozen);
        let timeline = standby.timeline().await?;
        ensure!(timeline == 2, "timeline {timeline}");
        self.stage.promoted(standby);
        Ok(format!("timeline {timeline}; the standby knew {known} of {written}"))
    }
}
