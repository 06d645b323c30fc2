//! What is expected was recorded from Debezium 3.6.3 on Kafka Connect 4.3.1, or computed with their
//! converters on Java 17. The texts are those of Postgres 18.

use super::*;
use crate::testing::{Random, seeds};

/// A row with a column of every type, as `JsonConverter` sent it with its schema, and another one
/// of NULLs alone.
const RECORDED: &str = include_str!("connect/every_type.jsonl");

const TEXT: u32 = 25;

fn of(type_oid: u32, modifier: i32) -> Kind {
    Kind::of(&Described { type_oid, modifier, labels: &[], element: 0 })
}

fn plain(type_oid: u32) -> Kind {
    of(type_oid, -1)
}

fn numeric(precision: i32, scale: i32) -> Kind {
    of(oid::NUMERIC, (precision << 16 | scale & 0x7FF) + 4)
}

fn mood(type_oid: u32, element: u32) -> Kind {
    let labels = ["happy".to_owned(), "sad".to_owned()];
    Kind::of(&Described { type_oid, modifier: -1, labels: &labels, element })
}

/// Columns of every type: their kind, a text, and how that looks as a string.
fn columns() -> Vec<(&'static str, Kind, &'static str, &'static str)> {
    let uuid = "00000000-0000-4000-8000-000000000099";
    let (moment, iso) = ("2024-02-03 02:05:06.789+00", "2024-02-03T02:05:06.789000Z");
    vec![
        ("c_int2", plain(oid::SMALLINT), "-3", "-3"),
        ("c_int4", plain(oid::INTEGER), "42", "42"),
        ("c_int8", plain(oid::BIGINT), "9007199254740993", "9007199254740993"),
        ("c_bool", plain(oid::BOOLEAN), "t", "true"),
        ("c_num", numeric(10, 2), "12.50", "12.50"),
        ("c_numu", plain(oid::NUMERIC), "1.50", "1.50"),
        ("c_tstz", plain(oid::TIMESTAMPTZ), moment, iso),
        ("c_ts3", of(oid::TIMESTAMP, 3), "2024-02-03 04:05:06.789", "1706933106789"),
        ("c_ts6", of(oid::TIMESTAMP, 6), "2024-02-03 04:05:06.789123", "1706933106789123"),
        ("c_date", plain(oid::DATE), "2024-02-03", "19756"),
        ("c_time", plain(oid::TIME), "04:05:06.789123", "14706789123"),
        ("c_time3", of(oid::TIME, 3), "04:05:06.789", "14706789"),
        ("c_timetz", plain(oid::TIMETZ), "04:05:06.789+02", "02:05:06.789Z"),
        ("c_uuid", plain(oid::UUID), uuid, uuid),
        ("c_tarr", plain(1009), r#"{a,"b c",NULL}"#, "[a, b c, null]"),
        ("c_iarr", plain(1007), "{1,2,NULL}", "[1, 2, null]"),
        ("c_enum", mood(16_500, 0), "sad", "sad"),
        ("c_jsonb", plain(oid::JSONB), r#"{"a": [1], "b": 1}"#, r#"{"a": [1], "b": 1}"#),
        ("c_json", plain(oid::JSON), r#"{"b":1 }"#, r#"{"b":1 }"#),
        ("c_real", plain(oid::REAL), "0.1", "0.1"),
        ("c_double", plain(oid::DOUBLE), "0.1", "0.1"),
        ("c_bytea", plain(oid::BYTEA), r"\x00ff41", "\0\u{FFFD}A"),
        ("c_char", of(1042, 9), "ab   ", "ab   "),
        ("c_text", plain(TEXT), r#"a "q" ü"#, r#"a "q" ü"#),
        ("c_interval", plain(oid::INTERVAL), "1 day 02:03:04.5", "93784500000"),
        ("c_inet", plain(869), "10.0.0.1/24", "10.0.0.1/24"),
        ("c_money", plain(oid::MONEY), "$12.34", "12.34"),
        ("c_bit", of(oid::BIT, 3), "101", "101"),
        ("c_bit1", of(oid::BIT, 1), "1", "true"),
        ("c_range", plain(3904), "[1,5)", "[1,5)"),
        ("c_point", plain(oid::POINT), "(1,2.5)", "(1,2.5)"),
        ("c_xml", plain(oid::XML), "<a/>", "<a/>"),
        ("c_mac", plain(829), "08:00:2b:01:02:03", "08:00:2b:01:02:03"),
        ("c_oid", plain(oid::OID), "7", "7"),
    ]
}

type Write = fn(&Kind, &[u8], &mut Vec<u8>) -> Result<(), String>;

const STRING: Write = Kind::string;
const HEADER: Write = Kind::header;
const JSON: Write = |kind, text, out| kind.json(Some(text), out);

fn written(write: Write, kind: &Kind, text: impl AsRef<[u8]>) -> String {
    let mut out = Vec::new();
    write(kind, text.as_ref(), &mut out).unwrap();
    String::from_utf8_lossy(&out).into_owned()
}

/// Why it cannot be sent.
fn refused(write: Write, kind: &Kind, text: impl AsRef<[u8]>) -> String {
    let mut out = b"before".to_vec();
    let error = write(kind, text.as_ref(), &mut out).unwrap_err();
    assert_eq!(out, b"before", "{error}");
    error
}

/// Checks texts and what they look like.
fn check(write: Write, kind: &Kind, table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(written(write, kind, text), *expected, "{kind:?} {text}");
    }
}

/// Checks texts that look the same as a string, as a header and, without quotes, as JSON.
fn check_all(kind: &Kind, table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(written(STRING, kind, text), *expected, "{kind:?} {text}");
        assert_eq!(written(HEADER, kind, text), *expected, "{kind:?} {text}");
        assert_eq!(written(JSON, kind, text).trim_matches('"'), *expected, "{kind:?} {text}");
    }
}

/// The envelope of a row, from what each of its columns gives.
fn envelope(value: impl Fn(&Kind, &str) -> String) -> String {
    let payload = ("payload", plain(oid::JSONB), r#"{"p": 1}"#, "");
    let columns: Vec<_> = std::iter::once(payload).chain(columns()).collect();
    let schemas = columns.iter().map(|(name, kind, ..)| kind.schema(true, Some(name)));
    let values = columns.iter().map(|(name, kind, text, _)| {
        let text = if *name == "payload" { text } else { *text };
        format!("\"{name}\":{}", value(kind, text))
    });
    let (schemas, values): (Vec<_>, Vec<_>) = (schemas.collect(), values.collect());
    format!(r#"{{"schema":{{"type":"struct","fields":[{}],"optional":false,"#, schemas.join(","))
        + &format!(r#""name":"g.public.outbox.Order.Value"}},"payload":{{{}}}}}"#, values.join(","))
}

#[test]
fn every_type_and_its_schema_are_those_of_json_converter() {
    let (row, nulls) = RECORDED.trim_end().split_once('\n').unwrap();
    assert_eq!(envelope(|kind, text| written(JSON, kind, text)), row);
    let null = envelope(|kind, text| {
        let mut out = Vec::new();
        let text = (text == r#"{"p": 1}"#).then_some(&br#"{"p": 2}"#[..]);
        kind.json(text, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    });
    assert_eq!(null, nulls);
}

#[test]
fn every_type_is_that_of_string_converter() {
    for (name, kind, text, expected) in columns() {
        assert_eq!(written(STRING, &kind, text), expected, "{name}");
        // Headers are the same but for what has parts or is bytes.
        match name {
            "c_numu" => check(HEADER, &kind, &[(text, r#"{"scale":1,"value":"Dw=="}"#)]),
            "c_tarr" => check(HEADER, &kind, &[(text, r#"["a","b c",null]"#)]),
            "c_iarr" => check(HEADER, &kind, &[(text, "[1,2,null]")]),
            "c_bytea" => check(HEADER, &kind, &[(text, "AP9B")]),
            "c_bit" => check(HEADER, &kind, &[(text, "BQ==")]),
            "c_point" => {
                let wkb = "AQEAAAAAAAAAAADwPwAAAAAAAARA";
                let point = format!(r#"{{"x":1.0,"y":2.5,"wkb":"{wkb}","srid":null}}"#);
                check(HEADER, &kind, &[(text, &point)]);
            }
            _ => check(HEADER, &kind, &[(text, expected)]),
        }
    }
}

#[test]
fn what_is_verbatim_is_copied() {
    let mut names = Vec::new();
    for (name, kind, text, _) in columns().iter().filter(|(_, kind, ..)| kind.is_verbatim()) {
        assert_eq!(written(STRING, kind, text), *text);
        assert_eq!(written(HEADER, kind, text), *text);
        names.push(name.strip_prefix("c_").unwrap());
    }
    let expected = "int2 int4 int8 num uuid enum jsonb json char text inet range xml mac oid";
    assert_eq!(names.join(" "), expected);
    assert!(numeric(10, 6).is_verbatim() && numeric(10, -3).is_verbatim());
    assert!(!numeric(10, 7).is_verbatim());
}

#[test]
fn schemas_of_keys_headers_and_values() {
    let uuid = r#"{"type":"string","optional":false,"name":"io.debezium.data.Uuid","version":1}"#;
    assert_eq!(plain(oid::UUID).schema(false, None), uuid);
    let json = r#"{"type":"string","optional":true,"name":"io.debezium.data.Json","version":1}"#;
    assert_eq!(plain(oid::JSONB).schema(true, None), json);
    assert_eq!(plain(1043).schema(false, None), r#"{"type":"string","optional":false}"#);
    assert_eq!(plain(oid::INTEGER).schema(true, None), r#"{"type":"int32","optional":true}"#);
    let field = r#"{"type":"boolean","optional":true,"field":"a\"b"}"#;
    assert_eq!(plain(oid::BOOLEAN).schema(true, Some("a\"b")), field);
    let moods = mood(16_501, 16_500).schema(true, None);
    assert!(moods.starts_with(r#"{"type":"array","items":{"type":"string","optional":false,"#));
    assert!(moods.contains(r#""parameters":{"allowed":"happy,sad"}},"optional":true}"#), "{moods}");
}

#[test]
fn strings_are_escaped_as_by_jackson() {
    for (text, expected) in [
        ("Schlüssel-ß", r#""Schlüssel-ß""#),
        ("🚀", r#""\uD83D\uDE80""#),
        ("a\"b\\c", r#""a\"b\\c""#),
        ("tab\there", r#""tab\there""#),
        (r#"{"n": 1}"#, r#""{\"n\": 1}""#),
        ("🚀👩\u{200D}🚀", "\"\\uD83D\\uDE80\\uD83D\\uDC69\u{200D}\\uD83D\\uDE80\""),
        ("\u{7F}\u{80}\u{2028}a/b漢字שלום", "\"\u{7F}\u{80}\u{2028}a/b漢字שלום\""),
        ("\0\u{1F}\u{8}\u{C}\r\n", r#""\u0000\u001F\b\f\r\n""#),
        ("", r#""""#),
    ] {
        let mut out = Vec::new();
        json_string(text.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
    let mut out = Vec::new();
    json_string(b"a\xFF\"\xF0\x9F\x9A", &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), "\"a\u{FFFD}\\\"\u{FFFD}\"");
}

#[test]
fn whole_numbers_and_booleans() {
    check_all(&plain(oid::INTEGER), &[("42", "42"), ("-1", "-1"), ("0", "0")]);
    check_all(&plain(oid::SMALLINT), &[("1", "1"), ("-7", "-7")]);
    let (most, least) = ("9007199254740993", "-9223372036854775808");
    check_all(&plain(oid::BIGINT), &[(most, most), (least, least)]);
    check_all(&plain(oid::OID), &[("4294967295", "4294967295")]);
    check_all(&plain(oid::BOOLEAN), &[("t", "true"), ("f", "false")]);
    assert_eq!(written(JSON, &plain(oid::INTEGER), "-1"), "-1");
    assert_eq!(written(JSON, &plain(oid::BOOLEAN), "f"), "false");
    for text in ["", "x", "1.0", "40000", "1}", " 1"] {
        let error = refused(JSON, &plain(oid::SMALLINT), text);
        assert_eq!(error, format!("the whole number {text} cannot be sent"));
    }
    assert_eq!(refused(STRING, &plain(oid::BOOLEAN), "x"), "the boolean x cannot be sent");
}

#[test]
fn floats_are_those_of_java() {
    check_all(
        &plain(oid::DOUBLE),
        &[
            ("1", "1.0"),
            ("0.1", "0.1"),
            ("1e+21", "1.0E21"),
            ("1e-07", "1.0E-7"),
            ("NaN", "NaN"),
            ("Infinity", "Infinity"),
            ("-Infinity", "-Infinity"),
            ("0", "0.0"),
            ("-0", "-0.0"),
            ("1.7976931348623157e+308", "1.7976931348623157E308"),
            ("5e-324", "4.9E-324"),
            ("1.5e-323", "1.5E-323"),
            ("2e-323", "2.0E-323"),
            ("5e-323", "4.9E-323"),
            ("1e-322", "9.9E-323"),
            ("123456.789", "123456.789"),
            ("-1234567.5", "-1234567.5"),
            ("10000000", "1.0E7"),
            ("12345678", "1.2345678E7"),
            ("9999999", "9999999.0"),
            ("120", "120.0"),
            ("0.001", "0.001"),
            ("0.0123", "0.0123"),
            ("0.0001", "1.0E-4"),
            ("9.007199254740992e+15", "9.007199254740992E15"),
        ],
    );
    check_all(
        &plain(oid::REAL),
        &[
            ("0.1", "0.1"),
            ("3.4028235e+38", "3.4028235E38"),
            ("1e-45", "1.4E-45"),
            ("3e-45", "2.8E-45"),
            ("1.1e-44", "1.1E-44"),
            ("16777216", "1.6777216E7"),
            ("NaN", "NaN"),
        ],
    );
    for (kind, text, expected) in [
        (plain(oid::DOUBLE), "NaN", "\"NaN\""),
        (plain(oid::DOUBLE), "-Infinity", "\"-Infinity\""),
        (plain(oid::REAL), "Infinity", "\"Infinity\""),
        (plain(oid::REAL), "1", "1.0"),
    ] {
        assert_eq!(written(JSON, &kind, text), expected);
    }
    for text in ["", "-", "inf", "nan", "+1", ".5", "1e", "1e999", "--1", "1 ", "infinity"] {
        refused(JSON, &plain(oid::DOUBLE), text);
        refused(STRING, &plain(oid::REAL), text);
    }
    refused(JSON, &plain(oid::REAL), "1e39");
}

#[test]
fn decimals_are_those_of_java() {
    let cents = numeric(10, 2);
    assert_eq!(cents, Kind::Decimal { precision: 10, scale: 2 });
    check(STRING, &cents, &[("10.00", "10.00"), ("10.50", "10.50"), ("-0.01", "-0.01")]);
    check(JSON, &cents, &[("10.00", "\"A+g=\""), ("10.50", "\"BBo=\""), ("-0.01", "\"/w==\"")]);
    // What another scale wrote is the same number.
    check(JSON, &cents, &[("10", "\"A+g=\""), ("10.5", "\"BBo=\""), ("-0.0100", "\"/w==\"")]);
    refused(JSON, &cents, "0.001");

    let thousands = numeric(5, -3);
    assert_eq!(thousands, Kind::Decimal { precision: 5, scale: -3 });
    check(STRING, &thousands, &[("12000", "12000"), ("0", "0")]);
    check(JSON, &thousands, &[("12000", "\"DA==\""), ("0", "\"AA==\""), ("-1000", "\"/w==\"")]);
    refused(JSON, &thousands, "12001");

    for (scale, text, expected) in [
        (8, "0.00000001", "1E-8"),
        (8, "0.00000000", "0E-8"),
        (8, "0.00000123", "0.00000123"),
        (8, "-0.00000012", "-1.2E-7"),
        (9, "0.000000120", "1.20E-7"),
        (7, "0.0000000", "0E-7"),
        (6, "0.000000", "0.000000"),
        (8, "12.50000000", "12.50000000"),
        (8, "NaN", "NaN"),
    ] {
        check(STRING, &numeric(20, scale), &[(text, expected)]);
        check(HEADER, &numeric(20, scale), &[(text, expected)]);
    }
    let error = refused(JSON, &cents, "NaN");
    assert!(error.starts_with("the number NaN cannot be sent: "), "{error}");
}

#[test]
fn decimals_of_any_length_are_bytes() {
    let nines = "9".repeat(1000);
    let bytes = written(JSON, &numeric(1000, 0), &nines);
    // 416 bytes, the last of them all ones.
    assert_eq!(bytes.len(), 2 + 416_usize.div_ceil(3) * 4);
    assert!(bytes.starts_with("\"A842x+d09rAV40pa"), "{bytes}");
    check(
        JSON,
        &numeric(1000, 0),
        &[
            ("0", "\"AA==\""),
            ("-1", "\"/w==\""),
            ("127", "\"fw==\""),
            ("128", "\"AIA=\""),
            ("-128", "\"gA==\""),
            ("-129", "\"/38=\""),
            ("255", "\"AP8=\""),
            ("256", "\"AQA=\""),
            ("32768", "\"AIAA\""),
            ("-32768", "\"gAA=\""),
            ("170141183460469231731687303715884105727", "\"f////////////////////w==\""),
            ("170141183460469231731687303715884105728", "\"AIAAAAAAAAAAAAAAAAAAAAA=\""),
            ("-170141183460469231731687303715884105728", "\"gAAAAAAAAAAAAAAAAAAAAA==\""),
            ("-170141183460469231731687303715884105729", "\"/3////////////////////8=\""),
            ("340282366920938463463374607431768211455", "\"AP////////////////////8=\""),
            ("340282366920938463463374607431768211456", "\"AQAAAAAAAAAAAAAAAAAAAAA=\""),
            ("-340282366920938463463374607431768211456", "\"/wAAAAAAAAAAAAAAAAAAAAA=\""),
            (
                "-12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                "\"lWFxXcNJw91wzlJtl0v2gOqSlV7iNNYOtFMwDmkxwPUu\"",
            ),
        ],
    );
    let power = format!("1{}.5", "0".repeat(49));
    // Without a scale, the least that holds it.
    check(
        JSON,
        &plain(oid::NUMERIC),
        &[
            ("10", r#"{"scale":0,"value":"Cg=="}"#),
            ("10.50", r#"{"scale":1,"value":"aQ=="}"#),
            ("100000000000000000000", r#"{"scale":0,"value":"BWvHXi1jEAAA"}"#),
            ("0.000", r#"{"scale":0,"value":"AA=="}"#),
            ("-0.001", r#"{"scale":3,"value":"/w=="}"#),
            (&power, r#"{"scale":1,"value":"RGw7FfmSZofSxAU0/bVkAAAAAAAF"}"#),
        ],
    );
    let longest = format!("-{}.{}", "9".repeat(131_072), "8".repeat(16_383));
    assert!(written(JSON, &plain(oid::NUMERIC), longest).starts_with(r#"{"scale":16383,"#));
    for text in ["", "-", ".5", "1.2.3", "1e5", "+1", "x", "1-"] {
        refused(JSON, &plain(oid::NUMERIC), text);
        refused(HEADER, &plain(oid::NUMERIC), text);
        refused(JSON, &numeric(10, 2), text);
    }
    check(STRING, &plain(oid::NUMERIC), &[("10.50", "10.50"), ("NaN", "NaN")]);
    refused(HEADER, &plain(oid::NUMERIC), "Infinity");
}

#[test]
fn short_and_long_decimals_have_the_same_bytes() {
    seeds(200, |mut random| {
        let count = 1 + random.index(38);
        let digits: String = (0..count).map(|_| char::from(b'0' + digit(&mut random))).collect();
        let value: i128 = digits.parse().unwrap();
        let sign = if random.below(2) == 0 { "-" } else { "" };
        let text = format!("{sign}{digits}");
        let short = written(JSON, &numeric(38, 0), &text);
        // The same number, written so that it is taken for a long one.
        let significant = value.to_string();
        let long = decimal::two_complement(significant.bytes(), significant.len(), sign == "-");
        let mut out = vec![b'"'];
        decimal::base64(&long, &mut out);
        out.push(b'"');
        assert_eq!(short, String::from_utf8(out).unwrap(), "{text}");
    });
}

fn digit(random: &mut Random) -> u8 {
    u8::try_from(random.below(10)).unwrap()
}

#[test]
fn money_is_read_in_the_locales_that_debezium_reads() {
    check(
        STRING,
        &plain(oid::MONEY),
        &[
            ("$12.34", "12.34"),
            ("-$12.00", "-12.00"),
            ("$1,234.50", "1234.50"),
            ("($12.00)", "-12.00"),
            ("$-0.05", "-0.05"),
            ("R$1.00", "1.00"),
            ("¥1,234", "1234.00"),
            ("1.5", "1.50"),
            ("-$92,233,720,368,547,758.08", "-92233720368547758.08"),
        ],
    );
    check(JSON, &plain(oid::MONEY), &[("$12.34", "\"BNI=\""), ("-$0.01", "\"/w==\"")]);
    for text in ["", "$", "12,34 €", "1.234,50 €", "12,34", "€ 1.234,50", "$1.234", "--1", "$1.x"]
    {
        let error = refused(STRING, &plain(oid::MONEY), text);
        assert!(error.starts_with(&format!("the money {text} cannot be sent: lc_monetary")));
    }
}

#[test]
fn bytes_and_bits() {
    let mut out = Vec::new();
    plain(oid::BYTEA).string(br"\x00010203fffe", &mut out).unwrap();
    assert_eq!(out, b"\x00\x01\x02\x03\xff\xfe");
    check(STRING, &plain(oid::BYTEA), &[(r"\x", ""), (r"\x7b2261223a317d", r#"{"a":1}"#)]);
    check(
        HEADER,
        &plain(oid::BYTEA),
        &[(r"\x00010203fffe", "AAECA//+"), (r"\x", ""), (r"\x20", "IA==")],
    );
    check(JSON, &plain(oid::BYTEA), &[(r"\x010203", "\"AQID\""), (r"\x", "\"\"")]);
    for text in ["", "x", r"\x0", r"\x0g", r"\000", "ab"] {
        refused(STRING, &plain(oid::BYTEA), text);
        refused(JSON, &plain(oid::BYTEA), text);
    }

    check(STRING, &of(oid::BIT, 3), &[("101", "101")]);
    check(
        JSON,
        &plain(oid::VARBIT),
        &[
            ("101", "\"BQ==\""),
            ("000", "\"\""),
            ("", "\"\""),
            ("100000001", "\"AQE=\""),
            ("0000000000000001", "\"AQ==\""),
        ],
    );
    assert_eq!(plain(oid::VARBIT), Kind::Bits { length: 2_147_483_647 });
    assert_eq!(of(oid::VARBIT, 1), Kind::Boolean);
    assert_eq!(plain(oid::BIT), Kind::Boolean);
    refused(JSON, &of(oid::BIT, 3), "12");
    refused(JSON, &of(oid::BIT, 1), "");
}

#[test]
fn points_in_time() {
    check_all(
        &plain(oid::TIMESTAMPTZ),
        &[
            ("2024-02-03 04:05:06+00", "2024-02-03T04:05:06.000000Z"),
            ("2024-02-03 04:05:06.1+00", "2024-02-03T04:05:06.100000Z"),
            ("2024-02-03 04:05:06.12+00", "2024-02-03T04:05:06.120000Z"),
            ("2024-02-03 04:05:06.123456+00", "2024-02-03T04:05:06.123456Z"),
            ("2024-02-03 04:05:00+00", "2024-02-03T04:05:00.000000Z"),
            ("2025-01-01 07:59:59.999999+00", "2025-01-01T07:59:59.999999Z"),
            ("2024-02-03 02:05:06.789+00", "2024-02-03T02:05:06.789000Z"),
            ("0044-03-15 00:00:00+00 BC", "-0043-03-15T00:00:00.000000Z"),
            ("0001-03-15 00:00:00+00 BC", "0000-03-15T00:00:00.000000Z"),
            ("4713-11-24 00:00:00+00 BC", "-4712-11-24T00:00:00.000000Z"),
            ("12024-01-01 00:00:00+00", "+12024-01-01T00:00:00.000000Z"),
            ("294276-12-31 23:59:59.999999+00", "+294276-12-31T23:59:59.999999Z"),
            ("infinity", "infinity"),
            ("-infinity", "-infinity"),
        ],
    );
    let (coarse, fine) = (of(oid::TIMESTAMPTZ, 0), of(oid::TIMESTAMPTZ, 3));
    check_all(&coarse, &[("2024-02-03 04:05:06+00", "2024-02-03T04:05:06Z")]);
    check_all(&fine, &[("2024-02-03 04:05:06.12+00", "2024-02-03T04:05:06.120Z")]);
    check_all(
        &plain(oid::TIMESTAMP),
        &[
            ("2024-02-03 04:05:06.789123", "1706933106789123"),
            ("1969-12-31 23:59:59.999999", "-1"),
            ("infinity", "9223372036825200000"),
            ("-infinity", "-9223372036832400000"),
        ],
    );
    check_all(
        &of(oid::TIMESTAMP, 0),
        &[
            ("2024-02-29 23:59:59", "1709251199000"),
            ("infinity", "9223372036825200"),
            ("-infinity", "-9223372036832400"),
            ("294276-12-31 23:59:59", "9224318015999000"),
        ],
    );
    // Microseconds do not reach the end of Postgres' times.
    let error = refused(JSON, &plain(oid::TIMESTAMP), "294276-12-31 23:59:59");
    assert_eq!(error, "the timestamp 294276-12-31 23:59:59 cannot be sent");
    check_all(
        &plain(oid::DATE),
        &[
            ("2024-02-03", "19756"),
            ("1969-12-31", "-1"),
            ("infinity", "-2147472692"),
            ("-infinity", "-2147472691"),
            ("5874897-12-31", "2145042905"),
            ("0001-01-01 BC", "-719528"),
        ],
    );
    let error = refused(JSON, &plain(oid::DATE), "99999999-01-01");
    assert_eq!(error, "the date 99999999-01-01 cannot be sent");
    for text in ["", "x", "2024-02", "2024-13-01 00:00:00", "2024-01-01 25:00:00", "Infinity"] {
        for oid in [oid::TIMESTAMPTZ, oid::TIMESTAMP] {
            refused(JSON, &plain(oid), text);
            refused(STRING, &of(oid, 3), text);
        }
    }
}

#[test]
fn times_of_the_day() {
    check_all(
        &plain(oid::TIMETZ),
        &[
            ("04:05:06+00", "04:05:06Z"),
            ("04:05:06.5-03:30", "07:35:06.5Z"),
            ("00:00:00+14", "10:00:00Z"),
            ("04:05:06.789+02", "02:05:06.789Z"),
            ("07:35:06.5-03:30", "11:05:06.5Z"),
            ("24:00:00+00", "00:00:00Z"),
            ("24:00:00+02", "22:00:00Z"),
            ("12:00:00.00012+05:30:20", "06:29:40.00012Z"),
        ],
    );
    check_all(
        &plain(oid::TIME),
        &[("04:05:06.789123", "14706789123"), ("24:00:00", "86400000000")],
    );
    check_all(&of(oid::TIME, 3), &[("04:05:06.789", "14706789"), ("24:00:00", "86400000")]);
    for text in ["", "04:05:06+", "04:05+02", "x+02", "04:05:06", "25:00:00+00", "04:05:06+1:2:3:4"]
    {
        let error = refused(JSON, &plain(oid::TIMETZ), text);
        assert_eq!(error, format!("the time {text} cannot be sent"));
    }
    refused(JSON, &plain(oid::TIME), "25:00:00");
}

#[test]
fn intervals_are_computed_in_floats() {
    check_all(
        &plain(oid::INTERVAL),
        &[
            ("1 day 02:03:04.5", "93784500000"),
            ("00:00:00", "0"),
            ("1 mon", "2629800000000"),
            ("1 year 2 mons -3 days +04:05:06.789", "36572706789000"),
            ("-04:05:06.789001", "-14706789001"),
            ("-1 mons -2 days +03:04:05.000001", "-2791554999999"),
            // The float of 4.1 seconds is a little less, and the rest is cut off.
            ("00:00:04.1", "4099999"),
            ("10675199 days 04:00:54.775807", "922337208054775808"),
            ("178000000 years", "9223372036854775807"),
        ],
    );
    for text in ["", "infinity", "1", "1 week", "1 day x", "1 day 1:2", "00:00:00 1 day", "day 1"] {
        let error = refused(JSON, &plain(oid::INTERVAL), text);
        assert_eq!(error, format!("the interval {text} cannot be sent"));
    }
}

#[test]
fn arrays_are_lists() {
    let texts = plain(1009);
    let text = r#"{a,"b c","d\"e",NULL}"#;
    check(STRING, &texts, &[(text, r#"[a, b c, d"e, null]"#), ("{}", "[]"), ("{a,b}", "[a, b]")]);
    check(JSON, &texts, &[(text, r#"["a","b c","d\"e",null]"#), ("{}", "[]")]);
    let odd = "{\"x\\\\y\",\"n\nl\",🚀ü,\"NULL\",\"\"}";
    check(STRING, &texts, &[(odd, "[x\\y, n\nl, 🚀ü, NULL, ]")]);
    check(HEADER, &texts, &[(odd, "[\"x\\\\y\",\"n\nl\",\"🚀ü\",\"NULL\",\"\"]")]);
    check(JSON, &texts, &[(odd, r#"["x\\y","n\nl","\uD83D\uDE80ü","NULL",""]"#)]);

    let numbers = plain(1007);
    let nested = "[0:1][1:2]={{1,2},{3,NULL}}";
    check(STRING, &numbers, &[(nested, "[[1, 2], [3, null]]")]);
    check(HEADER, &numbers, &[(nested, "[[1,2],[3,null]]")]);
    check(JSON, &numbers, &[(nested, "[[1,2],[3,null]]")]);

    for (oid, text, string, header, json) in [
        (1000, "{t,NULL}", "[true, null]", "[true,null]", "[true,null]"),
        (1022, "{NaN,1,NULL}", "[NaN, 1.0, null]", "[NaN,1.0,null]", r#"["NaN",1.0,null]"#),
        (1001, r#"{"\\x000102"}"#, r"[\x000102]", r#"["AAEC"]"#, r#"["AAEC"]"#),
        (1182, "{2024-02-03}", "[19756]", "[19756]", "[19756]"),
        (
            1231,
            "{1.50}",
            "[1.50]",
            r#"[{"scale":1,"value":"Dw=="}]"#,
            r#"[{"scale":1,"value":"Dw=="}]"#,
        ),
        (
            1185,
            r#"{"2024-02-03 04:05:06+00"}"#,
            "[2024-02-03T04:05:06.000000Z]",
            r#"["2024-02-03T04:05:06.000000Z"]"#,
            r#"["2024-02-03T04:05:06.000000Z"]"#,
        ),
    ] {
        assert_eq!(written(STRING, &plain(oid), text), string);
        assert_eq!(written(HEADER, &plain(oid), text), header);
        assert_eq!(written(JSON, &plain(oid), text), json);
    }
    let cents = of(1231, (10 << 16 | 2) + 4);
    check(HEADER, &cents, &[("{1.50}", "[1.50]")]);
    check(JSON, &cents, &[("{1.50}", r#"["AJY="]"#)]);
    check(JSON, &mood(16_501, 16_500), &[("{sad,NULL}", r#"["sad",null]"#)]);

    let deep = |depth| ["{".repeat(depth), "1".to_owned(), "}".repeat(depth)].concat();
    assert_eq!(written(JSON, &numbers, deep(6)), "[[[[[[1]]]]]]");
    for text in [
        "", "{", "}", "{1", "{1,}", "{,1}", "{1}}", "{1}{2}", "1", "{x}", "{1\"2\"}", "{\"1}", "[=",
    ] {
        assert_eq!(refused(JSON, &numbers, text), format!("the array {text} cannot be sent"));
    }
    refused(JSON, &numbers, deep(7));
}

#[test]
fn only_arrays_have_elements() {
    let text = Kind::Text { name: None };
    for (type_oid, element, array) in [
        (oid::NAME, 18, false),
        (oid::INT2VECTOR, oid::SMALLINT, false),
        (oid::OIDVECTOR, oid::OID, false),
        (oid::BOX, oid::POINT, false),
        (oid::LINE, oid::DOUBLE, false),
        (16_600, oid::BOX, false),
        (16_600, 0, false),
        (1020, 0, false),
        (16_600, 16_599, true),
        (1003, 0, true),
    ] {
        let kind = Kind::of(&Described { type_oid, modifier: -1, labels: &[], element });
        let expected = if array { Kind::Array(Box::new(text.clone())) } else { text.clone() };
        assert_eq!(kind, expected, "{type_oid}");
    }
    let point = Described { type_oid: oid::POINT, modifier: -1, labels: &[], element: oid::DOUBLE };
    assert_eq!(Kind::of(&point), Kind::Point);
}

#[test]
fn points_have_two_coordinates() {
    let kind = plain(oid::POINT);
    let json = written(JSON, &kind, "(NaN,-Infinity)");
    assert!(json.starts_with(r#"{"x":"NaN","y":"-Infinity","wkb":""#), "{json}");
    for text in ["", "()", "(1)", "1,2", "(1,)", "(1,2,3)", "(1,x)"] {
        assert_eq!(refused(JSON, &kind, text), format!("the point {text} cannot be sent"));
        refused(HEADER, &kind, text);
    }
}

#[test]
fn long_values_are_cut_in_errors() {
    let error = refused(JSON, &plain(oid::INTEGER), "x".repeat(1000));
    assert_eq!(error, format!("the whole number {}… cannot be sent", "x".repeat(60)));
}

#[test]
fn whatever_comes_is_json_or_an_error() {
    const ALPHABET: &[u8] = b"0123456789-+.:, {}\"\\()[]=xeNULtfinyday$\0\n\xC3\xBC\xF0\xFF";
    let columns = columns();
    let arrays = [1000, 1001, 1009, 1022, 1185, 1231, 1563, 1017, 1187].map(plain);
    let others = [plain(oid::VARBIT), numeric(30, 12), numeric(9, -3)];
    let kinds: Vec<_> = arrays.iter().chain(&others).map(|kind| (kind, "{1,NULL}")).collect();
    let of_columns = columns.iter().map(|(_, kind, text, _)| (kind, *text));
    let kinds: Vec<_> = kinds.into_iter().chain(of_columns).collect();
    seeds(300, |mut random| {
        for (kind, text) in &kinds {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..random.index(4) {
                let byte = ALPHABET[random.index(ALPHABET.len())];
                match random.below(4) {
                    0 => bytes.insert(random.index(bytes.len() + 1), byte),
                    1 if !bytes.is_empty() => drop(bytes.remove(random.index(bytes.len()))),
                    2 => bytes = (0..random.index(12)).map(|_| byte).collect(),
                    _ if !bytes.is_empty() => {
                        let index = random.index(bytes.len());
                        bytes[index] = byte;
                    }
                    _ => {}
                }
            }
            for write in [STRING, HEADER, JSON] {
                let mut out = Vec::new();
                let done = write(kind, &bytes, &mut out);
                assert!(done.is_ok() || out.is_empty());
            }
            let mut out = Vec::new();
            if kind.json(Some(&bytes), &mut out).is_ok() {
                let parsed = serde_json::from_slice::<serde_json::Value>(&out);
                assert!(parsed.is_ok(), "{kind:?} {:?}", String::from_utf8_lossy(&bytes));
            }
        }
    });
}
