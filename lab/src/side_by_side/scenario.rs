//! What both relays are given: a table, rows, and how Debezium Server is configured.

use lab::{Database, debezium};

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Debezium,
    Walrelay,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Debezium, Side::Walrelay];

    pub fn name(self) -> &'static str {
        match self {
            Side::Debezium => "Debezium",
            Side::Walrelay => "walrelay",
        }
    }
}

/// Options and the rows that go through them.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// Of the table `outbox`.
    pub columns: &'static str,
    /// Options of Debezium Server, behind `debezium.`.
    pub server: Options,
    /// Options of the event router. The prefix of the topics takes the place of `@`.
    pub router: Options,
    /// Each is a query of its own, and so a transaction unless it says otherwise.
    pub rows: &'static [&'static str],
    /// Where the rows go, without the prefix.
    pub topics: &'static [&'static str],
}

pub type Options = &'static [(&'static str, &'static str)];

/// The router's own default, with a prefix.
const REPLACEMENT: (&str, &str) = ("route.topic.replacement", "@outbox.event.${routedByValue}");
/// The column with the time of a record.
const TIMESTAMP: &str = "table.field.event.timestamp";
const STRINGS: &str = "org.apache.kafka.common.serialization.StringSerializer";
const BYTES: &str = "org.apache.kafka.common.serialization.ByteArraySerializer";

impl Scenario {
    /// The file `application.properties` of Debezium Server. That of the other side, which walrelay
    /// translates, has another slot, another publication and another prefix, and nothing else.
    pub fn properties(
        &self,
        database: &Database,
        brokers: &str,
        slot: &str,
        prefix: &str,
    ) -> String {
        let mut lines = vec![debezium::properties(database, brokers, slot, slot)];
        let binary = self.server.contains(&("format.value", "binary"));
        let serializer =
            ("sink.kafka.producer.value.serializer", if binary { BYTES } else { STRINGS });
        let server = self.server.iter().chain([&serializer]);
        lines.extend(server.map(|(name, value)| line(&format!("debezium.{name}"), value)));
        let routed = self.router.iter().any(|(name, _)| *name == REPLACEMENT.0);
        let default = if routed { None } else { Some(&REPLACEMENT) };
        for (name, value) in self.router.iter().chain(default) {
            let value = value.replace('@', prefix);
            lines.push(line(&format!("debezium.transforms.outbox.{name}"), &value));
        }
        lines.concat()
    }

    /// Whether a column says what time a record bears.
    pub fn has_times(&self) -> bool {
        self.router.iter().any(|(name, _)| *name == TIMESTAMP)
    }
}

/// A backslash is doubled for the file, and `${` has one so that it is no expression of Quarkus.
fn line(name: &str, value: &str) -> String {
    format!("{name}={}\n", value.replace('\\', r"\\").replace("${", r"\\${"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_special_in_the_file_is_escaped() {
        assert_eq!(line("a", r"x\.${b}.$1"), "a=x\\\\.\\\\${b}.$1\n");
    }
}
