//! JSON as Protobuf, by a message of a `.proto` file and the JSON mapping of Protobuf.

use std::collections::HashMap;

use prost_reflect::prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use serde_json::Deserializer;

use super::no_json;

/// What the file itself is called while it is compiled.
const OWN_NAME: &str = "schema.proto";

/// Which message of the file a value is: "the array of indexes" to it, in which `[0]`, its first
/// message, is written as a single zero (Confluent's "Wire format").
const FIRST_MESSAGE: u8 = 0;

/// The first message of a file.
#[derive(Debug)]
pub(super) struct Protobuf {
    message: MessageDescriptor,
}

impl Protobuf {
    pub(super) fn new(text: &str, references: &[(String, String)]) -> Result<Protobuf, String> {
        let mut files: HashMap<_, _> = references.iter().cloned().collect();
        files.insert(OWN_NAME.to_owned(), text.to_owned());
        let mut resolver = ChainFileResolver::new();
        resolver.add(Registered(files));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        compiler.open_file(OWN_NAME).map_err(|error| error.to_string())?;
        let pool = compiler.descriptor_pool();
        let file = pool.get_file_by_name(OWN_NAME);
        let message = file.and_then(|file| file.messages().next());
        message.map(|message| Protobuf { message }).ok_or_else(|| "it has no message".to_owned())
    }

    pub(super) fn write(&self, json: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let mut json = Deserializer::from_slice(json);
        // A member that would be left out is lost.
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        let message = self.message.clone();
        let message = DynamicMessage::deserialize_with_options(message, &mut json, &options);
        let message = message.map_err(|error| error.to_string())?;
        json.end().map_err(|error| no_json(&error))?;
        out.push(FIRST_MESSAGE);
        message.encode(out).map_err(|error| error.to_string())
    }
}

/// Files by their names.
struct Registered(HashMap<String, String>);

impl FileResolver for Registered {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(text) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}
