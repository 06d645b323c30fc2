//! Walks the merged tree: takes every key the program knows, and collects every mistake.

use std::collections::BTreeMap;
use std::fmt;

use config::{Map, Value, ValueKind};

use super::layers::{Layer, PREFIX};
use super::value::describe_kind;

/// Below this likeness (0 to 1) a suggestion would confuse more than it helps.
const LIKENESS_MIN: f64 = 0.8;

/// Everything that is wrong with a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The full name of the key, or a place in the file.
    pub path: String,
    /// What is wrong and, where it can be known, what would be right. Holds no secret.
    pub message: String,
    /// The line of the file or the environment variable that the value came from.
    pub origin: Option<String>,
}

impl Mistakes {
    /// In the order of the keys in the documentation.
    pub fn iter(&self) -> std::slice::Iter<'_, Mistake> {
        self.0.iter()
    }
}

impl Mistake {
    pub(super) fn new(
        path: impl Into<String>,
        message: impl Into<String>,
        origin: Option<&str>,
    ) -> Mistake {
        Mistake { path: path.into(), message: message.into(), origin: origin.map(str::to_owned) }
    }
}

/// One mistake a line.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.iter().map(Mistake::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)?;
        match &self.origin {
            Some(origin) => write!(f, " ({origin})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Mistakes {}

impl<'a> IntoIterator for &'a Mistakes {
    type Item = &'a Mistake;
    type IntoIter = std::slice::Iter<'a, Mistake>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// There must be one at least.
impl From<Vec<Mistake>> for Mistakes {
    fn from(list: Vec<Mistake>) -> Mistakes {
        assert!(!list.is_empty(), "what could not be read is a mistake");
        Mistakes(list)
    }
}

/// What has been seen on the walk so far.
#[derive(Debug, Default)]
pub(super) struct Walk {
    mistakes: Vec<Mistake>,
    /// Every key that was asked for, to suggest one in place of an unknown key.
    known: Vec<Key>,
    unknown: Vec<(Key, Option<String>)>,
}

/// A key: the path of its table and its own name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    table: String,
    name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.table, &self.name))
    }
}

/// The path of a key as TOML writes it.
fn join(table: &str, name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let quoted = name.is_empty() || !name.chars().all(bare);
    let name = if quoted { format!("{name:?}") } else { name.to_owned() };
    if table.is_empty() { name } else { format!("{table}.{name}") }
}

impl Walk {
    /// The mistakes in the order of the walk, the unknown keys last.
    pub(super) fn end(self) -> Vec<Mistake> {
        let Walk { mut mistakes, known, unknown } = self;
        for (key, origin) in unknown {
            let message = match suggestion(&key, &known) {
                Some(meant) => format!("unknown key; did you mean {meant}?"),
                None => "unknown key".to_owned(),
            };
            mistakes.push(Mistake::new(key.to_string(), message, origin.as_deref()));
        }
        mistakes
    }
}

/// The known key that is most like an unknown one; at a draw, one of the same table.
fn suggestion(unknown: &Key, known: &[Key]) -> Option<String> {
    let likeness = |key: &Key| strsim::jaro_winkler(&unknown.name, &key.name);
    let here = |key: &Key| key.table == unknown.table;
    // Backwards, because `max_by` gives the last of equals: outbox[0] is the better example.
    let best = known
        .iter()
        .rev()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)).then(here(a).cmp(&here(b))))?;
    let text = if here(best) { format!("{:?}", best.name) } else { best.to_string() };
    (likeness(best) >= LIKENESS_MIN).then_some(text)
}

/// Reads one table: takes the keys it is asked for, and calls what is left unknown.
///
/// Every method gives `None` for what is wrong, after noting the mistake, so that the walk goes on
/// to the next key.
pub(super) struct Reader<'w> {
    path: String,
    table: Map<String, Value>,
    walk: &'w mut Walk,
}

impl<'w> Reader<'w> {
    /// The outermost table.
    pub(super) fn root(table: Map<String, Value>, walk: &'w mut Walk) -> Reader<'w> {
        Reader { path: String::new(), table, walk }
    }

    /// Takes a key and makes of its value what the program uses.
    pub(super) fn read<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let path = join(&self.path, name);
        let Some(value) = self.take(name) else {
            let variable = path.replace(['.', '['], "__").replace(']', "").to_uppercase();
            let variable = format!("{PREFIX}{variable}");
            let message = format!("required; give it in the file or as {variable}");
            self.walk.mistakes.push(Mistake::new(path, message, None));
            return None;
        };
        self.checked(path, &value, parse)
    }

    /// Takes a table of free names, in the order in which it gives them, each with what is made of
    /// its name and value.
    pub(super) fn pairs<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str, &Value) -> Result<T, String>,
    ) -> Option<Vec<(String, T)>> {
        let path = join(&self.path, name);
        let table = self.read(name, table)?;
        let read = table.into_iter().map(|(name, value)| {
            let read = self.checked(join(&path, &name), &value, |value| parse(&name, value));
            Some((name, read?))
        });
        all(read)
    }

    /// Takes a table with keys of its own.
    pub(super) fn section<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Reader<'_>) -> Option<T>,
    ) -> Option<T> {
        let path = join(&self.path, name);
        let table = self.read(name, table)?;
        read(Reader { path, table, walk: self.walk })
    }

    /// Takes a list of tables; `key` is the first one of an entry. With `or_one`, no entry at all
    /// is one that gives nothing.
    pub(super) fn sections<T>(
        &mut self,
        name: &str,
        key: &str,
        or_one: bool,
        mut read: impl FnMut(usize, Reader<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut list = self.read(name, |value| list_of_tables(name, key, value))?;
        if list.is_empty() && or_one {
            list.push(Value::from(Map::<String, Value>::new()));
        }
        let read = list.into_iter().enumerate().map(|(index, entry)| {
            let path = format!("{}[{index}]", join(&self.path, name));
            let table = self.checked(path.clone(), &entry, table)?;
            read(index, Reader { path, table, walk: self.walk })
        });
        all(read)
    }

    /// Whether this key holds something that is more than an empty list.
    pub(super) fn has_entries(&self, name: &str) -> bool {
        self.table.get(name).is_some_and(|value| match &value.kind {
            ValueKind::Array(list) => !list.is_empty(),
            _ => true,
        })
    }

    /// Takes from `defaults` what the table does not give.
    pub(super) fn lay_under(&mut self, defaults: &Layer) {
        for (name, value) in defaults.values() {
            // Without origin: its line in the defaults would tell nobody anything.
            let default = || Value::new(None, value.kind.clone());
            self.table.entry(name.clone()).or_insert_with(default);
        }
    }

    /// Leaves a key out. Returns whether it was given.
    pub(super) fn drop(&mut self, name: &str) -> bool {
        self.table.swap_remove(name).is_some()
    }

    /// Notes a mistake that only shows in several keys together, under the name of one of them.
    pub(super) fn mistake(&mut self, name: &str, message: impl Into<String>) {
        self.walk.mistakes.push(Mistake::new(join(&self.path, name), message, None));
    }

    /// Calls every key unknown that was not taken.
    pub(super) fn finish(self) {
        let left: BTreeMap<String, Value> = self.table.into_iter().collect();
        for (name, value) in left {
            let key = Key { table: self.path.clone(), name };
            self.walk.unknown.push((key, value.origin().map(str::to_owned)));
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.walk.known.push(Key { table: self.path.clone(), name: name.to_owned() });
        self.table.swap_remove(name)
    }

    fn checked<T>(
        &mut self,
        path: String,
        value: &Value,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let note = |message| self.walk.mistakes.push(Mistake::new(path, message, value.origin()));
        parse(value).map_err(note).ok()
    }
}

/// Collects what could be read, but only after all of it has been tried: collecting into an
/// `Option` directly would stop at the first mistake.
fn all<T, C: FromIterator<T>>(read: impl Iterator<Item = Option<T>>) -> Option<C> {
    read.collect::<Vec<_>>().into_iter().collect()
}

fn table(value: &Value) -> Result<Map<String, Value>, String> {
    match &value.kind {
        ValueKind::Table(table) => Ok(table.clone()),
        _ => Err(format!("expected a table, got {}", describe_kind(value))),
    }
}

fn list_of_tables(name: &str, key: &str, value: &Value) -> Result<Vec<Value>, String> {
    match &value.kind {
        ValueKind::Array(list) => Ok(list.clone()),
        _ => Err(format!(
            "expected a list of tables ([[{name}]], or {PREFIX}{}__0__{} and so on), got {}",
            name.to_uppercase(),
            key.to_uppercase(),
            describe_kind(value)
        )),
    }
}
