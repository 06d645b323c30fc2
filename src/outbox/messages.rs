//! Messages of `pg_logical_emit_message` as rows: what a rule names are the columns, and a row is
//! written as pgoutput writes one. So the rest of the core does not tell them from a table's.

use std::borrow::Cow;

use serde_json::Deserializer;
use serde_json::value::RawValue;

use super::Announced;
use super::plan::Plan;
use super::planner::Planner;
use crate::config::{Content, Message};
use crate::pg::oid::UNKNOWN;
use crate::pg::output::Value;
use crate::record::Origin;
use crate::template::{CONTENT, PREFIX, REST};

/// What messages of a prefix become.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) message: Message,
    /// Made once: nothing announces what a message looks like.
    pub(super) plan: Plan,
}

impl Rule {
    pub(super) fn new(index: usize, message: Message, position_header: Option<&str>) -> Rule {
        let column =
            |name: &String| Announced { name: name.clone(), type_oid: UNKNOWN, modifier: -1 };
        let columns: Vec<Announced> = message.columns.iter().map(column).collect();
        let plan = Planner::new(&message.mapping, &columns, &[]).plan(index, position_header);
        let origin = Origin::Messages(message.prefix.to_string());
        Rule { plan: Plan { origin, ..plan }, message }
    }

    /// Appends a message of this rule as a row. Of one whose content is not what the rule says, all
    /// of it stands where the payload should, and there are no members.
    ///
    /// # Errors
    /// Says what is wrong with the content; the row is there all the same.
    pub(super) fn write(
        &self,
        prefix: &[u8],
        content: &[u8],
        row: &mut Vec<u8>,
    ) -> Result<(), String> {
        let members = match self.message.content {
            Content::Json => self.members(content),
            Content::Raw => Ok(vec![None; self.message.columns.len()]),
        };
        let count = i16::try_from(self.message.columns.len()).unwrap_or(i16::MAX);
        row.extend_from_slice(&count.to_be_bytes());
        for (index, name) in self.message.columns.iter().enumerate() {
            let member = members.as_ref().ok().and_then(|members| members.get(index));
            let value = match name.as_str() {
                PREFIX => Some(prefix),
                REST => self.message.prefix.rest(prefix),
                CONTENT => Some(content),
                _ if members.is_err() && Some(index) == self.plan.payload_column => Some(content),
                _ => member.and_then(|text| text.as_ref()).map(|text| text.as_bytes()),
            };
            value.map_or(Value::Null, Value::Text).write(row);
        }
        members.map(drop)
    }

    /// The text of each column that is a member of the content.
    fn members<'a>(&self, content: &'a [u8]) -> Result<Vec<Option<Cow<'a, str>>>, String> {
        let no_json = |error| format!("its content is no JSON ({error}), as its [[message]] says");
        let content: &RawValue = serde_json::from_slice(content).map_err(no_json)?;
        let Some(mut rest) = content.get().strip_prefix('{') else {
            return Err("its content is JSON, but no object".to_owned());
        };
        let columns = &self.message.columns;
        let mut members = vec![None; columns.len()];
        while let (Some(name), Some(value)) = (next(&mut rest), next(&mut rest)) {
            let Some(name) = text(name) else { continue };
            // Of one that is there twice the last one counts, as in jsonb.
            if let Some(index) = columns.iter().position(|column| *column == name)
                && let Some(member) = members.get_mut(index)
            {
                *member = match value {
                    "null" => None,
                    value => Some(text(value).ok_or_else(|| {
                        format!("member {name} of its content has half a character in an escape")
                    })?),
                };
            }
        }
        Ok(members)
    }
}

/// The next name or value inside of an object, as it stands there; the object has been checked.
fn next<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let ahead = rest.trim_start_matches([' ', '\t', '\n', '\r', ',', ':']);
    let mut values = Deserializer::from_str(ahead).into_iter::<&'a RawValue>();
    let value = values.next()?.ok()?;
    *rest = ahead.get(values.byte_offset()..)?;
    Some(value.get())
}

/// A string without its quotes, and anything else as it stands there. `None` if an escape is no
/// character.
fn text(value: &str) -> Option<Cow<'_, str>> {
    let inside = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    match inside {
        Some(inside) if !inside.contains('\\') => Some(Cow::Borrowed(inside)),
        Some(_) => serde_json::from_str(value).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(value)),
    }
}

#[cfg(test)]
#[path = "messages_tests.rs"]
mod tests;
