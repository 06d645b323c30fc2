//! What loses events for good: the relay must halt, say so, and send nothing from beyond the gap.
//!
//! It comes last in a run, with nothing under way, so that what is lost is known to the event: all
//! that is written between the loss and its mending. Then is done what the relay says.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::eventually;
use crate::torture::stage::{NAME, PATIENCE, Stage, blocking};

/// How long is written into the gap, and how long behind it.
const WRITING: Duration = Duration::from_millis(1_500);

/// A loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Ending {
    /// The slot is dropped while the relay reads it.
    SlotDropped,
    /// Postgres gives the slot up, because it keeps too much log.
    SlotInvalidated,
    /// The publication is dropped, and made anew.
    PublicationDropped,
    /// Postgres is restored from a backup.
    Restored,
}

/// All of them.
pub const ALL: [Ending; 4] =
    [Ending::SlotDropped, Ending::SlotInvalidated, Ending::PublicationDropped, Ending::Restored];

/// What a loss came to.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The transactions that are lost.
    pub lost: Range<u64>,
    /// What the relay said.
    pub said: String,
}

impl Ending {
    /// Plays the loss on a stage where all is delivered and nobody writes, until the relay goes on.
    pub async fn play(self, stage: &Stage) -> Result<Ended> {
        let sessions = stage.relay.metric("walrelay_sessions_total").await.unwrap_or(0.0);
        self.lose(stage).await?;
        let (delivered, from) = (stage.read().await?.len(), stage.history.next());
        write(stage).await?;
        let to = stage.history.next();
        let said = self.halted(stage).await?;
        let now = stage.relay.metric("walrelay_sessions_total").await.unwrap_or(0.0);
        let anew = self == Ending::SlotInvalidated;
        ensure!(anew && now > 0.0 || now > sessions, "no session of sessions_total ended");
        let records = stage.read().await?.len();
        ensure!(records == delivered, "{} records came from beyond the gap", records - delivered);

        stage.relay.restart()?;
        self.halted(stage).await?;
        stage.relay.terminate_and_wait(PATIENCE)?;
        self.mend(stage).await?;
        stage.relay.start_again_with(&["--accept-gap"])?;
        stage.relay.wait_ready(PATIENCE).await?;
        write(stage).await?;
        // What is written to the restored server is not lost.
        let lost = if self == Ending::Restored { from..from } else { from..to };
        Ok(Ended { lost, said })
    }

    async fn lose(self, stage: &Stage) -> Result<()> {
        match self {
            Ending::SlotDropped => drop_slot_in_use(stage).await,
            Ending::SlotInvalidated => stage.relay.terminate_and_wait(PATIENCE).map(drop),
            Ending::PublicationDropped => {
                execute(stage, "DROP PUBLICATION walrelay").await?;
                let missed = async || !stage.is_ready().await;
                eventually(PATIENCE, "the relay to miss its publication", missed).await
            }
            Ending::Restored => restore(stage).await,
        }
    }

    /// Waits until the relay says that it halts, and why.
    async fn halted(self, stage: &Stage) -> Result<String> {
        let why = match self {
            Ending::SlotDropped => "is gone, and with it every event",
            Ending::SlotInvalidated => {
                give_up_slot(stage).await?;
                "is lost: it kept more log than max_slot_wal_keep_size allows"
            }
            Ending::PublicationDropped => {
                let sql = "DROP PUBLICATION IF EXISTS walrelay;
                           CREATE PUBLICATION walrelay FOR TABLE outbox WITH (publish = 'insert')";
                execute(stage, sql).await?;
                "rows were written while their publication did not exist"
            }
            Ending::Restored => "it was restored from a backup",
        };
        let said = async || {
            let (status, text) = stage.relay.get("/readyz").await.ok()?;
            (status == 503 && text.contains(why)).then_some(text)
        };
        let said = eventually(PATIENCE, format!("/readyz to say {why:?}"), said).await?;
        ensure!(stage.relay.metric("walrelay_ready").await == Some(0.0), "walrelay_ready is not 0");
        Ok(said.trim().to_owned())
    }

    /// What the relay asks for, before it is run with `--accept-gap`.
    async fn mend(self, stage: &Stage) -> Result<()> {
        let sql = match self {
            Ending::SlotDropped | Ending::Restored => return Ok(()),
            Ending::SlotInvalidated => format!("SELECT pg_drop_replication_slot('{NAME}')"),
            Ending::PublicationDropped => {
                format!("SELECT pg_replication_slot_advance('{NAME}', pg_current_wal_lsn())")
            }
        };
        let done = async || execute(stage, &sql).await.is_ok();
        eventually(PATIENCE, &sql, done).await
    }
}

async fn execute(stage: &Stage, sql: &str) -> Result<()> {
    Ok(stage.client().await?.batch_execute(sql).await?)
}

async fn write(stage: &Stage) -> Result<()> {
    let (load, before) = (stage.load()?, stage.history.committed());
    load.resume();
    tokio::time::sleep(WRITING).await;
    let some = async || stage.history.committed() > before;
    eventually(PATIENCE, "something to be written", some).await?;
    load.pause().await
}

/// Its walsender is ended again and again, until nobody holds the slot for a moment.
async fn drop_slot_in_use(stage: &Stage) -> Result<()> {
    let sql = format!(
        "DO $$ BEGIN LOOP
             PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots
             WHERE slot_name = '{NAME}' AND active;
             BEGIN
                 PERFORM pg_drop_replication_slot('{NAME}');
                 EXIT;
             EXCEPTION WHEN object_in_use THEN
                 PERFORM pg_sleep(0.001);
             END;
         END LOOP; END $$"
    );
    execute(stage, &sql).await
}

/// Lets so much log be written that Postgres gives the slot up.
async fn give_up_slot(stage: &Stage) -> Result<()> {
    let client = stage.client().await?;
    for sql in [
        "ALTER SYSTEM SET max_slot_wal_keep_size = '17MB'",
        "ALTER SYSTEM SET max_wal_size = '32MB'",
        "SELECT pg_reload_conf()",
        "CREATE TABLE IF NOT EXISTS filling (n int)",
    ] {
        client.batch_execute(sql).await?;
    }
    let lost = async || {
        for sql in ["INSERT INTO filling VALUES (1)", "SELECT pg_switch_wal()", "CHECKPOINT"] {
            client.batch_execute(sql).await.ok()?;
        }
        let sql = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1";
        let status: String = client.query_opt(sql, &[&NAME]).await.ok()??.get(0);
        (status == "lost").then_some(())
    };
    eventually(PATIENCE, "the slot to be lost", lost).await?;
    client.batch_execute("ALTER SYSTEM RESET max_slot_wal_keep_size").await?;
    client.batch_execute("SELECT pg_reload_conf()").await?;
    if !stage.relay.is_running() {
        stage.relay.start_again()?;
    }
    Ok(())
}

/// Back to a state before the last that was delivered.
async fn restore(stage: &Stage) -> Result<()> {
    let postgres = stage.primary();
    let server = Arc::clone(&postgres);
    let backup = blocking(move || {
        server.stop_fast(PATIENCE)?;
        let backup = server.back_up()?;
        server.start_again()?;
        Ok(backup)
    })
    .await?;
    let back = async || stage.client().await.is_ok();
    eventually(PATIENCE, "Postgres to be back", back).await?;
    write(stage).await?;
    stage.followed(PATIENCE).await?;
    stage.history.fork();
    blocking(move || {
        postgres.stop_fast(PATIENCE)?;
        postgres.restore(&backup)
    })
    .await
}
