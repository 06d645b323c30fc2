//! What a run does, all of it derived from its seed.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use crate::downloads::POSTGRES_MAJORS;
use crate::load::{Kind, Shape};
use crate::torture::ending::{ALL as ENDINGS, Ending};
use crate::torture::fault::{ALL, Fault, Side};

/// The relay's configuration, where a run chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choices {
    /// `delivery.max_in_flight`
    pub max_in_flight: u32,
    /// `delivery.max_in_flight_bytes`, in MiB
    pub max_in_flight_mib: u64,
    /// `postgres.status_interval`, in milliseconds
    pub status_interval_ms: u64,
    /// Whether there is a topic of position records.
    pub positions: bool,
    /// librdkafka's `linger.ms`
    pub linger_ms: u32,
    /// librdkafka's `batch.num.messages`
    pub batch: u32,
    /// librdkafka's `batch.size`, in bytes
    pub batch_bytes: u32,
    /// librdkafka's `compression.type`
    pub compression: &'static str,
    /// Whether the kernel gives the relay no more memory than README says that it takes.
    pub limited: bool,
}

/// One fault of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Since the load began.
    pub at: Duration,
    /// Until it is healed, for those that last.
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all of it comes from.
    pub seed: u64,
    /// Major version.
    pub postgres: u16,
    /// Of Kafka.
    pub brokers: u32,
    /// Of the topic, to begin with.
    pub partitions: i32,
    /// The relay's configuration.
    pub choices: Choices,
    /// What is written.
    pub shape: Shape,
    /// From the first to the last fault's end.
    pub length: Duration,
    /// Ordered by time.
    pub faults: Vec<Planned>,
    /// What comes after them, and cannot be made good.
    pub ending: Option<Ending>,
}

/// Kinds of transactions, by what they are hard on.
const MIXES: [&[(u32, Kind)]; 4] = [
    &[
        (70, Kind::Rows(1)),
        (6, Kind::Rows(50)),
        (4, Kind::Copied(30)),
        (6, Kind::RolledBack(20)),
        (6, Kind::Savepoints),
        (5, Kind::Prepared),
        (3, Kind::Deleted),
    ],
    &[(90, Kind::Rows(1)), (8, Kind::Padded(9_000)), (2, Kind::Padded(60_000))],
    &[(40, Kind::Rows(5)), (30, Kind::RolledBack(5)), (20, Kind::Savepoints), (10, Kind::HungUp)],
    &[(60, Kind::Rows(1)), (20, Kind::Prepared), (15, Kind::Deleted), (5, Kind::Copied(100))],
];

/// Where faults come from: by turns, so that every few seeds have all of them.
const SIDES: [&[Side]; 4] = [
    &[Side::Postgres, Side::Load],
    &[Side::Relay, Side::Postgres, Side::Load],
    &[Side::Kafka, Side::Load],
    &[Side::Relay, Side::Postgres, Side::Kafka, Side::Load],
];

/// Longer than the 30 seconds of `wal_sender_timeout` that the relay asks for.
const LONG_FREEZE: Duration = Duration::from_secs(35);

impl Plan {
    /// The plan of a seed. With `only`, no other faults than these are chosen.
    pub fn new(seed: u64, length: Duration, only: &[Fault]) -> Plan {
        let mut random = Rng::with_seed(seed);
        let turn = usize::try_from(seed).unwrap_or(0);
        let pick = |list: &[u32], random: &mut Rng| one_of(list, random.usize(0..list.len()));
        let postgres = one_of(&POSTGRES_MAJORS, turn);
        let choices = Choices {
            max_in_flight: pick(&[50, 500, 5_000, 50_000], &mut random),
            max_in_flight_mib: u64::from(pick(&[1, 4, 32], &mut random)),
            status_interval_ms: u64::from(pick(&[100, 300, 1_000], &mut random)),
            positions: random.u32(0..5) > 0,
            linger_ms: pick(&[0, 2, 5, 20], &mut random),
            batch: pick(&[20, 500, 10_000], &mut random),
            batch_bytes: pick(&[50_000, 1_000_000], &mut random),
            compression: one_of(&["none", "lz4", "zstd"], random.usize(0..3)),
            limited: random.u32(0..4) == 0,
        };
        // Three brokers are a burden for a machine; one run in eight has them, and every other one
        // of those has faults from everywhere.
        let clustered = match only {
            [] => matches!(seed % 16, 2 | 7),
            only => only.iter().any(|fault| fault.needs_cluster()),
        };
        // So few at a time, each for its linger.ms and until other brokers have it, would not have
        // caught up within a minute.
        let slower = match (choices.max_in_flight, clustered) {
            (500.., _) => 1,
            (_, false) => 4,
            (_, true) => 16,
        };
        let shape = Shape {
            writers: random.u64(2..6),
            keys: pick(&[3, 40, 500], &mut random),
            padding: one_of(&[0, 200, 2_000], random.usize(0..3)),
            pause: Duration::from_millis(random.u64(3..25)) * slower,
            mix: one_of(&MIXES, random.usize(0..MIXES.len())),
            patient: true,
        };
        let partitions = i32::try_from(pick(&[1, 3, 6], &mut random)).unwrap_or(1);
        let sides = one_of(&SIDES, turn);
        let allowed = |fault: &Fault| match only {
            // It takes half a minute of a plan, which has to be found for it.
            _ if *fault == Fault::RelayFrozenLong => false,
            // Brokers with rules about who may do what do not let each other in without them.
            [] if clustered && *fault == Fault::WriteDenied => false,
            [] => sides.contains(&fault.side()) && (clustered || !fault.needs_cluster()),
            only => only.contains(fault),
        };
        let fitting: Vec<Fault> = ALL.iter().copied().filter(allowed).collect();
        let mut faults = schedule(&mut random, &fitting, length, !only.is_empty());
        // One in eight plans in which the relay fails.
        let frozen = match only {
            [] => random.u32(0..8) == 0 && sides.contains(&Side::Relay),
            only => only.contains(&Fault::RelayFrozenLong),
        };
        faults.extend(frozen.then(|| long_freeze(&mut random, length)).flatten());
        faults.sort_by_key(|planned| planned.at);
        let choices = Choices {
            // Without it, a start after a promotion cannot know where to begin.
            positions: choices.positions
                || faults.iter().any(|planned| planned.fault == Fault::Promotion),
            ..choices
        };
        // Without a memory no gap can be proven; and one new history is enough for a run.
        let fits = only.is_empty()
            && choices.positions
            && !faults.iter().any(|planned| planned.fault == Fault::Promotion);
        let ending = ENDINGS.get(random.usize(0..ENDINGS.len() * 2)).copied().filter(|_| fits);
        let brokers = if clustered { 3 } else { 1 };
        Plan { seed, postgres, brokers, partitions, choices, shape, length, faults, ending }
    }

    /// What README promises: 64 MiB and `max_in_flight_bytes`, or a larger row's size; and twice
    /// the largest row's.
    pub fn memory_max_mib(&self) -> u64 {
        const LARGEST_MIB: u64 = 10;
        let large = if self.has(Fault::LargeRows) { LARGEST_MIB } else { 0 };
        64 + self.choices.max_in_flight_mib.max(large) + 2 * large
    }

    /// The limit that the kernel holds it to, if it does. It counts what is mapped, also what
    /// glibc has given back for the time being; that was seen to be 44 MiB of 88 once.
    pub fn limit_mib(&self) -> Option<u64> {
        const GIVEN_BACK_MIB: u64 = 48;
        self.choices.limited.then(|| self.memory_max_mib() + GIVEN_BACK_MIB)
    }

    /// Whether the plan has this fault.
    pub fn has(&self, fault: Fault) -> bool {
        self.faults.iter().any(|planned| planned.fault == fault)
    }

    /// Whether a slot can come along to a standby by itself.
    pub fn has_failover_slots(&self) -> bool {
        self.postgres >= 17
    }

    /// Whether nothing is sent that the standby has not received (`synchronized_standby_slots`).
    pub fn waits_for_standby(&self) -> bool {
        self.has_failover_slots() && self.seed.is_multiple_of(2)
    }

    /// Rows of a long transaction: fewer where they go one by one.
    pub fn huge(&self) -> u32 {
        let slow = self.choices.max_in_flight < 5_000 || self.choices.batch < 500;
        if slow { 8_000 } else { 60_000 }
    }

    /// Whether nothing may come twice, because only Postgres fails.
    pub fn repeats_nothing(&self) -> bool {
        // A restored slot may be older than what it had confirmed.
        if self.ending == Some(Ending::Restored) {
            return false;
        }
        let quiet = |fault: Fault| match fault {
            // Without a memory, a start begins with the last transaction of the slot.
            Fault::RelayTerminated => self.choices.positions,
            fault => !fault.may_repeat(),
        };
        self.faults.iter().all(|planned| quiet(planned.fault))
    }
}

#[expect(clippy::indexing_slicing, reason = "no list of this file is empty")]
fn one_of<T: Copy>(list: &[T], number: usize) -> T {
    list[number % list.len()]
}

/// Faults one after the other, which may last into each other.
fn schedule(random: &mut Rng, fitting: &[Fault], length: Duration, again: bool) -> Vec<Planned> {
    /// Faults that make a different server of it, or a different topic, come once.
    const ONCE: [Fault; 3] = [Fault::Promotion, Fault::PartitionsAdded, Fault::TopicRecreated];
    let mut faults: Vec<Planned> = Vec::new();
    let mut at = Duration::from_millis(random.u64(500..2_000));
    // What is left of the deck; each card comes before any comes again.
    let mut deck: Vec<Fault> = Vec::new();
    while at < length {
        if deck.is_empty() {
            deck = fitting.to_vec();
            random.shuffle(&mut deck);
        }
        let Some(fault) = deck.pop() else { break };
        let had = faults.iter().any(|planned| planned.fault == fault);
        if !(had && (ONCE.contains(&fault) || !again && fitting.len() > 20)) {
            let rest = length.saturating_sub(at);
            let lasts = random_lasts(random, fault).min(rest);
            faults.push(Planned { at, lasts, fault });
        } else if fitting.iter().all(|fault| ONCE.contains(fault)) {
            break;
        }
        at += Duration::from_millis(random.u64(1_000..5_000));
    }
    faults
}

/// How long a fault lasts that can last.
fn random_lasts(random: &mut Rng, fault: Fault) -> Duration {
    // Where the relay says only after a while that it is not ready, it is given the time; more
    // often than every fourth time, since some end with their run.
    let outage = fault.unready_after().filter(|after| *after > Duration::from_secs(10));
    if let Some(after) = outage.filter(|_| random.u32(0..5) < 2) {
        return after + Duration::from_millis(random.u64(1_500..4_000));
    }
    let long = outage.is_none() && random.u32(0..4) == 0;
    Duration::from_millis(random.u64(if long { 8_000..16_000 } else { 800..5_000 }))
}

/// A freeze that Postgres does not wait for, if there is the time.
fn long_freeze(random: &mut Rng, length: Duration) -> Option<Planned> {
    let spare = length.checked_sub(LONG_FREEZE + Duration::from_secs(5))?;
    let at = Duration::from_millis(500) + spare.mul_f64(random.f64());
    Some(Planned { at, lasts: LONG_FREEZE, fault: Fault::RelayFrozenLong })
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { seed, postgres, brokers, partitions, choices, shape, .. } = self;
        writeln!(
            f,
            "seed {seed}: Postgres {postgres}, {brokers} brokers, {partitions} partitions"
        )?;
        writeln!(f, "{choices:?}")?;
        writeln!(f, "{shape:?}")?;
        for Planned { at, lasts, fault } in &self.faults {
            let (at, lasts) = (at.as_secs_f64(), lasts.as_secs_f64());
            writeln!(f, "{at:7.2} s  {fault} for {lasts:.2} s")?;
        }
        if let Some(ending) = self.ending {
            writeln!(f, "  in the end {ending:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn faults(seeds: impl Iterator<Item = u64>, length: Duration) -> BTreeSet<Fault> {
        let plans = seeds.map(|seed| Plan::new(seed, length, &[]));
        plans.flat_map(|plan| plan.faults).map(|planned| planned.fault).collect()
    }

    #[test]
    fn a_seed_is_a_plan() {
        for seed in 0..50 {
            let plan = || Plan::new(seed, MINUTE, &[]).to_string();
            assert_eq!(plan(), plan());
            assert!(Plan::new(seed, MINUTE, &[]).faults.len() > 5, "{}", plan());
        }
    }

    #[test]
    fn sixty_minutes_have_every_fault_on_every_version() {
        for postgres in POSTGRES_MAJORS {
            let seeds = (0..60).filter(|seed| Plan::new(*seed, MINUTE, &[]).postgres == postgres);
            let found = faults(seeds, MINUTE);
            let missing = ALL.iter().filter(|fault| !found.contains(fault));
            // Clusters are few, and Kafka is the same whatever the version of Postgres; long
            // freezes are few, too.
            let rare = |fault: &Fault| fault.needs_cluster() || *fault == Fault::RelayFrozenLong;
            let missing: Vec<_> = missing.filter(|fault| !rare(fault)).collect();
            assert!(missing.is_empty(), "Postgres {postgres}: {missing:?}");
        }
        assert_eq!(faults(0..60, MINUTE).len(), ALL.len());
        let endings = (0..60).filter_map(|seed| Plan::new(seed, MINUTE, &[]).ending);
        assert_eq!(endings.collect::<BTreeSet<_>>().len(), ENDINGS.len());
    }

    #[test]
    fn every_fourth_outage_of_kafka_is_long_enough_to_be_told() {
        let plans = (0..400).map(|seed| Plan::new(seed, MINUTE, &[]));
        let outages = plans
            .flat_map(|plan| plan.faults)
            .filter(|it| it.fault.side() == Side::Kafka && it.fault.unready_after().is_some());
        let told = outages.map(|it| Some(it.lasts) >= it.fault.unready_after());
        let (mut all, mut long) = (0, 0);
        told.for_each(|told| (all, long) = (all + 1, long + u32::from(told)));
        assert!(all > 500 && long * 4 >= all, "{long} of {all}");
    }

    #[test]
    fn clusters_meet_faults_from_everywhere() {
        let plans = (0..60).map(|seed| Plan::new(seed, MINUTE, &[]));
        let clusters: Vec<Plan> = plans.filter(|plan| plan.brokers > 1).collect();
        let with = |side| {
            clusters
                .iter()
                .filter(move |plan| plan.faults.iter().any(|planned| planned.fault.side() == side))
        };
        for side in [Side::Relay, Side::Postgres] {
            assert!(with(side).count() >= 3, "{side:?}");
        }
        assert!(with(Side::Kafka).count() == clusters.len());
    }

    /// The runs of every merge: `make test` plays these seeds.
    #[test]
    fn the_short_runs_have_every_version_and_faults_from_everywhere() {
        let short = Duration::from_secs(10);
        let plans: Vec<Plan> = (108..=117).map(|seed| Plan::new(seed, short, &[])).collect();
        let versions: BTreeSet<u16> = plans.iter().map(|plan| plan.postgres).collect();
        assert_eq!(versions.len(), POSTGRES_MAJORS.len());
        let found = faults(108..=117, short);
        for side in [Side::Relay, Side::Postgres, Side::Kafka, Side::Load] {
            let of_side = found.iter().filter(|fault| fault.side() == side).count();
            assert!(of_side >= 2, "{side:?}: {found:?}");
        }
        assert!(found.contains(&Fault::Promotion) && found.iter().any(|it| it.needs_cluster()));
        assert!(plans.iter().any(|plan| plan.ending.is_some()));
        assert!(plans.iter().filter(|plan| plan.repeats_nothing()).count() >= 3);
    }

    #[test]
    fn a_name_is_a_fault() {
        for fault in ALL {
            assert_eq!(fault.to_string().parse(), Ok(*fault));
        }
        assert!("kafka".parse::<Fault>().is_err());
    }
}
