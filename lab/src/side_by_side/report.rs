//! What is the same, what differs, and whether that is known: as a table, and with examples.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};

use lab::Record;

use crate::compare::{Compared, Event, What};
use crate::known::KNOWN;
use crate::play::Played;
use crate::scenario::Side;

/// As much of a text as is shown.
const SHOWN_MAX: usize = 240;
/// As much of it comes before what differs.
const BEFORE: usize = 80;

/// All scenarios that were played.
#[derive(Default)]
pub struct Report {
    lines: Vec<Line>,
    /// The indices of what is [`KNOWN`] that have occurred.
    occurred: BTreeSet<usize>,
    played: BTreeSet<&'static str>,
}

/// One scenario.
struct Line {
    name: &'static str,
    rows: usize,
    compared: usize,
    equal: usize,
    known: usize,
    differing: usize,
    examples: Vec<String>,
}

impl Report {
    pub fn add(&mut self, name: &'static str, played: &Played) {
        let Played { rows, compared } = played;
        let both = compared.iter().filter(|it| it.theirs.is_some() && it.ours.is_some());
        let mut line = Line {
            name,
            rows: *rows,
            compared: both.count(),
            equal: 0,
            known: 0,
            differing: 0,
            examples: Vec::new(),
        };
        let (mut seen, mut surprised) = (BTreeSet::new(), BTreeSet::new());
        for compared in compared {
            let mut is_known = true;
            for what in &compared.differs {
                let found = KNOWN.iter().position(|it| it.explains(name, *what, compared));
                is_known &= found.is_some();
                let first = match found {
                    Some(index) => seen.insert(index),
                    None => surprised.insert(*what),
                };
                if first {
                    let why = found.and_then(|index| KNOWN.get(index)).map(|known| known.why);
                    line.examples.push(example(*what, compared, why));
                }
            }
            match (compared.differs.is_empty(), is_known) {
                (true, _) => line.equal += 1,
                (false, true) => line.known += 1,
                (false, false) => line.differing += 1,
            }
        }
        self.occurred.extend(seen);
        self.played.insert(name);
        self.lines.push(line);
    }

    /// What is known of the scenarios that were played, and has not occurred.
    fn outdated(&self) -> Vec<String> {
        let known = KNOWN.iter().enumerate().filter(|(_, it)| self.played.contains(it.scenario));
        let outdated = known.filter(|(index, _)| !self.occurred.contains(index));
        outdated.map(|(_, it)| format!("{}, {}: {}", it.scenario, it.what.name(), it.why)).collect()
    }

    /// Whether nothing differs but what is known to, and that does.
    pub fn is_good(&self) -> bool {
        self.lines.iter().all(|line| line.differing == 0) && self.outdated().is_empty()
    }

    pub fn text(&self) -> String {
        let mut text = row("scenario", ["rows", "compared", "equal", "known", "differing"]);
        let mut sums = [0; 5];
        for Line { name, rows, compared, equal, known, differing, .. } in &self.lines {
            let numbers = [*rows, *compared, *equal, *known, *differing];
            text += &row(name, numbers);
            sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        }
        text += &row("all", sums);
        for line in self.lines.iter().filter(|line| !line.examples.is_empty()) {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n{}\n{}", line.name, line.examples.concat());
        }
        for outdated in self.outdated() {
            let _ = write!(text, "\nis known and does not occur: {outdated}\n");
        }
        text
    }
}

fn row<T: Display>(name: &str, cells: [T; 5]) -> String {
    let [rows, compared, equal, known, differing] = cells;
    format!("{name:<32} {rows:>6} {compared:>9} {equal:>6} {known:>6} {differing:>10}\n")
}

/// The first of its kind, with what both sides have sent.
fn example(what: What, compared: &Compared, why: Option<&str>) -> String {
    let verdict = why.map_or_else(|| "NOT KNOWN".to_owned(), |why| format!("known: {why}"));
    let mut text = format!("  {}, {verdict}\n", what.name());
    let sides = [&compared.theirs, &compared.ours];
    let texts = sides.map(|event| event.as_ref().map(|event| shown(what, event)));
    let start = match &texts {
        [Some(theirs), Some(ours)] => {
            let same = theirs.chars().zip(ours.chars()).take_while(|(one, other)| one == other);
            same.count().saturating_sub(BEFORE)
        }
        _ => 0,
    };
    for (side, shown) in Side::BOTH.into_iter().zip(texts) {
        let shown = shown.map_or_else(|| "nothing".to_owned(), |shown| clipped(&shown, start));
        let _ = writeln!(text, "    {:<8}  {shown}", side.name());
    }
    text
}

fn clipped(text: &str, start: usize) -> String {
    let count = text.chars().count();
    let before = if start > 0 { "…" } else { "" };
    let after = if count > start + SHOWN_MAX { "…" } else { "" };
    let middle: String = text.chars().skip(start).take(SHOWN_MAX).collect();
    format!("{before}{middle}{after}")
}

fn shown(what: What, Event { topic, record }: &Event) -> String {
    match what {
        What::Topic => topic.clone(),
        What::Partition => format!("{} of {topic}, key {}", record.partition, key(record)),
        What::Key => key(record),
        What::Value => bytes(record.payload.as_deref()),
        What::Headers => headers(record),
        What::Time => format!("{:?}", record.timestamp_ms),
        What::Missing | What::Beside | What::Order => format!(
            "offset {} of partition {} of {topic}, key {}, {}, value {}",
            record.offset,
            record.partition,
            key(record),
            headers(record),
            bytes(record.payload.as_deref())
        ),
    }
}

fn key(record: &Record) -> String {
    bytes(record.key.as_deref())
}

fn headers(record: &Record) -> String {
    let shown =
        |(name, value): &(String, Option<Vec<u8>>)| format!("{name}={}", bytes(value.as_deref()));
    record.headers.iter().map(shown).collect::<Vec<_>>().join(" ")
}

/// As text where it is such, in a form that shows blanks and control characters.
fn bytes(bytes: Option<&[u8]>) -> String {
    match bytes.map(|bytes| (bytes, str::from_utf8(bytes))) {
        None => "null".to_owned(),
        Some((_, Ok(text))) => format!("{text:?}"),
        Some((bytes, Err(_))) => format!("{bytes:02x?}"),
    }
}
