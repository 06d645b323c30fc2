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

/// A standby follows, is frozen without dying, and becomes a primary on a timeline of its own.
async fn a_standby_follows_and_is_promoted(major: u16) -> Result<()> {
    let primary = Postgres::start(major)?;
    let database = primary.create_database().await?;
    let client = database.client().await?;
    client.batch_execute("CREATE TABLE t AS SELECT 1 AS n").await?;
    let standby = primary.standby().slot("standby").start().await?;
    client.batch_execute("INSERT INTO t VALUES (2)").await?;
    standby.follow(&primary).await?;
    let copy = database.on(&standby).client().await?;
    assert!(copy.batch_execute("INSERT INTO t VALUES (0)").await.is_err(), "it is read-only");

    let frozen = standby.freeze_wal_receiver().await?;
    client.batch_execute("INSERT INTO t VALUES (3)").await?;
    primary.kill_9()?;
    standby.promote().await?;
    drop(frozen);
    assert_eq!(standby.timeline().await?, 2);
    assert!(standby.timeline_history(2)?.starts_with("1\t0/"));
    copy.batch_execute("INSERT INTO t VALUES (4)").await?;
    let rows = copy.query("SELECT n FROM t ORDER BY n", &[]).await?;
    let rows: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(rows, [1, 2, 4], "the third was written behind the frozen walreceiver's back");
    Ok(())
}

#[tokio::test]
async fn a_standby_of_postgres_14_follows_and_is_promoted() -> Result<()> {
    a_standby_follows_and_is_promoted(14).await
}

#[tokio::test]
async fn a_standby_of_postgres_18_follows_and_is_promoted() -> Result<()> {
    a_standby_follows_and_is_promoted(18).await
}

#[tokio::test]
async fn a_standby_keeps_copies_of_failover_slots() -> Result<()> {
    for major in [17, 18] {
        let primary = Postgres::start(major)?;
        let standby = primary.standby().slot("standby").sync_slots().start().await?;
        let sql = "SELECT pg_create_logical_replication_slot('s', 'pgoutput', false, false, true)
                   ::text";
        primary.client("postgres").await?.query_one(sql, &[]).await?;
        standby.sync_slot(&primary, "s").await?;
        primary.kill_9()?;
        standby.promote().await?;
        let sql = "SELECT pg_replication_slot_advance('s', pg_current_wal_lsn())::text";
        standby.client("postgres").await?.query_one(sql, &[]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn logical_slots_come_with_the_copy_if_asked_for() -> Result<()> {
    let primary = Postgres::start(15)?;
    let sql = "SELECT pg_create_logical_replication_slot('s', 'pgoutput')::text";
    primary.client("postgres").await?.query_one(sql, &[]).await?;
    let slots = "SELECT slot_name::text FROM pg_replication_slots";
    let with = primary.standby().slot("with").keep_slots().start().await?;
    let rows = with.client("postgres").await?.query(slots, &[]).await?;
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<String>>(), ["s"]);
    let without = primary.standby().start().await?;
    assert!(without.client("postgres").await?.query(slots, &[]).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_older_state_or_another_cluster_comes_back_on_the_same_port() -> Result<()> {
    let server = Postgres::start(18)?;
    let identity = async || -> Result<i64> {
        let sql = "SELECT system_identifier FROM pg_control_system()";
        Ok(server.client("postgres").await?.query_one(sql, &[]).await?.get(0))
    };
    let first = identity().await?;
    server.stop_fast(LONG)?;
    let backup = server.back_up()?;
    server.start_again()?;
    server.client("postgres").await?.batch_execute("CREATE TABLE later ()").await?;
    server.stop_fast(LONG)?;
    server.restore(&backup)?;
    assert_eq!(identity().await?, first);
    let later = server.client("postgres").await?.batch_execute("TABLE later").await;
    assert!(later.is_err(), "the state is not the older one");
    server.stop_fast(LONG)?;
    server.start_anew()?;
    assert_ne!(identity().await?, first);
    Ok(())
}
