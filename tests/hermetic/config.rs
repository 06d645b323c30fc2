use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use walrelay::config::{
    Config, Content, Guarantee, LogFormat, Mistakes, OnOversize, OnPoison, PasswordFrom, Payload,
};
use walrelay::init::create_table;
use walrelay::pg::conninfo::Conninfo;
use walrelay::pg::setup::Messages;
use walrelay::pg::table::TableName;
use walrelay::template::Source;

const REQUIRED: [(&str, &str); 2] =
    [("postgres.url", "'postgres://walrelay@db/app'"), ("kafka.brokers", "['kafka:9092']")];

const NO_ENV: [(&str, &str); 0] = [];

fn column(name: &str) -> Source {
    Source::Column(name.to_owned())
}

fn parse<const N: usize>(text: &str, env: [(&str, &str); N]) -> Result<Config, Mistakes> {
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Config::parse("walrelay.toml", text, env.map(pair))
}

/// A document with the required keys and one more key (a value of its own for a required one). It
/// may be one of the first outbox or message.
fn document(key: &str, value: &str) -> String {
    let required = REQUIRED.iter().filter(|(name, _)| *name != key);
    let required: Vec<_> = required.map(|(name, value)| format!("{name} = {value}")).collect();
    let required = required.join("\n");
    match key.split_once("[0].") {
        Some(("message", key)) if key != "prefix" => {
            format!("{required}\n[[message]]\n{key} = {value}\nprefix = 'p'\n")
        }
        Some((list, key)) => format!("{required}\n[[{list}]]\n{key} = {value}\n"),
        None => format!("{required}\n{key} = {value}\n"),
    }
}

fn good(key: &str, value: &str) -> Config {
    parse(&document(key, value), NO_ENV).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn with_env<const N: usize>(env: [(&str, &str); N]) -> Config {
    parse(&document("log.level", "'info'"), env).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn mistakes<const N: usize>(text: &str, env: [(&str, &str); N]) -> Vec<String> {
    parse(text, env).unwrap_err().iter().map(ToString::to_string).collect()
}

const FORMATS: &str = "expected \"string\", \"json\" or \"json_with_schema\", got \"avro\"";
const PAYLOAD_FORMATS: &str = "expected \"string\", \"json\", \"json_with_schema\", \"avro\", \
                               \"protobuf\" or \"json_schema\", got \"xml\"";
const NO_SUBJECT: &str = "payload_format has no use for a schema";
const NO_URL: &str = "expected a URL like \"http://registry:8081\"";
const NO_PREFIX: &str = "expected a prefix, like \"orders\", or \"orders.*\" for all that begin \
                         so, got \"\"";
const NO_REGEX: &str = "\"(a)(\" is no regular expression: Parsing error at position 4: \
                        Opening parenthesis without closing parenthesis";

const EVENT_MODES: &str = "expected \"\", \"binary\" or \"structured\", got \"batch\"";
const EVENT_HEADER: &str = "the key \"cloudevents\" has this header already";
const POINTS: &str = "the key \"on_oversize\" has this header already";

/// For every key: a wrong value, and what is said about it.
const WRONG: &[(&str, &str, &str)] = &[
    ("postgres.url", "5", "expected text"),
    ("postgres.url", "''", "it does not begin with postgres:// or postgresql://"),
    ("postgres.url", "'db:5432'", "it does not begin with postgres:// or postgresql://"),
    ("postgres.url", "'postgres://db/app'", "it names no user"),
    (
        "postgres.url",
        "'postgres://u@db/app?sslmode=on'",
        "sslmode: \"on\" is not one of disable, prefer, require, verify-ca, verify-full",
    ),
    ("postgres.password_file", "true", "expected text, got true"),
    (
        "postgres.password_file",
        "'/nowhere/password'",
        "\"/nowhere/password\" cannot be read: No such file or directory (os error 2)",
    ),
    ("postgres.password_file", "'/dev/null'", "\"/dev/null\" is empty"),
    ("postgres.password_env", "'PGPASSWORD'", "names an environment variable that is not set"),
    (
        "postgres.slot",
        "'My-Slot'",
        "expected 1 to 63 lower-case letters, digits and \"_\", got \"My-Slot\"",
    ),
    ("postgres.slot", "''", "expected 1 to 63 lower-case letters, digits and \"_\", got \"\""),
    ("postgres.slot", "5", "expected text, got 5"),
    ("postgres.publication", "''", "expected a name of 1 to 63 bytes without NUL, got \"\""),
    (
        "postgres.publication",
        "\"a\\u0000\"",
        "expected a name of 1 to 63 bytes without NUL, got \"a\\0\"",
    ),
    ("postgres.row_filters", "'ignore'", "expected \"refuse\" or \"allow\", got \"ignore\""),
    ("postgres.create", "'yes'", "expected true or false, got \"yes\""),
    (
        "postgres.status_interval",
        "'11s'",
        "expected a time from 100ms to 10s, like \"1s\", got \"11s\"",
    ),
    (
        "postgres.status_interval",
        "'99ms'",
        "expected a time from 100ms to 10s, like \"1s\", got \"99ms\"",
    ),
    ("postgres.status_interval", "1", "expected a time from 100ms to 10s, like \"1s\", got 1"),
    ("postgres.failover", "1", "expected true or false, got 1"),
    (
        "postgres.check_interval",
        "'500ms'",
        "expected a time from 1s to 1h, like \"1s\", got \"500ms\"",
    ),
    ("kafka.brokers", "[]", "expected at least one host:port, like [\"kafka:9092\"]"),
    ("kafka.brokers", "5", "expected a list of host:port, like [\"kafka:9092\"], got 5"),
    ("kafka.brokers", "['kafka']", "expected host:port, like \"kafka:9092\", got \"kafka\""),
    ("kafka.brokers", "'a:1,,b:1'", "expected host:port, like \"kafka:9092\", got \"\""),
    ("kafka.brokers", "['k:0']", "expected host:port, like \"kafka:9092\", got \"k:0\""),
    ("kafka.brokers", "['k:65536']", "expected host:port, like \"kafka:9092\", got \"k:65536\""),
    ("kafka.brokers", "['::1:9092']", "expected host:port, like \"kafka:9092\", got \"::1:9092\""),
    ("kafka.brokers", "[9092]", "expected host:port, like \"kafka:9092\", got 9092"),
    ("kafka.properties", "'x=y'", "expected a table, got text"),
    ("kafka.properties.x", "[1]", "expected text, a number, true or false, got a list"),
    ("kafka.properties.\"a b\"", "1", "is not the name of a librdkafka property"),
    ("registry.url", "5", "expected text, got 5"),
    ("registry.url", "'registry:8081'", NO_URL),
    ("registry.url", "'http://'", NO_URL),
    ("registry.url", "'http://r?a=b'", NO_URL),
    (
        "registry.url",
        "'http://u:hunter2@r'",
        "holds a user; set basic_auth_user and password_file or password_env instead",
    ),
    ("registry.basic_auth_user", "5", "expected text, got 5"),
    ("registry.password_file", "'/dev/null'", "\"/dev/null\" is empty"),
    ("registry.password_env", "'PGPASSWORD'", "names an environment variable that is not set"),
    ("registry.ca_file", "5", "expected text, got 5"),
    (
        "delivery.guarantee",
        "'exactly_once'",
        "\"exactly_once\" is not supported by this version; use \"at_least_once\"",
    ),
    ("delivery.guarantee", "'none'", "expected \"at_least_once\", got \"none\""),
    (
        "delivery.positions_topic",
        "'a b'",
        "' ' is not allowed in a topic name (only letters, digits, \".\", \"_\" and \"-\")",
    ),
    ("delivery.positions_topic", "'..'", "\"..\" cannot be a topic name"),
    (
        "delivery.position_header",
        "\"a\\tb\"",
        "expected a name without control characters, got \"a\\tb\"",
    ),
    ("delivery.max_in_flight", "'many'", "expected a whole number from 1 to 1000000, got \"many\""),
    ("delivery.max_in_flight", "0", "expected a whole number from 1 to 1000000, got 0"),
    ("delivery.max_in_flight", "1.5", "expected a whole number from 1 to 1000000, got 1.5"),
    (
        "delivery.max_in_flight",
        "99999999999999999999",
        "expected a whole number from 1 to 1000000, got \"99999999999999999999\"",
    ),
    (
        "delivery.max_in_flight_bytes",
        "1000",
        "expected a size from 1MiB to 4GiB, like \"32MiB\", got 1000",
    ),
    (
        "delivery.max_in_flight_bytes",
        "'5GiB'",
        "expected a size from 1MiB to 4GiB, like \"32MiB\", got \"5GiB\"",
    ),
    ("delivery.shutdown_grace", "'6m'", "expected a time from 0s to 5m, like \"1s\", got \"6m\""),
    ("delivery.shutdown_grace", "[]", "expected a time from 0s to 5m, like \"1s\", got a list"),
    (
        "http.listen",
        "'localhost:80'",
        "expected an IP address and a port, like \"0.0.0.0:9187\", got \"localhost:80\"",
    ),
    ("log.format", "'xml'", "expected \"text\" or \"json\", got \"xml\""),
    (
        "log.level",
        "'loud'",
        "expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\", got \"loud\"",
    ),
    (
        "outbox",
        "'x'",
        "expected a list of tables ([[outbox]], or WALRELAY__OUTBOX__0__TABLE and so on), got text",
    ),
    ("outbox", "[5]", "expected a table, got a number"),
    (
        "outbox[0].table",
        "'a.b.c'",
        "expected a table, like public.outbox or \"My Schema\".\"Outbox\", got \"a.b.c\"",
    ),
    ("outbox[0].id", "5", "expected text, got 5"),
    ("outbox[0].key", "\"\\u0000\"", "expected a name of 1 to 63 bytes without NUL, got \"\\0\""),
    ("outbox[0].key", "'{a'", "\"{\" without a \"}\" after it"),
    ("outbox[0].payload", "''", "expected a name of 1 to 63 bytes without NUL, got \"\""),
    ("outbox[0].payload", "5", "expected a column, a list of columns or \"*\", got 5"),
    ("outbox[0].payload", "[]", "expected at least one column; \"*\" stands for all"),
    ("outbox[0].payload", "['a', 5]", "expected text, got 5"),
    ("outbox[0].payload", "['a', 'b', 'a']", "column a is there twice"),
    ("outbox[0].payload", "'a,,b'", "expected a name of 1 to 63 bytes without NUL, got \"\""),
    ("outbox[0].tombstone_if_blank", "'x'", "expected true or false, got \"x\""),
    (
        "outbox[0].topic",
        "'a/{b}'",
        "'/' is not allowed in a topic name (only letters, digits, \".\", \"_\" and \"-\")",
    ),
    ("outbox[0].key_format", "'avro'", FORMATS),
    ("outbox[0].payload_format", "'xml'", PAYLOAD_FORMATS),
    ("outbox[0].schema_subject", "'{type}'", NO_SUBJECT),
    ("outbox[0].header_format", "'avro'", FORMATS),
    ("outbox[0].envelope", "'x'", "expected a table, got text"),
    ("outbox[0].envelope.payload", "'x'", "the payload has this member already"),
    ("outbox[0].envelope.x", "''", "expected a name of 1 to 63 bytes without NUL, got \"\""),
    ("outbox[0].schema_name", "'{a'", "\"{\" without a \"}\" after it"),
    ("outbox[0].schema_version", "5", "expected text, got 5"),
    ("outbox[0].topic_regex", "'(a)('", NO_REGEX),
    ("outbox[0].topic_replacement", "'x'", "there is no topic_regex whose find it would replace"),
    ("outbox[0].partition", "5", "expected text, got 5"),
    ("outbox[0].span_context", "5", "expected text, got 5"),
    ("outbox[0].timestamp", "5", "expected text, got 5"),
    ("outbox[0].cloudevents", "'batch'", EVENT_MODES),
    ("outbox[0].cloudevents_attributes", "'x'", "expected a table, got text"),
    ("outbox[0].cloudevents_attributes.subject", "5", "expected text, got 5"),
    (
        "outbox[0].cloudevents_attributes.subject",
        "''",
        "expected a name of 1 to 63 bytes without NUL, got \"\"",
    ),
    ("outbox[0].cloudevents_attributes.source", "'/{a'", "\"{\" without a \"}\" after it"),
    ("outbox[0].cloudevents_attributes.specversion", "'1.0'", "it is always 1.0; leave it out"),
    ("outbox[0].cloudevents_attributes.data", "'x'", "it is the payload; leave it out"),
    (
        "outbox[0].cloudevents_attributes.partitionKey",
        "'x'",
        "expected the name of an attribute, 1 to 20 lower-case letters and digits, got \
         \"partitionKey\"",
    ),
    ("outbox[0].headers.ce_id", "'x'\ncloudevents = 'binary'", EVENT_HEADER),
    ("outbox[0].headers.content-type", "'x'\ncloudevents = 'structured'", EVENT_HEADER),
    ("outbox[0].static_headers.ce_time", "'x'\ncloudevents = 'binary'", EVENT_HEADER),
    ("outbox[0].headers", "['type']", "expected a table, got a list"),
    ("outbox[0].headers.kind", "5", "expected text, got 5"),
    ("outbox[0].headers.kind", "''", "expected a name of 1 to 63 bytes without NUL, got \"\""),
    ("outbox[0].headers.id", "'x'", "the column of the key \"id\" has this header already"),
    (
        "outbox[0].headers.x",
        "'{$lsn}'",
        "{$lsn} is none of {$schema}, {$table}, {$xid}, {$commit_lsn}, {$commit_time}, \
         {$commit_time_iso}",
    ),
    (
        "outbox[0].headers.walrelay-position",
        "'x'",
        "delivery.position_header has this header already",
    ),
    ("outbox[0].static_headers", "5", "expected a table, got a number"),
    ("outbox[0].static_headers.id", "'x'", "the column of the key \"id\" has this header already"),
    ("outbox[0].static_headers.eventType", "'x'", "the key \"headers\" has this header already"),
    ("outbox[0].missing_columns", "'no'", "expected \"error\" or \"ignore\", got \"no\""),
    ("outbox[0].on_update", "'fatal'", "expected \"ignore\", \"warn\" or \"halt\", got \"fatal\""),
    (
        "outbox[0].on_poison",
        "'ignore'",
        "expected \"halt\", \"dead_letter\" or \"skip\", got \"ignore\"",
    ),
    ("outbox[0].dead_letter_topic", "'.'", "\".\" cannot be a topic name"),
    ("outbox[0].on_oversize", "'skip'", "expected \"poison\" or \"pointer\", got \"skip\""),
    (
        "outbox[0].on_oversize",
        "'pointer'\nid = ''",
        "a pointer tells the id of its row, and the key \"id\" names no column; set id, or \
         on_oversize = \"poison\"",
    ),
    ("outbox[0].headers.walrelay-pointer", "'x'\non_oversize = 'pointer'", POINTS),
    ("outbox[0].static_headers.walrelay-pointer", "'x'\non_oversize = 'pointer'", POINTS),
    (
        "message",
        "'x'",
        "expected a list of tables ([[message]], or WALRELAY__MESSAGE__0__PREFIX and so on), got \
         text",
    ),
    ("message[0].prefix", "5", "expected text, got 5"),
    ("message[0].prefix", "''", NO_PREFIX),
    ("message[0].content", "'avro'", "expected \"json\" or \"raw\", got \"avro\""),
    ("message[0].id", "5", "expected text, got 5"),
    (
        "message[0].key",
        "'{$table}'",
        "{$table} is none of {$prefix}, {$rest}, {$xid}, {$commit_lsn}, {$commit_time}, \
         {$commit_time_iso}",
    ),
    ("message[0].key_format", "'avro'", FORMATS),
    (
        "message[0].payload",
        "'*'",
        "a message is no row; \"$content\" is all of its content, or name one member of it",
    ),
    ("message[0].payload", "''", "expected a name of 1 to 63 bytes without NUL, got \"\""),
    ("message[0].payload_format", "'xml'", PAYLOAD_FORMATS),
    ("message[0].schema_subject", "'{type}'", NO_SUBJECT),
    ("message[0].tombstone_if_blank", "'x'", "expected true or false, got \"x\""),
    (
        "message[0].topic",
        "'{$content}'",
        "{$content} is none of {$prefix}, {$rest}, {$xid}, {$commit_lsn}, {$commit_time}, \
         {$commit_time_iso}",
    ),
    ("message[0].topic_regex", "'(a)('", NO_REGEX),
    ("message[0].topic_replacement", "'x'", "there is no topic_regex whose find it would replace"),
    ("message[0].partition", "5", "expected text, got 5"),
    ("message[0].timestamp", "5", "expected text, got 5"),
    ("message[0].span_context", "5", "expected text, got 5"),
    ("message[0].headers", "['type']", "expected a table, got a list"),
    ("message[0].header_format", "'avro'", FORMATS),
    ("message[0].static_headers", "5", "expected a table, got a number"),
    (
        "message[0].on_poison",
        "'ignore'",
        "expected \"halt\", \"dead_letter\" or \"skip\", got \"ignore\"",
    ),
    ("message[0].dead_letter_topic", "'.'", "\".\" cannot be a topic name"),
];

#[test]
fn every_wrong_value_is_told_with_its_key() {
    for (key, value, message) in WRONG {
        let found = parse(&document(key, value), NO_ENV).unwrap_err();
        let told: Vec<_> = found.iter().map(|m| (m.path.as_str(), m.message.as_str())).collect();
        let path = if *value == "[5]" { "outbox[0]" } else { key };
        assert_eq!(told, [(path, *message)], "{key} = {value}");
        let origin = found.iter().next().unwrap().origin.as_deref();
        assert!(matches!(origin, Some("walrelay.toml:2" | "walrelay.toml:3" | "walrelay.toml:4")));
    }
}

/// The documented file with its last part, the `[[message]]`, which is commented out: a `#` before
/// a key or a section, a `#` and a space before a comment.
fn documented() -> String {
    let text = fs::read_to_string("config/walrelay.toml").unwrap();
    let (before, message) = text.split_once("#[[message]]").unwrap();
    let lines = message.lines().filter(|line| !line.starts_with("# "));
    let lines: Vec<_> = lines.map(|line| line.strip_prefix('#').unwrap_or(line)).collect();
    format!("{before}[[message]]{}", lines.join("\n"))
}

/// The names of all keys of the documented file.
fn documented_keys() -> BTreeSet<String> {
    let text = documented();
    let document = toml::de::DeTable::parse(&text).unwrap();
    let mut keys = BTreeSet::new();
    for (section, value) in document.get_ref() {
        let section = section.get_ref();
        let (prefix, table) = match value.get_ref().as_array() {
            Some(list) => (format!("{section}[0]"), list[0].get_ref().as_table().unwrap()),
            None => (section.to_string(), value.get_ref().as_table().unwrap()),
        };
        keys.extend(table.keys().map(|key| format!("{prefix}.{}", key.get_ref())));
    }
    keys
}

#[test]
fn the_table_of_wrong_values_and_the_documented_file_have_every_key() {
    let text = document("message[0].prefix", "'p'") + "[[outbox]]\n";
    let written = parse(&text, NO_ENV).unwrap_or_else(|mistakes| panic!("{mistakes}")).to_toml();
    let mut effective = BTreeSet::new();
    let mut section = String::new();
    for line in written.lines() {
        if let Some((key, _)) = line.split_once(" = ") {
            effective.insert(format!("{section}.{key}"));
        } else if !line.is_empty() {
            section = line.replace("[[outbox]]", "[outbox[0]]");
            section = section.replace("[[message]]", "[message[0]]");
            section = section[1..section.len() - 1].to_owned();
        }
    }
    effective.insert("kafka.properties".to_owned());
    assert_eq!(documented_keys(), effective);
    let tested: BTreeSet<String> = WRONG.iter().map(|(key, ..)| (*key).to_owned()).collect();
    let untested: Vec<_> = effective.difference(&tested).collect();
    assert!(untested.is_empty(), "{untested:?}");
}

#[test]
fn all_mistakes_come_in_one_go_with_their_places() {
    let text = "
        [postgres]
        slto = 'x'
        [kafka]
        properties = { acks = 1 }
        [delivery]
        max_in_flight = 'many'
        [[outbox]]
        [[outbox]]
        on_poison = 'ignore'
    ";
    let env = [("WALRELAY__LOG__LEVEL", "loud"), ("WALRELAY__POSTGRES__USER", "x")];
    assert_eq!(
        parse(text, env).unwrap_err().to_string(),
        "\
postgres.url: required; give it in the file or as WALRELAY__POSTGRES__URL
kafka.brokers: required; give it in the file or as WALRELAY__KAFKA__BROKERS
kafka.properties.acks: cannot be set: always \"all\": an event that only the leader has is lost \
         with the leader (walrelay.toml:5)
delivery.max_in_flight: expected a whole number from 1 to 1000000, got \"many\" (walrelay.toml:7)
log.level: expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\", got \"loud\" \
         (WALRELAY__LOG__LEVEL)
outbox[1].table: outbox[0] has public.outbox already
outbox[1].on_poison: expected \"halt\", \"dead_letter\" or \"skip\", got \"ignore\" \
         (walrelay.toml:10)
postgres.slto: unknown key; did you mean \"slot\"? (walrelay.toml:3)
postgres.user: unknown key (WALRELAY__POSTGRES__USER)"
    );
}

#[test]
fn unknown_keys_get_the_most_likely_suggestion() {
    let check = |key: &str, told: &str| {
        assert_eq!(mistakes(&document(key, "1"), NO_ENV), [format!("{told} (walrelay.toml:3)")]);
    };
    check("postgres.slto", "postgres.slto: unknown key; did you mean \"slot\"?");
    check("kafka.broker", "kafka.broker: unknown key; did you mean \"brokers\"?");
    check(
        "kafka.max_in_flight",
        "kafka.max_in_flight: unknown key; did you mean delivery.max_in_flight?",
    );
    check("slot", "slot: unknown key; did you mean postgres.slot?");
    check("postgress.slot", "postgress: unknown key; did you mean \"postgres\"?");
    check("http.zzz", "http.zzz: unknown key");
    check("http.\"\"", "http.\"\": unknown key");
    check("\"postgres.slot\"", "\"postgres.slot\": unknown key; did you mean \"postgres\"?");
    assert_eq!(
        mistakes(&document("outbox[0].tabel", "1"), NO_ENV),
        ["outbox[0].tabel: unknown key; did you mean \"table\"? (walrelay.toml:4)"]
    );
}

#[test]
fn errors_of_syntax_show_the_place_but_never_the_line() {
    let text = "[postgres]\nslot = 'a'\nurl = \"postgres://u:hunter2@h\n[kafka\nbrokers = 5";
    let told = mistakes(text, NO_ENV);
    assert_eq!(
        told,
        [
            "walrelay.toml:3:30: invalid basic string, expected `\"`",
            "walrelay.toml:4:7: unclosed table, expected `]`",
        ]
    );
}

#[test]
fn every_beginning_of_a_file_is_read_or_refused() {
    let text = fs::read_to_string("config/walrelay.toml").unwrap();
    for (end, _) in text.char_indices() {
        let _ = parse(&text[..end], NO_ENV);
    }
    for odd in ["\"outbox[4000000000]\" = 1", "[outbox.4000000000]", "\u{feff}", "\0", "a.b"] {
        assert!(parse(odd, NO_ENV).is_err());
    }
}

#[test]
fn a_named_file_must_exist_and_the_default_one_need_not() {
    let env = || {
        [("WALRELAY__POSTGRES__URL", "postgres://u@h/db"), ("WALRELAY__KAFKA__BROKERS", "a:1, b:2")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    assert_eq!(Config::load(None, env()).unwrap().kafka.brokers, ["a:1", "b:2"]);
    let told = Config::load(Some(Path::new("/nowhere.toml")), env()).unwrap_err().to_string();
    assert_eq!(told, "/nowhere.toml: cannot be read: No such file or directory (os error 2)");
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let text = document("postgres.slot", "'from_file'");
    assert_eq!(good("log.level", "'info'").postgres.slot, "walrelay");
    assert_eq!(parse(&text, NO_ENV).unwrap().postgres.slot, "from_file");
    let env = [("WALRELAY__POSTGRES__SLOT", "from_env"), ("WALRELAY_CONFIG", "x"), ("SLOT", "x")];
    let config = parse(&text, env).unwrap();
    assert_eq!(config.postgres.slot, "from_env");
    assert_eq!(config.postgres.publication, "walrelay");
}

#[test]
fn the_environment_can_say_everything() {
    let config = with_env([
        ("WALRELAY__POSTGRES__CREATE", "false"),
        ("WALRELAY__POSTGRES__STATUS_INTERVAL", "500ms"),
        ("WALRELAY__KAFKA__BROKERS", "a:1,[::1]:2"),
        ("WALRELAY__KAFKA__PROPERTIES__SASL_PASSWORD", "pw"),
        ("WALRELAY__KAFKA__PROPERTIES__LINGER_MS", "5"),
        ("WALRELAY__DELIVERY__POSITION_HEADER", ""),
        ("WALRELAY__DELIVERY__MAX_IN_FLIGHT", "7"),
        ("WALRELAY__DELIVERY__MAX_IN_FLIGHT_BYTES", "2MiB"),
        ("WALRELAY__OUTBOX__0__TABLE", "a"),
        ("WALRELAY__OUTBOX__0__KEY", ""),
        ("WALRELAY__OUTBOX__1__TABLE", "b"),
        ("WALRELAY__OUTBOX__1__HEADERS__EVENTTYPE", "type"),
    ]);
    assert!(!config.postgres.create);
    assert_eq!(config.postgres.status_interval, Duration::from_millis(500));
    assert_eq!(config.kafka.brokers, ["a:1", "[::1]:2"]);
    let properties = [("linger.ms", "5"), ("sasl.password", "pw")];
    assert!(config.kafka.properties.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(properties));
    assert_eq!(config.delivery.position_header, None);
    assert_eq!(config.delivery.max_in_flight, 7);
    assert_eq!(config.delivery.max_in_flight_bytes, 2 << 20);
    let tables: Vec<_> = config.outboxes.iter().map(|o| o.table.to_string()).collect();
    assert_eq!(tables, ["public.a", "public.b"]);
    assert_eq!(config.outboxes[0].key, None);
    let headers = |outbox: usize| config.outboxes[outbox].headers.clone();
    assert_eq!(headers(0), [("eventType".to_owned(), column("type"))]);
    assert_eq!(headers(1), [("eventtype".to_owned(), column("type"))]);
}

#[test]
fn the_environment_changes_single_keys_of_the_files_outboxes() {
    let text = document("outbox[0].table", "'orders'\nheaders = { a = 'b' }");
    let env = [("WALRELAY__OUTBOX__0__TOPIC", "orders"), ("WALRELAY__OUTBOX__0__HEADERS__C", "d")];
    let config = parse(&text, env).unwrap();
    let [outbox] = config.outboxes.as_slice() else { panic!("{config:?}") };
    assert_eq!(
        (outbox.table.name.as_str(), outbox.topic.to_string().as_str()),
        ("orders", "orders")
    );
    let header = |name: &str, of| (name.to_owned(), column(of));
    assert_eq!(outbox.headers, [header("a", "b"), header("c", "d")]);
}

#[test]
fn a_variable_that_names_no_key_is_a_mistake() {
    let text = document("log.level", "'info'");
    let check = |name, told: &str| assert_eq!(mistakes(&text, [(name, "x")]), [told]);
    check(
        "WALRELAY__POSTGRES__SLTO",
        "postgres.slto: unknown key; did you mean \"slot\"? (WALRELAY__POSTGRES__SLTO)",
    );
    check("WALRELAY__SLOT", "slot: unknown key; did you mean postgres.slot? (WALRELAY__SLOT)");
    check("WALRELAY__", "\"\": unknown key (WALRELAY__)");
    check("WALRELAY__KAFKA", "kafka: expected a table, got text (WALRELAY__KAFKA)");
    check(
        "WALRELAY__OUTBOX__TABLE",
        "outbox: expected a list of tables ([[outbox]], or \
         WALRELAY__OUTBOX__0__TABLE and so on), got a table \
         (WALRELAY__OUTBOX__TABLE)",
    );
    check("WALRELAY__OUTBOX__1__TABLE", "outbox[0]: expected a table, got nothing");
    check(
        "WALRELAY__OUTBOX__4000000000__TABLE",
        "outbox: expected a list of tables ([[outbox]], or \
         WALRELAY__OUTBOX__0__TABLE and so on), got a table \
         (WALRELAY__OUTBOX__4000000000__TABLE)",
    );
}

#[test]
fn one_table_is_not_a_list_of_tables() {
    let text = document("outbox.table", "'orders'");
    assert_eq!(
        mistakes(&text, NO_ENV),
        ["outbox: expected a list of tables ([[outbox]], or WALRELAY__OUTBOX__0__TABLE \
             and so on), got a table (walrelay.toml:3)"]
    );
}

#[test]
fn d2_properties_that_the_promise_rests_on_are_refused_with_the_reason() {
    let refused = |name: &str, value: &str| {
        let key = format!("kafka.properties.\"{name}\"");
        let found = parse(&document(&key, value), NO_ENV).unwrap_err();
        found.iter().next().unwrap().message.clone()
    };
    for name in [
        "acks",
        "request.required.acks",
        "enable.idempotence",
        "enable.gapless.guarantee",
        "message.timeout.ms",
        "delivery.timeout.ms",
        "queue.buffering.max.messages",
        "queue.buffering.max.kbytes",
        "bootstrap.servers",
        "metadata.broker.list",
        "transactional.id",
        "partitioner",
        "retries",
        "message.send.max.retries",
        "dr_msg_cb",
        "error_cb",
        "opaque",
        "delivery.report.only.error",
    ] {
        let told = refused(name, "1");
        assert!(told.starts_with("cannot be set: "), "{name}: {told}");
    }
    assert!(refused("bootstrap.servers", "'a:1'").ends_with("set kafka.brokers instead"));
    for name in ["max.in.flight", "max.in.flight.requests.per.connection"] {
        for value in ["0", "6", "'x'"] {
            assert!(refused(name, value).starts_with("expected a whole number from 1 to 5"));
        }
        let key = format!("kafka.properties.\"{name}\"");
        assert_eq!(good(&key, "5").kafka.properties[name], "5");
    }
}

#[test]
fn properties_become_text() {
    let values = "{ 'client.id' = 'x', 'linger.ms' = 0.5, 'log_level' = 5, 'sparse.x' = true }";
    let values = values.replace("sparse.x", "topic.metadata.refresh.sparse");
    let config = good("kafka.properties", &values);
    assert!(config.kafka.properties.values().eq(["x", "0.5", "5", "true"]));
}

/// A file with this content that is gone with the test.
struct PasswordFile(std::path::PathBuf);

impl PasswordFile {
    fn new(name: &str, content: &str) -> PasswordFile {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, content).unwrap();
        PasswordFile(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn with_password(password: &str) -> Conninfo {
    Conninfo::parse("postgres://walrelay@db/app").unwrap().with_password(password)
}

#[test]
fn a_password_comes_from_a_file_or_a_variable() {
    for (content, password) in
        [("pw", "pw"), ("pw\n", "pw"), ("p w\n\n", "p w\n"), ("pw\r\n", "pw")]
    {
        let file = PasswordFile::new("password", content);
        let postgres = good("postgres.password_file", &format!("'{}'", file.path())).postgres;
        assert_eq!(postgres.conninfo, with_password(password));
        assert_eq!(postgres.password_from, Some(PasswordFrom::File(file.path().to_owned())));
    }
    let env = [("PGPASSWORD", "pw\n")];
    let postgres = parse(&document("postgres.password_env", "'PGPASSWORD'"), env).unwrap().postgres;
    assert_eq!(postgres.conninfo, with_password("pw\n"));
    assert_eq!(postgres.password_from, Some(PasswordFrom::Env("PGPASSWORD".to_owned())));
    assert!(!good("log.level", "'info'").postgres.conninfo.has_password());
}

#[test]
fn only_one_password_is_taken() {
    let file = PasswordFile::new("one_password", "pw");
    let env = [
        ("PGPASSWORD", "pw"),
        ("WALRELAY__POSTGRES__PASSWORD_ENV", "PGPASSWORD"),
        ("WALRELAY__POSTGRES__PASSWORD_FILE", file.path()),
    ];
    assert_eq!(
        mistakes(&document("postgres.url", "'postgres://u:hunter2@h'"), env),
        [
            "postgres.password_env: password_file is set as well; keep one of them",
            "postgres.url: holds a password, and another one is set; keep one of them",
        ]
    );
}

#[test]
fn tables_are_named_as_in_sql() {
    let name = |text: &str| {
        let TableName { schema, name } = &good("outbox[0].table", text).outboxes[0].table;
        (schema.clone(), name.clone())
    };
    let expect = |schema: &str, name: &str| (schema.to_owned(), name.to_owned());
    assert_eq!(name("'outbox'"), expect("public", "outbox"));
    assert_eq!(name("'Sales.OutBox'"), expect("sales", "outbox"));
    assert_eq!(name("'\"My Schema\".\"Out\"\"box.\"'"), expect("My Schema", "Out\"box."));
    assert_eq!(name("'größe.\"x\"'"), expect("größe", "x"));
    let long = "x".repeat(64);
    for bad in ["", ".", "a.", ".a", "a b", "a.b.c", "\"a", "\"\"", "1a", "my-table", " a", &long] {
        let found = mistakes(&document("outbox[0].table", &format!("'{bad}'")), NO_ENV);
        assert!(found[0].starts_with("outbox[0].table: expected a table"), "{bad}: {found:?}");
    }
}

#[test]
fn the_position_header_cannot_be_the_id_header() {
    let text = document("delivery.position_header", "'id'");
    let told = ["outbox[0].id: delivery.position_header has the header \"id\" already"];
    assert_eq!(mistakes(&text, NO_ENV), told);
    assert!(parse(&(text + "[[outbox]]\nid = ''"), NO_ENV).is_ok());
}

#[test]
fn a_row_as_the_payload_has_no_format_no_envelope_and_is_never_blank() {
    let more = "\npayload_format = 'json'\ntombstone_if_blank = true\nenvelope = { a = 'b' }";
    for payload in ["'*'", "['a']", "'a,b'"] {
        let told = mistakes(&document("outbox[0].payload", &format!("{payload}{more}")), NO_ENV);
        let told: Vec<_> = told.iter().map(|line| line.split(';').next().unwrap()).collect();
        let expected = [
            "outbox[0].payload_format: the payload is a row, which is JSON already",
            "outbox[0].tombstone_if_blank: the payload is a row, which is never blank",
            "outbox[0].envelope: the payload is a row",
        ];
        assert_eq!(told, expected);
    }
    let payload = |text| good("outbox[0].payload", text).outboxes[0].payload.clone();
    let columns = ["a", "B c"].map(str::to_owned).to_vec();
    assert_eq!(payload("'*'"), Payload::Row);
    assert_eq!(payload("'a, B c'"), Payload::Columns(columns.clone()));
    assert_eq!(payload("['a', 'B c']"), Payload::Columns(columns));
    assert_eq!(payload("['a']"), Payload::Columns(vec!["a".to_owned()]));
    assert_eq!(payload("'a'"), Payload::Column("a".to_owned()));
}

#[test]
fn keys_of_events_that_do_not_go_together() {
    let check = |keys: &str, told: &str| {
        let found = mistakes(&document("outbox[0].cloudevents", keys), NO_ENV);
        assert_eq!(found, [format!("outbox[0].{told}")]);
    };
    check(
        "''\ncloudevents_attributes = { subject = 'x' }",
        "cloudevents_attributes: they are of no use without cloudevents; set it to \"binary\" or \
         \"structured\"",
    );
    check(
        "'binary'\nid = ''",
        "cloudevents_attributes: an event needs an id, and the key \"id\" names no column; set id \
         here or there",
    );
    check(
        "'structured'\ntombstone_if_blank = true",
        "cloudevents: an event in structured mode is never a tombstone; set tombstone_if_blank = \
         false, or cloudevents = \"binary\"",
    );
    good("outbox[0].cloudevents", "'binary'\nid = ''\ncloudevents_attributes = { id = 'x' }");
    good("outbox[0].cloudevents", "'binary'\ntombstone_if_blank = true");
}

/// What is checked before rows are read, and made by `init`.
#[test]
fn columns_that_rows_and_attributes_are_made_of_must_be_there() {
    let keys = "['a', 'b']
        key = ''
        topic = 't'
        headers = {}
        cloudevents = 'binary'
        cloudevents_attributes = { subject = 'who', time = 'at', source = '/{shop}' }";
    let of = |more: &str| good("outbox[0].payload", &format!("{keys}\n{more}"));
    let names = |columns: &[(&str, String)]| {
        columns.iter().map(|(key, column)| format!("{key}={column}")).collect::<Vec<_>>().join(" ")
    };
    let attribute = |column: &str| format!(" cloudevents_attributes={column}");
    let needed = ["id=id payload=a payload=b".to_owned(), attribute("id"), attribute("type")];
    let needed = needed.concat() + &attribute("shop");
    let more = attribute("who") + &attribute("at");
    let mapped = of("").setup().tables.remove(0);
    assert_eq!(names(&mapped.columns), format!("{needed}{more}"));
    assert_eq!(mapped.optional, []);
    let mapped = of("missing_columns = 'ignore'").setup().tables.remove(0);
    assert_eq!(names(&mapped.columns), needed);
    assert_eq!(names(&mapped.optional), more.trim_start());
    let sql = create_table(&of("").outboxes[0]);
    let columns: Vec<_> = sql.lines().filter(|line| line.starts_with("    ")).collect();
    let expected = [
        "    \"id\" uuid PRIMARY KEY DEFAULT gen_random_uuid(),",
        "    \"type\" varchar(255) NOT NULL,",
        "    \"who\" varchar(255),",
        "    \"at\" timestamptz,",
        "    \"shop\" varchar(255) NOT NULL,",
        "    \"a\" text,",
        "    \"b\" text",
    ];
    assert_eq!(columns, expected);
    let whole = good("outbox[0].payload", "'*'").setup().tables.remove(0);
    assert_eq!(names(&whole.columns), "id=id key=aggregateid topic=aggregatetype headers=type");
}

#[test]
fn a_header_of_an_event_cannot_be_another_one() {
    let text = |mode: &str, header: &str| {
        let outbox = document("outbox[0].cloudevents", &format!("'{mode}'"));
        format!("delivery.position_header = '{header}'\n{outbox}")
    };
    for (mode, header) in
        [("binary", "ce_specversion"), ("binary", "content-type"), ("structured", "content-type")]
    {
        let told = format!(
            "outbox[0].cloudevents: delivery.position_header has the header {header:?} already"
        );
        assert_eq!(mistakes(&text(mode, header), NO_ENV), [told]);
    }
    for (mode, header) in [("structured", "ce_id"), ("", "ce_id"), ("binary", "ce_subject")] {
        assert!(parse(&text(mode, header), NO_ENV).is_ok(), "{mode} {header}");
    }
}

#[test]
fn the_header_of_a_pointer_cannot_be_another_one() {
    let outbox = |keys: &str| document("outbox[0].on_oversize", keys);
    let text =
        |keys: &str| format!("delivery.position_header = 'walrelay-pointer'\n{}", outbox(keys));
    let told = "outbox[0].on_oversize: delivery.position_header has the header \
                \"walrelay-pointer\" already";
    assert_eq!(mistakes(&text("'pointer'"), NO_ENV), [told]);
    let header = "headers = { walrelay-pointer = 'x' }";
    for text in [text("'poison'"), outbox(&format!("'poison'\n{header}")), outbox("'pointer'")] {
        assert!(parse(&text, NO_ENV).is_ok(), "{text}");
    }
}

#[test]
fn no_file_at_all_means_the_defaults_of_the_contract() {
    let config = good("log.level", "'info'");
    assert_eq!(config.postgres.slot, "walrelay");
    assert!(config.postgres.create && !config.postgres.failover);
    assert_eq!(config.postgres.status_interval, Duration::from_secs(1));
    assert_eq!(config.postgres.check_interval, Duration::from_secs(5));
    assert_eq!(config.delivery.guarantee, Guarantee::AtLeastOnce);
    assert_eq!(config.delivery.positions_topic.as_deref(), Some("__walrelay_positions"));
    assert_eq!(config.delivery.position_header.as_deref(), Some("walrelay-position"));
    assert_eq!(config.delivery.max_in_flight, 50_000);
    assert_eq!(config.delivery.max_in_flight_bytes, 32 << 20);
    assert_eq!(config.delivery.shutdown_grace, Duration::from_secs(10));
    assert_eq!(config.http.listen, SocketAddr::from(([0, 0, 0, 0], 9187)));
    assert_eq!(config.log.format, LogFormat::Text);
    let [outbox] = config.outboxes.as_slice() else { panic!("{config:?}") };
    assert_eq!(outbox.id.as_deref(), Some("id"));
    assert_eq!(outbox.key, Some(column("aggregateid")));
    assert_eq!(outbox.topic.to_string(), "outbox.event.{aggregatetype}");
    assert_eq!(outbox.on_poison, OnPoison::Halt);
    assert_eq!(outbox.dead_letter_topic, None);
    assert_eq!(outbox.on_oversize, OnOversize::Poison);
}

#[test]
fn the_documented_file_is_equal_to_the_defaults() {
    let load = |path| Config::load(Some(Path::new(path)), []).unwrap();
    assert_eq!(load("config/walrelay.toml"), load("config/minimal.toml"));
    let whole = parse(&documented(), NO_ENV).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let prefix = whole.messages[0].prefix.to_string();
    let default = good("message[0].prefix", &format!("'{prefix}'"));
    assert_eq!(whole.messages, default.messages);
}

#[test]
fn messages_need_no_table_and_without_either_there_is_the_default_one() {
    let count = |text: &str| {
        let config = parse(text, NO_ENV).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        (config.outboxes.len(), config.messages.len(), config.setup().messages == Messages::Read)
    };
    let bare = document("log.level", "'info'");
    let message = "[[message]]\nprefix = 'p'\n";
    assert_eq!(count(&bare), (1, 0, false));
    assert_eq!(count(&format!("message = []\noutbox = []\n{bare}")), (1, 0, false));
    assert_eq!(count(&format!("{bare}{message}")), (0, 1, true));
    assert_eq!(count(&format!("{bare}{message}[[outbox]]")), (1, 1, true));
    let config = with_env([
        ("WALRELAY__MESSAGE__0__PREFIX", "orders.*"),
        ("WALRELAY__MESSAGE__0__CONTENT", "raw"),
    ]);
    assert_eq!(config.outboxes.len(), 0);
    let [message] = config.messages.as_slice() else { panic!("{config:?}") };
    assert_eq!((message.prefix.to_string().as_str(), message.content), ("orders.*", Content::Raw));
    assert_eq!((&message.mapping.key, &message.mapping.id), (&None, &None));
    assert_eq!(message.columns, ["$content", "$prefix"]);
}

#[test]
fn what_fits_no_message_is_told() {
    let told = |text: &str| mistakes(&(document("log.level", "'info'") + text), NO_ENV);
    assert_eq!(
        told("[[message]]\ncontent = 'json'"),
        ["message[0].prefix: required; give it in the file or as WALRELAY__MESSAGE__0__PREFIX"]
    );
    assert_eq!(
        told("[[message]]\nprefix = 'a*b'\n[[message]]\nprefix = 'a'\n[[message]]\nprefix = 'a'"),
        [
            format!(
                "message[0].prefix: {} (walrelay.toml:5)",
                NO_PREFIX.replace("\"\"", "\"a*b\"")
            ),
            "message[2].prefix: message[1] has a already (walrelay.toml:9)".to_owned(),
        ]
    );
    let no_key = |key: &str| format!("message[0].{key}: a [[message]] has no such key");
    let table = "table = 't'\non_update = 'halt'\nenvelope = { a = 'b' }\n\
                 missing_columns = 'error'\non_oversize = 'pointer'";
    assert_eq!(
        told(&format!("[[message]]\nprefix = 'p'\n{table}")),
        ["table", "envelope", "missing_columns", "on_update", "on_oversize"].map(no_key)
    );
    let no_member = |key: &str, column: &str| {
        format!(
            "message[0].{key}: a raw content has no members, and so no {column}; there are \
             {{$prefix}} and {{$rest}}"
        )
    };
    let raw = "content = 'raw'\nkey = '{a}/{$rest}'\npartition = 'b'\nheaders = { x = 'c' }";
    assert_eq!(
        told(&format!("[[message]]\nprefix = 'p'\n{raw}")),
        [no_member("key", "a"), no_member("partition", "b"), no_member("headers", "c")]
    );
    let unknown = told("[[message]]\nprefix = 'p'\npayloda = 'x'");
    let meant = "message[0].payloda: unknown key; did you mean \"payload\"? (walrelay.toml:6)";
    assert_eq!(unknown, [meant]);
}

#[test]
fn schemas_have_a_registry_and_payloads_that_are_theirs_alone() {
    let told = |text: &str| mistakes(&format!("{}\n{text}", document("log.level", "'info'")), []);
    let required = "registry.url: required; a payload_format asks for schemas";
    for list in ["[[outbox]]", "[[message]]\nprefix = 'p'"] {
        assert_eq!(told(&format!("{list}\npayload_format = 'avro'")), [required]);
    }
    let registry = "[registry]\nurl = 'http://r:8081/'\n";
    let more = "[[outbox]]\npayload_format = 'protobuf'\nenvelope = { a = 'b' }\n\
                cloudevents = 'binary'";
    assert_eq!(
        told(&format!("{registry}{more}")),
        [
            "outbox[0].envelope: payload_format encodes the payload by a schema, which has no \
             place for more; name the columns in payload that the value is to have",
            "outbox[0].cloudevents: payload_format encodes the payload by a schema, which makes \
             no event of it; use the one or the other",
        ]
    );
    let more = "[[outbox]]\npayload_format = 'avro'\nschema_subject = '{'";
    let unclosed = "outbox[0].schema_subject: \"{\" without a \"}\" after it (walrelay.toml:9)";
    assert_eq!(told(&format!("{registry}{more}")), [unclosed]);
    let env = [("WALRELAY__REGISTRY__PASSWORD_ENV", "SECRET"), ("SECRET", "hunter2")];
    let nobody = parse(&format!("{}\n{registry}", document("log.level", "'info'")), env);
    let nobody = nobody.unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(nobody, ["registry.basic_auth_user: there is a password, and nobody whose it is"]);

    let good = format!("{}\n{registry}basic_auth_user = 'u'\n", document("log.level", "'info'"));
    let config = parse(&good, env).unwrap();
    assert_eq!(config.registry.url.as_deref(), Some("http://r:8081"), "without the last /");
    assert!(!format!("{config:?}").contains("hunter2") && !config.to_toml().contains("hunter2"));
    let subject = |keys: &str| {
        let text = format!("{good}[[outbox]]\npayload_format = 'avro'\n{keys}");
        parse(&text, env).unwrap().outboxes[0].fixed_subject()
    };
    assert_eq!(subject("topic = 'orders'").as_deref(), Some("orders-value"));
    assert_eq!(subject("schema_subject = 'shop.Order'").as_deref(), Some("shop.Order"));
    assert_eq!(subject("schema_subject = '{type}'"), None);
    assert_eq!(subject(""), None);
    assert_eq!(config.outboxes[0].fixed_subject(), None);
}

#[test]
fn topics_that_rows_do_not_change_are_known() {
    let topic = |text: &str| parse(text, NO_ENV).unwrap().outboxes[0].fixed_topic();
    let of = |keys: &str| topic(&(document("outbox[0].topic", keys)));
    assert_eq!(of("'events'").as_deref(), Some("events"));
    assert_eq!(of("'{$schema}.{$table}'").as_deref(), Some("public.outbox"));
    assert_eq!(of("'{type}'"), None);
    assert_eq!(of("'a.{$xid}'"), None);
    let rewritten = "'a.b'\ntopic_regex = '(.)[.](.)'\ntopic_replacement = '$2.$1'";
    assert_eq!(of(rewritten).as_deref(), Some("b.a"));

    let topic = |keys: &str| {
        let text = document("message[0].prefix", keys);
        parse(&text, NO_ENV).unwrap().messages[0].topic()
    };
    assert_eq!(topic("'a'\ncontent = 'raw'").as_deref(), Some("a"));
    assert_eq!(topic("'a*'\ncontent = 'raw'"), None);
    assert_eq!(topic("'a*'\ntopic = 'b'").as_deref(), Some("b"));
    let rewritten = "'a'\ncontent = 'raw'\ntopic_regex = 'a'\ntopic_replacement = 'events.$0'";
    assert_eq!(topic(rewritten).as_deref(), Some("events.a"));
}

/// Much of what can be configured.
const EFFECTIVE: &str = r#"
        log.level = 'debug'
        [postgres]
        url = 'postgres://u@h/db?sslmode=require'
        password_file = 'PASSWORD_FILE'
        row_filters = 'allow'
        failover = true
        status_interval = '1500ms'
        check_interval = '10m'
        [kafka]
        brokers = ['a:1', '[::1]:2']
        properties = { 'client.id' = "a\"b\\\u007f\n", 'linger.ms' = 5 }
        [registry]
        url = 'https://r:8081/apis/ccompat/v7'
        basic_auth_user = 'u'
        password_file = 'PASSWORD_FILE'
        ca_file = '/etc/ca.pem'
        [delivery]
        positions_topic = ''
        max_in_flight_bytes = 1234567
        shutdown_grace = '0s'
        [[outbox]]
        table = '"My Schema"."Out""box"'
        topic = 'a.{b}'
        key = '{a{{}-{b}'
        headers = { 'x y' = 'Column"', b = 'c', f = '{$xid}', brace = '{a{{}' }
        static_headers = { app = 'a{b', none = '' }
        partition = 'p'
        timestamp = 't'
        tombstone_if_blank = true
        key_format = 'json'
        header_format = 'json_with_schema'
        payload_format = 'json'
        envelope = { z = 'last', a = 'first' }
        schema_name = '{b}.Value'
        schema_version = 'v'
        topic_regex = '(a)\.(?<rest>.*)'
        topic_replacement = '$1-${rest}'
        span_context = 'span'
        missing_columns = 'ignore'
        on_update = 'halt'
        on_poison = 'skip'
        [[outbox]]
        key = ''
        headers = {}
        payload = ['a', '*', 'b"c']
        dead_letter_topic = 'dlq'
        on_oversize = 'pointer'
        cloudevents = 'binary'
        cloudevents_attributes = { source = '/a/{b}', subject = 'c', x1 = 'My "Column"' }
        [[outbox]]
        table = 'events'
        payload = '*'
        cloudevents = 'structured'
        [[outbox]]
        table = 'schemas'
        payload_format = 'avro'
        schema_subject = 'x.{type}'
        [[message]]
        prefix = 'a "b".*'
        key = '{$rest}'
        payload = '$content'
        header_format = 'json'
        headers = { of = '$prefix', b = '{b}' }
        timestamp = 't'
        topic_regex = 'a'
        topic_replacement = 'b'
        on_poison = 'skip'
        [[message]]
        prefix = '*'
        content = 'raw'
        headers = { of = '{$prefix}' }
        payload_format = 'json_schema'
        "#;

#[test]
fn the_effective_configuration_loads_again() {
    let file = PasswordFile::new("effective", "pw");
    let text = EFFECTIVE.replace("PASSWORD_FILE", file.path());
    let config = parse(&text, NO_ENV).unwrap();
    let written = config.to_toml();
    assert_eq!(parse(&written, NO_ENV).unwrap_or_else(|m| panic!("{m}\n{written}")), config);
}

#[test]
fn secrets_are_shown_nowhere() {
    let text = r#"
        postgres.url = "postgres://u:hunter2@h/db"
        kafka.brokers = ["a:1"]
        [kafka.properties]
        "sasl.password" = "hunter2"
        "sasl.oauthbearer.client.secret" = "hunter2"
        "sasl.oauthbearer.config" = "hunter2"
        "ssl.key.pem" = "hunter2"
        "ssl.key.password" = "hunter2"
        "sasl.username" = "relay"
    "#;
    let config = parse(text, NO_ENV).unwrap();
    let shown = config.to_toml();
    assert!(shown.contains("\"postgres://u:***@h/db\""), "{shown}");
    assert!(shown.contains("\"sasl.username\" = \"relay\""), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(parse(&shown, NO_ENV).is_ok());

    for (key, value) in [
        ("postgres.url", "'hunter2'"),
        ("postgres", "'postgres://u:hunter2@h'"),
        ("postgres.password", "'hunter2'"),
        ("postgres.password_env", "'hunter2'"),
        ("kafka.properties", "'sasl.password=hunter2'"),
        ("kafka.properties.\"sasl.password\"", "['hunter2']"),
        ("kafka.properties.\"sasl.jaas.config\"", "'hunter2'"),
    ] {
        let text = format!("{key} = {value}");
        let told = mistakes(&text, NO_ENV).join("\n");
        assert!(told.contains("(walrelay.toml:1)") && !told.contains("hunter2"), "{told}");
    }
}
