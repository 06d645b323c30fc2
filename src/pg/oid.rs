//! `pg_type.oid` of the types that are more to us than their text.

/// A whole number of eight bytes.
pub const BIGINT: u32 = 20;
pub(crate) const BOOLEAN: u32 = 16;
pub(crate) const BYTEA: u32 = 17;
pub(crate) const NAME: u32 = 19;
pub(crate) const SMALLINT: u32 = 21;
pub(crate) const INT2VECTOR: u32 = 22;
pub(crate) const INTEGER: u32 = 23;
pub(crate) const OID: u32 = 26;
pub(crate) const OIDVECTOR: u32 = 30;
pub(crate) const JSON: u32 = 114;
pub(crate) const XML: u32 = 142;
pub(crate) const POINT: u32 = 600;
pub(crate) const LSEG: u32 = 601;
pub(crate) const BOX: u32 = 603;
pub(crate) const LINE: u32 = 628;
/// Of what kind a value is does not say its place, but only the value itself.
pub(crate) const UNKNOWN: u32 = 705;
pub(crate) const REAL: u32 = 700;
pub(crate) const DOUBLE: u32 = 701;
pub(crate) const MONEY: u32 = 790;
pub(crate) const DATE: u32 = 1082;
pub(crate) const TIME: u32 = 1083;
pub(crate) const TIMESTAMP: u32 = 1114;
pub(crate) const TIMESTAMPTZ: u32 = 1184;
pub(crate) const INTERVAL: u32 = 1186;
pub(crate) const TIMETZ: u32 = 1266;
pub(crate) const BIT: u32 = 1560;
pub(crate) const VARBIT: u32 = 1562;
pub(crate) const NUMERIC: u32 = 1700;
pub(crate) const UUID: u32 = 2950;
pub(crate) const TSVECTOR: u32 = 3614;
pub(crate) const JSONB: u32 = 3802;

/// The built-in arrays, each with the type of its elements.
const ARRAYS: [(u32, u32); 40] = [
    (143, XML),
    (199, JSON),
    (651, 650),
    (775, 774),
    (791, MONEY),
    (1000, BOOLEAN),
    (1001, BYTEA),
    (1002, 18),
    (1003, NAME),
    (1005, SMALLINT),
    (1007, INTEGER),
    (1009, 25),
    (1014, 1042),
    (1015, 1043),
    (1016, BIGINT),
    (1017, POINT),
    (1020, BOX),
    (1021, REAL),
    (1022, DOUBLE),
    (1028, OID),
    (1040, 829),
    (1041, 869),
    (1115, TIMESTAMP),
    (1182, DATE),
    (1183, TIME),
    (1185, TIMESTAMPTZ),
    (1187, INTERVAL),
    (1231, NUMERIC),
    (1270, TIMETZ),
    (1561, BIT),
    (1563, VARBIT),
    (2951, UUID),
    (3643, TSVECTOR),
    (3807, JSONB),
    (3905, 3904),
    (3907, 3906),
    (3909, 3908),
    (3911, 3910),
    (3913, 3912),
    (3927, 3926),
];

/// The type of a built-in array's elements.
pub fn element(array: u32) -> Option<u32> {
    ARRAYS.iter().find(|(oid, _)| *oid == array).map(|(_, element)| *element)
}

/// Whether it is a whole number.
pub fn is_whole(oid: u32) -> bool {
    matches!(oid, SMALLINT | INTEGER | BIGINT)
}

/// Whether it is a date, with or without a time; one without a time zone is in UTC.
pub fn is_date(oid: u32) -> bool {
    matches!(oid, DATE | TIMESTAMP | TIMESTAMPTZ)
}
