//! From a row of an outbox table to a record: by column name, never by position.

mod plan;

use std::collections::HashMap;

use crate::config::{OnPoison, Outbox};
use crate::pg::output::{Relation, Tuple};
use crate::pg::table::TableName;
use crate::record::{Headers, Poison, Record};
use plan::{Plan, Scratch};

pub use plan::Place;

/// The configured outboxes, and how their rows look in this connection.
#[derive(Debug)]
pub struct Outboxes {
    configured: Vec<Outbox>,
    position_header: Option<String>,
    /// Valid within one connection: Postgres announces every table anew in the next.
    relations: HashMap<u32, Bound>,
    /// By OID, the outboxes of tables whatever they are called: partitions, and tables that had
    /// another name when their rows were written.
    family: HashMap<u32, usize>,
    scratch: Scratch,
}

/// What a Relation message meant to us.
#[derive(Debug)]
enum Bound {
    Outbox(Plan),
    /// A table of the publication that no `[[outbox]]` names.
    Stranger {
        table: TableName,
        columns: Vec<Announced>,
    },
}

/// A column as it was announced: its name, and the OID of its type.
type Announced = (String, u32);

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
        let (relations, family) = (HashMap::new(), HashMap::new());
        Outboxes { configured, position_header, relations, family, scratch: Scratch::default() }
    }

    /// Which tables belong to which outbox, by OID. What was known stays: a partition that was
    /// detached may still have rows in the log. Returns whether a row that was nobody's has a
    /// home now.
    pub fn know(&mut self, relations: &[(u32, usize)]) -> bool {
        self.family.extend(relations.iter().copied());
        let mut news = false;
        // A table is announced again only when it changes, so its rows would come in vain.
        for (oid, bound) in &mut self.relations {
            let found = self.family.get(oid).and_then(|index| self.configured.get(*index));
            if let (Bound::Stranger { columns, .. }, Some(outbox)) = (&*bound, found) {
                let index = self.family.get(oid).copied().unwrap_or_default();
                let header = self.position_header.as_deref();
                *bound = Bound::Outbox(Plan::new(index, outbox, columns, header));
                news = true;
            }
        }
        news
    }

    /// Forgets how tables look: a new connection begins.
    pub fn forget_relations(&mut self) {
        self.relations.clear();
    }

    /// A table is announced, or looks different from here on. It is found by its name at the time
    /// of its rows, or by what it is part of.
    pub fn relation(&mut self, relation: &Relation<'_>) {
        let table = TableName { schema: relation.schema.into(), name: relation.table.into() };
        let columns = relation.columns().map(|column| (column.name.to_owned(), column.type_oid));
        let columns: Vec<Announced> = columns.collect();
        let named = self.configured.iter().position(|outbox| outbox.table == table);
        let index = named.or_else(|| self.family.get(&relation.oid).copied());
        let found = index.and_then(|index| Some((index, self.configured.get(index)?)));
        let bound = match found {
            Some((index, outbox)) => {
                let header = self.position_header.as_deref();
                Bound::Outbox(Plan::new(index, outbox, &columns, header))
            }
            None => Bound::Stranger { table, columns },
        };
        self.relations.insert(relation.oid, bound);
    }

    /// What to do with a row of this table that cannot be sent.
    pub fn on_poison(&self, table: &TableName) -> OnPoison {
        let outbox = self.configured.iter().find(|outbox| outbox.table == *table);
        outbox.map_or(OnPoison::Halt, |outbox| outbox.on_poison)
    }

    /// The record for a row of `relation`.
    pub fn record<'a>(
        &'a mut self,
        relation: u32,
        tuple: Tuple<'a>,
        place: Place,
    ) -> Result<Result<Record<'a>, Poison>, Unmapped> {
        let Outboxes { configured, relations, scratch, .. } = self;
        let plan = match relations.get(&relation) {
            Some(Bound::Outbox(plan)) => plan,
            Some(Bound::Stranger { table, .. }) => return Err(Unmapped::Stranger(table.clone())),
            None => return Err(Unmapped::Unannounced(relation)),
        };
        let Some(outbox) = configured.get(plan.outbox) else {
            return Err(Unmapped::Unannounced(relation));
        };
        let table = &outbox.table;
        if tuple.len() != plan.columns {
            let (table, values, columns) = (table.clone(), tuple.len(), plan.columns);
            return Err(Unmapped::Misfit { table, values, columns });
        }
        let filled = plan.fill(scratch, tuple, place);
        let row = scratch.row(tuple);
        let id = plan.id.and_then(|id| row.get(id));
        if let Err(reason) = filled {
            let id = id.map(|id| String::from_utf8_lossy(id).into_owned());
            return Ok(Err(Poison { table: table.clone(), position: place.position, id, reason }));
        }
        Ok(Ok(Record {
            table,
            // It was checked.
            topic: row.get(plan.topic).and_then(|it| str::from_utf8(it).ok()).unwrap_or_default(),
            key: plan.key.and_then(|key| row.get(key)),
            payload: plan.payload_of(row),
            headers: Headers { fields: &plan.headers, row },
            partition: scratch.partition,
            timestamp: scratch.timestamp,
            id,
            again: false,
        }))
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
