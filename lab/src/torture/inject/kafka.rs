//! What happens to Kafka.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Hurt;
use crate::load::{Kind, write_one};
use crate::torture::fault::Fault;
use crate::torture::stage::{NAME, PATIENCE, RECORD_MAX, blocking};
use crate::{Signal, eventually};

/// What no row of the load's usual kinds has.
const LARGE: u32 = 200_000;

impl Hurt<'_> {
    pub(super) async fn kafka_away(&self) -> Result<String> {
        let (kafka, again) = (Arc::clone(&self.stage.kafka), Arc::clone(&self.stage.kafka));
        let killed = self.fault == Fault::KafkaKilled;
        blocking(move || if killed { kafka.kill_9() } else { kafka.stop() }).await?;
        let kafka = &self.stage.kafka;
        ensure!(!kafka.is_running(), "it runs");
        self.last().await;
        blocking(move || again.start_again()).await?;
        Ok("the process was gone".to_owned())
    }

    pub(super) async fn kafka_frozen(&self) -> Result<String> {
        let kafka = &self.stage.kafka;
        kafka.signal(Signal::Stop)?;
        let frozen = async || kafka.state() == Some('T');
        eventually(PATIENCE, "Kafka to freeze", frozen).await?;
        self.last().await;
        kafka.signal(Signal::Cont)?;
        Ok("state T".to_owned())
    }

    pub(super) async fn partitions_added(&self) -> Result<String> {
        let (before, after) = {
            let counts = self.stage.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let before = counts.last().copied().unwrap_or(1);
            (before, before * 2 + 1)
        };
        self.stage.kafka.add_partitions(NAME, after).await?;
        self.stage.counts.lock().unwrap_or_else(PoisonError::into_inner).push(after);
        Ok(format!("{after} leaders, and were {before}"))
    }

    /// A row that is too large now halts the relay, until the topic takes it again.
    pub(super) async fn message_bytes_lowered(&self) -> Result<String> {
        self.stage.kafka.set_topic(NAME, "max.message.bytes", "100000").await?;
        let client = self.stage.writer().await?;
        write_one(client, self.stage.plan.shape, &self.stage.history, Kind::Padded(LARGE)).await?;
        let relay = &self.stage.relay;
        let told = async || {
            let (status, text) = relay.get("/readyz").await.ok()?;
            (status == 503 && text.contains("max.message.bytes")).then_some(text)
        };
        let said = eventually(PATIENCE, "/readyz to tell of the row", told).await?;
        self.stage.poisoned.fetch_add(1, Ordering::SeqCst);
        // A batch that the topic may not take is told of before any row is.
        if self.stage.plan.choices.batch_bytes < 100_000 {
            let counted = async || relay.metric("walrelay_poison_total").await >= Some(1.0);
            eventually(PATIENCE, "the row to be counted as poison", counted).await?;
        }
        self.last().await;
        self.stage.kafka.set_topic(NAME, "max.message.bytes", RECORD_MAX).await?;
        Ok(said.trim().to_owned())
    }

    pub(super) async fn write_denied(&self) -> Result<String> {
        self.acl(&["--add", "--allow-principal", "User:*", "--operation", "All"]).await?;
        let deny = ["--deny-principal", "User:*", "--operation", "Write"];
        self.acl(&[&["--add"], deny.as_slice()].concat()).await?;
        let relay = &self.stage.relay;
        let told = async || {
            let (status, text) = relay.get("/readyz").await.ok()?;
            (status == 503 && text.contains("needs WRITE")).then_some(text)
        };
        let said = eventually(PATIENCE, "/readyz to tell of the right", told).await?;
        self.last().await;
        self.acl(&[&["--remove"], deny.as_slice()].concat()).await?;
        Ok(said.trim().to_owned())
    }

    /// So little that the broker does not read on for a while after one large row.
    pub(super) async fn quota(&self) -> Result<String> {
        const CONFIG: &str = "producer_byte_rate=20000";
        let entity = ["--entity-type", "clients", "--entity-default"];
        let alter = async |how, config| {
            let change = ["--alter", how, config];
            self.tool("kafka.admin.ConfigCommand", &[entity.as_slice(), &change].concat()).await
        };
        alter("--add-config", CONFIG).await?;
        let described = [entity.as_slice(), &["--describe"]].concat();
        let said = self.tool("kafka.admin.ConfigCommand", &described).await?;
        ensure!(said.contains("producer_byte_rate"), "no quota: {said}");
        // What eleven seconds allow, and more.
        self.persist(async || self.write(Kind::Padded(500_000)).await).await?;
        self.no_ack_for(2.0).await?;
        self.last().await;
        alter("--delete-config", "producer_byte_rate").await?;
        Ok(format!("{}; no ack for 2 s", said.trim()))
    }

    /// Everything is read before, so that what is lost with the topic is not missed.
    pub(super) async fn topic_recreated(&self) -> Result<String> {
        let load = self.stage.load()?;
        // Nobody else may write between what is read and the deletion, or it would be lost.
        let quiet = self.stage.writing.write().await;
        load.pause().await?;
        self.stage.followed(PATIENCE).await?;
        // The last of it may have been repeated by a relay that was killed just now.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let read = self.stage.read().await?;
        let records = read.len();
        self.stage.deleted.lock().unwrap_or_else(PoisonError::into_inner).push(read);
        self.stage.kafka.delete_topic(NAME).await?;
        // Brokers hear of it one after the other, and take records until they do: then they rename
        // the folder.
        let folder = format!("{NAME}-");
        let gone = async || {
            self.stage.kafka.brokers().iter().all(|broker| {
                let folders = std::fs::read_dir(broker.data_dir()).into_iter().flatten().flatten();
                let mut names = folders.map(|entry| entry.file_name().display().to_string());
                names.all(|name| !name.starts_with(&folder) || name.ends_with("-delete"))
            })
        };
        eventually(PATIENCE, "the brokers to give the topic up", gone).await?;
        load.resume();
        drop(quiet);
        self.last().await;
        let unready = async || !self.stage.is_ready().await;
        eventually(PATIENCE, "the relay to miss its topic", unready).await?;
        let partitions = {
            let counts = self.stage.counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.last().copied().unwrap_or(1)
        };
        let record_max = [("max.message.bytes", RECORD_MAX)];
        self.stage.kafka.create_topic_with(NAME, partitions, &record_max).await?;
        Ok(format!("{records} records were deleted"))
    }

    async fn acl(&self, args: &[&str]) -> Result<String> {
        let topic = [args, &["--force", "--topic", NAME]].concat();
        self.tool("org.apache.kafka.tools.AclCommand", &topic).await
    }

    pub(super) async fn tool(&self, class: &str, args: &[&str]) -> Result<String> {
        let bootstrap = self.stage.kafka.bootstrap();
        let args = [&["--bootstrap-server", &bootstrap], args].concat();
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let (kafka, class) = (Arc::clone(&self.stage.kafka), class.to_owned());
        blocking(move || {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            kafka.run_tool(&class, &args, "")
        })
        .await
    }
}
