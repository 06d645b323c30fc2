//! The effective configuration as TOML, which loads again.

use std::fmt::{Display, Write};

use super::properties::masked;
use super::secret::mask_url;
use super::sections::{GUARANTEES, LOG_FORMATS, LOG_LEVELS, ON_POISON};
use super::value::{bytes, spelled};
use super::{Config, Outbox, PasswordFrom};
use crate::template::{Part, Template};

impl Config {
    /// Every key with the value in effect, secrets masked.
    pub fn to_toml(&self) -> String {
        let mut toml = Toml::default();
        self.print_postgres(&mut toml);
        self.print_kafka(&mut toml);
        self.print_delivery(&mut toml);
        toml.header("[http]");
        toml.text("listen", &self.http.listen.to_string());
        toml.header("[log]");
        toml.text("format", spelled(LOG_FORMATS, &self.log.format));
        toml.text("level", spelled(LOG_LEVELS, &self.log.level));
        for outbox in &self.outboxes {
            outbox.print(&mut toml);
        }
        toml.0
    }

    fn print_postgres(&self, toml: &mut Toml) {
        let postgres = &self.postgres;
        let (file, env) = match &postgres.password_from {
            Some(PasswordFrom::File(path)) => (path.as_str(), ""),
            Some(PasswordFrom::Env(name)) => ("", name.as_str()),
            None => ("", ""),
        };
        toml.header("[postgres]");
        toml.text("url", &mask_url(postgres.url.reveal()));
        toml.text("password_file", file);
        toml.text("password_env", env);
        toml.text("slot", &postgres.slot);
        toml.text("publication", &postgres.publication);
        toml.key("create", postgres.create);
        toml.key("failover", postgres.failover);
        toml.text("status_interval", &duration(postgres.status_interval));
        toml.text("check_interval", &duration(postgres.check_interval));
    }

    fn print_kafka(&self, toml: &mut Toml) {
        let brokers: Vec<String> = self.kafka.brokers.iter().map(|host| quoted(host)).collect();
        toml.header("[kafka]");
        toml.key("brokers", format!("[{}]", brokers.join(", ")));
        toml.header("[kafka.properties]");
        for (name, value) in masked(&self.kafka.properties) {
            toml.text(&quoted(name), value);
        }
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
        let (fixed, filled): (Vec<_>, Vec<_>) =
            self.headers.iter().partition(|(_, template)| template.literal().is_some());
        let table = |pairs: Vec<String>| format!("{{ {} }}", pairs.join(", "));
        let pair = |name: &str, text: &str| format!("{} = {}", quoted(name), quoted(text));
        let filled = filled.into_iter().map(|(name, it)| pair(name, &source(it))).collect();
        let fixed = fixed.into_iter();
        let fixed = fixed.map(|(name, it)| pair(name, &it.literal().unwrap_or_default()));
        let fixed = fixed.collect();
        toml.header("[[outbox]]");
        toml.text("table", &self.table.to_string());
        toml.option("id", self.id.as_ref());
        toml.option("key", self.key.as_ref().map(source).as_ref());
        toml.text("payload", &self.payload);
        toml.key("tombstone_if_blank", self.tombstone_if_blank);
        toml.text("topic", &self.topic.to_string());
        toml.option("partition", self.partition.as_ref());
        toml.option("timestamp", self.timestamp.as_ref());
        toml.key("headers", table(filled));
        toml.key("static_headers", table(fixed));
        toml.text("on_poison", spelled(ON_POISON, &self.on_poison));
        toml.option("dead_letter_topic", self.dead_letter_topic.as_ref());
    }
}

/// A column's name, or a template with braces.
fn source(template: &Template) -> String {
    match template.parts() {
        [Part::Column(name)] if !name.contains(['{', '}']) => name.clone(),
        _ => template.to_string(),
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

    /// `""` stands for nothing.
    fn option(&mut self, name: &str, value: Option<&String>) {
        self.text(name, value.map_or("", String::as_str));
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{line}");
    }
}

/// A basic string of TOML is one of JSON, except that TOML wants DEL escaped as well.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

fn duration(duration: std::time::Duration) -> String {
    humantime::format_duration(duration).to_string()
}
