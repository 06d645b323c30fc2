//! Debezium Server as it comes, and tuned.

use anyhow::Result;
use lab::debezium::properties;
use lab::{Database, Debezium};

/// Larger batches, asked for more often: what its documentation offers for throughput.
const TUNED: &str = "
debezium.source.poll.interval.ms=10
debezium.source.max.batch.size=16384
debezium.source.max.queue.size=65536
debezium.sink.kafka.producer.linger.ms=5
debezium.sink.kafka.producer.batch.size=1000000
debezium.sink.kafka.producer.buffer.memory=134217728
debezium.sink.kafka.producer.compression.type=lz4
";

/// Reads a slot into a topic, through its outbox event router with one more header.
pub fn start(database: &Database, brokers: &str, slot: &str, tuned: bool) -> Result<Debezium> {
    let lines = format!(
        "debezium.sink.kafka.producer.value.serializer=\
org.apache.kafka.common.serialization.StringSerializer
debezium.format.key=simplestring
debezium.format.value=simplestring
debezium.transforms.outbox.route.topic.replacement={slot}
debezium.transforms.outbox.table.fields.additional.placement=type:header:eventType
"
    );
    let text = properties(database, brokers, slot, "walrelay") + &lines;
    Debezium::start(&if tuned { text + TUNED } else { text })
}
