//! The layers a configuration is put together from: each becomes one tree, whose values remember
//! the line or the variable they came from.

use std::borrow::Cow;
use std::collections::BTreeMap;

use config::{ConfigError, Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::Mistake;

/// What a variable must start with to be ours.
pub(super) const PREFIX: &str = "WALRELAY__";

/// An index from the environment may open a new `[[outbox]]`; without a bound, a slip of the
/// finger would open a billion of them.
const INDEX_MAX: usize = 999;

/// Lays the environment over the file over the defaults.
pub(super) fn merge(
    defaults: Layer,
    file: Layer,
    env: &BTreeMap<String, String>,
) -> Result<Map<String, Value>, ConfigError> {
    let mut layers = vec![defaults, file];
    // Backwards, so that `WALRELAY__KAFKA` comes after `WALRELAY__KAFKA__BROKERS` and is seen to
    // be a mistake, not silently replaced.
    for (name, value) in env.iter().rev() {
        if let Some(path) = name.strip_prefix(PREFIX) {
            layers.push(Layer::of_variable(name, path, value));
        }
    }
    // Not through `Config::builder`, which would read top-level keys as path expressions: the key
    // "outbox[4000000000]" would allocate that many.
    layers.collect()
}

/// One source of values.
///
/// The crate's own source for the environment reads names as path expressions, too: no librdkafka
/// property could be set, because they have dots in their names. This one merges plain trees.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer(Map<String, Value>);

impl Layer {
    /// A whole TOML document.
    pub(super) fn of_toml(file: File<'_>) -> Result<Layer, Vec<Mistake>> {
        let (document, mut errors) = DeTable::parse_recoverable(file.text);
        if errors.is_empty() {
            return Ok(Layer(file.table(document.into_inner())));
        }
        let at = |error: &toml::de::Error| error.span().map_or(file.text.len(), |span| span.start);
        errors.sort_by_key(at);
        // The parser's own rendering quotes the line, and the line may hold a password.
        let mistake = |error: &toml::de::Error| {
            let (line, column) = line_and_column(file.text, at(error));
            let place = format!("{}:{line}:{column}", file.name);
            Mistake::new(place, error.message(), None)
        };
        Err(errors.iter().map(mistake).collect())
    }

    /// The values themselves, by their names.
    pub(super) fn values(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }

    /// The names alone.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// One variable; `path` is its name without the prefix.
    ///
    /// Environment names are upper case and have no dots. So every part is taken as lower case,
    /// and in the name of a librdkafka property, which has dots and no underscores, each
    /// underscore becomes a dot.
    fn of_variable(name: &str, path: &str, value: &str) -> Layer {
        let path = path.to_lowercase();
        let mut parts: Vec<String> = path.split("__").map(str::to_owned).collect();
        if let [kafka, properties, property @ ..] = parts.as_slice()
            && (kafka.as_str(), properties.as_str()) == ("kafka", "properties")
            && !property.is_empty()
        {
            let property = property.join(".").replace('_', ".");
            parts = vec![kafka.clone(), properties.clone(), property];
        }
        let origin = Some(name.to_owned());
        let leaf = Value::new(origin.as_ref(), value);
        let tree = parts
            .into_iter()
            .rev()
            .fold(leaf, |inner, part| Value::new(origin.as_ref(), Map::from_iter([(part, inner)])));
        match tree.kind {
            ValueKind::Table(table) => Layer(table),
            _ => Layer::default(),
        }
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }

    fn collect_to(&self, tree: &mut Value) -> Result<(), ConfigError> {
        lay_over(tree, Value::new(None, self.0.clone()));
        Ok(())
    }
}

/// Tables merge key by key, a table of indexes goes into the elements of a list, and everything
/// else replaces what was there.
fn lay_over(under: &mut Value, over: Value) {
    match (&mut under.kind, &over.kind) {
        (ValueKind::Table(under), ValueKind::Table(over)) => {
            for (key, value) in over {
                lay_over(under.entry(key.clone()).or_default(), value.clone());
            }
        }
        (ValueKind::Array(list), ValueKind::Table(over))
            if over.keys().all(|key| is_index(key)) =>
        {
            for (key, value) in over {
                let index = key.parse().unwrap_or(INDEX_MAX);
                if list.len() <= index {
                    list.resize(index + 1, Value::default());
                }
                if let Some(element) = list.get_mut(index) {
                    lay_over(element, value.clone());
                }
            }
        }
        _ => *under = over,
    }
}

fn is_index(key: &str) -> bool {
    key.parse::<usize>().is_ok_and(|index| index <= INDEX_MAX)
}

/// A TOML document, and how mistakes call it.
#[derive(Clone, Copy)]
pub(super) struct File<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

/// Turns the parsed document into a tree whose values know their line.
impl File<'_> {
    fn table(&self, table: DeTable<'_>) -> Map<String, Value> {
        let pair = |(key, value): (Spanned<Cow<'_, str>>, Spanned<DeValue<'_>>)| {
            (key.into_inner().into_owned(), self.value(value))
        };
        table.into_iter().map(pair).collect()
    }

    fn value(&self, value: Spanned<DeValue<'_>>) -> Value {
        let (line, _) = line_and_column(self.text, value.span().start);
        let origin = format!("{}:{line}", self.name);
        let kind = match value.into_inner() {
            DeValue::String(text) => ValueKind::String(text.into_owned()),
            DeValue::Boolean(flag) => ValueKind::Boolean(flag),
            // What does not fit stays text: the key that wanted a number then says its bounds.
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
                .map_or_else(|_| ValueKind::String(digits.to_string()), ValueKind::I64),
            DeValue::Float(digits) => digits
                .as_str()
                .parse()
                .map_or_else(|_| ValueKind::String(digits.to_string()), ValueKind::Float),
            DeValue::Datetime(datetime) => ValueKind::String(datetime.to_string()),
            DeValue::Array(list) => {
                ValueKind::Array(list.into_iter().map(|value| self.value(value)).collect())
            }
            DeValue::Table(table) => ValueKind::Table(self.table(table)),
        };
        Value::new(Some(&origin), kind)
    }
}

/// Both counted from 1, the column in characters.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    (line, column)
}
