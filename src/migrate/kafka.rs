//! `[kafka]`: the brokers, and what of the Java producer's settings librdkafka has as well.

use rdkafka::ClientConfig;

use super::document::{Key, Section};
use super::options::{Debezium, Given};

const BROKERS: &str = "localhost:9092";

/// Properties that both clients have under one name.
const SAME: [&str; 19] = [
    "batch.size",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "compression.gzip.level",
    "compression.type",
    "connections.max.idle.ms",
    "linger.ms",
    "metadata.max.age.ms",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "security.protocol",
    "socket.connection.setup.timeout.ms",
    "ssl.cipher.suites",
];

const RENAMED: [(&str, &str); 4] = [
    ("max.request.size", "message.max.bytes"),
    ("receive.buffer.bytes", "socket.receive.buffer.bytes"),
    ("sasl.mechanism", "sasl.mechanisms"),
    ("send.buffer.bytes", "socket.send.buffer.bytes"),
];

const FIXED: &str = "walrelay sets it itself";
/// What has no counterpart, by the beginning of its name.
const DROPPED: [(&str, &str); 17] = [
    ("acks", "always all"),
    ("buffer.memory", "delivery.max_in_flight_bytes is the bound"),
    ("delivery.timeout.ms", "an event is tried until Kafka takes it"),
    ("enable.idempotence", "always on"),
    ("interceptor.classes", "walrelay runs no Java"),
    ("key.serializer", "key_format says what a key is"),
    ("max.block.ms", "an outage of Kafka only makes walrelay wait"),
    ("max.in.flight.requests.per.connection", FIXED),
    ("metric", "see /metrics"),
    ("partitioner", "walrelay picks the partition as Java's default partitioner does"),
    ("retries", "an event is tried until Kafka takes it"),
    ("sasl.client.callback.handler.class", "walrelay runs no Java"),
    ("sasl.login", "walrelay runs no Java"),
    ("sasl.kerberos", "walrelay is built without Kerberos"),
    ("transaction", "not supported by this version"),
    ("value.serializer", "payload_format says what a value is"),
    ("ssl.engine.factory.class", "walrelay runs no Java"),
];

pub(super) fn translate(debezium: &mut Debezium) -> (Section, Section) {
    let mut kafka = Section::new("[kafka]");
    let mut properties = Section::new("[kafka.properties]");
    let prefix = if debezium.is_server() { server(debezium) } else { "producer.override." };
    kafka.push(brokers(debezium, prefix));
    if !debezium.is_server() {
        properties.after(
            "How the worker logs in is in its own file: security.protocol, sasl.* and ssl.*, also \
             with producer. in front. What it has of them belongs here.",
        );
    }
    let producer = debezium.options.take_all(prefix);
    let value_of = |producer: &[Given], name: &str| {
        let given = producer.iter().find(|given| given.name.strip_prefix(prefix) == Some(name));
        given.map(|given| given.text().to_ascii_uppercase())
    };
    let stores = ["ssl.truststore.type", "ssl.keystore.type"]
        .map(|name| value_of(&producer, name).unwrap_or_default());
    for given in &producer {
        let name = given.name.strip_prefix(prefix).unwrap_or_default();
        match property(name, given.text(), &stores) {
            Property::Set(pairs) => {
                for (name, value) in pairs {
                    properties.push(Key::text(name, &value));
                }
            }
            Property::Dropped(reason) => {
                properties.after(format!("no counterpart: {}: {reason}.", given.name));
            }
            Property::Said => {}
        }
    }
    (kafka, properties)
}

/// Checks the sink, and says what its producer's properties begin with.
fn server(debezium: &mut Debezium) -> &'static str {
    match debezium.options.take("debezium.sink.type") {
        None => debezium.missing("debezium.sink.type is missing; it must be kafka".to_owned()),
        Some(given) if given.text() != "kafka" => {
            debezium.wrong(&given, &format!("is {:?}; walrelay sends to kafka", given.value));
        }
        Some(_) => {}
    }
    "debezium.sink.kafka.producer."
}

fn brokers(debezium: &mut Debezium, prefix: &str) -> Key {
    let given = debezium.options.take(&format!("{prefix}bootstrap.servers"));
    let key = |list: &[&str]| {
        let list: Vec<String> = list.iter().map(|it| super::document::quoted(it)).collect();
        Key::new("brokers", format!("[{}]", list.join(", ")))
    };
    match given {
        None if debezium.is_server() => {
            key(&[BROKERS]).say(format!("The file has no {prefix}bootstrap.servers: set it here."))
        }
        None => key(&[BROKERS]).say("Set this to the worker's bootstrap.servers."),
        Some(given) => {
            let list: Vec<&str> = given.value.split(',').map(broker).collect();
            if list.iter().all(|it| is_broker(it)) {
                return key(&list);
            }
            key(&[BROKERS]).say(format!("{} is {}: set it here.", given.name, given.text()))
        }
    }
}

/// Java takes a protocol in front, and ignores it.
fn broker(text: &str) -> &str {
    text.trim().rsplit_once("://").map_or(text.trim(), |(_, broker)| broker)
}

fn is_broker(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(name),
    };
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    host && digits && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// What becomes of a property.
enum Property {
    Set(Vec<(&'static str, String)>),
    Dropped(String),
    /// Another one tells of it.
    Said,
}

fn property(name: &str, value: &str, stores: &[String; 2]) -> Property {
    let dropped = |reason: &str| Property::Dropped(reason.to_owned());
    if let Some(property) = login(name, value).or_else(|| store(name, value, stores)) {
        return property;
    }
    if let Some((_, reason)) = DROPPED.iter().find(|(begin, _)| name.starts_with(begin)) {
        return dropped(reason);
    }
    let same = SAME.iter().find(|it| **it == name).copied();
    let renamed = RENAMED.iter().find(|(it, _)| *it == name).map(|(_, it)| *it);
    let Some(ours) = same.or(renamed) else { return dropped("librdkafka has no such property") };
    if value.contains("${") {
        let reason = format!("its value comes from outside of the file; set {ours} here");
        return Property::Dropped(reason);
    }
    let value = match ours {
        "security.protocol" | "compression.type" => value.to_ascii_lowercase(),
        _ => value.to_owned(),
    };
    if ClientConfig::new().set(ours, value.as_str()).create_native_config().is_err() {
        return Property::Dropped(format!("librdkafka does not take its value as {ours}"));
    }
    Property::Set(vec![(ours, value)])
}

/// What holds secrets, which are not printed.
fn login(name: &str, value: &str) -> Option<Property> {
    let variable = match name {
        "sasl.jaas.config" => {
            return Some(Property::Dropped(
                "set sasl.username here, and the password as \
                 WALRELAY__KAFKA__PROPERTIES__SASL_PASSWORD; for OAUTHBEARER see librdkafka's \
                 sasl.oauthbearer.*"
                    .to_owned(),
            ));
        }
        "ssl.key.password" | "ssl.keystore.password" => name.to_ascii_uppercase().replace('.', "_"),
        "ssl.truststore.password" => return Some(Property::Said),
        "ssl.endpoint.identification.algorithm" => {
            let value = if value.is_empty() { "none" } else { "https" };
            let ours = "ssl.endpoint.identification.algorithm";
            return Some(Property::Set(vec![(ours, value.to_owned())]));
        }
        _ => return None,
    };
    let reason = format!("a secret; give it as WALRELAY__KAFKA__PROPERTIES__{variable}");
    Some(Property::Dropped(reason))
}

/// Files of keys and certificates: librdkafka reads PEM, and PKCS #12 for its own key.
fn store(name: &str, value: &str, [trust, key]: &[String; 2]) -> Option<Property> {
    if value.contains("${") {
        return None;
    }
    let value = value.to_owned();
    Some(match (name, trust.as_str(), key.as_str()) {
        ("ssl.truststore.location", "PEM", _) => Property::Set(vec![("ssl.ca.location", value)]),
        ("ssl.truststore.location", ..) => Property::Dropped(
            "a store of Java's; write its certificates as PEM and set ssl.ca.location".to_owned(),
        ),
        ("ssl.keystore.location", _, "PEM") => Property::Set(vec![
            ("ssl.certificate.location", value.clone()),
            ("ssl.key.location", value),
        ]),
        ("ssl.keystore.location", _, "PKCS12") => {
            Property::Set(vec![("ssl.keystore.location", value)])
        }
        ("ssl.keystore.location", ..) => Property::Dropped(
            "a store of Java's; convert it to PKCS #12 and set ssl.keystore.location, or to PEM \
             and set ssl.certificate.location and ssl.key.location"
                .to_owned(),
        ),
        ("ssl.truststore.type" | "ssl.keystore.type", ..) => Property::Said,
        _ => return None,
    })
}
