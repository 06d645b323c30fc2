//! From the insert to the consumer, at a steady rate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::{eventually, usage};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio::task::JoinSet;

use crate::backlog::{Backlog, KEYS};
use crate::drain::{PARTITIONS, Stage};
use crate::history;
use crate::report::Latency;

const READY_MAX: Duration = Duration::from_secs(30);
const ARRIVAL_MAX: Duration = Duration::from_secs(30);
/// Connections, servers and caches are warm after this.
const WARM_UP: Duration = Duration::from_secs(2);
/// A connection commits no more often than this each second, so that it keeps its pace.
const RATE_OF_A_WRITER: u32 = 250;

/// When an event was at each place.
#[derive(Clone, Copy, Debug, Default)]
struct Event {
    inserted: Option<Instant>,
    committed: Option<Instant>,
    arrived: Option<Instant>,
}

type Events = Arc<Mutex<Vec<Event>>>;

/// Inserts `rate` rows a second for so long, and sees when each is committed and consumed. The
/// backlog must be empty.
pub async fn measure(
    stage: &Stage<'_>,
    backlog: &mut Backlog,
    binary: &std::path::Path,
    rate: u32,
    time: Duration,
) -> Result<Latency> {
    let slot = backlog.slot().await?;
    stage.kafka.create_topic(&slot, PARTITIONS).await?;
    let relay = stage.start_relay(binary, &backlog.database.url(), &slot, true)?;
    relay.wait_ready(READY_MAX).await?;
    let count = rate * u32::try_from((WARM_UP + time).as_secs())?;
    let events: Events = Arc::new(Mutex::new(vec![Event::default(); count as usize]));
    let consumer = consumer(&stage.kafka.bootstrap(), &slot)?;
    let consuming = std::thread::spawn({
        let events = Arc::clone(&events);
        move || consume(&consumer, &events)
    });

    let pid = relay.pid().context("no relay")?;
    let warm = async {
        tokio::time::sleep(WARM_UP).await;
        (usage::cpu(pid), Instant::now())
    };
    let (written, (cpu, since)) = tokio::join!(write(backlog, rate, count, &events), warm);
    let (cpu_after, elapsed) = (usage::cpu(pid), since.elapsed());
    let written = written?;
    let all = eventually(ARRIVAL_MAX, "the last event to arrive", async || consuming.is_finished());
    all.await.with_context(|| relay.log())?;
    consuming.join().ok().context("the consumer panicked")??;
    drop(relay);
    stage.kafka.delete_topic(&slot).await?;

    let cpu = cpu_after.zip(cpu).map(|(after, before)| after.saturating_sub(before));
    let busy = cpu.unwrap_or_default().as_secs_f64() / elapsed.as_secs_f64();
    let warm = rate * u32::try_from(WARM_UP.as_secs())?;
    let events = lock(&events);
    let between = |from: fn(&Event) -> Option<Instant>, to: fn(&Event) -> Option<Instant>| {
        let times = events.iter().skip(warm as usize);
        let times = times.filter_map(|it| Some(to(it)?.saturating_duration_since(from(it)?)));
        Percentiles::of(times.collect())
    };
    Ok(Latency {
        rate,
        written: f64::from(count) / written.as_secs_f64(),
        commit: between(|it| it.inserted, |it| it.committed),
        consumer: between(|it| it.inserted, |it| it.arrived),
        behind_commit: between(|it| it.committed, |it| it.arrived),
        busy,
    })
}

/// Of some times, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Percentiles {
    fn of(mut times: Vec<Duration>) -> Percentiles {
        times.sort_unstable();
        let at = |percent: usize| {
            let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
        };
        Percentiles { p50: at(50), p99: at(99), max: at(100) }
    }
}

fn lock(events: &Events) -> std::sync::MutexGuard<'_, Vec<Event>> {
    events.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns how long it took, which a busy machine may draw out.
async fn write(backlog: &Backlog, rate: u32, count: u32, events: &Events) -> Result<Duration> {
    let writers = rate.div_ceil(RATE_OF_A_WRITER);
    let begin = Instant::now() + Duration::from_millis(50);
    let mut tasks = JoinSet::new();
    for first in 0..writers {
        let (client, events) = (backlog.database.client().await?, Arc::clone(events));
        tasks.spawn(async move {
            let sql = "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
                       VALUES ('order', $1, 'created', $2::text::jsonb)";
            let insert = client.prepare(sql).await?;
            for number in (first..count).step_by(writers as usize) {
                let at = begin + Duration::from_secs(1) * number / rate;
                tokio::time::sleep_until(at.into()).await;
                let (key, payload) = (format!("k{}", number % KEYS), payload(number));
                let inserted = Instant::now();
                client.execute(&insert, &[&key, &payload]).await?;
                let committed = Instant::now();
                if let Some(event) = lock(&events).get_mut(number as usize) {
                    (event.inserted, event.committed) = (Some(inserted), Some(committed));
                }
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(begin.elapsed())
}

fn payload(number: u32) -> String {
    let filler = "0123456789abcdef".repeat(14);
    format!(r#"{{"n": {number}, "state": "created", "note": "{filler}"}}"#)
}

fn consumer(bootstrap: &str, topic: &str) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        // Demanded by the library; no group is joined.
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    Ok(consumer)
}

/// Notes when each event comes, until all have.
fn consume(consumer: &BaseConsumer, events: &Events) -> Result<()> {
    let (mut left, deadline) = (lock(events).len(), Instant::now() + Duration::from_secs(600));
    while left > 0 && Instant::now() < deadline {
        let Some(record) = consumer.poll(Duration::from_millis(100)) else { continue };
        let (record, arrived) = (record?, Instant::now());
        let payload = String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned();
        let number = history::number(&payload).context("a record without a number")?;
        let mut events = lock(events);
        let event = events.get_mut(usize::try_from(number)?).context("an event never sent")?;
        ensure!(event.arrived.is_none(), "event {number} came twice");
        event.arrived = Some(arrived);
        left -= 1;
    }
    Ok(())
}

/// When the first record of a topic came.
pub fn first_record(bootstrap: &str, topic: &str, timeout: Duration) -> Result<Instant> {
    let consumer = consumer(bootstrap, topic)?;
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        if let Some(record) = consumer.poll(Duration::from_millis(100)) {
            record?;
            return Ok(Instant::now());
        }
    }
    bail!("no record came in {timeout:?}")
}
