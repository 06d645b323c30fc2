//! Whether everything arrived, once and in order: a fast relay that is wrong is of no use.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Reader, Record};

/// Records looked at together, so that a million of them need not be in memory.
const PORTION: usize = 20_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// An error unless the topic holds exactly the rows of a [`Backlog`](crate::backlog::Backlog):
/// the events of each key are 1, 2, 3 …, all in one partition.
pub fn check(bootstrap: &str, topic: &str, rows: u64) -> Result<()> {
    let mut reader = Reader::open(bootstrap, topic)?;
    let mut seen = Seen::default();
    while seen.records < rows {
        let left = usize::try_from(rows - seen.records)?;
        reader.poll_until(PORTION.min(left), PATIENCE)?;
        reader.take().iter().try_for_each(|record| seen.take(record))?;
    }
    reader.read_to_end(PATIENCE)?;
    reader.take().iter().try_for_each(|record| seen.take(record))?;
    ensure!(seen.records == rows, "{} records arrived of {rows} rows", seen.records);
    // Without a gap in any, the numbers of all keys together are the rows.
    let last: u64 = seen.keys.values().map(|(number, _)| number).sum();
    ensure!(last == rows, "the keys add up to {last} events of {rows} rows");
    Ok(())
}

#[derive(Default)]
struct Seen {
    records: u64,
    /// The last event's number, and the partition.
    keys: HashMap<String, (u64, i32)>,
}

impl Seen {
    fn take(&mut self, record: &Record) -> Result<()> {
        let (key, payload) = (record.key_text(), record.payload_text());
        let number = number(&payload).with_context(|| format!("no number in {payload:?}"))?;
        let (last, partition) = self.keys.entry(key.clone()).or_insert((0, record.partition));
        ensure!(*partition == record.partition, "key {key} is in two partitions");
        ensure!(number == *last + 1, "event {number} of key {key} came after {last}");
        *last = number;
        self.records += 1;
        Ok(())
    }
}

/// The number in `{"n": 7, …}`.
pub fn number(payload: &str) -> Option<u64> {
    let digits = payload.split("\"n\": ").nth(1)?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, number: u64, partition: i32) -> Record {
        let payload = Some(format!("{{\"n\": {number}, \"a\": 1}}").into_bytes());
        let (headers, timestamp_ms) = (Vec::new(), None);
        Record { partition, offset: 0, key: Some(key.into()), payload, headers, timestamp_ms }
    }

    fn check(records: &[Record]) -> Result<(), String> {
        let mut seen = Seen::default();
        let taken = records.iter().try_for_each(|record| seen.take(record));
        taken.map_err(|error| error.to_string())
    }

    #[test]
    fn each_fault_is_seen() {
        let good = [record("a", 1, 0), record("b", 1, 1), record("a", 2, 0)];
        assert_eq!(check(&good), Ok(()));
        let [first, other, second] = good;
        let came = |records: &[&Record]| {
            check(&records.iter().copied().cloned().collect::<Vec<_>>()).unwrap_err()
        };
        assert_eq!(came(&[&second]), "event 2 of key a came after 0");
        assert_eq!(came(&[&first, &first]), "event 1 of key a came after 1");
        assert_eq!(came(&[&first, &record("a", 2, 1)]), "key a is in two partitions");
        assert_eq!(came(&[&other, &first, &record("a", 3, 0)]), "event 3 of key a came after 1");
    }
}
