//! Payloads by schemas: what is written is read by the library whose schema it is.

use apache_avro::Schema as Avro;
use apache_avro::reader::datum::GenericDatumReader;
use walrelay::config::Encoding;
use walrelay::schema::{Registered, Schema};

/// Every type of Avro, with and without a value around it that may be left out.
const EVERYTHING: &str = r#"{"type": "record", "name": "R", "namespace": "n", "fields": [
    {"name": "a", "type": "long", "default": 7},
    {"name": "b", "default": null, "type": ["null", "boolean", "int", "double", "string", "R",
        {"type": "array", "items": ["null", "long", "R"]},
        {"type": "map", "values": ["float", "bytes"]}]},
    {"name": "c", "default": "A", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
    {"name": "d", "default": "\u0000\u0001", "type": {"type": "fixed", "name": "F", "size": 2}},
    {"name": "e", "default": null, "type": ["null",
        {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 3}]},
    {"name": "f", "default": null, "type": ["null", {"type": "int", "logicalType": "date"}]},
    {"name": "g", "default": null, "type": ["null",
        {"type": "long", "logicalType": "timestamp-micros"}]},
    {"name": "h", "default": null, "type": ["null",
        {"type": "int", "logicalType": "time-millis"}]},
    {"name": "i", "default": null, "type": ["null",
        {"type": "fixed", "name": "D", "size": 4, "logicalType": "decimal", "precision": 9}]}]}"#;

const MESSAGE: &str = r#"syntax = "proto3";
import "google/protobuf/timestamp.proto";
import "google/protobuf/struct.proto";
message M {
    int64 a = 1; oneof o { string b = 2; bytes c = 3; } repeated M d = 4;
    map<string, double> e = 5; google.protobuf.Timestamp f = 6; google.protobuf.Value g = 7;
    enum E { X = 0; Y = 1; } E h = 8; optional float i = 9; uint32 j = 10; bool k = 11;
}"#;

const OBJECT: &str = r#"{"type": "object", "required": ["a"], "properties":
    {"a": {"type": "integer"}, "b": {"type": "string", "pattern": "^[a-z]+$"}}}"#;

/// The first byte chooses the schema, and the rest is the payload.
pub fn schema(input: &[u8]) {
    let Some((choice, json)) = input.split_first() else { return };
    let (encoding, text) = match choice % 3 {
        0 => (Encoding::Avro, EVERYTHING),
        1 => (Encoding::Protobuf, MESSAGE),
        _ => (Encoding::JsonSchema, OBJECT),
    };
    let registered = Registered { id: 1, encoding, text: text.to_owned(), references: Vec::new() };
    let schema = Schema::new(&registered).expect("it is a schema");
    let mut value = Vec::new();
    if schema.write(json, &mut value).is_err() {
        return;
    }
    let (head, mut body) = value.split_at(5);
    assert_eq!(head, [0, 0, 0, 0, 1]);
    match encoding {
        Encoding::Avro => {
            let avro = Avro::parse_str(text).expect("it is a schema");
            let reader = GenericDatumReader::builder(&avro).build().expect("it has one root");
            reader.read_value(&mut body).expect("the library reads what was written");
            assert!(body.is_empty(), "{} bytes too many", body.len());
        }
        Encoding::Protobuf => assert_eq!(body.first(), Some(&0), "the first message"),
        Encoding::JsonSchema => assert_eq!(body, json),
    }
}
