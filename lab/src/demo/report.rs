//! How it went: a table with a column for each way to publish, and a sentence.

use std::time::{Duration, Instant};

use crate::post_service::Written;
use crate::subscriber::Arrivals;

/// One column of the table.
pub struct Outcome {
    written: usize,
    arrived: usize,
    lost: usize,
    repeated: usize,
    out_of_order: usize,
    /// From Kafka's return until everything written before it had arrived; `None` if not all did.
    catch_up: Option<Duration>,
}

/// Both columns.
pub struct Report {
    pub direct: Outcome,
    pub relay: Outcome,
}

impl Outcome {
    pub fn new(written: &[Written], arrivals: &Arrivals, kafka_returned: Instant) -> Outcome {
        let lost = written.iter().filter(|event| arrivals.of(&event.id).is_none()).count();
        let backlog = written.iter().filter(|event| event.committed < kafka_returned);
        let caught_up = backlog
            .map(|event| arrivals.of(&event.id))
            .try_fold(kafka_returned, |last, arrived| Some(last.max(arrived?)));
        Outcome {
            written: written.len(),
            arrived: arrivals.events(),
            lost,
            repeated: arrivals.repeated(),
            out_of_order: arrivals.out_of_order(),
            catch_up: caught_up.map(|time| time - kafka_returned),
        }
    }
}

impl Report {
    /// Whether the relay kept its promise: nothing lost, nothing reordered.
    pub fn is_kept(&self) -> bool {
        self.relay.lost == 0 && self.relay.out_of_order == 0
    }

    /// The table, a line for each row.
    pub fn table(&self) -> String {
        let number =
            |of: fn(&Outcome) -> usize| [&self.direct, &self.relay].map(|c| of(c).to_string());
        let catch_up = [&self.direct, &self.relay].map(|column| match column.catch_up {
            Some(time) => format!("{:.1} s", time.as_secs_f64()),
            None => "never".to_owned(),
        });
        let rows = [
            ("", ["published after commit", "walrelay"].map(str::to_owned)),
            ("events written", number(|column| column.written)),
            ("arrived", number(|column| column.arrived)),
            ("lost", number(|column| column.lost)),
            ("repeated", number(|column| column.repeated)),
            ("out of order per key", number(|column| column.out_of_order)),
            ("time to catch up", catch_up),
        ];
        let line = |(name, [direct, relay]): &(&str, [String; 2])| {
            format!("  {name:<22}{direct:>24}{relay:>12}")
        };
        rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// What the table says.
    pub fn verdict(&self) -> String {
        let Outcome { written, lost, repeated, out_of_order, .. } = &self.relay;
        let relay = match (lost, out_of_order) {
            (0, 0) if *repeated == 0 => {
                format!("walrelay delivered all {written} events, once and in order")
            }
            (0, 0) => format!(
                "walrelay delivered all {written} events in order, {repeated} of them again, \
                 which subscribers tell by the event id"
            ),
            _ => format!("walrelay FAILED: {lost} events lost, {out_of_order} out of order"),
        };
        let direct = match self.direct.lost {
            0 => "publishing after commit lost none, this time".to_owned(),
            lost => format!("publishing after commit lost {lost} of {written}"),
        };
        format!("{relay}; {direct}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lost: usize, repeated: usize, out_of_order: usize) -> Outcome {
        let catch_up = (lost == 0).then_some(Duration::from_millis(1250));
        Outcome { written: 10, arrived: 10 - lost, lost, repeated, out_of_order, catch_up }
    }

    #[test]
    fn only_loss_and_reordering_by_the_relay_break_the_promise() {
        let kept = |direct, relay| Report { direct, relay }.is_kept();
        assert!(kept(outcome(3, 0, 3), outcome(0, 2, 0)));
        assert!(!kept(outcome(0, 0, 0), outcome(1, 0, 0)));
        assert!(!kept(outcome(0, 0, 0), outcome(0, 0, 1)));
    }

    #[test]
    fn the_table_is_aligned_and_the_verdict_names_the_losses() {
        let report = Report { direct: outcome(3, 0, 1), relay: outcome(0, 0, 0) };
        let table = report.table();
        let widths: Vec<usize> = table.lines().map(str::len).collect();
        assert_eq!(widths, [60; 7], "{table}");
        assert!(table.ends_with("never       1.2 s"), "{table}");
        let verdict = report.verdict();
        assert!(verdict.contains("all 10 events, once and in order"), "{verdict}");
        assert!(verdict.contains("lost 3 of 10"), "{verdict}");
    }
}
