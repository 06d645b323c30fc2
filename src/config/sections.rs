//! The keys of the configuration, section by section: their defaults and their rules.

pub(super) mod cloudevents;
pub(super) mod message;
pub(super) mod outbox;

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use config::Value;

use super::layers::{self, File, Layer};
use super::properties::property;
use super::reader::{Mistake, Mistakes, Reader, Walk};
use super::value::{
    Words, address, brokers, check_header, check_slot, checked, duration, flag, optional, size,
    text, whole, word,
};
use super::{
    Config, Delivery, Encoding, Guarantee, Http, Kafka, Log, LogFormat, PasswordFrom, Postgres,
    Registry, Secret,
};
use crate::pg::conninfo::Conninfo;
use crate::pg::setup::RowFilters;
use crate::template::{Subject, check_identifier, check_topic};

/// What a key means that neither file nor environment gives. `postgres.url` and `kafka.brokers`
/// have no default.
const DEFAULTS: &str = r#"
outbox = []
message = []

[postgres]
password_file = ""
password_env = ""
slot = "walrelay"
publication = "walrelay"
row_filters = "refuse"
create = true
failover = false
status_interval = "1s"
check_interval = "5s"

[kafka]
properties = {}

[registry]
url = ""
basic_auth_user = ""
password_file = ""
password_env = ""
ca_file = ""

[delivery]
guarantee = "at_least_once"
positions_topic = "__walrelay_positions"
position_header = "walrelay-position"
max_in_flight = 50000
max_in_flight_bytes = "32MiB"
shutdown_grace = "10s"

[http]
listen = "0.0.0.0:9187"

[log]
format = "text"
level = "info"
"#;

/// The upper end stays below a third of the `wal_sender_timeout` of our session, 30 s, so that
/// Postgres never takes a relay for dead that is only busy.
const STATUS_INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(10);
const CHECK_INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const SHUTDOWN_GRACE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(300);
const MAX_IN_FLIGHT: RangeInclusive<usize> = 1..=1_000_000;
const MAX_IN_FLIGHT_BYTES: RangeInclusive<ByteSize> = ByteSize::mib(1)..=ByteSize::gib(4);

pub(super) const ROW_FILTERS: &Words<RowFilters> =
    &[("refuse", Some(RowFilters::Refuse)), ("allow", Some(RowFilters::Allow))];
pub(super) const GUARANTEES: &Words<Guarantee> =
    &[("at_least_once", Some(Guarantee::AtLeastOnce)), ("exactly_once", None)];
pub(super) const LOG_FORMATS: &Words<LogFormat> =
    &[("text", Some(LogFormat::Text)), ("json", Some(LogFormat::Json))];
pub(super) const LOG_LEVELS: &Words<tracing::Level> = &[
    ("error", Some(tracing::Level::ERROR)),
    ("warn", Some(tracing::Level::WARN)),
    ("info", Some(tracing::Level::INFO)),
    ("debug", Some(tracing::Level::DEBUG)),
    ("trace", Some(tracing::Level::TRACE)),
];

type Environment = BTreeMap<String, String>;

/// Merges the layers and reads all sections.
pub(super) fn read(file: File<'_>, env: &Environment) -> Result<Config, Mistakes> {
    let defaults = Layer::of_toml(File { name: "defaults", text: DEFAULTS })?;
    let outbox_defaults = Layer::of_toml(File { name: "defaults", text: outbox::DEFAULTS })?;
    let message_defaults = message::Defaults::new()?;
    let tree = layers::merge(defaults, Layer::of_toml(file)?, env)
        .map_err(|error| vec![Mistake::new(file.name, error.to_string(), None)])?;
    let mut walk = Walk::default();
    let root = Reader::root(tree, &mut walk);
    let config = sections(root, &outbox_defaults, &message_defaults, env);
    let mistakes = walk.end();
    match config {
        Some(config) if mistakes.is_empty() => Ok(config),
        _ => Err(Mistakes::from(mistakes)),
    }
}

fn sections(
    mut root: Reader<'_>,
    outbox_defaults: &Layer,
    message_defaults: &message::Defaults,
    env: &Environment,
) -> Option<Config> {
    let postgres = root.section("postgres", |section| postgres(section, env));
    let kafka = root.section("kafka", kafka);
    let delivery = root.section("delivery", delivery);
    let http = root.section("http", http);
    let log = root.section("log", log);
    let position_header = delivery.as_ref().and_then(|d| d.position_header.as_deref());
    let (mut tables, mut prefixes) = (BTreeMap::new(), BTreeMap::new());
    // Without a word of either, there is one outbox with the defaults.
    let or_one = !root.has_entries("message");
    let outboxes = root.sections("outbox", "table", or_one, |index, mut section| {
        section.lay_under(outbox_defaults);
        let subject = Subject::Row;
        let outbox = outbox::read(index, &mut section, position_header, &mut tables, subject);
        section.finish();
        outbox
    });
    let messages = root.sections("message", "prefix", false, |index, section| {
        message::read(index, section, message_defaults, position_header, &mut prefixes)
    });
    let encodes = |encoding: Option<Encoding>| encoding.is_some();
    let rows = outboxes.iter().flatten().any(|outbox| encodes(outbox.encoding));
    let is_needed =
        rows || messages.iter().flatten().any(|message| encodes(message.mapping.encoding));
    let registry = root.section("registry", |section| registry(section, env, is_needed));
    root.finish();
    Some(Config {
        postgres: postgres?,
        kafka: kafka?,
        registry: registry?,
        delivery: delivery?,
        http: http?,
        log: log?,
        outboxes: outboxes?,
        messages: messages?,
    })
}

fn postgres(mut section: Reader<'_>, env: &Environment) -> Option<Postgres> {
    let (url, conninfo) = section.read("url", url).unzip();
    let password = password(&mut section, env);
    let slot = section.read("slot", checked(check_slot));
    let publication = section.read("publication", checked(check_identifier));
    let row_filters = section.read("row_filters", word(ROW_FILTERS));
    let create = section.read("create", flag);
    let failover = section.read("failover", flag);
    let status_interval = section.read("status_interval", duration(STATUS_INTERVAL));
    let check_interval = section.read("check_interval", duration(CHECK_INTERVAL));

    if password.is_some() && conninfo.as_ref().is_some_and(Conninfo::has_password) {
        section.mistake("url", "holds a password, and another one is set; keep one of them");
    }
    section.finish();
    let (password, password_from) = password.unzip();
    let conninfo = match password {
        Some(password) => conninfo?.with_password(password.reveal()),
        None => conninfo?,
    };
    Some(Postgres {
        url: url?,
        conninfo,
        password_from,
        slot: slot?,
        publication: publication?,
        row_filters: row_filters?,
        create: create?,
        failover: failover?,
        status_interval: status_interval?,
        check_interval: check_interval?,
    })
}

fn kafka(mut section: Reader<'_>) -> Option<Kafka> {
    let brokers = section.read("brokers", brokers);
    let properties = section.pairs("properties", property);
    section.finish();
    Some(Kafka { brokers: brokers?, properties: properties?.into_iter().collect() })
}

fn registry(mut section: Reader<'_>, env: &Environment, is_needed: bool) -> Option<Registry> {
    let url = section.read("url", optional(check_http_url));
    if is_needed && matches!(url, Some(None)) {
        section.mistake("url", "required; a payload_format asks for schemas");
    }
    let user = section.read("basic_auth_user", optional(|_| Ok(())));
    let password = password(&mut section, env);
    let ca_file = section.read("ca_file", optional(|_| Ok(())));
    if password.is_some() && matches!(user, Some(None)) {
        section.mistake("basic_auth_user", "there is a password, and nobody whose it is");
    }
    section.finish();
    let url = url?.map(|url| url.trim_end_matches('/').to_owned());
    Some(Registry { url, basic_auth_user: user?, password, ca_file: ca_file? })
}

fn delivery(mut section: Reader<'_>) -> Option<Delivery> {
    let guarantee = section.read("guarantee", word(GUARANTEES));
    let positions_topic = section.read("positions_topic", optional(check_topic));
    let position_header = section.read("position_header", optional(check_header));
    let max_in_flight = section.read("max_in_flight", whole(MAX_IN_FLIGHT));
    let max_in_flight_bytes = section.read("max_in_flight_bytes", size(MAX_IN_FLIGHT_BYTES));
    let shutdown_grace = section.read("shutdown_grace", duration(SHUTDOWN_GRACE));
    section.finish();
    Some(Delivery {
        guarantee: guarantee?,
        positions_topic: positions_topic?,
        position_header: position_header?,
        max_in_flight: max_in_flight?,
        max_in_flight_bytes: max_in_flight_bytes?,
        shutdown_grace: shutdown_grace?,
    })
}

fn http(mut section: Reader<'_>) -> Option<Http> {
    let listen = section.read("listen", address);
    section.finish();
    Some(Http { listen: listen? })
}

fn log(mut section: Reader<'_>) -> Option<Log> {
    let format = section.read("format", word(LOG_FORMATS));
    let level = section.read("level", word(LOG_LEVELS));
    section.finish();
    Some(Log { format: format?, level: level? })
}

fn url(value: &Value) -> Result<(Secret, Conninfo), String> {
    let url = text(value).map_err(|_| "expected text".to_owned())?;
    // Says nothing of what the URL holds: there may be a password in it.
    Conninfo::parse(url).map(|conninfo| (Secret::new(url), conninfo))
}

/// A password, and where it was found.
type Password = Option<(Secret, PasswordFrom)>;

/// What `password_file` or `password_env` have.
fn password(section: &mut Reader<'_>, env: &Environment) -> Password {
    let from_file = section.read("password_file", password_from_file).flatten();
    let from_env = section.read("password_env", |value| password_from_env(value, env)).flatten();
    if from_file.is_some() && from_env.is_some() {
        section.mistake("password_env", "password_file is set as well; keep one of them");
    }
    from_file.or(from_env)
}

/// Says nothing of what the URL holds: there may be a password in it.
fn check_http_url(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    match rest.map(|rest| rest.split('/').next().unwrap_or_default()) {
        Some(host) if host.contains('@') => {
            Err("holds a user; set basic_auth_user and password_file or password_env instead"
                .to_owned())
        }
        Some(host) if !host.is_empty() && !url.contains(['?', '#', ' ']) => Ok(()),
        _ => Err("expected a URL like \"http://registry:8081\"".to_owned()),
    }
}

fn password_from_file(value: &Value) -> Result<Password, String> {
    let path = text(value)?;
    if path.is_empty() {
        return Ok(None);
    }
    let content =
        fs::read_to_string(path).map_err(|error| format!("{path:?} cannot be read: {error}"))?;
    // Editors and `echo` end a file with a newline that is no part of the password.
    let line = content.strip_suffix('\n').unwrap_or(&content);
    match line.strip_suffix('\r').unwrap_or(line) {
        "" => Err(format!("{path:?} is empty")),
        password => Ok(Some((Secret::new(password), PasswordFrom::File(path.to_owned())))),
    }
}

fn password_from_env(value: &Value, env: &Environment) -> Result<Password, String> {
    let name = text(value)?;
    if name.is_empty() {
        return Ok(None);
    }
    match env.get(name).map(String::as_str) {
        // The name is not repeated: it may be the password itself, put here by mistake.
        None => Err("names an environment variable that is not set".to_owned()),
        Some("") => Err("names an environment variable that is empty".to_owned()),
        Some(password) => Ok(Some((Secret::new(password), PasswordFrom::Env(name.to_owned())))),
    }
}
