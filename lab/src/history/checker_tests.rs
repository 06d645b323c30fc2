//! A faultless history, and what becomes of the verdict when one fault is planted in it.

use super::*;
use crate::history::Event;

const KEYS: u32 = 4;
const TRANSACTIONS: u64 = 40;
const PARTITIONS: i32 = 2;

fn home(key: u32) -> i32 {
    i32::try_from(key).unwrap() % PARTITIONS
}

fn homes(key: u32) -> Vec<i32> {
    vec![home(key)]
}

fn id(transaction: u64, key: u32) -> EventId {
    EventId { transaction, step: 0, key }
}

/// Every transaction writes an event of each key; each arrived once, in the order of commit.
fn faultless() -> (Truth, Vec<Seen>) {
    let (mut truth, mut seen) = (Truth::default(), Vec::new());
    let mut offsets = [0; 2];
    for transaction in 1..=TRANSACTIONS {
        for key in 0..KEYS {
            let (id, n) = (id(transaction, key), u32::try_from(transaction).unwrap());
            truth.commit([Event { id, n }]);
            let partition = home(key);
            let offset = &mut offsets[usize::try_from(partition).unwrap()];
            let position = Some(format!("00000000-{transaction:016x}-{key:08x}"));
            let n = Some(n);
            seen.push(Seen { partition, offset: *offset, id: Some(id), n, intact: true, position });
            *offset += 1;
        }
    }
    (truth, seen)
}

/// Offsets as the order of the list has them.
fn numbered(mut seen: Vec<Seen>) -> Vec<Seen> {
    let mut next: HashMap<i32, i64> = HashMap::new();
    for record in &mut seen {
        let next = next.entry(record.partition).or_default();
        record.offset = *next;
        *next += 1;
    }
    seen
}

/// The verdict on what a change makes of the faultless arrivals, without its words.
fn judged(change: impl FnOnce(&mut Truth, &mut Vec<Seen>)) -> Verdict {
    let (mut truth, mut seen) = faultless();
    change(&mut truth, &mut seen);
    let verdict = check(&truth, &numbered(seen), &homes);
    let quiet = verdict.is_faithful();
    assert_eq!(verdict.described.is_empty(), quiet, "every fault is told in words: {verdict}");
    Verdict { described: Vec::new(), ..verdict }
}

fn records() -> u64 {
    TRANSACTIONS * u64::from(KEYS)
}

/// Where transaction and key are in the list.
fn at(transaction: u64, key: u32) -> usize {
    usize::try_from((transaction - 1) * u64::from(KEYS) + u64::from(key)).unwrap()
}

#[test]
fn without_a_fault_there_is_none() {
    let verdict = judged(|_, _| {});
    assert_eq!(verdict, Verdict { records: records(), ..Verdict::default() });
    assert!(verdict.is_perfect());
}

#[test]
fn one_that_did_not_arrive_is_lost() {
    for place in [at(1, 0), at(20, 2), at(TRANSACTIONS, KEYS - 1)] {
        let verdict = judged(|_, seen| drop(seen.remove(place)));
        assert_eq!(
            verdict,
            Verdict { records: records() - 1, lost: 1, ..Verdict::default() },
            "{place}"
        );
    }
}

#[test]
fn two_of_a_key_that_changed_places_are_out_of_order() {
    let verdict = judged(|_, seen| seen.swap(at(7, 1), at(8, 1)));
    assert_eq!((verdict.reordered, verdict.lost), (1, 0));
    assert!(verdict.unsorted > 0, "their positions are, too: {verdict}");
}

#[test]
fn two_of_different_keys_that_changed_places_have_positions_out_of_order() {
    let verdict = judged(|_, seen| seen.swap(at(7, 1), at(7, 3)));
    let expected = Verdict { records: records(), unsorted: 1, ..Verdict::default() };
    assert_eq!(verdict, expected);
}

#[test]
fn what_comes_again_without_a_hole_is_a_run_of_repeats() {
    // Keys 0 and 2 share a partition: the last six of it come again before it goes on.
    let verdict = judged(|_, seen| {
        let again: Vec<Seen> =
            seen[..at(11, 0)].iter().filter(|it| it.partition == 0).cloned().collect();
        let again = again[again.len() - 6..].to_vec();
        seen.splice(at(11, 0)..at(11, 0), again);
    });
    let expected =
        Verdict { records: records() + 6, repeated: 6, longest_run: 6, ..Verdict::default() };
    assert_eq!(verdict, expected);
}

#[test]
fn a_replay_that_leaves_something_out_is_torn() {
    for left_out in [0, 2, 5] {
        let verdict = judged(|_, seen| {
            let mut again: Vec<Seen> =
                seen[..at(11, 0)].iter().filter(|it| it.partition == 0).cloned().collect();
            again.drain(..again.len() - 6);
            again.remove(left_out);
            seen.splice(at(11, 0)..at(11, 0), again);
        });
        assert_eq!(verdict.torn, u64::from(left_out != 0), "from its second record on: {verdict}");
        assert_eq!(verdict.repeated, 5);
    }
}

#[test]
fn what_nobody_committed_is_invented() {
    let invented = |transaction, key| {
        judged(|_, seen| {
            let id = Some(id(transaction, key));
            let position = Some("00000001".to_owned());
            let (n, intact) = (Some(1), true);
            seen.push(Seen { partition: home(key), offset: 0, id, n, intact, position });
        })
    };
    let expected = Verdict { records: records() + 1, invented: 1, ..Verdict::default() };
    assert_eq!(invented(TRANSACTIONS + 1, 1), expected, "a transaction that was rolled back");
    assert_eq!(invented(1, KEYS), expected, "a savepoint of one that was committed");
    let verdict = judged(|_, seen| seen[3].id = None);
    assert_eq!((verdict.invented, verdict.lost), (1, 1), "no id: {verdict}");
}

#[test]
fn what_was_left_with_its_timeline_may_be_there_or_not() {
    let verdict = judged(|truth, seen| {
        truth.diverge(TRANSACTIONS + 1, 2);
        let position = Some("00000001".to_owned());
        let id = Some(id(TRANSACTIONS + 1, 0));
        seen.push(Seen { partition: 0, offset: 0, id, n: Some(41), intact: true, position });
    });
    assert_eq!(verdict, Verdict { records: records() + 1, diverged: 1, ..Verdict::default() });
}

#[test]
fn a_key_on_another_partition_is_misplaced() {
    let verdict = judged(|_, seen| seen[at(TRANSACTIONS, 3)].partition = 0);
    assert_eq!((verdict.misplaced, verdict.lost), (1, 0), "{verdict}");
}

#[test]
fn another_number_or_content_is_mangled() {
    let expected = Verdict { records: records(), mangled: 1, ..Verdict::default() };
    assert_eq!(judged(|_, seen| seen[at(5, 1)].n = Some(6)), expected);
    assert_eq!(judged(|_, seen| seen[at(5, 1)].n = None), expected);
    assert_eq!(judged(|_, seen| seen[at(5, 1)].intact = false), expected);
}

#[test]
fn a_position_that_is_missing_or_does_not_grow_is_unsorted() {
    let expected = Verdict { records: records(), unsorted: 1, ..Verdict::default() };
    assert_eq!(judged(|_, seen| seen[at(5, 1)].position = None), expected);
    let same = judged(|_, seen| seen[at(6, 1)].position = seen[at(5, 3)].position.clone());
    assert_eq!(same, expected);
}

/// Keys 0 and 2 move from partition 0 to partition 2 at transaction 21.
fn grown(change: impl FnOnce(&mut Vec<Seen>)) -> Verdict {
    let (truth, mut seen) = faultless();
    for record in seen.iter_mut().filter(|it| it.partition == 0) {
        if record.id.unwrap().transaction > 20 {
            record.partition = 2;
        }
    }
    change(&mut seen);
    let homes = |key| if key % 2 == 0 { vec![0, 2] } else { vec![1] };
    Verdict { described: Vec::new(), ..check(&truth, &numbered(seen), &homes) }
}

#[test]
fn a_key_may_move_once_with_the_growth_of_its_topic() {
    let faultless = Verdict { records: records(), ..Verdict::default() };
    assert_eq!(grown(|_| {}), faultless);
    let back = grown(|seen| seen[at(30, 2)].partition = 0);
    assert!(back.reordered > 0, "it went back: {back}");
    let again = grown(|seen| {
        let again = Seen { partition: 2, ..seen[at(20, 2)].clone() };
        seen.insert(at(21, 0), again);
    });
    let repeated =
        Verdict { records: records() + 1, repeated: 1, longest_run: 1, ..Verdict::default() };
    assert_eq!(again, repeated, "one from before the growth came again after it");
}
