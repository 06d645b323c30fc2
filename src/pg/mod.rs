//! Everything that speaks to Postgres.

pub mod admin;
mod auth;
pub mod before;
pub mod connect;
pub mod conninfo;
pub mod copy;
mod dialogue;
pub mod error;
pub mod facts;
mod fields;
pub mod frame;
pub mod known;
pub mod oid;
pub mod output;
mod pace;
pub mod preconditions;
pub mod response;
pub mod session;
pub mod setup;
pub mod slot;
pub mod socket;
pub mod sql;
pub mod table;
pub mod time;
pub mod tls;
pub mod wire;

pub use fields::Malformed;
