//! The kinds of transactions that writers write.

use std::io::Cursor;

use fastrand::Rng;
use futures_util::SinkExt;
use tokio_postgres::{Client, Error, Statement};

use super::Shape;
use crate::history::seen::padding;
use crate::history::{Event, EventId, History, Outcome, events_of};

/// A kind of transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// So many rows in one statement.
    Rows(u32),
    /// So many rows by COPY, which share their LSN.
    Copied(u32),
    /// So many rows that are rolled back.
    RolledBack(u32),
    /// Three savepoints, of which one is rolled back.
    Savepoints,
    /// So many subtransactions of one row each, of which every third is rolled back.
    Subtransactions(u32),
    /// Prepared, and committed or rolled back after.
    Prepared,
    /// Rows that are deleted in the transaction that writes them.
    Deleted,
    /// One row with so many bytes of payload.
    Padded(u32),
    /// So many rows of every key.
    Huge(u32),
    /// Left open by a client that hangs up.
    HungUp,
}

const LOCKED: &str = "WITH locked AS (SELECT key FROM seq WHERE key = ANY($1) ORDER BY key
    FOR UPDATE)";

const MOVED: &str = "UPDATE seq SET n = seq.n + 1 FROM locked WHERE seq.key = locked.key
    RETURNING seq.key, seq.n";

/// Transaction and step of an id; the key follows.
const ID: &str = "lpad(to_hex($3::int8), 16, '0') || lpad(to_hex($4::int8), 8, '0')";

fn emit_statement() -> String {
    format!(
        "{LOCKED}, moved AS ({MOVED}),
         wrote AS (INSERT INTO wrote VALUES ($3::int8) ON CONFLICT DO NOTHING)
         INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
         SELECT ({ID} || lpad(to_hex(key), 8, '0'))::uuid, 'post', 'k' || key, 'created',
                jsonb_build_object('n', n, 'pad', $2::text)
         FROM moved RETURNING id::text, (payload->>'n')::int"
    )
}

/// One who writes, and notes it.
#[derive(Debug)]
pub(super) struct Writer {
    id: u64,
    client: Client,
    emit: Statement,
    shape: Shape,
    random: Rng,
    history: History,
    /// The transaction under way.
    number: u64,
    step: i64,
    /// Whether it may be committed already, and with which events.
    committing: Option<Vec<Event>>,
}

impl Writer {
    pub(super) async fn new(
        id: u64,
        client: Client,
        shape: Shape,
        history: History,
    ) -> Result<Writer, Error> {
        let emit = client.prepare(&emit_statement()).await?;
        let random = Rng::with_seed(id);
        let (number, step, committing) = (0, 0, None);
        Ok(Writer { id, client, emit, shape, random, history, number, step, committing })
    }

    /// Goes on with a new connection, and first ends what the last one left prepared.
    pub(super) async fn take_over(&mut self, client: Client) -> Result<(), Error> {
        // Also one that was committed, on a server that did not tell the present one.
        let sql = "SELECT gid FROM pg_prepared_xacts
                   WHERE database = current_database() AND starts_with(gid, $1)";
        for row in client.query(sql, &[&self.gid_prefix()]).await? {
            let gid: String = row.get(0);
            client.batch_execute(&format!("ROLLBACK PREPARED '{gid}'")).await?;
        }
        self.emit = client.prepare(&emit_statement()).await?;
        self.client = client;
        Ok(())
    }

    /// One transaction of the mix.
    pub(super) async fn write(&mut self) -> Result<(), Error> {
        let weights: u32 = self.shape.mix.iter().map(|(weight, _)| weight).sum();
        let mut chosen = self.random.u32(0..weights.max(1));
        for (weight, kind) in self.shape.mix {
            if chosen < *weight {
                return self.write_one(*kind).await.map(drop);
            }
            chosen -= weight;
        }
        Ok(())
    }

    /// How many events it committed. Errors are those after which there is no connection.
    pub(super) async fn write_one(&mut self, kind: Kind) -> Result<u64, Error> {
        self.number = self.history.begin();
        (self.step, self.committing) = (0, None);
        let done = self.transaction(kind).await;
        let outcome = match (&done, self.committing.take()) {
            (Ok(Some(events)), _) => Outcome::Committed(events.clone()),
            (Ok(None), _) | (Err(_), None) => Outcome::RolledBack,
            (Err(_), Some(events)) => Outcome::Unknown(events),
        };
        self.history.end(self.number, outcome);
        match done {
            // Writers of several keys may deadlock; the server rolls one of them back.
            Err(error) if error.as_db_error().is_some() && !self.client.is_closed() => {
                self.client.batch_execute("ROLLBACK").await.map(|()| 0)
            }
            done => done.map(|events| events.map_or(0, |events| events.len() as u64)),
        }
    }

    /// The events that it committed; `None` if it was rolled back.
    async fn transaction(&mut self, kind: Kind) -> Result<Option<Vec<Event>>, Error> {
        match kind {
            Kind::Rows(count) => self.rows(count, self.shape.padding).await,
            Kind::Padded(bytes) => self.rows(1, usize::try_from(bytes).unwrap_or(0)).await,
            Kind::Copied(count) => self.copied(count).await,
            Kind::RolledBack(count) => self.rolled_back(count).await,
            Kind::Savepoints => self.savepoints(9).await,
            Kind::Subtransactions(count) => self.subtransactions(count).await,
            Kind::Prepared => self.prepared().await,
            Kind::Deleted => self.deleted().await,
            Kind::Huge(events_of_each) => self.huge(events_of_each).await,
            Kind::HungUp => self.hung_up().await,
        }
    }

    fn keys(&mut self, count: u32) -> Vec<i32> {
        let first = self.random.u32(0..self.shape.keys);
        let keys = (0..count).map(|n| (first + n * 7) % self.shape.keys);
        let mut keys: Vec<i32> = keys.filter_map(|key| i32::try_from(key).ok()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    async fn emit(&mut self, keys: &[i32], bytes: usize) -> Result<Vec<Event>, Error> {
        let (number, step) = (self.number_sql(), self.step);
        self.step += 1;
        let pad = padding(self.number, bytes);
        let rows = self.client.query(&self.emit, &[&keys, &pad, &number, &step]).await?;
        let events = rows.iter().filter_map(|row| {
            let n = u32::try_from(row.get::<_, i32>(1)).ok()?;
            Some(Event { id: EventId::parse(row.get(0))?, n })
        });
        Ok(events.collect())
    }

    fn number_sql(&self) -> i64 {
        i64::try_from(self.number).unwrap_or(i64::MAX)
    }

    async fn rows(&mut self, count: u32, bytes: usize) -> Result<Option<Vec<Event>>, Error> {
        let keys = self.keys(count);
        // One statement is its own COMMIT.
        self.committing = Some(Vec::new());
        self.emit(&keys, bytes).await.map(Some)
    }

    /// COMMIT, with what the table holds by then.
    async fn commit(&mut self) -> Result<Option<Vec<Event>>, Error> {
        let events = events_of(&self.client, self.number).await?;
        self.committing = Some(events.clone());
        self.client.batch_execute("COMMIT").await?;
        Ok(Some(events))
    }

    async fn copied(&mut self, count: u32) -> Result<Option<Vec<Event>>, Error> {
        let keys = self.keys(count);
        self.client.batch_execute("BEGIN").await?;
        let rows = self.client.query(&format!("{LOCKED} {MOVED}"), &[&keys]).await?;
        let pad = padding(self.number, self.shape.padding);
        let text = rows.iter().map(|row| {
            let (key, n): (i32, i32) = (row.get(0), row.get(1));
            let key = u32::try_from(key).unwrap_or(0);
            let id = EventId { transaction: self.number, step: 0, key };
            format!("{id}\tpost\tk{key}\tcreated\t{{\"n\": {n}, \"pad\": \"{pad}\"}}\n")
        });
        let text: String = text.collect();
        let copy = "COPY outbox (id, aggregatetype, aggregateid, type, payload) FROM STDIN";
        let sink = self.client.copy_in(copy).await?;
        let mut sink = std::pin::pin!(sink);
        sink.send(Cursor::new(text)).await?;
        sink.finish().await?;
        let sql = "INSERT INTO wrote VALUES ($1)";
        self.client.execute(sql, &[&self.number_sql()]).await?;
        self.commit().await
    }

    async fn rolled_back(&mut self, count: u32) -> Result<Option<Vec<Event>>, Error> {
        let keys = self.keys(count);
        self.client.batch_execute("BEGIN").await?;
        self.emit(&keys, self.shape.padding).await?;
        self.client.batch_execute("ROLLBACK").await?;
        Ok(None)
    }

    async fn savepoints(&mut self, count: u32) -> Result<Option<Vec<Event>>, Error> {
        let keys = self.keys(count);
        let (first, rest) = keys.split_at(keys.len() / 3);
        let (second, third) = rest.split_at(rest.len() / 2);
        self.client.batch_execute("BEGIN").await?;
        self.emit(first, self.shape.padding).await?;
        self.client.batch_execute("SAVEPOINT a").await?;
        self.emit(second, self.shape.padding).await?;
        self.client.batch_execute("ROLLBACK TO a; SAVEPOINT b").await?;
        self.emit(third, self.shape.padding).await?;
        self.client.batch_execute("RELEASE b").await?;
        self.commit().await
    }

    /// A block with an exception handler is a subtransaction.
    async fn subtransactions(&mut self, count: u32) -> Result<Option<Vec<Event>>, Error> {
        let key = self.keys(1).first().copied().unwrap_or(0);
        let id = EventId { transaction: self.number, step: 0, key: key.unsigned_abs() }.to_string();
        let (transaction, key_digits) = (&id[..16], &id[24..]);
        let block = format!(
            "DO $$ DECLARE number int; BEGIN
             INSERT INTO wrote VALUES ({});
             FOR step IN 1..{count} LOOP BEGIN
                 UPDATE seq SET n = n + 1 WHERE key = {key} RETURNING n INTO number;
                 INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) VALUES
                 (('{transaction}' || lpad(to_hex(step), 8, '0') || '{key_digits}')::uuid, 'post',
                  'k{key}', 'created', jsonb_build_object('n', number, 'pad', ''));
                 IF step % 3 = 0 THEN RAISE EXCEPTION 'every third'; END IF;
             EXCEPTION WHEN raise_exception THEN END; END LOOP; END $$",
            self.number
        );
        self.client.batch_execute("BEGIN").await?;
        self.client.batch_execute(&block).await?;
        self.commit().await
    }

    fn gid_prefix(&self) -> String {
        format!("{}-{}-", std::process::id(), self.id)
    }

    async fn prepared(&mut self) -> Result<Option<Vec<Event>>, Error> {
        let keys = self.keys(10);
        self.client.batch_execute("BEGIN").await?;
        self.emit(&keys, self.shape.padding).await?;
        let events = events_of(&self.client, self.number).await?;
        let gid = format!("{}{}", self.gid_prefix(), self.number);
        let prepare = format!("PREPARE TRANSACTION '{gid}'");
        let roll_back = self.random.u32(0..3) == 0;
        self.client.batch_execute(&prepare).await?;
        if roll_back {
            self.client.batch_execute(&format!("ROLLBACK PREPARED '{gid}'")).await?;
        } else {
            self.committing = Some(events.clone());
            self.client.batch_execute(&format!("COMMIT PREPARED '{gid}'")).await?;
        }
        Ok((!roll_back).then_some(events))
    }

    async fn deleted(&mut self) -> Result<Option<Vec<Event>>, Error> {
        let keys = self.keys(3);
        self.client.batch_execute("BEGIN").await?;
        self.emit(&keys, self.shape.padding).await?;
        let events = events_of(&self.client, self.number).await?;
        let [first, last] = EventId::range(self.number);
        let sql = format!("DELETE FROM outbox WHERE id BETWEEN '{first}' AND '{last}'");
        self.client.batch_execute(&sql).await?;
        self.committing = Some(events.clone());
        self.client.batch_execute("COMMIT").await?;
        Ok(Some(events))
    }

    async fn huge(&mut self, events_of_each: u32) -> Result<Option<Vec<Event>>, Error> {
        let sql = format!(
            "WITH locked AS (SELECT key FROM seq ORDER BY key FOR UPDATE),
             moved AS (UPDATE seq SET n = seq.n + $1 FROM locked WHERE seq.key = locked.key
                       RETURNING seq.key, seq.n),
             wrote AS (INSERT INTO wrote VALUES ($3::int8))
             INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
             SELECT ({} || lpad(to_hex(key), 8, '0'))::uuid, 'post', 'k' || key, 'created',
                    jsonb_build_object('n', n - $1 + g, 'pad', $2::text)
             FROM generate_series(1, $1) g, moved ORDER BY g, key",
            ID.replace("$4", "g")
        );
        let pad = padding(self.number, self.shape.padding);
        let (count, number) = (i32::try_from(events_of_each).unwrap_or(1), self.number_sql());
        self.client.batch_execute("BEGIN").await?;
        self.client.execute(&sql, &[&count, &pad, &number]).await?;
        self.commit().await
    }

    async fn hung_up(&mut self) -> Result<Option<Vec<Event>>, Error> {
        let keys = self.keys(3);
        self.client.batch_execute("BEGIN").await?;
        self.emit(&keys, self.shape.padding).await?;
        // The server sees its client go.
        let sql = "SELECT pg_terminate_backend(pg_backend_pid())";
        self.client.batch_execute(sql).await?;
        Ok(None)
    }
}
