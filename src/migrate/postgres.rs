//! `[postgres]`: where the tables are, and which slot and publication are taken over.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::document::{Key, Section};
use super::options::{Debezium, Given};
use crate::pg::conninfo::Conninfo;
use crate::template::check_identifier;

const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');
/// A path stays readable.
const PATH: &AsciiSet = &PLAIN.remove(b'/');
/// Where nothing else is known, as in most other tools.
const PASSWORD_ENV: &str = "PGPASSWORD";

/// The section, and what taking over depends on.
#[derive(Clone, Debug)]
pub(super) struct Postgres {
    pub(super) section: Section,
    /// Debezium's slot.
    pub(super) slot: String,
    /// Debezium's publication.
    pub(super) publication: String,
    /// Whether Debezium may have made its publication for all tables.
    pub(super) may_be_for_all: bool,
    /// Why the slot is of no use.
    pub(super) no_slot: Option<String>,
    /// Whether somebody else than Debezium confirms the slot.
    pub(super) is_confirmed_elsewhere: bool,
    /// What Debezium sends beside rows, so that its offsets get past the last transaction.
    pub(super) beats: bool,
}

/// What walrelay's own slot and publication are called, if Debezium's are of no use.
pub(super) const OWN: &str = "walrelay";

pub(super) fn translate(debezium: &mut Debezium) -> Postgres {
    let mut section = Section::new("[postgres]");
    section.push(url(debezium));
    if let Some(key) = password(debezium) {
        section.push(key);
    }
    let plugin = debezium.source("plugin.name");
    // Debezium's default.
    let plugin = plugin.map_or_else(|| "decoderbufs".to_owned(), |it| it.text().to_owned());
    let drop = debezium.source("slot.drop.on.stop");
    let drop = Debezium::flag(drop.as_ref(), false);
    let no_slot = if plugin == "pgoutput" {
        let name = debezium.source_name("slot.drop.on.stop");
        drop.then(|| format!("{name} is true, so that it is dropped as soon as Debezium stops"))
    } else {
        Some(format!("it decodes with {plugin}, and walrelay with pgoutput"))
    };
    let slot = name(debezium, "slot.name", "debezium", is_slot);
    let legal = |name: &str| check_identifier(name).is_ok();
    let publication = name(debezium, "publication.name", "dbz_publication", legal);
    let auto = debezium.source("publication.autocreate.mode");
    let auto = auto.map(|given| given.text().to_ascii_lowercase());
    let mode = debezium.peek("lsn.flush.mode");
    let mode = mode.map(|given| given.text().to_ascii_lowercase()).unwrap_or_default();
    let flushes = Debezium::flag(debezium.peek("flush.lsn.source"), true);
    let beat = debezium.peek("heartbeat.interval.ms");
    let beat = beat.and_then(|given| given.text().parse::<u64>().ok()).unwrap_or_default();
    let transactions = Debezium::flag(debezium.peek("provide.transaction.metadata"), false);
    let postgres = Postgres {
        section,
        slot,
        publication,
        may_be_for_all: matches!(auto.as_deref(), None | Some("all_tables")),
        no_slot,
        is_confirmed_elsewhere: mode == "manual" || !flushes,
        beats: beat > 0 || transactions || mode == "connector_and_driver",
    };
    with_names(debezium, postgres)
}

/// Adds slot, publication and what depends on them.
fn with_names(debezium: &mut Debezium, mut postgres: Postgres) -> Postgres {
    let section = &mut postgres.section;
    section.push(match &postgres.no_slot {
        None => Key::text("slot", &postgres.slot),
        Some(why) => Key::text("slot", OWN).say(format!(
            "Not Debezium's slot {}: {why}. How to change over without a gap is said at the end.",
            postgres.slot
        )),
    });
    section.push(if postgres.no_slot.is_some() {
        Key::text("publication", OWN)
    } else if postgres.may_be_for_all {
        Key::text("publication", OWN).say(format!(
            "Not Debezium's publication {}, which may be one of all tables: the first row of a \
             table without an [[outbox]] would halt walrelay. How to make this one is said at the \
             end.",
            postgres.publication
        ))
    } else {
        Key::text("publication", &postgres.publication)
    });
    if postgres.no_slot.is_none() {
        section.push(Key::new("create", "false").say(
            "The slot is there. If its name is wrong here, walrelay says so, and does not make \
             one that begins with the present.",
        ));
    }
    let failover = debezium.source("slot.failover");
    if Debezium::flag(failover.as_ref(), false) {
        section.push(Key::new("failover", "true"));
    }
    postgres
}

fn is_slot(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    check_identifier(name).is_ok() && name.bytes().all(legal)
}

fn name(
    debezium: &mut Debezium,
    option: &str,
    default: &str,
    legal: impl Fn(&str) -> bool,
) -> String {
    let given = debezium.source(option);
    let name = debezium.plain(given.clone(), default).trim().to_owned();
    if let Some(given) = given.filter(|given| !legal(&name) && !given.is_placeholder()) {
        debezium.wrong(&given, &format!("Postgres cannot have this name: {:?}", given.value));
    }
    name
}

fn url(debezium: &mut Debezium) -> Key {
    let mut comments = Vec::new();
    let mut piece = |debezium: &mut Debezium, option: &str, default: &str| {
        let name = debezium.source_name(option);
        match debezium.source(option) {
            Some(given) if given.is_placeholder() => {
                comments.push(format!(
                    "{name} is {}: put its value in the place of {default}, or give the whole URL \
                     as WALRELAY__POSTGRES__URL.",
                    given.text()
                ));
                default.to_owned()
            }
            Some(given) => given.text().to_owned(),
            None => {
                if option != "database.port" {
                    comments
                        .push(format!("The file has no {name}: put it in the place of {default}."));
                }
                default.to_owned()
            }
        }
    };
    let host = piece(debezium, "database.hostname", "localhost");
    let port = piece(debezium, "database.port", "5432");
    let user = piece(debezium, "database.user", "walrelay");
    let database = piece(debezium, "database.dbname", "postgres");
    let host =
        if host.contains(':') && !host.contains([',', '[']) { format!("[{host}]") } else { host };
    let [user, database] =
        [user, database].map(|text| utf8_percent_encode(&text, PLAIN).to_string());
    let mut url = format!("postgres://{user}@{host}:{port}/{database}");
    let parameters = tls(debezium, &mut comments);
    if !parameters.is_empty() {
        url = format!("{url}?{}", parameters.join("&"));
    }
    if let Err(reason) = Conninfo::parse(&url) {
        let name = debezium.source_name("database");
        debezium.missing(format!("{name}.*: no URL can be made of it: {reason}"));
    }
    Key::text("url", &url).say_all(comments)
}

/// The parameters of the URL about TLS.
fn tls(debezium: &mut Debezium, comments: &mut Vec<String>) -> Vec<String> {
    let mut parameters = Vec::new();
    if let Some(given) = debezium.source("database.sslmode") {
        match given.text().to_ascii_lowercase().as_str() {
            "allow" => {
                comments.push(format!(
                    "{} is allow, which begins without TLS; prefer begins with it.",
                    given.name
                ));
                parameters.push("sslmode=prefer".to_owned());
            }
            mode @ ("disable" | "prefer" | "require" | "verify-ca" | "verify-full") => {
                parameters.push(format!("sslmode={mode}"));
            }
            _ if given.is_placeholder() => comments.push(outside(&given)),
            mode => debezium.wrong(&given, &format!("there is no such mode: {mode:?}")),
        }
    }
    let mut files = Vec::new();
    for option in ["sslrootcert", "sslcert", "sslkey"] {
        match debezium.source(&format!("database.{option}")) {
            None => {}
            Some(given) if given.is_placeholder() => comments.push(outside(&given)),
            Some(given) => files.push((option, given.text().to_owned())),
        }
    }
    let has = |option: &str| files.iter().any(|(it, _)| *it == option);
    if has("sslkey") {
        comments.push(
            "Debezium takes the key of the client's certificate in DER (PKCS #8), walrelay in PEM."
                .to_owned(),
        );
    }
    if has("sslcert") != has("sslkey") {
        comments.push("sslcert and sslkey belong together, and one is missing.".to_owned());
        files.retain(|(option, _)| *option == "sslrootcert");
    }
    for (option, path) in files {
        parameters.push(format!("{option}={}", utf8_percent_encode(&path, PATH)));
    }
    if debezium.source("database.sslpassword").is_some() {
        comments.push("The key of the client's certificate must not be encrypted.".to_owned());
    }
    parameters
}

fn outside(given: &Given) -> String {
    format!("{} is {}: add it to the URL.", given.name, given.text())
}

fn password(debezium: &mut Debezium) -> Option<Key> {
    let given = debezium.source("database.password")?;
    let text = given.text();
    let inner = text.strip_prefix("${").and_then(|text| text.strip_suffix('}'));
    let inner = inner.filter(|inner| !inner.contains(['$', '{', '}']));
    let parts: Vec<&str> = inner.map(|inner| inner.split(':').collect()).unwrap_or_default();
    let environment = |name: &str| Key::text("password_env", name);
    let name = &given.name;
    Some(match parts.as_slice() {
        ["env", variable] if is_variable(variable) => environment(variable),
        ["dir", folder, file] => Key::text("password_file", &format!("{folder}/{file}")),
        ["file", path, key] => environment(PASSWORD_ENV).say(format!(
            "{name} is the value of {key} in {path}: put it into this variable, or into a file \
             of its own and name that as password_file."
        )),
        // What Quarkus has behind the colon is the password itself, for want of another.
        [variable] | [variable, _] if debezium.is_server() && is_variable(variable) => {
            environment(variable)
        }
        [] if !given.is_placeholder() => environment(PASSWORD_ENV).say(format!(
            "{name} is in the file itself: put it into this variable, or into a file of its own \
             and name that as password_file."
        )),
        _ => environment(PASSWORD_ENV).say(format!(
            "{name} comes from outside of the file: put it into this variable, or into a file of \
             its own and name that as password_file."
        )),
    })
}

fn is_variable(name: &str) -> bool {
    let upper = |c: char| c.is_ascii_uppercase() || c == '_';
    name.starts_with(upper) && name.chars().all(|c| upper(c) || c.is_ascii_digit())
}
