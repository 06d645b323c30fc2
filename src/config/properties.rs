//! Which of librdkafka's properties an operator may set, and which of them are secret.

use std::collections::BTreeMap;

use config::Value;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use super::secret::MASK;
use super::value::{describe_kind, scalar};

/// The properties that the promise rests on, each with the reason why it cannot be set.
const OURS: &[(&[&str], &str)] = &[
    (&["bootstrap.servers", "metadata.broker.list"], "set kafka.brokers instead"),
    (
        &["acks", "request.required.acks"],
        "always \"all\": an event that only the leader has is lost with the leader",
    ),
    (&["enable.idempotence"], "always on: without it, a retry can repeat and reorder events"),
    (
        &["enable.gapless.guarantee"],
        "always on: without it, events can be sent past one that failed",
    ),
    (
        &["message.timeout.ms", "delivery.timeout.ms"],
        "always unlimited: an event is tried until Kafka takes it; an outage only makes us wait",
    ),
    (
        &["retries", "message.send.max.retries"],
        "always unlimited: an event is tried until Kafka takes it",
    ),
    (
        &["queue.buffering.max.messages"],
        "unlimited, because delivery.max_in_flight is the bound; set that instead",
    ),
    (
        &["queue.buffering.max.kbytes"],
        "follows from delivery.max_in_flight_bytes; set that instead",
    ),
    (
        &["transactional.id"],
        "made from database and slot, so that Kafka shuts out an older relay of the same slot",
    ),
    (
        &["partitioner"],
        "walrelay picks the partition itself, the same one as a Java producer's default",
    ),
    (
        &["delivery.report.only.error"],
        "always off: Postgres is told of an event only after Kafka has acknowledged it",
    ),
    (&["opaque"], "used by walrelay itself"),
];

/// Above this, the idempotent producer cannot keep the order of retries.
const MAX_IN_FLIGHT: [&str; 2] = ["max.in.flight", "max.in.flight.requests.per.connection"];

/// Parts of the names of properties whose values are not shown.
const SECRET: [&str; 9] = [
    "password",
    "passphrase",
    "secret",
    "key.pem",
    "token",
    "jaas",
    "ssl.key",
    // Whatever a login needs, in one text.
    "sasl.oauthbearer.config",
    // May be a URL with a user and a password.
    "proxy",
];

/// Makes a text of a property's value, if the property may be set.
pub(super) fn property(name: &str, value: &Value) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || !name.chars().all(legal) {
        return Err("is not the name of a librdkafka property".to_owned());
    }
    if let Some((_, reason)) = OURS.iter().find(|(names, _)| names.contains(&name)) {
        return Err(format!("cannot be set: {reason}"));
    }
    if name.ends_with("_cb") {
        return Err("cannot be set: callbacks are code".to_owned());
    }
    let text = scalar(value).ok_or_else(|| {
        format!("expected text, a number, true or false, got {}", describe_kind(value))
    })?;
    if MAX_IN_FLIGHT.contains(&name) && !text.parse().is_ok_and(|n: u32| (1..=5).contains(&n)) {
        return Err(format!(
            "expected a whole number from 1 to 5, because above 5 a retry can reorder events, \
             got {text:?}"
        ));
    }
    check_with_librdkafka(name, &text)?;
    Ok(text)
}

/// librdkafka knows its properties best: names, ranges, and what it was built without. What
/// contradicts each other is only found when the producer is made.
fn check_with_librdkafka(name: &str, value: &str) -> Result<(), String> {
    match ClientConfig::new().set(name, value).create_native_config() {
        Err(KafkaError::ClientConfig(_, _, _, _)) if is_secret(name) => {
            Err("librdkafka does not take this value".to_owned())
        }
        Err(KafkaError::ClientConfig(_, reason, _, _)) => Err(format!("librdkafka: {reason}")),
        Err(error) => Err(format!("librdkafka: {error}")),
        Ok(_) => Ok(()),
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|part| name.contains(part))
}

/// The properties as they can be shown.
pub(super) fn masked(properties: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    properties
        .iter()
        .map(|(name, value)| (name.as_str(), if is_secret(name) { MASK } else { value.as_str() }))
}
