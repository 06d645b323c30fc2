//! The lab keeps its word: servers start, die and come back, and faults really take place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod kafka;
mod postgres;
mod processes;
mod proxy;
mod relay;

use std::time::Duration;

/// Long enough for the slowest machine; nothing waits this long when all is well.
const LONG: Duration = Duration::from_secs(30);
