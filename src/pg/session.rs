//! Opens a replication stream: connections, checks, slot, `START_REPLICATION`.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;

use super::admin::{Prepared, SLOT_CREATION_MAX, Setup, SetupError, slot};
use super::connect::{Connection, SessionOptions, connect};
use super::conninfo::Conninfo;
use super::error::ConnectError;
use super::socket::Endpoint;
use super::sql::connect_sql;
use super::wire::Wire;
use crate::lsn::Lsn;

/// How long looking at publication and slot may take.
const SETUP_MAX: Duration = Duration::from_secs(30);

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

/// A server's identity, from `IDENTIFY_SYSTEM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Made by `initdb`; a standby and a restored backup share it.
    pub identifier: String,
    /// Grows by one with each promotion.
    pub timeline: u32,
}

/// What the relay knows from before, in this process.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// The server it has read from; none before the first session.
    pub system: Option<System>,
    /// The server process that it read through.
    pub backend_pid: Option<i32>,
    /// The position it has reached.
    pub reached: Lsn,
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

/// A server that is fit to be read from: connected, checked, not streaming yet.
#[derive(Debug)]
pub struct Opening {
    connection: Connection,
    client: Client,
    /// Which server this is.
    pub system: System,
    /// Where it writes.
    pub server: Lsn,
    /// OID of the database.
    pub database: u32,
    /// Where the slot stands, which nobody reads.
    pub slot: Lsn,
}

/// Connects, and sees to it that publication and slot are there.
pub async fn open(
    conninfo: &Conninfo,
    setup: &Setup,
    before: &Before,
) -> Result<Opening, OpenError> {
    let mut connection = connect(conninfo, &SessionOptions::default()).await?;
    let (system, server) = identify(&mut connection).await?;
    check_server(&system, server, before)?;
    let client = connect_sql(conninfo, connection.endpoint()).await?;
    let endpoint = connection.endpoint().to_string();
    let late = |_| ConnectError::Timeout { host: endpoint, after: SETUP_MAX };
    let prepared = timeout(SETUP_MAX, setup.prepare(&client)).await.map_err(late)?;
    let (slot, server) = match prepared {
        // Another relay may have got on until a moment ago; now it does not any more.
        Ok(Prepared::Slot(slot)) => (slot.confirmed.unwrap_or_default(), slot.server.max(server)),
        Ok(Prepared::NoSlot) => (create_slot(&mut connection, setup, &client).await?, server),
        // A connection that broke leaves its server process behind, until the server notices.
        Err(SetupError::InUse { slot, pid }) if before.backend_pid == Some(pid) => {
            return Err(SetupError::Lingering { slot, pid }.into());
        }
        Err(error) => return Err(error.into()),
    };
    let expected = before.reached;
    if before.system.is_some() && slot > expected {
        let name = setup.slot.clone();
        return Err(SetupError::Moved { slot: name, expected, found: slot }.into());
    }
    let database = database(&client).await?;
    Ok(Opening { connection, client, system, server, database, slot })
}

impl Opening {
    /// The server process that will hold the slot.
    pub fn backend_pid(&self) -> i32 {
        self.connection.backend_pid()
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

    /// Starts the stream.
    pub async fn start(mut self, setup: &Setup, from: Lsn) -> Result<Session, ConnectError> {
        let started = self.connection.start_copy(&setup.start_command(from)).await;
        for notice in self.connection.take_notices() {
            tracing::warn!("Postgres: {notice}");
        }
        started?;
        let Opening { connection, client, system, .. } = self;
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

/// Postgres takes any start position, also one it has not reached, and silently skips everything
/// below it. So a server that is not the one we know must be found out here.
fn check_server(system: &System, server: Lsn, before: &Before) -> Result<(), SetupError> {
    let Some(known) = &before.system else { return Ok(()) };
    if known.identifier != system.identifier {
        return Err(SetupError::OtherServer(format!(
            "this is another Postgres than before: its system identifier is {}, not {}",
            system.identifier, known.identifier
        )));
    }
    if known.timeline != system.timeline {
        return Err(SetupError::OtherTimeline { now: system.timeline, before: known.timeline });
    }
    if server < before.reached {
        return Err(SetupError::WentBack { now: server, before: before.reached });
    }
    Ok(())
}

async fn database(client: &Client) -> Result<u32, SetupError> {
    let sql = "SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()";
    let row = client.query_one(sql, &[]).await;
    let oid = row.and_then(|row| row.try_get(0));
    oid.map_err(|error| SetupError::Sql { doing: "reading the database's OID", error })
}

async fn create_slot(
    connection: &mut Connection,
    setup: &Setup,
    client: &Client,
) -> Result<Lsn, OpenError> {
    // Creation waits for every transaction that writes at this moment, in any database. The
    // server does not end that wait by statement_timeout, but it does by lock_timeout; a slot
    // that was given up leaves nothing behind.
    let millis = SLOT_CREATION_MAX.as_millis();
    connection.query(&format!("SET lock_timeout = {millis}")).await?;
    let patience = SLOT_CREATION_MAX * 2;
    connection.query_within(&setup.create_slot_command(), patience).await?;
    connection.query("SET lock_timeout = 0").await?;
    setup.mark(client).await;
    let created = slot(client, &setup.slot).await?.and_then(|slot| slot.confirmed);
    let confirmed = created.ok_or_else(|| SetupError::BeingCreated(setup.slot.clone()))?;
    tracing::info!(slot = setup.slot, lsn = %confirmed, "created the replication slot");
    Ok(confirmed)
}
