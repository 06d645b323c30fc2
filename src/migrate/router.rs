//! `[[outbox]]`: what the event router makes of a row.

use super::document::{Key, Section, table};
use super::format::{self, Form, Format};
use super::options::{Debezium, Given};
use super::payload;
use super::placement::{self, Place, Placement};
use super::route::{Route, doubled, route};
use super::tables::{self, Table};
use crate::template::check_identifier;

/// The header that the identity of an event becomes.
const ID_HEADER: &str = "id";
/// What Debezium Server sends is a record without them, so that they are not in effect.
const IGNORED: &str = "Debezium Server's Kafka sink ignores it";
const MOVED: &str = "An UPDATE that changes the primary key is an event to Debezium; here it is an \
                     update like any other (on_update).";
const DEFAULTS: &str = "Of columns with a DEFAULT, Debezium writes that into schemas, and sends it \
                        in the place of NULL; here NULL is null, and schemas have no defaults. \
                        Such a key may have other bytes, and another partition.";
const NAMED: &str = "Debezium gives all events of one version of the schema the name that the \
                     first one had after its start; here each has its own.";

/// The sections, and what taking over depends on.
#[derive(Clone, Debug)]
pub(super) struct Outboxes {
    pub(super) sections: Vec<Section>,
    pub(super) tables: Vec<Table>,
    /// Whether an update is to halt the relay, for which it must be in the stream.
    pub(super) needs_updates: bool,
}

pub(super) fn translate(debezium: &mut Debezium) -> Outboxes {
    let tables = tables::translate(debezium);
    let routed_by = column(debezium, "route.by.field", "aggregatetype");
    let placements = placements(debezium);
    let mut keys = Vec::new();
    let id = column(debezium, "table.field.event.id", "id");
    keys.push(Key::text("id", &id).say(MOVED));
    let key = column(debezium, "table.field.event.key", "aggregateid");
    keys.push(Key::text("key", &source(&key)));
    keys.extend(format_key("key_format", format::of(debezium, "key")));
    let schema = payload::translate(debezium, &placements, &mut keys);
    topic(debezium, &routed_by, &mut keys);
    partition_and_time(debezium, &placements, &mut keys);
    headers(debezium, &placements, &mut keys);
    debezium.options.take(format::FOR_ALL);
    if let Some(key) = keys.iter_mut().find(|key| key.is_json()) {
        *key = key.clone().say(DEFAULTS);
    }
    let needs_updates = policies(debezium, &placements, &mut keys);
    let section = |(number, table): (usize, &Table)| {
        let mut section = Section::new("[[outbox]]");
        let named = Key::text("table", &table.name.to_string());
        section.push(named.say_all(table.comments.clone()));
        for key in &keys {
            // What is the same for the next table is said once.
            if number == 0 {
                section.push(key.clone());
            } else if let Some(key) = key.without_comments() {
                section.push(key);
            }
        }
        if let Some(prefix) = &schema {
            let [prefix, schema, name, column] =
                [prefix, &table.name.schema, &table.name.name, &routed_by].map(|it| doubled(it));
            let name = format!("{prefix}.{schema}.{name}.{{{column}}}.Value");
            let key = Key::text("schema_name", &name);
            section.push(if number == 0 { key.say(NAMED) } else { key });
        }
        section
    };
    let sections = tables.iter().enumerate().map(section).collect();
    Outboxes { sections, tables, needs_updates }
}

/// A column that the router cannot do without.
pub(super) fn column(debezium: &mut Debezium, option: &str, default: &str) -> String {
    let given = debezium.router(option);
    let column = debezium.plain(given.clone(), default);
    if let (Err(what), Some(given)) = (check_column(&column), given) {
        debezium.wrong(&given, what);
    }
    column
}

/// A column that there need not be.
pub(super) fn optional(debezium: &mut Debezium, option: &str) -> Option<String> {
    let given = debezium.router(option)?;
    let column = debezium.plain(Some(given.clone()), "");
    if let Err(what) = check_column(&column)
        && !column.is_empty()
    {
        debezium.wrong(&given, what);
    }
    Some(column).filter(|column| !column.is_empty())
}

fn check_column(column: &str) -> Result<(), &'static str> {
    match check_identifier(column) {
        Err(_) => Err("Postgres cannot have a column of this name"),
        Ok(()) if column.ends_with('}') => Err("walrelay cannot name a column that ends in a }"),
        Ok(()) => Ok(()),
    }
}

/// A column where a template could stand as well.
fn source(column: &str) -> String {
    let is_template = column.contains(['{', '}']);
    if is_template { format!("{{{}}}", doubled(column)) } else { column.to_owned() }
}

/// Says a format if it is not the default, or not sure.
pub(super) fn format_key(name: &str, format: Format) -> Option<Key> {
    let Format { form, is_doubtful, comments, .. } = format;
    let is_said = form != Form::Text || is_doubtful || !comments.is_empty();
    is_said.then(|| Key::text(name, form.word()).say_all(comments))
}

fn placements(debezium: &mut Debezium) -> Vec<Placement> {
    let Some(given) = debezium.router("table.fields.additional.placement") else {
        return Vec::new();
    };
    let placements = placement::read(&given.value).unwrap_or_else(|mistakes| {
        for what in &mistakes {
            debezium.wrong(&given, what);
        }
        Vec::new()
    });
    for placement in &placements {
        if let Err(what) = check_column(&placement.column) {
            debezium.wrong(&given, &format!("{:?}: {what}", placement.column));
        }
    }
    placements
}

fn topic(debezium: &mut Debezium, routed_by: &str, keys: &mut Vec<Key>) {
    let regex = expression(debezium, "route.topic.regex", "(?<routedByValue>.*)");
    let replacement =
        expression(debezium, "route.topic.replacement", "outbox.event.${routedByValue}");
    match route(routed_by, &regex.value, &replacement.value) {
        Ok(Route::Template(topic)) => keys.push(Key::text("topic", &topic)),
        Ok(Route::Regex(topic)) => {
            keys.push(Key::text("topic", &topic));
            keys.push(Key::text("topic_regex", &regex.value));
            keys.push(Key::text("topic_replacement", &replacement.value));
        }
        Err(reason) => debezium.wrong(&replacement, &reason),
    }
}

/// An option that may have a `$` of its own. Quarkus has expressions in `${}`, too, and takes
/// `\$` and `$$` for one that is none.
fn expression(debezium: &mut Debezium, option: &str, default: &str) -> Given {
    let name = debezium.router_name(option);
    let given = debezium.router(option);
    let mut given = given.unwrap_or(Given { name, value: default.to_owned(), line: None });
    if debezium.is_server() {
        given.value = given.value.replace("\\$", "$").replace("$$", "$");
    }
    given
}

fn partition_and_time(debezium: &mut Debezium, placements: &[Placement], keys: &mut Vec<Key>) {
    let mut of_partition = placements.iter().filter(|it| it.place == Place::Partition);
    if let Some(placement) = of_partition.next_back() {
        let key = Key::text("partition", &placement.column);
        keys.push(if debezium.is_server() {
            let why = "so that the key has decided; with this line events would move";
            key.off().say(format!("{IGNORED}, {why}."))
        } else {
            key
        });
    }
    let Some(column) = optional(debezium, "table.field.event.timestamp") else {
        let what = if debezium.is_server() { "was sent" } else { "was read from Postgres" };
        keys.push(Key::text("timestamp", "").say(format!(
            "Debezium's records bear the time at which a row {what}, walrelay's that of the commit."
        )));
        return;
    };
    let key = Key::text("timestamp", &column);
    keys.push(if debezium.is_server() {
        key.off().say(format!(
            "{IGNORED}, and records bear the time at which they were sent. Without this line they \
             bear that of the commit."
        ))
    } else {
        key.say(
            "Debezium takes timestamp without time zone only; here timestamptz, date, and bigint \
             with milliseconds do as well. NULL is the time of the commit, not of reading.",
        )
    });
}

fn headers(debezium: &mut Debezium, placements: &[Placement], keys: &mut Vec<Key>) {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut comments = Vec::new();
    let extended = debezium.source("extended.headers.enabled");
    if Debezium::flag(extended.as_ref(), true) {
        comments.push(
            "The four headers __debezium.context.*, which Debezium 3.3 and later send first \
             (extended.headers.enabled), are not sent."
                .to_owned(),
        );
    }
    if debezium.router("table.field.event.type").is_some() {
        let name = debezium.router_name("table.field.event.type");
        comments.push(format!("{name} has no effect in Debezium either."));
    }
    for Placement { column, name, .. } in placements.iter().filter(|it| it.place == Place::Header) {
        let is_taken = name == ID_HEADER || pairs.iter().any(|(known, _)| known == name);
        if is_taken {
            comments.push(format!(
                "A second header {name:?}, of the column {column}, is not possible here."
            ));
        } else if name.is_empty() || name.chars().any(char::is_control) {
            comments.push(format!(
                "A header {name:?}, of the column {column}, is not possible here: its name is \
                 empty, or has control characters."
            ));
        } else {
            pairs.push((name.clone(), source(column)));
        }
    }
    keys.push(Key::new("headers", table(&pairs)).say_all(comments));
    keys.extend(format_key("header_format", format::of(debezium, "header")));
    let options = ["tracing.operation.name", "tracing.with.context.field.only"];
    let traces = options.map(|option| debezium.router(option).is_some()).contains(&true);
    let column = optional(debezium, "tracing.span.context.field");
    let column = column.or_else(|| traces.then(|| "tracingspancontext".to_owned()));
    if let Some(column) = column {
        keys.push(Key::text("span_context", &column).say(
            "traceparent and its like go on as they are. walrelay makes no spans of its own, as \
             Debezium does with an OpenTelemetry agent.",
        ));
    }
}

/// What is done about rows that are not as they should be. Returns whether updates are needed.
fn policies(debezium: &mut Debezium, placements: &[Placement], keys: &mut Vec<Key>) -> bool {
    let missing = debezium.router("table.field.additional.missing");
    if debezium.word(missing, &["error", "ignore"]) == "ignore" && !placements.is_empty() {
        keys.push(Key::text("missing_columns", "ignore"));
    }
    let invalid = debezium.router("table.op.invalid.behavior");
    let on_update = debezium.word(invalid, &["warn", "error", "fatal"]);
    match on_update {
        "error" => {
            keys.push(Key::text("on_update", "warn").say("A warning in the log, and no error."));
        }
        "fatal" => keys.push(Key::text("on_update", "halt")),
        _ => {}
    }
    let skipped = debezium.source("skipped.operations");
    let skipped = skipped.map(|given| given.value).unwrap_or_default();
    let skips = |operation: &str| skipped.split(',').any(|it| it.trim() == operation);
    if skips("u") && on_update == "warn" {
        keys.push(Key::text("on_update", "ignore"));
    }
    if skips("c") {
        let name = debezium.source_name("skipped.operations");
        debezium.missing(format!("{name} has c: nothing is sent of what is inserted"));
    }
    if debezium.is_server() {
        return on_update == "fatal";
    }
    let tolerance = debezium.source("errors.tolerance");
    if debezium.word(tolerance, &["none", "all"]) == "all" {
        keys.push(Key::text("on_poison", "skip").say(
            "As with errors.tolerance=all, consumers never see an event that cannot become a \
             record. \"halt\", the default, stays at it and says what is wrong.",
        ));
    }
    on_update == "fatal"
}
