use std::sync::Arc;

use super::*;
use crate::lsn::Lsn;
use crate::pg::output::Tuple;
use crate::record::{Headers, Origin, Row, Timestamp};
use crate::schema::Registered;

const LONG: &str = r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]}"#;
const TEXT: &str =
    r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}]}"#;

fn schema(id: u32, encoding: Encoding, text: &str) -> Arc<Schema> {
    let (text, references) = (text.to_owned(), Vec::new());
    Arc::new(Schema::new(&Registered { id, encoding, text, references }).unwrap())
}

/// Encodes a payload of the row with this number, for topic `t`.
fn encode(encoder: &mut Encoder, payload: &str, row: u32) -> Result<Vec<u8>, Unencoded> {
    encode_as(encoder, payload, row, None, Encoding::Avro)
}

fn encode_as(
    encoder: &mut Encoder,
    payload: &str,
    row: u32,
    subject: Option<&str>,
    encoding: Encoding,
) -> Result<Vec<u8>, Unencoded> {
    let how = Encoded { encoding, subject };
    let record = Record {
        origin: &Origin::Messages("m".into()),
        topic: "t",
        key: None,
        payload: Some(payload.as_bytes()),
        encoded: Some(how),
        headers: Headers {
            fields: &[],
            row: Row { tuple: Tuple::of(&[0, 0]).unwrap(), bytes: &[], made: &[] },
        },
        partition: None,
        timestamp: Timestamp::Committed(0),
        id: None,
        again: false,
    };
    let position = Position { epoch: 0, commit: Lsn::from_wire(1), row };
    encoder.encode(&record, how, position).map(<[u8]>::to_vec)
}

fn answer(encoder: &mut Encoder, number: u64, schema: Result<Arc<Schema>, &str>) {
    let schema = schema.map_err(str::to_owned);
    encoder.answered(Answer { subject: "t-value".into(), number, schema });
}

#[test]
fn a_record_waits_for_its_schema_which_is_asked_for_once() {
    let mut encoder = Encoder::default();
    for _ in 0..3 {
        assert_eq!(encode(&mut encoder, r#"{"a": 1}"#, 0), Err(Unencoded::Waits));
    }
    let subject = "t-value".to_owned();
    let question = Question { subject, encoding: Encoding::Avro, number: 1 };
    assert_eq!(encoder.take_questions(), [question]);
    assert_eq!(encoder.trouble(), None, "an answer is under way");
    answer(&mut encoder, 1, Err("away"));
    assert_eq!(encode(&mut encoder, r#"{"a": 1}"#, 0), Err(Unencoded::Waits));
    assert_eq!(encoder.trouble(), Some("away"));
    answer(&mut encoder, 1, Ok(schema(258, Encoding::Avro, LONG)));
    assert_eq!(encode(&mut encoder, r#"{"a": 1}"#, 0).unwrap(), [0, 0, 0, 1, 2, 2]);
    assert_eq!(encoder.trouble(), None);
    assert_eq!(encoder.take_questions(), []);
}

#[test]
fn a_payload_is_at_fault_only_if_it_does_not_fit_the_schema_of_after_it() {
    let mut encoder = Encoder::default();
    let long = || Ok(schema(1, Encoding::Avro, LONG));
    let (old, new) = (r#"{"a": 1}"#, r#"{"a": "x"}"#);
    let _ = encode(&mut encoder, old, 0);
    answer(&mut encoder, 1, long());
    encode(&mut encoder, old, 0).unwrap();
    encoder.take_questions();

    assert_eq!(encode(&mut encoder, new, 1), Err(Unencoded::Waits));
    assert_eq!(encoder.take_questions().len(), 1);
    // It was looked for before the row came, so that it proves nothing.
    answer(&mut encoder, 1, long());
    assert_eq!(encode(&mut encoder, new, 1), Err(Unencoded::Waits));
    answer(&mut encoder, 2, Err("away"));
    assert_eq!(encode(&mut encoder, new, 1), Err(Unencoded::Waits), "an outage is no verdict");
    assert_eq!(encoder.trouble(), Some("away"));
    assert_eq!(encoder.take_questions(), [], "whoever asks goes on asking");
    answer(&mut encoder, 2, Ok(schema(2, Encoding::Avro, TEXT)));
    assert_eq!(encode(&mut encoder, new, 1).unwrap(), [0, 0, 0, 0, 2, 2, b'x']);

    assert_eq!(encode(&mut encoder, old, 2), Err(Unencoded::Waits));
    answer(&mut encoder, 3, Ok(schema(2, Encoding::Avro, TEXT)));
    let why = "its payload does not fit schema 2 of subject t-value: a: expected a text, got a \
               number";
    for _ in 0..2 {
        let refused = Err(Unencoded::Unfit(why.to_owned()));
        assert_eq!(encode(&mut encoder, old, 2), refused);
    }
    encoder.take_questions();
    assert_eq!(
        encode(&mut encoder, old, 3),
        Err(Unencoded::Waits),
        "another row, another question"
    );
    assert_eq!(encoder.take_questions().len(), 1);
}

#[test]
fn what_is_known_stays_good_while_nobody_answers() {
    let mut encoder = Encoder::default();
    let _ = encode(&mut encoder, "1", 0);
    answer(&mut encoder, 1, Ok(schema(1, Encoding::Avro, LONG)));
    answer(&mut encoder, 1, Err("away"));
    assert!(encode(&mut encoder, r#"{"a": 1}"#, 0).is_ok());
    assert_eq!(encoder.trouble(), None);
}

#[test]
fn a_subject_has_schemas_of_one_kind() {
    let mut encoder = Encoder::default();
    let _ = encode(&mut encoder, "{}", 0);
    answer(&mut encoder, 1, Ok(schema(1, Encoding::Avro, LONG)));
    let subject = Some("t-value");
    let refused = encode_as(&mut encoder, "{}", 0, subject, Encoding::JsonSchema);
    assert_eq!(refused, Err(Unencoded::Waits));
    let trouble = encoder.trouble().unwrap();
    assert!(trouble.contains("subject t-value has a schema of type AVRO"), "{trouble}");
    encoder.forget_waiting();
    assert_eq!(encoder.trouble(), None);
}
