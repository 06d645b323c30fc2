//! From a row of an outbox table to a record: by column name, never by position.

use std::collections::HashMap;
use std::ops::Range;

use crate::config::{OnPoison, Outbox};
use crate::lsn::Position;
use crate::pg::output::{Relation, Tuple, Value};
use crate::pg::table::TableName;
use crate::record::{Headers, Poison, Record, Row};
use crate::template::{Part, check_topic};

/// `pg_type.oid` of `bytea`, whose text form is hexadecimal and whose bytes are what is meant.
const BYTEA: u32 = 17;

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

/// Buffers that outlive a row, so that none is allocated for each.
#[derive(Debug, Default)]
struct Scratch {
    topic: String,
    position: String,
    bytes: Vec<u8>,
    decoded: Vec<(usize, Range<usize>)>,
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

/// Where the columns of an outbox stand, until the next Relation message says otherwise.
#[derive(Debug)]
struct Plan {
    /// Index into `configured`.
    outbox: usize,
    topic: Vec<TopicPart>,
    id: Option<usize>,
    key: Option<usize>,
    payload: usize,
    headers: Vec<(String, usize)>,
    /// Mapped columns of type `bytea`.
    bytea: Vec<usize>,
    /// Mapped columns that the table does not have.
    missing: Vec<String>,
    /// How many columns were announced.
    columns: usize,
}

#[derive(Debug)]
enum TopicPart {
    Literal(String),
    Column(usize),
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
                *bound = Bound::Outbox(Plan::new(index, outbox, columns));
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
            Some((index, outbox)) => Bound::Outbox(Plan::new(index, outbox, &columns)),
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
        position: Position,
    ) -> Result<Result<Record<'a>, Poison>, Unmapped> {
        let Outboxes { configured, position_header, relations, scratch, .. } = self;
        let plan = match relations.get(&relation) {
            Some(Bound::Outbox(plan)) => plan,
            Some(Bound::Stranger { table, .. }) => return Err(Unmapped::Stranger(table.clone())),
            None => return Err(Unmapped::Unannounced(relation)),
        };
        let Some(outbox) = configured.get(plan.outbox) else {
            return Err(Unmapped::Unannounced(relation));
        };
        if tuple.len() != plan.columns {
            let (table, values, columns) = (outbox.table.clone(), tuple.len(), plan.columns);
            return Err(Unmapped::Misfit { table, values, columns });
        }
        if let Err(reason) = plan.fill(scratch, tuple, position) {
            let id = plan.id.and_then(|id| text(tuple.get(id)?));
            return Ok(Err(Poison { table: outbox.table.clone(), position, id, reason }));
        }
        let row = Row { tuple, bytes: &scratch.bytes, decoded: &scratch.decoded };
        let position = position_header.as_deref().map(|name| (name, scratch.position.as_str()));
        let id = plan.id.map(|id| row.get(id));
        Ok(Ok(Record {
            table: &outbox.table,
            topic: &scratch.topic,
            key: plan.key.and_then(|key| row.get(key)),
            payload: row.get(plan.payload),
            headers: Headers { id, position, columns: &plan.headers, row },
            again: false,
        }))
    }
}

fn text(value: Value<'_>) -> Option<String> {
    match value {
        Value::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::Null => None,
    }
}

impl Plan {
    fn new(index: usize, outbox: &Outbox, columns: &[Announced]) -> Plan {
        let mut missing = Vec::new();
        let mut find = |name: &String| {
            let found = columns.iter().position(|(column, _)| column == name);
            if found.is_none() && !missing.contains(name) {
                missing.push(name.clone());
            }
            // Never read: a row of a plan that misses something is poison.
            found.unwrap_or(usize::MAX)
        };
        let id = outbox.id.as_ref().map(&mut find);
        let key = outbox.key.as_ref().map(&mut find);
        let payload = find(&outbox.payload);
        let headers = outbox.headers.iter();
        let headers: Vec<_> =
            headers.map(|(header, column)| (header.clone(), find(column))).collect();
        let parts = outbox.topic.parts().iter();
        let topic = parts.map(|part| match part {
            Part::Literal(text) => TopicPart::Literal(text.clone()),
            Part::Column(name) => TopicPart::Column(find(name)),
        });
        let topic = topic.collect();
        let mapped = id.into_iter().chain(key).chain([payload]);
        let mapped = mapped.chain(headers.iter().map(|(_, index)| *index));
        let is_bytea =
            |index: &usize| columns.get(*index).is_some_and(|(_, type_oid)| *type_oid == BYTEA);
        let mut bytea: Vec<_> = mapped.filter(is_bytea).collect();
        bytea.sort_unstable();
        bytea.dedup();
        let columns = columns.len();
        Plan { outbox: index, topic, id, key, payload, headers, bytea, missing, columns }
    }

    /// Renders what does not stand in the row as it is: topic, position and `bytea` columns.
    fn fill(
        &self,
        scratch: &mut Scratch,
        row: Tuple<'_>,
        position: Position,
    ) -> Result<(), String> {
        if !self.missing.is_empty() {
            let missing = self.missing.join(", ");
            return Err(format!("the table has no column {missing}; add it or change the mapping"));
        }
        scratch.position.clear();
        scratch.position.push_str(str::from_utf8(&position.text()).unwrap_or_default());
        scratch.bytes.clear();
        scratch.decoded.clear();
        for &index in &self.bytea {
            if let Some(Value::Text(hex)) = row.get(index) {
                let start = scratch.bytes.len();
                decode_bytea(hex, &mut scratch.bytes)
                    .ok_or("a bytea value does not come as \\x and hexadecimal digits")?;
                scratch.decoded.push((index, start..scratch.bytes.len()));
            }
        }
        self.render_topic(&mut scratch.topic, row)
    }

    fn render_topic(&self, topic: &mut String, row: Tuple<'_>) -> Result<(), String> {
        topic.clear();
        for part in &self.topic {
            match part {
                TopicPart::Literal(text) => topic.push_str(text),
                TopicPart::Column(index) => match row.get(*index) {
                    Some(Value::Text(bytes)) => topic.push_str(&String::from_utf8_lossy(bytes)),
                    Some(Value::Null) | None => {
                        return Err("a column of the topic is NULL".to_owned());
                    }
                },
            }
        }
        check_topic(topic)
    }
}

/// `\x` and two digits a byte: `bytea_output = hex`, which the session pins.
fn decode_bytea(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, []) = text.strip_prefix(b"\\x")?.as_chunks::<2>() else { return None };
    for &[high, low] in pairs {
        out.push(digit(high)? << 4 | digit(low)?);
    }
    Some(())
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
