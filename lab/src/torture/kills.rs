//! SIGKILL to the relay, again and again under load.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::history::checker::Verdict;
use crate::load::{Load, may_be_repeated};
use crate::torture::plan::Plan;
use crate::torture::run::{catch_up, verdict_on};
use crate::torture::stage::{PATIENCE, Stage};
use crate::torture::watch::Watch;

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// How often the relay was killed.
    pub kills: u32,
    /// What was written.
    pub events: u64,
    /// The most that may have come twice, over all kills.
    pub bound: u64,
    /// The most that may have come twice after one of them.
    pub bound_of_one: u64,
    /// The most memory that any of the processes took, in MiB.
    pub peak_mib: u64,
    /// The most that they may take.
    pub peak_max_mib: u64,
    /// What arrived.
    pub verdict: Verdict,
}

impl Report {
    /// Nothing lost, nothing out of order, and no more repeats than may be, without a hole; all
    /// within the memory.
    pub fn is_good(&self) -> bool {
        let Verdict { repeated, longest_run, torn, .. } = self.verdict;
        let bounded = repeated <= self.bound && longest_run <= self.bound_of_one && torn == 0;
        let measured = self.peak_mib > 0 && self.peak_mib <= self.peak_max_mib;
        self.verdict.is_faithful() && bounded && measured
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { kills, events, bound, bound_of_one, peak_mib, peak_max_mib, verdict } = self;
        write!(
            f,
            "{kills} kills, {events} events; at most {bound} repeats, {bound_of_one} in a row: \
             {verdict}; peak {peak_mib} MiB of {peak_max_mib}"
        )
    }
}

/// Kills the relay of a plan so many times, each time at another moment of its life.
pub async fn run(plan: Plan, kills: u32, binary: &Path) -> Result<Report> {
    let plan = Plan { faults: Vec::new(), ..plan };
    let stage = Stage::set(plan, binary).await.context("set the stage")?;
    let watch = Watch::default();
    let report = tokio::select! {
        report = kill(&stage, kills) => report?,
        () = watch.run(&stage) => bail!("nobody watches"),
    };
    Ok(Report { peak_mib: watch.seen().peak_rss_bytes >> 20, ..report })
}

async fn kill(stage: &Stage, kills: u32) -> Result<Report> {
    let status = Duration::from_millis(stage.plan.choices.status_interval_ms);
    let history = &stage.history;
    let load = Load::start_at(&stage.writers_url(), stage.plan.shape, history).await?;
    let (mut bound, mut bound_of_one) = (0, 0);
    for round in 0..u64::from(kills) {
        // Spread over the phases of a status interval.
        let alive = status + Duration::from_millis(300 + round * 7919 % 1300);
        let of_one = may_be_repeated(&stage.relay, alive, status).await;
        stage.kill_relay()?;
        stage.relay.wait_ready(PATIENCE).await?;
        bound += of_one;
        bound_of_one = bound_of_one.max(of_one);
    }
    let events = load.stop().await?;
    catch_up(stage).await?;
    let truth = history.settle(&stage.writer().await?).await?;
    let verdict = verdict_on(stage, &truth).await?;
    let (peak_mib, peak_max_mib) = (0, stage.plan.memory_max_mib());
    Ok(Report { kills, events, bound, bound_of_one, peak_mib, peak_max_mib, verdict })
}
