//! `[[message]]`: its keys, their defaults and their rules. They are those of an `[[outbox]]`,
//! without what is about a table.

use std::collections::BTreeMap;

use super::super::layers::{File, Layer};
use super::super::message::{Content, Message, Prefix};
use super::super::outbox::Outbox;
use super::super::reader::{Mistake, Reader};
use super::super::value::{Words, text, word};
use super::outbox;
use crate::pg::setup::Mapped;
use crate::pg::table::TableName;
use crate::template::{CONTENT, PREFIX, REST, Subject};

/// What an entry does not give, and an `[[outbox]]` has no default for.
const DEFAULTS: &str = r#"content = "json""#;

/// The same where the content has no members.
const RAW_DEFAULTS: &str = r#"
id = ""
key = ""
payload = "$content"
topic = "{$prefix}"
headers = {}
"#;

/// Keys of an `[[outbox]]` that say nothing of a message, and what they are for all of them. What
/// more than the payload a value is to hold, whoever emits the message puts into it.
const FIXED: &str = r#"
table = "message"
envelope = {}
schema_name = ""
schema_version = ""
cloudevents = ""
cloudevents_attributes = {}
missing_columns = "error"
on_update = "ignore"
on_oversize = "poison"
"#;

pub(in super::super) const CONTENTS: &Words<Content> =
    &[("json", Some(Content::Json)), ("raw", Some(Content::Raw))];

/// What entries do not give.
pub(super) struct Defaults {
    all: Layer,
    raw: Layer,
    fixed: Layer,
    outbox: Layer,
}

impl Defaults {
    pub(super) fn new() -> Result<Defaults, Vec<Mistake>> {
        let layer = |text| Layer::of_toml(File { name: "defaults", text });
        Ok(Defaults {
            all: layer(DEFAULTS)?,
            raw: layer(RAW_DEFAULTS)?,
            fixed: layer(FIXED)?,
            outbox: layer(outbox::DEFAULTS)?,
        })
    }
}

/// Reads one entry. `prefixes` are those of the entries before it.
pub(super) fn read(
    index: usize,
    mut section: Reader<'_>,
    defaults: &Defaults,
    position_header: Option<&str>,
    prefixes: &mut BTreeMap<String, usize>,
) -> Option<Message> {
    section.lay_under(&defaults.all);
    let prefix = section.read("prefix", |value| {
        let prefix = Prefix::parse(text(value)?)?;
        let first = *prefixes.entry(prefix.to_string()).or_insert(index);
        if first == index {
            Ok(prefix)
        } else {
            Err(format!("message[{first}] has {prefix} already"))
        }
    });
    let content = section.read("content", word(CONTENTS));
    for name in defaults.fixed.names() {
        if section.drop(name) {
            section.mistake(name, "a [[message]] has no such key");
        }
    }
    if content == Some(Content::Raw) {
        section.lay_under(&defaults.raw);
    }
    section.lay_under(&defaults.fixed);
    section.lay_under(&defaults.outbox);
    let (tables, subject) = (&mut BTreeMap::new(), Subject::Message);
    let mapping = outbox::read(index, &mut section, position_header, tables, subject);
    if let (Some(Content::Raw), Some(mapping)) = (content, &mapping) {
        let Mapped { columns, optional, .. } = mapping.mapped();
        for (key, column) in columns.into_iter().chain(optional) {
            if ![PREFIX, REST, CONTENT].contains(&column.as_str()) {
                let message = format!(
                    "a raw content has no members, and so no {column}; there are {{{PREFIX}}} and \
                     {{{REST}}}"
                );
                section.mistake(key, message);
            }
        }
    }
    section.finish();
    let mapping = Outbox { table: TableName::default(), ..mapping? };
    let mut columns: Vec<String> = Vec::new();
    let Mapped { columns: named, optional, .. } = mapping.mapped();
    for (_, column) in named.into_iter().chain(optional) {
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    Some(Message { prefix: prefix?, content: content?, columns, mapping })
}
