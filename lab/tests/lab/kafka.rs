//! The broker starts, dies and comes back with what it had.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::reader::Isolation;
use lab::{Kafka, Reader, Signal, eventually, read_all, wait_until};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::LONG;

fn produce(bootstrap: &str, topic: &str, keys: &[&str]) -> Result<()> {
    produce_within(LONG, bootstrap, topic, keys)
}

fn produce_within(patience: Duration, bootstrap: &str, topic: &str, keys: &[&str]) -> Result<()> {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("acks", "all").create()?;
    for key in keys {
        let header = Header { key: "h", value: Some("v") };
        let headers = OwnedHeaders::new().insert(header);
        let record = BaseRecord::to(topic).key(*key).payload(*key).headers(headers);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(patience)?;
    Ok(())
}

#[tokio::test]
async fn a_killed_broker_returns_with_its_records() -> Result<()> {
    let kafka = Kafka::start()?;
    kafka.create_topic("kept", 2).await?;
    produce(&kafka.bootstrap(), "kept", &["a", "b", "c"])?;
    let before = read_all(&kafka.bootstrap(), "kept")?;
    assert_eq!(before.len(), 3);
    assert_eq!(before[0].header("h").as_deref(), Some("v"));
    assert!(before[0].timestamp_ms.context("a timestamp")? > 0);

    kafka.kill_9()?;
    assert!(!kafka.is_running());
    kafka.start_again()?;

    assert_eq!(read_all(&kafka.bootstrap(), "kept")?, before);
    produce(&kafka.bootstrap(), "kept", &["d"])?;
    assert_eq!(read_all(&kafka.bootstrap(), "kept")?.len(), 4);
    kafka.stop()?;
    Ok(())
}

#[tokio::test]
async fn a_frozen_broker_is_seen_frozen() -> Result<()> {
    let kafka = Kafka::start()?;
    kafka.signal(Signal::Stop)?;
    wait_until(LONG, "T", || kafka.state() == Some('T'))?;
    kafka.signal(Signal::Cont)?;
    kafka.create_topic("thawed", 1).await
}

#[tokio::test]
async fn topics_change_and_readers_go_on() -> Result<()> {
    let kafka = Kafka::shared();
    kafka.create_topic_with("changing", 1, &[("max.message.bytes", "2000")]).await?;
    let mut reader = Reader::open_with(&kafka.bootstrap(), "changing", Isolation::Uncommitted)?;
    assert!(reader.read_to_end(LONG)?.is_empty());
    for round in 1..=2 {
        produce(&kafka.bootstrap(), "changing", &["x"])?;
        assert_eq!(reader.poll_until(round, LONG)?.len(), round);
        assert_eq!(reader.read_to_end(LONG)?.len(), round);
        assert_eq!(reader.read_to_end(LONG)?.len(), round);
    }
    kafka.add_partitions("changing", 3).await?;
    assert_eq!(read_all(&kafka.bootstrap(), "changing")?.len(), 2);
    kafka.delete_topic("changing").await?;
    assert!(read_all(&kafka.bootstrap(), "changing").is_err());
    Ok(())
}

/// A Java producer, as other services of our users have: the reference for partitions.
#[tokio::test]
async fn the_console_producer_writes_keys() -> Result<()> {
    let kafka = Kafka::shared();
    kafka.create_topic("from-java", 8).await?;
    let args = [
        "--bootstrap-server",
        &kafka.bootstrap(),
        "--topic",
        "from-java",
        "--reader-property",
        "parse.key=true",
        "--reader-property",
        "key.separator=:",
    ];
    let input = "one:1\ntwo:2\nthree:3\n";
    kafka.run_tool("org.apache.kafka.tools.ConsoleProducer", &args, input)?;
    let mut pairs: Vec<_> = read_all(&kafka.bootstrap(), "from-java")?
        .iter()
        .map(|record| (record.key_text(), record.payload_text()))
        .collect();
    pairs.sort();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(pairs, [pair("one", "1"), pair("three", "3"), pair("two", "2")]);
    Ok(())
}

#[tokio::test]
async fn clients_of_the_proxied_listener_stay_behind_the_proxy() -> Result<()> {
    let kafka = Kafka::shared();
    kafka.create_topic("behind-proxy", 1).await?;
    let proxy = lab::Proxy::start(Some(kafka.proxied_port()), kafka.proxied_target())?;
    produce(&kafka.proxied_bootstrap(), "behind-proxy", &["through"])?;
    // The first connection asks for the brokers, the second is the one they were told of.
    assert!(proxy.stats().connections >= 2, "{:?}", proxy.stats());
    assert_eq!(read_all(&kafka.bootstrap(), "behind-proxy")?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_cluster_survives_each_of_its_brokers_but_not_two() -> Result<()> {
    let kafka = Kafka::cluster(3)?;
    kafka.create_topic("led", 1).await?;
    produce(&kafka.bootstrap(), "led", &["a"])?;
    eventually(LONG, "three replicas", async || {
        kafka.in_sync("led", 0).await.is_ok_and(|n| n == 3)
    })
    .await?;

    let first = kafka.leader("led", 0).await?.context("a leader")?;
    first.kill_9()?;
    let led = async || {
        let leader = kafka.leader("led", 0).await.ok()??;
        (leader.id() != first.id()).then_some(leader)
    };
    let second = eventually(LONG, "another leader", led).await?;
    produce(&kafka.bootstrap(), "led", &["b"])?;

    // One of three has no quorum, and may not acknowledge.
    second.signal(Signal::Stop)?;
    wait_until(LONG, "T", || second.state() == Some('T'))?;
    assert_eq!(kafka.state(), None, "they are in different states");
    assert!(produce_within(Duration::from_secs(2), &kafka.bootstrap(), "led", &["c"]).is_err());
    second.signal(Signal::Cont)?;
    first.start_again()?;
    eventually(LONG, "all in sync", async || kafka.in_sync("led", 0).await.is_ok_and(|n| n == 3))
        .await?;
    let controller = kafka.active_controller()?;
    controller.stop()?;
    assert_ne!(kafka.active_controller()?.id(), controller.id());
    kafka.start_again()?;
    kafka.kill_9()?;
    kafka.start_again()?;
    assert!(read_all(&kafka.bootstrap(), "led")?.len() >= 2);
    kafka.restart()
}
