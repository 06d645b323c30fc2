//! `walrelay status`: slot, lag, retained log and position, asked of Postgres and Kafka.

use std::fmt::Write as _;

use bytesize::ByteSize;
use serde_json::{Value, json};

use crate::config::Config;
use crate::error::Error;
use crate::kafka::settings::Settings;
use crate::pg::session::look;
use crate::pg::slot::{Slot, slot};
use crate::pg::sql::SqlError;
use crate::position::{PositionRecord, Source};
use crate::recall;

/// What was found.
#[derive(Clone, Debug)]
pub struct Status {
    /// Name of the slot.
    name: String,
    slot: Option<Slot>,
    /// The record, or why there is none to be had.
    position: Result<Option<PositionRecord>, String>,
}

impl Status {
    /// Asks Postgres and Kafka.
    pub async fn of(config: &Config) -> Result<Status, Error> {
        let looked = look(&config.postgres.conninfo).await.map_err(Error::Connect)?;
        let name = config.postgres.slot.clone();
        let slot = slot(&looked.client, &name).await?;
        let sql = "SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()";
        let row = looked.client.query_one(sql, &[]).await;
        let database = row.and_then(|row| row.try_get(0));
        let database = database.map_err(SqlError::when("reading the database's OID"))?;
        let source =
            Source { system: looked.system.identifier.clone(), database, slot: name.clone() };
        let position = match &config.delivery.positions_topic {
            Some(topic) => {
                let client = Settings::new(config).client;
                let remembered = recall::read(&client, topic, source).await;
                remembered.map(|it| it.record).map_err(|error| error.to_string())
            }
            None => Ok(None),
        };
        Ok(Status { name, slot, position })
    }

    fn state(&self) -> String {
        let Some(slot) = &self.slot else { return "no slot".to_owned() };
        match (&slot.reader, slot.active_pid) {
            _ if slot.wal_status == "lost" || slot.invalidation_reason.is_some() => {
                "lost".to_owned()
            }
            (Some(reader), Some(pid)) => {
                format!("read by server process {pid} ({})", reader.application_name)
            }
            _ => "not read by anybody".to_owned(),
        }
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<14}{value}");
        };
        line("slot", &self.name);
        line("state", &self.state());
        if let Some(slot) = &self.slot {
            if let Some(confirmed) = slot.confirmed {
                let lag = slot.server.to_wire().saturating_sub(confirmed.to_wire());
                line("confirmed", &format!("{confirmed} ({} behind)", ByteSize(lag)));
            }
            line("server", &slot.server.to_string());
            let retained = ByteSize(slot.retained_wal_bytes);
            line("retained log", &format!("{retained} ({})", slot.wal_status));
            let safe = slot.safe_wal_bytes.map(ByteSize);
            line("safe log", &safe.map_or_else(|| "no limit".to_owned(), |safe| safe.to_string()));
        }
        line(
            "position",
            &match &self.position {
                Ok(Some(record)) => {
                    let inside = record.inside.map(|row| format!(", and rows up to {row}"));
                    let (epoch, timeline) = (record.context.epoch, record.context.timeline);
                    let inside = inside.unwrap_or_default();
                    format!("{} (epoch {epoch}, timeline {timeline}){inside}", record.end)
                }
                Ok(None) => "none".to_owned(),
                Err(error) => error.clone(),
            },
        );
        text
    }

    /// For programs: LSNs as text, sizes in bytes.
    pub fn to_json(&self) -> Value {
        let slot = self.slot.as_ref().map(|slot| {
            let confirmed = slot.confirmed.unwrap_or_default();
            json!({
                "confirmed_lsn": slot.confirmed.map(|lsn| lsn.to_string()),
                "server_lsn": slot.server.to_string(),
                "lag_bytes": slot.server.to_wire().saturating_sub(confirmed.to_wire()),
                "retained_wal_bytes": slot.retained_wal_bytes,
                "safe_wal_bytes": slot.safe_wal_bytes,
                "wal_status": slot.wal_status,
                "active_pid": slot.active_pid,
            })
        });
        let position = self.position.as_ref().ok().and_then(Option::as_ref).map(|record| {
            json!({
                "end_lsn": record.end.to_string(),
                "epoch": record.context.epoch,
                "timeline": record.context.timeline,
                "inside": record.inside.map(|row| row.to_string()),
            })
        });
        let error = self.position.as_ref().err();
        json!({
            "slot_name": self.name,
            "state": self.state(),
            "slot": slot,
            "position": position,
            "position_error": error,
        })
    }
}
