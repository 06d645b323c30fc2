//! Sessions, one after the other, for as long as the process lives.
//!
//! The one place that retries. Pipe and frontier outlive the sessions; the producer does as well,
//! until it fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::Config;
use crate::error::Error;
use crate::feedback::Feedback;
use crate::frontier::{Frontier, Limits};
use crate::health::{Health, Phase};
use crate::http::Pages;
use crate::kafka::positions::{self, Positions};
use crate::kafka::producer::Producer;
use crate::kafka::routes::Counts;
use crate::kafka::settings::Settings;
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::outbox::Outboxes;
use crate::past::{Begun, Past, Refusal};
use crate::pg::admin::SetupError;
use crate::pg::conninfo::Conninfo;
use crate::pg::session::{Opening, Session, open};
use crate::pg::setup::Setup;
use crate::pipe::Pipe;
use crate::position::{Gap, Remembered, Source};
use crate::recall::{found, recall};
use crate::registry::{Registry, RegistryError};
use crate::relay::{Relay, SILENCE_MAX};
use crate::remedy::Remedy;
use crate::sensor::{Doubts, Sensor};
use crate::shutdown::Shutdown;

/// Records after which the progress inside a transaction is noted: what a restart repeats of a
/// long one is at most this much more than what was in flight.
const SPAN_MAX: usize = 1000;
/// The first wait after a failure; it doubles, with jitter, up to the maximum.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest wait, whether a server is away or somebody must mend something.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often the slot's reader is looked for while another relay holds it.
const STANDBY_WAIT: Duration = Duration::from_secs(1);
/// How often it is looked at the end whether everything is written.
const FINISH_PERIOD: Duration = Duration::from_millis(50);
/// How long what is in flight may take to arrive before it is given up and sent again. Nothing is
/// lost by waiting: brokers that take so long would not take new records any sooner.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// Everything that outlives a session.
pub struct Supervisor {
    conninfo: Conninfo,
    setup: Setup,
    kafka: Settings,
    status_interval: Duration,
    check_interval: Duration,
    shutdown_grace: Duration,
    positions_topic: Option<String>,
    doubts: Doubts,
    pipe: Pipe,
    registry: Option<Registry>,
    producer: Option<Producer>,
    /// Of the producer before.
    counts: Counts,
    positions: Option<Positions>,
    /// A record is on its way that this server is refused. Without it, the next start may take the
    /// server for the one of before.
    refuses: bool,
    past: Past,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
}

impl Supervisor {
    /// Everything made, nothing connected.
    ///
    /// # Errors
    /// The registry cannot be asked as it is configured.
    pub fn new(
        config: Config,
        accept_gap: bool,
        pages: Pages,
        shutdown: Shutdown,
    ) -> Result<Supervisor, RegistryError> {
        let kafka = Settings::new(&config);
        let setup = Setup { accept_gap, ..config.setup() };
        let Config { postgres, registry, delivery, outboxes, messages, .. } = config;
        let limits = Limits {
            records: delivery.max_in_flight,
            bytes: delivery.max_in_flight_bytes,
            span: SPAN_MAX,
        };
        let outboxes = Outboxes::new(outboxes, delivery.position_header).with_messages(messages);
        Ok(Supervisor {
            conninfo: postgres.conninfo,
            setup,
            kafka,
            status_interval: postgres.status_interval,
            check_interval: postgres.check_interval,
            doubts: Doubts::default(),
            shutdown_grace: delivery.shutdown_grace,
            pipe: Pipe::new(outboxes, Frontier::new(Lsn::ZERO, limits)),
            registry: registry.url.is_some().then(|| Registry::start(&registry)).transpose()?,
            producer: None,
            counts: Counts::new(),
            positions: None,
            refuses: false,
            positions_topic: delivery.positions_topic,
            past: Past::default(),
            health: pages.health,
            metrics: pages.metrics,
            shutdown,
        })
    }

    /// Runs sessions until the end is asked for.
    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
        while !self.shutdown.is_requested() {
            let before = self.pipe.progress();
            let Err(error) = self.session().await else { return };
            // A session that got something done ends a series of failures: a storm is made of
            // attempts that get nowhere.
            if self.pipe.progress() > before {
                backoff = Backoff::default();
            }
            let remedy = error.remedy();
            let wait = backoff.next(remedy);
            self.note(&error, remedy);
            if let Error::Delivery(failure) = &error
                && let Some(flaw) = failure.of_record
            {
                self.pipe.suspect(flaw, &failure.reason);
            }
            let remembers = self.positions_topic.is_some();
            if remembers && self.past.is_left(remedy) {
                self.settle().await;
            }
            if self.past.ended(remedy, self.pipe.reached(), remembers) {
                self.drop_producer().await;
            }
            // An error here means that the time is up.
            let _ = timeout(wait, self.shutdown.requested()).await;
        }
        self.finish().await;
    }

    async fn session(&mut self) -> Result<(), Error> {
        let mut shutdown = self.shutdown.clone();
        let session = tokio::select! {
            biased;
            () = shutdown.requested() => None,
            session = self.open() => Some(session?),
        };
        let Some(session) = session else {
            self.finish().await;
            return Ok(());
        };
        let Session { wire, client, endpoint, system } = session;
        let Some(producer) = self.producer.as_mut() else { return Ok(()) };
        self.pipe.reconnect();
        self.past.before.system = Some(system);
        self.health.enter(Phase::Streaming, None);
        tracing::info!(
            server = %endpoint,
            slot = self.setup.slot,
            lsn = %self.pipe.frontier().confirmed().lsn(),
            "streaming"
        );
        let (told, news) = mpsc::channel(1);
        let sensor = Sensor {
            conninfo: self.conninfo.clone(),
            endpoint,
            setup: self.setup.clone(),
            period: self.check_interval,
            metrics: Arc::clone(&self.metrics),
            doubts: self.doubts.clone(),
            news: told,
        };
        let _sensor = AbortOnDrop(tokio::spawn(sensor.run(client)));
        let relay = Relay {
            wire,
            pipe: &mut self.pipe,
            producer,
            registry: self.registry.as_ref(),
            positions: self.positions.as_mut(),
            feedback: Feedback::new(self.status_interval),
            health: &self.health,
            metrics: &self.metrics,
            news,
            shutdown: &mut self.shutdown,
            shutdown_grace: self.shutdown_grace,
            silence_max: SILENCE_MAX,
        };
        relay.run().await
    }

    async fn open(&mut self) -> Result<Session, Error> {
        // While nothing streams nobody else looks, and a refusal has to be written.
        if let Some(failure) = self.producer.as_ref().and_then(|it| it.acks().failure()) {
            return Err(Error::Delivery(failure));
        }
        if self.producer.is_none() {
            self.producer = Some(Producer::start(&self.kafka, self.counts.clone())?);
            self.wait_for_kafka().await;
            // It may be for want of this topic that the producer before it failed.
            if let (Some(topic), Some(_)) = (&self.positions_topic, &self.positions)
                && let Err(error) = positions::create(&self.kafka.client, topic).await
            {
                // What it takes for connected may have gone since; and the topic is to be asked
                // for again.
                self.drop_producer().await;
                return Err(error.into());
            }
        }
        self.past.before.reached = self.pipe.frontier().confirmed().lsn();
        self.past.before.received = self.pipe.received();
        self.past.before.remembers = self.positions_topic.is_some();
        if self.health.state().phase == Phase::WaitingForKafka {
            self.health.enter(Phase::Connecting, None);
        }
        let waits = |for_whom: String| {
            if self.health.enter(Phase::Connecting, Some(for_whom.clone())) {
                tracing::warn!("{for_whom}");
            }
        };
        let mut opening = open(&self.conninfo, &self.setup, &self.past.before, waits).await?;
        self.doubts.note(&opening.seen.doubts);
        self.pipe.know(&opening.seen.tables);
        if self.past.before.system.is_none() {
            self.find_start(&mut opening).await?;
        }
        // From here on the slot may be held by this connection, whatever we hear of it.
        self.past.before.backend_pid = Some(opening.backend_pid());
        let from = self.pipe.frontier().confirmed().lsn();
        opening.start(&self.setup, from).await.map_err(Error::Connect)
    }

    /// Where this process begins: the slot's position, held against what is remembered in Kafka.
    async fn find_start(&mut self, opening: &mut Opening) -> Result<(), Error> {
        let Opening { looked, slot, seen } = opening;
        let system = looked.system.identifier.clone();
        let source = Source { system, database: seen.database, slot: self.setup.slot.clone() };
        let mut remembered = match &self.positions_topic {
            Some(topic) => recall(&self.kafka.client, topic, source.clone()).await?,
            None => Remembered::default(),
        };
        let own = self.past.take_in(&source, &mut remembered);
        let own = own.map_err(|changed| Error::Setup(changed.into()))?;
        let publication = self.setup.numbering();
        let found = found(remembered, looked, *slot, &publication).await.map_err(Error::Connect)?;
        let (accept, interval) = (self.setup.accept_gap, self.status_interval);
        let begun = self.past.begin(&mut self.pipe, &source, found, own, accept, interval);
        let Begun { journal, remark } = match begun {
            Ok(begun) => begun,
            Err(Refusal { gap, record }) => {
                self.refuses = record.is_some();
                if matches!(gap, Gap::ServerBehind { .. }) {
                    // What they had to write stands in the refusal, and must not come behind it.
                    self.positions = None;
                }
                if let (Some(record), Some(topic), Some(producer)) =
                    (record, &self.positions_topic, &self.producer)
                {
                    positions::send(producer, topic, &source, &record);
                }
                return Err(gap.into());
            }
        };
        if let Some(remark) = remark {
            tracing::warn!("{remark}");
        }
        self.refuses = false;
        // Once is what was asked for.
        self.setup.accept_gap = false;
        let topic = self.positions_topic.clone();
        self.positions = topic.map(|topic| Positions::new(topic, journal));
        Ok(())
    }

    /// Gives what is in flight a moment to arrive, unless the end is asked for.
    async fn settle(&mut self) {
        let Some(producer) = &self.producer else { return };
        let deadline = tokio::time::Instant::now() + SETTLE_MAX;
        let mut runs = Vec::new();
        loop {
            let failed = producer.acks().fetch(&mut runs).is_err();
            for run in &runs {
                self.pipe.acked(run.ticket, run.records, run.bytes);
            }
            if failed || self.pipe.frontier().is_idle() {
                return;
            }
            tokio::select! {
                biased;
                () = self.shutdown.requested() => return,
                () = tokio::time::sleep_until(deadline) => {
                    let left = self.pipe.frontier().records();
                    return tracing::warn!("{left} records were not acked in time; they may repeat");
                }
                () = producer.acks().arrived() => {}
            }
        }
    }

    /// The end was asked for between two sessions. What the last one had in flight may still
    /// arrive; and how far everything got must be written, or the next start sends it again.
    async fn finish(&mut self) {
        if self.refuses {
            return self.finish_refusal().await;
        }
        let (Some(producer), Some(positions)) = (&self.producer, &mut self.positions) else {
            return;
        };
        let deadline = Instant::now() + self.shutdown_grace;
        let mut runs = Vec::new();
        while Instant::now() < deadline {
            let fetched = producer.acks().fetch(&mut runs);
            for run in &runs {
                self.pipe.acked(run.ticket, run.records, run.bytes);
            }
            match fetched {
                Ok(true) => positions.journal.acked(),
                Ok(false) => {}
                Err(failure) => return tracing::warn!("{failure}; it will be sent again"),
            }
            let (idle, reached) = (self.pipe.frontier().is_idle(), self.pipe.reached());
            if idle && positions.journal.has_written(reached) {
                return tracing::info!(lsn = %reached.flush.lsn(), "ended without Postgres");
            }
            positions.write(producer, Instant::now(), reached, idle);
            // An error here means that it is time to look again.
            let _ = timeout(FINISH_PERIOD, producer.acks().arrived()).await;
        }
        let left = self.pipe.frontier().records();
        tracing::warn!("{left} records were not acked in time; they will be sent again");
    }

    /// The same while a server is refused.
    async fn finish_refusal(&self) {
        let Some(producer) = &self.producer else { return };
        let deadline = Instant::now() + self.shutdown_grace;
        while Instant::now() < deadline {
            match producer.acks().fetch(&mut Vec::new()) {
                Ok(true) => return tracing::info!("ended; that this server is refused is written"),
                Ok(false) => {}
                Err(failure) => return tracing::warn!("{failure}"),
            }
            let _ = timeout(FINISH_PERIOD, producer.acks().arrived()).await;
        }
        tracing::warn!("Kafka has not taken in time that this server is refused");
    }

    /// Before a broker has answered for the first time, no slot is made: it would keep the log for
    /// a relay that may never run.
    async fn wait_for_kafka(&self) {
        let Some(producer) = &self.producer else { return };
        while !producer.acks().is_connected() {
            let trouble = producer.acks().trouble();
            if self.health.enter(Phase::WaitingForKafka, trouble.clone())
                && let Some(trouble) = trouble
            {
                tracing::warn!("waiting for Kafka: {trouble}");
            }
            producer.acks().arrived().await;
        }
        self.health.update(Instant::now(), |state| state.kafka_connected = true);
    }

    /// Says what happened, once for as long as it stays the same.
    fn note(&self, error: &Error, remedy: Remedy) {
        if let Error::Setup(SetupError::Unfit { slot: Some(slot), .. }) = error {
            self.metrics.slot(slot);
        }
        let phase = match remedy {
            Remedy::Reconnect | Remedy::Restart | Remedy::BeginAgain { .. } => Phase::Connecting,
            Remedy::StandBy => Phase::StandingBy,
            Remedy::Halt => Phase::Halted,
        };
        let news = self.health.enter(phase, Some(error.to_string()));
        // A relay that stands by looks every second; that is one session which did not begin.
        if news || remedy != Remedy::StandBy {
            self.metrics.session_ended(error.reason());
        }
        if !news {
            return;
        }
        match remedy {
            Remedy::Reconnect => tracing::warn!("{error}; connecting again"),
            Remedy::Restart => {
                tracing::error!("{error}; starting over from what is confirmed");
            }
            Remedy::BeginAgain { .. } => {
                tracing::warn!("{error}; looking for the place to go on from");
            }
            Remedy::StandBy => tracing::info!("standing by: {error}"),
            Remedy::Halt => tracing::error!("halted, and trying again now and then: {error}"),
        }
    }

    /// What the producer had in flight is forgotten, and will be sent again.
    async fn drop_producer(&mut self) {
        if let Some(mut producer) = self.producer.take() {
            // What the last turn of a session has sent is not published yet.
            self.metrics.passed(self.pipe.passed(), producer.take_sent());
            self.counts = producer.counts();
            // It waits for its threads.
            let _ = tokio::task::spawn_blocking(move || drop(producer)).await;
        }
        self.pipe.restart();
        if let Some(positions) = &mut self.positions {
            positions.journal.restart();
        }
    }
}

/// How long to wait after failures in a row.
#[derive(Debug, Default)]
struct Backoff(Option<ExponentialBackoff>);

impl Backoff {
    fn next(&mut self, remedy: Remedy) -> Duration {
        if remedy == Remedy::StandBy {
            return STANDBY_WAIT;
        }
        let build = || {
            let builder = ExponentialBuilder::default().with_min_delay(BACKOFF_MIN);
            builder.with_max_delay(BACKOFF_MAX).without_max_times().with_jitter().build()
        };
        self.0.get_or_insert_with(build).next().unwrap_or(BACKOFF_MAX)
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e9_waits_grow_up_to_their_maximum_and_never_end() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|_| backoff.next(Remedy::Reconnect)).collect();
        assert!(waits[0] <= BACKOFF_MIN * 2, "{waits:?}");
        // Jitter adds up to as much again.
        assert!(waits.iter().skip(10).all(|wait| *wait >= BACKOFF_MAX), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= BACKOFF_MAX * 2), "{waits:?}");
        assert!(backoff.next(Remedy::Halt) >= BACKOFF_MAX, "one series, whatever the failures are");
        assert_eq!(backoff.next(Remedy::StandBy), STANDBY_WAIT);
    }
}
