//! What happens to one broker of three.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::Hurt;
use crate::eventually;
use crate::torture::stage::{NAME, PATIENCE, blocking};

/// As many as hold each partition.
const REPLICAS: usize = 3;

impl Hurt<'_> {
    pub(super) async fn leader_killed(&self) -> Result<String> {
        let kafka = &self.stage.kafka;
        let leader = kafka.leader(NAME, 0).await?.context("nobody leads")?;
        leader.kill_9()?;
        let another = async || {
            let found = kafka.leader(NAME, 0).await.ok()??;
            (found.id() != leader.id()).then(|| found.id())
        };
        let now = eventually(PATIENCE, "another leader", another).await?;
        self.last().await;
        self.start_brokers().await?;
        Ok(format!("broker {} was killed, and {now} led", leader.id()))
    }

    /// With all replicas demanded, one that is dead is one too many; the controllers have a quorum,
    /// which tells that it is out of sync.
    pub(super) async fn too_few_in_sync(&self) -> Result<String> {
        let kafka = &self.stage.kafka;
        self.demand(&["--add-config", &format!("min.insync.replicas={REPLICAS}")]).await?;
        let leader = kafka.leader(NAME, 0).await?.context("nobody leads")?.id();
        let dead = kafka.brokers().iter().find(|it| it.id() != leader).context("one broker")?;
        dead.kill_9()?;
        let fewer = async || kafka.in_sync(NAME, 0).await.ok().filter(|now| *now < REPLICAS);
        let left = eventually(PATIENCE, "fewer replicas in sync", fewer).await?;
        self.no_ack_for(3.0).await?;
        self.last().await;
        let still = kafka.in_sync(NAME, 0).await?;
        ensure!(still < REPLICAS, "{still} replicas were in sync");
        self.start_brokers().await?;
        self.demand(&["--delete-config", "min.insync.replicas"]).await?;
        Ok(format!("{left} of {REPLICAS} replicas were in sync; no ack for 3 s"))
    }

    /// Changes how many replicas of the topic have to be in sync.
    async fn demand(&self, change: &[&str]) -> Result<()> {
        let topic = ["--entity-type", "topics", "--entity-name", NAME, "--alter"];
        let args = [&topic, change].concat();
        self.tool("kafka.admin.ConfigCommand", &args).await.map(drop)
    }

    pub(super) async fn controller_killed(&self) -> Result<String> {
        let find = || {
            let kafka = Arc::clone(&self.stage.kafka);
            blocking(move || Ok(kafka.active_controller()?.id()))
        };
        let controller = find().await?;
        self.stage.kafka.broker(controller)?.kill_9()?;
        let another = async || find().await.ok().filter(|found| *found != controller);
        let now = eventually(PATIENCE, "another controller", another).await?;
        self.last().await;
        self.start_brokers().await?;
        Ok(format!("controller {controller} was killed, and {now} took over"))
    }

    /// Those that do not run, and waits until they have caught up.
    async fn start_brokers(&self) -> Result<()> {
        let kafka = Arc::clone(&self.stage.kafka);
        blocking(move || kafka.start_again()).await?;
        let whole = async || self.stage.kafka.in_sync(NAME, 0).await.ok() == Some(REPLICAS);
        eventually(PATIENCE, "all replicas to be in sync", whole).await
    }
}
