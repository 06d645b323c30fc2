//! Where Java's partitioner puts a key, asked of one who knows and is not under test.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::torture::stage::blocking;
use crate::{Kafka, read_all};

const TIMEOUT: Duration = Duration::from_secs(30);

/// The partition of each key `k0`, `k1`, … in a topic of so many partitions, as librdkafka's own
/// `murmur2_random` has it.
pub async fn homes(kafka: &Kafka, keys: u32, partitions: i32) -> Result<HashMap<u32, i32>> {
    let topic = format!("homes-{partitions}");
    kafka.create_topic(&topic, partitions).await?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("partitioner", "murmur2_random")
        .create()?;
    for key in 0..keys {
        let key = format!("k{key}");
        let record = BaseRecord::to(&topic).key(&key).payload("");
        producer.send(record).map_err(|(error, _)| error)?;
    }
    let bootstrap = kafka.bootstrap();
    let records = blocking(move || {
        producer.flush(TIMEOUT)?;
        read_all(&bootstrap, &topic)
    })
    .await?;
    let key = |text: &str| text.strip_prefix('k').and_then(|key| key.parse().ok());
    let homes: HashMap<u32, i32> = records
        .iter()
        .filter_map(|record| Some((key(&record.key_text())?, record.partition)))
        .collect();
    ensure!(homes.len() == usize::try_from(keys)?, "only {} keys have a home", homes.len());
    Ok(homes)
}
