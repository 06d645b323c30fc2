//! What Postgres refused, and why it could not be reached.

use std::io;
use std::time::Duration;

use super::response::ServerError;

/// Why there is no connection, or why a command on it failed.
///
/// Every variant names the host, since a URL may hold several. Only after
/// [`ConnectError::Server`] is a connection still usable.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name server does not know the host.
    #[error("cannot find the address of {host}: {source}")]
    Lookup {
        /// As in the URL.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The operating system reports a failure.
    #[error("{host}: {source}{}", advice(.source))]
    Io {
        /// Name, port and address, or the path of the socket.
        host: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The other side hung up without a word.
    #[error("{host} closed the connection; the server's log may say why")]
    Closed {
        /// Name, port and address, or the path of the socket.
        host: String,
    },
    /// No answer in time.
    #[error("{host} did not answer within {}", humantime::format_duration(*.after))]
    Timeout {
        /// Name, port and address, or the path of the socket.
        host: String,
        /// How long was waited.
        after: Duration,
    },
    /// The files named by `sslrootcert`, `sslcert` or `sslkey` are of no use.
    #[error("TLS cannot be set up: {0}")]
    TlsSetup(String),
    /// No TLS with this server.
    #[error("{host}: TLS: {reason}")]
    Tls {
        /// Name, port and address, or the path of the socket.
        host: String,
        /// What failed and what to do.
        reason: String,
    },
    /// Authentication came to a stop on our side. (A wrong password is a `Server` error.)
    #[error("{host}: authentication: {reason}")]
    Auth {
        /// Name, port and address, or the path of the socket.
        host: String,
        /// What is missing and what to do.
        reason: String,
    },
    /// The server said no.
    #[error("{host}: {error}{}", remedy(.error))]
    Server {
        /// Name, port and address, or the path of the socket.
        host: String,
        /// Its answer.
        error: Box<ServerError>,
    },
    /// The other side does not speak the protocol.
    #[error("{host} does not answer as Postgres does: {what}")]
    Protocol {
        /// Name, port and address, or the path of the socket.
        host: String,
        /// What is wrong with the answer.
        what: String,
    },
    /// The server replays another one's log, so there is no slot of ours and no way to make one.
    #[error("{host} is a standby; walrelay needs the primary")]
    Standby {
        /// Name, port and address, or the path of the socket.
        host: String,
    },
    /// Several attempts failed, listed in their order.
    #[error("no server could be used: {}", joined(.0))]
    NoHost(Vec<ConnectError>),
}

impl ConnectError {
    /// Several attempts as one error; one alone stays what it is.
    pub(crate) fn from_attempts(attempts: Vec<ConnectError>) -> ConnectError {
        let mut flat = Vec::new();
        for attempt in attempts {
            match attempt {
                ConnectError::NoHost(inner) => flat.extend(inner),
                single => flat.push(single),
            }
        }
        match flat.pop() {
            Some(only) if flat.is_empty() => only,
            last => {
                flat.extend(last);
                ConnectError::NoHost(flat)
            }
        }
    }

    /// The server's answer, if one is the reason: the first among several hosts.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            ConnectError::Server { error, .. } => Some(error),
            ConnectError::NoHost(attempts) => attempts.iter().find_map(ConnectError::server),
            _ => None,
        }
    }

    /// The SQLSTATE of the server's answer.
    pub fn sqlstate(&self) -> Option<&str> {
        self.server().map(|error| error.sqlstate.as_str())
    }
}

fn joined(attempts: &[ConnectError]) -> String {
    attempts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What to do when the server does not let us in.
fn remedy(error: &ServerError) -> &'static str {
    match (error.sqlstate.as_str(), error.severity.as_str()) {
        ("28P01", _) => "; check the user and the password",
        ("28000", _) => {
            "; let the role in with a line of pg_hba.conf for this database (one for \
             \"replication\" does not count)"
        }
        ("3D000", _) => "; check the database in postgres.url, or create it",
        ("42501", _) => "; give the role what it lacks, or run: ALTER ROLE … REPLICATION",
        ("53300", _) => "; raise max_wal_senders or max_connections, or end what is not needed",
        ("42601", _) | ("08P01", "FATAL") => {
            "; a connection pooler seems to stand in between, which cannot carry replication: \
             let postgres.url lead to Postgres itself"
        }
        _ => "",
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            ": is Postgres running there, and does its listen_addresses include this address?"
        }
        io::ErrorKind::NotFound => ": is this the directory in unix_socket_directories?",
        io::ErrorKind::PermissionDenied => ": the user of this process may not use the socket",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_attempts_are_listed_and_one_is_itself() {
        let closed = |host: &str| ConnectError::Closed { host: host.to_owned() };
        let one = ConnectError::from_attempts(vec![ConnectError::NoHost(vec![closed("a")])]);
        assert!(matches!(one, ConnectError::Closed { .. }), "{one}");
        let both = ConnectError::from_attempts(vec![
            ConnectError::NoHost(vec![closed("a"), ConnectError::Standby { host: "b".into() }]),
            closed("c"),
        ]);
        assert_eq!(
            both.to_string(),
            "no server could be used: a closed the connection; the server's log may say why; \
             b is a standby; walrelay needs the primary; \
             c closed the connection; the server's log may say why"
        );
    }

    #[test]
    fn the_server_s_no_comes_with_what_to_do() {
        let text = |severity: &str, sqlstate: &str| {
            let (severity, sqlstate) = (severity.to_owned(), sqlstate.to_owned());
            let error = ServerError { severity, sqlstate, ..ServerError::default() };
            let error = Box::new(error);
            ConnectError::Server { host: "db".to_owned(), error }.to_string()
        };
        for (severity, sqlstate, part) in [
            ("ERROR", "42601", "pooler"),
            ("FATAL", "08P01", "pooler"),
            ("FATAL", "28P01", "password"),
            ("FATAL", "28000", "pg_hba.conf"),
            ("FATAL", "3D000", "create it"),
            ("FATAL", "42501", "ALTER ROLE"),
            ("FATAL", "53300", "max_wal_senders"),
        ] {
            let text = text(severity, sqlstate);
            assert!(text.contains("; ") && text.contains(part), "{text}");
        }
        assert_eq!(text("FATAL", "57P03"), "db: FATAL 57P03: ");
    }
}
