//! Writers that know what they have written, and a check of what arrived.
//!
//! Each key has a counter in the table `seq`. A transaction that writes an event of a key moves
//! the key's counter in the same statement and puts its value into the payload. The row lock on
//! the counter makes the order of the commits the order of the numbers, and a rollback takes the
//! number back. So whatever is committed, the events of a key are 1, 2, 3 … up to its counter.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lab::{Database, Record, Relay};
use tokio::task::JoinSet;
use tokio_postgres::{Client, Statement};
use walrelay::kafka::partition::partition;

/// What the writers are to do.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub writers: u64,
    pub keys: u64,
    /// Bytes in each payload beside the number.
    pub padding: usize,
    /// Only transactions of one row, and this long a pause after each.
    pub paced_ms: Option<u64>,
}

/// Transactions of every kind.
pub const MIXED: Shape = Shape { writers: 8, keys: 1000, padding: 0, paced_ms: None };

/// Writers at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    writers: JoinSet<Result<(), tokio_postgres::Error>>,
}

impl Load {
    /// Starts the writers, which go on until stopped. Counters that are there already go on.
    pub async fn start(database: &Database, shape: Shape) -> Load {
        let client = database.client().await.unwrap();
        let sql = "CREATE TABLE IF NOT EXISTS seq (key int PRIMARY KEY, n int NOT NULL);";
        client.batch_execute(sql).await.unwrap();
        let keys = i32::try_from(shape.keys).unwrap();
        let sql = "INSERT INTO seq SELECT g, 0 FROM generate_series(0, $1 - 1) g
                   ON CONFLICT DO NOTHING";
        client.execute(sql, &[&keys]).await.unwrap();
        let (stop, written) = (Arc::default(), Arc::default());
        let mut writers = JoinSet::new();
        for id in 0..shape.writers {
            let client = database.client().await.unwrap();
            let writer = Writer::new(id, client, shape, Arc::clone(&stop), Arc::clone(&written));
            writers.spawn(async move { writer.await.run().await });
        }
        Load { stop, written, writers }
    }

    /// Events committed so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Lets the writers finish.
    pub async fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            ended.unwrap().unwrap();
        }
        self.written()
    }

    /// Waits until the death of the server has ended every writer at its work.
    pub async fn outlive_server(mut self) {
        while let Some(ended) = self.writers.join_next().await {
            ended.unwrap().unwrap_err();
        }
    }
}

struct Writer {
    id: u64,
    client: Client,
    emit: Statement,
    shape: Shape,
    random: u64,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
}

const EMIT: &str = "
    WITH locked AS (SELECT key FROM seq WHERE key = ANY($1) ORDER BY key FOR UPDATE),
         moved AS (UPDATE seq SET n = seq.n + 1 FROM locked WHERE seq.key = locked.key
                   RETURNING seq.key, seq.n)
    INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
    SELECT 'post', 'k' || key, 'created', jsonb_build_object('n', n, 'pad', $2::text) FROM moved";

impl Writer {
    async fn new(
        id: u64,
        client: Client,
        shape: Shape,
        stop: Arc<AtomicBool>,
        written: Arc<AtomicU64>,
    ) -> Writer {
        let emit = client.prepare(EMIT).await.unwrap();
        Writer { id, client, emit, shape, random: id + 1, stop, written }
    }

    /// A number in `0..bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % bound
    }

    fn keys(&mut self, count: u64) -> Vec<i32> {
        let first = self.below(self.shape.keys);
        let keys = (0..count).map(|n| (first + n * 7) % self.shape.keys);
        let mut keys: Vec<i32> = keys.map(|key| i32::try_from(key).unwrap()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    async fn run(mut self) -> Result<(), tokio_postgres::Error> {
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            number += 1;
            let done = match self.shape.paced_ms {
                Some(pause) => {
                    let done = self.emit(1).await;
                    tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
                    done
                }
                None => match self.below(100) {
                    0..80 => self.emit(1).await,
                    80..85 => self.emit(500).await,
                    85..89 => self.copy(200).await,
                    89..93 => self.rolled_back().await,
                    93..97 => self.with_savepoints().await,
                    _ => self.prepared(number).await,
                },
            };
            match done {
                Ok(rows) => drop(self.written.fetch_add(rows, Ordering::Relaxed)),
                // Writers of several keys may deadlock; the server rolls one of them back.
                Err(error) if error.code().is_some_and(|code| code.code() == "40P01") => {
                    let _ = self.client.batch_execute("ROLLBACK").await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn emit(&mut self, count: u64) -> Result<u64, tokio_postgres::Error> {
        let keys = self.keys(count);
        self.emit_keys(&keys).await
    }

    async fn emit_keys(&self, keys: &[i32]) -> Result<u64, tokio_postgres::Error> {
        let padding = "x".repeat(self.shape.padding);
        self.client.execute(&self.emit, &[&keys, &padding]).await
    }

    /// All rows of one COPY share their LSN.
    async fn copy(&mut self, count: u64) -> Result<u64, tokio_postgres::Error> {
        let keys = self.keys(count);
        let transaction = self.client.transaction().await?;
        let moved =
            "WITH locked AS (SELECT key FROM seq WHERE key = ANY($1) ORDER BY key FOR UPDATE)
            UPDATE seq SET n = seq.n + 1 FROM locked WHERE seq.key = locked.key
            RETURNING seq.key, seq.n";
        let rows = transaction.query(moved, &[&keys]).await?;
        let text = rows.iter().map(|row| {
            let (key, n): (i32, i32) = (row.get(0), row.get(1));
            format!("post\tk{key}\tcreated\t{{\"n\": {n}}}\n")
        });
        let text: String = text.collect();
        let copy = "COPY outbox (aggregatetype, aggregateid, type, payload) FROM STDIN";
        let sink = transaction.copy_in(copy).await?;
        let mut sink = std::pin::pin!(sink);
        futures_util::SinkExt::send(&mut sink, std::io::Cursor::new(text)).await?;
        let copied = sink.finish().await?;
        transaction.commit().await?;
        Ok(copied)
    }

    async fn rolled_back(&mut self) -> Result<u64, tokio_postgres::Error> {
        let keys = self.keys(20);
        self.client.batch_execute("BEGIN").await?;
        self.emit_keys(&keys).await?;
        self.client.batch_execute("ROLLBACK").await?;
        Ok(0)
    }

    async fn with_savepoints(&mut self) -> Result<u64, tokio_postgres::Error> {
        let keys = self.keys(9);
        let (first, rest) = keys.split_at(3);
        let (second, third) = rest.split_at(rest.len().min(3));
        self.client.batch_execute("BEGIN").await?;
        let mut rows = self.emit_keys(first).await?;
        self.client.batch_execute("SAVEPOINT a").await?;
        self.emit_keys(second).await?;
        self.client.batch_execute("ROLLBACK TO a; SAVEPOINT b").await?;
        rows += self.emit_keys(third).await?;
        self.client.batch_execute("RELEASE b; COMMIT").await?;
        Ok(rows)
    }

    async fn prepared(&mut self, number: u64) -> Result<u64, tokio_postgres::Error> {
        let keys = self.keys(10);
        let gid = format!("{}-{}-{number}", std::process::id(), self.id);
        let gid = format!(
            "{}-{gid}",
            self.client
                .query_one("SELECT current_database()::text", &[])
                .await?
                .get::<_, String>(0)
        );
        self.client.batch_execute("BEGIN").await?;
        let rows = self.emit_keys(&keys).await?;
        self.client.batch_execute(&format!("PREPARE TRANSACTION '{gid}'")).await?;
        let (verb, rows) = if self.below(3) == 0 { ("ROLLBACK", 0) } else { ("COMMIT", rows) };
        self.client.batch_execute(&format!("{verb} PREPARED '{gid}'")).await?;
        Ok(rows)
    }
}

/// Lets the relay live so long. Returns how many records may be repeated if it is killed then:
/// what is in flight, what was acked since the last status was due, and a span begun.
pub async fn watch(relay: &Relay, alive: Duration, interval: Duration) -> u64 {
    /// The longest transaction of the load, and the longest span of any.
    const SPAN_MAX: f64 = 1000.0;
    let begun = Instant::now();
    let mut sent = 0.0;
    let mut acked = Vec::new();
    while begun.elapsed() < alive {
        sent = relay.metric("walrelay_events_total").await.unwrap_or(0.0);
        let in_flight = relay.metric("walrelay_in_flight_records").await.unwrap_or(0.0);
        acked.push((Instant::now(), sent - in_flight));
    }
    let (last, _) = acked[acked.len() - 1];
    let told = acked.iter().rfind(|(at, _)| last - *at > interval).unwrap().1;
    // The relay was not stopped while it was looked at, and the record of its position takes a
    // moment to be acked.
    let pace = sent / alive.as_secs_f64();
    let bound = sent - told + SPAN_MAX + pace * 0.3;
    format!("{bound:.0}").parse().unwrap()
}

/// What the check found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Committed and not arrived.
    pub lost: u64,
    /// Arrived and never committed.
    pub invented: u64,
    /// Before its predecessor.
    pub reordered: u64,
    /// On another partition than a Java producer's.
    pub misplaced: u64,
    /// Arrived more than once.
    pub repeated: u64,
}

/// Compares what arrived in a topic with what was committed.
pub async fn check(client: &Client, records: &[Record], partitions: u32) -> Verdict {
    let rows = client.query("SELECT 'k' || key, n::int8 FROM seq", &[]).await.unwrap();
    let expected: HashMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut verdict = Verdict::default();
    let mut seen: HashMap<String, i64> = HashMap::new();
    for record in records {
        let key = record.key_text();
        if u32::try_from(record.partition) != Ok(partition(key.as_bytes(), partitions)) {
            verdict.misplaced += 1;
        }
        let n = number(&record.payload_text());
        let last = seen.entry(key.clone()).or_default();
        if n > *expected.get(&key).unwrap_or(&0) {
            verdict.invented += 1;
        } else if n <= *last {
            verdict.repeated += 1;
        } else {
            // A gap now is filled later, if at all: out of order or lost.
            verdict.reordered += u64::from(n != *last + 1);
            *last = n;
        }
    }
    let lost = expected.iter().map(|(key, n)| n - seen.get(key).unwrap_or(&0));
    verdict.lost = u64::try_from(lost.sum::<i64>()).unwrap();
    verdict
}

/// The number in `{"n": 7, …}`.
fn number(payload: &str) -> i64 {
    let digits = payload.split("\"n\": ").nth(1).unwrap_or_default();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or_else(|_| panic!("no number in {payload}"))
}
