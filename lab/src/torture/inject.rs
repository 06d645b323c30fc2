//! Makes a fault happen, asserts that it did, and mends it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::torture::fault::{Fault, Wire};
use crate::torture::plan::Planned;
use crate::torture::stage::{PATIENCE, Stage};
use crate::{Direction, Relay, Signal, eventually};

mod burden;
mod cluster;
mod kafka;
mod postgres;

/// Plays one fault from its beginning to its end. Returns the evidence that it took place.
pub async fn inject(stage: &Stage, planned: Planned) -> Result<String> {
    let Planned { fault, lasts, .. } = planned;
    let hurt = Hurt { stage, fault, lasts };
    match fault {
        Fault::RelayKilled => hurt.relay_killed(),
        Fault::RelayTerminated => hurt.relay_terminated().await,
        Fault::RelayFrozen => hurt.relay_frozen().await,
        Fault::SecondRelay => hurt.second_relay().await,
        Fault::PostgresImmediateStop | Fault::PostgresFastStop | Fault::PostgresKilled => {
            hurt.postgres_away().await
        }
        Fault::PostgresFrozen => hurt.postgres_frozen().await,
        Fault::BackendCrash => hurt.backend_crash().await,
        Fault::WalsenderTerminated => hurt.walsender_terminated().await,
        Fault::HalfSent => hurt.half_sent().await,
        Fault::DiskFull => hurt.disk_full().await,
        Fault::Promotion => hurt.promotion().await,
        Fault::KafkaKilled | Fault::KafkaStopped => hurt.kafka_away().await,
        Fault::KafkaFrozen => hurt.kafka_frozen().await,
        Fault::PartitionsAdded => hurt.partitions_added().await,
        Fault::MessageBytesLowered => hurt.message_bytes_lowered().await,
        Fault::WriteDenied => hurt.write_denied().await,
        Fault::Quota => hurt.quota().await,
        Fault::TopicRecreated => hurt.topic_recreated().await,
        Fault::LeaderKilled => hurt.leader_killed().await,
        Fault::TooFewInSync => hurt.too_few_in_sync().await,
        Fault::ControllerKilled => hurt.controller_killed().await,
        Fault::Cut(wire) => hurt.cut(wire).await,
        Fault::Refused(wire)
        | Fault::StallToServer(wire)
        | Fault::StallToClient(wire)
        | Fault::HalfOpen(wire)
        | Fault::OneByteWrites(wire)
        | Fault::Delay(wire)
        | Fault::Throttle(wire) => hurt.wire(wire).await,
        Fault::HugeTransaction => hurt.huge_transaction().await,
        Fault::Subtransactions => hurt.subtransactions().await,
        Fault::LargeRows => hurt.large_rows().await,
        Fault::Ddl => hurt.ddl().await,
        Fault::BulkUpdates => hurt.bulk_updates().await,
    }
}

struct Hurt<'a> {
    stage: &'a Stage,
    fault: Fault,
    lasts: Duration,
}

impl Hurt<'_> {
    /// Lets the fault last. If that is long enough, the relay must have said that it is not ready.
    async fn last(&self) -> Result<()> {
        let until = Instant::now() + self.lasts;
        tokio::time::sleep_until(until.into()).await;
        if self.fault.unready_after().is_some_and(|after| self.lasts >= after) {
            ensure!(
                !self.stage.is_ready().await,
                "/readyz says yes, {:?} after the beginning of {}",
                self.lasts,
                self.fault
            );
        }
        Ok(())
    }

    fn relay_killed(&self) -> Result<String> {
        let pid = self.stage.relay.pid();
        self.stage.kill_relay()?;
        ensure!(self.stage.relay.pid() != pid, "the same process");
        Ok(format!("{pid:?}, then {:?}", self.stage.relay.pid()))
    }

    async fn relay_terminated(&self) -> Result<String> {
        let relay = &self.stage.relay;
        // A process that has hardly begun ends by the signal itself.
        let begun = async || relay.get("/healthz").await.is_ok();
        eventually(PATIENCE, "the relay to have begun", begun).await?;
        let begun = Instant::now();
        relay.signal(Signal::Term)?;
        let ended = eventually(PATIENCE, "the relay to end", async || !relay.is_running());
        ended.await.context("SIGTERM")?;
        let took = begun.elapsed();
        let status = relay.wait(PATIENCE)?;
        ensure!(status.success(), "SIGTERM: {status}");
        relay.start_again()?;
        Ok(format!("ended after {took:.1?}"))
    }

    async fn relay_frozen(&self) -> Result<String> {
        let relay = &self.stage.relay;
        relay.signal(Signal::Stop)?;
        let frozen = async || relay.state() == Some('T');
        eventually(PATIENCE, "the relay to freeze", frozen).await?;
        self.last().await?;
        relay.signal(Signal::Cont)?;
        Ok("state T".to_owned())
    }

    /// One streams and one stands by, whichever: Postgres may fail meanwhile, and they change over.
    async fn second_relay(&self) -> Result<String> {
        let (first, second) = (&self.stage.relay, self.stage.second_relay()?);
        one_stands_by(first, &second).await?;
        first.kill_9()?;
        self.stage.kills.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let held = async || second.metric("walrelay_postgres_connected").await == Some(1.0);
        eventually(PATIENCE, "the second relay to take over", held).await?;
        tokio::time::sleep(self.lasts).await;
        first.start_again()?;
        one_stands_by(first, &second).await?;
        second.signal(Signal::Term)?;
        let ended = async || !second.is_running();
        eventually(PATIENCE, "the second relay to end", ended).await?;
        let log = second.log();
        ensure!(log.contains("streaming"), "it never took over:\n{log}");
        Ok("one stood by while the other streamed".to_owned())
    }

    async fn cut(&self, wire: Wire) -> Result<String> {
        let cuts = || self.stage.proxies(wire).iter().map(|proxy| proxy.stats().cuts).sum::<u64>();
        let before = cuts();
        let done = async || {
            for proxy in self.stage.proxies(wire) {
                proxy.cut().ok()?;
            }
            (cuts() > before).then_some(())
        };
        eventually(PATIENCE, "a connection to cut", done).await?;
        Ok(format!("{} connections", cuts() - before))
    }

    async fn wire(&self, wire: Wire) -> Result<String> {
        let proxies = self.stage.proxies(wire);
        // A fault of a wire that nobody uses shows nothing.
        let open = async || proxies.iter().any(|proxy| proxy.stats().open > 0);
        eventually(PATIENCE, "a connection to hurt", open).await?;
        let passed = || -> u64 {
            let stats = proxies.iter().map(crate::Proxy::stats);
            stats.map(|stats| stats.bytes_to_client + stats.bytes_to_server).sum()
        };
        let open: u64 = proxies.iter().map(|proxy| proxy.stats().open).sum();
        for proxy in proxies {
            match self.fault {
                Fault::Refused(_) => proxy.down()?,
                Fault::StallToServer(_) => proxy.stall(Direction::ToServer),
                Fault::StallToClient(_) => proxy.stall(Direction::ToClient),
                Fault::HalfOpen(_) => proxy.stall(Direction::Both),
                Fault::OneByteWrites(_) => proxy.one_byte_writes(true),
                Fault::Delay(_) => proxy.delay(Duration::from_millis(50)),
                Fault::Throttle(_) => proxy.throttle(100_000),
                other => bail!("{other} is no fault of a wire"),
            }
        }
        // What is on its way through a proxy when it stalls may still arrive.
        let stalled = matches!(self.fault, Fault::HalfOpen(_) | Fault::Refused(_));
        let mut before = passed();
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = passed();
            if !stalled || now == before {
                break;
            }
            before = now;
        }
        if matches!(self.fault, Fault::Delay(_)) {
            self.jitter(proxies).await;
        } else {
            self.last().await?;
        }
        let during = passed() - before;
        ensure!(!stalled || during == 0, "{during} bytes passed");
        if matches!(self.fault, Fault::Throttle(_)) {
            let most = 100_000.0 * (self.lasts.as_secs_f64() + 1.0) * 40.0;
            let passed: u32 = u32::try_from(during).unwrap_or(u32::MAX);
            ensure!(f64::from(passed) < most, "{during} bytes passed, which is not throttled");
        }
        for proxy in proxies {
            proxy.pass()?;
        }
        Ok(format!("{open} connections open, {during} bytes passed"))
    }

    /// Times that change all the while.
    async fn jitter(&self, proxies: &[crate::Proxy]) {
        let until = Instant::now() + self.lasts;
        let mut turn = 0_u64;
        while Instant::now() < until {
            turn += 1;
            for proxy in proxies {
                proxy.delay(Duration::from_millis(turn * 7919 % 180));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn one_stands_by(first: &Relay, second: &Relay) -> Result<()> {
    let standby = async || {
        first.metric("walrelay_standby").await == Some(1.0)
            || second.metric("walrelay_standby").await == Some(1.0)
    };
    eventually(PATIENCE, "one of two relays to stand by", standby).await
}
