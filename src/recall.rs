//! What is remembered of earlier runs, as a start finds it: the position record in Kafka, next to
//! slot and timeline in Postgres.

use rdkafka::ClientConfig;

use crate::error::Error;
use crate::kafka::positions::{self, PositionsError};
use crate::lsn::Lsn;
use crate::pg::connect::ConnectError;
use crate::pg::session::Looked;
use crate::position::{Found, Remembered, Source, switched};

/// What is remembered of `source`; makes the topic if it is missing.
pub async fn recall(
    client: &ClientConfig,
    topic: &str,
    source: Source,
) -> Result<Remembered, Error> {
    match read(client, topic, source).await {
        Err(PositionsError::Missing(_)) if positions::create(client, topic).await? => {
            Ok(Remembered::default())
        }
        // A broker may not know of it yet; the next attempt may find what is in it.
        found => Ok(found?),
    }
}

/// What is remembered of `source`, in a topic that is there.
pub async fn read(
    client: &ClientConfig,
    topic: &str,
    source: Source,
) -> Result<Remembered, PositionsError> {
    let (client, name) = (client.clone(), topic.to_owned());
    let read = tokio::task::spawn_blocking(move || positions::read(&client, &name, &source));
    let failed = |error: tokio::task::JoinError| {
        let (topic, reason) = (topic.to_owned(), error.to_string());
        PositionsError::Read { topic, reason }
    };
    read.await.map_err(failed)?
}

/// All that a start is decided by.
pub async fn found<'a>(
    remembered: Remembered,
    looked: &mut Looked,
    slot: Lsn,
    publication: &'a str,
) -> Result<Found<'a>, ConnectError> {
    let (server, timeline) = (looked.server, looked.system.timeline);
    let switched = match &remembered.record {
        // The timeline of a server that is behind has no history with ours in it.
        Some(record) if record.context.timeline < timeline => {
            switched(&looked.timeline_history().await?, record.context.timeline)
        }
        _ => None,
    };
    Ok(Found { remembered, slot, server, timeline, switched, publication })
}
