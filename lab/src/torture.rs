//! Random faults under load, on real servers, all of it derived from a seed.
//!
//! A run is void unless every fault proves that it took place. What must hold afterwards, whatever
//! happened: [`run`].

pub mod ending;
pub mod fault;
pub mod inject;
mod judge;
pub mod kills;
pub mod placement;
pub mod plan;
pub mod run;
pub mod stage;
pub mod watch;
