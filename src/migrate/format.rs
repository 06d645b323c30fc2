//! What converters (Kafka Connect) and formats (Debezium Server) make of key, value and headers.

use super::options::{Debezium, Given};

const CONNECT: &str = "org.apache.kafka.connect.";

/// Of key, value and header at once, where nothing else is said of one.
pub(super) const FOR_ALL: &str = "debezium.format.schemas.enable";

/// The bytes that a column becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
    JsonWithSchema,
}

/// A form, and what is to be said of it.
#[derive(Clone, Debug)]
pub(super) struct Format {
    pub(super) form: Form,
    /// Whether it is said even if it is the default.
    pub(super) is_doubtful: bool,
    /// Whether the JSON of the payload is taken apart.
    pub(super) is_expanded: bool,
    pub(super) comments: Vec<String>,
}

impl Form {
    /// As `key_format` and its like spell it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Form::Text => "string",
            Form::Json => "json",
            Form::JsonWithSchema => "json_with_schema",
        }
    }
}

impl Format {
    fn new(form: Form) -> Format {
        Format { form, is_doubtful: false, is_expanded: false, comments: Vec::new() }
    }

    /// `string`, since nothing better is known.
    fn doubtful(comment: String) -> Format {
        Format { is_doubtful: true, comments: vec![comment], ..Format::new(Form::Text) }
    }

    /// Without schemas, if they are switched off.
    fn json(schemas: Option<&Given>) -> Format {
        let with_schemas = Debezium::flag(schemas, true);
        Format::new(if with_schemas { Form::JsonWithSchema } else { Form::Json })
    }
}

/// Of `part`: `key`, `value` or `header`.
pub(super) fn of(debezium: &mut Debezium, part: &str) -> Format {
    if debezium.is_server() { of_server(debezium, part) } else { of_connect(debezium, part) }
}

fn of_connect(debezium: &mut Debezium, part: &str) -> Format {
    let name = format!("{part}.converter");
    let schemas = debezium.options.take(&format!("{name}.schemas.enable"));
    let Some(given) = debezium.options.take(&name) else {
        return match part {
            "header" => Format::new(Form::Text),
            _ => Format::doubtful(format!(
                "The file has no {name}, so the worker's own decides. For StringConverter this \
                 is right; for JsonConverter it is \"json_with_schema\", or \"json\" if \
                 {name}.schemas.enable is false there."
            )),
        };
    };
    let class = given.text();
    match class.strip_prefix(CONNECT).unwrap_or(class) {
        "storage.StringConverter" | "storage.SimpleHeaderConverter" => Format::new(Form::Text),
        "json.JsonConverter" => Format::json(schemas.as_ref()),
        "converters.ByteArrayConverter"
        | "io.debezium.converters.BinaryDataConverter"
        | "io.debezium.converters.ByteArrayConverter"
        | "io.debezium.converters.ByteBufferConverter" => bytes(&name, class),
        _ => unsupported(&name, class),
    }
}

fn of_server(debezium: &mut Debezium, part: &str) -> Format {
    let name = format!("debezium.format.{part}");
    // The longer name counts; the shorter one is of all three parts.
    let schemas = debezium.options.take(&format!("{name}.schemas.enable"));
    let schemas = schemas.or_else(|| debezium.options.get(FOR_ALL).cloned());
    let Some(given) = debezium.options.take(&name) else { return Format::json(schemas.as_ref()) };
    let known: &[&str] = match part {
        "header" => &["json", "jsonbytearray", "connect", "clientprovided"],
        _ => &[
            "json",
            "jsonbytearray",
            "cloudevents",
            "avro",
            "protobuf",
            "binary",
            "simplestring",
            "connect",
            "clientprovided",
        ],
    };
    match given.value.as_str() {
        "json" | "jsonbytearray" => Format::json(schemas.as_ref()),
        "simplestring" if part != "header" => Format::new(Form::Text),
        "binary" if part != "header" => bytes(&name, "binary"),
        format if known.contains(&format) => unsupported(&name, format),
        format => {
            let what = format!("Debezium refuses {format:?}; it knows {}", known.join(", "));
            debezium.wrong(&given, &what);
            Format::new(Form::Text)
        }
    }
}

fn bytes(name: &str, what: &str) -> Format {
    let comment = format!(
        "{name} is {what}: the bytes of a bytea column go out as they are, here as well; any \
         other column goes out as text."
    );
    Format { comments: vec![comment], ..Format::new(Form::Text) }
}

fn unsupported(name: &str, what: &str) -> Format {
    let of_schemas = ["avro", "protobuf", "jsonschema"];
    if of_schemas.iter().any(|kind| what.to_lowercase().contains(kind)) {
        return Format::doubtful(format!(
            "{name} is {what}, by schemas that Debezium makes of the columns and registers. As it \
             stands here the column goes out as text, and consumers that expect another form \
             cannot read it. JSON payloads can be \"avro\", \"protobuf\" or \"json_schema\", by \
             schemas that you register: see [registry]."
        ));
    }
    Format::doubtful(format!(
        "{name} is {what}, which is not supported by this version: as it stands here the column \
         goes out as text, and consumers that expect another form cannot read it."
    ))
}
