//! JSON as Avro's binary encoding (Avro 1.12, "Binary Encoding").
//!
//! The JSON is what a service writes anyway, and not Avro's own JSON encoding: a value of a union
//! needs no name of its type around it (though it may have one), and times may be ISO 8601. What
//! the schema has no place for is an error, since a consumer would never see it.

mod read;

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, UuidSchema};
use serde_json::{Map, Value};

use crate::connect;

/// How deep a value may be, its defaults included: as deep as `serde_json` reads.
const DEPTH_MAX: usize = 128;

/// Values of unions are tried with each type in turn, and within each again. So many may be in vain
/// for a byte of JSON, and for a value without any: more is a schema that cannot tell its types
/// apart.
const VAIN_PER_BYTE: usize = 16;
const VAIN_AT_ALL: usize = 1000;

/// A schema with every name looked up.
#[derive(Debug)]
pub(super) struct Avro {
    nodes: Vec<Node>,
    root: usize,
}

/// A type; those that it is made of by their indexes.
#[derive(Debug)]
enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<String>),
    Array(usize),
    Map(usize),
    Union(Vec<Branch>),
    Record(Vec<Field>),
    /// Of so many digits, so many of them behind the point, in as many bytes as it needs or in so
    /// many.
    Decimal {
        precision: usize,
        scale: usize,
        size: Option<usize>,
    },
    /// Sixteen bytes.
    Uuid,
    /// Days since 1970-01-01.
    Date,
    /// Time of the day, in so many parts of a second.
    Time(Unit),
    /// Time since 1970-01-01.
    Timestamp(Unit),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Millis,
    Micros,
    Nanos,
}

/// A type of a union.
#[derive(Debug)]
struct Branch {
    name: String,
    node: usize,
}

#[derive(Debug)]
struct Field {
    name: String,
    node: usize,
    default: Option<Value>,
}

/// Why a value has no encoding, and where in it: the innermost member first.
struct Misfit {
    path: Vec<String>,
    reason: String,
}

impl Avro {
    pub(super) fn new(text: &str, references: &[(String, String)]) -> Result<Avro, String> {
        let references = references.iter().map(|(_, text)| text);
        let parsed = Schema::parse_str_with_list(text, references);
        let (schema, others) = parsed.map_err(|error| error.to_string())?;
        let mut names = Names { nodes: Vec::new(), known: HashMap::new(), others: &others };
        let root = names.node(&schema, 0)?;
        Ok(Avro { nodes: names.nodes, root })
    }

    /// Appends a value that came from so many bytes of JSON.
    pub(super) fn write(
        &self,
        value: &Value,
        bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let vain = bytes.saturating_mul(VAIN_PER_BYTE).saturating_add(VAIN_AT_ALL);
        let mut writer = Writer { nodes: &self.nodes, out, vain };
        writer.write(self.root, value, 0).map_err(|Misfit { path, reason }| {
            let path: Vec<_> = path.iter().rev().map(String::as_str).collect();
            if path.is_empty() { reason } else { format!("{}: {reason}", path.join(".")) }
        })
    }
}

/// Reads a schema.
struct Names<'a> {
    nodes: Vec<Node>,
    /// Where the types with a name are.
    known: HashMap<String, usize>,
    others: &'a [Schema],
}

impl Names<'_> {
    fn node(&mut self, schema: &Schema, depth: usize) -> Result<usize, String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is more than {DEPTH_MAX} types deep"));
        }
        let node = match schema {
            Schema::Ref { name } => return self.referred(name, depth),
            Schema::Record(record) => {
                // It may hold itself.
                let index = self.push(Some(&record.name), Node::Null);
                let mut fields = Vec::new();
                for field in &record.fields {
                    let node = self.node(&field.schema, depth + 1)?;
                    let (name, default) = (field.name.clone(), field.default.clone());
                    fields.push(Field { name, node, default });
                }
                if let Some(node) = self.nodes.get_mut(index) {
                    *node = Node::Record(fields);
                }
                return Ok(index);
            }
            Schema::Enum(it) => {
                return Ok(self.push(Some(&it.name), Node::Enum(it.symbols.clone())));
            }
            Schema::Fixed(it) | Schema::Duration(it) => {
                return Ok(self.push(Some(&it.name), Node::Fixed(it.size)));
            }
            Schema::Decimal(it) => {
                let (precision, scale) = (it.precision, it.scale);
                let (name, size) = match &it.inner {
                    InnerDecimalSchema::Bytes => (None, None),
                    InnerDecimalSchema::Fixed(fixed) => (Some(&fixed.name), Some(fixed.size)),
                };
                return Ok(self.push(name, Node::Decimal { precision, scale, size }));
            }
            Schema::Uuid(UuidSchema::Fixed(it)) => {
                return Ok(self.push(Some(&it.name), Node::Uuid));
            }
            Schema::Array(it) => Node::Array(self.node(&it.items, depth + 1)?),
            Schema::Map(it) => Node::Map(self.node(&it.types, depth + 1)?),
            Schema::Union(it) => {
                let mut branches = Vec::new();
                for variant in it.variants() {
                    let (name, node) = (name_of(variant), self.node(variant, depth + 1)?);
                    branches.push(Branch { name, node });
                }
                Node::Union(branches)
            }
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Boolean,
            Schema::Int => Node::Int,
            Schema::Long => Node::Long,
            Schema::Float => Node::Float,
            Schema::Double => Node::Double,
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Node::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Node::String,
            Schema::Date => Node::Date,
            Schema::TimeMillis => Node::Time(Unit::Millis),
            Schema::TimeMicros => Node::Time(Unit::Micros),
            Schema::TimestampMillis | Schema::LocalTimestampMillis => Node::Timestamp(Unit::Millis),
            Schema::TimestampMicros | Schema::LocalTimestampMicros => Node::Timestamp(Unit::Micros),
            Schema::TimestampNanos | Schema::LocalTimestampNanos => Node::Timestamp(Unit::Nanos),
        };
        Ok(self.push(None, node))
    }

    fn push(&mut self, name: Option<&Name>, node: Node) -> usize {
        let index = self.nodes.len();
        self.nodes.push(node);
        if let Some(name) = name {
            self.known.insert(name.fullname(None), index);
        }
        index
    }

    fn referred(&mut self, name: &Name, depth: usize) -> Result<usize, String> {
        let name = name.fullname(None);
        if let Some(known) = self.known.get(&name) {
            return Ok(*known);
        }
        let has_it = |schema: &&Schema| schema.name().is_some_and(|it| it.fullname(None) == name);
        let schema = self.others.iter().find(has_it);
        self.node(schema.ok_or_else(|| format!("there is no type {name}"))?, depth + 1)
    }
}

/// What Avro's JSON encoding calls a type of a union.
fn name_of(schema: &Schema) -> String {
    if let Some(name) = schema.name() {
        return name.fullname(None);
    }
    let name = match schema {
        Schema::Null => "null",
        Schema::Boolean => "boolean",
        Schema::Int | Schema::Date | Schema::TimeMillis => "int",
        Schema::Float => "float",
        Schema::Double => "double",
        Schema::Bytes | Schema::BigDecimal | Schema::Decimal(_) => "bytes",
        Schema::String | Schema::Uuid(_) => "string",
        Schema::Array(_) => "array",
        Schema::Map(_) => "map",
        _ => "long",
    };
    name.to_owned()
}

/// Appends the encoding of one value.
struct Writer<'a> {
    nodes: &'a [Node],
    out: &'a mut Vec<u8>,
    /// How many more types of unions may be tried in vain.
    vain: usize,
}

impl Writer<'_> {
    fn write(&mut self, node: usize, value: &Value, depth: usize) -> Result<(), Misfit> {
        if depth > DEPTH_MAX {
            return Err(misfit(format!("it is more than {DEPTH_MAX} values deep")));
        }
        let node = self.nodes.get(node).unwrap_or(&Node::Null);
        let no = || misfit(format!("expected {}, got {}", node.expects(), kind(value)));
        match node {
            Node::Array(items) => {
                let values = value.as_array().ok_or_else(no)?;
                self.block(values.len());
                for (index, value) in values.iter().enumerate() {
                    let written = self.write(*items, value, depth + 1);
                    written.map_err(|misfit| misfit.within(&index.to_string()))?;
                }
                self.end_of_blocks();
                Ok(())
            }
            Node::Map(values) => {
                let object = value.as_object().ok_or_else(no)?;
                self.block(object.len());
                for (name, value) in object {
                    self.bytes(name.as_bytes());
                    let written = self.write(*values, value, depth + 1);
                    written.map_err(|misfit| misfit.within(name))?;
                }
                self.end_of_blocks();
                Ok(())
            }
            Node::Record(fields) => self.record(fields, value.as_object().ok_or_else(no)?, depth),
            Node::Union(branches) => self.union(branches, value, depth),
            Node::Enum(symbols) => {
                let symbol = value.as_str().ok_or_else(no)?;
                let index = symbols.iter().position(|it| it == symbol);
                self.index(index.ok_or_else(|| misfit(format!("there is no symbol {symbol}")))?);
                Ok(())
            }
            single => self.single(single, value).ok_or_else(no),
        }
    }

    /// Appends a value that no others are in.
    fn single(&mut self, node: &Node, value: &Value) -> Option<()> {
        match node {
            Node::Null => value.as_null()?,
            Node::Boolean => self.out.push(u8::from(value.as_bool()?)),
            Node::Int | Node::Date | Node::Time(Unit::Millis) => {
                self.long(i32::try_from(read::number(node, value)?).ok()?.into());
            }
            Node::Long | Node::Time(_) | Node::Timestamp(_) => {
                self.long(read::number(node, value)?);
            }
            Node::Float => {
                #[expect(clippy::cast_possible_truncation, reason = "the schema has it so")]
                let number = read::float(value)? as f32;
                self.out.extend_from_slice(&number.to_le_bytes());
            }
            Node::Double => self.out.extend_from_slice(&read::float(value)?.to_le_bytes()),
            Node::String => self.bytes(value.as_str()?.as_bytes()),
            Node::Bytes => self.bytes(&read::bytes(value)?),
            Node::Fixed(size) => {
                let bytes = read::bytes(value).filter(|bytes| bytes.len() == *size)?;
                self.out.extend_from_slice(&bytes);
            }
            Node::Uuid => self.out.extend_from_slice(&read::uuid(value)?),
            Node::Decimal { precision, scale, size } => {
                let unscaled = connect::unscaled(&read::decimal(value)?, *precision, *scale)?;
                let Some(size) = size else {
                    self.bytes(&unscaled);
                    return Some(());
                };
                let more = size.checked_sub(unscaled.len())?;
                let negative = unscaled.first().is_some_and(|first| *first >= 0x80);
                self.out.extend(std::iter::repeat_n(if negative { 0xFF } else { 0 }, more));
                self.out.extend_from_slice(&unscaled);
            }
            _ => return None,
        }
        Some(())
    }

    fn record(
        &mut self,
        fields: &[Field],
        object: &Map<String, Value>,
        depth: usize,
    ) -> Result<(), Misfit> {
        let mut there = 0;
        for Field { name, node, default } in fields {
            let value = object.get(name);
            there += usize::from(value.is_some());
            let nothing = || self.is_nullable(*node).then_some(&Value::Null);
            let Some(value) = value.or(default.as_ref()).or_else(nothing) else {
                return Err(misfit(format!("there is no member {name}")));
            };
            self.write(*node, value, depth + 1).map_err(|misfit| misfit.within(name))?;
        }
        if there < object.len() {
            let known = |name: &&String| fields.iter().any(|field| field.name == **name);
            let unknown = object.keys().find(|name| !known(name));
            let unknown = unknown.map_or("", String::as_str);
            return Err(misfit(format!("the schema has no field {unknown}")));
        }
        Ok(())
    }

    fn is_nullable(&self, node: usize) -> bool {
        let is_null = |node: usize| matches!(self.nodes.get(node), Some(Node::Null));
        match self.nodes.get(node) {
            Some(Node::Union(branches)) => branches.iter().any(|branch| is_null(branch.node)),
            _ => is_null(node),
        }
    }

    /// The first type that the value is one of.
    fn union(&mut self, branches: &[Branch], value: &Value, depth: usize) -> Result<(), Misfit> {
        let start = self.out.len();
        let mut reason = None;
        for (index, branch) in branches.iter().enumerate() {
            // Most unions have `null`, and that is told from all others at once.
            if value.is_null() != matches!(self.nodes.get(branch.node), Some(Node::Null)) {
                continue;
            }
            self.index(index);
            let Err(misfit) = self.write(branch.node, value, depth + 1) else { return Ok(()) };
            self.out.truncate(start);
            self.give_up()?;
            // If there is but one that it could be, what is wrong with it says more.
            reason = reason.map_or(Some(Some(misfit)), |_| Some(None));
        }
        if let Some((name, value)) = named(value)
            && let Some(index) = branches.iter().position(|branch| branch.name == *name)
            && let Some(branch) = branches.get(index)
        {
            self.index(index);
            let written = self.write(branch.node, value, depth + 1);
            return written.map_err(|misfit| misfit.within(name));
        }
        Err(reason.flatten().unwrap_or_else(|| {
            let names: Vec<_> = branches.iter().map(|branch| branch.name.as_str()).collect();
            misfit(format!("{} is none of {}", kind(value), names.join(", ")))
        }))
    }

    fn give_up(&mut self) -> Result<(), Misfit> {
        let left = self.vain.checked_sub(1);
        self.vain = left.ok_or_else(|| misfit("the schema's unions are too much alike".into()))?;
        Ok(())
    }

    /// "`int` and `long` values are written using variable-length zig-zag coding."
    fn long(&mut self, number: i64) {
        #[expect(clippy::cast_sign_loss, reason = "this is what zig-zag is")]
        let mut rest = ((number << 1) ^ (number >> 63)) as u64;
        while rest >= 0x80 {
            self.out.push((rest & 0x7F) as u8 | 0x80);
            rest >>= 7;
        }
        self.out.push((rest & 0x7F) as u8);
    }

    fn index(&mut self, index: usize) {
        self.long(i64::try_from(index).unwrap_or(i64::MAX));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.index(bytes.len());
        self.out.extend_from_slice(bytes);
    }

    /// All items are one block; of none, there is no block, but the end of all blocks.
    fn block(&mut self, items: usize) {
        if items > 0 {
            self.index(items);
        }
    }

    fn end_of_blocks(&mut self) {
        self.out.push(0);
    }
}

/// The type and the value, if a value has its type around it, as Avro's JSON encoding has it.
fn named(value: &Value) -> Option<(&String, &Value)> {
    let mut members = value.as_object()?.iter();
    members.next().filter(|_| members.next().is_none())
}

fn misfit(reason: String) -> Misfit {
    Misfit { path: Vec::new(), reason }
}

impl Misfit {
    fn within(mut self, name: &str) -> Misfit {
        self.path.push(name.to_owned());
        self
    }
}

impl Node {
    /// What JSON it is made of, for messages.
    fn expects(&self) -> String {
        let what = match self {
            Node::Null => "null",
            Node::Boolean => "true or false",
            Node::Int => "a whole number of 32 bits",
            Node::Long => "a whole number of 64 bits",
            Node::Float | Node::Double => "a number",
            Node::Bytes => "a text of the characters U+0000 to U+00FF, each of them a byte",
            Node::String => "a text",
            Node::Fixed(size) => {
                return format!(
                    "a text of {size} characters U+0000 to U+00FF, each of them a byte"
                );
            }
            Node::Enum(_) => "the text of a symbol",
            Node::Array(_) => "an array",
            Node::Map(_) | Node::Record(_) => "an object",
            Node::Union(_) => "a value of the union",
            Node::Decimal { precision, scale, .. } => {
                return format!(
                    "a number of at most {precision} digits, {scale} of them behind the point, or \
                     a text of one, which alone is exact beyond 15 digits"
                );
            }
            Node::Uuid => "a UUID",
            Node::Date => "a date like \"2026-02-03\", or days since 1970",
            Node::Time(_) => "a time like \"04:05:06.789\", or a number",
            Node::Timestamp(_) => "a time like \"2026-02-03T04:05:06.789Z\", or a number",
        };
        what.to_owned()
    }
}

/// What a value is, for messages: without the value, which may be long, or a secret.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[path = "avro_tests.rs"]
mod tests;
