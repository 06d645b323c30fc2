//! `PgBouncer` between the relay and Postgres, where it must not be.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::ports::{self, Port};
use crate::postgres::Postgres;
use crate::process::{Child, Launch, require};
use crate::run_dir::RunDir;
use crate::wait_until;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Where Debian installs it, which is not on everybody's path.
const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// A pooler that lets everybody through to every database of one server.
#[derive(Debug)]
pub struct Pooler {
    port: Port,
    child: Child,
    _run: RunDir,
}

impl Pooler {
    /// Starts one that drops the named parameters of a session's start. By itself it refuses the
    /// ones that it does not know; `replication` and `options` are among them.
    pub fn start(postgres: &Postgres, drops: &[&str]) -> Result<Pooler> {
        require(&[(PROGRAM, "pgbouncer")])?;
        let run = RunDir::create("pgbouncer")?;
        let port = ports::reserve()?;
        let users = run.join("users");
        fs::write(&users, "\"postgres\" \"\"\n")?;
        let config = run.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\n\
             pool_mode = session\nignore_startup_parameters = {}\n",
            postgres.port(),
            port.number(),
            users.display(),
            drops.join(",")
        );
        fs::write(&config, text)?;
        let child = Launch::new(PROGRAM, run.join("log")).arg(&config).as_nobody().spawn()?;
        let listens = || std::net::TcpStream::connect(port.address()).is_ok();
        wait_until(START_TIMEOUT, "PgBouncer to listen", || !child.is_running() || listens())
            .with_context(|| child.log())?;
        if !child.is_running() {
            bail!("PgBouncer ended while starting:\n{}", child.log());
        }
        Ok(Pooler { port, child, _run: run })
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.child.log()
    }
}
