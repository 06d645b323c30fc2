//! Topics of a broker. Each change is waited for until clients can see it.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication, TopicResult,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};

use super::{Broker, Kafka};
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
        // As many replicas as there are brokers.
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
        let results = self.admin()?.create_topics([&topic], &options()).await;
        all_right(results).with_context(|| format!("create topic {name}"))?;
        self.wait_for_partitions(name, partitions).await
    }

    /// Creates many topics at once.
    pub async fn create_topics(&self, names: &[String], partitions: i32) -> Result<()> {
        let topics: Vec<NewTopic<'_>> = names
            .iter()
            .map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(-1)))
            .collect();
        let results = self.admin()?.create_topics(&topics, &options()).await;
        all_right(results).context("create topics")?;
        let partitions = usize::try_from(partitions)?;
        eventually(TIMEOUT, "all topics to have leaders", async || {
            let led = self.led_partitions().await.ok()?;
            names.iter().all(|name| led.get(name) == Some(&partitions)).then_some(())
        })
        .await
    }

    /// How many partitions of each topic have a leader.
    async fn led_partitions(&self) -> Result<HashMap<String, usize>> {
        let bootstrap = self.bootstrap();
        let fetched = tokio::task::spawn_blocking(move || -> Result<HashMap<String, usize>> {
            let metadata = metadata_client(&bootstrap)?.fetch_metadata(None, REQUEST_TIMEOUT)?;
            let led = |topic: &MetadataTopic| {
                topic.partitions().iter().filter(|partition| partition.leader() >= 0).count()
            };
            let topics = metadata.topics().iter();
            Ok(topics.map(|topic| (topic.name().to_owned(), led(topic))).collect())
        });
        fetched.await?
    }

    /// Deletes many topics at once.
    pub async fn delete_topics(&self, names: &[String]) -> Result<()> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let results = self.admin()?.delete_topics(&names, &options()).await;
        all_right(results).context("delete topics")
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
        match results {
            // It may have been done all the same.
            Err(error)
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut) => {}
            results => all_right(results).with_context(|| format!("add partitions to {name}"))?,
        }
        self.wait_for_partitions(name, total).await
    }

    /// Sets the one setting of a topic that is not the cluster's; all others are again.
    pub async fn set_topic(&self, name: &str, setting: &str, value: &str) -> Result<()> {
        let topic = AlterConfig::new(ResourceSpecifier::Topic(name)).set(setting, value);
        let results = self.admin()?.alter_configs([&topic], &options()).await?;
        ensure!(!results.is_empty(), "the broker answered nothing");
        for result in results {
            result.map_err(|(_, code)| anyhow::anyhow!("set {setting} of {name}: {code}"))?;
        }
        Ok(())
    }

    async fn wait_for_partitions(&self, name: &str, partitions: i32) -> Result<()> {
        let wanted = usize::try_from(partitions)?;
        eventually(TIMEOUT, format!("{partitions} leaders of topic {name}"), async || {
            let leaders = self.leaders(name).await.unwrap_or_default();
            leaders.iter().filter(|&&leader| leader >= 0).count() == wanted
        })
        .await
    }

    /// The broker that leads a partition, as the brokers that answer see it; `None` if none does.
    pub async fn leader(&self, topic: &str, partition: usize) -> Result<Option<&Broker>> {
        let leader = self.leaders(topic).await?.get(partition).copied();
        let leader = leader.with_context(|| format!("{topic} has no partition {partition}"))?;
        if leader < 0 { Ok(None) } else { self.broker(leader).map(Some) }
    }

    /// How many replicas of a partition have all of it.
    pub async fn in_sync(&self, topic: &str, partition: usize) -> Result<usize> {
        let in_sync = self.partitions(topic, |partition| partition.isr().len()).await?;
        in_sync.get(partition).copied().with_context(|| format!("{topic} has no such partition"))
    }

    /// The controller that leads the others. Blocks for a second, because it is a Java program
    /// that knows.
    pub fn active_controller(&self) -> Result<&Broker> {
        let args = ["--bootstrap-server", &self.bootstrap(), "describe", "--status"];
        let text = self.run_tool("org.apache.kafka.tools.MetadataQuorumCommand", &args, "")?;
        let id = text.lines().find_map(|line| line.strip_prefix("LeaderId:")?.trim().parse().ok());
        self.broker(id.with_context(|| format!("no leader in {text}"))?)
    }

    /// The leader of each partition, -1 where there is none.
    async fn leaders(&self, topic: &str) -> Result<Vec<i32>> {
        self.partitions(topic, MetadataPartition::leader).await
    }

    /// What is known of each partition; nothing of a topic that is not there.
    async fn partitions<T: Send + 'static>(
        &self,
        topic: &str,
        what: impl Fn(&MetadataPartition) -> T + Send + 'static,
    ) -> Result<Vec<T>> {
        let (bootstrap, topic) = (self.bootstrap(), topic.to_owned());
        let fetched = tokio::task::spawn_blocking(move || -> Result<Vec<T>> {
            let consumer = metadata_client(&bootstrap)?;
            let metadata = consumer.fetch_metadata(Some(&topic), REQUEST_TIMEOUT)?;
            let topics = metadata.topics().iter().filter(|found| found.name() == topic);
            Ok(topics.flat_map(MetadataTopic::partitions).map(what).collect())
        });
        fetched.await?
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(quiet(&self.bootstrap()).create()?)
    }
}

/// Whether the broker has registered itself and is named to clients.
pub(super) fn has_broker(bootstrap: &str, id: i32) -> bool {
    metadata_client(bootstrap).is_ok_and(|client| {
        let metadata = client.fetch_metadata(None, REQUEST_TIMEOUT);
        metadata.is_ok_and(|metadata| metadata.brokers().iter().any(|broker| broker.id() == id))
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
