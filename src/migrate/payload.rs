//! The value of a record: the payload alone, or in an envelope.

use super::document::{Key, table};
use super::format::{self, Form, Format};
use super::options::Debezium;
use super::placement::{Place, Placement};
use super::router::{column, format_key, optional};

/// The member of an envelope that holds the payload.
const PAYLOAD: &str = "payload";

/// Returns what the names of schemas begin with, if there are any.
pub(super) fn translate(
    debezium: &mut Debezium,
    placements: &[Placement],
    keys: &mut Vec<Key>,
) -> Option<String> {
    keys.push(Key::text("payload", &column(debezium, "table.field.event.payload", "payload")));
    let envelope = envelope(debezium, placements);
    let mut format = format::of(debezium, "value");
    let has_schema = format.form == Form::JsonWithSchema && !envelope.is_empty();
    let name = debezium.router_name("table.expand.json.payload");
    let expand = debezium.router("table.expand.json.payload");
    if Debezium::flag(expand.as_ref(), false) {
        expanded(&mut format, &name, envelope.is_empty());
    }
    // They say which losses of an expansion are wanted.
    let nulls = debezium.router("table.json.payload.null.behavior");
    debezium.word(nulls, &["ignore", "optional_bytes"]);
    debezium.router("table.json.payload.empty.array.behavior");
    if format.form == Form::Text && !format.is_expanded && !envelope.is_empty() {
        format.comments.push(
            "An envelope is JSON here. With this converter Debezium sent Java's text for it, \
             like Struct{payload=…}."
                .to_owned(),
        );
    }
    keys.extend(format_key("payload_format", format));
    let tombstone = debezium.router("route.tombstone.on.empty.payload");
    if Debezium::flag(tombstone.as_ref(), false) {
        keys.push(Key::new("tombstone_if_blank", "true"));
    }
    if !envelope.is_empty() {
        keys.push(Key::new("envelope", table(&envelope)));
    }
    if let Some(column) = optional(debezium, "table.field.event.schema.version") {
        let key = Key::text("schema_version", &column);
        keys.push(if has_schema {
            key
        } else {
            let name = debezium.router_name("table.field.event.schema.version");
            key.off().say(format!("{name}: it has no effect but in the schema of an envelope."))
        });
    }
    let prefix = debezium.source("topic.prefix");
    let old = debezium.source("database.server.name");
    let prefix = prefix.or(old);
    if !has_schema {
        return None;
    }
    if prefix.is_none() {
        let name = debezium.source_name("topic.prefix");
        debezium.missing(format!("{name} is missing; the schema of an envelope is named by it"));
    }
    Some(debezium.plain(prefix, ""))
}

/// The members of the envelope beside the payload, and their columns.
fn envelope(debezium: &mut Debezium, placements: &[Placement]) -> Vec<(String, String)> {
    let mut members: Vec<(String, String)> = Vec::new();
    for placement in placements.iter().filter(|it| it.place == Place::Envelope) {
        let Placement { column, name, .. } = placement;
        if name == PAYLOAD || members.iter().any(|(known, _)| known == name) {
            let option = debezium.router_name("table.fields.additional.placement");
            debezium.missing(format!(
                "{option}: Debezium fails at a second member {name:?} of the envelope"
            ));
        } else {
            members.push((name.clone(), column.clone()));
        }
    }
    members
}

/// JSON that goes out as JSON is just the text of the column.
fn expanded(format: &mut Format, name: &str, is_alone: bool) {
    format.is_expanded = true;
    let null = if is_alone { ", and NULL is a tombstone, and not the text null" } else { "" };
    match format.form {
        Form::Json => {
            format.form = Form::Text;
            format.comments.push(format!(
                "{name}: the JSON goes out as Postgres prints it, with its white space. Debezium \
                 writes it anew and leaves out members that are null or []; here nothing is left \
                 out. A text that is no JSON goes out as it is, and not as a JSON string{null}."
            ));
        }
        Form::JsonWithSchema => format.comments.push(format!(
            "{name}: no schema is made out of a payload. It goes out as a JSON string, as it does \
             without this option, and consumers have to read that."
        )),
        Form::Text => format.comments.push(format!(
            "{name}: with this converter Debezium sent Java's text, like Struct{{a=1}}; here it is \
             the JSON of the column."
        )),
    }
}
