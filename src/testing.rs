//! For unit tests: messages of the wire, and random schedules that can be played again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A small generator (SplitMix64): good enough to choose steps, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// A number in `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// An index into something of this length.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }
}

/// Runs `schedule` for `count` seeds, new ones each time. `WALRELAY_SEED=…` runs that one alone;
/// `WALRELAY_SEEDS=…` runs so many. A failure prints the seed.
pub fn seeds(count: u64, schedule: impl Fn(Random)) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (first, count) = if let Some(seed) = number("WALRELAY_SEED") {
        (seed, 1)
    } else {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap();
        (now.as_secs() * 1_000_000_000, number("WALRELAY_SEEDS").unwrap_or(count))
    };
    for seed in first..first + count {
        let outcome = catch_unwind(AssertUnwindSafe(|| schedule(Random::new(seed))));
        if let Err(panic) = outcome {
            eprintln!("failed with WALRELAY_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

/// A message, built field by field.
#[derive(Clone, Debug, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// Begins with a tag.
    pub fn tag(tag: u8) -> Bytes {
        Bytes(vec![tag])
    }

    /// These bytes.
    pub fn raw(mut self, bytes: &[u8]) -> Bytes {
        self.0.extend_from_slice(bytes);
        self
    }

    /// An LSN or a time.
    pub fn u64(self, value: u64) -> Bytes {
        self.raw(&value.to_be_bytes())
    }

    /// An OID, an xid or a length.
    pub fn u32(self, value: u32) -> Bytes {
        self.raw(&value.to_be_bytes())
    }

    /// A count.
    pub fn u16(self, value: usize) -> Bytes {
        self.raw(&u16::try_from(value).unwrap().to_be_bytes())
    }

    /// Text with its NUL.
    pub fn text(self, text: &str) -> Bytes {
        self.raw(text.as_bytes()).raw(b"\0")
    }

    /// A value of a row.
    pub fn value(self, value: Option<&[u8]>) -> Bytes {
        match value {
            Some(bytes) => self.raw(b"t").u32(u32::try_from(bytes.len()).unwrap()).raw(bytes),
            None => self.raw(b"n"),
        }
    }
}

/// A message as it is framed: tag, length, body.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap();
    [&[tag], len.to_be_bytes().as_slice(), body].concat()
}

/// BEGIN of pgoutput.
pub fn begin(commit: u64, committed_us: u64, xid: u32) -> Vec<u8> {
    Bytes::tag(b'B').u64(commit).u64(committed_us).u32(xid).0
}

/// COMMIT of pgoutput.
pub fn commit(commit: u64, end: u64) -> Vec<u8> {
    Bytes::tag(b'C').raw(&[0]).u64(commit).u64(end).u64(0).0
}

/// Relation of pgoutput, with names and type OIDs of the columns.
pub fn relation(oid: u32, schema: &str, table: &str, columns: &[(&str, u32)]) -> Vec<u8> {
    let head = Bytes::tag(b'R').u32(oid).text(schema).text(table).raw(b"d").u16(columns.len());
    let column = |bytes: Bytes, &(name, type_oid): &(&str, u32)| {
        bytes.raw(&[0]).text(name).u32(type_oid).u32(u32::MAX)
    };
    columns.iter().fold(head, column).0
}

/// Insert of pgoutput.
pub fn insert(oid: u32, row: &[Option<&[u8]>]) -> Vec<u8> {
    let head = Bytes::tag(b'I').u32(oid).raw(b"N").u16(row.len());
    row.iter().fold(head, |bytes, value| bytes.value(*value)).0
}

/// Message of pgoutput: what `pg_logical_emit_message` emits.
pub fn emitted(transactional: bool, prefix: &[u8], content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).unwrap();
    let head = Bytes::tag(b'M').raw(&[u8::from(transactional)]).u64(0);
    head.raw(prefix).raw(b"\0").u32(len).raw(content).0
}

/// `XLogData` around a message of pgoutput.
pub fn data(at: u64, change: &[u8]) -> Vec<u8> {
    Bytes::tag(b'w').u64(at).u64(at).u64(0).raw(change).0
}

/// A keepalive.
pub fn keepalive(end: u64, reply: bool) -> Vec<u8> {
    Bytes::tag(b'k').u64(end).u64(0).raw(&[u8::from(reply)]).0
}
