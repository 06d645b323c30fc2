//! The metrics, in Prometheus' units and names.
//!
//! Counters are added to once per turn of the loop, from plain numbers gathered on the way.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::error::REASONS;
use crate::health::{Phase, State};
use crate::pg::slot::Slot;
use crate::pipe::Passed;

/// From half a millisecond, which a broker next door can do, to ten minutes of an outage.
const COMMIT_TO_ACK_BUCKETS: [f64; 18] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
    300.0, 600.0,
];

/// What Postgres calls the states of a slot's log.
const WAL_STATES: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    events: IntCounterVec,
    event_counters: Mutex<HashMap<String, IntCounter>>,
    event_bytes: IntCounter,
    transactions: IntCounter,
    loose_messages: IntCounter,
    stream_reads: IntCounter,
    /// One observation for each run of acks of one transaction.
    pub commit_to_ack: Histogram,
    in_flight_records: IntGauge,
    in_flight_bytes: IntGauge,
    confirmed_lsn: Gauge,
    received_lsn: Gauge,
    server_lsn: Gauge,
    lag: Gauge,
    retained_wal: Gauge,
    safe_wal: Gauge,
    wal_status: IntGaugeVec,
    last_ack_age: Gauge,
    standby: IntGauge,
    ready: IntGauge,
    sessions: IntCounterVec,
    poison: IntCounterVec,
    queue_full: IntCounter,
    kafka_connected: IntGauge,
    postgres_connected: IntGauge,
    server: Mutex<u64>,
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let collector = collector?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// If a name is illegal or used twice: a mistake in this file, which every test would find.
    pub fn new() -> prometheus::Result<Metrics> {
        let registry = Registry::new_custom(Some("walrelay".to_owned()), None)?;
        let r = &registry;
        let counter = |name, help| register(r, IntCounter::new(name, help));
        let counters =
            |name, help, label| register(r, IntCounterVec::new(Opts::new(name, help), &[label]));
        let number = |name, help| register(r, IntGauge::new(name, help));
        let gauge = |name, help| register(r, Gauge::new(name, help));
        let commit_to_ack = HistogramOpts::new(
            "commit_to_ack_seconds",
            "Time from the commit of a row, by Postgres' clock, to the broker's ack",
        );
        let commit_to_ack = commit_to_ack.buckets(COMMIT_TO_ACK_BUCKETS.to_vec());
        let wal_status = Opts::new("wal_status", "1 for the state of the log that the slot needs");
        let build = register(
            r,
            IntGaugeVec::new(
                Opts::new("build_info", "1, labelled with the versions"),
                &["version", "librdkafka"],
            ),
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), &librdkafka_version()]).set(1);
        let metrics = Metrics {
            events: counters("events_total", "Records handed to librdkafka", "topic")?,
            event_counters: Mutex::default(),
            event_bytes: counter("event_bytes_total", "Bytes of their keys and payloads")?,
            transactions: counter("transactions_total", "Transactions read from the slot")?,
            loose_messages: counter("loose_messages_total", "Messages outside of transactions")?,
            stream_reads: counter(
                "stream_reads_total",
                "Times that the socket of the replication stream gave something",
            )?,
            commit_to_ack: register(r, Histogram::with_opts(commit_to_ack))?,
            in_flight_records: number("in_flight_records", "Records sent and not yet acked")?,
            in_flight_bytes: number("in_flight_bytes", "Memory that records in flight take")?,
            confirmed_lsn: gauge("confirmed_lsn", "LSN that Postgres may forget up to")?,
            received_lsn: gauge("received_lsn", "Highest LSN received")?,
            server_lsn: gauge("server_lsn", "LSN that Postgres writes at")?,
            lag: gauge("lag_bytes", "Log between what is confirmed and the end of the log")?,
            retained_wal: gauge("retained_wal_bytes", "Log that Postgres keeps for the slot")?,
            safe_wal: gauge(
                "safe_wal_bytes",
                "Log that can be written until the slot is in danger; +Inf without a limit",
            )?,
            wal_status: register(r, IntGaugeVec::new(wal_status, &["status"]))?,
            last_ack_age: gauge(
                "last_ack_age_seconds",
                "How long records in flight have been waiting for an ack; 0 when none are",
            )?,
            standby: number("standby", "1 while another relay holds the slot")?,
            ready: number("ready", "1 while /readyz says yes")?,
            sessions: counters(
                "sessions_total",
                "Replication sessions by how they ended",
                "reason",
            )?,
            poison: counters("poison_total", "Rows that could not be sent, by policy", "policy")?,
            queue_full: counter("producer_queue_full_total", "Times that a row waited for room")?,
            kafka_connected: number("kafka_connected", "1 while a broker answers")?,
            postgres_connected: number("postgres_connected", "1 while there is a stream")?,
            server: Mutex::default(),
            registry,
        };
        metrics.safe_wal.set(f64::INFINITY);
        // A counter that appears with its first event has no increase to alert on.
        for reason in REASONS {
            metrics.sessions.with_label_values(&[reason]);
        }
        for policy in ["halt", "dead_letter", "skip", "pointer"] {
            metrics.poison.with_label_values(&[policy]);
        }
        Ok(metrics)
    }

    /// Adds what passed in one turn of the loop.
    pub fn passed<'a>(&self, passed: Passed, sent: impl Iterator<Item = (&'a str, u64)>) {
        self.event_bytes.inc_by(passed.bytes);
        self.transactions.inc_by(passed.transactions);
        self.loose_messages.inc_by(passed.loose);
        let mut counters = self.event_counters.lock().unwrap_or_else(PoisonError::into_inner);
        for (topic, records) in sent {
            if let Some(counter) = counters.get(topic) {
                counter.inc_by(records);
            } else {
                let counter = self.events.with_label_values(&[topic]);
                counter.inc_by(records);
                counters.insert(topic.to_owned(), counter);
            }
        }
    }

    /// Adds reads of the stream's socket.
    pub fn read(&self, reads: u64) {
        self.stream_reads.inc_by(reads);
    }

    /// A session ended.
    pub fn session_ended(&self, reason: &str) {
        self.sessions.with_label_values(&[reason]).inc();
    }

    /// A row could not be sent.
    pub fn poisoned(&self, policy: &str) {
        self.poison.with_label_values(&[policy]).inc();
    }

    /// A row had to wait for room.
    pub fn queue_full(&self) {
        self.queue_full.inc();
    }

    /// What the sensor found.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are f64")]
    pub fn slot(&self, slot: &Slot) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = slot.server.to_wire();
        self.server_lsn.set(slot.server.to_wire() as f64);
        self.retained_wal.set(slot.retained_wal_bytes as f64);
        // Postgres says nothing of a limit once the slot is beyond it.
        let safe = if slot.wal_status == "lost" { Some(0) } else { slot.safe_wal_bytes };
        self.safe_wal.set(safe.map_or(f64::INFINITY, |bytes| bytes as f64));
        for state in WAL_STATES {
            let now = i64::from(slot.wal_status == state);
            self.wal_status.with_label_values(&[state]).set(now);
        }
    }

    /// The text of `/metrics`.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are f64")]
    pub fn render(&self, state: &State, now: Instant) -> Result<String, prometheus::Error> {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.in_flight_records.set(count(state.records));
        self.in_flight_bytes.set(count(state.bytes));
        self.confirmed_lsn.set(state.confirmed.to_wire() as f64);
        self.received_lsn.set(state.received.to_wire() as f64);
        let server = *self.server.lock().unwrap_or_else(PoisonError::into_inner);
        self.lag.set(server.saturating_sub(state.confirmed.to_wire()) as f64);
        self.last_ack_age.set(state.ack_age(now).as_secs_f64());
        self.standby.set(i64::from(state.phase == Phase::StandingBy));
        self.ready.set(i64::from(state.ready(now).is_ok()));
        self.kafka_connected.set(i64::from(state.kafka_connected));
        self.postgres_connected.set(i64::from(state.postgres_connected));
        let mut families = self.registry.gather();
        // The process metrics bear no prefix of ours: dashboards know them by their own names.
        families.extend(prometheus::gather());
        TextEncoder::new().encode_to_string(&families)
    }
}

/// The version of the librdkafka that is linked in.
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

/// Microseconds since 2000-01-01 UTC, Postgres' epoch.
pub fn postgres_clock_us() -> i64 {
    /// 2000-01-01 in Unix time.
    const EPOCH: Duration = Duration::from_secs(946_684_800);
    let since_unix = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since_unix.saturating_sub(EPOCH).as_micros()).unwrap_or(i64::MAX)
}
