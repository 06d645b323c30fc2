//! Topics of a broker. Each change is waited for until clients can see it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication, TopicResult,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};

use super::Kafka;
use crate::eventually;

const TIMEOUT: Duration = Duration::from_secs(30);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

impl Kafka {
    /// Creates a topic and waits until each of its partitions has a leader.
    pub async fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.create_topic_with(name, partitions, &[]).await
    }

    /// The same with topic settings, for example `("max.message.bytes", "1000")`.
    pub async fn create_topic_with(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
        let results = self.admin()?.create_topics([&topic], &options()).await;
        all_right(results).with_context(|| format!("create topic {name}"))?;
        self.wait_for_partitions(name, partitions).await
    }

    /// Deletes a topic and waits until no client sees it any more.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        let results = self.admin()?.delete_topics(&[name], &options()).await;
        all_right(results).with_context(|| format!("delete topic {name}"))?;
        eventually(TIMEOUT, format!("topic {name} to be gone"), async || {
            self.leaders(name).await.is_ok_and(|leaders| leaders.is_empty())
        })
        .await
    }

    /// Raises the partitions of a topic to `total` and waits until each has a leader.
    pub async fn add_partitions(&self, name: &str, total: i32) -> Result<()> {
        let partitions = NewPartitions::new(name, usize::try_from(total)?);
        let results = self.admin()?.create_partitions([&partitions], &options()).await;
        all_right(results).with_context(|| format!("add partitions to {name}"))?;
        self.wait_for_partitions(name, total).await
    }

    async fn wait_for_partitions(&self, name: &str, partitions: i32) -> Result<()> {
        let wanted = usize::try_from(partitions)?;
        eventually(TIMEOUT, format!("{partitions} leaders of topic {name}"), async || {
            let leaders = self.leaders(name).await.unwrap_or_default();
            leaders.iter().filter(|&&leader| leader >= 0).count() == wanted
        })
        .await
    }

    /// The leader of each partition, -1 where there is none.
    async fn leaders(&self, topic: &str) -> Result<Vec<i32>> {
        let (bootstrap, topic) = (self.bootstrap(), topic.to_owned());
        let fetched = tokio::task::spawn_blocking(move || -> Result<Vec<i32>> {
            let consumer = metadata_client(&bootstrap)?;
            let metadata = consumer.fetch_metadata(Some(&topic), REQUEST_TIMEOUT)?;
            let topics = metadata.topics().iter().filter(|found| found.name() == topic);
            let partitions = topics.flat_map(MetadataTopic::partitions);
            Ok(partitions.map(MetadataPartition::leader).collect())
        });
        fetched.await?
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(quiet(&self.bootstrap()).create()?)
    }
}

/// Whether the broker has registered itself and names itself to clients.
pub(super) fn has_broker(bootstrap: &str) -> bool {
    metadata_client(bootstrap).is_ok_and(|client| {
        let metadata = client.fetch_metadata(None, REQUEST_TIMEOUT);
        metadata.is_ok_and(|metadata| !metadata.brokers().is_empty())
    })
}

fn metadata_client(bootstrap: &str) -> Result<BaseConsumer> {
    Ok(quiet(bootstrap).create()?)
}

/// A client that does not write about refused connections: those are the lab's daily bread.
fn quiet(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set_log_level(RDKafkaLogLevel::Emerg);
    config
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

fn all_right(results: rdkafka::error::KafkaResult<Vec<TopicResult>>) -> Result<()> {
    let results = results?;
    ensure!(!results.is_empty(), "the broker answered nothing");
    for result in results {
        result.map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))?;
    }
    Ok(())
}
