use super::*;
use crate::testing::{self, Bytes};

fn relation() -> Vec<u8> {
    testing::relation(16_384, "public", "outbox", &[("id", 2950), ("payload", 3802)])
}

fn insert() -> Vec<u8> {
    testing::insert(16_384, &[Some(b"7"), None, Some(b"")])
}

fn messages() -> Vec<(Vec<u8>, Change<'static>)> {
    let begin = testing::begin(40, 7, 731);
    let commit = testing::commit(40, 48);
    let message = Bytes::tag(b'M').raw(&[1]).u64(9).text("p").u32(2).raw(b"hi").0;
    vec![
        (begin, Change::Begin { commit: Lsn::from_wire(40), committed_us: 7, xid: 731 }),
        (commit, Change::Commit { commit: Lsn::from_wire(40), end: Lsn::from_wire(48) }),
        (message, Change::Message { transactional: true, prefix: b"p", content: b"hi" }),
    ]
}

#[test]
fn reads_each_message() {
    for (bytes, expected) in messages() {
        assert_eq!(Change::parse(&bytes), Ok(expected));
    }
    for (tag, kind) in
        [(b'D', Kind::Delete), (b'T', Kind::Truncate), (b'O', Kind::Origin), (b'Y', Kind::Type)]
    {
        assert_eq!(Change::parse(&[tag, 1, 2, 3]), Ok(Change::Other(kind)));
    }
}

#[test]
fn reads_a_relation_with_its_columns() {
    let bytes = relation();
    let Ok(Change::Relation(relation)) = Change::parse(&bytes) else { panic!("no relation") };
    assert_eq!((relation.oid, relation.schema, relation.table), (16_384, "public", "outbox"));
    let columns: Vec<_> = relation.columns().collect();
    let expected = [("id", 2950), ("payload", 3802)];
    assert_eq!(columns, expected.map(|(name, type_oid)| Column { name, type_oid, modifier: -1 }));
}

#[test]
fn null_and_empty_text_are_two_values() {
    let bytes = insert();
    let Ok(Change::Insert { relation, row }) = Change::parse(&bytes) else { panic!("no insert") };
    assert_eq!(relation, 16_384);
    let values: Vec<_> = row.values().collect();
    assert_eq!(values, [Value::Text(b"7"), Value::Null, Value::Text(b"")]);
    assert_eq!(row.get(2), Some(Value::Text(b"")));
    assert_eq!(row.get(3), None);
}

#[test]
fn no_prefix_and_no_longer_message_passes() {
    let mut all: Vec<_> = messages().into_iter().map(|(bytes, _)| bytes).collect();
    all.extend([relation(), insert()]);
    for bytes in all {
        for end in 0..bytes.len() {
            assert!(Change::parse(&bytes[..end]).is_err(), "{end} bytes of {bytes:?}");
        }
        let longer = [bytes.as_slice(), b"\0"].concat();
        assert!(Change::parse(&longer).is_err(), "one byte more than {bytes:?}");
    }
}

#[test]
fn what_it_cannot_read_right_it_does_not_read_at_all() {
    let head = |count| Bytes::tag(b'I').u32(1).raw(b"N").raw(&i16::to_be_bytes(count));
    let row = |kind: &[u8]| head(1).raw(kind).u32(1).raw(b"x").0;
    let toast = head(1).raw(b"u").0;
    for (bytes, reason) in [
        (toast, "an inserted row lacks a TOASTed value"),
        (row(b"b"), "a value came in binary, which was not asked for"),
        (row(b"?"), "unknown kind of value"),
        (vec![b'b', 0, 0], "the slot was created with two_phase"),
        (vec![b'?'], "unknown message of pgoutput"),
        (Bytes::tag(b'I').u32(1).raw(b"K").0, "an insert without a new row"),
        (head(-1).0, "negative count"),
        (row(b"t")[..13].to_vec(), "too short"),
    ] {
        assert_eq!(Change::parse(&bytes), Err(Malformed(reason)));
    }
}
