//! What happens, in which order: chosen by the seed.

use crate::testing::Random;

/// Steps of a schedule.
pub const STEPS: u32 = 300;

/// Rounds without faults after which everything must be done.
pub const ROUNDS_MAX: u32 = 400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    // What goes on all the time.
    Commit,
    OtherLog,
    Write,
    Carry,
    Turn,
    Arrive,
    Report,
    Status,
    Time,
    SaveSlot,
    LetGo,
    BackUp,
    // What fails. A schedule has some of these faults, and not the others.
    BreakConnection,
    CrashServer,
    Promote,
    Restore,
    AdvanceSlot,
    RecreateSlot,
    DropPublication,
    Kill,
    Terminate,
    SecondRelay,
    Refuse,
    Unreachable,
    Grow,
    RefuseLarge,
    Silence,
}

/// What goes on all the time, with how often.
const WORK: [(Step, u64); 12] = [
    (Step::Commit, 8),
    (Step::OtherLog, 3),
    (Step::Write, 24),
    (Step::Carry, 16),
    (Step::Turn, 24),
    (Step::Arrive, 14),
    (Step::Report, 14),
    (Step::Status, 8),
    (Step::Time, 8),
    (Step::SaveSlot, 2),
    (Step::LetGo, 2),
    (Step::BackUp, 1),
];

const FAULTS: [Step; 15] = [
    Step::BreakConnection,
    Step::CrashServer,
    Step::Promote,
    Step::Restore,
    Step::AdvanceSlot,
    Step::RecreateSlot,
    Step::DropPublication,
    Step::Kill,
    Step::Terminate,
    Step::SecondRelay,
    Step::Refuse,
    Step::Unreachable,
    Step::Grow,
    Step::RefuseLarge,
    Step::Silence,
];

/// Faults that are worst together. Half of the schedules have those of one line, and no others.
const THEMES: [&[Step]; 9] = [
    &[Step::Restore, Step::Refuse],
    &[Step::Terminate],
    &[Step::Promote, Step::Kill],
    &[Step::Promote, Step::BreakConnection, Step::Unreachable],
    &[Step::Restore, Step::Refuse, Step::Kill],
    &[Step::Kill, Step::Terminate, Step::CrashServer, Step::Unreachable],
    &[Step::SecondRelay, Step::Kill, Step::BreakConnection],
    &[Step::DropPublication, Step::Kill, Step::BreakConnection],
    &[Step::Refuse, Step::RefuseLarge, Step::Grow, Step::Unreachable, Step::Silence],
];

/// How steps are chosen.
#[derive(Debug)]
pub struct Schedule {
    faults: Vec<Step>,
    /// How many steps there are to one fault.
    calm: u64,
}

impl Schedule {
    pub fn new(random: &mut Random) -> Schedule {
        let faults = match THEMES.get(random.index(THEMES.len() * 2)) {
            Some(theme) => theme.to_vec(),
            None => FAULTS.into_iter().filter(|_| random.below(3) == 0).collect(),
        };
        Schedule { faults, calm: 5 + random.below(35) }
    }

    pub fn next(&self, random: &mut Random) -> Step {
        if !self.faults.is_empty() && random.below(self.calm) == 0 {
            return self.faults[random.index(self.faults.len())];
        }
        let mut chosen = random.below(WORK.iter().map(|(_, weight)| weight).sum());
        for (step, weight) in WORK {
            match chosen.checked_sub(weight) {
                Some(rest) => chosen = rest,
                None => return step,
            }
        }
        Step::Turn
    }
}
