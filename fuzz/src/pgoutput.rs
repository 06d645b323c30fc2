//! Messages of pgoutput: any bytes, and what the encoders of the tests make of any values.

use std::fmt::Debug;

use walrelay::pg::output::{Change, Value};

use super::input::Input;
use super::testing::{Bytes, begin, commit, insert, relation};

/// The target.
pub fn pgoutput(data: &[u8]) {
    let mut input = Input::of(data);
    match input.below(6) {
        0 => any(input.rest()),
        1 => {
            let (lsn, us, xid) = (input.u64(), input.u64(), input.u32());
            encoded(&begin(lsn, us, xid), &Plain::Begin { lsn, us: us.cast_signed(), xid });
        }
        2 => {
            let (lsn, end) = (input.u64(), input.u64());
            encoded(&commit(lsn, end), &Plain::Commit { lsn, end });
        }
        3 => {
            let (oid, schema, table) = (input.u32(), input.name(), input.name());
            let columns: Vec<_> = (0..input.byte()).map(|_| (input.name(), input.u32())).collect();
            let named: Vec<_> = columns.iter().map(|(name, oid)| (name.as_str(), *oid)).collect();
            let bytes = relation(oid, &schema, &table, &named);
            encoded(&bytes, &Plain::Relation { oid, schema, table, columns });
        }
        4 => {
            let relation = input.u32();
            let value = |input: &mut Input<'_>| input.flag().then(|| input.bytes().to_vec());
            let row: Vec<_> = (0..input.byte()).map(|_| value(&mut input)).collect();
            let values: Vec<_> = row.iter().map(Option::as_deref).collect();
            encoded(&insert(relation, &values), &Plain::Insert { relation, row });
        }
        _ => {
            let (flags, prefix, content) = (input.byte(), input.name(), input.bytes());
            let len = u32::try_from(content.len()).unwrap();
            let bytes =
                Bytes::tag(b'M').raw(&[flags]).u64(input.u64()).text(&prefix).u32(len).raw(content);
            let (transactional, content) = (flags & 1 == 1, content.to_vec());
            let prefix = prefix.into_bytes();
            encoded(&bytes.0, &Plain::Message { transactional, prefix, content });
        }
    }
}

/// A message by its values alone, wherever they stood.
#[derive(Debug, PartialEq, Eq)]
enum Plain {
    Begin { lsn: u64, us: i64, xid: u32 },
    Commit { lsn: u64, end: u64 },
    Relation { oid: u32, schema: String, table: String, columns: Vec<(String, u32)> },
    Insert { relation: u32, row: Vec<Option<Vec<u8>>> },
    Message { transactional: bool, prefix: Vec<u8>, content: Vec<u8> },
    Update { relation: u32 },
    Other(String),
}

fn plain(change: &Change<'_>) -> Plain {
    let bytes = |value| match value {
        Value::Text(bytes) => Some(bytes.to_vec()),
        Value::Null => None,
    };
    match *change {
        Change::Begin { commit, committed_us, xid } => {
            Plain::Begin { lsn: commit.to_wire(), us: committed_us, xid }
        }
        Change::Commit { commit, end } => {
            Plain::Commit { lsn: commit.to_wire(), end: end.to_wire() }
        }
        Change::Relation(relation) => Plain::Relation {
            oid: relation.oid,
            schema: relation.schema.to_owned(),
            table: relation.table.to_owned(),
            columns: relation.columns().map(|it| (it.name.to_owned(), it.type_oid)).collect(),
        },
        Change::Insert { relation, row } => {
            let values: Vec<_> = row.values().map(bytes).collect();
            assert_eq!((row.len(), row.is_empty()), (values.len(), values.is_empty()));
            for (index, value) in values.iter().enumerate() {
                assert_eq!(row.get(index).map(bytes).as_ref(), Some(value));
            }
            assert_eq!(row.get(values.len()), None);
            Plain::Insert { relation, row: values }
        }
        Change::Update { relation } => Plain::Update { relation },
        Change::Message { transactional, prefix, content } => {
            let (prefix, content) = (prefix.to_vec(), content.to_vec());
            Plain::Message { transactional, prefix, content }
        }
        Change::Other(kind) => Plain::Other(format!("{kind:?}")),
    }
}

/// As the protocol lists the fields; what we do not read is zero.
fn encode(plain: &Plain) -> Option<Vec<u8>> {
    let bytes = match plain {
        Plain::Begin { lsn, us, xid } => begin(*lsn, us.cast_unsigned(), *xid),
        Plain::Commit { lsn, end } => commit(*lsn, *end),
        Plain::Relation { oid, schema, table, columns } => {
            let columns: Vec<_> = columns.iter().map(|(name, oid)| (name.as_str(), *oid)).collect();
            relation(*oid, schema, table, &columns)
        }
        Plain::Insert { relation, row } => {
            let row: Vec<_> = row.iter().map(Option::as_deref).collect();
            insert(*relation, &row)
        }
        Plain::Message { transactional, prefix, content } => {
            let len = u32::try_from(content.len()).unwrap();
            let head = Bytes::tag(b'M').raw(&[u8::from(*transactional)]).u64(0);
            head.raw(prefix).raw(b"\0").u32(len).raw(content).0
        }
        // Of these, no more is read than is said here.
        Plain::Update { .. } | Plain::Other(_) => return None,
    };
    Some(bytes)
}

/// What was encoded is what is decoded, and no part of it is.
fn encoded(bytes: &[u8], expected: &Plain) {
    let change = Change::parse(bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
    assert_eq!(plain(&change), *expected);
    exact(bytes);
}

/// Whatever it is, it is read whole or not at all, and means the same when it is written again.
fn any(bytes: &[u8]) {
    let Ok(change) = Change::parse(bytes) else { return };
    let meant = plain(&change);
    if let Some(again) = encode(&meant) {
        assert_eq!(Change::parse(&again).map(|change| plain(&change)), Ok(meant));
        assert!(again.len() <= bytes.len(), "nothing is made up");
        exact(bytes);
    }
}

/// Neither a prefix of a message nor more than it is one.
fn exact(bytes: &[u8]) {
    // The beginning and the end, or a long message would take for ever.
    let ends = (0..bytes.len()).filter(|end| *end < 200 || *end + 200 > bytes.len());
    for end in ends {
        refused(&bytes[..end]);
    }
    refused(&[bytes, b"\0"].concat());
}

fn refused(bytes: &[u8]) {
    let parsed = Change::parse(bytes);
    assert!(parsed.is_err(), "{:?} of {bytes:?}", &parsed as &dyn Debug);
}
