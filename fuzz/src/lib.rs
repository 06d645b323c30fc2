//! The bodies of the fuzz targets. Each takes any bytes and panics if something is wrong with what
//! the product makes of them.
//!
//! The hermetic tests have this file as a module, and play the corpus.

mod config;
mod frame;
mod input;
mod pgoutput;
mod pipe;
mod schema;
#[allow(dead_code, reason = "its random schedules are for unit tests")]
#[path = "../../src/testing.rs"]
mod testing;

pub use config::config;
pub use frame::frame;
pub use pgoutput::pgoutput;
pub use pipe::pipe;
pub use schema::schema;
