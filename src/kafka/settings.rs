//! librdkafka's configuration: the operator's properties under the ones the promise rests on.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::Config;

/// Set unless `[kafka.properties]` says otherwise.
const DEFAULTS: [(&str, &str); 6] = [
    ("client.id", "walrelay"),
    // librdkafka waits up to ten seconds before it tries a broker again, with Kafka long back.
    ("reconnect.backoff.max.ms", "1000"),
    // A topic that comes into being by a typo has one partition and one replica.
    ("allow.auto.create.topics", "false"),
    // A fast stream is read in gulps, which make the batches; of a slow one nothing is to wait.
    ("linger.ms", "0"),
    ("socket.keepalive.enable", "true"),
    // Nobody looks at librdkafka's numbers; ours are on /metrics.
    ("statistics.interval.ms", "0"),
];

/// librdkafka's default for `batch.size`.
const BATCH_BYTES: usize = 1_000_000;

/// Never left to the operator; the configuration refuses them with the reason.
const OURS: [(&str, &str); 5] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // A failure between two records must not let the second one through.
    ("enable.gapless.guarantee", "true"),
    // An outage is back-pressure. A record that times out leaves a gap behind which the next
    // ones are delivered, and may yet be written itself.
    ("message.timeout.ms", "0"),
    // Our own bounds are below librdkafka's, in bytes.
    ("queue.buffering.max.messages", "0"),
];

/// What Kafka clients are made from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The producer.
    pub producer: ClientConfig,
    /// The consumer that reads the position record, and the client that asks about topics.
    pub client: ClientConfig,
    /// Whether the producer compresses.
    pub compresses: bool,
    /// The most bytes that it puts into a batch of several records.
    pub batch_bytes: usize,
}

impl Settings {
    /// The operator's properties under the ones the promise rests on.
    pub fn new(config: &Config) -> Settings {
        let producer = producer(config);
        let kinds = ["compression.codec", "compression.type"].map(|name| producer.get(name));
        let compresses = kinds.iter().flatten().any(|kind| *kind != "none");
        let batch_bytes = producer.get("batch.size").and_then(|size| size.parse().ok());
        let batch_bytes = batch_bytes.unwrap_or(BATCH_BYTES);
        Settings { client: consumer(config), producer, compresses, batch_bytes }
    }
}

fn producer(config: &Config) -> ClientConfig {
    let mut settings = ClientConfig::new();
    for (name, value) in DEFAULTS {
        settings.set(name, value);
    }
    for (name, value) in &config.kafka.properties {
        settings.set(name, value);
    }
    for (name, value) in OURS {
        settings.set(name, value);
    }
    // Passed on to our log, which has a level of its own.
    settings.set_log_level(RDKafkaLogLevel::Debug);
    settings.set("bootstrap.servers", config.kafka.brokers.join(","));
    // The bound on bytes in flight is kept by the frontier, which lets one larger record through
    // alone; librdkafka's own bound only has to be beyond both.
    let bound = config.delivery.max_in_flight_bytes.saturating_mul(2) / 1024 + 1024 * 1024;
    settings.set("queue.buffering.max.kbytes", bound.min(2_147_483_647).to_string());
    settings
}

/// Properties that a consumer and an admin client share with the producer, by how they begin: what
/// it takes to get through to the brokers.
const SHARED: [&str; 9] = [
    "broker.",
    "client.",
    "enable.sasl",
    "enable.ssl",
    "https.",
    "sasl.",
    "security.",
    "socket.",
    "ssl.",
];

fn consumer(config: &Config) -> ClientConfig {
    let mut settings = ClientConfig::new();
    for (name, value) in &config.kafka.properties {
        if SHARED.iter().any(|shared| name.starts_with(shared)) {
            settings.set(name, value);
        }
    }
    settings
        .set("bootstrap.servers", config.kafka.brokers.join(","))
        // Demanded by librdkafka and never used: the partition is assigned, no offset is stored.
        .set("group.id", "walrelay-positions")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error");
    settings
}

#[cfg(test)]
mod tests {
    /// A topic that was missing from the meta data for a moment lost records without a word up to
    /// 1.8, and in rarer cases up to 2.9 (librdkafka's change log: #3712, #4970).
    #[test]
    fn d15_librdkafka_is_one_that_loses_nothing_by_itself() {
        let version = crate::metrics::librdkafka_version();
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        assert!((numbers.next(), numbers.next()) >= (Some(2), Some(10)), "{version}");
    }
}
