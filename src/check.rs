//! `walrelay check`: everything that a run rests on, in one pass, with what mends it. Changes
//! nothing.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::config::{Config, Message, OnPoison, Outbox};
use crate::error::Error;
use crate::kafka::preconditions as kafka;
use crate::kafka::settings::Settings;
use crate::lsn::Lsn;
use crate::pg::facts::Facts;
use crate::pg::preconditions as postgres;
use crate::pg::session::{Looked, look};
use crate::position::{Remembered, Source};
use crate::recall;
use crate::registry;
use crate::verdict::{Check, Problem, Verdict, problem};

/// What was found.
#[derive(Debug)]
pub struct Report(Vec<Check>);

impl Report {
    /// Looks at Kafka and at Postgres.
    pub async fn of(config: &Config) -> Report {
        let settings = Settings::new(config);
        let mut topics: Vec<String> =
            config.outboxes.iter().filter_map(Outbox::fixed_topic).collect();
        topics.extend(config.messages.iter().filter_map(Message::topic));
        let letters = mappings(config).filter(|it| it.on_poison == OnPoison::DeadLetter);
        topics.extend(letters.filter_map(|mapping| mapping.dead_letter_topic.clone()));
        topics.sort_unstable();
        topics.dedup();
        let positions = config.delivery.positions_topic.as_deref();
        let mut checks = kafka::checks(&settings, &topics, positions).await;
        let remembers = positions.is_some_and(|topic| {
            let name = format!("topic {topic}");
            let there = |check: &Check| {
                check.name == name && check.verdict == Verdict::Passed(kafka::THERE.to_owned())
            };
            checks.iter().any(there)
        });
        checks.extend(of_registry(config).await);
        checks.extend(of_postgres(config, &settings, remembers).await);
        Report(checks)
    }

    /// Whether a run would do.
    pub fn is_good(&self) -> bool {
        self.0.iter().all(|check| check.failure().is_none())
    }

    /// A line for each check, and the remedy below it.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |word: &str, name: &str, found: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{word:<4}  {name}: {found}");
        };
        for Check { name, verdict } in &self.0 {
            match verdict {
                Verdict::Passed(found) => line("ok", name, found),
                Verdict::Doubtful(doubt) => line("warn", name, &remedied(doubt)),
                Verdict::Failed(problem) => line("FAIL", name, &remedied(problem)),
            }
        }
        text
    }

    /// The same for programs.
    pub fn to_json(&self) -> Value {
        let checks = self.0.iter().map(|Check { name, verdict }| match verdict {
            Verdict::Passed(found) => json!({"check": name, "result": "passed", "found": found}),
            Verdict::Doubtful(Problem { what, remedy, .. }) => {
                json!({"check": name, "result": "doubtful", "found": what, "remedy": remedy})
            }
            Verdict::Failed(Problem { what, remedy, .. }) => {
                json!({"check": name, "result": "failed", "found": what, "remedy": remedy})
            }
        });
        json!({"ok": self.is_good(), "checks": checks.collect::<Vec<_>>()})
    }
}

fn remedied(problem: &Problem) -> String {
    format!("{}\n      -> {}", problem.what, problem.remedy)
}

async fn of_postgres(config: &Config, settings: &Settings, remembers: bool) -> Vec<Check> {
    let mut looked = match look(&config.postgres.conninfo).await {
        Ok(looked) => looked,
        Err(error) => {
            let found = Error::Connect(error).to_string();
            let (what, remedy) = found.rsplit_once("; ").unwrap_or((&found, LOG));
            return vec![Check::new("connection", Err(problem(what, remedy)))];
        }
    };
    let mut checks = vec![Check::new("connection", Ok(looked.name()))];
    let setup = config.setup();
    let facts = match Facts::read(&looked.client, &setup).await {
        Ok(facts) => facts,
        Err(error) => {
            checks.push(Check::new("catalog", Err(problem(error.to_string(), LOG))));
            return checks;
        }
    };
    checks.extend(postgres::checks(&setup, &facts));
    if let Some(topic) = config.delivery.positions_topic.as_ref().filter(|_| remembers)
        && let Some(slot) = facts.slot.as_ref().and_then(|slot| slot.confirmed)
    {
        let (database, name) = (facts.server.database_oid, setup.slot.clone());
        let source = Source { system: looked.system.identifier.clone(), database, slot: name };
        let remembered = recall::read(&settings.client, topic, source).await;
        let found = match remembered {
            Ok(remembered) => position(remembered, &mut looked, slot, &setup.numbering()).await,
            Err(error) => Err(problem(error.to_string(), LOG)),
        };
        checks.push(Check::new("position", found));
    }
    checks
}

/// How each table's rows become records, and the messages of each prefix.
fn mappings(config: &Config) -> impl Iterator<Item = &Outbox> {
    let messages = config.messages.iter().map(|message| &message.mapping);
    config.outboxes.iter().chain(messages)
}

/// The schemas of subjects whose names are known beforehand.
async fn of_registry(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    for mapping in mappings(config) {
        let (Some(subject), Some(encoding)) = (mapping.fixed_subject(), mapping.encoding) else {
            continue;
        };
        let name = format!("subject {subject}");
        if checks.iter().any(|check: &Check| check.name == name) {
            continue;
        }
        let registry = config.registry.clone();
        let asked = tokio::task::spawn_blocking(move || {
            registry::usable(&registry, &subject, encoding).map_err(|error| {
                let (what, remedy) = error.rsplit_once("; ").unwrap_or((&error, LOG));
                problem(what, remedy)
            })
        });
        let found = asked.await.unwrap_or_else(|error| Err(problem(error.to_string(), LOG)));
        checks.push(Check::new(name, found));
    }
    checks
}

/// What to do about what should not happen.
const LOG: &str = "see the server's log";

/// What a start would make of the position record. While a relay runs, that goes on: the server is
/// asked where it writes after the record was read, or it would seem to have fallen behind.
async fn position(
    remembered: Remembered,
    looked: &mut Looked,
    slot: Lsn,
    publication: &str,
) -> Result<String, Problem> {
    let Some(end) = remembered.record.as_ref().map(|record| record.end) else {
        return Ok("none yet".to_owned());
    };
    let found = match looked.look_again().await {
        Ok(()) => recall::found(remembered, looked, slot, publication).await,
        Err(error) => Err(error),
    };
    let found = found.map_err(|error| problem(error.to_string(), LOG))?;
    match found.start(false) {
        Ok(start) => Ok(start.remark.unwrap_or_else(|| format!("goes on from {end}"))),
        Err(gap) => Err(problem(
            gap.to_string(),
            "compare the outbox with Kafka; then run once: walrelay run --accept-gap",
        )),
    }
}
