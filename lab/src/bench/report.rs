//! Numbers as a table for people and as JSON for programs.

use serde_json::{Value, json};

use crate::drain::f64_of;
use crate::latency::Percentiles;

/// A backlog read to its end, once.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub seconds: f64,
    pub rows: u64,
    /// Processor seconds: of the reader, of its walsender, of the broker.
    pub cpu: f64,
    pub walsender: f64,
    pub broker: f64,
    pub peak_bytes: u64,
    /// Reads of the stream's socket, if they are counted.
    pub reads: Option<f64>,
}

/// All repetitions of one contender.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    pub runs: Vec<Measured>,
}

/// At a steady rate.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// Rows a second that were to be written, and those that were.
    pub rate: u32,
    pub written: f64,
    /// From the insert until it is committed.
    pub commit: Percentiles,
    /// From the insert until a consumer has it.
    pub consumer: Percentiles,
    /// From the commit's answer until a consumer has it.
    pub behind_commit: Percentiles,
    /// The relay's share of a core.
    pub busy: f64,
}

/// With nothing to do.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    pub busy: f64,
    pub mebibytes: f64,
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    if values.len() % 2 == 1 {
        at(middle)
    } else {
        f64::midpoint(at(middle), at(middle.wrapping_sub(1)))
    }
}

impl Row {
    fn median(&self, of: impl Fn(&Measured) -> f64) -> f64 {
        median(self.runs.iter().map(of))
    }

    fn per_second(&self) -> f64 {
        self.median(|run| f64_of(run.rows) / run.seconds)
    }

    /// Microseconds an event.
    fn per_event(&self, of: impl Fn(&Measured) -> f64) -> f64 {
        self.median(|run| of(run) * 1e6 / f64_of(run.rows))
    }

    fn reads(&self) -> f64 {
        self.median(|run| run.reads.unwrap_or(f64::NAN) / f64_of(run.rows))
    }

    fn peak(&self) -> f64 {
        self.median(|run| f64_of(run.peak_bytes) / 1_048_576.0)
    }

    fn json(&self) -> Value {
        let run = |run: &Measured| {
            json!({
                "seconds": run.seconds, "events_per_second": f64_of(run.rows) / run.seconds,
                "cpu_seconds": run.cpu, "walsender_cpu_seconds": run.walsender,
                "broker_cpu_seconds": run.broker, "peak_rss_bytes": run.peak_bytes,
                "reads": run.reads, "rows": run.rows,
            })
        };
        json!({
            "contender": self.name,
            "events_per_second": self.per_second(),
            "cpu_us_per_event": self.per_event(|run| run.cpu),
            "walsender_cpu_us_per_event": self.per_event(|run| run.walsender),
            "broker_cpu_us_per_event": self.per_event(|run| run.broker),
            "peak_mib": self.peak(),
            "reads_per_event": self.reads(),
            "runs": self.runs.iter().map(run).collect::<Vec<_>>(),
        })
    }
}

/// One load's contenders; the ratios are those of the medians.
pub struct Drained {
    pub load: &'static str,
    pub rows: Vec<Row>,
}

impl Drained {
    fn ratio(&self, row: &Row, to: &str) -> f64 {
        let other = self.rows.iter().find(|row| row.name == to);
        other.map_or(f64::NAN, |other| row.per_second() / other.per_second())
    }

    /// Against Postgres' own tool, and against the bare reader over the same kind of socket.
    fn ratios(&self, row: &Row) -> [f64; 2] {
        let socket = if row.name.contains("Unix") { "Unix" } else { "TCP" };
        let bare = format!("bare reader, {socket}");
        [self.ratio(row, "pg_recvlogical, TCP"), self.ratio(row, &bare)]
    }

    pub fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        let head = format!(
            "\n{}\n{:width$} {:>9} {:>6} {:>6} {:>7} {:>7} {:>7} {:>6} {:>7}\n\
             {:width$} {:>9} {:>6} {:>6} {:>23} {:>6} {:>7}\n",
            self.load,
            "",
            "events",
            "x recv",
            "x bare",
            "own",
            "wal-",
            "broker",
            "peak",
            "reads",
            "",
            "per s",
            "logic",
            "reader",
            "CPU us/event     sender",
            "MiB",
            "/event"
        );
        let line = |row: &Row| {
            let [tool, bare] = self.ratios(row);
            format!(
                "{:width$} {:>9.0} {:>6} {:>6} {:>7.2} {:>7.2} {:>7.2} {:>6.1} {:>7}\n",
                row.name,
                row.per_second(),
                known(tool, 2),
                known(bare, 2),
                row.per_event(|run| run.cpu),
                row.per_event(|run| run.walsender),
                row.per_event(|run| run.broker),
                row.peak(),
                known(row.reads(), 3),
            )
        };
        head + &self.rows.iter().map(line).collect::<Vec<_>>().concat()
    }

    pub fn json(&self) -> Value {
        let row = |row: &Row| {
            let [tool, bare] = self.ratios(row);
            let mut json = row.json();
            if let Some(json) = json.as_object_mut() {
                json.insert("to_pg_recvlogical".to_owned(), json!(tool));
                json.insert("to_bare_reader".to_owned(), json!(bare));
            }
            json
        };
        json!({ "load": self.load, "contenders": self.rows.iter().map(row).collect::<Vec<_>>() })
    }
}

/// How cost grows from the first row on.
pub struct Scaled {
    pub rows: Vec<Row>,
}

impl Scaled {
    pub fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        let base = self.rows.first().map_or(f64::NAN, Row::per_second);
        let head = format!(
            "{:width$} {:>9} {:>6} {:>7} {:>7} {:>7} {:>6}\n\
             {:width$} {:>9} {:>6} {:>23} {:>6}\n",
            "",
            "events",
            "x",
            "own",
            "wal-",
            "broker",
            "peak",
            "",
            "per s",
            "first",
            "CPU us/event     sender",
            "MiB",
        );
        let line = |row: &Row| {
            format!(
                "{:width$} {:>9.0} {:>6.2} {:>7.2} {:>7.2} {:>7.2} {:>6.1}\n",
                row.name,
                row.per_second(),
                row.per_second() / base,
                row.per_event(|run| run.cpu),
                row.per_event(|run| run.walsender),
                row.per_event(|run| run.broker),
                row.peak(),
            )
        };
        head + &self.rows.iter().map(line).collect::<Vec<_>>().concat()
    }

    pub fn json(&self) -> Value {
        self.rows.iter().map(Row::json).collect()
    }
}

fn known(value: f64, digits: usize) -> String {
    if value.is_nan() { "-".to_owned() } else { format!("{value:.digits$}") }
}

impl Latency {
    /// The medians of several runs at one rate.
    pub fn median(runs: &[Latency]) -> Option<Latency> {
        let of = |get: &dyn Fn(&Latency) -> f64| median(runs.iter().map(get));
        let percentiles = |get: fn(&Latency) -> Percentiles| Percentiles {
            p50: of(&|run| get(run).p50),
            p99: of(&|run| get(run).p99),
            max: of(&|run| get(run).max),
        };
        Some(Latency {
            rate: runs.first()?.rate,
            written: of(&|run| run.written),
            commit: percentiles(|run| run.commit),
            consumer: percentiles(|run| run.consumer),
            behind_commit: percentiles(|run| run.behind_commit),
            busy: of(&|run| run.busy),
        })
    }

    pub fn head() -> String {
        let head = ["insert to consumer", "commit alone", "more than commit", "after commit"];
        let head: String = head.map(|text| format!("{text:>20}")).concat();
        let units = format!("{:>20}", "p50 / p99 ms").repeat(4);
        format!("{:>8}{head}{:>8}\n{:>8}{units}{:>8}\n", "written", "CPU", "rows/s", "%")
    }

    pub fn line(&self) -> String {
        let pair = |p50: f64, p99: f64| format!("{:>20}", format!("{p50:.2} / {p99:.2}"));
        let both = |of: Percentiles| pair(of.p50, of.p99);
        let over = pair(self.consumer.p50 - self.commit.p50, self.consumer.p99 - self.commit.p99);
        let (consumer, commit) = (both(self.consumer), both(self.commit));
        let after = both(self.behind_commit);
        let (written, busy) = (self.written, self.busy * 100.0);
        format!("{written:>8.0}{consumer}{commit}{over}{after}{busy:>8.1}\n")
    }

    pub fn json(&self) -> Value {
        let of = |it: Percentiles| json!({ "p50": it.p50, "p99": it.p99, "max": it.max });
        json!({
            "rate": self.rate, "written_per_second": self.written,
            "insert_to_consumer_ms": of(self.consumer),
            "commit_ms": of(self.commit),
            "commit_to_consumer_ms": of(self.behind_commit),
            "cpu_percent": self.busy * 100.0,
        })
    }
}
