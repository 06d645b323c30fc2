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
use crate::error::{Error, Remedy};
use crate::feedback::Feedback;
use crate::frontier::{Frontier, Limits, Reached};
use crate::health::{Health, Phase};
use crate::http::Pages;
use crate::kafka::positions::{self, Positions};
use crate::kafka::producer::Producer;
use crate::kafka::settings::Settings;
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::outbox::Outboxes;
use crate::pg::admin::SetupError;
use crate::pg::conninfo::Conninfo;
use crate::pg::session::{Before, Opening, Session, System, open};
use crate::pg::setup::Setup;
use crate::pipe::Pipe;
use crate::position::{Context, Gap, PositionRecord, Remembered, Source};
use crate::recall::{found, recall};
use crate::relay::Relay;
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
/// How long what is in flight may take to arrive before it is given up and sent again.
const SETTLE_MAX: Duration = Duration::from_secs(3);

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
    producer: Option<Producer>,
    positions: Option<Positions>,
    /// What the positions of this process are about; none before the first start.
    stream: Option<(Source, Context)>,
    /// What was in Kafka when the server turned out to have another history. It is more than what
    /// is written there, and what the next start goes by.
    known: Option<(Source, PositionRecord)>,
    before: Before,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
}

impl Supervisor {
    /// Everything made, nothing connected.
    pub fn new(config: Config, accept_gap: bool, pages: Pages, shutdown: Shutdown) -> Supervisor {
        let kafka = Settings::new(&config);
        let setup = Setup { accept_gap, ..config.setup() };
        let Config { postgres, delivery, outboxes, .. } = config;
        let limits = Limits {
            records: delivery.max_in_flight,
            bytes: delivery.max_in_flight_bytes,
            span: SPAN_MAX,
        };
        let outboxes = Outboxes::new(outboxes, delivery.position_header);
        Supervisor {
            conninfo: postgres.conninfo,
            setup,
            kafka,
            status_interval: postgres.status_interval,
            check_interval: postgres.check_interval,
            doubts: Doubts::default(),
            shutdown_grace: delivery.shutdown_grace,
            pipe: Pipe::new(outboxes, Frontier::new(Lsn::ZERO, limits)),
            producer: None,
            positions: None,
            positions_topic: delivery.positions_topic,
            stream: None,
            known: None,
            before: Before::default(),
            health: pages.health,
            metrics: pages.metrics,
            shutdown,
        }
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
                && failure.of_record
            {
                self.pipe.suspect(&failure.reason);
            }
            // Whoever holds the slot now goes on from what is confirmed; nothing of ours may come
            // in between, and where to begin afterwards is to be found out anew.
            let anew = matches!(remedy, Remedy::BeginAgain | Remedy::StandBy);
            match remedy {
                Remedy::BeginAgain => self.settle().await,
                Remedy::StandBy => self.known = None,
                _ => {}
            }
            if (anew && self.before.system.is_some()) || remedy == Remedy::Restart {
                self.drop_producer().await;
            }
            if anew {
                self.before = Before::default();
            }
            // An error here means that the time is up.
            let _ = timeout(wait, self.shutdown.requested()).await;
        }
    }

    async fn session(&mut self) -> Result<(), Error> {
        let mut shutdown = self.shutdown.clone();
        // Until there is a stream, nothing is under way that would have to settle.
        let session = tokio::select! {
            biased;
            () = shutdown.requested() => return Ok(()),
            session = self.open() => session?,
        };
        let Session { wire, client, endpoint, system } = session;
        let Some(producer) = self.producer.as_mut() else { return Ok(()) };
        self.pipe.reconnect();
        self.before.system = Some(system);
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
            positions: self.positions.as_mut(),
            feedback: Feedback::new(self.status_interval),
            health: &self.health,
            metrics: &self.metrics,
            news,
            shutdown: &mut self.shutdown,
            shutdown_grace: self.shutdown_grace,
        };
        relay.run().await
    }

    async fn open(&mut self) -> Result<Session, Error> {
        if self.producer.is_none() {
            self.producer = Some(Producer::start(&self.kafka)?);
            self.wait_for_kafka().await;
        }
        self.before.reached = self.pipe.frontier().confirmed().lsn();
        if self.health.state().phase == Phase::WaitingForKafka {
            self.health.enter(Phase::Connecting, None);
        }
        let waits = |for_whom: String| {
            if self.health.enter(Phase::Connecting, Some(for_whom.clone())) {
                tracing::warn!("{for_whom}");
            }
        };
        let mut opening = open(&self.conninfo, &self.setup, &self.before, waits).await?;
        self.doubts.note(&opening.seen.doubts);
        self.pipe.know(&opening.seen.relations);
        if self.before.system.is_none() {
            self.find_start(&mut opening).await?;
        }
        // From here on the slot may be held by this connection, whatever we hear of it.
        self.before.backend_pid = Some(opening.backend_pid());
        let from = self.pipe.frontier().confirmed().lsn();
        opening.start(&self.setup, from).await.map_err(Error::Connect)
    }

    /// Where this process begins: the slot's position, held against what is remembered in Kafka.
    ///
    /// The slot has no reader at this moment, so whatever another relay has confirmed is written
    /// there already: a slot beyond the record is a gap, and not a race.
    async fn find_start(&mut self, opening: &mut Opening) -> Result<(), Error> {
        let Opening { looked, slot, seen } = opening;
        let System { identifier, timeline } = looked.system.clone();
        let (database, name) = (seen.database, self.setup.slot.clone());
        let source = Source { system: identifier, database, slot: name };
        let mut remembered = match &self.positions_topic {
            Some(topic) => recall(&self.kafka.client, topic, source.clone()).await?,
            None => Remembered::default(),
        };
        let own = self.take_in(&source, &mut remembered)?;
        let publication = self.setup.publication.clone();
        let found = found(remembered, looked, *slot, &publication).await.map_err(Error::Connect)?;
        let start = match found.start(self.setup.accept_gap) {
            Err(gap @ Gap::ServerBehind { server, .. }) => {
                self.refuse(source, found.remembered.record, server);
                return Err(gap.into());
            }
            start => start?,
        };
        if let Some(remark) = &start.remark {
            tracing::warn!("{remark}");
        }
        self.pipe.start(&start);
        // Once is what was asked for.
        self.setup.accept_gap = false;
        self.known = None;
        // What is not written yet may not be confirmed.
        let written = if own { Reached::default() } else { self.pipe.frontier().reached() };
        let context = Context { timeline, publication, epoch: start.epoch };
        self.stream = Some((source.clone(), context.clone()));
        self.positions = self
            .positions_topic
            .clone()
            .map(|topic| Positions::new(topic, source, context, self.status_interval, written));
        Ok(())
    }

    /// Puts what this process knows into the place of what is written, unless that is more.
    /// Returns whether it did.
    fn take_in(&self, source: &Source, remembered: &mut Remembered) -> Result<bool, Error> {
        let Some((known_source, known)) = &self.known else { return Ok(false) };
        if known_source != source {
            return Err(Error::Setup(SetupError::OtherServer(format!(
                "this is another Postgres or database than before: {}, not {}",
                source.key(),
                known_source.key()
            ))));
        }
        let (record, own) = match remembered.record.take() {
            Some(written) if written.is_beyond(known) => (written, false),
            written => {
                let behind = known.behind.or(written.and_then(|written| written.behind));
                (PositionRecord { behind, ..known.clone() }, true)
            }
        };
        remembered.record = Some(record);
        Ok(own)
    }

    /// A server that is behind may grow; that it was is remembered, here and in Kafka.
    fn refuse(&mut self, source: Source, record: Option<PositionRecord>, server: Lsn) {
        let Some(mut record) = record else { return };
        if record.behind.replace(server).is_none()
            && let (Some(topic), Some(producer)) = (&self.positions_topic, &self.producer)
        {
            positions::write_refusal(producer, topic, &source, &record);
        }
        self.known = Some((source, record));
    }

    /// Before another history is followed: gives what is in flight a moment to arrive, and keeps
    /// how far everything is in Kafka, to the row if possible, so that nothing is repeated.
    async fn settle(&mut self) {
        let (Some(producer), Some((source, context))) = (&self.producer, &self.stream) else {
            return;
        };
        // Without a memory every process begins with the slot, and with the first epoch.
        if self.before.system.is_none() || self.positions_topic.is_none() {
            return;
        }
        let deadline = tokio::time::Instant::now() + SETTLE_MAX;
        let mut runs = Vec::new();
        loop {
            let failed = producer.acks().fetch(&mut runs).is_err();
            for run in &runs {
                self.pipe.acked(run.ticket, run.records, run.bytes);
            }
            let waited = async {
                tokio::time::timeout_at(deadline, producer.acks().arrived()).await.is_ok()
            };
            if failed || self.pipe.frontier().is_idle() || !waited.await {
                break;
            }
        }
        let record = PositionRecord::new(context.clone(), self.pipe.reached());
        self.known = Some((source.clone(), record));
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
            Remedy::Reconnect | Remedy::Restart | Remedy::BeginAgain => Phase::Connecting,
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
            Remedy::BeginAgain => tracing::warn!("{error}; looking for the place to go on from"),
            Remedy::StandBy => tracing::info!("standing by: {error}"),
            Remedy::Halt => tracing::error!("halted, and trying again now and then: {error}"),
        }
    }

    /// What the producer had in flight is forgotten, and will be sent again.
    async fn drop_producer(&mut self) {
        if let Some(producer) = self.producer.take() {
            // It waits for its threads.
            let _ = tokio::task::spawn_blocking(move || drop(producer)).await;
        }
        self.pipe.restart();
        if let Some(positions) = &mut self.positions {
            positions.restart();
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
    fn waits_grow_up_to_their_maximum_and_never_end() {
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
