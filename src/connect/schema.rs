//! Schemas as `JsonConverter` prints them, member by member in its order.

use std::io::Write as _;

use super::{Kind, json_string};

/// Appends the schema of a kind.
pub(super) fn write(kind: &Kind, optional: bool, field: Option<&str>, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = write!(out, "{{\"type\":\"{}\"", connect_type(kind));
    match kind {
        Kind::Array(element) => {
            out.extend_from_slice(b",\"items\":");
            // Debezium forgets it for enums alone.
            let optional = !matches!(**element, Kind::Enum { .. });
            write(element, optional, None, out);
        }
        Kind::VariableDecimal => fields(&VARIABLE_DECIMAL, out),
        Kind::Point => fields(&POINT, out),
        _ => {}
    }
    let _ = write!(out, ",\"optional\":{optional}");
    if let Some(name) = name(kind) {
        let _ = write!(out, ",\"name\":\"{name}\",\"version\":1");
    }
    match kind {
        Kind::VariableDecimal => out.extend_from_slice(b",\"doc\":\"Variable scaled decimal\""),
        Kind::Point => out.extend_from_slice(b",\"doc\":\"Geometry (POINT)\""),
        Kind::Decimal { precision, scale } => {
            let _ = write!(
                out,
                ",\"parameters\":{{\"scale\":\"{scale}\",\
                 \"connect.decimal.precision\":\"{precision}\"}}"
            );
        }
        Kind::Money => out.extend_from_slice(b",\"parameters\":{\"scale\":\"2\"}"),
        Kind::Bits { length } => {
            let _ = write!(out, ",\"parameters\":{{\"length\":\"{length}\"}}");
        }
        Kind::Enum { allowed } => {
            out.extend_from_slice(b",\"parameters\":{\"allowed\":");
            json_string(allowed.join(",").as_bytes(), out);
            out.push(b'}');
        }
        _ => {}
    }
    if let Some(field) = field {
        out.extend_from_slice(b",\"field\":");
        json_string(field.as_bytes(), out);
    }
    out.push(b'}');
}

/// The type, whether it is optional, the name.
type StructField = (&'static str, bool, &'static str);

const VARIABLE_DECIMAL: [StructField; 2] = [("int32", false, "scale"), ("bytes", false, "value")];

const POINT: [StructField; 4] = [
    ("double", false, "x"),
    ("double", false, "y"),
    ("bytes", true, "wkb"),
    ("int32", true, "srid"),
];

fn fields(fields: &[StructField], out: &mut Vec<u8>) {
    let mut before = ",\"fields\":[";
    for (connect_type, optional, name) in fields {
        // Writing to memory does not fail.
        let _ = write!(
            out,
            "{before}{{\"type\":\"{connect_type}\",\"optional\":{optional},\"field\":\"{name}\"}}"
        );
        before = ",";
    }
    out.push(b']');
}

fn connect_type(kind: &Kind) -> &'static str {
    match kind {
        Kind::Text { .. } | Kind::Enum { .. } | Kind::ZonedTimestamp { .. } | Kind::ZonedTime => {
            "string"
        }
        Kind::Boolean => "boolean",
        Kind::Int16 => "int16",
        Kind::Int32 | Kind::Date | Kind::Time => "int32",
        Kind::Int64 | Kind::MicroTime | Kind::Timestamp | Kind::MicroTimestamp | Kind::Interval => {
            "int64"
        }
        Kind::Float => "float",
        Kind::Double => "double",
        Kind::Decimal { .. } | Kind::Money | Kind::Bytes | Kind::Bits { .. } => "bytes",
        Kind::VariableDecimal | Kind::Point => "struct",
        Kind::Array(_) => "array",
    }
}

fn name(kind: &Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Text { name } => return *name,
        Kind::Enum { .. } => "io.debezium.data.Enum",
        Kind::Decimal { .. } | Kind::Money => "org.apache.kafka.connect.data.Decimal",
        Kind::VariableDecimal => "io.debezium.data.VariableScaleDecimal",
        Kind::Bits { .. } => "io.debezium.data.Bits",
        Kind::Date => "io.debezium.time.Date",
        Kind::Time => "io.debezium.time.Time",
        Kind::MicroTime => "io.debezium.time.MicroTime",
        Kind::Timestamp => "io.debezium.time.Timestamp",
        Kind::MicroTimestamp => "io.debezium.time.MicroTimestamp",
        Kind::ZonedTimestamp { .. } => "io.debezium.time.ZonedTimestamp",
        Kind::ZonedTime => "io.debezium.time.ZonedTime",
        Kind::Interval => "io.debezium.time.MicroDuration",
        Kind::Point => "io.debezium.data.geometry.Point",
        Kind::Boolean
        | Kind::Int16
        | Kind::Int32
        | Kind::Int64
        | Kind::Float
        | Kind::Double
        | Kind::Bytes
        | Kind::Array(_) => return None,
    })
}
