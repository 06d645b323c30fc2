//! What the catalog tells of the outbox tables beyond what the stream does.

/// A table whose rows belong to an outbox: the one that is named, or a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// What rows are known by in the stream.
    pub oid: u32,
    /// Index of the outbox.
    pub outbox: usize,
    /// Its columns, in their order.
    pub columns: Vec<Column>,
}

/// A column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// `pg_type.oid` of its type.
    pub type_oid: u32,
    /// The same of what that is in the end, if it is a domain.
    pub base_oid: u32,
    /// The modifier of that, like the precision and scale of a `numeric`; -1 for none.
    pub modifier: i32,
    /// The type of an array's elements, or 0.
    pub element_oid: u32,
    /// Whether it is never NULL.
    pub not_null: bool,
    /// Whether it is computed from others.
    pub generated: bool,
    /// The values of an enum, in their order, with commas between them.
    pub labels: String,
}
