//! How long an event takes from frame to frontier: `cargo bench --bench pipe`.
#![allow(missing_docs, reason = "a program of its own")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::hint::black_box;

use divan::Bencher;
use divan::counter::ItemsCount;
use walrelay::pg::copy::Copy;
use walrelay::pg::frame::{Framed, frame};
use walrelay::pg::output::Change;

use crate::carry::{Null, ROWS, W1, W2, carry_all, config, pipe};

#[path = "../tests/cost/carry.rs"]
mod carry;

const NAMES: [&str; 2] = ["W1", "W2"];

fn recording(name: &str) -> &'static [u8] {
    if name == "W1" { W1 } else { W2 }
}

fn main() {
    divan::main();
}

/// Frames cut, and nothing done with them.
#[divan::bench(args = NAMES)]
fn frames(bencher: Bencher<'_, '_>, name: &str) {
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| each_frame(name, <[u8]>::len));
}

/// Frames cut and messages decoded.
#[divan::bench(args = NAMES)]
fn decoded(bencher: Bencher<'_, '_>, name: &str) {
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        each_frame(name, |body| match Copy::parse(body).unwrap() {
            Copy::Data { change, .. } => drop(black_box(Change::parse(change).unwrap())),
            Copy::Keepalive { .. } | Copy::Unknown(_) => {}
        });
    });
}

/// All of it: records made, sent to nowhere and acked, the frontier moved.
#[divan::bench(args = NAMES)]
fn carried(bencher: Bencher<'_, '_>, name: &str) {
    let config = config();
    bencher
        .counter(ItemsCount::new(ROWS))
        .with_inputs(|| (pipe(&config), Null::new()))
        .bench_local_values(|(mut pipe, mut sink)| {
            carry_all(&mut pipe, &mut sink, recording(name));
            (pipe, sink)
        });
}

fn each_frame<T>(name: &str, mut look: impl FnMut(&[u8]) -> T) {
    let mut bytes = recording(name);
    while let Framed::Complete { frame, len } = frame(bytes).unwrap() {
        black_box(look(frame.body));
        bytes = &bytes[len..];
    }
}
