use super::*;
use crate::frontier::{Frontier, Limits};

fn lsn(raw: u64) -> Lsn {
    Lsn::from_wire(raw)
}

fn record(end: u64, row: Option<u32>) -> PositionRecord {
    let context = Context { timeline: 1, publication: "p".into(), epoch: 3 };
    let inside = row.map(|row| Position { epoch: 3, commit: lsn(end + 10), row });
    PositionRecord { context, end: lsn(end), inside, behind: None }
}

fn found(record: Option<PositionRecord>, slot: u64, server: u64) -> Found<'static> {
    let (slot, server) = (lsn(slot), lsn(server));
    let remembered = Remembered { record, ..Remembered::default() };
    Found { remembered, slot, server, timeline: 1, switched: None, publication: "p" }
}

#[test]
fn a_record_reads_as_it_was_written() {
    let source = Source { system: "7".into(), database: 5, slot: "s".into() };
    assert_eq!(source.key(), "7/5/s");
    for row in [None, Some(41)] {
        let record = record(100, row);
        let limits = Limits { records: 1, bytes: 1, span: 1 };
        let flush = Frontier::new(record.end, limits).confirmed();
        let reached = Reached { flush, inside: record.inside };
        assert_eq!(PositionRecord::new(record.context.clone(), reached), record);
        for behind in [None, Some(lsn(70))] {
            let record = PositionRecord { behind, ..record.clone() };
            let json = record.to_json(&source);
            assert_eq!(PositionRecord::parse(json.as_bytes()), Ok(record));
        }
    }
}

/// What is remembered of records in this order.
fn remembered(records: &[&PositionRecord]) -> PositionRecord {
    let source = Source { system: "7".into(), database: 5, slot: "s".into() };
    let (mut remembered, key) = (Remembered::default(), source.key());
    for record in records {
        remembered.take(&source, key.as_bytes(), record.to_json(&source).as_bytes()).unwrap();
    }
    remembered.record.unwrap()
}

#[test]
fn a_record_that_comes_late_takes_nothing_back() {
    // One relay had sent two rows of a transaction and was cut off before it wrote so; the next
    // one confirmed a keepalive in front of it.
    let (into, up_to) = (record(100, Some(1)), record(105, None));
    let both = PositionRecord { end: lsn(105), ..into.clone() };
    assert_eq!(remembered(&[&into, &up_to]), both);
    assert_eq!(remembered(&[&up_to, &into]), both);
    let done = record(120, None);
    assert_eq!(remembered(&[&done, &into]), done, "the transaction has ended");
    let mut renumbered = up_to.clone();
    renumbered.context.publication = "q".into();
    assert_eq!(remembered(&[&into, &renumbered]), renumbered);
}

#[test]
fn a_server_that_was_behind_stays_so_within_its_epoch() {
    let late = record(100, None);
    let refused = PositionRecord { behind: Some(lsn(90)), ..late.clone() };
    assert_eq!(remembered(&[&refused, &late]), refused);
    assert_eq!(remembered(&[&late, &refused, &late]), refused);
    let mut accepted = record(80, None);
    accepted.context.epoch = 4;
    assert_eq!(remembered(&[&refused, &accepted, &late]), accepted);
}

#[test]
fn what_is_not_a_record_is_refused() {
    let whole = r#"{"version":1,"timeline":1,"publication":"p","epoch":0,"end_lsn":"0/1"}"#;
    assert!(PositionRecord::parse(whole.as_bytes()).is_ok());
    for (from, to) in [
        ("\"version\":1", "\"version\":2"),
        ("\"timeline\":1", "\"timeline\":-1"),
        ("\"publication\":\"p\"", "\"publication\":7"),
        ("\"epoch\":0", "\"epoch\":\"x\""),
        ("\"0/1\"", "\"1\""),
        ("}", ""),
    ] {
        assert!(PositionRecord::parse(whole.replace(from, to).as_bytes()).is_err(), "{to}");
    }
}

#[test]
fn without_a_record_the_slot_counts() {
    let start = Start { from: lsn(50), inside: None, epoch: 0, remark: None };
    assert_eq!(found(None, 50, 90).start(false), Ok(start));
}

#[test]
fn a_cluster_in_the_place_of_another_begins_a_later_epoch() {
    let source = Source { system: "7".into(), database: 5, slot: "s".into() };
    let namesakes =
        ["7/5/s", "8/5/s", "7/6/s", "7/5/ss", "8/5/t"].map(|key| source.is_namesake(key));
    assert_eq!(namesakes, [false, true, true, false, false]);
    let mut found = found(None, 50, 90);
    found.remembered.elsewhere = Some((3, lsn(700)));
    let start = found.start(false).unwrap();
    assert_eq!((start.from, start.inside, start.epoch), (lsn(50), None, 4));
    assert!(start.remark.unwrap().contains("up to 0/2BC of another Postgres"));
}

#[test]
fn a_server_that_was_once_behind_is_refused_however_far_it_gets() {
    let record = PositionRecord { behind: Some(lsn(90)), ..record(100, Some(7)) };
    for timeline in [1, 2] {
        let found = found(Some(record.clone()), 50, 500);
        let found = Found { timeline, switched: Some(lsn(80)), ..found };
        let gap = Gap::ServerBehind { server: lsn(90), record: lsn(100) };
        assert_eq!(found.start(false), Err(gap));
        assert_eq!(found.start(true).unwrap().from, lsn(50));
    }
}

#[test]
fn the_primary_of_before_a_promotion_is_refused() {
    let mut record = record(100, None);
    record.context.timeline = 2;
    let gap = Gap::EarlierTimeline { now: 1, record: 2 };
    assert_eq!(found(Some(record), 50, 500).start(false), Err(gap));
}

#[test]
fn a_record_ahead_of_the_slot_is_where_to_begin() {
    let record = record(100, Some(7));
    let inside = record.inside;
    for slot in [0, 99, 100] {
        let start = Start { from: lsn(100), inside, epoch: 3, remark: None };
        assert_eq!(found(Some(record.clone()), slot, 111).start(false), Ok(start));
    }
}

#[test]
fn gaps_are_proven_and_can_be_accepted() {
    for (slot, server, gap) in [
        (101, 200, Gap::SlotBeyond { slot: lsn(101), record: lsn(100) }),
        (50, 99, Gap::ServerBehind { server: lsn(99), record: lsn(100) }),
        // Of the transaction that was sent in part, the commit record is gone.
        (50, 110, Gap::ServerBehind { server: lsn(110), record: lsn(100) }),
    ] {
        let found = found(Some(record(100, Some(7))), slot, server);
        assert_eq!(found.start(false), Err(gap));
        let start = found.start(true).unwrap();
        assert_eq!((start.from, start.inside, start.epoch), (lsn(slot), None, 4));
        assert!(start.remark.unwrap().starts_with("accepted a gap, from 0/64 to "));
    }
}

#[test]
fn a_server_is_behind_if_more_was_read_than_is_remembered() {
    let mut found = found(Some(record(100, None)), 50, 200);
    found.remembered.read = lsn(201);
    let gap = Gap::ServerBehind { server: lsn(200), record: lsn(201) };
    assert_eq!(found.start(false), Err(gap));
    found.remembered.read = lsn(200);
    assert!(found.start(false).is_ok());
}

#[test]
fn e15_another_publication_numbers_rows_differently() {
    let mut found = found(Some(record(100, Some(7))), 50, 200);
    found.publication = "q";
    let start = found.start(false).unwrap();
    assert_eq!((start.from, start.inside), (lsn(100), None));
    assert!(start.remark.is_some());
}

#[test]
fn after_a_promotion_nothing_of_the_new_timeline_is_skipped() {
    let promoted = |end, switch| {
        let found = found(Some(record(end, Some(7))), 50, 500);
        Found { timeline: 2, switched: Some(lsn(switch)), ..found }
    };
    let behind = promoted(100, 300).start(false).unwrap();
    let inside = Position { epoch: 4, commit: lsn(110), row: 7 };
    assert_eq!((behind.from, behind.inside, behind.epoch), (lsn(100), Some(inside), 4));
    let ahead = promoted(100, 80).start(false).unwrap();
    assert_eq!((ahead.from, ahead.inside, ahead.epoch), (lsn(80), None, 4));
    assert!(ahead.remark.unwrap().contains("events up to 0/6E were delivered already"));
    let renumbered = Found { publication: "q", ..promoted(100, 300) }.start(false).unwrap();
    assert_eq!((renumbered.from, renumbered.inside, renumbered.epoch), (lsn(100), None, 4));
    let cut = promoted(100, 105).start(false).unwrap();
    assert_eq!((cut.from, cut.inside), (lsn(100), None), "the transaction is gone");
    assert!(cut.remark.unwrap().contains("events up to 0/6E were delivered already"));
    let slot_beyond = Found { slot: lsn(90), ..promoted(100, 80) };
    let gap = slot_beyond.start(false).unwrap_err();
    assert!(matches!(gap, Gap::SlotBeyondSwitch { .. }), "{gap}");
    assert!(gap.to_string().contains("of which Postgres has lost"), "{gap}");
    let accepted = slot_beyond.start(true).unwrap();
    assert_eq!((accepted.from, accepted.inside, accepted.epoch), (lsn(90), None, 4));
    assert!(accepted.remark.unwrap().starts_with("accepted a gap, from 0/50 to 0/5A: "));
    let branch = Found { switched: None, ..promoted(100, 80) };
    assert_eq!(branch.start(false), Err(Gap::OtherBranch { now: 2, record: 1 }));
}

#[test]
fn each_promotion_has_its_epoch_whether_or_not_it_was_seen() {
    // A relay that was cut off had begun epoch 4 on timeline 2, and its record comes late.
    let found = Found { timeline: 3, switched: Some(lsn(300)), ..found(None, 50, 500) };
    let mut late = record(100, None);
    (late.context.timeline, late.context.epoch) = (2, 4);
    let remembered = |record| Remembered { record: Some(record), ..Remembered::default() };
    let unseen = Found { remembered: remembered(record(100, None)), ..found.clone() };
    let seen = Found { remembered: remembered(late), ..found };
    assert_eq!(unseen.start(false).unwrap().epoch, 5);
    assert_eq!(seen.start(false).unwrap().epoch, 5);
}

#[test]
fn a_history_file_tells_where_each_timeline_was_left() {
    let history = "1\t0/12006FF0\tno recovery target specified\n\n2\t1/0\tbefore 2000-01-01\n";
    assert_eq!(switched(history, 1), Some(lsn(0x1200_6FF0)));
    assert_eq!(switched(history, 2), Some(lsn(1 << 32)));
    assert_eq!(switched(history, 3), None);
}
