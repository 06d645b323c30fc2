//! Rows in the log, written once and read by everybody from slots of their own.

use anyhow::{Context, Result};
use lab::{Database, Postgres};
use tokio_postgres::Client;

/// Rows of one key follow each other at this distance.
pub const KEYS: u32 = 1000;
/// What type the rows are of, or how the types of them begin.
pub const TYPE: &str = "order";
/// The slot that no one reads: it marks the beginning, and the others are copies of it.
const BEGINNING: &str = "beginning";

/// How the rows come in transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// In the tables of results.
    pub name: &'static str,
    pub rows: u32,
    /// At the most; the last one may have fewer.
    pub rows_per_transaction: u32,
    /// Types of aggregates, which may be topics; a divisor of [`KEYS`].
    pub types: u32,
    /// Rows of a table that is not published, for each row of the outbox.
    pub unpublished: u32,
    /// SQL for what a payload holds beside its number, of the row's number `i`.
    pub padding: &'static str,
}

/// The payload is 284 bytes of JSON, as compressible as such things are.
const ORDER: &str = r#"'"order": "' || md5(i::text) || '", "state": "created", "customer": {"id": '
    || i % 7919 || ', "mail": "customer' || i % 7919 || '@example.com"}, "items": [{"sku": "'
    || substr(md5((i * 7)::text), 1, 12) || '", "count": ' || i % 9 + 1
    || ', "price": "19.90"}], "note": "' || md5((i * 3)::text) || md5((i * 5)::text) || '"'"#;
/// 8 KiB that do not compress much, so that Postgres stores them apart from the row.
const LARGE: &str = r#"'"blob": "' || (SELECT string_agg(md5((i * 256 + g)::text), '')
    FROM generate_series(1, 256) g) || '"'"#;

impl Shape {
    fn of(name: &'static str, rows: u32, rows_per_transaction: u32) -> Shape {
        Shape { name, rows, rows_per_transaction, types: 1, unpublished: 0, padding: ORDER }
    }

    pub fn w1(rows: u32) -> Shape {
        Shape::of("W1, one row a transaction", rows, 1)
    }

    pub fn w2(rows: u32) -> Shape {
        Shape::of("W2, 100 rows a transaction", rows, 100)
    }

    pub fn w3(rows: u32) -> Shape {
        Shape::of("W3, one transaction", rows, rows)
    }

    pub fn large(rows: u32) -> Shape {
        let shape = Shape::of("8 KiB payloads, 10 rows a transaction", rows, 10);
        Shape { padding: LARGE, ..shape }
    }
}

/// The publication of a shard of so many; of a single one, it is that of all rows.
pub fn publication(count: u32, shard: u32) -> String {
    if count == 1 { "walrelay".to_owned() } else { format!("shard_{shard}_of_{count}") }
}

/// A database whose slots all begin before the rows.
pub struct Backlog {
    pub database: Database,
    client: Client,
    copies: u32,
}

impl Backlog {
    /// An outbox without rows, its publication, and the slot that marks the beginning.
    pub async fn begin(postgres: &Postgres) -> Result<Backlog> {
        let database = postgres.create_database().await?;
        database.create_outbox().await?;
        let client = database.client().await?;
        let sql = "CREATE PUBLICATION walrelay FOR TABLE outbox WITH (publish = 'insert')";
        client.batch_execute(sql).await.context("make the publication")?;
        let slot = format!("{BEGINNING}_{}", database.name());
        let sql = "SELECT pg_create_logical_replication_slot($1::text, 'pgoutput')";
        client.execute(sql, &[&slot]).await.context("make the slot")?;
        Ok(Backlog { database, client, copies: 0 })
    }

    /// A table that is not published, and so many publications, each with its share of the keys.
    pub async fn shard(&self, count: u32) -> Result<()> {
        let sql = format!(
            "CREATE TABLE unpublished (id bigserial PRIMARY KEY, note text);
             ALTER TABLE outbox ADD COLUMN shard int
                 GENERATED ALWAYS AS (substr(aggregateid, 2)::int % {KEYS}) STORED"
        );
        self.client.batch_execute(&sql).await.context("make the table")?;
        for shard in (0..count).filter(|_| count > 1) {
            let sql = format!(
                "CREATE PUBLICATION {} FOR TABLE outbox WHERE (shard % {count} = {shard})
                 WITH (publish = 'insert')",
                publication(count, shard)
            );
            self.client.batch_execute(&sql).await.context("make a publication")?;
        }
        Ok(())
    }

    /// Writes the rows: row `i` is number `i / KEYS + 1` of key `i % KEYS`.
    pub async fn write(&self, shape: Shape) -> Result<()> {
        let Shape { rows, rows_per_transaction, types, unpublished, padding, .. } = shape;
        let number = format!("i / {KEYS} + 1");
        let kind = if types > 1 { format!("'{TYPE}' || i % {types}") } else { format!("'{TYPE}'") };
        let insert = format!(
            "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
             SELECT {kind}, 'k' || i % {KEYS}, 'created',
                    ('{{\"n\": ' || {number} || ', ' || {padding} || '}}')::jsonb"
        );
        let others = match unpublished {
            0 => String::new(),
            count => format!(
                "INSERT INTO unpublished (note)
                 SELECT md5(i::text) FROM generate_series(1, {rows_per_transaction} * {count}) i;"
            ),
        };
        let sql = format!(
            "DO $$ BEGIN
                FOR base IN 0..{last} BY {rows_per_transaction} LOOP
                    {others}
                    {insert}
                    FROM generate_series(base::bigint,
                        least(base + {rows_per_transaction} - 1, {last})::bigint) i;
                    COMMIT;
                END LOOP;
            END $$",
            last = rows - 1
        );
        // The log is what is wanted, not its safety.
        self.client.batch_execute("SET synchronous_commit = off").await?;
        self.client.batch_execute(&sql).await.context("write the rows")?;
        // All of it is to be on disk before anybody reads.
        self.client.batch_execute("CHECKPOINT").await?;
        Ok(())
    }

    /// A slot at the beginning.
    pub async fn slot(&mut self) -> Result<String> {
        self.copies += 1;
        let database = self.database.name();
        let (from, name) =
            (format!("{BEGINNING}_{database}"), format!("{database}_{}", self.copies));
        let sql = "SELECT pg_copy_logical_replication_slot($1::text, $2::text)";
        self.client.execute(sql, &[&from, &name]).await.context("copy the slot")?;
        Ok(name)
    }

    /// The server process that reads for a slot.
    pub async fn walsender(&self, slot: &str) -> Result<Option<u32>> {
        let sql = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1";
        let row = self.client.query_one(sql, &[&slot]).await?;
        let pid: Option<i32> = row.get(0);
        Ok(pid.map(u32::try_from).transpose()?)
    }

    /// Where the log ends now.
    pub async fn end(&self) -> Result<String> {
        let row = self.client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?;
        Ok(row.get(0))
    }
}
