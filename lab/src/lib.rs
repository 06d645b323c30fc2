//! Real servers for the tests, the demo and the benchmarks of walrelay: Postgres 14 to 18, Kafka,
//! the relay itself, and a TCP proxy that breaks the connections between them.
//!
//! Nothing here is mocked. A test that cannot have its server fails; it never skips, for a skipped
//! test reads like a passed one. Server binaries come from Maven once and stay in a cache
//! ([`downloads`]), so that later runs need no network.
//!
//! No server outlives the process that started it, even when that process is killed ([`process`]).
//! Ports are held until their server is dropped ([`ports`]), so that a server comes back on its old
//! port after a kill.
//!
//! Starting and stopping block the calling thread for a second or two, which sync and async tests
//! can both live with. What talks to a running server over its own protocol is async.
#![allow(
    clippy::doc_markdown,
    reason = "names like PostgreSQL, librdkafka and KRaft are prose here, not code"
)]
#![allow(
    clippy::format_collect,
    clippy::format_push_string,
    reason = "texts are built once for each server; the plain way reads best"
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod clock;
pub mod debezium;
pub mod downloads;
pub mod history;
pub mod kafka;
pub mod load;
pub mod monitor;
pub mod pooler;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod reader;
pub mod registry;
pub mod relay;
mod run_dir;
pub mod torture;
pub mod usage;
pub mod waiting;

pub use clock::Clock;
pub use debezium::Debezium;
pub use kafka::Kafka;
pub use pooler::Pooler;
pub use postgres::{Database, Postgres};
pub use process::{Child, Signal};
pub use proxy::{Direction, Proxy};
pub use reader::{Reader, Record, read_all};
pub use registry::Registry;
pub use relay::Relay;
pub use run_dir::RunDir;
pub use waiting::{eventually, pause, wait_until};
