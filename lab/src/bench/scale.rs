//! How cost grows with topics, partitions, tables that are nobody's events, and relays.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lab::{Postgres, Relay, eventually};

use crate::backlog::{Backlog, KEYS, Shape, TYPE, publication};
use crate::drain::{Meter, START_MAX, STUCK, Stage, Way, pace};
use crate::history;
use crate::report::Measured;

/// Topics whose records are read and compared.
const CHECKED: usize = 10;

/// A load, and what carries it.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub name: &'static str,
    /// As many as there are types of aggregates.
    topics: u32,
    /// Of each topic.
    partitions: i32,
    /// Rows of a table that is not published, for each event.
    unpublished: u32,
    /// Each with a slot of its own, and a publication that filters its share of the keys.
    relays: u32,
}

const PLAIN: Trial =
    Trial { name: "1 topic, 6 partitions", topics: 1, partitions: 6, unpublished: 0, relays: 1 };

/// The first is what the others are compared with.
pub const TRIALS: [Trial; 9] = [
    PLAIN,
    Trial { name: "1 partition", partitions: 1, ..PLAIN },
    Trial { name: "100 partitions", partitions: 100, ..PLAIN },
    Trial { name: "10 topics", topics: 10, ..PLAIN },
    Trial { name: "1,000 topics, 1 partition", topics: 1000, partitions: 1, ..PLAIN },
    Trial { name: "1 unpublished row an event", unpublished: 1, ..PLAIN },
    Trial { name: "10 unpublished rows an event", unpublished: 10, ..PLAIN },
    Trial { name: "2 relays", relays: 2, ..PLAIN },
    Trial { name: "4 relays", relays: 4, ..PLAIN },
];

impl Trial {
    /// A database with the trial's rows in its log, a hundred of the outbox in each transaction.
    pub async fn backlog(&self, postgres: &Postgres, rows: u32) -> Result<Backlog> {
        // So that each key has as many.
        ensure!(rows.is_multiple_of(KEYS), "rows must be a multiple of {KEYS}");
        let backlog = Backlog::begin(postgres).await?;
        backlog.shard(self.relays).await?;
        let Trial { topics: types, unpublished, .. } = *self;
        backlog.write(Shape { types, unpublished, ..Shape::w2(rows) }).await?;
        Ok(backlog)
    }

    /// Reads the backlog to its end, with slots that nobody else reads.
    pub async fn measure(
        &self,
        stage: &Stage<'_>,
        backlog: &mut Backlog,
        binary: &Path,
        rows: u32,
    ) -> Result<Measured> {
        let mut slots = Vec::new();
        for _ in 0..self.relays {
            slots.push(backlog.slot().await?);
        }
        let prefix = slots.first().context("no relay")?.clone();
        let topics: Vec<String> = match self.topics {
            1 => vec![format!("{prefix}.{TYPE}")],
            count => (0..count).map(|number| format!("{prefix}.{TYPE}{number}")).collect(),
        };
        stage.kafka.create_topics(&topics, self.partitions).await?;
        let template = format!("{prefix}.{{aggregatetype}}");
        let url = backlog.database.url();
        let mut relays = Vec::new();
        for (shard, slot) in (0..).zip(&slots) {
            let publication = publication(self.relays, shard);
            let way = Way { slot, publication: &publication, topic: &template };
            relays.push(stage.start_relay_of(binary, &url, way, true)?);
        }
        let measured = drain(stage, backlog, &slots, &relays, rows).await;
        let measured = measured.with_context(|| self.name)?;
        drop(relays);
        let brokers = stage.kafka.bootstrap();
        let each = u64::from(rows / self.topics);
        let looked_at: Vec<String> = topics.iter().take(CHECKED).cloned().collect();
        let checked =
            move || looked_at.iter().try_for_each(|topic| history::check(&brokers, topic, each));
        tokio::task::spawn_blocking(checked).await?.with_context(|| self.name)?;
        stage.kafka.delete_topics(&topics).await?;
        Ok(measured)
    }
}

/// Waits until the relays have carried all rows, and what they carried is acked.
async fn drain(
    stage: &Stage<'_>,
    backlog: &Backlog,
    slots: &[String],
    relays: &[Relay],
    rows: u32,
) -> Result<Measured> {
    let log = || relays.iter().map(Relay::log).collect::<Vec<_>>().join("\n");
    let mut walsenders = Vec::new();
    for slot in slots {
        let walsender = eventually(START_MAX, "the slot to be read", async || {
            backlog.walsender(slot).await.ok().flatten()
        });
        walsenders.push(walsender.await.with_context(log)?);
    }
    let pids: Option<Vec<u32>> = relays.iter().map(Relay::pid).collect();
    let broker = stage.kafka.pid().context("no broker")?;
    let mut meter = Meter::new([pids.context("a relay has ended")?, walsenders, vec![broker]]);
    // The first has not waited for the last one to be seen.
    let (begun, before) = (Instant::now(), sum(relays, "walrelay_events_total", 0.0).await);
    let mut done = 0.0;
    loop {
        // A look at a thousand topics is work for the relay.
        tokio::time::sleep(pace(begun, done, f64::from(rows) - before)).await;
        let sent = sum(relays, "walrelay_events_total", 0.0).await;
        let in_flight = sum(relays, "walrelay_in_flight_records", f64::NAN).await;
        meter.look();
        done = sent - in_flight - before;
        if sent >= f64::from(rows) && in_flight == 0.0 {
            break;
        }
        ensure!(begun.elapsed() < STUCK, "{sent} of {rows} rows:\n{}", log());
    }
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let rows = u64::from(rows) - before as u64;
    let reads = sum(relays, "walrelay_stream_reads_total", f64::NAN).await;
    let [cpu, walsender, broker] = meter.used();
    let peak_bytes = meter.peak_bytes;
    Ok(Measured { seconds, rows, cpu, walsender, broker, peak_bytes, reads: Some(reads) })
}

/// A metric of all relays. A relay that has sent nothing has no count of it yet.
async fn sum(relays: &[Relay], metric: &str, absent: f64) -> f64 {
    let mut sum = 0.0;
    for relay in relays {
        sum += relay.metric(metric).await.unwrap_or(absent);
    }
    sum
}
