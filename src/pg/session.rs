//! Opens a replication stream: connections, checks, slot, `START_REPLICATION`.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;

use super::admin::{SLOT_CREATION_MAX, Seen, SetupError};
use super::before::{Before, System};
use super::connect::{Connection, SessionOptions, connect};
use super::conninfo::Conninfo;
use super::error::ConnectError;
use super::setup::Setup;
use super::slot::slot;
use super::socket::Endpoint;
use super::sql::connect_sql;
use super::wire::Wire;
use crate::lsn::Lsn;

/// How long looking at publication and slot may take.
const SETUP_MAX: Duration = Duration::from_secs(30);

/// How often it is looked at what the slot's creation waits for.
const BLOCKERS_PERIOD: Duration = Duration::from_secs(2);

/// A stream that has been started, and an SQL connection to the same server beside it.
#[derive(Debug)]
pub struct Session {
    /// The stream.
    pub wire: Wire,
    /// Plain SQL.
    pub client: Client,
    /// The server, for messages and for another SQL connection.
    pub endpoint: Endpoint,
    /// Which server this is.
    pub system: System,
}

/// There is no stream.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No connection, or a replication command failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Publication or slot are not as they must be.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// A server that has been reached over both connections.
#[derive(Debug)]
pub struct Looked {
    connection: Connection,
    /// Plain SQL.
    pub client: Client,
    /// Which server this is.
    pub system: System,
    /// Where it writes.
    pub server: Lsn,
}

/// A server that is fit to be read from: connected, checked, not streaming yet.
#[derive(Debug)]
pub struct Opening {
    /// The server.
    pub looked: Looked,
    /// Where the slot stands, which nobody reads.
    pub slot: Lsn,
    /// What else was found.
    pub seen: Seen,
}

/// Connects, and asks the server who it is.
pub async fn look(conninfo: &Conninfo) -> Result<Looked, ConnectError> {
    let mut connection = connect(conninfo, &SessionOptions::default()).await?;
    let (system, server) = identify(&mut connection).await?;
    let client = connect_sql(conninfo, connection.endpoint()).await?;
    Ok(Looked { connection, client, system, server })
}

/// Connects, and sees to it that publication and slot are there. `waits` is told when making the
/// slot has to wait, and for whom.
pub async fn open(
    conninfo: &Conninfo,
    setup: &Setup,
    before: &Before,
    waits: impl Fn(String),
) -> Result<Opening, OpenError> {
    let mut looked = look(conninfo).await?;
    before.check(&looked.system, looked.server).map_err(SetupError::Changed)?;
    let Looked { connection, client, server, .. } = &mut looked;
    let endpoint = connection.endpoint().to_string();
    let late = |_| ConnectError::Timeout { host: endpoint, after: SETUP_MAX };
    let seen = match timeout(SETUP_MAX, setup.prepare(client)).await.map_err(late)? {
        // A connection that broke leaves its server process behind, until the server notices. We
        // have left it, so that it may go at once.
        Err(SetupError::InUse { slot, pid }) if before.backend_pid == Some(pid) => {
            let sql = "SELECT pg_catalog.pg_terminate_backend($1)";
            if let Err(error) = client.execute(sql, &[&pid]).await {
                tracing::debug!("cannot end server process {pid}: {error}");
            }
            return Err(SetupError::Lingering { slot, pid }.into());
        }
        prepared => prepared?,
    };
    let slot = match &seen.slot {
        Some(slot) => {
            if setup.failover && slot.failover == Some(false) {
                connection.query(&setup.failover_command()).await?;
                tracing::info!(slot = setup.slot, "made the slot a failover slot");
            }
            // Another relay may have got on until a moment ago; now it does not any more.
            *server = slot.server.max(*server);
            slot.confirmed.unwrap_or_default()
        }
        None => create_slot(connection, setup, client, waits).await?,
    };
    before.check_slot(&setup.slot, slot).map_err(SetupError::Changed)?;
    Ok(Opening { looked, slot, seen })
}

/// Connects, and makes what is not there yet. Returns where the slot stands.
pub async fn make(conninfo: &Conninfo, setup: &Setup) -> Result<Lsn, OpenError> {
    let waits = |for_whom| tracing::warn!("{for_whom}");
    match open(conninfo, setup, &Before::default(), waits).await {
        Ok(opening) => Ok(opening.slot),
        Err(error) => Err(error),
    }
}

impl Looked {
    /// Asks the server once more where it writes.
    pub async fn look_again(&mut self) -> Result<(), ConnectError> {
        self.server = identify(&mut self.connection).await?.1;
        Ok(())
    }

    /// The server, for messages.
    pub fn name(&self) -> String {
        format!("Postgres {} at {}", self.connection.server_version(), self.connection.endpoint())
    }

    /// The content of the history file of the server's timeline.
    pub async fn timeline_history(&mut self) -> Result<String, ConnectError> {
        let command = format!("TIMELINE_HISTORY {}", self.system.timeline);
        let rows = self.connection.query(&command).await?;
        let content = rows.into_iter().next().and_then(|row| row.into_iter().nth(1)).flatten();
        content.ok_or_else(|| ConnectError::Protocol {
            host: self.connection.endpoint().to_string(),
            what: "TIMELINE_HISTORY gave no content".to_owned(),
        })
    }
}

impl Opening {
    /// The server process that will hold the slot.
    pub fn backend_pid(&self) -> i32 {
        self.looked.connection.backend_pid()
    }

    /// Starts the stream.
    pub async fn start(self, setup: &Setup, from: Lsn) -> Result<Session, ConnectError> {
        let Looked { mut connection, client, system, .. } = self.looked;
        let started = connection.start_copy(&setup.start_command(from)).await;
        for notice in connection.take_notices() {
            tracing::warn!("Postgres: {notice}");
        }
        started?;
        let endpoint = connection.endpoint().clone();
        let (stream, rest) = connection.into_parts();
        Ok(Session { wire: Wire::new(stream, &rest), client, endpoint, system })
    }
}

async fn identify(connection: &mut Connection) -> Result<(System, Lsn), ConnectError> {
    let rows = connection.query("IDENTIFY_SYSTEM").await?;
    let system = match rows.first().map(Vec::as_slice) {
        Some([Some(identifier), Some(timeline), Some(at), ..]) => {
            let system = |timeline| System { identifier: identifier.clone(), timeline };
            timeline.parse().ok().map(system).zip(at.parse().ok())
        }
        _ => None,
    };
    system.ok_or_else(|| ConnectError::Protocol {
        host: connection.endpoint().to_string(),
        what: "IDENTIFY_SYSTEM gave no identity".to_owned(),
    })
}

async fn create_slot(
    connection: &mut Connection,
    setup: &Setup,
    client: &Client,
    waits: impl Fn(String),
) -> Result<Lsn, OpenError> {
    // Creation waits for every transaction that writes at this moment, in any database. The
    // server does not end that wait by statement_timeout, but it does by lock_timeout; a slot
    // that was given up leaves nothing behind.
    let millis = SLOT_CREATION_MAX.as_millis();
    connection.query(&format!("SET lock_timeout = {millis}")).await?;
    make_slot(connection, setup, client, waits).await?;
    connection.query("SET lock_timeout = 0").await?;
    setup.mark(client).await;
    let created =
        slot(client, &setup.slot).await.map_err(SetupError::Sql)?.and_then(|slot| slot.confirmed);
    let confirmed = created.ok_or_else(|| SetupError::BeingCreated(setup.slot.clone()))?;
    tracing::info!(slot = setup.slot, lsn = %confirmed, "created the replication slot");
    Ok(confirmed)
}

async fn make_slot(
    connection: &mut Connection,
    setup: &Setup,
    client: &Client,
    waits: impl Fn(String),
) -> Result<(), ConnectError> {
    let (pid, command) = (connection.backend_pid(), setup.create_slot_command());
    let mut making = pin!(connection.query_within(&command, SLOT_CREATION_MAX * 2));
    loop {
        if let Ok(made) = timeout(BLOCKERS_PERIOD, &mut making).await {
            return made.map(drop);
        }
        match blockers(client, pid).await {
            Ok(blockers) if blockers.is_empty() => {}
            Ok(blockers) => waits(format!(
                "making slot {} waits for {}; end it, or wait for its end",
                setup.slot,
                blockers.join(", ")
            )),
            Err(error) => tracing::debug!("cannot see what the slot waits for: {error}"),
        }
    }
}

/// Whom a server process waits for. A prepared transaction has no process.
async fn blockers(client: &Client, pid: i32) -> Result<Vec<String>, tokio_postgres::Error> {
    let sql = "
        SELECT 'server process ' || a.pid || ' (' || concat_ws(', ', a.usename,
                   nullif(a.application_name, ''), a.datname, a.state) || ')'
        FROM pg_catalog.pg_stat_activity a WHERE a.pid = ANY (pg_catalog.pg_blocking_pids($1))
        UNION ALL
        SELECT 'prepared transaction ' || pg_catalog.quote_literal(p.gid)
        FROM pg_catalog.pg_prepared_xacts p WHERE 0 = ANY (pg_catalog.pg_blocking_pids($1))";
    let rows = client.query(sql, &[&pid]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}
