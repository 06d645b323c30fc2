//! What the relay is doing, for `/readyz`, `/healthz` and `/status`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lsn::Lsn;

/// So long may records wait for an ack before the relay is not ready.
const ACK_PATIENCE: Duration = Duration::from_secs(10);

/// So long may the loop take for one turn before the process counts as stuck.
const PULSE_MAX: Duration = Duration::from_secs(30);

/// Where the relay stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not begun.
    Starting,
    /// No broker has answered yet.
    WaitingForKafka,
    /// On the way to a replication stream.
    Connecting,
    /// Another relay holds the slot.
    StandingBy,
    /// Carrying rows.
    Streaming,
    /// Somebody must mend something.
    Halted,
    /// Asked to end.
    Draining,
}

impl Phase {
    /// As `/status` writes it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::WaitingForKafka => "waiting_for_kafka",
            Phase::Connecting => "connecting",
            Phase::StandingBy => "standing_by",
            Phase::Streaming => "streaming",
            Phase::Halted => "halted",
            Phase::Draining => "draining",
        }
    }
}

/// The state at one moment.
#[derive(Clone, Debug)]
pub struct State {
    /// Where the relay stands.
    pub phase: Phase,
    /// Why it is not streaming, or what holds it up while it is.
    pub reason: Option<String>,
    /// Since when there have been records in flight without an ack; `None` when none are.
    pub waiting_since: Option<Instant>,
    /// Since when a position record has been under way without an ack.
    pub unwritten_since: Option<Instant>,
    /// Whether a broker answers.
    pub kafka_connected: bool,
    /// Whether there is a replication stream.
    pub postgres_connected: bool,
    /// What Postgres may forget.
    pub confirmed: Lsn,
    /// The highest LSN received.
    pub received: Lsn,
    /// Records in flight.
    pub records: usize,
    /// Bytes in flight.
    pub bytes: usize,
    pulse: Instant,
}

/// The state, shared with whoever asks.
#[derive(Debug)]
pub struct Health {
    state: Mutex<State>,
}

impl Default for Health {
    fn default() -> Health {
        let state = State {
            phase: Phase::Starting,
            reason: None,
            waiting_since: None,
            unwritten_since: None,
            kafka_connected: false,
            postgres_connected: false,
            confirmed: Lsn::ZERO,
            received: Lsn::ZERO,
            records: 0,
            bytes: 0,
            pulse: Instant::now(),
        };
        Health { state: Mutex::new(state) }
    }
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    /// Changes the state, and notes that the loop is alive.
    pub fn update(&self, now: Instant, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        state.pulse = now;
        change(&mut state);
    }

    /// Enters a phase for a reason. Returns whether either is news, and so worth a log line.
    pub fn enter(&self, phase: Phase, reason: Option<String>) -> bool {
        let mut state = self.lock();
        let news = state.phase != phase || state.reason != reason;
        state.phase = phase;
        state.reason = reason;
        state.pulse = Instant::now();
        state.postgres_connected = matches!(phase, Phase::Streaming | Phase::Draining);
        news
    }
}

impl State {
    /// Ready means progress: the stream runs, and what is in flight is being acked.
    ///
    /// # Errors
    /// The reason why not.
    pub fn ready(&self, now: Instant) -> Result<(), String> {
        let reason = self.reason.as_deref().unwrap_or("no reason given");
        if self.phase != Phase::Streaming {
            return Err(match &self.reason {
                Some(reason) => format!("{}: {reason}", self.phase.name()),
                None => self.phase.name().to_owned(),
            });
        }
        if !self.kafka_connected {
            return Err(format!("no Kafka broker answers: {reason}"));
        }
        if self.reason.is_some() {
            return Err(reason.to_owned());
        }
        let age = self.ack_age(now);
        if age > ACK_PATIENCE {
            let records = self.records;
            let age = age.as_secs();
            return Err(format!("{records} records in flight and no ack for {age} s"));
        }
        let age = self.unwritten_since.map(|since| now.saturating_duration_since(since));
        if let Some(age) = age.filter(|age| *age > ACK_PATIENCE) {
            let age = age.as_secs();
            return Err(format!(
                "no ack for the position record for {age} s, and without it nothing is \
                 confirmed; see whether the partition of delivery.positions_topic has a leader"
            ));
        }
        Ok(())
    }

    /// How long records in flight have been waiting for an ack; zero when none are in flight.
    pub fn ack_age(&self, now: Instant) -> Duration {
        self.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Healthy means that the loop turns, whatever it finds.
    ///
    /// # Errors
    /// How long it has not.
    pub fn healthy(&self, now: Instant) -> Result<(), String> {
        let age = now.saturating_duration_since(self.pulse);
        if matches!(self.phase, Phase::Streaming | Phase::Draining) && age > PULSE_MAX {
            return Err(format!("the relay's loop has not turned for {} s", age.as_secs()));
        }
        Ok(())
    }

    /// For `/status`.
    pub fn to_json(&self, now: Instant) -> Value {
        let ready = self.ready(now);
        json!({
            "state": self.phase.name(),
            "ready": ready.is_ok(),
            "reason": ready.err(),
            "postgres_connected": self.postgres_connected,
            "kafka_connected": self.kafka_connected,
            "confirmed_lsn": self.confirmed.to_string(),
            "received_lsn": self.received.to_string(),
            "in_flight_records": self.records,
            "in_flight_bytes": self.bytes,
            "last_ack_age_seconds": self.ack_age(now).as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streaming() -> Health {
        let health = Health::default();
        assert!(health.enter(Phase::Streaming, None));
        health.update(Instant::now(), |state| state.kafka_connected = true);
        health
    }

    #[test]
    fn ready_is_progress() {
        let now = Instant::now();
        let not_ready = |change: fn(&mut State, Instant)| {
            let health = streaming();
            assert_eq!(health.state().ready(now), Ok(()));
            health.update(now, |state| change(state, now));
            health.state().ready(now).unwrap_err()
        };
        let why = not_ready(|state, _| state.phase = Phase::Connecting);
        assert_eq!(why, "connecting");
        let why = not_ready(|state, _| {
            state.kafka_connected = false;
            state.reason = Some("refused".into());
        });
        assert_eq!(why, "no Kafka broker answers: refused");
        let why = not_ready(|state, _| state.reason = Some("topic a does not exist".into()));
        assert_eq!(why, "topic a does not exist");
        let why = not_ready(|state, now| {
            state.records = 3;
            state.waiting_since = now.checked_sub(Duration::from_secs(11));
        });
        assert_eq!(why, "3 records in flight and no ack for 11 s");
        let why = not_ready(|state, now| {
            state.unwritten_since = now.checked_sub(Duration::from_secs(12));
        });
        assert!(why.starts_with("no ack for the position record for 12 s"), "{why}");
    }

    #[test]
    fn healthy_is_a_loop_that_turns() {
        let health = streaming();
        let late = Instant::now() + Duration::from_secs(32);
        assert!(health.state().healthy(late).is_err());
        health.update(late, |_| {});
        assert_eq!(health.state().healthy(late), Ok(()));
        health.enter(Phase::Halted, Some("the slot is gone".into()));
        assert_eq!(health.state().healthy(late + PULSE_MAX * 2), Ok(()), "halted is alive");
    }

    #[test]
    fn the_same_phase_for_the_same_reason_is_no_news() {
        let health = Health::default();
        assert!(health.enter(Phase::Halted, Some("a".into())));
        assert!(!health.enter(Phase::Halted, Some("a".into())));
        assert!(health.enter(Phase::Halted, Some("b".into())));
    }
}
