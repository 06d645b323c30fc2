//! Nothing is allocated for an event, once the buffers have their size.

use allocation_counter::measure;

use crate::carry::{Null, ROWS, W1, W2, carry, carry_all, config, pipe};

/// Where the frame begins that is at or behind the middle.
fn middle(bytes: &[u8]) -> usize {
    let mut at = 0;
    while at < bytes.len() / 2 {
        let len: [u8; 4] = bytes[at + 1..at + 5].try_into().unwrap();
        at += 1 + u32::from_be_bytes(len) as usize;
    }
    at
}

#[test]
fn the_pipe_allocates_nothing_for_an_event() {
    for bytes in [W1, W2] {
        let (mut pipe, mut sink) = (pipe(&config()), Null::new());
        let (first, second) = bytes.split_at(middle(bytes));
        carry_all(&mut pipe, &mut sink, first);
        let before = sink.records;
        assert!(before > 0);
        let counted = measure(|| carry_all(&mut pipe, &mut sink, second));
        assert_eq!(sink.records, ROWS, "all rows came");
        assert_eq!(counted.count_total, 0, "for {} rows", ROWS - before);
    }
}

#[test]
fn an_allocation_is_counted() {
    let counted = measure(|| {
        let (mut pipe, mut sink) = (pipe(&config()), Null::new());
        let used = carry(&mut pipe, &mut sink, W1);
        assert!(used > 0);
    });
    assert!(counted.count_total > 0, "the pipe itself is made of some");
}
