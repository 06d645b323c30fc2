//! Everything that speaks to Kafka.

pub mod acks;
mod native;
pub mod partition;
pub mod positions;
pub mod preconditions;
pub mod producer;
pub mod routes;
pub mod settings;
mod topics;
