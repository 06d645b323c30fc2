//! The effective configuration as TOML, which loads again.

use std::fmt::{Display, Write};

use super::properties::masked;
use super::secret::mask_url;
use super::sections::cloudevents::MODES;
use super::sections::message::CONTENTS;
use super::sections::outbox::{
    FORMATS, MISSING_COLUMNS, ON_OVERSIZE, ON_POISON, ON_UPDATE, PAYLOAD_FORMATS, WHOLE_ROW,
};
use super::sections::{GUARANTEES, LOG_FORMATS, LOG_LEVELS, ROW_FILTERS};
use super::value::{bytes, spelled};
use super::{Config, Message, Outbox, PasswordFrom, Payload};
use crate::rewrite::Rewrite;
use crate::template::{Source, Template};

impl Config {
    /// Every key with the value in effect, secrets masked.
    pub fn to_toml(&self) -> String {
        let mut toml = Toml::default();
        self.print_postgres(&mut toml);
        self.print_kafka(&mut toml);
        self.print_registry(&mut toml);
        self.print_delivery(&mut toml);
        toml.header("[http]");
        toml.text("listen", &self.http.listen.to_string());
        toml.header("[log]");
        toml.text("format", spelled(LOG_FORMATS, &self.log.format));
        toml.text("level", spelled(LOG_LEVELS, &self.log.level));
        for outbox in &self.outboxes {
            outbox.print(&mut toml);
        }
        for message in &self.messages {
            message.print(&mut toml);
        }
        toml.0
    }

    fn print_postgres(&self, toml: &mut Toml) {
        let postgres = &self.postgres;
        toml.header("[postgres]");
        toml.text("url", &mask_url(postgres.url.reveal()));
        toml.password(postgres.password_from.as_ref());
        toml.text("slot", &postgres.slot);
        toml.text("publication", &postgres.publication);
        toml.text("row_filters", spelled(ROW_FILTERS, &postgres.row_filters));
        toml.key("create", postgres.create);
        toml.key("failover", postgres.failover);
        toml.text("status_interval", &duration(postgres.status_interval));
        toml.text("check_interval", &duration(postgres.check_interval));
    }

    fn print_kafka(&self, toml: &mut Toml) {
        toml.header("[kafka]");
        toml.list("brokers", &self.kafka.brokers);
        toml.header("[kafka.properties]");
        for (name, value) in masked(&self.kafka.properties) {
            toml.text(&quoted(name), value);
        }
    }

    fn print_registry(&self, toml: &mut Toml) {
        let registry = &self.registry;
        toml.header("[registry]");
        toml.option("url", registry.url.as_ref());
        toml.option("basic_auth_user", registry.basic_auth_user.as_ref());
        toml.password(registry.password.as_ref().map(|(_, from)| from));
        toml.option("ca_file", registry.ca_file.as_ref());
    }

    fn print_delivery(&self, toml: &mut Toml) {
        let delivery = &self.delivery;
        toml.header("[delivery]");
        toml.text("guarantee", spelled(GUARANTEES, &delivery.guarantee));
        toml.option("positions_topic", delivery.positions_topic.as_ref());
        toml.option("position_header", delivery.position_header.as_ref());
        toml.key("max_in_flight", delivery.max_in_flight);
        toml.text("max_in_flight_bytes", &bytes(delivery.max_in_flight_bytes as u64));
        toml.text("shutdown_grace", &duration(delivery.shutdown_grace));
    }
}

impl Outbox {
    fn print(&self, toml: &mut Toml) {
        toml.header("[[outbox]]");
        toml.text("table", &self.table.to_string());
        self.print_value(toml);
        toml.pairs("envelope", self.envelope.members.iter().cloned());
        toml.text("schema_name", &self.envelope.schema_name.to_string());
        toml.option("schema_version", self.envelope.schema_version.as_ref());
        self.print_rest(toml);
        toml.text("cloudevents", spelled(MODES, &self.cloudevents.mode));
        let attributes = self.cloudevents.attributes.iter();
        let attributes = attributes.map(|(name, source)| (name.clone(), source.to_string()));
        toml.pairs("cloudevents_attributes", attributes);
        toml.text("missing_columns", spelled(MISSING_COLUMNS, &self.missing_columns));
        toml.text("on_update", spelled(ON_UPDATE, &self.on_update));
        self.print_poison(toml);
        toml.text("on_oversize", spelled(ON_OVERSIZE, &self.on_oversize));
    }

    fn print_value(&self, toml: &mut Toml) {
        toml.option("id", self.id.as_ref());
        toml.option("key", self.key.as_ref().map(Source::to_string).as_ref());
        toml.text("key_format", spelled(FORMATS, &self.key_format));
        match &self.payload {
            Payload::Column(column) => toml.text("payload", column),
            Payload::Columns(columns) => toml.list("payload", columns),
            Payload::Row => toml.text("payload", WHOLE_ROW),
        }
        let format = (self.payload_format, self.encoding);
        toml.text("payload_format", spelled(PAYLOAD_FORMATS, &format));
        toml.option(
            "schema_subject",
            self.schema_subject.as_ref().map(Template::to_string).as_ref(),
        );
        toml.key("tombstone_if_blank", self.tombstone_if_blank);
    }

    fn print_rest(&self, toml: &mut Toml) {
        let headers = self.headers.iter().map(|(name, source)| (name, source.to_string()));
        toml.text("topic", &self.topic.to_string());
        let rewrite = self.topic_rewrite.as_ref();
        toml.text("topic_regex", rewrite.map_or("", Rewrite::regex));
        toml.text("topic_replacement", rewrite.map_or("", Rewrite::replacement));
        toml.option("partition", self.partition.as_ref());
        toml.option("timestamp", self.timestamp.as_ref());
        toml.option("span_context", self.span_context.as_ref());
        toml.pairs("headers", headers.map(|(name, text)| (name.clone(), text)));
        toml.text("header_format", spelled(FORMATS, &self.header_format));
        toml.pairs("static_headers", self.static_headers.iter().cloned());
    }

    fn print_poison(&self, toml: &mut Toml) {
        toml.text("on_poison", spelled(ON_POISON, &self.on_poison));
        toml.option("dead_letter_topic", self.dead_letter_topic.as_ref());
    }
}

impl Message {
    fn print(&self, toml: &mut Toml) {
        toml.header("[[message]]");
        toml.text("prefix", &self.prefix.to_string());
        toml.text("content", spelled(CONTENTS, &self.content));
        self.mapping.print_value(toml);
        self.mapping.print_rest(toml);
        self.mapping.print_poison(toml);
    }
}

/// A document in the making.
#[derive(Default)]
struct Toml(String);

impl Toml {
    fn header(&mut self, header: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        self.line(format_args!("{gap}{header}"));
    }

    fn key(&mut self, name: &str, value: impl Display) {
        self.line(format_args!("{name} = {value}"));
    }

    fn text(&mut self, name: &str, value: &str) {
        self.key(name, quoted(value));
    }

    fn list(&mut self, name: &str, texts: &[String]) {
        let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
        self.key(name, format!("[{}]", texts.join(", ")));
    }

    /// `""` stands for nothing.
    fn option(&mut self, name: &str, value: Option<&String>) {
        self.text(name, value.map_or("", String::as_str));
    }

    /// Where a password is found.
    fn password(&mut self, from: Option<&PasswordFrom>) {
        let (file, env) = match from {
            Some(PasswordFrom::File(path)) => (path.as_str(), ""),
            Some(PasswordFrom::Env(name)) => ("", name.as_str()),
            None => ("", ""),
        };
        self.text("password_file", file);
        self.text("password_env", env);
    }

    fn pairs(&mut self, name: &str, pairs: impl Iterator<Item = (String, String)>) {
        let pairs = pairs.map(|(name, text)| format!("{} = {}", quoted(&name), quoted(&text)));
        let pairs = pairs.collect::<Vec<_>>().join(", ");
        let pairs = if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {pairs} }}") };
        self.key(name, pairs);
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{line}");
    }
}

/// A basic string of TOML is one of JSON, except that TOML wants DEL escaped as well.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

fn duration(duration: std::time::Duration) -> String {
    humantime::format_duration(duration).to_string()
}
