//! What must be so in Postgres before rows are read, and stay so while they are.
//!
//! Postgres lets most of it pass without an error: rows of a table that is not published are just
//! not in the stream. Each check gives what was found, or what is wrong and what mends it.

use postgres_protocol::escape::escape_identifier;

use super::facts::{Facts, Publication, Published, Table};
use super::oid::{BIGINT, is_date, is_whole};
use super::setup::{Mapped, RowFilters, Setup};
use super::slot::Slot;
use crate::verdict::{Check, Problem, Verdict, loss, problem};

/// An idle slot should survive a weekend, or a day at the very least.
const IDLE_SLOT_MIN_S: i64 = 24 * 3600;

/// The first minor of each major that has the fixes to slots and to logical decoding made until
/// February 2026, by the release notes: rows of a transaction that runs while its table is added
/// to a publication were lost (until 17.4), log that a slot needs was removed by a checkpoint
/// (until 18.1).
const FIRST_GOOD_MINORS: [(i32, i32); 5] = [(14, 21), (15, 16), (16, 12), (17, 8), (18, 2)];

/// All checks, in the order of what rests on what.
pub fn checks(setup: &Setup, facts: &Facts) -> Vec<Check> {
    let mut checks = vec![
        Check::new("wal_level", wal_level(facts)),
        Check::new("role", role(facts)),
        Check::new("publication", publication(setup, facts)),
    ];
    for (outbox, mapped) in setup.tables.iter().enumerate() {
        checks.push(Check::new(format!("table {}", mapped.table), table(facts, outbox, mapped)));
        if let Some(publication) = &facts.publication {
            let found = published(setup, facts, publication, outbox, mapped);
            checks.push(Check::new(format!("rows of {}", mapped.table), found));
        }
    }
    checks.push(Check::new("slot", slot(setup, facts)));
    let doubts = [
        ("strangers", strangers(setup, facts)),
        ("replica identity", replica_identity(setup, facts)),
        ("idle slots", idle_slots(facts)),
        ("failover", failover(setup, facts)),
        ("version", minor(facts)),
    ];
    for (name, doubt) in doubts {
        checks.extend(
            doubt.map(|doubt| Check { name: name.to_owned(), verdict: Verdict::Doubtful(doubt) }),
        );
    }
    checks.extend(synchronous(setup, facts));
    checks
}

fn wal_level(facts: &Facts) -> Result<String, Problem> {
    match facts.server.wal_level.as_str() {
        "logical" => Ok("logical".to_owned()),
        level => Err(problem(
            format!("wal_level is {level}, so that the log cannot be decoded"),
            "run: ALTER SYSTEM SET wal_level = 'logical'; then restart Postgres",
        )),
    }
}

fn role(facts: &Facts) -> Result<String, Problem> {
    let role = &facts.server.role;
    if facts.server.may_replicate {
        return Ok(format!("{role} may replicate"));
    }
    Err(problem(
        format!("role {role} may not use replication"),
        format!("run: ALTER ROLE {} REPLICATION", escape_identifier(role)),
    ))
}

fn publication(setup: &Setup, facts: &Facts) -> Result<String, Problem> {
    let name = escape_identifier(&setup.publication);
    let create = setup.create_publication_sql();
    let Some(publication) = &facts.publication else {
        let what = format!("publication {name} does not exist");
        if facts.slot.is_some() {
            // A slot cannot read what was written before the publication came into being.
            let what = format!("{what}, so that rows are lost");
            return Err(loss(what, format!("run: {create}")));
        }
        if !setup.create {
            return Err(problem(what, format!("run: {create}")));
        }
        let foreign = facts.tables.iter().find(|table| table.named && !table.owned);
        let role = &facts.server.role;
        return match foreign {
            Some(table) => Err(problem(
                format!(
                    "{what}, and role {role}, which does not own {}, may not make it",
                    table.name
                ),
                format!("run as the owner: {create}"),
            )),
            None if !facts.server.may_create => Err(problem(
                format!("{what}, and role {role} may not make it"),
                format!(
                    "run: GRANT CREATE ON DATABASE {} TO {}",
                    escape_identifier(&facts.server.database),
                    escape_identifier(role)
                ),
            )),
            None => Ok("to be created by the first start".to_owned()),
        };
    };
    if !publication.inserts {
        return Err(loss(
            format!("publication {name} does not publish inserts"),
            format!("run: ALTER PUBLICATION {name} SET (publish = 'insert')"),
        ));
    }
    let tables = publication.tables.len();
    Ok(format!("{name} publishes inserts of {tables} table{}", if tables == 1 { "" } else { "s" }))
}

/// The tables of an outbox: the named one, and what is part of it.
fn family(facts: &Facts, outbox: usize) -> impl Iterator<Item = &Table> {
    facts.tables.iter().filter(move |table| table.outbox == outbox)
}

fn table(facts: &Facts, outbox: usize, mapped: &Mapped) -> Result<String, Problem> {
    let name = &mapped.table;
    let Some(table) = family(facts, outbox).find(|table| table.named) else {
        return Err(problem(
            format!("table {name} does not exist"),
            "create the outbox tables, or set table of its [[outbox]] to the name it has now",
        ));
    };
    if !matches!(table.kind.as_str(), "r" | "p") {
        return Err(problem(
            format!("{name} is not a table, so that nothing of it is in the log"),
            "set table of its [[outbox]] to the table that is written to",
        ));
    }
    let unlogged = |table: &&Table| table.kind == "r" && table.persistence != "p";
    if let Some(unlogged) = family(facts, outbox).find(unlogged) {
        return Err(loss(
            format!("table {} is unlogged, so that its rows are not in the log", unlogged.name),
            format!("run: ALTER TABLE {} SET LOGGED", unlogged.name.to_sql()),
        ));
    }
    let missing = mapped.columns.iter().find(|(_, column)| table.column(column).is_none());
    if let Some((key, column)) = missing {
        return Err(problem(
            format!("table {name} has no column {column}, which {key} of its [[outbox]] names"),
            format!("add the column, or set {key} to another"),
        ));
    }
    let all = || mapped.columns.iter().chain(&mapped.optional);
    if let Some((key, column, what)) = all().find_map(|(key, column)| {
        let what = unfit(key, table.column(column)?.base_oid)?;
        Some((key, column, what))
    }) {
        return Err(problem(
            format!("column {column} of {name} cannot be the {key} of its [[outbox]]"),
            format!("set {key} to a column of type {what}"),
        ));
    }
    Ok(format!("has {}", mapped.columns.iter().map(|(_, c)| &**c).collect::<Vec<_>>().join(", ")))
}

/// What a key takes, if it is not this type.
fn unfit(key: &str, type_oid: u32) -> Option<&'static str> {
    match key {
        "partition" if !is_whole(type_oid) => Some("smallint, integer or bigint"),
        "timestamp" if !is_date(type_oid) && type_oid != BIGINT => {
            Some("timestamptz, timestamp or date, or bigint with milliseconds since 1970")
        }
        _ => None,
    }
}

/// Whether the publication gives us each row of the outbox, whole.
fn published(
    setup: &Setup,
    facts: &Facts,
    publication: &Publication,
    outbox: usize,
    mapped: &Mapped,
) -> Result<String, Problem> {
    let name = escape_identifier(&setup.publication);
    let entry =
        |table: &Table| publication.tables.iter().find(|published| published.table == table.name);
    let named = family(facts, outbox).find(|table| table.named);
    // With publish_via_partition_root the partitions do not appear, without it the root does not.
    let leaves: Vec<&Table> =
        family(facts, outbox).filter(|table| !table.named && table.kind == "r").collect();
    let own = named.and_then(entry);
    let of_leaves: Vec<Option<&Published>> = leaves.iter().map(|leaf| entry(leaf)).collect();
    let by_leaves = named.is_some_and(|table| table.kind == "p")
        && !of_leaves.is_empty()
        && of_leaves.iter().all(Option::is_some);
    if own.is_none() && !by_leaves {
        let what =
            format!("publication {name} does not hold {}, whose rows would be lost", mapped.table);
        let remedy = match named {
            Some(_) => format!("run: ALTER PUBLICATION {name} ADD TABLE {}", mapped.table.to_sql()),
            None => format!(
                "there is no such table: create it and add it to the publication, or set table of \
                 its [[outbox]] to the name it has now ({name} holds {})",
                listed(&publication.tables)
            ),
        };
        return Err(loss(what, remedy));
    }
    let entries = own.into_iter().chain(of_leaves.into_iter().flatten());
    for published in entries {
        let (table, sql) = (&published.table, published.table.to_sql());
        if let Some(filter) = &published.row_filter
            && setup.row_filters == RowFilters::Refuse
        {
            return Err(loss(
                format!("publication {name} holds only those rows of {table} with {filter}"),
                format!(
                    "run: {}; or, if another relay sends the others, set postgres.row_filters to \
                     \"allow\"",
                    again(&name, &sql)
                ),
            ));
        }
        let of_table = |column: &str| named.and_then(|named| named.column(column));
        let is_generated = |column: &str| of_table(column).is_some_and(|it| it.generated);
        // Before version 18 generated columns are never sent, though version 15 lists them.
        let may_be_sent = facts.server.version >= 180_000;
        let sent = |column: &String| {
            published.columns.as_ref().is_none_or(|columns| columns.contains(column))
                && (may_be_sent || !is_generated(column))
        };
        let mut all = mapped.columns.iter().chain(&mapped.optional);
        let left_out = all.find(|(_, column)| of_table(column).is_some() && !sent(column));
        if let Some((key, column)) = left_out {
            let what = format!("publication {name} leaves out column {column} of {table}");
            return Err(if is_generated(column) {
                problem(
                    format!("{what}, which is generated"),
                    format!("set {key} of its [[outbox]] to a column that is written"),
                )
            } else {
                problem(what, format!("run: {}", again(&name, &sql)))
            });
        }
    }
    Ok("all of them are published".to_owned())
}

/// Takes a table out of the publication and puts it back whole. In one transaction, with writers
/// kept away, for what is written in between would be lost.
fn again(publication: &str, table: &str) -> String {
    format!(
        "BEGIN; LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE; \
         ALTER PUBLICATION {publication} DROP TABLE {table}; \
         ALTER PUBLICATION {publication} ADD TABLE {table}; COMMIT"
    )
}

fn listed(tables: &[Published]) -> String {
    match tables {
        [] => "no table".to_owned(),
        tables => tables.iter().map(|it| it.table.to_string()).collect::<Vec<_>>().join(", "),
    }
}

fn slot(setup: &Setup, facts: &Facts) -> Result<String, Problem> {
    let name = &setup.slot;
    let Some(slot) = &facts.slot else { return no_slot(setup, facts) };
    let wrong = |wrong: &str| {
        loss(
            format!("slot {name} {wrong}"),
            "set postgres.slot to another name, or drop the slot if it is yours",
        )
    };
    match slot.plugin.as_deref() {
        Some("pgoutput") => {}
        Some(plugin) => return Err(wrong(&format!("decodes with {plugin}, not with pgoutput"))),
        None => return Err(wrong("is a physical one")),
    }
    if slot.database.as_ref() != Some(&facts.server.database) {
        let other = slot.database.as_deref().unwrap_or_default();
        let ours = &facts.server.database;
        return Err(wrong(&format!("belongs to database {other}, not to {ours}")));
    }
    if slot.two_phase {
        let sends = "was created with two_phase and sends transactions that may yet roll back";
        return Err(wrong(sends));
    }
    if slot.wal_status == "lost" || slot.invalidation_reason.is_some() {
        return Err(lost(setup, slot));
    }
    let state = match (slot.active_pid, slot.confirmed) {
        (_, None) => "is being created by another session".to_owned(),
        (Some(pid), Some(_)) => format!("is read by server process {pid}"),
        (None, Some(confirmed)) => format!("stands at {confirmed}"),
    };
    Ok(format!("{name} {state}"))
}

fn lost(setup: &Setup, slot: &Slot) -> Problem {
    let why = match slot.invalidation_reason.as_deref() {
        None | Some("wal_removed") => {
            "it kept more log than max_slot_wal_keep_size allows".to_owned()
        }
        Some("idle_timeout") => {
            "nobody read it for longer than idle_replication_slot_timeout allows".to_owned()
        }
        Some(reason) => format!("the reason it gives is {reason}"),
    };
    let name = &setup.slot;
    loss(
        format!(
            "slot {name} is lost: {why}, so Postgres gave it up, and events that were not \
             yet in Kafka are not in the log any more"
        ),
        format!(
            "compare the outbox with Kafka; run: SELECT pg_drop_replication_slot('{name}'); then \
             run once: walrelay run --accept-gap"
        ),
    )
}

fn no_slot(setup: &Setup, facts: &Facts) -> Result<String, Problem> {
    let name = &setup.slot;
    let marked = facts.publication.as_ref().is_some_and(|it| setup.is_marked(it.comment.as_ref()));
    if marked && !setup.accept_gap {
        let publication = escape_identifier(&setup.publication);
        return Err(problem(
            format!(
                "slot {name} is gone, and with it every event between its last position and now: \
                 publication {publication} bears the mark that the slot once existed"
            ),
            "compare the outbox with Kafka; then run once: walrelay run --accept-gap, and a new \
             slot will start from now",
        ));
    }
    if !setup.create {
        let what = format!("slot {name} does not exist");
        return Err(problem(what, format!("run: {}", setup.create_slot_sql())));
    }
    let (used, max) = (facts.server.slots, facts.server.slots_max);
    if used >= max {
        return Err(problem(
            format!("all {max} replication slots of the server are in use"),
            "drop one that nobody needs (see pg_replication_slots), or raise \
             max_replication_slots and restart Postgres",
        ));
    }
    if setup.failover && facts.server.version < 170_000 {
        return Err(problem(
            "postgres.failover is set, and slots reach standbys from Postgres 17 on only",
            "set postgres.failover = false",
        ));
    }
    Ok(format!("{name} is to be created by the first start"))
}

/// Rows of tables that no `[[outbox]]` names halt the relay.
fn strangers(setup: &Setup, facts: &Facts) -> Option<Problem> {
    let publication = facts.publication.as_ref()?;
    let known = |published: &Published| facts.tables.iter().any(|it| it.name == published.table);
    let stranger = publication.tables.iter().find(|published| !known(published))?;
    let (name, table) = (escape_identifier(&setup.publication), &stranger.table);
    Some(problem(
        format!(
            "publication {name} holds {table}, which no [[outbox]] names: its first \
             row halts the relay"
        ),
        format!(
            "run: ALTER PUBLICATION {name} DROP TABLE {}, or add an [[outbox]]",
            table.to_sql()
        ),
    ))
}

/// With updates or deletes in the publication, a table needs a replica identity, or *the
/// application's* updates and deletes fail.
fn replica_identity(setup: &Setup, facts: &Facts) -> Option<Problem> {
    let publication = facts.publication.as_ref().filter(|it| it.changes)?;
    let without = facts.tables.iter().find(|it| {
        !it.has_identity && publication.tables.iter().any(|published| published.table == it.name)
    })?;
    let name = escape_identifier(&setup.publication);
    Some(problem(
        format!(
            "publication {name} publishes updates and deletes, and {} has no primary key: the \
             application's own UPDATE and DELETE fail there",
            without.name
        ),
        format!("run: ALTER PUBLICATION {name} SET (publish = 'insert')"),
    ))
}

fn idle_slots(facts: &Facts) -> Option<Problem> {
    let timeout = facts.server.idle_slot_timeout_s;
    (timeout > 0 && timeout < IDLE_SLOT_MIN_S).then(|| {
        problem(
            format!(
                "idle_replication_slot_timeout is {timeout} s: a relay that is down for longer \
                 loses its slot, and events with it"
            ),
            "raise it to a day or more, or set it to 0",
        )
    })
}

fn failover(setup: &Setup, facts: &Facts) -> Option<Problem> {
    let slot = facts.slot.as_ref()?;
    (setup.failover && slot.failover != Some(true)).then(|| match slot.failover {
        None => problem(
            "postgres.failover is set, and slots reach standbys from Postgres 17 on only",
            "set postgres.failover = false",
        ),
        Some(_) => problem(
            format!("slot {} is not a failover slot yet", setup.slot),
            "the relay makes it one when it next starts",
        ),
    })
}

fn minor(facts: &Facts) -> Option<Problem> {
    let (major, minor) = (facts.server.version / 10_000, facts.server.version % 10_000);
    let (_, good) = FIRST_GOOD_MINORS.iter().find(|(it, _)| *it == major)?;
    (minor < *good).then(|| {
        problem(
            format!(
                "Postgres {major}.{minor} has faults in its slots and its logical decoding that \
                 can lose events"
            ),
            format!("update it to {major}.{good} or later"),
        )
    })
}

/// As a synchronous standby, the relay would make every commit of the database wait for Kafka. A
/// relay that is one already goes on: without it, commits might wait for ever.
fn synchronous(setup: &Setup, facts: &Facts) -> Option<Check> {
    let (setting, ours) = (&facts.server.synchronous, &setup.application_name);
    let words = setting.split(|c: char| !(c.is_alphanumeric() || "_-*\"".contains(c)));
    let mut words = words.map(|word| word.trim_matches('"'));
    if !words.any(|word| word == "*" || word.eq_ignore_ascii_case(ours)) {
        return None;
    }
    let problem = problem(
        format!(
            "synchronous_standby_names = '{setting}' makes the relay a synchronous standby: while \
             Kafka is down, every commit in Postgres waits"
        ),
        format!("name the standbys in it, and not \"*\" or \"{ours}\""),
    );
    let verdict = match facts.slot {
        None => Verdict::Failed(problem),
        Some(_) => Verdict::Doubtful(problem),
    };
    Some(Check { name: "synchronous standby".to_owned(), verdict })
}

#[cfg(test)]
#[path = "preconditions_tests.rs"]
mod tests;
