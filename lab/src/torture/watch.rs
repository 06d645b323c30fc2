//! Looks at the relay all the time, as an operator's monitoring would.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::relay::sum_of_metric;
use crate::torture::stage::Stage;

const PERIOD: Duration = Duration::from_millis(200);

/// What a monitoring got to hear at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When it was asked.
    pub asked: Instant,
    /// When all was answered.
    pub answered: Instant,
    /// Whether `/readyz` said yes.
    pub ready: bool,
    /// Whether the relay said that a broker answers.
    pub kafka_connected: bool,
    /// Whether the relay said that there is a stream.
    pub postgres_connected: bool,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The most memory that any of the relay's processes took.
    pub peak_rss_bytes: u64,
    /// The longest time for which it was ready, nothing moved, and committed rows waited.
    pub longest_silence: Duration,
    /// Rows that could not be sent.
    pub poison: u64,
    /// Records handed to librdkafka, over all processes.
    pub events: u64,
    /// Sessions that ended, over all processes.
    pub sessions: u64,
    /// The most records a second.
    pub pace: u64,
    /// The most records under way.
    pub in_flight: u64,
    /// Looks that were answered.
    pub samples: Vec<Sample>,
}

/// The eyes on one run.
#[derive(Debug, Default)]
pub struct Watch {
    seen: Mutex<Seen>,
}

/// One process of the relay, by its counters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Look {
    events: f64,
    sessions: f64,
    poison: f64,
    confirmed: f64,
    in_flight: f64,
    kafka_connected: bool,
    postgres_connected: bool,
}

impl Watch {
    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks until it is dropped.
    pub async fn run(&self, stage: &Stage) {
        // Of the processes before this one.
        let (mut ended, mut last) = (Look::default(), Look::default());
        let mut moved = (Instant::now(), stage.history.committed());
        let mut paced = (Instant::now(), 0.0);
        loop {
            tokio::time::sleep(PERIOD).await;
            if let Some(bytes) = stage.relay.peak_rss_bytes() {
                self.note(|seen| seen.peak_rss_bytes = seen.peak_rss_bytes.max(bytes));
            }
            let asked = Instant::now();
            let look = look(stage).await;
            let ready = stage.is_ready().await;
            let Some(look) = look else {
                moved = (Instant::now(), stage.history.committed());
                continue;
            };
            if look.events < last.events || look.sessions < last.sessions {
                // Another process.
                ended.events += last.events;
                ended.sessions += last.sessions;
                ended.poison += last.poison;
            }
            if !ready || look != last {
                moved = (Instant::now(), stage.history.committed());
            }
            let since = paced.0.elapsed().as_secs_f64();
            if since > 1.0 {
                let pace = whole((look.events - paced.1).max(0.0) / since);
                self.note(|seen| seen.pace = seen.pace.max(pace));
                paced = (Instant::now(), look.events);
            }
            let sample = Sample {
                asked,
                answered: Instant::now(),
                ready,
                kafka_connected: look.kafka_connected,
                postgres_connected: look.postgres_connected,
            };
            let silent = stage.history.committed() > moved.1;
            last = look;
            self.note(|seen| {
                seen.samples.push(sample);
                seen.in_flight = seen.in_flight.max(whole(last.in_flight));
                if silent {
                    seen.longest_silence = seen.longest_silence.max(moved.0.elapsed());
                }
                seen.events = whole(ended.events + last.events);
                seen.sessions = whole(ended.sessions + last.sessions);
                seen.poison = whole(ended.poison + last.poison);
            });
        }
    }

    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

async fn look(stage: &Stage) -> Option<Look> {
    let (status, text) = stage.relay.get("/metrics").await.ok()?;
    let metric = |name: &str| sum_of_metric(&text, &format!("walrelay_{name}"), "");
    (status == 200).then(|| Look {
        events: metric("events_total").unwrap_or(0.0),
        sessions: metric("sessions_total").unwrap_or(0.0),
        poison: metric("poison_total").unwrap_or(0.0),
        confirmed: metric("confirmed_lsn").unwrap_or(0.0),
        in_flight: metric("in_flight_records").unwrap_or(0.0),
        kafka_connected: metric("kafka_connected") == Some(1.0),
        postgres_connected: metric("postgres_connected") == Some(1.0),
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole")]
fn whole(number: f64) -> u64 {
    number as u64
}
