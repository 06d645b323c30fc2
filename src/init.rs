//! `walrelay init`: makes what a first start would make, or prints the SQL for somebody who may.

use std::fmt::Write as _;

use postgres_protocol::escape::escape_identifier;

use crate::config::{Config, Outbox, Payload, REQUIRED_ATTRIBUTES};
use crate::error::Error;
use crate::pg::session::{self, look};
use crate::pg::setup::Setup;
use crate::pg::sql::SqlError;
use crate::template::Source;

/// Makes publication, slot and mark, and the tables if asked to.
pub async fn make(config: &Config, with_tables: bool) -> Result<(), Error> {
    let conninfo = &config.postgres.conninfo;
    if with_tables {
        let looked = look(conninfo).await.map_err(Error::Connect)?;
        for outbox in &config.outboxes {
            let created = looked.client.batch_execute(&create_table(outbox)).await;
            created.map_err(SqlError::when("creating the outbox table"))?;
        }
    }
    let setup = Setup { create: true, ..config.setup() };
    let at = session::make(conninfo, &setup).await?;
    tracing::info!(slot = setup.slot, lsn = %at, "publication and slot are there");
    Ok(())
}

/// The SQL that a database administrator runs, so that the relay's role needs no right but to
/// connect and to replicate.
pub fn sql(config: &Config, with_tables: bool) -> String {
    let setup = config.setup();
    let conninfo = &config.postgres.conninfo;
    let (role, database) = (conninfo.user(), conninfo.database());
    let (role, database) = (escape_identifier(role), escape_identifier(database));
    let mut sql = String::new();
    let mut say = |text: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(sql, "{text}");
    };
    say(&format!("-- In database {database}, statement by statement, as a superuser; or as the"));
    say("-- owner of the tables with CREATE on the database, REPLICATION and CREATEROLE.\n");
    say("-- The relay's role: it may connect and replicate, and needs no right on any table.");
    say(&format!("-- Give it a password, in psql: \\password {role}"));
    say(&format!("CREATE ROLE {role} LOGIN REPLICATION;"));
    say(&format!("GRANT CONNECT ON DATABASE {database} TO {role};\n"));
    if with_tables {
        for outbox in &config.outboxes {
            say(&create_table(outbox));
        }
    }
    say(match setup.tables.as_slice() {
        [] => "-- Messages are in no publication, but the stream needs one: this holds no table.",
        _ => "-- Which rows are read: inserts of the outbox tables.",
    });
    say(&format!("{};\n", setup.create_publication_sql()));
    say("-- From where on: rows inserted before this are not sent. From now on Postgres keeps its");
    say("-- log until the relay has read it. The comment tells a lost slot from a first start.");
    say(&format!("{};", setup.create_slot_sql()));
    say(&format!("{};", setup.mark_sql()));
    sql
}

/// A table that the outbox's mapping fits, in the manner of Debezium's default one.
pub fn create_table(outbox: &Outbox) -> String {
    let mut columns: Vec<(&str, &str)> = Vec::new();
    let mut add = |name, definition| {
        if !columns.iter().any(|(known, _)| *known == name) {
            columns.push((name, definition));
        }
    };
    let Outbox { table, id, key, payload, topic, partition, timestamp, headers, .. } = outbox;
    let Outbox { envelope, span_context, cloudevents, .. } = outbox;
    let attributes = cloudevents.filled(id.as_deref());
    if let Some(id) = id {
        add(id.as_str(), "uuid PRIMARY KEY DEFAULT gen_random_uuid()");
    }
    for column in topic.columns() {
        add(column, "varchar(255) NOT NULL");
    }
    for column in key.iter().flat_map(Source::columns) {
        add(column, "varchar(255) NOT NULL");
    }
    for (name, source) in &attributes {
        let kind = match (name.as_str(), source) {
            ("time", Source::Column(_)) => "timestamptz",
            (name, _) if REQUIRED_ATTRIBUTES.contains(&name) => "varchar(255) NOT NULL",
            _ => "varchar(255)",
        };
        source.columns().for_each(|column| add(column, kind));
    }
    if let Some(partition) = partition {
        add(partition.as_str(), "integer");
    }
    if let Some(timestamp) = timestamp {
        add(timestamp.as_str(), "timestamptz");
    }
    if let Some(version) = &envelope.schema_version {
        add(version.as_str(), "integer");
    }
    if let Some(span_context) = span_context {
        add(span_context.as_str(), "varchar(256)");
    }
    let members = envelope.members.iter().map(|(_, column)| column.as_str());
    let headers = headers.iter().flat_map(|(_, source)| source.columns());
    for column in headers.chain(members) {
        add(column, "varchar(255)");
    }
    let kind = if let Payload::Column(_) = payload { "jsonb" } else { "text" };
    for column in payload.columns() {
        add(column, kind);
    }
    let columns =
        columns.iter().map(|(name, kind)| format!("    {} {kind}", escape_identifier(name)));
    let columns = columns.collect::<Vec<_>>().join(",\n");
    format!("CREATE TABLE IF NOT EXISTS {} (\n{columns}\n);\n", table.to_sql())
}
