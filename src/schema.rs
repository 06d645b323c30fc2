//! A registered schema, ready to be written by.

mod avro;
mod protobuf;

use jsonschema::Validator;
use serde_json::Value;

use crate::config::Encoding;
use avro::Avro;
use protobuf::Protobuf;

/// The first byte of a value that names its schema.
const MAGIC: u8 = 0;

/// A schema as it was registered.
#[derive(Clone, Debug)]
pub struct Registered {
    /// Its number in the registry.
    pub id: u32,
    /// What kind of schema it is.
    pub encoding: Encoding,
    /// Its text.
    pub text: String,
    /// What it refers to, and what that refers to: each by the name that it is referred to by, the
    /// deepest first.
    pub references: Vec<(String, String)>,
}

/// A schema that values are written by.
#[derive(Debug)]
pub struct Schema {
    id: u32,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Avro(Avro),
    Protobuf(Protobuf),
    Json(Box<Validator>),
}

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn new(registered: &Registered) -> Result<Schema, String> {
        let Registered { id, encoding, text, references } = registered;
        let kind = match encoding {
            Encoding::Avro => Kind::Avro(Avro::new(text, references)?),
            Encoding::Protobuf => Kind::Protobuf(Protobuf::new(text, references)?),
            Encoding::JsonSchema => Kind::Json(Box::new(validator(text, references)?)),
        };
        Ok(Schema { id: *id, kind })
    }

    /// Its number in the registry.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What kind of schema it is.
    pub fn encoding(&self) -> Encoding {
        match self.kind {
            Kind::Avro(_) => Encoding::Avro,
            Kind::Protobuf(_) => Encoding::Protobuf,
            Kind::Json(_) => Encoding::JsonSchema,
        }
    }

    /// Appends the value that a JSON text stands for.
    ///
    /// # Errors
    /// Says why the schema does not allow it; what was appended is no value then.
    pub fn write(&self, json: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        out.push(MAGIC);
        out.extend_from_slice(&self.id.to_be_bytes());
        match &self.kind {
            Kind::Avro(avro) => avro.write(&read(json)?, json.len(), out),
            Kind::Protobuf(protobuf) => protobuf.write(json, out),
            Kind::Json(validator) => {
                validator.validate(&read(json)?).map_err(|error| {
                    // Without the value, which may be long.
                    let what = error.masked();
                    match error.instance_path().as_str() {
                        "" => what.to_string(),
                        path => format!("{path}: {what}"),
                    }
                })?;
                out.extend_from_slice(json);
                Ok(())
            }
        }
    }
}

fn read(json: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(json).map_err(|error| no_json(&error))
}

fn no_json(error: &serde_json::Error) -> String {
    format!("it is no JSON ({error})")
}

/// What is said of a subject that has a schema of another kind than its outbox.
pub(crate) fn other_kind(subject: &str, has: &str, wanted: Encoding) -> String {
    let wanted = wanted.name();
    format!(
        "subject {subject} has a schema of type {has}, and payload_format of its [[outbox]] asks \
         for {wanted}; change the one or the other"
    )
}

/// References are found where `$ref` names them; nothing is fetched from anywhere.
fn validator(text: &str, references: &[(String, String)]) -> Result<Validator, String> {
    let read = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| no_json(&error));
    let mut registry = jsonschema::Registry::new();
    for (name, text) in references {
        registry = registry.add(name, read(text)?).map_err(|error| format!("{name}: {error}"))?;
    }
    let registry = registry.prepare().map_err(|error| error.to_string())?;
    let options = jsonschema::options().with_registry(&registry).offline();
    options.build(&read(text)?).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
