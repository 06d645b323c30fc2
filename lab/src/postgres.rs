//! A Postgres server of our own, and databases in it.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio_postgres::{Client, NoTls};

use crate::downloads;
use crate::ports::{self, Port};
use crate::process::{
    Child, Launch, NOBODY, Signal, own_uid, read_log, require, show_log_of_failed_test,
};
use crate::run_dir::RunDir;
use crate::wait_until;

mod frozen;
mod restore;
mod standby;

pub use frozen::Frozen;
pub use restore::Backup;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const INITDB_TIMEOUT: Duration = Duration::from_secs(120);

/// Trust from everywhere: most tests are about something else than authentication.
const TRUST: &str = "local all all trust\nlocal replication all trust\n\
                     host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n";

/// What every server of the lab starts with; a test's own settings come after and win.
const SETTINGS: &[(&str, &str)] = &[
    ("wal_level", "logical"),
    ("max_wal_senders", "50"),
    // Each test of a shared server leaves one behind.
    ("max_replication_slots", "500"),
    ("max_connections", "200"),
    ("max_prepared_transactions", "20"),
    // A killed *process* loses nothing without it; only a lost machine would.
    ("fsync", "off"),
    ("listen_addresses", "127.0.0.1"),
    ("log_line_prefix", "%m [%p] %q%a "),
    ("log_replication_commands", "on"),
];

/// A running (or just stopped) server. Superuser is `postgres`. Dropping it kills it and removes
/// its data.
#[derive(Debug)]
pub struct Postgres {
    major: u16,
    program: PathBuf,
    port: Port,
    /// `None` until the first start.
    child: Mutex<Option<Child>>,
    /// Last, so that the data goes after the process.
    run: RunDir,
}

/// A server about to be made. Files may be needed before the first start, as certificates are.
#[derive(Debug)]
pub struct Builder {
    major: u16,
    settings: Vec<(String, String)>,
    hba: String,
    files: Vec<(String, Vec<u8>)>,
}

impl Builder {
    /// Adds a line to `postgresql.conf`; the value is quoted here.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Builder {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces the whole `pg_hba.conf`, which trusts everyone otherwise.
    #[must_use]
    pub fn hba(mut self, text: &str) -> Builder {
        text.clone_into(&mut self.hba);
        self
    }

    /// Puts a file into the data directory, readable by the server only (as keys have to be).
    #[must_use]
    pub fn file(mut self, name: &str, content: impl Into<Vec<u8>>) -> Builder {
        self.files.push((name.to_owned(), content.into()));
        self
    }

    /// Makes the server and starts it; it accepts connections when this returns.
    pub fn start(self) -> Result<Postgres> {
        let major = self.major;
        self.start_server().with_context(|| format!("start Postgres {major}"))
    }

    fn start_server(self) -> Result<Postgres> {
        let binaries = downloads::postgres(self.major)?;
        if own_uid()? == 0 {
            downloads::ensure_open_to_all(&binaries)?;
        }
        let template = template_data(self.major, &binaries)?;
        let run = RunDir::create(&format!("postgres-{}", self.major))?;
        let port = ports::reserve()?;
        let (data, sockets) = (run.join("data"), run.join("socket"));
        copy(&template, &data)?;
        fs::create_dir(&sockets)?;
        give_to_server(&sockets, 0o755)?;
        let server = Postgres {
            major: self.major,
            program: binaries.join("bin/postgres"),
            port,
            child: Mutex::new(None),
            run,
        };
        let mut settings: Vec<(&str, &str)> = SETTINGS.to_vec();
        let (port_text, sockets) = (server.port().to_string(), sockets.display().to_string());
        settings.extend([("port", &*port_text), ("unix_socket_directories", &*sockets)]);
        settings.extend(self.settings.iter().map(|(name, value)| (&**name, &**value)));
        server.write_file("postgresql.conf", conf(settings).as_bytes())?;
        server.write_file("pg_hba.conf", self.hba.as_bytes())?;
        for (name, content) in &self.files {
            server.write_file(name, content)?;
        }
        server.start_again()?;
        Ok(server)
    }
}

impl Postgres {
    /// A server with the lab's settings: logical WAL, trust, no fsync.
    pub fn start(major: u16) -> Result<Postgres> {
        Postgres::builder(major).start()
    }

    /// A server with more settings, and its own `pg_hba.conf` if one is given.
    pub fn start_with(
        major: u16,
        settings: &[(&str, &str)],
        hba: Option<&str>,
    ) -> Result<Postgres> {
        let builder = Postgres::builder(major).hba(hba.unwrap_or(TRUST));
        settings.iter().fold(builder, |builder, (name, value)| builder.setting(name, value)).start()
    }

    /// For what [`Postgres::start_with`] cannot say.
    pub fn builder(major: u16) -> Builder {
        Builder { major, settings: Vec::new(), hba: TRUST.to_owned(), files: Vec::new() }
    }

    /// The server that all tests of this process share: started by the first that asks, dead when
    /// the process is. Do not stop it or fill its slots; [`Postgres::create_database`] keeps tests
    /// apart.
    ///
    /// # Panics
    ///
    /// If it cannot be started, which fails the test that asked.
    pub fn shared(major: u16) -> &'static Postgres {
        static SHARED: Mutex<Option<HashMap<u16, &'static Postgres>>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = shared.get_or_insert_default();
        servers.entry(major).or_insert_with(|| match Postgres::start(major) {
            Ok(server) => Box::leak(Box::new(server)),
            Err(error) => panic!("no shared server: {error:?}"),
        })
    }

    /// Starts the stopped or killed server on the same port with the same data, and waits until it
    /// has recovered and accepts connections.
    pub fn start_again(&self) -> Result<()> {
        let mut slot = self.lock();
        ensure!(!slot.as_ref().is_some_and(Child::is_running), "the server runs already");
        let launch = Launch::new(&self.program, self.log_path())
            .args(["-D".as_ref(), self.data_dir().as_os_str()])
            .env("TZ", "UTC")
            .dir(self.run.path())
            .as_nobody();
        let child = slot.insert(launch.spawn()?);
        let pid_file = self.data_dir().join("postmaster.pid");
        let ready = wait_until(START_TIMEOUT, "Postgres to accept connections", || {
            !child.is_running() || is_ready(&pid_file, child.pid())
        });
        match ready {
            Ok(()) if child.is_running() => Ok(()),
            Ok(()) => bail!("Postgres {} ended while starting:\n{}", self.major, self.log()),
            Err(error) => Err(error.context(self.log())),
        }
    }

    /// Fast shutdown (SIGINT): sessions are ended, and walsenders get all WAL out before they end.
    /// Fails if the server has not ended after `timeout`, for example because the receiver of a
    /// walsender does not confirm.
    pub fn stop_fast(&self, timeout: Duration) -> Result<()> {
        self.stop(Signal::Int, timeout)
    }

    /// Immediate shutdown (SIGQUIT): as a crash, but in an orderly way.
    pub fn stop_immediate(&self) -> Result<()> {
        self.stop(Signal::Quit, STOP_TIMEOUT)
    }

    /// SIGKILL to the server and all its processes at once, as the out-of-memory killer or a lost
    /// container does.
    pub fn kill_9(&self) -> Result<()> {
        self.running(Child::kill_9_family)
    }

    /// Sends a signal to the server and all its processes; with [`Signal::Stop`] it hangs.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running(|child| child.signal_family(signal))
    }

    /// No file that this process of the server writes may grow beyond so many bytes from here on,
    /// which is to it as if the disk were full.
    pub fn limit_files_of(&self, pid: i32, bytes: u64) -> Result<()> {
        // One process may limit another one of the same user, even root only with a privilege.
        Launch::new("prlimit", self.run.join("prlimit.log"))
            .args(["--pid".to_owned(), pid.to_string(), format!("--fsize={bytes}")])
            .dir(self.run.path())
            .as_nobody()
            .run(STOP_TIMEOUT)
            .map(drop)
    }

    /// Fast shutdown and start.
    pub fn restart(&self) -> Result<()> {
        self.stop_fast(STOP_TIMEOUT)?;
        self.start_again()
    }

    /// Whether the server's first process runs.
    pub fn is_running(&self) -> bool {
        self.lock().as_ref().is_some_and(Child::is_running)
    }

    /// The major version.
    pub fn major(&self) -> u16 {
        self.major
    }

    /// On 127.0.0.1; the same for the server's whole life.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The process id of the postmaster.
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Child::pid)
    }

    /// Where the Unix socket is, usable as a `host`.
    pub fn socket_dir(&self) -> PathBuf {
        self.run.join("socket")
    }

    /// The data directory, with `postgresql.conf` in it.
    pub fn data_dir(&self) -> PathBuf {
        self.run.join("data")
    }

    /// The binaries that belong to this server (`initdb`, `pg_ctl`, `postgres`).
    pub fn bin_dir(&self) -> &Path {
        self.program.parent().unwrap_or(&self.program)
    }

    /// `postgres://postgres@127.0.0.1:PORT/DB`
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port())
    }

    /// The server's log since its first start.
    pub fn log(&self) -> String {
        read_log(&self.log_path())
    }

    /// Writes a file of the data directory, as [`Builder::file`] does before the start.
    pub fn write_file(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.data_dir().join(name);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        give_to_server(&path, 0o600)
    }

    /// A connection as the superuser. Its task is spawned and ends with the client.
    pub async fn client(&self, database: &str) -> Result<Client> {
        connect(&self.url(database)).await
    }

    /// A fresh, empty database with a name that no other test process uses.
    pub async fn create_database(&self) -> Result<Database> {
        self.create_database_with("").await
    }

    /// The same with options of `CREATE DATABASE`, such as an encoding.
    pub async fn create_database_with(&self, options: &str) -> Result<Database> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lab_{}_{number}", std::process::id());
        let client = self.client("postgres").await?;
        client
            .batch_execute(&format!("CREATE DATABASE {name} {options}"))
            .await
            .with_context(|| format!("create database {name}"))?;
        Ok(Database { name, port: self.port(), socket_dir: self.socket_dir() })
    }

    fn stop(&self, signal: Signal, timeout: Duration) -> Result<()> {
        self.running(|child| {
            child.signal(signal)?;
            let ended = child.wait_timeout(timeout)?;
            ensure!(ended.is_some(), "Postgres still runs {timeout:?} after {signal:?}");
            Ok(())
        })
    }

    fn running<T>(&self, act: impl FnOnce(&Child) -> Result<T>) -> Result<T> {
        act(self.lock().as_ref().context("Postgres was never started")?)
    }

    fn log_path(&self) -> PathBuf {
        self.run.join("log")
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        show_log_of_failed_test("Postgres", &self.log());
    }
}

/// One database of a server.
#[derive(Clone, Debug)]
pub struct Database {
    name: String,
    port: u16,
    socket_dir: PathBuf,
}

impl Database {
    /// Also a good prefix for the names of slots and topics: unique, lower case, short.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `postgres://postgres@127.0.0.1:PORT/NAME`
    pub fn url(&self) -> String {
        self.url_through(self.port)
    }

    /// The same through another port, a proxy's for example.
    pub fn url_through(&self, port: u16) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/{}", self.name)
    }

    /// The directory of the server's Unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The same as [`url`](Database::url) through the Unix socket.
    pub fn unix_url(&self) -> String {
        let sockets = self.socket_dir.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{sockets}:{}/{}", self.port, self.name)
    }

    /// A connection as the superuser. Its task is spawned and ends with the client.
    pub async fn client(&self) -> Result<Client> {
        connect(&self.url()).await
    }

    /// Creates `public.outbox` with the columns of Debezium's outbox event router.
    pub async fn create_outbox(&self) -> Result<()> {
        self.create_outbox_named("public.outbox").await
    }

    /// The same table under another name, which is taken as SQL.
    pub async fn create_outbox_named(&self, table: &str) -> Result<()> {
        let sql = format!(
            "CREATE TABLE {table} (
                id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
                aggregatetype varchar(255) NOT NULL,
                aggregateid varchar(255) NOT NULL,
                type varchar(255) NOT NULL,
                payload jsonb)"
        );
        let client = self.client().await?;
        client.batch_execute(&sql).await.with_context(|| format!("create {table}"))
    }

    /// Drops the database with its slots and sessions. A shared server has only so many slots;
    /// a test that makes one there should end with this.
    pub async fn remove(self) -> Result<()> {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", self.port);
        let client = connect(&url).await?;
        let of_database = "FROM pg_replication_slots WHERE database = $1";
        let terminate = format!("SELECT pg_terminate_backend(active_pid) {of_database} AND active");
        let drop_idle =
            format!("SELECT pg_drop_replication_slot(slot_name) {of_database} AND NOT active");
        let count = format!("SELECT count(*) {of_database}");
        crate::eventually(Duration::from_secs(20), "the slots to be dropped", async || {
            client.execute(&terminate, &[&self.name]).await.ok()?;
            client.execute(&drop_idle, &[&self.name]).await.ok()?;
            let left: i64 = client.query_one(&count, &[&self.name]).await.ok()?.get(0);
            (left == 0).then_some(())
        })
        .await?;
        client
            .batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name))
            .await
            .with_context(|| format!("drop database {}", self.name))
    }
}

pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.with_context(|| format!("connect to {url}"))?;
    // Its error is also the error of whatever the client does next.
    tokio::spawn(connection);
    Ok(client)
}

/// A freshly initialised data directory, made once for each version and user.
fn template_data(major: u16, binaries: &Path) -> Result<PathBuf> {
    let version = binaries.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{version}-data-of-{}", own_uid()?);
    let template = downloads::provide(&name, "1", |folder| {
        initdb(binaries, &folder.join("data"), &folder.join("initdb.log"))
    });
    Ok(template.with_context(|| format!("initialise Postgres {major}"))?.join("data"))
}

/// Makes a data directory with a system identifier of its own.
fn initdb(binaries: &Path, data: &Path, log: &Path) -> Result<()> {
    fs::create_dir(data)?;
    give_to_server(data, 0o700)?;
    Launch::new(binaries.join("bin/initdb"), log)
        .args(["--no-sync", "--no-locale", "--encoding=UTF8", "--username=postgres"])
        .arg("--auth=trust")
        .args(["-D".as_ref(), data.as_os_str()])
        .dir(data)
        .as_nobody()
        .run(INITDB_TIMEOUT)
        .map(drop)
}

/// Lines for `postgresql.conf`.
fn conf<N: Display, V: AsRef<str>>(settings: impl IntoIterator<Item = (N, V)>) -> String {
    let line = |(name, value): (N, V)| {
        let quoted = value.as_ref().replace('\'', "''");
        format!("{name} = '{quoted}'\n")
    };
    settings.into_iter().map(line).collect()
}

/// A copy with owners and modes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    require(&[("cp", "coreutils")])?;
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(copied.success(), "cp of {} ended with {copied}", from.display());
    Ok(())
}

/// Makes a path the server's own, for Postgres checks owner and mode of what it relies on.
fn give_to_server(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if own_uid()? == 0 {
        chown(path, Some(NOBODY), Some(NOBODY))
            .with_context(|| format!("give {} to nobody", path.display()))?;
    }
    Ok(())
}

/// Whether the postmaster has written "ready" into its pid file (its eighth line), as `pg_ctl`
/// looks for it. The first line tells an old file of a killed server from the new one.
fn is_ready(pid_file: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(pid_file) else { return false };
    let mut lines = text.lines();
    lines.next().is_some_and(|first| first.trim() == pid.to_string())
        && lines.nth(6).is_some_and(|status| status.trim() == "ready")
}
