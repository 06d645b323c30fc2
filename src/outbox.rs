//! From a row of an outbox table to a record: by column name, never by position.

mod event;
mod make;
mod messages;
mod plan;
mod planner;
mod row;
mod span;

use std::collections::HashMap;

use crate::config::{Message, OnPoison, OnUpdate, Outbox};
use crate::pg::known::{self, Known};
use crate::pg::output::{Relation, Tuple};
use crate::pg::table::TableName;
use crate::record::{Headers, Origin, Poison, Record};
use messages::Rule;
use plan::{Plan, Scratch};
use planner::Planner;

pub use plan::Place;

/// Whose a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose<'a> {
    /// Of the table with this OID.
    Relation(u32),
    /// A message that was written as a row.
    Rule {
        /// The one that it comes under.
        rule: usize,
        /// What is wrong with its content.
        fault: Option<&'a str>,
    },
}

/// The configured outboxes, and how their rows look in this connection.
#[derive(Debug)]
pub struct Outboxes {
    configured: Vec<Outbox>,
    /// What messages are events.
    rules: Vec<Rule>,
    position_header: Option<String>,
    /// Valid within one connection: Postgres announces every table anew in the next.
    relations: HashMap<u32, Bound>,
    /// By OID, what is known of tables whatever they are called: partitions, and tables that had
    /// another name when their rows were written.
    family: HashMap<u32, Kin>,
    scratch: Scratch,
}

/// What a Relation message said, and what it means to us.
#[derive(Debug)]
struct Bound {
    table: TableName,
    columns: Vec<Announced>,
    /// `None` is a table of the publication that no `[[outbox]]` names.
    plan: Option<Plan>,
}

/// What the catalog says of a table.
#[derive(Debug)]
struct Kin {
    outbox: usize,
    columns: Vec<known::Column>,
}

/// A column as it was announced.
#[derive(Debug)]
struct Announced {
    name: String,
    type_oid: u32,
    modifier: i32,
}

/// A row of a table that no outbox is configured for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmapped {
    /// Dropping it silently would lose it if the table is a renamed outbox.
    #[error(
        "the publication holds {0}, which no [[outbox]] names; if it is a renamed outbox, add \
         an [[outbox]] with table = \"{0}\"; if not, that is needed all the same until its rows \
         in the log are read: then take the table out of the publication"
    )]
    Stranger(TableName),
    /// The server never said what the row's table looks like.
    #[error("a row came for relation {0}, which was not announced")]
    Unannounced(u32),
    /// There is no such rule.
    #[error("a message came under a [[message]] that is not there")]
    NoRule,
    /// The row is not the announced one. Its columns cannot be told apart, and one that it does
    /// not have would pass for NULL.
    #[error("a row of {table} came with {values} values for {columns} announced columns")]
    Misfit {
        /// Which table.
        table: TableName,
        /// How many values the row has.
        values: usize,
        /// How many columns were announced.
        columns: usize,
    },
}

impl Outboxes {
    /// Outboxes as configured. `position_header` names the header with the row's position.
    pub fn new(configured: Vec<Outbox>, position_header: Option<String>) -> Outboxes {
        let (rules, scratch) = (Vec::new(), Scratch::default());
        let (relations, family) = (HashMap::new(), HashMap::new());
        Outboxes { configured, rules, position_header, relations, family, scratch }
    }

    /// And these messages.
    #[must_use]
    pub fn with_messages(self, messages: Vec<Message>) -> Outboxes {
        let header = self.position_header.as_deref();
        let rule = |(index, message)| Rule::new(index, message, header);
        let rules = messages.into_iter().enumerate().map(rule).collect();
        Outboxes { rules, ..self }
    }

    /// Whether messages are read.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// The rule for messages of this prefix, if they are events.
    pub fn rule(&self, prefix: &[u8]) -> Option<usize> {
        let meant = |(_, rule): &(usize, &Rule)| rule.message.prefix.rest(prefix).is_some();
        let rules = self.rules.iter().enumerate().filter(meant);
        rules.max_by_key(|(_, rule)| rule.message.prefix.precedence()).map(|(index, _)| index)
    }

    /// What messages of a rule are called.
    pub fn origin(&self, rule: usize) -> Option<&Origin> {
        self.rules.get(rule).map(|rule| &rule.plan.origin)
    }

    /// Appends a message as a row, which is that of its rule. Returns what is wrong with its
    /// content, of which no record can be made then.
    pub fn write(
        &self,
        rule: usize,
        prefix: &[u8],
        content: &[u8],
        row: &mut Vec<u8>,
    ) -> Option<String> {
        self.rules.get(rule)?.write(prefix, content, row).err()
    }

    /// What the catalog says of tables. What was known stays: a partition that was detached may
    /// still have rows in the log. Returns whether a row that was nobody's has a home now.
    pub fn know(&mut self, tables: &[Known]) -> bool {
        let mut news = false;
        for table in tables {
            let same = self.family.get(&table.oid).is_some_and(|kin| {
                (kin.outbox, kin.columns.as_slice()) == (table.outbox, table.columns.as_slice())
            });
            if same {
                continue;
            }
            let kin = Kin { outbox: table.outbox, columns: table.columns.clone() };
            self.family.insert(table.oid, kin);
            // A table is announced again only when it changes, so its rows would come in vain.
            if let Some(bound) = self.relations.remove(&table.oid) {
                let plan = self.plan(table.oid, &bound.table, &bound.columns);
                news |= bound.plan.is_none() && plan.is_some();
                self.relations.insert(table.oid, Bound { plan, ..bound });
            }
        }
        news
    }

    /// Forgets how tables look: a new connection begins.
    pub fn forget_relations(&mut self) {
        self.relations.clear();
    }

    /// A table is announced, or looks different from here on.
    pub fn relation(&mut self, relation: &Relation<'_>) {
        let table = TableName { schema: relation.schema.into(), name: relation.table.into() };
        let columns = relation.columns().map(|column| Announced {
            name: column.name.to_owned(),
            type_oid: column.type_oid,
            modifier: column.modifier,
        });
        let columns: Vec<Announced> = columns.collect();
        let plan = self.plan(relation.oid, &table, &columns);
        self.relations.insert(relation.oid, Bound { table, columns, plan });
    }

    /// What becomes of a table's rows. It is found by its name at the time of its rows, or by what
    /// it is part of.
    fn plan(&self, oid: u32, table: &TableName, columns: &[Announced]) -> Option<Plan> {
        let kin = self.family.get(&oid);
        let named = self.configured.iter().position(|outbox| outbox.table == *table);
        let index = named.or(kin.map(|kin| kin.outbox))?;
        let outbox = self.configured.get(index)?;
        let known = kin.map_or(&[][..], |kin| &kin.columns);
        Some(Planner::new(outbox, columns, known).plan(index, self.position_header.as_deref()))
    }

    /// What to do about a row of this relation that was changed, and the outbox's table.
    pub fn on_update(&self, relation: u32) -> Option<(OnUpdate, &TableName)> {
        let plan = self.relations.get(&relation)?.plan.as_ref()?;
        let outbox = self.configured.get(plan.outbox)?;
        Some((outbox.on_update, &outbox.table))
    }

    /// What to do with a row of this origin that cannot be sent.
    pub fn on_poison(&self, origin: &Origin) -> OnPoison {
        let outbox = match origin {
            Origin::Table(table) => self.configured.iter().find(|outbox| outbox.table == *table),
            Origin::Messages(_) => {
                let rule = self.rules.iter().find(|rule| rule.plan.origin == *origin);
                rule.map(|rule| &rule.message.mapping)
            }
        };
        outbox.map_or(OnPoison::Halt, |outbox| outbox.on_poison)
    }

    /// The record for a row.
    pub fn record<'a>(
        &'a mut self,
        whose: Whose<'_>,
        tuple: Tuple<'a>,
        place: Place,
    ) -> Result<Result<Record<'a>, Poison>, Unmapped> {
        let Outboxes { configured, rules, relations, scratch, .. } = self;
        let (plan, Outbox { table, .. }) = found(configured, rules, relations, whose)?;
        if tuple.len() != plan.columns.len() {
            let (table, values, columns) = (table.clone(), tuple.len(), plan.columns.len());
            return Err(Unmapped::Misfit { table, values, columns });
        }
        let filled = match whose {
            Whose::Rule { fault: Some(fault), .. } => Err(fault.to_owned()),
            _ => plan.fill(scratch, tuple, place),
        };
        if let Err(reason) = filled {
            let id = plan.id.and_then(|id| plan::bytes_of(tuple, id));
            let id = id.map(|id| String::from_utf8_lossy(id).into_owned());
            let (origin, position) = (plan.origin.clone(), place.position);
            return Ok(Err(Poison { origin, position, id, reason }));
        }
        Ok(Ok(plan.record(scratch, tuple)))
    }

    /// What goes in place of a record whose value, of so many bytes, is too large: the same record,
    /// but for a value that tells where the row is, and a header that says so. None if the outbox
    /// does not want that, if the row has no `id`, and if it would be no smaller.
    pub fn pointer<'a>(
        &'a mut self,
        whose: Whose<'_>,
        tuple: Tuple<'a>,
        place: Place,
        bytes: usize,
    ) -> Option<Record<'a>> {
        let Outboxes { configured, rules, relations, scratch, .. } = self;
        let (plan, _) = found(configured, rules, relations, whose).ok()?;
        let headers = plan.pointer_headers.as_deref()?;
        let value = plan.fill_pointer(scratch, tuple, place, bytes)?;
        let row = scratch.row(tuple);
        let (payload, headers) = (row.get(value), Headers { fields: headers, row });
        Some(Record { payload, encoded: None, headers, ..plan.record(scratch, tuple) })
    }

    /// What goes to the outbox's topic for rows that are no records, if it has one: the row's key,
    /// payload and headers as far as they can be made, and what is wrong with it in more headers.
    /// A payload that is too large may stay in the table.
    pub fn letter<'a>(
        &'a mut self,
        whose: Whose<'_>,
        tuple: Tuple<'a>,
        place: Place,
        poison: &Poison,
        with_payload: bool,
    ) -> Option<Record<'a>> {
        let Outboxes { configured, rules, relations, scratch, .. } = self;
        let (plan, outbox) = found(configured, rules, relations, whose).ok()?;
        let topic = match outbox.on_poison {
            OnPoison::DeadLetter => outbox.dead_letter_topic.as_deref()?,
            OnPoison::Halt | OnPoison::Skip => return None,
        };
        plan.fill_letter(scratch, tuple, place, poison, with_payload);
        let row = scratch.row(tuple);
        let column = || plan::bytes_of(tuple, plan.payload_column?);
        let payload = || plan.payload_of(row).or_else(column);
        Some(Record {
            origin: &plan.origin,
            topic,
            key: plan.key.and_then(|key| row.get(key)),
            payload: with_payload.then(payload).flatten(),
            encoded: None,
            headers: Headers { fields: &plan.letter_headers, row },
            partition: None,
            timestamp: scratch.timestamp,
            id: plan.id.and_then(|id| plan::bytes_of(tuple, id)),
            again: false,
        })
    }
}

/// The plan for a row, and the outbox it is for.
fn found<'a>(
    configured: &'a [Outbox],
    rules: &'a [Rule],
    relations: &'a HashMap<u32, Bound>,
    whose: Whose<'_>,
) -> Result<(&'a Plan, &'a Outbox), Unmapped> {
    let relation = match whose {
        Whose::Relation(relation) => relation,
        Whose::Rule { rule, .. } => {
            let found = rules.get(rule).map(|rule| (&rule.plan, &rule.message.mapping));
            return found.ok_or(Unmapped::NoRule);
        }
    };
    let bound = relations.get(&relation).ok_or(Unmapped::Unannounced(relation))?;
    let stranger = || Unmapped::Stranger(bound.table.clone());
    let plan = bound.plan.as_ref().ok_or_else(stranger)?;
    Ok((plan, configured.get(plan.outbox).ok_or_else(stranger)?))
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "outbox_rows_tests.rs"]
mod rows_tests;

#[cfg(test)]
#[path = "outbox_cloudevents_tests.rs"]
mod cloudevents_tests;
