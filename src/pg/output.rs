//! Messages of the pgoutput plugin, protocol version 1, decoded without copying.
//!
//! Layout: Postgres manual, "Logical Replication Message Formats". Version 1 without `streaming`
//! sends committed transactions only, whole and in commit order, so that a row can be passed on
//! the moment it is read.

use super::fields::{Fields, Malformed};
use crate::lsn::Lsn;

/// One message of the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A transaction begins.
    Begin {
        /// LSN of its commit record.
        commit: Lsn,
        /// Commit time, microseconds since 2000-01-01 UTC.
        committed_us: i64,
        /// Transaction id.
        xid: u32,
    },
    /// The transaction ends.
    Commit {
        /// LSN of the commit record, as in BEGIN.
        commit: Lsn,
        /// End of the commit record: the position to confirm.
        end: Lsn,
    },
    /// How rows of a table look from here on, in this connection.
    Relation(Relation<'a>),
    /// A row.
    Insert {
        /// OID of the table, announced by an earlier Relation.
        relation: u32,
        /// Its values, in the order of the Relation's columns.
        row: Tuple<'a>,
    },
    /// A row was changed.
    Update {
        /// OID of the table, announced by an earlier Relation.
        relation: u32,
    },
    /// A message of `pg_logical_emit_message`.
    Message {
        /// Whether it belongs to the transaction around it; if not, it is sent even when its
        /// transaction rolls back.
        transactional: bool,
        /// What it is about, in the emitter's words. Of all databases, one in `SQL_ASCII` may have
        /// any bytes here.
        prefix: &'a [u8],
        /// Its bytes, as they were given: Postgres converts text in rows to UTF-8, but not these.
        content: &'a [u8],
    },
    /// What an outbox has no use for.
    Other(Kind),
}

/// A message that carries nothing for an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A row was deleted, as clean-up does.
    Delete,
    /// Tables were emptied.
    Truncate,
    /// The transaction came from another replication.
    Origin,
    /// A user-made type was announced.
    Type,
}

/// A table as the rows after it see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// OID, which the rows name.
    pub oid: u32,
    /// Schema; empty for `pg_catalog`.
    pub schema: &'a str,
    /// Name.
    pub table: &'a str,
    columns: Fields<'a>,
    column_count: u16,
}

/// A column of a [`Relation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    /// Name.
    pub name: &'a str,
    /// OID of its type.
    pub type_oid: u32,
    /// The type's modifier, like the precision and scale of a `numeric`; -1 for none.
    pub modifier: i32,
}

impl<'a> Relation<'a> {
    fn parse(mut fields: Fields<'a>) -> Result<Relation<'a>, Malformed> {
        let oid = fields.u32()?;
        let schema = fields.text()?;
        let table = fields.text()?;
        let _replica_identity = fields.u8()?;
        let column_count = fields.count()?;
        let columns = fields;
        for _ in 0..column_count {
            column(&mut fields)?;
        }
        fields.end()?;
        Ok(Relation { oid, schema, table, columns, column_count })
    }

    /// The columns in the order in which rows hold them.
    pub fn columns(&self) -> impl Iterator<Item = Column<'a>> + use<'a> {
        let mut fields = self.columns;
        // `parse` has walked them all.
        (0..self.column_count).map_while(move |_| column(&mut fields).ok())
    }
}

fn column<'a>(fields: &mut Fields<'a>) -> Result<Column<'a>, Malformed> {
    let _flags = fields.u8()?;
    let name = fields.text()?;
    let type_oid = fields.u32()?;
    let modifier = fields.i32()?;
    Ok(Column { name, type_oid, modifier })
}

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL NULL, which is not an empty text.
    Null,
    /// The type's text form in UTF-8 (in a `SQL_ASCII` database: whatever bytes it holds).
    Text(&'a [u8]),
}

/// The values of a row, still as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    values: Fields<'a>,
    count: u16,
}

impl Value<'_> {
    /// Appends it to a row, as pgoutput writes it.
    pub fn write(self, row: &mut Vec<u8>) {
        match self {
            Value::Null => row.push(b'n'),
            Value::Text(bytes) => {
                // Nothing in Postgres is as long as that; the row would be refused.
                let len = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
                row.push(b't');
                row.extend_from_slice(&len.to_be_bytes());
                row.extend_from_slice(bytes);
            }
        }
    }
}

impl<'a> Tuple<'a> {
    /// A row that was written value by value, behind their 16-bit number.
    pub fn of(bytes: &'a [u8]) -> Result<Tuple<'a>, Malformed> {
        Tuple::parse(Fields::of(bytes))
    }

    fn parse(mut fields: Fields<'a>) -> Result<Tuple<'a>, Malformed> {
        let count = fields.count()?;
        let values = fields;
        for _ in 0..count {
            value(&mut fields)?;
        }
        fields.end()?;
        Ok(Tuple { values, count })
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.count.into()
    }

    /// Whether the row has no columns at all.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The value of the column with this 0-based number, if the row is that wide.
    ///
    /// Walks from the start: an outbox row is a handful of values, and an index would cost an
    /// allocation for each.
    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        self.values().nth(index)
    }

    /// All values in order.
    pub fn values(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut fields = self.values;
        // `parse` has walked them all.
        (0..self.count).map_while(move |_| value(&mut fields).ok())
    }
}

fn value<'a>(fields: &mut Fields<'a>) -> Result<Value<'a>, Malformed> {
    match fields.u8()? {
        b'n' => Ok(Value::Null),
        b't' => Ok(Value::Text(fields.sized()?)),
        // Only an UPDATE leaves a TOASTed value out; taking it for NULL would be corruption.
        b'u' => Err(Malformed("an inserted row lacks a TOASTed value")),
        b'b' => Err(Malformed("a value came in binary, which was not asked for")),
        _ => Err(Malformed("unknown kind of value")),
    }
}

impl<'a> Change<'a> {
    /// Reads one message of the plugin.
    pub fn parse(bytes: &'a [u8]) -> Result<Change<'a>, Malformed> {
        let mut fields = Fields::of(bytes);
        match fields.u8()? {
            b'B' => {
                let commit = fields.lsn()?;
                let committed_us = fields.i64()?;
                let xid = fields.u32()?;
                fields.end()?;
                Ok(Change::Begin { commit, committed_us, xid })
            }
            b'C' => {
                let _flags = fields.u8()?;
                let commit = fields.lsn()?;
                let end = fields.lsn()?;
                let _committed_us = fields.i64()?;
                fields.end()?;
                Ok(Change::Commit { commit, end })
            }
            b'R' => Relation::parse(fields).map(Change::Relation),
            b'I' => {
                let relation = fields.u32()?;
                if fields.u8()? != b'N' {
                    return Err(Malformed("an insert without a new row"));
                }
                Ok(Change::Insert { relation, row: Tuple::parse(fields)? })
            }
            b'M' => {
                let transactional = fields.u8()? & 1 == 1;
                let _at = fields.lsn()?;
                let prefix = fields.terminated()?;
                let content = fields.sized()?;
                fields.end()?;
                Ok(Change::Message { transactional, prefix, content })
            }
            b'U' => Ok(Change::Update { relation: fields.u32()? }),
            b'D' => Ok(Change::Other(Kind::Delete)),
            b'T' => Ok(Change::Other(Kind::Truncate)),
            b'O' => Ok(Change::Other(Kind::Origin)),
            b'Y' => Ok(Change::Other(Kind::Type)),
            // A slot made with two_phase sends these to everybody, before the transaction is
            // decided. Passing its rows on would publish what may yet roll back.
            b'b' | b'P' | b'K' | b'r' => Err(Malformed("the slot was created with two_phase")),
            _ => Err(Malformed("unknown message of pgoutput")),
        }
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
