//! What can end a session, and the one place that says what follows from it.

use crate::kafka::acks::Failure;
use crate::kafka::positions::PositionsError;
use crate::kafka::producer::StartError;
use crate::pg::admin::SetupError;
use crate::pg::error::ConnectError;
use crate::pg::frame::BadFrame;
use crate::pg::response::{Beside, ServerError};
use crate::pg::session::OpenError;
use crate::pg::sql::SqlError;
use crate::pipe::StreamError;
use crate::position::Gap;
use crate::remedy::Remedy;

/// Why the relay does not stream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or a replication command failed.
    #[error("Postgres: {0}")]
    Connect(ConnectError),
    /// Publication, slot or server are not as they must be.
    #[error("{0}")]
    Setup(SetupError),
    /// The stream broke.
    #[error("the replication stream broke: {0}")]
    Io(#[from] std::io::Error),
    /// The server hung up.
    #[error("Postgres closed the replication stream")]
    Closed,
    /// Nothing was heard although a reply was asked for.
    #[error("nothing came from Postgres for {} s although replies were asked for", .0.as_secs())]
    Silent(std::time::Duration),
    /// The server shuts down, and would wait for us.
    #[error("Postgres is shutting down; what is not confirmed waits in the slot")]
    ShuttingDown,
    /// The server said why it ends the stream.
    #[error("Postgres ended the replication stream: {0}")]
    Server(ServerError),
    /// A publication was missing when rows were written. Postgres 18 and later only warn, and skip
    /// them; earlier ones end the stream there, each time.
    #[error(
        "rows were written while their publication did not exist: {0}; they cannot be read from \
         the log. Compare the outbox with Kafka; move the slot behind them: SELECT \
         pg_replication_slot_advance(…, pg_current_wal_lsn()); then run once: walrelay run \
         --accept-gap"
    )]
    RowsSkipped(ServerError),
    /// Postgres cannot make out of a row what it would have to send: its text is too long, or is
    /// none in the encoding asked for.
    #[error(
        "Postgres cannot decode what is in the log: {0}; it is tried again. If that does not help, \
         compare the outbox with Kafka; move the slot behind it: SELECT \
         pg_replication_slot_advance(…, pg_current_wal_lsn()); then run once: walrelay run \
         --accept-gap; and write again what was left out"
    )]
    Undecodable(ServerError),
    /// The bytes are not what they must be.
    #[error("the replication stream is damaged: {0}")]
    Frame(#[from] BadFrame),
    /// The messages are not what they must be.
    #[error("cannot follow the replication stream: {0}")]
    Stream(#[from] StreamError),
    /// What is remembered in Kafka cannot be used.
    #[error("{0}")]
    Positions(#[from] PositionsError),
    /// Events are missing.
    #[error("{0}. Compare the outbox with Kafka; then run once: walrelay run --accept-gap")]
    Gap(#[from] Gap),
    /// The producer could not be made.
    #[error("{0}")]
    Producer(#[from] StartError),
    /// The producer is done for.
    #[error("{0}")]
    Delivery(#[from] Failure),
}

/// What `sessions_total{reason}` may say.
pub const REASONS: [&str; 11] = [
    "closed",
    "connect",
    "gap",
    "kafka",
    "positions",
    "rows_skipped",
    "server",
    "setup",
    "shutting_down",
    "silent",
    "stream",
];

impl Error {
    /// What a message beside the stream comes to: at most a notice, or the end of the session.
    pub fn beside(message: Beside) -> Result<Option<ServerError>, Error> {
        match message {
            Beside::Nothing => Ok(None),
            Beside::Notice(notice) => Ok(Some(notice)),
            Beside::RowsSkipped(error) => Err(Error::RowsSkipped(error)),
            Beside::Undecodable(error) => Err(Error::Undecodable(error)),
            Beside::Failed(error) => Err(Error::Server(error)),
            Beside::Ended => Err(Error::Closed),
        }
    }

    /// What follows.
    pub fn remedy(&self) -> Remedy {
        match self {
            Error::Io(_)
            | Error::Closed
            | Error::Silent(_)
            | Error::ShuttingDown
            | Error::Frame(_)
            | Error::Setup(SetupError::BeingCreated(_) | SetupError::Lingering { .. })
            | Error::Positions(
                PositionsError::Missing(_) | PositionsError::Slow(_) | PositionsError::Read { .. },
            ) => Remedy::Reconnect,
            Error::Connect(error) => by_sqlstate(error.sqlstate()),
            Error::Server(error) => by_sqlstate(Some(&error.sqlstate)),
            Error::Setup(SetupError::InUse { .. }) => Remedy::StandBy,
            Error::Setup(SetupError::Sql(SqlError { error, .. })) => {
                by_sqlstate(error.code().map(tokio_postgres::error::SqlState::code))
            }
            Error::Setup(SetupError::Changed(changed)) => changed.remedy(),
            Error::Setup(_)
            | Error::RowsSkipped(_)
            | Error::Undecodable(_)
            | Error::Stream(_)
            | Error::Positions(_)
            | Error::Gap(_) => Remedy::Halt,
            Error::Producer(_) | Error::Delivery(_) => Remedy::Restart,
        }
    }

    /// A word for the metric `sessions_total{reason}`, one of [`REASONS`].
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Connect(_) => "connect",
            Error::Setup(_) => "setup",
            Error::Positions(_) => "positions",
            Error::Gap(_) => "gap",
            Error::Io(_) | Error::Closed => "closed",
            Error::Silent(_) => "silent",
            Error::Server(_) | Error::Undecodable(_) => "server",
            Error::ShuttingDown => "shutting_down",
            Error::RowsSkipped(_) => "rows_skipped",
            Error::Frame(_) | Error::Stream(_) => "stream",
            Error::Producer(_) | Error::Delivery(_) => "kafka",
        }
    }
}

/// By class, as in the Postgres manual, appendix A; never by text, which is translated.
fn by_sqlstate(sqlstate: Option<&str>) -> Remedy {
    match sqlstate {
        // Connections and server going down or coming up, limits, cancelled, out of resources. An
        // object in use (55006) is a slot that got a reader between our look and our start: the
        // next look tells whose.
        None | Some("55P03" | "55006") => Remedy::Reconnect,
        Some(code) => match code.get(..2) {
            Some("08" | "53" | "57" | "58" | "40") => Remedy::Reconnect,
            _ => Remedy::Halt,
        },
    }
}

impl From<SqlError> for Error {
    fn from(error: SqlError) -> Error {
        Error::Setup(SetupError::Sql(error))
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Error {
        match error {
            OpenError::Connect(error) => Error::Connect(error),
            OpenError::Setup(error) => Error::Setup(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_are_classified_by_class() {
        for (code, remedy) in [
            ("55006", Remedy::Reconnect),
            ("57P01", Remedy::Reconnect),
            ("57P03", Remedy::Reconnect),
            ("08006", Remedy::Reconnect),
            ("53300", Remedy::Reconnect),
            ("55P03", Remedy::Reconnect),
            ("57014", Remedy::Reconnect),
            ("42704", Remedy::Halt),
            ("55000", Remedy::Halt),
            ("28P01", Remedy::Halt),
            ("3D000", Remedy::Halt),
            ("", Remedy::Halt),
        ] {
            assert_eq!(by_sqlstate(Some(code)), remedy, "{code}");
        }
        assert_eq!(by_sqlstate(None), Remedy::Reconnect);
    }
}
