//! Every Postgres starts, and survives what tests do to it.

use anyhow::Result;
use lab::{Postgres, eventually};

use crate::LONG;

async fn starts(major: u16) -> Result<()> {
    let server = Postgres::start(major)?;
    let client = server.client("postgres").await?;
    let version: String = client.query_one("SELECT version()", &[]).await?.get(0);
    assert!(version.starts_with(&format!("PostgreSQL {major}.")), "{version}");
    let level: String = client.query_one("SHOW wal_level", &[]).await?.get(0);
    assert_eq!(level, "logical");
    let slot = "SELECT pg_create_logical_replication_slot('s', 'pgoutput')::text";
    client.query_one(slot, &[]).await?;
    assert!(server.socket_dir().join(format!(".s.PGSQL.{}", server.port())).exists());
    Ok(())
}

#[tokio::test]
async fn postgres_14_starts() -> Result<()> {
    starts(14).await
}

#[tokio::test]
async fn postgres_15_starts() -> Result<()> {
    starts(15).await
}

#[tokio::test]
async fn postgres_16_starts() -> Result<()> {
    starts(16).await
}

#[tokio::test]
async fn postgres_17_starts() -> Result<()> {
    starts(17).await
}

#[tokio::test]
async fn postgres_18_starts() -> Result<()> {
    starts(18).await
}

#[tokio::test]
async fn committed_rows_survive_every_kind_of_stop() -> Result<()> {
    let server = Postgres::start(18)?;
    let database = server.create_database().await?;
    database.create_outbox().await?;
    let stops: [(&str, &dyn Fn() -> Result<()>); 3] = [
        ("kill -9", &|| server.kill_9()),
        ("immediate", &|| server.stop_immediate()),
        ("fast", &|| server.stop_fast(LONG)),
    ];
    for (count, (name, stop)) in (1_i64..).zip(stops) {
        let insert = "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
                      VALUES ('order', '1', 'created', '{}')";
        database.client().await?.execute(insert, &[]).await?;
        stop()?;
        assert!(!server.is_running() && database.client().await.is_err(), "{name}");
        server.start_again()?;
        let count_rows = "SELECT count(*) FROM outbox";
        let rows: i64 = database.client().await?.query_one(count_rows, &[]).await?.get(0);
        assert_eq!(rows, count, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn settings_and_hba_of_a_test_win() -> Result<()> {
    let hba = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let server = Postgres::start_with(17, &[("max_wal_senders", "3")], Some(hba))?;
    let error = server.client("postgres").await.unwrap_err();
    assert!(format!("{error:?}").contains("password"), "{error:?}");
    let conf = std::fs::read_to_string(server.data_dir().join("postgresql.conf"))?;
    assert!(conf.rfind("max_wal_senders = '3'") > conf.rfind("max_wal_senders = '50'"));
    Ok(())
}

#[tokio::test]
async fn a_removed_database_leaves_no_slot_behind() -> Result<()> {
    let server = Postgres::shared(16);
    let database = server.create_database().await?;
    let name = database.name().to_owned();
    let slot = format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')::text");
    database.client().await?.query_one(&slot, &[]).await?;
    database.remove().await?;
    let client = server.client("postgres").await?;
    let left = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1";
    assert_eq!(client.query_one(left, &[&name]).await?.get::<_, i64>(0), 0);
    Ok(())
}

#[tokio::test]
async fn a_failed_wait_says_for_what() {
    let never = eventually(std::time::Duration::from_millis(60), "the moon", async || false);
    assert!(never.await.unwrap_err().to_string().contains("the moon"));
}
