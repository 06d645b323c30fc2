//! What Postgres refused, and why it could not be reached.

use std::fmt;
use std::io;
use std::time::Duration;

/// An `ErrorResponse` or `NoticeResponse` of the server.
///
/// A field that the server did not send is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, `NOTICE`, ..., never translated.
    pub severity: String,
    /// The five characters that say what happened; everything is decided by them, not by the text.
    pub sqlstate: String,
    /// The primary text, in the server's language.
    pub message: String,
    /// More about the message.
    pub detail: String,
    /// What the server suggests.
    pub hint: String,
    /// Where it happened; a decoding error names slot, plugin and LSN here.
    pub context: String,
}

impl ServerError {
    /// Reads the body of an `ErrorResponse` or `NoticeResponse`.
    ///
    /// Never fails: the message that explains a failure is the wrong place for another one, so a
    /// damaged body gives what could be read of it.
    pub fn parse(body: &[u8]) -> ServerError {
        let mut error = ServerError::default();
        for field in body.split(|byte| *byte == 0) {
            let Some((code, text)) = field.split_first() else { continue };
            let text = String::from_utf8_lossy(text).into_owned();
            match code {
                // `S` is translated; `V` (since 9.6) is not and wins wherever it stands.
                b'V' => error.severity = text,
                b'S' if error.severity.is_empty() => error.severity = text,
                b'C' => error.sqlstate = text,
                b'M' => error.message = text,
                b'D' => error.detail = text,
                b'H' => error.hint = text,
                b'W' => error.context = text,
                _ => {}
            }
        }
        error
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity, self.sqlstate, self.message)?;
        for (name, text) in
            [("detail", &self.detail), ("hint", &self.hint), ("context", &self.context)]
        {
            if !text.is_empty() {
                write!(f, " ({name}: {text})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ServerError {}

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

    const BODY: &[u8] = b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0Dmore\0\
        Htry this\0Fauth.c\0L123\0Rauth_failed\0\0";

    #[test]
    fn reads_the_fields_it_knows() {
        let error = ServerError::parse(BODY);
        assert_eq!(error.severity, "FATAL");
        assert_eq!(error.sqlstate, "28P01");
        assert_eq!(
            error.to_string(),
            "FATAL 28P01: password authentication failed (detail: more) (hint: try this)"
        );
    }

    #[test]
    fn every_prefix_gives_something() {
        for end in 0..BODY.len() {
            let error = ServerError::parse(&BODY[..end]);
            assert!("FATAL".starts_with(&error.severity), "{error:?}");
        }
        assert_eq!(ServerError::parse(b""), ServerError::default());
        assert_eq!(ServerError::parse(b"M\xff\0").message, "\u{fffd}");
    }

    #[test]
    fn the_severity_that_is_not_translated_wins() {
        for body in [&b"SFATAL-ES\0VFATAL\0\0"[..], b"VFATAL\0SFATAL-ES\0\0"] {
            assert_eq!(ServerError::parse(body).severity, "FATAL");
        }
        assert_eq!(ServerError::parse(b"SERREUR\0\0").severity, "ERREUR");
    }

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
