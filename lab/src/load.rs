//! Writers at work, who note in a [`History`] what they write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::history::{History, TABLES};
use crate::postgres::connect;
use crate::{Database, Relay};

mod transactions;

pub use transactions::Kind;
use transactions::Writer;

/// How long a writer that lost its server waits before it tries again.
const RECONNECT: Duration = Duration::from_millis(200);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the writers are to do.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many write at the same time.
    pub writers: u64,
    /// Over how many keys.
    pub keys: u32,
    /// Bytes in each payload beside the number, where the kind of transaction does not say.
    pub padding: usize,
    /// A pause after each transaction.
    pub pause: Duration,
    /// Kinds of transactions, each with its weight.
    pub mix: &'static [(u32, Kind)],
    /// Whether a writer goes on when its server is back; else it ends with its connection.
    pub patient: bool,
}

/// Transactions of every kind, as fast as they go.
pub const MIXED: Shape = Shape {
    writers: 8,
    keys: 1000,
    padding: 0,
    pause: Duration::ZERO,
    mix: &[
        (80, Kind::Rows(1)),
        (5, Kind::Rows(500)),
        (4, Kind::Copied(200)),
        (4, Kind::RolledBack(20)),
        (4, Kind::Savepoints),
        (3, Kind::Prepared),
    ],
    patient: false,
};

/// One row in each transaction, with a pause after it.
pub const PACED: Shape = Shape {
    writers: 4,
    keys: 200,
    pause: Duration::from_millis(4),
    mix: &[(1, Kind::Rows(1))],
    ..MIXED
};

/// Writers at work.
#[derive(Debug)]
pub struct Load {
    control: Arc<Control>,
    history: History,
    writers: Mutex<JoinSet<Result<()>>>,
}

/// What writers are told.
#[derive(Debug, Default)]
struct Control {
    stop: AtomicBool,
    pause: AtomicBool,
    at_work: AtomicU64,
}

impl Load {
    /// Starts writers, who go on until stopped. Counters that are there already go on, too.
    pub async fn start(database: &Database, shape: Shape, history: &History) -> Result<Load> {
        Load::start_at(&database.url(), shape, history).await
    }

    /// The same with a URL that may name several servers.
    pub async fn start_at(url: &str, shape: Shape, history: &History) -> Result<Load> {
        let client = connect(url).await?;
        end_prepared(&client).await?;
        make_tables(&client, shape.keys).await?;
        let control: Arc<Control> = Arc::default();
        let mut writers = JoinSet::new();
        for id in 0..shape.writers {
            let client = connect(url).await?;
            let mut writer = Writer::new(id, client, shape, history.clone()).await?;
            let (control, url) = (Arc::clone(&control), url.to_owned());
            writers.spawn(async move { control.work(&mut writer, shape, &url).await });
        }
        Ok(Load { control, history: history.clone(), writers: Mutex::new(writers) })
    }

    /// Events committed so far, by all who share the history.
    pub fn written(&self) -> u64 {
        self.history.committed()
    }

    /// Lets the writers end the transactions they are at, and waits until they have.
    pub async fn pause(&self) -> Result<()> {
        self.control.pause.store(true, Ordering::SeqCst);
        crate::eventually(Duration::from_secs(60), "the writers to pause", async || {
            self.control.at_work.load(Ordering::SeqCst) == 0
        })
        .await
    }

    /// Lets paused writers go on.
    pub fn resume(&self) {
        self.control.pause.store(false, Ordering::SeqCst);
    }

    /// Lets the writers finish. Returns how many events are committed.
    pub async fn stop(&self) -> Result<u64> {
        self.control.stop.store(true, Ordering::SeqCst);
        let mut writers = self.writers.lock().await;
        while let Some(ended) = writers.join_next().await {
            ended??;
        }
        Ok(self.written())
    }

    /// Waits until the death of the server has ended every writer at its work.
    pub async fn outlive_server(&self) -> Result<()> {
        let mut writers = self.writers.lock().await;
        while let Some(ended) = writers.join_next().await {
            let end = ended?.err();
            end.context("a writer ended before its server")?;
        }
        Ok(())
    }
}

impl Control {
    async fn work(&self, writer: &mut Writer, shape: Shape, url: &str) -> Result<()> {
        while !self.stop.load(Ordering::SeqCst) {
            if self.pause.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            self.at_work.fetch_add(1, Ordering::SeqCst);
            let done = writer.write().await;
            self.at_work.fetch_sub(1, Ordering::SeqCst);
            if let Err(error) = done {
                if !shape.patient {
                    return Err(error.into());
                }
                self.reconnect(writer, url).await;
            }
            tokio::time::sleep(shape.pause).await;
        }
        Ok(())
    }

    /// Until there is a server again, or the writers are to stop.
    async fn reconnect(&self, writer: &mut Writer, url: &str) {
        while !self.stop.load(Ordering::SeqCst) {
            tokio::time::sleep(RECONNECT).await;
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect(url)).await;
            if let Ok(Ok(client)) = connected
                && writer.take_over(client).await.is_ok()
            {
                return;
            }
        }
    }
}

/// One transaction that writes so many events of each key. Returns how many it committed: none if
/// the server rolled it back.
pub async fn write_huge(
    database: &Database,
    history: &History,
    keys: u32,
    events_of_each: u32,
) -> Result<u64> {
    let client = database.client().await?;
    make_tables(&client, keys).await?;
    let shape = Shape { keys, padding: 100, ..MIXED };
    write_one(client, shape, history, Kind::Huge(events_of_each)).await
}

/// One transaction of a kind, into tables that are there. Returns how many events it committed.
pub async fn write_one(client: Client, shape: Shape, history: &History, kind: Kind) -> Result<u64> {
    // Not one of the writers, who end what they left prepared.
    const ID: u64 = u64::MAX;
    let mut writer = Writer::new(ID, client, shape, history.clone()).await?;
    Ok(writer.write_one(kind).await?)
}

async fn make_tables(client: &Client, keys: u32) -> Result<()> {
    client.batch_execute(TABLES).await?;
    let sql = "INSERT INTO seq SELECT g, 0 FROM generate_series(0, $1 - 1) g
               ON CONFLICT DO NOTHING";
    client.execute(sql, &[&i32::try_from(keys)?]).await?;
    Ok(())
}

/// Ends what writers of the past have left prepared: their locks are in the way.
async fn end_prepared(client: &Client) -> Result<()> {
    let sql = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
    for row in client.query(sql, &[]).await? {
        let gid: String = row.get(0);
        client.batch_execute(&format!("ROLLBACK PREPARED '{gid}'")).await?;
    }
    Ok(())
}

/// Lets the relay live so long. Returns how many records may be repeated if it is killed then:
/// what is in flight, what was acked since the last status was due, and a span begun.
pub async fn may_be_repeated(relay: &Relay, alive: Duration, status_interval: Duration) -> u64 {
    /// The longest transaction of the load, and the longest span of any.
    const SPAN_MAX: f64 = 1000.0;
    let begun = std::time::Instant::now();
    let mut sent = 0.0;
    let mut acked = vec![(begun, 0.0)];
    while begun.elapsed() < alive {
        sent = relay.metric("walrelay_events_total").await.unwrap_or(sent);
        let in_flight = relay.metric("walrelay_in_flight_records").await.unwrap_or(0.0);
        acked.push((std::time::Instant::now(), sent - in_flight));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let now = std::time::Instant::now();
    let told = acked.iter().rfind(|(at, _)| now.duration_since(*at) > status_interval);
    let told = told.map_or(0.0, |(_, acked)| *acked);
    // The relay was not stopped while it was looked at, and the record of its position takes a
    // moment to be acked.
    let pace = sent / alive.as_secs_f64();
    let bound = sent - told + SPAN_MAX + pace * 0.3;
    format!("{bound:.0}").parse().unwrap_or(u64::MAX)
}
