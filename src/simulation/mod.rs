//! The whole pure part between models of Postgres and Kafka, under random faults.
//!
//! A schedule is some hundred steps that a seed chooses: transactions commit, bytes arrive,
//! batches are taken, acks come, and everything that can fail does. After each step
//! [`oracle`] looks at what the slot was told and what a consumer sees. At the end all faults are
//! over, and everything that was committed must arrive, be confirmed and be remembered.
//!
//! Frames, pipe, frontier, feedback, journal, past, position records and routes are the real ones;
//! only the order in which `supervise` and `relay` call them is imitated, in [`process`] and
//! [`session`]. A failure is played again with its steps written out.
//!
//! What it does not have: a relay without a positions topic, records without keys, several tables,
//! other clusters under the same name, another publication; and other errors in the stream than
//! that of a publication that was dropped.
//! Its consumer compares positions by key, so that it does not see what a topic that grows does to
//! one that compares them by partition.

mod broker;
mod oracle;
mod process;
mod producer;
mod schedule;
mod server;
mod session;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::testing::{Random, seeds};
use world::World;

/// Plays one schedule.
pub fn play(random: Random) {
    World::new(random, false).run();
}

/// The same, with each step written out.
pub fn trace(random: Random) {
    World::new(random, true).run();
}

#[test]
fn nothing_is_lost_reordered_or_repeated_without_need() {
    seeds(1000, |random| {
        let outcome = catch_unwind(AssertUnwindSafe(|| play(random.clone())));
        if let Err(panic) = outcome {
            // Once more, step by step.
            let _ = catch_unwind(AssertUnwindSafe(|| trace(random)));
            resume_unwind(panic);
        }
    });
}
