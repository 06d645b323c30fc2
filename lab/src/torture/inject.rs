//! Makes a fault happen, asserts that it did, and mends it.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::torture::fault::Fault;
use crate::torture::plan::Planned;
use crate::torture::stage::{PATIENCE, Stage, Window};
use crate::{Relay, Signal, eventually};

mod burden;
mod cluster;
mod kafka;
mod postgres;
mod wire;

/// Plays one fault from its beginning to its end. Returns the evidence that it took place.
pub async fn inject(stage: &Stage, planned: Planned) -> Result<String> {
    let Planned { fault, lasts, .. } = planned;
    let hurt = Hurt { stage, fault, lasts };
    match fault {
        Fault::RelayKilled => hurt.relay_killed().await,
        Fault::RelayTerminated => hurt.relay_terminated().await,
        Fault::RelayFrozen => hurt.relay_frozen().await,
        Fault::RelayFrozenLong => hurt.relay_frozen_long().await,
        Fault::SecondRelay => hurt.second_relay().await,
        Fault::ClockJumped => hurt.clock_jumped().await,
        Fault::PostgresImmediateStop | Fault::PostgresFastStop | Fault::PostgresKilled => {
            hurt.postgres_away().await
        }
        Fault::PostgresFrozen => hurt.postgres_frozen().await,
        Fault::BackendCrash => hurt.backend_crash().await,
        Fault::WalsenderTerminated => hurt.walsender_terminated().await,
        Fault::HalfSent => hurt.half_sent().await,
        Fault::DiskFull => hurt.disk_full().await,
        Fault::PublicationAltered => hurt.publication_altered().await,
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
    /// Lets the fault last. What the relay says meanwhile is judged by what was seen of it.
    async fn last(&self) {
        let from = Instant::now();
        tokio::time::sleep_until((from + self.lasts).into()).await;
        let window = Window { fault: self.fault, from, to: Instant::now() };
        self.stage.lasted.lock().unwrap_or_else(PoisonError::into_inner).push(window);
    }

    async fn relay_killed(&self) -> Result<String> {
        let pid = self.stage.relay.pid();
        self.stage.note_in_flight().await;
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
        self.last().await;
        relay.signal(Signal::Cont)?;
        Ok("state T".to_owned())
    }

    /// So long that Postgres ends the session, and does not only wait for it.
    async fn relay_frozen_long(&self) -> Result<String> {
        const SAID: &str = "terminating walsender process due to replication timeout";
        let (relay, postgres) = (&self.stage.relay, self.stage.primary());
        let before = postgres.log().matches(SAID).count();
        // Between two sessions there is none to be ended.
        let begun = eventually(PATIENCE, "a stream to freeze", async || {
            let streams = relay.metric("walrelay_postgres_connected").await == Some(1.0);
            if !streams || relay.signal(Signal::Stop).is_err() {
                return None;
            }
            let begun = Instant::now();
            let frozen = async || relay.state() == Some('T');
            eventually(PATIENCE, "the relay to freeze", frozen).await.ok()?;
            if self.has_walsender().await {
                return Some(begun);
            }
            relay.signal(Signal::Cont).ok()?;
            None
        });
        let begun = begun.await?;
        self.last().await;
        let said = async || postgres.log().matches(SAID).count() > before;
        let said = eventually(PATIENCE, "Postgres to end the session", said).await;
        let took = begun.elapsed();
        relay.signal(Signal::Cont)?;
        said?;
        Ok(format!("state T for {took:.1?}; {SAID}"))
    }

    /// One streams and one stands by, whichever: Postgres may fail meanwhile, and they change over.
    async fn second_relay(&self) -> Result<String> {
        let beside = self.stage.second_relay()?;
        let (first, second) = (&self.stage.relay, &beside.relay);
        one_stands_by(first, second).await?;
        self.stage.note_in_flight().await;
        first.kill_9()?;
        self.stage.kills.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let held = async || second.metric("walrelay_postgres_connected").await == Some(1.0);
        eventually(PATIENCE, "the second relay to take over", held).await?;
        tokio::time::sleep(self.lasts).await;
        first.start_again()?;
        one_stands_by(first, second).await?;
        beside.note_peak();
        second.signal(Signal::Term)?;
        let ended = async || !second.is_running();
        eventually(PATIENCE, "the second relay to end", ended).await?;
        let log = second.log();
        ensure!(log.contains("streaming"), "it never took over:\n{log}");
        Ok("one stood by while the other streamed".to_owned())
    }

    /// What a status says of the time is the relay's calendar.
    async fn clock_jumped(&self) -> Result<String> {
        const JUMP: i64 = 7_200;
        let clock = self.stage.clock.as_ref().context("the relay has no clock of its own")?;
        let ahead = if self.lasts.subsec_millis().is_multiple_of(2) { JUMP } else { -JUMP };
        clock.set(ahead)?;
        let seen = eventually(PATIENCE, "a status with that time", async || {
            let ahead_now = self.relay_is_ahead().await?;
            ((ahead_now - ahead).abs() < JUMP / 2).then_some(ahead_now)
        });
        let seen = seen.await;
        self.last().await;
        clock.set(0)?;
        Ok(format!("a status was {} s ahead", seen?))
    }

    /// Waits until records have been under way for so long without any ack, as the relay tells it.
    async fn no_ack_for(&self, seconds: f64) -> Result<()> {
        let age = async || self.stage.relay.metric("walrelay_last_ack_age_seconds").await;
        let waits = async || age().await.is_some_and(|age| age >= seconds);
        eventually(PATIENCE, format!("{seconds} s without an ack"), waits).await
    }
}

async fn one_stands_by(first: &Relay, second: &Relay) -> Result<()> {
    let standby = async || {
        first.metric("walrelay_standby").await == Some(1.0)
            || second.metric("walrelay_standby").await == Some(1.0)
    };
    eventually(PATIENCE, "one of two relays to stand by", standby).await
}
