//! Looks at slot, publication and server from beside the stream, on a connection of plain SQL:
//! what goes wrong there is told nowhere in the stream.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::pg::admin::{Seen, SetupError};
use crate::pg::conninfo::Conninfo;
use crate::pg::known::Known;
use crate::pg::setup::Setup;
use crate::pg::socket::Endpoint;
use crate::pg::sql::connect_sql;
use crate::verdict::Problem;

/// How long one look may take.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// How often it is noticed that the connection is gone, as it is when Postgres is stopped.
const PULSE: Duration = Duration::from_millis(500);

/// What a look found.
#[derive(Debug)]
pub enum News {
    /// Postgres shuts down, and waits until everything it has sent is confirmed.
    ShuttingDown,
    /// The publication or the slot are not what they must be any more.
    Unfit(SetupError),
    /// All is as it must be.
    Fit {
        /// The outbox tables and their parts.
        tables: Vec<Known>,
        /// Where the server writes.
        server: Lsn,
        /// What the walsender waits for.
        wait_event: Option<String>,
    },
}

/// What somebody should know, said once for as long as it is so.
#[derive(Clone, Debug, Default)]
pub struct Doubts(Arc<Mutex<Vec<Problem>>>);

impl Doubts {
    /// Logs those that are new.
    pub fn note(&self, doubts: &[Problem]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for doubt in doubts.iter().filter(|doubt| !known.contains(doubt)) {
            tracing::warn!("{doubt}");
        }
        doubts.clone_into(&mut known);
    }
}

/// Everything that a look needs.
pub struct Sensor {
    /// How to connect.
    pub conninfo: Conninfo,
    /// The server that the stream comes from.
    pub endpoint: Endpoint,
    /// What to look at.
    pub setup: Setup,
    /// How often.
    pub period: Duration,
    /// Where the numbers go.
    pub metrics: Arc<Metrics>,
    /// What has been said already.
    pub doubts: Doubts,
    /// Where the news go.
    pub news: Sender<News>,
}

impl Sensor {
    /// Looks again and again, first of all at once. A look that fails is not by itself a reason to
    /// end the stream; what it finds may be.
    pub async fn run(self, mut client: Client) {
        let mut failing = false;
        loop {
            let trouble = match timeout(LOOK_MAX, self.look(&client)).await {
                Ok(Ok(news)) => {
                    // Nobody listens any more: the session is over.
                    if self.news.send(news).await.is_err() {
                        return;
                    }
                    None
                }
                Ok(Err(SetupError::Sql(error))) => Some(error.to_string()),
                Ok(Err(error)) => return drop(self.news.send(News::Unfit(error)).await),
                Err(_) => Some("no answer".to_owned()),
            };
            if let Some(trouble) = &trouble
                && !failing
            {
                tracing::warn!("cannot look at slot and publication: {trouble}");
            }
            failing = trouble.is_some();
            self.rest(&client).await;
            if client.is_closed() {
                match connect_sql(&self.conninfo, &self.endpoint).await {
                    Ok(again) => client = again,
                    // Ordinary sessions end first when Postgres is stopped, and new ones are
                    // refused (57P03); the walsender lives on until all it has sent is confirmed.
                    Err(error) if error.sqlstate() == Some("57P03") => {
                        return drop(self.news.send(News::ShuttingDown).await);
                    }
                    Err(error) => tracing::debug!("no SQL connection: {error}"),
                }
            }
        }
    }

    async fn look(&self, client: &Client) -> Result<News, SetupError> {
        let Seen { slot, tables, doubts, .. } = self.setup.check(client).await?;
        self.doubts.note(&doubts);
        let (mut server, mut wait_event) = (Lsn::ZERO, None);
        if let Some(slot) = slot {
            self.metrics.slot(&slot);
            server = slot.server;
            wait_event = slot.reader.and_then(|reader| reader.wait_event);
        }
        Ok(News::Fit { tables, server, wait_event })
    }

    /// Until the next look, or until the connection is gone.
    async fn rest(&self, client: &Client) {
        let until = Instant::now() + self.period;
        while !client.is_closed() && Instant::now() < until {
            tokio::time::sleep(PULSE.min(self.period)).await;
        }
    }
}
