//! Tests on real servers. They fail when a server cannot be had; they never skip.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod bare;
mod guarded;
mod scene;
// What Postgres is told, and when.
mod confirmed;
// From the URL to a session: methods, TLS, hosts, time limits, secrets.
mod connection;
// Logins, certificates and compression of Kafka.
mod kafka_security;
// From a committed row to a record, on every supported Postgres.
mod delivery;
// The promises, under load: nothing lost, nothing reordered, memory bounded.
mod must_hold;
// What Kafka thinks of the records: partitions, sizes, policies.
mod records;
// Records that are too large, and pointers in their place.
mod pointers;
// What a row becomes, key by key of its [[outbox]].
mod mapping;
// What Debezium's outbox router made of the same rows.
mod golden;
// The same, behaviour by behaviour.
mod router;
// Events without a table.
mod messages;
// Payloads by registered schemas.
mod registry;
// A broker that freezes, forgets, is late or has no room left.
mod brokers;
// Three brokers: leaders and controllers that change.
mod cluster;
// Topics that go and come back, forget, or are paced.
mod topics;
// Clocks, descriptors, a network that goes dark, an end in the middle of something.
mod machine;
// The outbox table changes while events flow.
mod schema;
// Several relays share a table.
mod shards;
// What the stream holds beside plain rows, and rows that are not plain.
mod decoding;
// Starting without something, standing by, ending.
mod lifecycle;
// Postgres does not work as it should.
mod outages;
// Servers, publications, slots and topics that are not as they must be, and what is said of them.
mod states;
// check, init, status.
mod commands;
// What is lost without a word, and halts the relay.
mod losses;
// What is remembered in Kafka: nothing is repeated, and gaps are proven.
mod positions;
// A standby takes over, or a server is not the one it was.
mod promotion;
