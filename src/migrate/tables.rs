//! Which tables are outboxes.

use super::options::Debezium;
use crate::pg::table::TableName;
use crate::template::check_identifier;

/// What makes of a name in the list an expression that matches many.
const EXPRESSION: &[char] = &['*', '+', '?', '[', ']', '(', ')', '{', '}', '|', '^', '$', '\\'];

/// An outbox table, and what is to be said of it.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) name: TableName,
    pub(super) comments: Vec<String>,
}

/// The tables of the list; never empty, and no two the same.
pub(super) fn translate(debezium: &mut Debezium) -> Vec<Table> {
    let name = debezium.source_name("table.include.list");
    let given = debezium.source("table.include.list");
    let given = given.or_else(|| debezium.source("table.whitelist"));
    let list = given.map(|given| given.value).unwrap_or_default();
    let mut tables: Vec<Table> = Vec::new();
    for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let table = table(entry);
        match tables.iter_mut().find(|it| it.name == table.name) {
            Some(known) => known.comments.extend(table.comments),
            None => tables.push(table),
        }
    }
    if tables.is_empty() {
        tables.push(unknown(format!(
            "There is no {name}: Debezium reads every table. Name here the one that is an outbox; \
             for a second one, repeat [[outbox]]."
        )));
    }
    if let (Some(predicate), Some(first)) = (&debezium.predicate, tables.first_mut()) {
        first.comments.push(format!(
            "The router was applied where {predicate}. Leave out the [[outbox]] of tables that \
             are none, and take them out of the publication."
        ));
    }
    tables
}

fn table(entry: &str) -> Table {
    // A dot is mostly meant as one, also where it is not marked as such.
    let plain = entry.replace("\\.", ".");
    let parts = plain.split_once('.');
    let legal = |part: &str| check_identifier(part).is_ok() && !part.contains(EXPRESSION);
    let Some((schema, name)) = parts.filter(|(schema, name)| legal(schema) && legal(name)) else {
        return unknown(format!(
            "Debezium reads the tables that {entry} matches; write the [[outbox]] of each of them."
        ));
    };
    let name = TableName { schema: schema.to_owned(), name: name.to_owned() };
    let comments = if plain.chars().any(char::is_uppercase) {
        vec![format!(
            "Debezium compares without regard to case. Write {} if the table was made without \
             quotes.",
            plain.to_lowercase()
        )]
    } else {
        Vec::new()
    };
    Table { name, comments }
}

fn unknown(comment: String) -> Table {
    let name = TableName { schema: "public".to_owned(), name: "outbox".to_owned() };
    Table { name, comments: vec![comment] }
}
