//! The beginning, the end, and nothing at all.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Relay, Signal, usage};

use crate::backlog::Backlog;
use crate::drain::{Ends, PARTITIONS, Stage, f64_of};
use crate::latency::first_record;
use crate::report::Idle;

const START_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(30);
/// A consumer has found its way to the empty topic by then.
const CONSUMER_READY: Duration = Duration::from_secs(2);
/// Everything that comes with a start is over by then.
const SETTLED: Duration = Duration::from_secs(5);

impl Stage<'_> {
    async fn relay_of(&self, backlog: &mut Backlog, binary: &Path) -> Result<(Relay, String)> {
        let slot = self.slot_and_topic(backlog).await?;
        Ok((self.start_relay(binary, &backlog.database.url(), &slot, true)?, slot))
    }

    async fn slot_and_topic(&self, backlog: &mut Backlog) -> Result<String> {
        let slot = backlog.slot().await?;
        self.kafka.create_topic(&slot, PARTITIONS).await?;
        Ok(slot)
    }

    /// Seconds from the start of the process until a consumer has the first record of a backlog,
    /// which is a little later than the relay's ack.
    pub async fn start_to_first(&self, backlog: &mut Backlog, binary: &Path) -> Result<f64> {
        let slot = self.slot_and_topic(backlog).await?;
        let (brokers, topic) = (self.kafka.bootstrap(), slot.clone());
        let came = tokio::task::spawn_blocking(move || first_record(&brokers, &topic, START_MAX));
        tokio::time::sleep(CONSUMER_READY).await;
        let begun = Instant::now();
        let relay = self.start_relay(binary, &backlog.database.url(), &slot, true)?;
        let came = came.await?.with_context(|| relay.log())?;
        Ok(came.saturating_duration_since(begun).as_secs_f64())
    }

    /// Seconds from SIGTERM to the end, in the middle of a backlog.
    pub async fn stop(&self, backlog: &mut Backlog, rows: u64, binary: &Path) -> Result<f64> {
        let (relay, slot) = self.relay_of(backlog, binary).await?;
        let ends = Ends::of(&self.kafka.bootstrap(), &slot)?;
        let begun = Instant::now();
        while ends.records()? < rows / 4 {
            ensure!(begun.elapsed() < START_MAX, "nothing came:\n{}", relay.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let asked = Instant::now();
        relay.signal(Signal::Term)?;
        while relay.is_running() {
            ensure!(asked.elapsed() < STOP_MAX, "it does not end:\n{}", relay.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let seconds = asked.elapsed().as_secs_f64();
        let status = relay.wait(STOP_MAX)?;
        ensure!(status.success(), "it ended with {status}:\n{}", relay.log());
        let records = ends.records()?;
        ensure!(records < rows, "it was not under load: all {rows} rows had been sent");
        Ok(seconds)
    }

    /// What a relay takes while nothing happens.
    pub async fn idle(&self, backlog: &mut Backlog, binary: &Path, time: Duration) -> Result<Idle> {
        let (relay, _) = self.relay_of(backlog, binary).await?;
        relay.wait_ready(START_MAX).await?;
        tokio::time::sleep(SETTLED).await;
        let pid = relay.pid().context("no relay")?;
        let (before, since) = (usage::cpu(pid).context("no relay")?, Instant::now());
        tokio::time::sleep(time).await;
        let used = usage::cpu(pid).context("no relay")?.saturating_sub(before);
        let rss_bytes = usage::rss_bytes(pid).context("no relay")?;
        let busy = used.as_secs_f64() / since.elapsed().as_secs_f64();
        Ok(Idle { busy, mebibytes: f64_of(rss_bytes) / 1_048_576.0 })
    }
}
