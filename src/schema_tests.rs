use super::*;

#[test]
fn json_is_sent_as_it_is_if_it_is_valid() {
    let text = r#"{"type": "object", "properties": {"a": {"$ref": "defs.json#/$defs/small"}}}"#;
    let defs = r#"{"$defs": {"small": {"type": "integer", "maximum": 9}}}"#;
    let references = vec![("defs.json".to_owned(), defs.to_owned())];
    let encoding = Encoding::JsonSchema;
    let registered = Registered { id: 1, encoding, text: text.to_owned(), references };
    let schema = Schema::new(&registered).unwrap();
    let mut out = Vec::new();
    schema.write(br#"{ "a": 9}"#, &mut out).unwrap();
    assert_eq!(out, b"\0\0\0\0\x01{ \"a\": 9}");
    let why = schema.write(br#"{"a": 10}"#, &mut Vec::new()).unwrap_err();
    assert_eq!(why, "/a: value is greater than the maximum of 9");
    let why = schema.write(b"{", &mut Vec::new()).unwrap_err();
    assert!(why.starts_with("it is no JSON (EOF"), "{why}");
    let lacking = Registered { references: Vec::new(), ..registered };
    assert!(Schema::new(&lacking).unwrap_err().contains("defs.json"));
}

#[test]
fn protobuf_is_the_first_message_of_its_file_by_the_json_mapping() {
    let text = r#"
        syntax = "proto3";
        import "google/protobuf/timestamp.proto";
        import "more.proto";
        message First {
            int64 big = 1;
            google.protobuf.Timestamp at = 2;
            oneof what { string text = 3; more.Kind kind = 4; }
            map<string, bool> flags = 5;
            bytes raw = 6;
        }
        message Second {}"#;
    let more = r#"syntax = "proto3"; package more; enum Kind { NONE = 0; SOME = 1; }"#;
    let references = vec![("more.proto".to_owned(), more.to_owned())];
    let (encoding, text) = (Encoding::Protobuf, text.to_owned());
    let registered = Registered { id: 1, encoding, text, references };
    let schema = Schema::new(&registered).unwrap();
    let write = |json: &str| {
        let mut out = Vec::new();
        schema.write(json.as_bytes(), &mut out).map(|()| out[5..].to_vec())
    };
    for (json, bytes) in [
        ("{}", &[0][..]),
        (r#"{"big": "9007199254740993"}"#, b"\0\x08\x81\x80\x80\x80\x80\x80\x80\x10"),
        (r#"{"at": "1970-01-01T00:00:01.5Z"}"#, b"\0\x12\x08\x08\x01\x10\x80\xca\xb5\xee\x01"),
        (r#"{"kind": "SOME"}"#, b"\0\x20\x01"),
        (r#"{"flags": {"x": true}}"#, b"\0\x2a\x05\x0a\x01x\x10\x01"),
        (r#"{"raw": "AP8="}"#, b"\0\x32\x02\0\xff"),
    ] {
        assert_eq!(write(json).as_deref(), Ok(bytes), "{json}");
    }
    for (json, why) in [
        (r#"{"other": 1}"#, "other"),
        (r#"{"big": "x"}"#, "invalid digit"),
        (r#"{"text": "a", "kind": "SOME"}"#, "oneof"),
        ("{} {}", "trailing characters"),
        ("[]", "expected a map"),
    ] {
        let told = write(json).unwrap_err();
        assert!(told.contains(why), "{json}: {told}");
    }
    let lacking = Registered { references: Vec::new(), ..registered.clone() };
    assert!(Schema::new(&lacking).unwrap_err().contains("more.proto"));
    let empty = Registered { text: "syntax = \"proto3\";".to_owned(), ..registered };
    assert_eq!(Schema::new(&empty).unwrap_err(), "it has no message");
}
