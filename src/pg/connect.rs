//! An authenticated connection to the primary, ready for replication commands.
//!
//! ```text
//!  host ── resolve ──▶ endpoint ── open ──▶ stream ── startup, authenticate ──▶ dialogue
//!   │                      │                  ▲                                    │
//!   └ next host            └ next address     └ prefer: once more without TLS      │ primary?
//!                                                                                  ▼
//!                                                                             Connection
//! ```
//!
//! `connect_timeout` is the time for one address, from the first packet to the last answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::backend::{
    BACKEND_KEY_DATA_TAG, ERROR_RESPONSE_TAG, READY_FOR_QUERY_TAG,
};
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use tokio::time::timeout;

use super::auth::authenticate;
use super::conninfo::Conninfo;
use super::dialogue::{Dialogue, Transport};
use super::tls::SslMode;

pub use super::dialogue::Row;
pub use super::error::ConnectError;
pub use super::response::ServerError;
pub use super::socket::{Endpoint, Stream};

/// What a session shall be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// How long the server waits for a sign of life. Set for our session, because the server's own
    /// value may be anything, and 0 keeps a dead relay's slot busy for hours.
    pub wal_sender_timeout: Duration,
    /// How long [`Connection::query`] waits for an answer.
    pub query_timeout: Duration,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions {
            wal_sender_timeout: Duration::from_secs(30),
            query_timeout: Duration::from_secs(30),
        }
    }
}

impl SessionOptions {
    /// Pins whatever a role, a database or a server could have set otherwise and that decides what
    /// the bytes of a row mean or whether the session lives.
    fn settings(&self) -> String {
        format!(
            "-c wal_sender_timeout={}ms -c datestyle=ISO -c intervalstyle=postgres \
             -c timezone=UTC -c extra_float_digits=3 -c bytea_output=hex \
             -c lc_monetary=C -c client_min_messages=warning -c statement_timeout=0 \
             -c lock_timeout=0 -c idle_in_transaction_session_timeout=0",
            self.wal_sender_timeout.as_millis()
        )
    }
}

/// Opens a connection to the first server in the URL that is a primary and lets us in.
pub async fn connect(
    conninfo: &Conninfo,
    options: &SessionOptions,
) -> Result<Connection, ConnectError> {
    let tls = conninfo.tls.load().map_err(ConnectError::TlsSetup)?;
    let after = conninfo.connect_timeout;
    let mut failures = Vec::new();
    for host in conninfo.hosts() {
        let late = |_| ConnectError::Timeout { host: host.to_string(), after };
        let resolved = timeout(after, Endpoint::resolve(host)).await.map_err(late);
        let endpoints = match resolved.and_then(|resolved| resolved) {
            Ok(endpoints) => endpoints,
            Err(error) => {
                failures.push(error);
                continue;
            }
        };
        for endpoint in endpoints {
            let late = |_| ConnectError::Timeout { host: endpoint.to_string(), after };
            let attempt = timeout(after, attempt(conninfo, options, &endpoint, tls.as_ref()));
            match attempt.await.map_err(late).and_then(|attempt| attempt) {
                Ok(connection) => return Ok(connection),
                Err(error) => failures.push(error),
            }
        }
    }
    Err(ConnectError::from_attempts(failures))
}

/// One address; with `sslmode=prefer`, once more in plain text if it was TLS that failed.
async fn attempt(
    conninfo: &Conninfo,
    options: &SessionOptions,
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Connection, ConnectError> {
    let error = match establish(conninfo, options, endpoint, tls).await {
        Err(error) if conninfo.tls.mode == SslMode::Prefer && tls_is_the_matter(&error) => error,
        settled => return settled,
    };
    let plain = establish(conninfo, options, &endpoint.in_plain_text(), None).await;
    plain.map_err(|plain| ConnectError::from_attempts(vec![error, plain]))
}

/// The handshake failed, or `pg_hba.conf` has lines for `hostnossl` only. (libpq tries again after
/// every error of the server; a wrong password does not get better by it.)
fn tls_is_the_matter(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Tls { .. }) || error.sqlstate() == Some("28000")
}

async fn establish(
    conninfo: &Conninfo,
    options: &SessionOptions,
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Connection, ConnectError> {
    let stream = endpoint.open(conninfo, tls).await?;
    let encrypted = stream.is_encrypted();
    let certificate_hash = stream.certificate_hash();
    let mut dialogue = Dialogue::new(stream, endpoint.to_string());
    let backend_pid = start(&mut dialogue, conninfo, options, certificate_hash).await?;
    let server = describe(&mut dialogue).await?;
    if server.in_recovery {
        return Err(ConnectError::Standby { host: endpoint.to_string() });
    }
    Ok(Connection {
        dialogue,
        endpoint: endpoint.clone(),
        encrypted,
        backend_pid,
        server_version: server.version,
        server_version_num: server.version_num,
        query_timeout: options.query_timeout,
    })
}

/// From the first message to the first `ReadyForQuery`; gives the number of the server's process.
async fn start<S: Transport>(
    dialogue: &mut Dialogue<S>,
    conninfo: &Conninfo,
    options: &SessionOptions,
    certificate_hash: Option<Vec<u8>>,
) -> Result<i32, ConnectError> {
    let settings = conninfo.options_before(&options.settings());
    let parameters = [
        ("user", conninfo.user()),
        ("database", conninfo.database()),
        // `database` and not `true`: logical decoding needs one, and so does SQL.
        ("replication", "database"),
        ("client_encoding", "UTF8"),
        ("application_name", conninfo.application_name()),
        ("options", &settings),
    ];
    dialogue.send(|out| frontend::startup_message(parameters, out)).await?;
    authenticate(dialogue, conninfo, certificate_hash).await?;
    let mut backend_pid = 0;
    loop {
        let frame = dialogue.read().await?;
        match frame.tag {
            BACKEND_KEY_DATA_TAG => {
                let pid = frame.body.first_chunk().copied().map(i32::from_be_bytes);
                backend_pid = pid.ok_or_else(|| dialogue.garbled("a damaged backend key"))?;
            }
            READY_FOR_QUERY_TAG => return Ok(backend_pid),
            ERROR_RESPONSE_TAG => return Err(dialogue.refused(&frame.body)),
            _ => return Err(dialogue.unexpected(&frame)),
        }
    }
}

struct Server {
    version: String,
    version_num: u32,
    in_recovery: bool,
}

async fn describe<S: Transport>(dialogue: &mut Dialogue<S>) -> Result<Server, ConnectError> {
    // A SQL_ASCII database has no encoding to convert from: asked for UTF-8, the server ends the
    // stream at the first byte that is none, and so each time.
    let sql = "SELECT pg_catalog.current_setting('server_version'), \
               pg_catalog.current_setting('server_version_num'), pg_catalog.pg_is_in_recovery(), \
               CASE WHEN pg_catalog.current_setting('server_encoding') = 'SQL_ASCII' \
               THEN pg_catalog.set_config('client_encoding', 'SQL_ASCII', false) END";
    let rows = dialogue.query(sql).await?;
    let described = match rows.first().map(Vec::as_slice) {
        Some([Some(version), Some(number), Some(recovery), ..]) => {
            number.parse().ok().map(|version_num| Server {
                version: version.clone(),
                version_num,
                in_recovery: recovery != "f",
            })
        }
        _ => None,
    };
    described.ok_or_else(|| dialogue.garbled("no version in answer to a question for it"))
}

/// A walsender that listens.
pub struct Connection {
    dialogue: Dialogue<Stream>,
    endpoint: Endpoint,
    encrypted: bool,
    backend_pid: i32,
    server_version: String,
    server_version_num: u32,
    query_timeout: Duration,
}

impl Connection {
    /// The address in use: where the second connection has to go, and what messages name.
    /// Keep a copy, since [`Connection::into_parts`] ends this one.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether TLS is in use.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The process that serves us: `active_pid` of the slot while we stream.
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// For people: `16.4 (Debian 16.4-1)`.
    pub fn server_version(&self) -> &str {
        &self.server_version
    }

    /// For comparisons: 160004.
    pub fn server_version_num(&self) -> u32 {
        self.server_version_num
    }

    /// Warnings and notices since the last call.
    pub fn take_notices(&mut self) -> Vec<ServerError> {
        self.dialogue.take_notices()
    }

    /// Runs one statement or replication command and gives its rows.
    ///
    /// After a [`ConnectError::Server`] that is not FATAL the connection takes the next command;
    /// after every other error drop it, since an answer may still be under way.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Row>, ConnectError> {
        self.query_within(sql, self.query_timeout).await
    }

    /// The same with another deadline: a slot is created only when every transaction that runs at
    /// that moment has ended.
    pub async fn query_within(
        &mut self,
        sql: &str,
        after: Duration,
    ) -> Result<Vec<Row>, ConnectError> {
        match timeout(after, self.dialogue.query(sql)).await {
            Ok(answer) => answer,
            Err(_) => Err(ConnectError::Timeout { host: self.endpoint.to_string(), after }),
        }
    }

    /// Sends `START_REPLICATION ...` and waits until the server agrees. Then take
    /// [`Connection::into_parts`]; if it refuses, the connection takes the next command.
    pub async fn start_copy(&mut self, command: &str) -> Result<(), ConnectError> {
        let after = self.query_timeout;
        match timeout(after, self.dialogue.start_copy(command)).await {
            Ok(answer) => answer,
            Err(_) => Err(ConnectError::Timeout { host: self.endpoint.to_string(), after }),
        }
    }

    /// The stream, and the bytes of it that have been read already.
    pub fn into_parts(self) -> (Stream, BytesMut) {
        self.dialogue.into_parts()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("endpoint", &self.endpoint)
            .field("encrypted", &self.encrypted)
            .field("backend_pid", &self.backend_pid)
            .field("server_version_num", &self.server_version_num)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag], &length.to_be_bytes()[..], body].concat()
    }

    /// Everything that a server without a password says until it has described itself.
    fn welcome(in_recovery: &str) -> Vec<u8> {
        let columns = ["16.4 (Debian)", "160004", in_recovery];
        let mut row = vec![0, 3];
        for column in columns {
            row.extend(u32::try_from(column.len()).unwrap().to_be_bytes());
            row.extend(column.as_bytes());
        }
        [
            message(b'R', &[0, 0, 0, 0]),
            message(b'S', b"server_version\x0016.4 (Debian)\0"),
            message(b'K', &[0, 0, 0x30, 0x39, 1, 2, 3, 4]),
            message(b'Z', b"I"),
            message(b'D', &row),
            message(b'Z', b"I"),
        ]
        .concat()
    }

    /// A server that says this once it is spoken to, and then keeps silent. Gives its port and,
    /// later, what it was told first.
    async fn server(says: Vec<u8>) -> (u16, tokio::task::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut heard = vec![0; 4096];
            let length = client.read(&mut heard).await.unwrap();
            heard.truncate(length);
            client.write_all(&says).await.unwrap();
            while client.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
            heard
        });
        (port, heard)
    }

    async fn connect_to(ports: &[u16]) -> Result<Connection, ConnectError> {
        let hosts = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>();
        let parameters = "sslmode=disable&connect_timeout=1&options=-c%20search_path%3Da";
        let url = format!("postgres://u@{}/app?{parameters}", hosts.join(","));
        connect(&Conninfo::parse(&url).unwrap(), &SessionOptions::default()).await
    }

    #[tokio::test]
    async fn the_session_is_pinned_and_described() {
        let (port, heard) = server(welcome("f")).await;
        let connection = connect_to(&[port]).await.unwrap();
        assert_eq!(connection.server_version_num(), 160_004);
        assert_eq!(connection.server_version(), "16.4 (Debian)");
        assert_eq!(connection.backend_pid(), 12_345);
        assert_eq!(connection.endpoint().to_string(), format!("127.0.0.1:{port}"));
        drop(connection);
        let heard = heard.await.unwrap();
        let heard = String::from_utf8_lossy(&heard);
        for part in [
            "user\0u\0",
            "database\0app\0",
            "replication\0database\0",
            "client_encoding\0UTF8\0",
            "application_name\0walrelay\0",
            "options\0-c search_path=a -c wal_sender_timeout=30000ms -c datestyle=ISO ",
        ] {
            assert!(heard.contains(part), "{part:?} is missing in {heard:?}");
        }
    }

    #[tokio::test]
    async fn a_standby_is_passed_over_and_alone_refused() {
        let (standby, _heard) = server(welcome("t")).await;
        let (primary, _heard) = server(welcome("f")).await;
        let connection = connect_to(&[standby, primary]).await.unwrap();
        assert_eq!(connection.endpoint().to_string(), format!("127.0.0.1:{primary}"));

        let (standby, _heard) = server(welcome("t")).await;
        let error = connect_to(&[standby]).await.unwrap_err();
        assert!(matches!(error, ConnectError::Standby { .. }), "{error}");
    }

    #[tokio::test]
    async fn every_host_that_failed_is_listed_with_its_reason() {
        let (silent, _heard) = server(Vec::new()).await;
        let (full, _heard) = server(message(b'E', b"VFATAL\0C53300\0Mtoo many\0\0")).await;
        let error = connect_to(&[silent, full]).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("53300"));
        assert_eq!(
            error.to_string(),
            format!(
                "no server could be used: 127.0.0.1:{silent} did not answer within 1s; \
                 127.0.0.1:{full}: FATAL 53300: too many; raise \
                 max_wal_senders or max_connections, or end what is not needed"
            )
        );
    }

    #[tokio::test]
    async fn a_command_has_a_deadline() {
        let (port, _heard) = server(welcome("f")).await;
        let mut connection = connect_to(&[port]).await.unwrap();
        let after = Duration::from_millis(20);
        let error = connection.query_within("IDENTIFY_SYSTEM", after).await.unwrap_err();
        assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
    }
}
