use super::*;

fn write_with(schema: &str, references: &[&str], json: &str) -> Result<Vec<u8>, String> {
    let references: Vec<_> = references.iter().map(|it| (String::new(), (*it).into())).collect();
    let avro = Avro::new(schema, &references).unwrap();
    let mut out = Vec::new();
    let value = serde_json::from_str(json).unwrap();
    avro.write(&value, json.len(), &mut out).map(|()| out)
}

fn write(schema: &str, json: &str) -> Result<Vec<u8>, String> {
    write_with(schema, &[], json)
}

/// The first ones are examples of the specification.
#[test]
fn values_are_those_of_the_specification() {
    let fixed = r#"{"type": "fixed", "name": "F", "size": 2}"#;
    let symbols = r#"{"type": "enum", "name": "E", "symbols": ["A", "B", "C", "D"]}"#;
    let uuid = r#"{"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}"#;
    let logical =
        |base: &str, kind: &str| format!(r#"{{"type": "{base}", "logicalType": "{kind}"}}"#);
    let decimal = r#"{"type": "bytes", "logicalType": "decimal", "precision": 40, "scale": 2}"#;
    let short = r#"{"type": "fixed", "name": "D", "size": 3, "logicalType": "decimal",
                    "precision": 6, "scale": 1}"#;
    for (schema, json, bytes) in [
        (r#""long""#, "0", &[0][..]),
        (r#""long""#, "-1", &[1]),
        (r#""long""#, "1", &[2]),
        (r#""long""#, "-64", &[0x7F]),
        (r#""long""#, "64", &[0x80, 1]),
        (r#""string""#, r#""foo""#, b"\x06foo"),
        (r#"{"type": "array", "items": "long"}"#, "[3, 27]", &[4, 6, 0x36, 0]),
        (r#"["null", "string"]"#, "null", &[0]),
        (r#"["null", "string"]"#, r#""a""#, &[2, 2, b'a']),
        (symbols, r#""D""#, &[6]),
        (r#""null""#, "null", &[]),
        (r#""boolean""#, "true", &[1]),
        (r#""int""#, "-2147483648", &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F]),
        (r#""int""#, "3.0", &[6]),
        (
            r#""long""#,
            "9223372036854775807",
            &[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1],
        ),
        (r#""float""#, "1.5", &[0, 0, 0xC0, 0x3F]),
        (r#""double""#, "-2", &[0, 0, 0, 0, 0, 0, 0, 0xC0]),
        (r#""double""#, r#""-Infinity""#, &[0, 0, 0, 0, 0, 0, 0xF0, 0xFF]),
        (r#""bytes""#, r#""\u0000\u00FFa""#, &[6, 0, 0xFF, b'a']),
        (fixed, r#""\u0001\u0080""#, &[1, 0x80]),
        (r#"{"type": "array", "items": "long"}"#, "[]", &[0]),
        (r#"{"type": "map", "values": "int"}"#, r#"{"a": 1}"#, &[2, 2, b'a', 2, 0]),
        (&logical("int", "date"), r#""1970-01-03""#, &[4]),
        (&logical("int", "date"), "-1", &[1]),
        (&logical("int", "time-millis"), r#""00:00:01.0019""#, &[0xD2, 0x0F]),
        (&logical("long", "time-micros"), r#""00:00:00.000064""#, &[0x80, 1]),
        (&logical("long", "timestamp-millis"), r#""1970-01-01T01:00:00.064+01:00""#, &[0x80, 1]),
        (&logical("long", "timestamp-micros"), r#""1970-01-01T00:00:00.000064Z""#, &[0x80, 1]),
        (&logical("long", "timestamp-nanos"), r#""1970-01-01 00:00:00.000001""#, &[0xD0, 0x0F]),
        (&logical("long", "local-timestamp-millis"), "64", &[0x80, 1]),
        (&logical("string", "uuid"), r#""x""#, &[2, b'x']),
        (
            uuid,
            r#""00112233-4455-6677-8899-AABBCCDDEEFF""#,
            &[
                0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD,
                0xEE, 0xFF,
            ],
        ),
        (decimal, "1.5", &[4, 0, 150]),
        (decimal, r#""-1.28""#, &[2, 0x80]),
        (decimal, "0", &[2, 0]),
        // 2^70 hundredths.
        (decimal, r#""11805916207174113034.24""#, &[18, 0x40, 0, 0, 0, 0, 0, 0, 0, 0]),
        (short, r#""-0.1""#, &[0xFF, 0xFF, 0xFF]),
        (short, "12.8", &[0, 0, 128]),
    ] {
        assert_eq!(write(schema, json).as_deref(), Ok(bytes), "{json} as {schema}");
    }
}

#[test]
fn records_have_what_their_schema_has_and_nothing_else() {
    let record = r#"{"type": "record", "name": "R", "namespace": "n", "fields": [
        {"name": "a", "type": "int"},
        {"name": "b", "type": "string", "default": "x"},
        {"name": "c", "type": ["null", "int"]},
        {"name": "next", "type": ["null", "R"], "default": null}]}"#;
    for (json, bytes) in [
        (r#"{"a": 1}"#, &[2, 2, b'x', 0, 0][..]),
        (r#"{"c": 1, "b": "", "a": 0}"#, &[0, 0, 2, 2, 0]),
        (r#"{"a": 1, "next": {"a": 2}}"#, &[2, 2, b'x', 0, 2, 4, 2, b'x', 0, 0]),
        // As Avro's JSON encoding has it.
        (r#"{"a": 1, "c": {"int": 3}}"#, &[2, 2, b'x', 2, 6, 0]),
        (r#"{"a": 1, "next": {"n.R": {"a": 2}}}"#, &[2, 2, b'x', 0, 2, 4, 2, b'x', 0, 0]),
    ] {
        assert_eq!(write(record, json).as_deref(), Ok(bytes), "{json}");
    }
    for (json, why) in [
        ("[]", "expected an object, got an array"),
        ("{}", "there is no member a"),
        (r#"{"a": 1, "d": 0}"#, "the schema has no field d"),
        (r#"{"a": 2147483648}"#, "a: expected a whole number of 32 bits, got a number"),
        (r#"{"a": 1.5}"#, "a: expected a whole number of 32 bits, got a number"),
        (r#"{"a": 1, "b": null}"#, "b: expected a text, got null"),
        // There is but one that it could be.
        (
            r#"{"a": 1, "next": {"a": "x"}}"#,
            "next.a: expected a whole number of 32 bits, got a text",
        ),
        (
            r#"{"a": 1, "next": {"n.R": {"a": "x"}}}"#,
            "next.n.R.a: expected a whole number of 32 bits, got a text",
        ),
    ] {
        assert_eq!(write(record, json).unwrap_err(), why, "{json}");
    }
}

#[test]
fn of_a_union_the_first_type_counts_that_fits() {
    let union = r#"["null", "int", "long", "double", "string", {"type": "array", "items": "int"}]"#;
    for (json, branch) in
        [("1", 2), ("2147483648", 4), ("1.5", 6), (r#""x""#, 8), ("[1]", 10), (r#"{"long": 1}"#, 4)]
    {
        assert_eq!(write(union, json).unwrap()[0], branch, "{json}");
    }
    let none = "an object is none of null, int, long, double, string, array";
    assert_eq!(write(union, "{}").unwrap_err(), none);
    assert_eq!(write(union, r#"{"float": 1}"#).unwrap_err(), none);
    assert_eq!(
        write(union, r#"["x"]"#).unwrap_err(),
        "an array is none of null, int, long, \
                                                       double, string, array"
    );
}

#[test]
fn types_may_be_in_other_schemas() {
    let outer = r#"{"type": "record", "name": "O", "fields": [
        {"name": "i", "type": "n.I"}, {"name": "again", "type": "n.I"}]}"#;
    let inner = r#"{"type": "record", "name": "n.I", "fields": [{"name": "e", "type": "n.E"}]}"#;
    let symbols = r#"{"type": "enum", "name": "n.E", "symbols": ["A", "B"]}"#;
    let json = r#"{"i": {"e": "B"}, "again": {"e": "A"}}"#;
    for references in [[inner, symbols], [symbols, inner]] {
        assert_eq!(write_with(outer, &references, json).as_deref(), Ok(&[2, 0][..]));
    }
    let why = write_with(outer, &[inner, symbols], r#"{"i": {"e": "C"}, "again": {}}"#);
    assert_eq!(why.unwrap_err(), "i.e: there is no symbol C");
    assert!(Avro::new(outer, &[]).is_err());
}

#[test]
fn what_would_lose_something_is_refused() {
    let decimal = r#"{"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}"#;
    let date = r#"{"type": "int", "logicalType": "date"}"#;
    for (schema, json) in [
        (decimal, "0.001"),
        (decimal, r#""1234567890123456789.01""#),
        // More digits than a floating-point number holds.
        (decimal, "1234567890123456.78"),
        (decimal, r#""1e3""#),
        (date, r#""1970-01-01T12:00:00""#),
        (date, r#""yesterday""#),
        (r#""bytes""#, r#""€""#),
        (r#""long""#, "9223372036854775808"),
        (r#""long""#, "1e300"),
        (r#""string""#, "1"),
        (r#"{"type": "fixed", "name": "F", "size": 2}"#, r#""abc""#),
    ] {
        let why = write(schema, json).unwrap_err();
        assert!(why.starts_with("expected "), "{json} as {schema}: {why}");
    }
}

/// A default that holds itself, and types that cannot be told apart before the very end.
#[test]
fn no_schema_makes_it_run_for_ever() {
    let endless = r#"{"type": "record", "name": "R", "fields": [
        {"name": "r", "type": "R", "default": {}}]}"#;
    if let Ok(avro) = Avro::new(endless, &[]) {
        let why = avro.write(&serde_json::json!({}), 2, &mut Vec::new()).unwrap_err();
        assert!(why.contains("values deep"), "{why}");
    }
    let alike = r#"[
        {"type": "record", "name": "A", "fields": [
            {"name": "x", "default": null, "type": ["null", "A",
                {"type": "record", "name": "B", "fields": [
                    {"name": "x", "type": ["null", "A", "B"], "default": null},
                    {"name": "end", "type": "int", "default": 0}]}]},
            {"name": "end", "type": "int", "default": 0}]},
        "B"]"#;
    let depth = 100;
    let json = format!(r#"{}{{"end": "x"}}{}"#, r#"{"x":"#.repeat(depth), "}".repeat(depth));
    let why = write(alike, &json).unwrap_err();
    assert!(why.contains("too much alike"), "{why}");
}
