//! The Post-Service: saves a post and its event in one transaction, and, for comparison, publishes
//! the same event once more straight after the commit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::Database;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Statement};

use crate::direct_publisher::DirectPublisher;

const WRITERS: u64 = 4;
const POSTS_PER_SECOND: u64 = 300;
const AUTHORS: u64 = 24;

/// A running service, and what it has written.
pub struct PostService {
    database: Database,
    publisher: DirectPublisher,
    /// In no particular order.
    written: Mutex<Vec<Written>>,
    closed: AtomicBool,
}

/// An event in the outbox.
pub struct Written {
    pub id: String,
    /// When the service knew.
    pub committed: Instant,
}

/// The three statements of a post's transaction.
struct Statements {
    number: Statement,
    post: Statement,
    event: Statement,
}

impl PostService {
    /// In a database that has the outbox; creates the other tables.
    pub async fn open(database: Database, publisher: DirectPublisher) -> Result<Arc<PostService>> {
        let client = database.client().await?;
        let sql = format!(
            "CREATE TABLE author (id text PRIMARY KEY, posts bigint NOT NULL DEFAULT 0);
             CREATE TABLE post (author text REFERENCES author, number bigint, body text NOT NULL,
                 PRIMARY KEY (author, number));
             INSERT INTO author SELECT 'author-' || n FROM generate_series(0, {AUTHORS} - 1) n;"
        );
        client.batch_execute(&sql).await.context("create the Post-Service's tables")?;
        let (written, closed) = (Mutex::default(), AtomicBool::new(false));
        Ok(Arc::new(PostService { database, publisher, written, closed }))
    }

    /// Writes posts until the service is closed.
    pub async fn serve(self: &Arc<PostService>) -> Result<()> {
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(Arc::clone(self).write(writer));
        }
        while let Some(ended) = writers.join_next().await {
            ended?.context("write a post")?;
        }
        Ok(())
    }

    /// Accepts no more posts.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// All events committed so far.
    pub fn written(&self) -> MutexGuard<'_, Vec<Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn publisher(&self) -> &DirectPublisher {
        &self.publisher
    }

    async fn write(self: Arc<PostService>, writer: u64) -> Result<()> {
        let mut client = self.database.client().await?;
        let statements = Statements::prepare(&client).await?;
        let interval = Duration::from_secs(1) * u32::try_from(WRITERS)?;
        let mut ticks = tokio::time::interval(interval / u32::try_from(POSTS_PER_SECOND)?);
        let mut turn = writer;
        while !self.closed.load(Ordering::Relaxed) {
            ticks.tick().await;
            // Every writer writes for every author, as web requests do.
            let author = format!("author-{}", turn * 7 % AUTHORS);
            self.save(&mut client, &statements, &author).await?;
            turn += 1;
        }
        Ok(())
    }

    /// One request: the post and its event are committed together or not at all.
    async fn save(&self, client: &mut Client, sql: &Statements, author: &str) -> Result<()> {
        let transaction = client.transaction().await?;
        // Locks the author until the commit, so that numbers are committed in their order.
        let number: i64 = transaction.query_one(&sql.number, &[&author]).await?.get(0);
        let body = format!("What {author} says for the {number}. time");
        transaction.execute(&sql.post, &[&author, &number, &body]).await?;
        let payload = json!({ "author": author, "number": number, "body": body }).to_string();
        let id: String = transaction.query_one(&sql.event, &[&author, &payload]).await?.get(0);
        transaction.commit().await?;
        self.publisher.publish(&id, author, &payload);
        self.written().push(Written { id, committed: Instant::now() });
        Ok(())
    }
}

impl Statements {
    async fn prepare(client: &Client) -> Result<Statements> {
        let number = "UPDATE author SET posts = posts + 1 WHERE id = $1 RETURNING posts";
        let post = "INSERT INTO post (author, number, body) VALUES ($1, $2, $3)";
        let event = "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
                     VALUES ('post', $1, 'created', $2::text::jsonb) RETURNING id::text";
        Ok(Statements {
            number: client.prepare(number).await?,
            post: client.prepare(post).await?,
            event: client.prepare(event).await?,
        })
    }
}
