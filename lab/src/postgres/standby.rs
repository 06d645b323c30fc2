//! Physical standbys: a copy of a running server that follows it, and its promotion.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::frozen::is_asked_to_end;
use super::{Database, Postgres, conf, copy, give_to_server};
use crate::process::{Signal, children_of, send, state_of};
use crate::run_dir::RunDir;
use crate::{eventually, ports};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What a copy must not take along: what belongs to the running server, and temporary files that
/// may vanish while they are copied. The standby streams the log since the backup's start itself.
const LEFT_OUT: [&str; 5] =
    ["postmaster.pid", "postmaster.opts", "pg_wal", "pg_replslot", "pg_stat_tmp"];

/// A standby about to be made.
#[derive(Debug)]
pub struct Builder<'a> {
    primary: &'a Postgres,
    slot: Option<String>,
    sync_slots: bool,
    keep_slots: bool,
    settings: Vec<(String, String)>,
}

impl Builder<'_> {
    /// Makes a physical slot on the primary for it, which keeps the log until it has followed.
    #[must_use]
    pub fn slot(mut self, name: &str) -> Self {
        self.slot = Some(name.to_owned());
        self
    }

    /// Has it keep copies of the primary's failover slots (from 17 on; needs a slot of its own).
    #[must_use]
    pub fn sync_slots(mut self) -> Self {
        self.sync_slots = true;
        self
    }

    /// Takes the primary's logical slots along as they are, as tools do that copy their files to
    /// have them after a failover. They stay where they are while the standby follows.
    #[must_use]
    pub fn keep_slots(mut self) -> Self {
        self.keep_slots = true;
        self
    }

    /// Adds a line to its `postgresql.conf`, behind the primary's.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Copies the primary and starts the copy; it accepts connections, read-only, when this
    /// returns.
    pub async fn start(self) -> Result<Postgres> {
        let major = self.primary.major;
        self.start_standby().await.with_context(|| format!("start a standby of Postgres {major}"))
    }

    async fn start_standby(self) -> Result<Postgres> {
        let primary = self.primary;
        let standby = Postgres {
            major: primary.major,
            program: primary.program.clone(),
            port: ports::reserve()?,
            child: std::sync::Mutex::default(),
            run: RunDir::create(&format!("standby-{}", primary.major))?,
        };
        let sockets = standby.socket_dir();
        fs::create_dir(&sockets)?;
        give_to_server(&sockets, 0o755)?;
        let client = primary.client("postgres").await?;
        if let Some(slot) = &self.slot {
            let sql = "SELECT pg_create_physical_replication_slot($1, true)::text";
            client.query_one(sql, &[slot]).await.context("create the standby's slot")?;
        }
        let (start, stop) = match primary.major {
            // Not exclusive, which it had to be told.
            14 => ("pg_start_backup('lab', true, false)", "pg_stop_backup(false, false)"),
            _ => ("pg_backup_start('lab', true)", "pg_backup_stop(false)"),
        };
        client.query_one(&format!("SELECT {start}::text"), &[]).await.context(start)?;
        self.copy_data(&standby)?;
        let sql = format!("SELECT labelfile FROM {stop}");
        let label: String = client.query_one(&sql, &[]).await.context(stop)?.get(0);
        standby.write_file("backup_label", label.as_bytes())?;
        standby.write_file("standby.signal", b"")?;
        let of_primary = fs::read_to_string(standby.data_dir().join("postgresql.conf"))?;
        let settings = of_primary + &conf(self.settings_of(&standby));
        standby.write_file("postgresql.conf", settings.as_bytes())?;
        standby.start_again()?;
        Ok(standby)
    }

    fn copy_data(&self, standby: &Postgres) -> Result<()> {
        let (from, to) = (self.primary.data_dir(), standby.data_dir());
        fs::create_dir(&to)?;
        give_to_server(&to, 0o700)?;
        for entry in fs::read_dir(&from)? {
            let name = entry?.file_name();
            if !LEFT_OUT.iter().any(|left_out| name == *left_out) {
                copy(&from.join(&name), &to.join(&name))?;
            }
        }
        for name in ["pg_wal", "pg_wal/archive_status", "pg_replslot", "pg_stat_tmp"] {
            let folder = to.join(name);
            fs::create_dir(&folder)?;
            give_to_server(&folder, 0o700)?;
        }
        if self.keep_slots {
            // With the log they stand at, which is older than the backup's.
            for entry in fs::read_dir(from.join("pg_wal"))? {
                let path = entry?.path();
                if path.is_file() {
                    copy(&path, &to.join("pg_wal"))?;
                }
            }
            copy_logical_slots(
                &from.join("pg_replslot"),
                &to.join("pg_replslot"),
                self.slot.as_deref(),
            )?;
        }
        Ok(())
    }

    fn settings_of(&self, standby: &Postgres) -> Vec<(String, String)> {
        // The name of the database is for the worker that copies slots.
        let primary = format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres application_name=standby",
            self.primary.port()
        );
        let mut settings = vec![
            ("port".to_owned(), standby.port().to_string()),
            ("unix_socket_directories".to_owned(), standby.socket_dir().display().to_string()),
            ("primary_conninfo".to_owned(), primary),
            ("hot_standby".to_owned(), "on".to_owned()),
            ("hot_standby_feedback".to_owned(), "on".to_owned()),
            ("wal_receiver_status_interval".to_owned(), "1s".to_owned()),
            ("wal_retrieve_retry_interval".to_owned(), "200ms".to_owned()),
        ];
        if let Some(slot) = &self.slot {
            settings.push(("primary_slot_name".to_owned(), slot.clone()));
        }
        if self.sync_slots {
            settings.push(("sync_replication_slots".to_owned(), "on".to_owned()));
        }
        settings.extend(self.settings.iter().cloned());
        settings
    }
}

/// The standby's own slot is none of these.
fn copy_logical_slots(from: &Path, to: &Path, physical: Option<&str>) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        if physical.is_none_or(|physical| name != *physical) {
            copy(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}

impl Postgres {
    /// A physical standby of this server, to be started.
    pub fn standby(&self) -> Builder<'_> {
        let settings = Vec::new();
        Builder { primary: self, slot: None, sync_slots: false, keep_slots: false, settings }
    }

    /// Waits until this standby has replayed what `primary` has written until now.
    pub async fn follow(&self, primary: &Postgres) -> Result<()> {
        let client = primary.client("postgres").await?;
        // What has been written, not what is in a buffer and may take its time.
        let flushed = "SELECT pg_current_wal_flush_lsn()::text";
        let target: String = client.query_one(flushed, &[]).await?.get(0);
        let own = self.client("postgres").await?;
        let replayed = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
        eventually(PATIENCE, format!("the standby to replay {target}"), async || {
            let row = own.query_one(replayed, &[&target]).await.ok()?;
            row.get::<_, Option<bool>>(0)?.then_some(())
        })
        .await
    }

    /// Waits until this standby keeps a copy of the primary's slot that a failover can rely on.
    pub async fn sync_slot(&self, primary: &Postgres, slot: &str) -> Result<()> {
        let snapshots = primary.client("postgres").await?;
        let client = self.client("postgres").await?;
        // Temporary until the standby has all that the slot needs.
        let sql = "SELECT synced AND NOT temporary FROM pg_replication_slots WHERE slot_name = $1";
        let synced = async || {
            // The primary's slot gets on with these, which otherwise come every 15 seconds.
            snapshots.execute("SELECT pg_log_standby_snapshot()", &[]).await.ok()?;
            let row = client.query_opt(sql, &[&slot]).await.ok()??;
            row.get::<_, Option<bool>>(0)?.then_some(())
        };
        eventually(PATIENCE, format!("a copy of slot {slot}"), synced).await
    }

    /// Makes this standby a primary, and waits until it can be written to. What a frozen
    /// walreceiver had not received stays unknown to it.
    pub async fn promote(&self) -> Result<()> {
        let client = self.client("postgres").await?;
        let begun: bool = client.query_one("SELECT pg_promote(false)", &[]).await?.get(0);
        ensure!(begun, "pg_promote did nothing");
        // The server asks its walreceiver to end and waits for it. Once the request is there, the
        // walreceiver follows it before it looks at its socket again.
        let postmaster = self.pid().context("the standby was never started")?;
        for pid in children_of(postmaster) {
            if state_of(pid) == Some('T') {
                let asked = async || is_asked_to_end(pid);
                eventually(PATIENCE, "the walreceiver to be asked to end", asked).await?;
                send(Signal::Cont, &[pid])?;
            }
        }
        eventually(PATIENCE, "the end of recovery", async || {
            client
                .query_one("SELECT NOT pg_is_in_recovery()", &[])
                .await
                .is_ok_and(|row| row.get(0))
        })
        .await
    }

    /// The timeline it writes to.
    pub async fn timeline(&self) -> Result<u32> {
        let client = self.client("postgres").await?;
        let sql = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
        let timeline: String = client.query_one(sql, &[]).await?.get(0);
        Ok(u32::from_str_radix(&timeline, 16)?)
    }

    /// The history file of a timeline: where each one before it was left.
    pub fn timeline_history(&self, timeline: u32) -> Result<String> {
        let path = self.data_dir().join(format!("pg_wal/{timeline:08X}.history"));
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }
}

impl Database {
    /// The database of this name on another server, a standby of its own for example.
    #[must_use]
    pub fn on(&self, server: &Postgres) -> Database {
        let (port, socket_dir) = (server.port(), server.socket_dir());
        Database { name: self.name.clone(), port, socket_dir }
    }

    /// A URL that names the servers in this order, of which a client takes the one to write to.
    pub fn url_of_primary(&self, servers: &[&Postgres]) -> String {
        let hosts: Vec<String> =
            servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
        format!(
            "postgres://postgres@{}/{}?target_session_attrs=read-write",
            hosts.join(","),
            self.name
        )
    }
}
