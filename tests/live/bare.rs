//! A reader that trusts Postgres: it starts where it is told to and counts rows. What it does not
//! get shows what Postgres loses without a word.

use std::time::Duration;

use walrelay::feedback::status;
use walrelay::frontier::{Frontier, Limits};
use walrelay::lsn::Lsn;
use walrelay::pg::connect::{SessionOptions, connect};
use walrelay::pg::conninfo::Conninfo;
use walrelay::pg::copy::Copy;
use walrelay::pg::response::ServerError;
use walrelay::pg::wire::Wire;

use crate::scene::{PATIENCE, Scene};

/// As long as nothing but keepalives has come for this long, there is no more to come.
const QUIET: Duration = Duration::from_millis(1500);

/// What a bare reader got.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Got {
    /// Inserts of any table.
    pub rows: usize,
    /// SQLSTATE of the error that ended the stream.
    pub error: Option<String>,
    /// SQLSTATEs of warnings in the stream.
    pub warnings: Vec<String>,
}

impl Got {
    /// So many rows, and not a word.
    pub fn silently(rows: usize) -> Got {
        Got { rows, ..Got::default() }
    }
}

/// Reads the scene's slot from where it stands, and confirms nothing.
pub async fn read(scene: &Scene<'_>) -> Got {
    read_from(scene, "walrelay", Lsn::ZERO).await
}

/// The same from `from` on, with this list of publications.
pub async fn read_from(scene: &Scene<'_>, publication: &str, from: Lsn) -> Got {
    let (url, slot) = (scene.database.url(), &scene.topic);
    let conninfo = Conninfo::parse(&url).unwrap();
    let mut connection = connect(&conninfo, &SessionOptions::default()).await.unwrap();
    let command = format!(
        "START_REPLICATION SLOT {slot} LOGICAL {from} \
         (proto_version '1', publication_names '{publication}')"
    );
    let mut got = Got::default();
    // The reader before may have gone without its walsender having noticed.
    let mut started = connection.start_copy(&command).await;
    let patience = tokio::time::Instant::now() + PATIENCE;
    while started.as_ref().is_err_and(|error| error.sqlstate() == Some("55006"))
        && tokio::time::Instant::now() < patience
    {
        tokio::time::sleep(QUIET / 10).await;
        started = connection.start_copy(&command).await;
    }
    if let Err(error) = started {
        got.error = error.sqlstate().map(str::to_owned);
        return got;
    }
    let (stream, rest) = connection.into_parts();
    let mut wire = Wire::new(stream, &rest);
    let none = Frontier::new(Lsn::ZERO, Limits { records: 1, bytes: 1, span: 1 }).confirmed();
    let mut until = tokio::time::Instant::now() + QUIET;
    while tokio::time::Instant::now() < until && got.error.is_none() {
        wire.queue(&status(Lsn::ZERO, none, 0, true));
        if let Ok(turned) = tokio::time::timeout(QUIET / 10, wire.turn(true)).await
            && turned.unwrap_or(0) == 0
        {
            break;
        }
        while let Some((frame, len)) = wire.peek().unwrap() {
            match frame.tag {
                b'E' => got.error = Some(ServerError::parse(frame.body).sqlstate),
                b'N' => got.warnings.push(ServerError::parse(frame.body).sqlstate),
                b'd' => match Copy::parse(frame.body).unwrap() {
                    Copy::Data { change, .. } => {
                        until = tokio::time::Instant::now() + QUIET;
                        got.rows += usize::from(change.first() == Some(&b'I'));
                    }
                    Copy::Keepalive { .. } | Copy::Unknown(_) => {}
                },
                _ => {}
            }
            wire.consume(len);
        }
    }
    got
}
