//! What happens to one or two brokers of three.

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
        self.last().await?;
        self.start_brokers().await?;
        Ok(format!("broker {} was killed, and {now} led", leader.id()))
    }

    pub(super) async fn too_few_in_sync(&self) -> Result<String> {
        let kafka = &self.stage.kafka;
        let spared = kafka.leader(NAME, 0).await?.context("nobody leads")?.id();
        let killed: Vec<_> = kafka.brokers().iter().filter(|it| it.id() != spared).collect();
        killed.iter().try_for_each(|broker| broker.kill_9())?;
        self.last().await?;
        ensure!(killed.iter().all(|broker| !broker.is_running()), "they run");
        self.start_brokers().await?;
        Ok(format!("only broker {spared} ran"))
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
        self.last().await?;
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
