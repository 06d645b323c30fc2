//! What a reader saw, in as little memory as judging needs.

use serde_json::Value;

use crate::Record;
use crate::history::EventId;

/// The header that tells a record's place in the stream.
const POSITION: &str = "walrelay-position";

/// A record, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Counted from 0.
    pub partition: i32,
    /// In the partition.
    pub offset: i64,
    /// Which event it is; `None` if it bears no id that a writer gives.
    pub id: Option<EventId>,
    /// The number in its payload.
    pub n: Option<u32>,
    /// Whether key and payload are what the writer of this event wrote.
    pub intact: bool,
    /// Its place in the stream, if it says.
    pub position: Option<String>,
}

impl Seen {
    /// Looks at a record.
    pub fn of(record: &Record) -> Seen {
        let id = record.header("id").and_then(|id| EventId::parse(&id));
        let payload = serde_json::from_slice(record.payload.as_deref().unwrap_or_default());
        let payload: Value = payload.unwrap_or_default();
        let n = payload.get("n").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        let pad = payload.get("pad").and_then(Value::as_str);
        let intact = id.zip(pad).is_some_and(|(id, pad)| {
            record.key_text() == format!("k{}", id.key)
                && record.header("eventType").as_deref() == Some("created")
                && pad == padding(id.transaction, pad.len())
        });
        let (partition, offset) = (record.partition, record.offset);
        Seen { partition, offset, id, n, intact, position: record.header(POSITION) }
    }
}

/// Text of so many bytes that a transaction puts into its payloads: always the same for the same
/// transaction, and hard to compress, so that Postgres keeps what is long beside the table.
pub fn padding(transaction: u64, bytes: usize) -> String {
    let mut random = fastrand::Rng::with_seed(transaction);
    std::iter::repeat_with(|| random.alphanumeric()).take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(payload: &str) -> Record {
        let id = EventId { transaction: 5, step: 0, key: 3 }.to_string();
        let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
        Record {
            partition: 2,
            offset: 9,
            key: Some(b"k3".to_vec()),
            payload: Some(payload.as_bytes().to_vec()),
            headers: vec![header("id", &id), header("eventType", "created"), header(POSITION, "p")],
            timestamp_ms: None,
        }
    }

    #[test]
    fn a_record_is_intact_if_it_is_what_its_writer_wrote() {
        let pad = padding(5, 40);
        let good = record(&format!("{{\"n\": 7, \"pad\": \"{pad}\"}}"));
        let seen = Seen::of(&good);
        assert_eq!((seen.n, seen.intact, seen.position.as_deref()), (Some(7), true, Some("p")));
        let other_key = Record { key: Some(b"k4".to_vec()), ..good.clone() };
        let no_type = Record { headers: good.headers[..1].to_vec(), ..good.clone() };
        let cut = record(&format!("{{\"n\": 7, \"pad\": \"{pad}"));
        let wrong = record(&format!("{{\"n\": 7, \"pad\": \"{}\"}}", padding(6, 40)));
        for broken in [other_key, no_type, cut, wrong, Record { payload: None, ..good }] {
            assert!(!Seen::of(&broken).intact, "{broken:?}");
        }
    }
}
