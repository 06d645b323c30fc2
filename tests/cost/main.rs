//! What an event costs in the pure part: `cargo test --test cost`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

// Recorded bytes of a walsender, carried from frame to frontier.
mod carry;

// Nothing is allocated for an event.
mod allocations;
// Instructions an event, compared with a budget.
mod instructions;
