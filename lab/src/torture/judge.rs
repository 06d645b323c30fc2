//! What must hold after a run.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::history::checker::Verdict;
use crate::torture::ending::Ending;
use crate::torture::fault::{Fault, Side, Wire};
use crate::torture::plan::Plan;
use crate::torture::run::Report;
use crate::torture::stage::{Stage, Window};
use crate::torture::watch::Sample;

/// Ready, nothing moves, and rows wait: for longer than this it is a lie.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// What is not told yet of a transaction under way.
const SPAN_MAX: u64 = 1000;

/// What must hold after every run.
pub(super) fn judge(stage: &Stage, mut report: Report) -> Report {
    let mut failures = std::mem::take(&mut report.failures);
    let Report { plan, watched, .. } = &report;
    let mut must = |holds: bool, what: String| {
        if !holds {
            failures.push(what);
        }
    };
    judge_arrivals(stage, &report, &mut must);
    let silence = watched.longest_silence;
    must(silence < SILENCE_MAX, format!("silent, ready and idle for {silence:?}"));
    let bound = plan.memory_max_mib();
    for peak in [watched.peak_rss_bytes, stage.second_peak_bytes.load(Ordering::SeqCst)] {
        must(peak >> 20 <= bound, format!("{} MiB of memory, over {bound}", peak >> 20));
    }
    let limit = stage.relay.memory_max().map(|bytes| bytes >> 20);
    must(
        limit == plan.limit_mib(),
        format!("void: the relay ran under a limit of {limit:?} MiB of memory"),
    );
    must(!watched.samples.is_empty(), "void: nobody could look at the relay".to_owned());
    let lasted = stage.lasted.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut looks = 0;
    for window in lasted {
        match told(&window, &report) {
            Ok(more) => looks += more,
            Err(lie) => must(false, lie),
        }
    }
    let poisoned = stage.poisoned.load(Ordering::SeqCst);
    must(
        watched.poison == 0 || poisoned > 0,
        format!("poison_total {} for {poisoned} rows", watched.poison),
    );
    // Handed to librdkafka is what arrived, unless a producer or a process was given up.
    let calm = plan.ending.is_none()
        && plan.faults.iter().all(|it| it.fault.side() != Side::Kafka)
        && plan.faults.iter().all(|it| it.fault.side() != Side::Relay);
    let records = report.verdict.records;
    must(
        !calm || watched.events == records,
        format!("events_total {} for {records} records", watched.events),
    );
    let breaks = plan.faults.iter().filter(|it| breaks_sessions(it.fault)).count();
    must(
        breaks == 0 || report.faults.len() < plan.faults.len() || watched.sessions > 0,
        format!("sessions_total {} after {breaks} broken sessions", watched.sessions),
    );
    (report.outage_looks, report.failures) = (looks, failures);
    report
}

/// What must hold of that which arrived.
fn judge_arrivals(stage: &Stage, report: &Report, must: &mut impl FnMut(bool, String)) {
    let Report { plan, verdict, .. } = report;
    let forgets = forgets(plan);
    // A new topic has taken the second of two batches, and not the first: the relay has told that,
    // and sent both again.
    let passed = plan.has(Fault::TopicRecreated)
        && stage.relay.log().contains("not it was acknowledged, but one behind it");
    let judged = Verdict {
        reordered: if passed { 0 } else { verdict.reordered },
        unsorted: if passed || forgets { 0 } else { verdict.unsorted },
        ..verdict.clone()
    };
    must(judged.is_faithful(), verdict.to_string());
    must(verdict.records > 0 && report.events > 0, "void: nothing was written".to_owned());
    if plan.repeats_nothing() {
        must(verdict.repeated == 0, format!("only Postgres failed, and {verdict}"));
    }
    let beginnings = beginnings(stage, report);
    if let Some(each) = may_repeat_at_once(report, stage.in_flight.load(Ordering::SeqCst)) {
        let bound = beginnings * each;
        must(verdict.repeated <= bound, format!("at most {bound} may be repeated, and {verdict}"));
        let run = forgets || verdict.longest_run <= each;
        must(run, format!("at most {each} may be repeated in a row, and {verdict}"));
    }
    if comes_again_whole(report, beginnings) {
        must(verdict.torn == 0, format!("repeats have a hole: {verdict}"));
    }
    let promoted = plan.has(Fault::Promotion) && !plan.waits_for_standby();
    let forked = promoted || plan.ending == Some(Ending::Restored);
    must(forked || verdict.diverged == 0, format!("diverged without a loss: {verdict}"));
}

fn breaks_sessions(fault: Fault) -> bool {
    use Fault::{BackendCrash, PostgresFastStop, PostgresImmediateStop, PostgresKilled};
    let stops = [BackendCrash, PostgresFastStop, PostgresImmediateStop, PostgresKilled];
    stops.contains(&fault) || fault == Fault::RelayFrozenLong
}

/// What a process has sent of a topic before it grew, only that process knows; and what it had
/// under way when it ended may come again after a growth that was later.
fn forgets(plan: &Plan) -> bool {
    plan.has(Fault::PartitionsAdded) && ends_relay(plan)
}

fn ends_relay(plan: &Plan) -> bool {
    let ends = [Fault::RelayKilled, Fault::RelayTerminated, Fault::SecondRelay];
    ends.iter().any(|fault| plan.has(*fault))
}

/// Whether what comes again has no hole.
fn comes_again_whole(report: &Report, beginnings: u64) -> bool {
    let Report { plan, verdict, .. } = report;
    // Requests of a producer that is gone may arrive between those of the next one.
    let late = plan.faults.iter().any(|planned| planned.fault.holds_requests());
    let late = late && (beginnings > 0 || ends_relay(plan));
    // What is gone in Postgres does not come again.
    let left_out = verdict.diverged > 0 || plan.ending == Some(Ending::Restored);
    !late && !left_out && !forgets(plan)
}

/// Whether the relay said of an outage that it is not ready and not connected. Another fault may
/// leave nothing to say: then only what was after it counts. Returns at how many looks.
fn told(outage: &Window, report: &Report) -> Result<usize, String> {
    let Some(after) = outage.fault.unready_after() else { return Ok(0) };
    let own = outage.fault.side();
    let others = report.faults.iter().filter(|it| {
        matches!(it.fault.side(), Side::Relay | Side::Postgres) && it.fault.side() != own
    });
    let others = others.filter(|it| it.from < outage.to && it.to > outage.from);
    let from = others.map(|it| it.to).fold(outage.from, Instant::max) + after;
    let lasting = |it: &&Sample| it.asked >= from && it.answered <= outage.to;
    let mut looks = 0;
    for sample in report.watched.samples.iter().filter(lasting) {
        looks += 1;
        let connected = match outage.fault.disconnects() {
            Some((_, after)) if sample.asked < outage.from + after => false,
            Some((Wire::Postgres, _)) => sample.postgres_connected,
            Some((Wire::Kafka, _)) => sample.kafka_connected,
            None => false,
        };
        if sample.ready || connected {
            let since = sample.asked.duration_since(outage.from);
            let (fault, ready) = (outage.fault, sample.ready);
            return Err(format!("{since:.1?} after {fault}: ready {ready}, connected {connected}"));
        }
    }
    Ok(looks)
}

/// How often records may have come twice: kills of the relay, and producers that were given up.
/// In a cluster, each fault of Kafka besides: where a batch is refused for want of replicas, and
/// the one behind it for its sequence, librdkafka begins a new epoch of the producer, and sends
/// again what is in flight everywhere (`rd_kafka_idemp_drain_epoch_bump`).
fn beginnings(stage: &Stage, report: &Report) -> u64 {
    let of_kafka = |it: &&Window| it.fault.side() == Side::Kafka && report.plan.brokers > 1;
    let epochs = report.faults.iter().filter(of_kafka).count();
    let second = stage.second_log.lock().unwrap_or_else(PoisonError::into_inner);
    let given_up = [
        "starting over from what is confirmed",
        // What is in flight when the history changes is given up after a moment.
        "looking for the place to go on from",
    ];
    let times = |said: &str| stage.relay.log().matches(said).count() + second.matches(said).count();
    report.kills + (epochs + given_up.into_iter().map(times).sum::<usize>()) as u64
}

/// How many records may come twice each time: what was in flight, what was acked since the last
/// status, and what is not told of a transaction.
fn may_repeat_at_once(report: &Report, in_flight_at_kills: u64) -> Option<u64> {
    let Report { plan, watched, .. } = report;
    let choices = &plan.choices;
    if !choices.positions || plan.ending == Some(Ending::Restored) {
        return None;
    }
    let in_flight = watched.in_flight.max(in_flight_at_kills);
    let in_flight = in_flight.min(u64::from(choices.max_in_flight));
    let status = Duration::from_millis(choices.status_interval_ms + 1_500).as_secs_f64();
    let acked = format!("{:.0}", status * f64::from(u32::try_from(watched.pace).ok()?));
    Some(in_flight + SPAN_MAX + acked.parse::<u64>().ok()?)
}
