//! How to go on where Debezium has stopped, without losing an event.
//!
//! What it rests on. In walrelay: where no position is remembered of a slot, its confirmed
//! position counts (`position::Found::start`); while somebody reads the slot, a relay stands by
//! (`SetupError::InUse`); rows are read with the publications of their time
//! (`Error::RowsSkipped`). In Debezium (3.6, and as far as this goes 2.0): it confirms the
//! `lsn_commit` of the last offset it has flushed, also when it stops; the offset of a row holds
//! that of the transaction *before* it, and the offset of a heartbeat that of the last one.

use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::options::Debezium;
use super::postgres::{OWN, Postgres};
use super::router::Outboxes;
use crate::pg::setup::{Mapped, Setup};

const WAIT: &str = "Then wait until Debezium is past that: rows are read with the publications of \
                    their time. X is what the first line answers; it may take an event or two, \
                    and a flush of Debezium's offsets (a minute on Kafka Connect).";

/// Paragraph by paragraph.
pub(super) fn text(debezium: &Debezium, postgres: &Postgres, outboxes: &Outboxes) -> Vec<String> {
    let mut text = Text(Vec::new());
    text.say("Taking over from Debezium");
    text.gap();
    match &postgres.no_slot {
        None => with_its_slot(&mut text, debezium, postgres, outboxes),
        Some(why) => with_another_slot(&mut text, debezium, postgres, why),
    }
    text.0
}

/// What the document understands: prose, prose of a step, commands.
struct Text(Vec<String>);

impl Text {
    fn say(&mut self, text: impl Into<String>) {
        self.0.push(text.into());
    }

    fn gap(&mut self) {
        self.say("");
    }

    /// More of a step.
    fn more(&mut self, text: &str) {
        self.say(format!("   {text}"));
    }

    fn run(&mut self, command: &str) {
        self.say(format!("     {command};"));
    }

    /// A transaction begins, with writers kept away: what they have written before a change of
    /// publications, and commit behind it, would be read with those of before.
    fn locked(&mut self, tables: &str) {
        self.say("     BEGIN;");
        self.run(&format!("LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE"));
    }

    /// A command of two lines.
    fn run_on(&mut self, first: &str, second: &str) {
        self.say(format!("     {first}"));
        self.run(&format!("  {second}"));
    }
}

fn with_its_slot(text: &mut Text, debezium: &Debezium, postgres: &Postgres, outboxes: &Outboxes) {
    let Postgres { slot, publication, may_be_for_all, .. } = postgres;
    text.say(format!(
        "walrelay goes on where the slot {slot} stands, and sends everything behind that. So no \
         event is missing, and Debezium's own offsets are not needed; some events may come a \
         second time, with the same header id."
    ));
    text.gap();
    text.say("1. While Debezium runs: do what the comments above ask for.");
    if *may_be_for_all {
        own_publication(text, postgres, outboxes);
    } else {
        its_publication(text, postgres, outboxes);
    }
    text.say(format!(
        "3. Look with `walrelay check`, which changes nothing; there must be nothing to mend. {}",
        stop(debezium)
    ));
    text.more(&repeats(postgres));
    text.more(
        "To have no repeat either: insert nothing until step 4, and when the last event is in \
         Kafka and Debezium has stopped, move the slot behind it. An event that is not in Kafka by \
         then is lost by this.",
    );
    let slot = escape_literal(slot);
    text.run(&format!("SELECT pg_replication_slot_advance({slot}, pg_current_wal_lsn())"));
    text.say(
        "4. Start walrelay. It may be started before that: it stands by for as long as Debezium \
         reads the slot. It leaves a comment on the publication, so that it will notice if the \
         slot is ever lost; if its role may not, the log says so, with the SQL.",
    );
    if !may_be_for_all {
        text.say(
            "5. When Debezium is gone for good, spare Postgres what is not sent. (For a warning at \
             an UPDATE, publish 'insert, update'.)",
        );
        let (publication, kinds) = (escape_identifier(publication), published(outboxes));
        text.run(&format!("ALTER PUBLICATION {publication} SET (publish = '{kinds}')"));
    }
    text.gap();
    text.say(
        "Once walrelay has begun, do not start Debezium with the same slot again: what it \
         confirms is a gap to walrelay, which halts the next time it starts.",
    );
}

fn own_publication(text: &mut Text, postgres: &Postgres, outboxes: &Outboxes) {
    let Postgres { slot, publication, .. } = postgres;
    text.say(format!(
        "2. Still while Debezium runs: make a publication of the outbox tables alone. \
         {publication}, if Debezium made it, is FOR ALL TABLES. (If it holds the outbox tables and \
         no others, name it in postgres.publication, and leave this step out.)"
    ));
    let tables: Vec<String> = outboxes.tables.iter().map(|it| it.name.to_sql()).collect();
    text.locked(&tables.join(", "));
    let tables = outboxes.tables.iter();
    let tables = tables
        .map(|it| Mapped { table: it.name.clone(), columns: Vec::new(), optional: Vec::new() })
        .collect();
    let setup = Setup { publication: OWN.to_owned(), tables, ..Setup::default() };
    let kinds = format!("publish = '{}'", published(outboxes));
    let create = setup.create_publication_sql().replace("publish = 'insert'", &kinds);
    match create.rsplit_once(" WITH ") {
        Some((create, with)) => text.run_on(create, &format!("WITH {with}")),
        None => text.run(&create),
    }
    text.run("COMMIT");
    text.more(WAIT);
    wait(text, slot);
}

fn its_publication(text: &mut Text, postgres: &Postgres, outboxes: &Outboxes) {
    let Postgres { slot, publication, .. } = postgres;
    let tables: Vec<String> = outboxes.tables.iter().map(|table| table.name.to_string()).collect();
    text.say(format!(
        "2. Still while Debezium runs: see that the publication holds {} and nothing else. The \
         first row of any other table halts walrelay.",
        tables.join(" and ")
    ));
    let name = escape_literal(publication);
    text.run(&format!(
        "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = {name}"
    ));
    text.more("Take out what does not belong there:");
    text.locked("…");
    let name = escape_identifier(publication);
    text.run(&format!("ALTER PUBLICATION {name} DROP TABLE …"));
    text.run("COMMIT");
    text.more(WAIT);
    wait(text, slot);
}

fn wait(text: &mut Text, slot: &str) {
    text.run("SELECT pg_current_wal_lsn()");
    let slot = escape_literal(slot);
    let what = "SELECT confirmed_flush_lsn >= 'X' FROM pg_replication_slots";
    text.run_on(what, &format!("WHERE slot_name = {slot}"));
}

fn with_another_slot(text: &mut Text, debezium: &Debezium, postgres: &Postgres, why: &str) {
    let Postgres { slot, .. } = postgres;
    text.say(format!(
        "Debezium's slot {slot} cannot be taken over: {why}. So walrelay has one of its own, and \
         both are there for a while. No event is missing; those in between come twice, with the \
         same header id."
    ));
    text.gap();
    text.say(
        "1. While Debezium runs: do what the comments above ask for, and run `walrelay init`, \
         which makes publication and slot. From then on Postgres keeps events for walrelay. \
         (`walrelay init --print` prints the SQL instead.)",
    );
    text.say("2. Wait until Debezium's slot is not behind that of walrelay:");
    let (theirs, own) = (escape_literal(slot), escape_literal(OWN));
    let what = "SELECT slot_name, confirmed_flush_lsn FROM pg_replication_slots";
    text.run_on(what, &format!("WHERE slot_name IN ({theirs}, {own})"));
    text.say(format!("3. {}", stop(debezium)));
    text.say("4. Start walrelay.");
    text.say("5. Drop Debezium's slot, if it is still there: Postgres keeps its log for it.");
    text.run(&format!("SELECT pg_drop_replication_slot({theirs})"));
}

/// What the stream must hold.
fn published(outboxes: &Outboxes) -> &'static str {
    if outboxes.needs_updates { "insert, update" } else { "insert" }
}

fn stop(debezium: &Debezium) -> String {
    if debezium.is_server() {
        return "Stop Debezium Server, with SIGTERM.".to_owned();
    }
    let name = debezium.name.as_deref().unwrap_or("NAME");
    format!(
        "Stop the connector: PUT /connectors/{name}/stop on the worker's REST interface (Kafka 3.5 \
         and later), or delete it. A paused one keeps the slot."
    )
}

/// What comes a second time.
fn repeats(postgres: &Postgres) -> String {
    if postgres.is_confirmed_elsewhere {
        return "Debezium does not confirm this slot itself, as lsn.flush.mode or \
                flush.lsn.source says: everything behind the position that the slot was moved to \
                comes again."
            .to_owned();
    }
    let after = "If it was killed, it is everything since it last flushed its offsets.";
    if postgres.beats {
        format!(
            "A clean stop flushes its offsets and confirms them. Here they get past the last \
             transaction when the outbox is quiet for a while (by heartbeats, or records of \
             transactions): then nothing comes again, else the last one does, and what was under \
             way. {after}"
        )
    } else {
        format!(
            "A clean stop flushes its offsets and confirms them. The offset of a row names the \
             transaction before it, so that the last one comes again, and what was under way. \
             {after}"
        )
    }
}
