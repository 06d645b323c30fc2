//! The pipe step by step: what is an error, what holds it up, what is stepped over.

use std::sync::Arc;

use super::*;
use crate::config::{Encoding, Outbox};
use crate::encode::Answer;
use crate::frontier::Limits;
use crate::pg::table::TableName;
use crate::record::Record;
use crate::schema::{Registered, Schema};
use crate::template::Template;
use crate::testing::{Bytes, begin, commit, data, insert, keepalive, relation};

/// Two outboxes and a table of somebody else.
const ORDERS: u32 = 1;
const POSTS: u32 = 2;
const STRANGER: u32 = 3;

fn outbox(name: &str) -> Outbox {
    let table = TableName { schema: "public".into(), name: name.into() };
    let topic = Template::parse(&format!("{name}{{suffix}}")).unwrap();
    Outbox { id: Some("id".into()), ..Outbox::bare(table, "id", topic) }
}

/// What Kafka was given, as `topic payload position`.
#[derive(Debug, Default)]
struct Given {
    records: Vec<String>,
    tickets: Vec<Ticket>,
    refusal: Option<Refused>,
    /// Of each record, whether it was handed over before.
    again: Vec<bool>,
}

impl Sink for Given {
    fn send(&mut self, record: &Record<'_>, ticket: Ticket) -> Result<(), Refused> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        let (header, position) = record.headers.iter().last().unwrap();
        assert_eq!(header, "position");
        let (topic, payload, position) = (record.topic, text(record.payload), text(position));
        self.records.push(format!("{topic} {payload} {position}"));
        self.tickets.push(ticket);
        self.again.push(record.again);
        Ok(())
    }
}

struct Scene {
    pipe: Pipe,
    given: Given,
}

/// Everything that must not move while a row is stuck.
type Standing = (Lsn, Option<Lsn>, usize, usize, Vec<String>);

impl Scene {
    /// A pipe at 0/32 that has been connected and knows the tables.
    fn new() -> Scene {
        let limits = Limits { records: 4, bytes: 1 << 20, span: 100 };
        let outboxes =
            Outboxes::new(vec![outbox("orders"), outbox("posts")], Some("position".into()));
        let pipe = Pipe::new(outboxes, Frontier::new(Lsn::from_wire(50), limits));
        let mut scene = Scene { pipe, given: Given::default() };
        scene.reconnect();
        scene
    }

    fn reconnect(&mut self) {
        self.pipe.reconnect();
        for (oid, name) in [(ORDERS, "orders"), (POSTS, "posts"), (STRANGER, "stranger")] {
            let columns = [("id", 25), ("suffix", 25)];
            self.taken(&data(0, &relation(oid, "public", name, &columns)));
        }
    }

    fn take(&mut self, body: &[u8]) -> Result<Step, StreamError> {
        self.pipe.take(body, &mut self.given)
    }

    fn taken(&mut self, body: &[u8]) {
        assert_eq!(self.take(body), Ok(Step::Taken));
    }

    fn begin(&mut self, at: u64) {
        self.taken(&data(at, &begin(at, at + 7, 1)));
    }

    fn rows(&mut self, oid: u32, ids: &[&str]) {
        for id in ids {
            self.taken(&row(oid, id));
        }
    }

    /// COMMIT of the transaction at `at`, which ends 10 behind it.
    fn commit(&mut self, at: u64) {
        self.taken(&data(at, &commit(at, at + 10)));
    }

    fn ack(&mut self) {
        for ticket in self.given.tickets.drain(..) {
            self.pipe.acked(ticket, 1, ticket.charge());
        }
    }

    fn confirmed(&self) -> u64 {
        self.pipe.frontier().confirmed().lsn().to_wire()
    }

    fn standing(&self) -> Standing {
        let frontier = self.pipe.frontier();
        let confirmed = frontier.confirmed().lsn();
        let (records, bytes) = (frontier.records(), frontier.bytes());
        (confirmed, frontier.open(), records, bytes, self.given.records.clone())
    }

    /// Stuck at this row however often it is offered, with nothing moved.
    fn stuck(&mut self, body: &[u8]) -> String {
        let before = self.standing();
        let Ok(Step::Stuck(first)) = self.take(body) else { panic!("not stuck") };
        for _ in 0..3 {
            assert_eq!(self.take(body), Ok(Step::Stuck(first.clone())));
        }
        assert_eq!(self.standing(), before);
        first.to_string()
    }
}

fn row(oid: u32, id: &str) -> Vec<u8> {
    data(0, &insert(oid, &[Some(id.as_bytes()), Some(b"")]))
}

fn poison(oid: u32, id: &str) -> Vec<u8> {
    data(0, &insert(oid, &[Some(id.as_bytes()), Some(b" ")]))
}

fn error(scene: &mut Scene, body: &[u8]) -> String {
    scene.take(body).unwrap_err().to_string()
}

#[test]
fn begin_rows_and_commit_come_in_their_order_or_not_at_all() {
    let refused = |happened: fn(&mut Scene), body: Vec<u8>, expected: &str| {
        let mut scene = Scene::new();
        happened(&mut scene);
        let before = scene.standing();
        let expected = format!("{expected}; nothing behind it will be confirmed");
        assert_eq!(error(&mut scene, &body), expected);
        assert_eq!(scene.standing(), before);
    };
    let begin_at = |at| data(at, &begin(at, 0, 1));
    let commit_at = |at| data(at, &commit(at, at + 10));
    let one = |scene: &mut Scene| {
        scene.begin(0x100);
        scene.rows(ORDERS, &["a"]);
    };
    let inside = "a transaction began inside another";
    refused(one, begin_at(0x200), &format!("{inside} (at 0/200)"));
    refused(one, begin_at(0x100), &format!("{inside} (at 0/100)"));
    let stray = "a COMMIT came that no BEGIN announced";
    refused(|_| {}, commit_at(0x200), &format!("{stray} (at 0/200)"));
    refused(one, commit_at(0x200), &format!("{stray} (at 0/200)"));
    let whole = |scene: &mut Scene| {
        scene.begin(0x100);
        scene.rows(ORDERS, &["a"]);
        scene.commit(0x100);
    };
    let late = "a transaction came after a later one";
    refused(whole, commit_at(0x100), &format!("{stray} (at 0/100)"));
    refused(whole, begin_at(0x100), &format!("{late} (at 0/100)"));
    refused(whole, begin_at(0xFF), &format!("{late} (at 0/FF)"));
    let outside = "a row came outside a transaction";
    refused(|_| {}, row(ORDERS, "a"), &format!("{outside} (at 0/0)"));
    refused(whole, row(ORDERS, "b"), &format!("{outside} (at 0/100)"));
    let half = |scene: &mut Scene| {
        scene.begin(0x100);
        scene.rows(ORDERS, &["a"]);
        scene.reconnect();
    };
    let missing = "the rest of the transaction before it never came";
    refused(half, begin_at(0x200), &format!("{missing} (at 0/200)"));
}

/// It would be confirmed before it is in Kafka, and lost with the producer.
#[test]
fn nothing_new_comes_from_before_what_was_read() {
    let refused = |happened: fn(&mut Scene), at: u64| {
        let mut scene = Scene::new();
        happened(&mut scene);
        let what = "a row came of a transaction from before what had been read";
        let expected = format!("{what} (at 0/{at:X}); nothing behind it will be confirmed");
        assert_eq!(error(&mut scene, &row(ORDERS, "late")), expected);
        assert!(!scene.given.records.iter().any(|record| record.contains("late")));
    };
    let of_a_keepalive: fn(&mut Scene) = |scene| {
        scene.taken(&keepalive(0x200, false));
        scene.begin(0x1FF);
    };
    refused(of_a_keepalive, 0x1FF);
    let of_a_commit_in_flight: fn(&mut Scene) = |scene| {
        scene.begin(0x100);
        scene.rows(ORDERS, &["a"]);
        scene.commit(0x100);
        scene.begin(0x109);
    };
    refused(of_a_commit_in_flight, 0x109);
    let of_a_transaction_that_had_ended: fn(&mut Scene) = |scene| {
        scene.begin(0x100);
        scene.rows(ORDERS, &["a"]);
        scene.commit(0x100);
        scene.reconnect();
        scene.begin(0x100);
        scene.rows(ORDERS, &["a"]);
    };
    refused(of_a_transaction_that_had_ended, 0x100);
    let of_a_half_that_was_acked: fn(&mut Scene) = |scene| {
        scene.begin(0x100);
        scene.stuck(&poison(ORDERS, "a"));
        scene.pipe.skip_row();
        scene.reconnect();
        scene.taken(&keepalive(0x200, false));
        scene.begin(0x100);
        scene.rows(ORDERS, &["a"]);
    };
    refused(of_a_half_that_was_acked, 0x100);
    // The very place is not before it.
    let mut scene = Scene::new();
    scene.taken(&keepalive(0x200, false));
    scene.begin(0x200);
    scene.rows(ORDERS, &["a"]);
    scene.commit(0x200);
    scene.begin(0x20A);
    scene.rows(ORDERS, &["b"]);
}

#[test]
fn what_was_handed_over_to_a_producer_that_is_gone_is_known_as_it_comes_again() {
    let mut scene = Scene::new();
    scene.begin(0x100);
    scene.rows(ORDERS, &["a", "b"]);
    scene.pipe.restart();
    scene.reconnect();
    scene.begin(0x100);
    scene.rows(ORDERS, &["a", "b", "c"]);
    assert_eq!(scene.given.again, [false, false, true, true, false]);
}

#[test]
fn a_transaction_without_rows_need_not_come_again() {
    let mut scene = Scene::new();
    scene.begin(0x100);
    scene.reconnect();
    scene.begin(0x200);
    scene.commit(0x200);
    assert_eq!(scene.confirmed(), 0x20A);
}

#[test]
fn what_the_protocol_does_not_allow_is_an_error_that_says_where() {
    let mut scene = Scene::new();
    scene.begin(0x100);
    scene.rows(ORDERS, &["a"]);
    let prepared = "malformed message: the slot was created with two_phase";
    assert_eq!(error(&mut scene, &data(0, b"P")), format!("{prepared} (near 0/100)"));
    scene.commit(0x100);
    assert_eq!(error(&mut scene, &data(0, b"P")), format!("{prepared} (near 0/100)"));
    assert_eq!(error(&mut scene, b""), "malformed message: too short (near 0/100)");
    let cut = keepalive(9, true);
    assert_eq!(error(&mut scene, &cut[..17]), "malformed message: too short (near 0/100)");
}

#[test]
fn what_an_outbox_has_no_use_for_is_no_row() {
    let mut scene = Scene::new();
    scene.begin(0x100);
    scene.rows(ORDERS, &["a"]);
    let message = Bytes::tag(b'M').raw(&[1]).u64(9).text("prefix").u32(2).raw(b"hi").0;
    for other in [b"U\0\0\0\x03".as_slice(), b"D", b"T", b"O", b"Y", &message] {
        scene.taken(&data(0, other));
    }
    scene.taken(b"s is newer than we are");
    scene.rows(ORDERS, &["b"]);
    let expected = [
        "orders a 00000000-0000000000000100-00000000",
        "orders b 00000000-0000000000000100-00000001",
    ];
    assert_eq!(scene.given.records, expected);
}

#[test]
fn rows_are_numbered_over_all_published_tables() {
    let mut scene = Scene::new();
    scene.begin(0x16_B374_D848);
    scene.rows(ORDERS, &["a"]);
    scene.rows(POSTS, &["b"]);
    scene.stuck(&row(STRANGER, "c"));
    scene.pipe.skip_row();
    scene.rows(ORDERS, &["d"]);
    scene.commit(0x16_B374_D848);
    scene.begin(0x16_B374_D900);
    scene.rows(POSTS, &["e"]);
    let expected = [
        "orders a 00000000-00000016B374D848-00000000",
        "posts b 00000000-00000016B374D848-00000001",
        "orders d 00000000-00000016B374D848-00000003",
        "posts e 00000000-00000016B374D900-00000000",
    ];
    assert_eq!(scene.given.records, expected);
    // After the producer is lost the same rows bear the same numbers.
    scene.pipe.restart();
    scene.given = Given::default();
    scene.reconnect();
    scene.begin(0x16_B374_D848);
    scene.rows(ORDERS, &["a"]);
    scene.rows(POSTS, &["b"]);
    scene.stuck(&row(STRANGER, "c"));
    scene.pipe.skip_row();
    scene.rows(ORDERS, &["d"]);
    assert_eq!(scene.given.records, expected[..3]);
}

#[test]
fn a_stuck_row_stays_stuck_and_moves_nothing() {
    let mut scene = Scene::new();
    scene.begin(0x100);
    scene.rows(ORDERS, &["a"]);
    assert_eq!(
        scene.stuck(&poison(ORDERS, "b")),
        "row 00000000-0000000000000100-00000001 of public.orders (id b): ' ' is not allowed in a \
         topic name (only letters, digits, \".\", \"_\" and \"-\"); \
         to go on without it, set on_poison to \"dead_letter\" or \"skip\""
    );
    let stranger = scene.stuck(&row(STRANGER, "c"));
    let expected = "transaction 0/100: the publication holds public.stranger, which no [[outbox]]";
    assert!(stranger.starts_with(expected), "{stranger}");
    assert_eq!(
        scene.stuck(&row(99, "c")),
        "transaction 0/100: a row came for relation 99, which was not announced"
    );
    scene.given.refusal = Some(Refused::Unsendable(Flaw::Size, "too large".into()));
    assert_eq!(
        scene.stuck(&row(POSTS, "d")),
        "row 00000000-0000000000000100-00000001 of public.posts (id d): too large; to go \
         on without it, set on_poison to \"dead_letter\" or \"skip\""
    );
    // What was sent before it is acked all the same, but confirmed with its transaction only.
    scene.ack();
    assert!(scene.pipe.frontier().is_idle());
    assert_eq!(scene.confirmed(), 50);
    // The cause is gone: the row goes on under its own number.
    scene.given.refusal = None;
    scene.rows(POSTS, &["d"]);
    scene.commit(0x100);
    scene.ack();
    assert_eq!(scene.confirmed(), 0x10A);
    assert_eq!(scene.given.records[1], "posts d 00000000-0000000000000100-00000001");
}

#[test]
fn a_row_that_is_skipped_is_stepped_over_in_the_next_connection_too() {
    let mut scene = Scene::new();
    scene.begin(0x100);
    scene.rows(ORDERS, &["a"]);
    scene.stuck(&poison(ORDERS, "b"));
    scene.pipe.skip_row();
    scene.rows(ORDERS, &["c"]);
    scene.stuck(&poison(ORDERS, "d"));
    scene.pipe.skip_row();
    let records = scene.given.records.clone();
    assert_eq!(records.len(), 2);

    scene.reconnect();
    scene.begin(0x100);
    scene.rows(ORDERS, &["a"]);
    scene.taken(&poison(ORDERS, "b"));
    scene.rows(ORDERS, &["c"]);
    scene.taken(&poison(ORDERS, "d"));
    assert_eq!(scene.given.records, records, "nothing is sent twice");
    scene.rows(ORDERS, &["e"]);
    scene.commit(0x100);
    scene.ack();
    assert_eq!(scene.given.records[2], "orders e 00000000-0000000000000100-00000004");
    assert_eq!(scene.confirmed(), 0x10A);
}

#[test]
fn a_transaction_of_skipped_rows_alone_is_confirmed_like_an_empty_one() {
    let mut scene = Scene::new();
    scene.begin(0x100);
    scene.stuck(&poison(ORDERS, "a"));
    scene.pipe.skip_row();
    scene.commit(0x100);
    assert_eq!(scene.confirmed(), 0x10A);
    // Between transactions there is no row to skip.
    scene.pipe.skip_row();
    scene.begin(0x200);
    scene.rows(ORDERS, &["b"]);
    assert_eq!(scene.given.records, ["orders b 00000000-0000000000000200-00000000"]);
}

#[test]
fn a_lost_producer_brings_the_skipped_row_back() {
    let mut scene = Scene::new();
    scene.begin(0x100);
    scene.rows(ORDERS, &["a"]);
    scene.stuck(&poison(ORDERS, "b"));
    scene.pipe.skip_row();
    scene.pipe.restart();
    scene.reconnect();
    scene.begin(0x100);
    scene.rows(ORDERS, &["a"]);
    scene.stuck(&poison(ORDERS, "b"));
    assert_eq!(scene.given.records.len(), 2, "it is sent again");
}

/// D11: the broker fails the whole batch for one record, and does not say for which.
#[test]
fn rows_of_a_refused_batch_go_one_at_a_time_until_the_culprit_is_found() {
    let mut scene = Scene::new();
    let again = |scene: &mut Scene| {
        scene.pipe.suspect(Flaw::Size, "too large");
        scene.pipe.restart();
        scene.given.tickets.clear();
        scene.reconnect();
        scene.begin(0x100);
    };
    scene.begin(0x100);
    scene.rows(ORDERS, &["a", "b", "c"]);
    again(&mut scene);
    scene.rows(ORDERS, &["a"]);
    assert_eq!(scene.take(&row(ORDERS, "b")), Ok(Step::Full), "a is on its way");
    scene.ack();
    scene.rows(ORDERS, &["b"]);
    again(&mut scene);
    // The first is in Kafka; it was alone.
    scene.rows(ORDERS, &["a"]);
    assert_eq!(
        scene.stuck(&row(ORDERS, "b")),
        "row 00000000-0000000000000100-00000001 of public.orders (id b): too large; to go \
         on without it, set on_poison to \"dead_letter\" or \"skip\""
    );
    scene.pipe.skip_row();
    scene.rows(ORDERS, &["c"]);
    again(&mut scene);
    // Both of them are at fault, and neither is sent again.
    scene.rows(ORDERS, &["a"]);
    scene.stuck(&row(ORDERS, "b"));
    scene.pipe.skip_row();
    scene.stuck(&row(ORDERS, "c"));
    let sent: Vec<_> = scene.given.records.iter().map(|record| &record[7..8]).collect();
    assert_eq!(sent, ["a", "b", "c", "a", "b", "c"]);
    // Until they are pardoned.
    scene.pipe.pardon();
    scene.rows(ORDERS, &["c"]);
    scene.commit(0x100);
    scene.ack();
    assert_eq!(scene.confirmed(), 0x10A);
    // Behind the refused batch, rows go together again.
    scene.begin(0x200);
    scene.rows(ORDERS, &["d", "e"]);
}

#[test]
fn suspects_go_together_again_as_they_are_taken() {
    let mut scene = Scene::new();
    scene.begin(0x100);
    scene.rows(ORDERS, &["a", "b", "c", "d"]);
    scene.pipe.suspect(Flaw::Size, "too large");
    scene.pipe.restart();
    scene.given.tickets.clear();
    scene.reconnect();
    scene.begin(0x100);
    let full = |scene: &mut Scene, next| {
        assert_eq!(scene.take(&row(ORDERS, next)), Ok(Step::Full));
        scene.ack();
    };
    scene.rows(ORDERS, &["a"]);
    full(&mut scene, "b");
    scene.rows(ORDERS, &["b", "c"]);
    full(&mut scene, "d");
    // Behind them, nothing is in doubt.
    scene.rows(ORDERS, &["d", "e", "f", "g"]);
}

/// The row in flight is at fault, not the one behind it that was stepped over meanwhile.
#[test]
fn a_skipped_row_is_not_taken_for_the_culprit() {
    let mut scene = Scene::new();
    for attempt in 0..3 {
        scene.begin(0x100);
        if attempt < 2 {
            scene.rows(ORDERS, &["a"]);
        } else {
            let culprit = scene.stuck(&row(ORDERS, "a"));
            assert!(culprit.contains("(id a): too large;"), "{culprit}");
            scene.pipe.skip_row();
        }
        scene.stuck(&poison(ORDERS, "b"));
        scene.pipe.skip_row();
        scene.pipe.suspect(Flaw::Size, "too large");
        scene.pipe.restart();
        scene.given.tickets.clear();
        scene.reconnect();
    }
}

#[test]
fn a_row_without_room_is_offered_again_and_goes_on_unchanged() {
    let mut scene = Scene::new();
    scene.begin(0x100);
    for refuse in [true, false] {
        scene.given.refusal = refuse.then_some(Refused::Full);
        if !refuse {
            // As many as the limit allows.
            scene.rows(ORDERS, &["a", "b", "c", "d"]);
        }
        let before = scene.standing();
        for _ in 0..3 {
            assert_eq!(scene.take(&row(POSTS, "e")), Ok(Step::Full));
        }
        assert_eq!(scene.standing(), before);
    }
    scene.ack();
    scene.rows(POSTS, &["e"]);
    assert_eq!(scene.given.records[4], "posts e 00000000-0000000000000100-00000004");
}

#[test]
fn a_keepalive_counts_between_transactions_only_and_is_answered_everywhere() {
    let mut scene = Scene::new();
    assert_eq!(scene.take(&keepalive(60, true)), Ok(Step::ReplyWanted));
    assert_eq!(scene.take(&keepalive(70, false)), Ok(Step::Taken));
    assert_eq!((scene.confirmed(), scene.pipe.received()), (70, Lsn::from_wire(70)));
    assert_eq!(scene.take(&keepalive(65, false)), Ok(Step::Taken));
    assert_eq!((scene.confirmed(), scene.pipe.received()), (70, Lsn::from_wire(70)));
    scene.begin(0x100);
    for _ in 0..2 {
        assert_eq!(scene.take(&keepalive(0x900, true)), Ok(Step::ReplyWanted));
        assert_eq!((scene.confirmed(), scene.pipe.received()), (70, Lsn::from_wire(0x900)));
        scene.rows(ORDERS, &["a"]);
    }
    scene.commit(0x100);
    // Records are in flight: it waits behind them.
    assert_eq!(scene.take(&keepalive(0xA00, true)), Ok(Step::ReplyWanted));
    assert_eq!(scene.confirmed(), 70);
    scene.ack();
    assert_eq!(scene.confirmed(), 0xA00);
}

#[test]
fn a_keepalive_before_the_rest_of_a_half_sent_transaction_confirms_what_lies_before_it() {
    let mut scene = Scene::new();
    scene.begin(0x100);
    scene.rows(ORDERS, &["a"]);
    scene.ack();
    scene.reconnect();
    scene.taken(&keepalive(0xF0, false));
    assert_eq!(scene.confirmed(), 0xF0);
}

#[test]
fn a_start_steps_over_the_rows_that_were_delivered_before_it() {
    let mut scene = Scene::new();
    let inside = Some(Position { epoch: 7, commit: Lsn::from_wire(0x100), row: 1 });
    let from = Lsn::from_wire(0x90);
    scene.pipe.start(&Start { from, inside, epoch: 7, remark: None });
    scene.reconnect();
    assert_eq!(scene.confirmed(), 0x90);
    scene.begin(0x100);
    scene.rows(ORDERS, &["a", "b", "c"]);
    assert_eq!(scene.given.tickets.len(), 1, "only the third row is new");
    scene.commit(0x100);
    scene.ack();
    assert!(scene.confirmed() > 0x100);
}

#[test]
fn what_was_reached_is_known_to_the_row_once_nothing_is_in_flight() {
    let mut scene = Scene::new();
    let reached = |scene: &Scene| {
        let reached = scene.pipe.reached();
        let inside = reached.inside.map(|row| (row.commit.to_wire(), row.row));
        (reached.flush.lsn().to_wire(), inside)
    };
    assert_eq!(reached(&scene), (50, None));
    scene.begin(100);
    scene.rows(ORDERS, &["a", "b"]);
    assert_eq!(reached(&scene), (50, None), "they may be lost with the producer");
    scene.ack();
    assert_eq!(reached(&scene), (50, Some((100, 1))));
    scene.rows(ORDERS, &["c"]);
    assert_eq!(reached(&scene), (50, None), "and with it, which of them");
    scene.ack();
    // The connection breaks; the next one brings the rest.
    scene.reconnect();
    assert_eq!(reached(&scene), (50, Some((100, 2))));
    scene.begin(100);
    scene.rows(ORDERS, &["a", "b", "c", "d"]);
    scene.ack();
    scene.commit(100);
    assert_eq!(reached(&scene), (110, None));
}

#[test]
fn what_passed_is_counted_once() {
    let mut scene = Scene::new();
    assert_eq!(scene.pipe.passed(), Passed::default());
    scene.begin(0x100);
    scene.rows(ORDERS, &["a", "bc"]);
    scene.stuck(&poison(ORDERS, "defg"));
    scene.pipe.skip_row();
    assert_eq!(scene.pipe.passed(), Passed { transactions: 0, bytes: 3, loose: 0 });
    scene.commit(0x100);
    scene.begin(0x200);
    scene.commit(0x200);
    assert_eq!(scene.pipe.passed(), Passed { transactions: 2, bytes: 0, loose: 0 });
    assert_eq!(scene.pipe.passed(), Passed::default());
}

#[test]
fn an_ack_tells_when_its_transaction_committed() {
    let mut scene = Scene::new();
    scene.begin(0x100);
    scene.rows(ORDERS, &["a", "b"]);
    let ticket = scene.given.tickets[0];
    assert_eq!(scene.pipe.acked(ticket, 2, 2 * ticket.charge()), 0x107);
}

/// C22: the clock of Postgres is put back. Its times are for measuring, and order nothing.
#[test]
fn c22_commit_times_that_go_back_change_nothing() {
    let mut scene = Scene::new();
    for (at, committed_us) in [(100, 9_000_000), (200, 1_000_000), (300, 5)] {
        scene.taken(&data(at, &begin(at, committed_us, 1)));
        scene.rows(ORDERS, &[&at.to_string()]);
        scene.commit(at);
    }
    let committed: Vec<i64> = scene
        .given
        .tickets
        .drain(..)
        .map(|ticket| scene.pipe.acked(ticket, 1, ticket.charge()))
        .collect();
    assert_eq!(committed, [9_000_000, 1_000_000, 5]);
    let payloads = scene.given.records.iter().map(|record| record.split(' ').nth(1).unwrap());
    assert_eq!(payloads.collect::<Vec<_>>(), ["100", "200", "300"]);
    assert_eq!(scene.confirmed(), 310);
    // All of them come again after a reconnect, with other times, and are stepped over.
    scene.reconnect();
    for at in [100, 200, 300] {
        scene.taken(&data(at, &begin(at, 0, 1)));
        scene.rows(ORDERS, &[&at.to_string()]);
        scene.commit(at);
    }
    assert_eq!((scene.given.records.len(), scene.confirmed()), (3, 310));
}

/// A pipe whose payloads are held against a schema, with a transaction begun.
fn encoding(encoding: Option<Encoding>) -> Scene {
    let limits = Limits { records: 4, bytes: 1 << 20, span: 100 };
    let outbox = Outbox { encoding, ..outbox("orders") };
    let outboxes = Outboxes::new(vec![outbox], Some("position".into()));
    let pipe = Pipe::new(outboxes, Frontier::new(Lsn::from_wire(50), limits));
    let mut scene = Scene { pipe, given: Given::default() };
    scene.reconnect();
    scene.begin(100);
    scene
}

#[test]
fn a_payload_waits_for_its_schema_and_is_charged_as_what_it_becomes() {
    let mut scene = encoding(Some(Encoding::Avro));
    let answer = |scene: &mut Scene, number| {
        let text = r#"{"type": "array", "items": "double"}"#.to_owned();
        let (encoding, references) = (Encoding::Avro, Vec::new());
        let schema = Schema::new(&Registered { id: 7, encoding, text, references });
        let (subject, schema) = ("orders-value".to_owned(), schema.map(Arc::new));
        scene.pipe.encoder_mut().answered(Answer { subject, number, schema });
    };
    let numbers = row(ORDERS, &format!("[{}2]", "2,".repeat(19)));
    for _ in 0..2 {
        assert_eq!(scene.take(&numbers), Ok(Step::Full));
    }
    assert_eq!(scene.pipe.encoder_mut().take_questions().len(), 1);
    assert_eq!(scene.given.records.len(), 0);
    answer(&mut scene, 1);
    scene.taken(&numbers);
    let value = format!("orders \0\0\0\0\u{7}({}\0 ", "\0\0\0\0\0\0\0@".repeat(20));
    assert!(scene.given.records[0].starts_with(&value), "{:?}", scene.given);
    let mut plain = encoding(None);
    plain.taken(&numbers);
    let [encoded, plain] = [&scene, &plain].map(|scene| scene.pipe.frontier().bytes());
    assert!(encoded >= plain + 100, "{encoded} and {plain}");

    assert_eq!(scene.take(&row(ORDERS, "x")), Ok(Step::Full), "there may be a newer schema");
    answer(&mut scene, 2);
    let Ok(Step::Stuck(Stuck::Poison(poison))) = scene.take(&row(ORDERS, "x")) else {
        panic!("{:?}", scene.given);
    };
    let reason = "its payload does not fit schema 7 of subject orders-value: it is no JSON";
    assert!(poison.reason.starts_with(reason), "{poison}");
}
