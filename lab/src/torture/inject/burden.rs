//! What is written beside the usual: long transactions, large rows, changes of tables.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::Hurt;
use crate::load::{Kind, Shape, write_one};

/// Columns, types and names change; none of it changes what a row means.
const DDL: &[&str] = &[
    "ALTER TABLE outbox ADD COLUMN extra int",
    "ALTER TABLE outbox ADD COLUMN more text DEFAULT 'more'",
    "ALTER TABLE outbox ALTER COLUMN aggregateid TYPE text",
    "ALTER TABLE outbox DROP COLUMN extra",
    "BEGIN; ALTER TABLE outbox RENAME TO outbox_renamed;
     ALTER TABLE outbox_renamed RENAME TO outbox; COMMIT",
    "BEGIN; ALTER TABLE outbox RENAME COLUMN payload TO body;
     ALTER TABLE outbox RENAME COLUMN body TO payload; COMMIT",
    "ALTER TABLE outbox REPLICA IDENTITY FULL",
    "ALTER TABLE outbox ALTER COLUMN aggregateid TYPE varchar(300)",
    "ALTER TABLE outbox DROP COLUMN more",
    "ALTER TABLE outbox REPLICA IDENTITY DEFAULT",
];

impl Hurt<'_> {
    pub(super) async fn huge_transaction(&self) -> Result<String> {
        let (keys, rows) = (self.stage.plan.shape.keys, self.stage.plan.huge());
        let written = self.persist(async || self.write(Kind::Huge(rows.div_ceil(keys))).await);
        Ok(format!("{} rows", written.await?))
    }

    pub(super) async fn subtransactions(&self) -> Result<String> {
        let rows = self.persist(async || self.write(Kind::Subtransactions(2_500)).await);
        Ok(format!("{} rows in 2500", rows.await?))
    }

    pub(super) async fn large_rows(&self) -> Result<String> {
        for bytes in [1_000_000, 10_000_000, 3_000_000] {
            self.persist(async || self.write(Kind::Padded(bytes)).await).await?;
        }
        Ok("1, 10 and 3 MB".to_owned())
    }

    pub(super) async fn ddl(&self) -> Result<String> {
        let mut done = 0;
        let begun = Instant::now();
        while begun.elapsed() < self.lasts || done < DDL.len() {
            for sql in DDL {
                self.persist(async || {
                    let client = self.stage.writer().await?;
                    match client.batch_execute(sql).await {
                        // It was done before the server went away.
                        Err(error) if is_done(&error) => Ok(1),
                        done => Ok(done.map(|()| 1)?),
                    }
                })
                .await?;
                done += 1;
            }
        }
        Ok(format!("{done} statements"))
    }

    pub(super) async fn bulk_updates(&self) -> Result<String> {
        let mut rounds = 0;
        let begun = Instant::now();
        while begun.elapsed() < self.lasts || rounds == 0 {
            self.persist(async || {
                let client = self.stage.writer().await?;
                let sql = "CREATE TABLE IF NOT EXISTS other (n int PRIMARY KEY, text text);
                           INSERT INTO other SELECT g, repeat('x', 100)
                           FROM generate_series(1, 20000) g ON CONFLICT DO NOTHING;
                           UPDATE other SET text = repeat('y', 100);";
                Ok(client.batch_execute(sql).await.map(|()| 1)?)
            })
            .await?;
            rounds += 1;
        }
        Ok(format!("{rounds} times 20000 rows"))
    }

    pub(super) async fn write(&self, kind: Kind) -> Result<u64> {
        let _writing = self.stage.writing.read().await;
        let client = self.stage.writer().await?;
        let shape = Shape { padding: 100, ..self.stage.plan.shape };
        write_one(client, shape, &self.stage.history, kind).await
    }

    /// Again, when the server went away or rolled back, until something is committed.
    pub(super) async fn persist(&self, mut act: impl AsyncFnMut() -> Result<u64>) -> Result<u64> {
        const ATTEMPTS: u32 = 30;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match act().await {
                Ok(0) => {}
                Ok(rows) => return Ok(rows),
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
        ensure!(
            last.is_none(),
            "{ATTEMPTS} times: {:#}",
            last.unwrap_or_else(|| anyhow::anyhow!(""))
        );
        anyhow::bail!("rolled back {ATTEMPTS} times")
    }
}

/// A column that is there, or is not, already.
fn is_done(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| ["42701", "42703", "42P07"].contains(&code.code()))
}
