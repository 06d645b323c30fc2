//! Tests that need no server: `cargo test --test hermetic`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

// What is said about every mistake in a configuration, and what wins over what.
mod config;
// What the program does when there is nobody to talk to: exit status, pages, signals, log.
mod daemon;
// Whether the files for containers fit the program.
mod docker;
// What the fuzzer has found worth keeping, played again.
mod fuzz;
// Which metrics the dashboard and the alerts name.
mod grafana;
// What the pages say, and to whom they say it in time.
mod http;
// Whether the simulation would notice what relays have got wrong.
mod mutants;
// Whether every failure that is known of has a test.
mod scenarios;
// What this tree looks like: sizes, names, who may use whom.
mod tidy;
