//! `pg_type.oid` of the types that are more to us than their text.

/// Its text form is hexadecimal, and its bytes are what is meant.
pub const BYTEA: u32 = 17;
/// A whole number of eight bytes.
pub const BIGINT: u32 = 20;
const SMALLINT: u32 = 21;
const INTEGER: u32 = 23;
const DATE: u32 = 1082;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;

/// Whether it is a whole number.
pub fn is_whole(oid: u32) -> bool {
    matches!(oid, SMALLINT | INTEGER | BIGINT)
}

/// Whether it is a date, with or without a time; one without a time zone is in UTC.
pub fn is_date(oid: u32) -> bool {
    matches!(oid, DATE | TIMESTAMP | TIMESTAMPTZ)
}
