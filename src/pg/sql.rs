//! The second connection: plain SQL, beside the one that streams.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Ready, ready};

use tokio::time::timeout;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config};

use super::conninfo::Conninfo;
use super::error::ConnectError;
use super::response::ServerError;
use super::socket::{Endpoint, Stream};

/// Keeps a sensor from hanging behind somebody's lock.
const SETTINGS: &str = "-c statement_timeout=10s -c lock_timeout=10s \
                        -c client_min_messages=warning -c timezone=UTC";

/// A statement failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {}", words(.error))]
pub struct SqlError {
    /// What was being done.
    pub doing: &'static str,
    /// The server's answer.
    pub error: tokio_postgres::Error,
}

impl SqlError {
    /// Says what was being done when it happened.
    pub fn when(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> SqlError {
        move |error| SqlError { doing, error }
    }
}

fn words(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Opens an SQL connection to the very server that the replication connection uses, and the same
/// way.
///
/// The URL may name several servers, and a name several addresses; a slot and its
/// `confirmed_flush_lsn` live on one. The task that drives the connection ends when the client is
/// dropped or the server goes; [`Client::is_closed`] tells.
pub async fn connect_sql(conninfo: &Conninfo, endpoint: &Endpoint) -> Result<Client, ConnectError> {
    let after = conninfo.connect_timeout;
    match timeout(after, open(conninfo, endpoint)).await {
        Ok(opened) => opened,
        Err(_) => Err(ConnectError::Timeout { host: endpoint.to_string(), after }),
    }
}

async fn open(conninfo: &Conninfo, endpoint: &Endpoint) -> Result<Client, ConnectError> {
    let tls = conninfo.tls.load().map_err(ConnectError::TlsSetup)?;
    let stream = endpoint.open(conninfo, tls.as_ref()).await?;
    let opened = config(conninfo).connect_raw(stream, AsItIs).await;
    let (client, connection) = opened.map_err(|error| failure(endpoint, &error))?;
    let peer = endpoint.to_string();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("the SQL connection to {peer} ended: {error}");
        }
    });
    Ok(client)
}

fn config(conninfo: &Conninfo) -> Config {
    let mut config = Config::new();
    config
        .user(conninfo.user())
        .dbname(conninfo.database())
        .application_name(conninfo.application_name())
        .options(conninfo.options_before(SETTINGS))
        .channel_binding(conninfo.channel_binding)
        // "TLS without asking the server first", which here means: leave it to `AsItIs`.
        .ssl_mode(SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct);
    if let Some(password) = &conninfo.password {
        config.password(&password.0);
    }
    config
}

fn failure(endpoint: &Endpoint, error: &tokio_postgres::Error) -> ConnectError {
    let host = endpoint.to_string();
    if let Some(error) = error.as_db_error() {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let error = Box::new(ServerError {
            severity: error.severity().to_owned(),
            sqlstate: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: text(error.detail()),
            hint: text(error.hint()),
            context: text(error.where_()),
        });
        return ConnectError::Server { host, error };
    }
    if error.is_closed() {
        return ConnectError::Closed { host };
    }
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    ConnectError::Protocol { host, what: format!("{error}{cause}") }
}

/// Hands tokio-postgres a stream whose TLS is settled already, so that one piece of code
/// negotiates for both connections. It only adds what SCRAM needs to know about it.
struct AsItIs;

impl TlsConnect<Stream> for AsItIs {
    type Stream = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn connect(self, stream: Stream) -> Self::Future {
        ready(Ok(stream))
    }
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        match self.certificate_hash() {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}
