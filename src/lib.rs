#![doc = include_str!("../ARCHITECTURE.md")]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod check;
pub mod cli;
pub mod config;
pub mod connect;
pub mod encode;
pub mod error;
pub mod feedback;
pub mod frontier;
pub mod health;
pub mod http;
pub mod init;
pub mod journal;
pub mod kafka;
pub mod lsn;
pub mod metrics;
pub mod migrate;
pub mod outbox;
pub mod past;
pub mod pg;
pub mod pipe;
pub mod position;
pub mod properties;
pub mod recall;
pub mod record;
pub mod registry;
pub mod relay;
pub mod remedy;
pub mod rewrite;
pub mod schema;
pub mod sensor;
pub mod shutdown;
#[cfg(test)]
mod simulation;
pub mod stall;
pub mod status;
pub mod supervise;
pub mod template;
#[cfg(test)]
mod testing;
mod trust;
pub mod updates;
pub mod verdict;
