//! The configuration: what the operator wrote, checked whole, as the values the program uses.
//!
//! Defaults, file and environment are merged into one tree (`layers`); a `reader` walks it key by
//! key (`sections`) and collects every mistake, so that one run shows all of them.

mod cloudevents;
mod layers;
mod message;
mod outbox;
mod print;
mod properties;
mod reader;
mod secret;
mod sections;
mod value;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use std::{env, fmt, fs};

pub use cloudevents::{
    CONTENT_TYPE, CloudEvents, ContentMode, DATA_CONTENT_TYPE, REQUIRED_ATTRIBUTES,
    attribute_header,
};
pub use message::{Content, Message, Prefix};
pub use outbox::{
    Encoding, Envelope, Format, MissingColumns, OnOversize, OnPoison, OnUpdate, Outbox,
    POINTER_HEADER, Payload, SUBJECT_SUFFIX,
};
pub(crate) use print::quoted;
pub use reader::{Mistake, Mistakes};
pub use secret::Secret;

use self::layers::File;
use crate::pg::conninfo::Conninfo;
use crate::pg::setup::{Mapped, Messages, RowFilters, Setup};
use crate::template::{Source, Template};

/// The file that is read when none is named; it need not exist.
pub const DEFAULT_PATH: &str = "walrelay.toml";

/// Everything an operator can decide.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the rows come from.
    pub postgres: Postgres,
    /// Where the records go.
    pub kafka: Kafka,
    /// Where the schemas of payloads are.
    pub registry: Registry,
    /// What is promised on the way.
    pub delivery: Delivery,
    /// Metrics and health.
    pub http: Http,
    /// What is written to standard error.
    pub log: Log,
    /// The outbox tables, no two the same; empty only if there are messages.
    pub outboxes: Vec<Outbox>,
    /// The messages that are events, no two entries of one prefix.
    pub messages: Vec<Message>,
}

/// `[postgres]`
#[derive(Clone, Debug, PartialEq)]
pub struct Postgres {
    /// A `postgres://` URL; it may hold a password.
    pub url: Secret,
    /// The same, read, and with the password of `password_file` or `password_env`.
    pub conninfo: Conninfo,
    /// Where the password was found, if `url` holds none.
    pub password_from: Option<PasswordFrom>,
    /// The replication slot.
    pub slot: String,
    /// The publication that names the outbox tables.
    pub publication: String,
    /// What to make of a publication that leaves out rows.
    pub row_filters: RowFilters,
    /// Whether a first start creates publication and slot.
    pub create: bool,
    /// Whether the slot is there on a standby that is promoted as well.
    pub failover: bool,
    /// The longest time between two reports of progress to Postgres.
    pub status_interval: Duration,
    /// The time between two looks at publication and slot.
    pub check_interval: Duration,
}

/// Where a password was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordFrom {
    /// In the file of this path.
    File(String),
    /// In the environment variable of this name.
    Env(String),
}

/// `[kafka]`
#[derive(Clone, PartialEq)]
pub struct Kafka {
    /// `host:port` of some brokers of the cluster; never empty.
    pub brokers: Vec<String>,
    /// librdkafka's own settings, none of them one of ours; librdkafka itself checks them.
    pub properties: BTreeMap<String, String>,
}

/// `[registry]`
#[derive(Clone, Debug, PartialEq)]
pub struct Registry {
    /// Its `http://` or `https://` URL, without a `/` at its end; without, there is none.
    pub url: Option<String>,
    /// Who asks, if it wants to know.
    pub basic_auth_user: Option<String>,
    /// That user's password, and where it was found.
    pub password: Option<(Secret, PasswordFrom)>,
    /// A PEM file of whom to trust; without, whom the system trusts.
    pub ca_file: Option<String>,
}

/// `[delivery]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What a consumer may rely on.
    pub guarantee: Guarantee,
    /// The compacted topic that remembers how far the relay got.
    pub positions_topic: Option<String>,
    /// The header that tells a consumer the position of a record.
    pub position_header: Option<String>,
    /// The most records sent and not yet acknowledged.
    pub max_in_flight: usize,
    /// The most bytes sent and not yet acknowledged.
    pub max_in_flight_bytes: usize,
    /// How long records in flight may take to settle before the program ends.
    pub shutdown_grace: Duration,
}

/// `delivery.guarantee`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// After a crash the last records may be sent again, in the same order.
    AtLeastOnce,
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The address that metrics and health are served on.
    pub listen: SocketAddr,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// One line for people, or one JSON object for machines.
    pub format: LogFormat,
    /// The least important messages that are written.
    pub level: tracing::Level,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One object a line.
    Json,
}

impl Config {
    /// Reads the file (`None` for [`DEFAULT_PATH`], which may be missing) and the environment.
    pub fn load(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, Mistakes> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        let name = file.display().to_string();
        match fs::read_to_string(file) {
            Ok(text) => Config::parse(&name, &text, env),
            Err(error) if path.is_none() && error.kind() == ErrorKind::NotFound => {
                Config::parse(&name, "", env)
            }
            Err(error) => {
                let message = format!("cannot be read: {error}");
                Err(Mistakes::from(vec![Mistake::new(name, message, None)]))
            }
        }
    }

    /// What there has to be in Postgres for it.
    pub fn setup(&self) -> Setup {
        let Postgres { conninfo, slot, publication, row_filters, create, failover, .. } =
            &self.postgres;
        Setup {
            slot: slot.clone(),
            publication: publication.clone(),
            tables: self.outboxes.iter().map(Outbox::mapped).collect(),
            messages: if self.messages.is_empty() { Messages::Ignored } else { Messages::Read },
            row_filters: *row_filters,
            create: *create,
            failover: *failover,
            accept_gap: false,
            application_name: conninfo.application_name().to_owned(),
        }
    }

    /// As [`load`](Config::load), from the text of a file; `file` is how mistakes call it.
    pub fn parse(
        file: &str,
        text: &str,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, Mistakes> {
        sections::read(File { name: file, text }, &env.into_iter().collect())
    }
}

impl Outbox {
    /// The table and the columns that are taken from it.
    pub(crate) fn mapped(&self) -> Mapped {
        let named = |key: &'static str, column: &str| (key, column.to_owned());
        let one = |key, column: &Option<String>| column.as_ref().map(|column| named(key, column));
        let mut columns: Vec<_> = one("id", &self.id).into_iter().collect();
        let key = self.key.iter().flat_map(Source::columns);
        columns.extend(key.map(|column| named("key", column)));
        columns.extend(self.payload.columns().map(|column| named("payload", column)));
        columns.extend(self.topic.columns().map(|column| named("topic", column)));
        let subject = self.schema_subject.iter().flat_map(Template::columns);
        columns.extend(subject.map(|column| named("schema_subject", column)));
        columns.extend(one("timestamp", &self.timestamp));
        if !self.envelope.members.is_empty() && self.payload_format == Format::JsonWithSchema {
            let schema_name = self.envelope.schema_name.columns();
            columns.extend(schema_name.map(|column| named("schema_name", column)));
            columns.extend(one("schema_version", &self.envelope.schema_version));
        }
        let events = self.cloudevents.filled(self.id.as_deref());
        let (needed, more): (Vec<_>, Vec<_>) = (events.iter())
            .flat_map(|(name, source)| source.columns().map(move |column| (name, column)))
            .partition(|(name, _)| REQUIRED_ATTRIBUTES.contains(&name.as_str()));
        let attribute = |(_, column)| named("cloudevents_attributes", column);
        columns.extend(needed.into_iter().map(attribute));
        let mut optional: Vec<_> = one("partition", &self.partition).into_iter().collect();
        let headers = self.headers.iter().flat_map(|(_, source)| source.columns());
        optional.extend(headers.map(|column| named("headers", column)));
        let members = self.envelope.members.iter();
        optional.extend(members.map(|(_, column)| named("envelope", column)));
        optional.extend(more.into_iter().map(attribute));
        match self.missing_columns {
            MissingColumns::Error => columns.append(&mut optional),
            MissingColumns::Ignore => {}
        }
        optional.extend(one("span_context", &self.span_context));
        Mapped { table: self.table.clone(), columns, optional }
    }
}

/// The environment of the process, for [`Config::load`]. What is not Unicode is made so:
/// [`env::vars`] would panic.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    env::vars_os().map(|(name, value)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    })
}

/// Properties can hold passwords, so not every value is shown.
impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties: BTreeMap<&str, &str> = properties::masked(&self.properties).collect();
        f.debug_struct("Kafka")
            .field("brokers", &self.brokers)
            .field("properties", &properties)
            .finish()
    }
}
