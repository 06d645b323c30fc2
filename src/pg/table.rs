//! The name of a table.

use std::fmt;

use postgres_protocol::escape::escape_identifier;

/// A table as the catalog has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// The schema.
    pub schema: String,
    /// The table in it.
    pub name: String,
}

impl TableName {
    /// For SQL, where a name may also be a keyword.
    pub fn to_sql(&self) -> String {
        format!("{}.{}", escape_identifier(&self.schema), escape_identifier(&self.name))
    }
}

/// For people and for the configuration: `public.outbox`, `"My Schema"."Outbox"`.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = |name: &str| {
            let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
        };
        write!(f, "{}.{}", quote(&self.schema), quote(&self.name))
    }
}
