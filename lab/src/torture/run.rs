//! One run: load and faults, then peace, then the verdict.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tokio::sync::Mutex;

use crate::eventually;
use crate::history::checker::{Verdict, check};
use crate::history::seen::Seen;
use crate::kafka::Broker;
use crate::load::Load;
use crate::torture::fault::{Fault, Side};
use crate::torture::inject::inject;
use crate::torture::judge::judge;
use crate::torture::placement::homes;
use crate::torture::plan::{Plan, Planned};
use crate::torture::stage::{Stage, Window};
use crate::torture::watch::{self, Watch};

/// From the last fault's end until everything is delivered, confirmed, and the relay ready.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);
/// So much later than planned, a fault is left out.
const LATE: Duration = Duration::from_secs(5);
/// How long one fault may take, its mending included.
const FAULT_MAX: Duration = Duration::from_secs(240);

/// What happened in a run.
#[derive(Debug)]
pub struct Report {
    /// What was planned.
    pub plan: Plan,
    /// Those of its faults that were played, with their mending.
    pub faults: Vec<Window>,
    /// What was written.
    pub events: u64,
    /// How long it took until all was well after the last fault.
    pub catch_up: Duration,
    /// What arrived.
    pub verdict: Verdict,
    /// What was seen meanwhile.
    pub watched: watch::Seen,
    /// Events that are gone in Postgres with a timeline that was left.
    pub diverged: u64,
    /// SIGKILLs of the relay.
    pub kills: u64,
    /// At how many looks the relay said of an outage that there is one.
    pub outage_looks: usize,
    /// The faults with their times and evidence.
    pub story: Vec<String>,
    /// What must not be.
    pub failures: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { plan, events, verdict, watched, .. } = self;
        write!(
            f,
            "seed {:<5} postgres {} {:>7} events {:>2} faults {:>6} repeats {:>5} diverged \
             catch-up {:4.1} s, silence {:4.1} s, outages told {:>3} times, peak {:>3} MiB, {}",
            plan.seed,
            plan.postgres,
            events,
            self.faults.len(),
            verdict.repeated,
            verdict.diverged,
            self.catch_up.as_secs_f64(),
            watched.longest_silence.as_secs_f64(),
            self.outage_looks,
            watched.peak_rss_bytes >> 20,
            if self.failures.is_empty() { "good" } else { "FAILED" },
        )
    }
}

/// Plays a plan. The logs of everything stay in `keep` if anything is wrong.
///
/// # Errors
/// If the run could not be brought to its end; the logs stay then, too.
pub async fn run(plan: Plan, binary: &Path, keep: &Path) -> Result<Report> {
    let stage = Stage::set(plan, binary).await.context("set the stage")?;
    let watch = Watch::default();
    let mut story = Vec::new();
    let played = tokio::select! {
        played = play(&stage, &watch, &mut story) => played,
        () = watch.run(&stage) => Err(anyhow!("nobody watches")),
    };
    let failed = played.as_ref().map_or(true, |report| !report.failures.is_empty());
    if failed {
        let folder = write_logs(&stage, &story, keep).context("keep the logs")?;
        eprintln!("seed {}: logs are in {}", stage.plan.seed, folder.display());
    }
    played.map(|report| Report { story, ..report }).with_context(|| stage.plan.to_string())
}

async fn play(stage: &Stage, watch: &Watch, story: &mut Vec<String>) -> Result<Report> {
    let load = Load::start_at(&stage.writers_url(), stage.plan.shape, &stage.history).await?;
    ensure!(stage.load.set(load).is_ok(), "a second load");
    let begun = Instant::now();
    let (played, mut failures) = faults(stage, begun, story).await;
    let healed = Instant::now();
    stage.load()?.pause().await?;
    let caught_up = catch_up(stage).await;
    let took = healed.elapsed();
    if let Err(error) = &caught_up {
        let (_, status) = stage.relay.get("/status").await.unwrap_or_default();
        failures.push(format!("stuck: {error:#}; /status {status}"));
    }
    let mut lost = 0..0;
    if let (Some(ending), Ok(())) = (stage.plan.ending, caught_up) {
        let ended = ending.play(stage).await.with_context(|| format!("{ending:?}"))?;
        story.push(format!("in the end {ending:?}: {}", ended.said));
        lost = ended.lost;
        catch_up(stage).await.context("stuck after the end")?;
    }
    let events = stage.load()?.stop().await?;
    let client = stage.writer().await?;
    let mut truth = stage.history.settle(&client).await.context("void")?;
    let gap = truth.forget(&lost);
    ensure!((gap > 0) != lost.is_empty(), "void: {gap} events in the gap {lost:?}");
    let verdict = verdict_on(stage, &truth).await?;
    let watched = watch.seen();
    let kills = stage.kills.load(Ordering::SeqCst);
    let plan = stage.plan.clone();
    let diverged = truth.diverged_events();
    let report = Report {
        plan,
        faults: played,
        events,
        catch_up: took,
        verdict,
        watched,
        diverged,
        kills,
        outage_looks: 0,
        story: Vec::new(),
        failures,
    };
    Ok(judge(stage, report))
}

/// Every fault at its time; those of one side one after the other.
async fn faults(
    stage: &Stage,
    begun: Instant,
    story: &mut Vec<String>,
) -> (Vec<Window>, Vec<String>) {
    let lanes: HashMap<Side, Mutex<()>> = [Side::Relay, Side::Postgres, Side::Kafka, Side::Load]
        .map(|side| (side, Mutex::new(())))
        .into();
    let play = async |planned: &Planned| {
        tokio::time::sleep_until((begun + planned.at).into()).await;
        let _lane = match lanes.get(&planned.fault.side()) {
            Some(lane) => Some(lane.lock().await),
            None => None,
        };
        // What only Postgres can end must not be ended by a fault of its own.
        let _quiet = match lanes.get(&Side::Postgres) {
            Some(lane) if planned.fault == Fault::RelayFrozenLong => Some(lane.lock().await),
            _ => None,
        };
        let at = begun.elapsed();
        // Each waits for the one before it to be over, and a slow machine must not add up.
        if at > stage.plan.length + LATE {
            return (planned.fault, at, at, None);
        }
        let done = tokio::time::timeout(FAULT_MAX, inject(stage, *planned)).await;
        let done = done.unwrap_or_else(|_| Err(anyhow!("not over after {FAULT_MAX:?}")));
        (planned.fault, at, begun.elapsed(), Some(done))
    };
    let length = async {
        tokio::time::sleep_until((begun + stage.plan.length).into()).await;
    };
    let all = futures_util::future::join_all(stage.plan.faults.iter().map(play));
    let (done, ()) = tokio::join!(all, length);
    let (mut played, mut failures) = (Vec::new(), Vec::new());
    for (fault, from, to, done) in done {
        if done.is_some() {
            played.push(Window { fault, from: begun + from, to: begun + to });
        }
        let (from, to) = (from.as_secs_f64(), to.as_secs_f64());
        let (told, void) = match &done {
            Some(Ok(evidence)) => (evidence.clone(), false),
            Some(Err(error)) => (format!("void: {error:#}"), true),
            None => ("left out, for it was too late".to_owned(), false),
        };
        story.push(format!("{from:7.2} to {to:6.2} s  {fault}: {told}"));
        if void {
            failures.extend(story.last().cloned());
        }
    }
    (played, failures)
}

/// Waits until everything is delivered and confirmed, and the relay ready.
pub(super) async fn catch_up(stage: &Stage) -> Result<()> {
    let until = Instant::now() + CATCH_UP_MAX;
    stage.followed(CATCH_UP_MAX).await?;
    let rest = until.saturating_duration_since(Instant::now());
    eventually(rest, "the relay to be ready", async || stage.is_ready().await).await
}

/// Reads the topic, and compares it with the truth.
pub(super) async fn verdict_on(stage: &Stage, truth: &crate::history::Truth) -> Result<Verdict> {
    let counts = stage.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut places: Vec<HashMap<u32, i32>> = Vec::new();
    for count in counts {
        places.push(homes(&stage.kafka, stage.plan.shape.keys, count).await?);
    }
    let deleted = stage.deleted.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut seen: Vec<Seen> = deleted.into_iter().flatten().collect();
    // The offsets of a new topic begin again; they go on for us.
    let past = i64::try_from(seen.len())?;
    let now = stage.read().await?;
    seen.extend(now.into_iter().map(|it| Seen { offset: it.offset + past, ..it }));
    Ok(check(truth, &seen, &|key| places.iter().filter_map(|it| it.get(&key).copied()).collect()))
}

/// Logs, schedule and story, where they outlive the servers.
fn write_logs(stage: &Stage, story: &[String], keep: &Path) -> Result<PathBuf> {
    let folder = keep.join(format!("seed-{}", stage.plan.seed));
    std::fs::create_dir_all(&folder)?;
    let mut logs = vec![
        ("plan", stage.plan.to_string()),
        ("story", story.join("\n")),
        ("relay.log", stage.relay.log()),
        ("kafka.log", stage.kafka.brokers().iter().map(Broker::log).collect()),
        ("postgres.log", stage.first.log()),
        ("walrelay.toml", std::fs::read_to_string(stage.relay.config_path())?),
    ];
    if let Some(standby) = &stage.standby {
        logs.push(("standby.log", standby.log()));
    }
    let second = stage.second_log.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if !second.is_empty() {
        logs.push(("second-relay.log", second));
    }
    for (name, text) in logs {
        std::fs::write(folder.join(name), text)?;
    }
    ensure!(folder.exists(), "no logs");
    Ok(folder)
}
