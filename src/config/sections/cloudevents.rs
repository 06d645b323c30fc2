//! `cloudevents` and `cloudevents_attributes` of an `[[outbox]]`: their rules.

use super::super::cloudevents::{CloudEvents, ContentMode};
use super::super::reader::Reader;
use super::super::value::{Words, text, word};
use crate::template::Source;

pub(in super::super) const MODES: &Words<Option<ContentMode>> = &[
    ("", Some(None)),
    ("binary", Some(Some(ContentMode::Binary))),
    ("structured", Some(Some(ContentMode::Structured))),
];

/// "Attribute names SHOULD be descriptive and terse and SHOULD NOT exceed 20 characters in length"
/// (CloudEvents 1.0.2, "Naming Conventions").
const NAME_CHARACTERS_MAX: usize = 20;

/// What of the other keys has a say in it.
pub(super) struct Others<'a> {
    /// `id`, if it could be read.
    pub(super) id: Option<&'a Option<String>>,
    /// `tombstone_if_blank`.
    pub(super) tombstone: bool,
    /// Whether `payload_format` encodes the payload by a schema.
    pub(super) encoding: bool,
    /// `delivery.position_header`.
    pub(super) position_header: Option<&'a str>,
}

pub(super) fn read(section: &mut Reader<'_>, others: &Others<'_>) -> Option<CloudEvents> {
    let mode = section.read("cloudevents", word(MODES));
    let attributes = section.pairs("cloudevents_attributes", |name, value| {
        check_name(name)?;
        Source::attribute(text(value)?)
    });
    let events = CloudEvents { mode: mode?, attributes: attributes? };
    if events.mode.is_none() && !events.attributes.is_empty() {
        let told = "they are of no use without cloudevents; set it to \"binary\" or \"structured\"";
        section.mistake("cloudevents_attributes", told);
    }
    if events.mode == Some(ContentMode::Structured) && others.tombstone {
        let told = "an event in structured mode is never a tombstone; set tombstone_if_blank = \
                    false, or cloudevents = \"binary\"";
        section.mistake("cloudevents", told);
    }
    if events.mode.is_some() && others.encoding {
        let told = "payload_format encodes the payload by a schema, which makes no event of it; \
                    use the one or the other";
        section.mistake("cloudevents", told);
    }
    let id = others.id?.as_deref();
    let filled = events.filled(id);
    if events.mode.is_some() && !filled.iter().any(|(name, _)| name == "id") {
        let told = "an event needs an id, and the key \"id\" names no column; set id here or there";
        section.mistake("cloudevents_attributes", told);
    }
    let headers = events.headers(id);
    if let Some(name) = others.position_header.filter(|name| headers.iter().any(|it| it == name)) {
        let told = format!("delivery.position_header has the header {name:?} already");
        section.mistake("cloudevents", told);
    }
    Some(events)
}

/// Whether an attribute may have this name.
fn check_name(name: &str) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    match name {
        "specversion" => Err("it is always 1.0; leave it out".to_owned()),
        "data" => Err("it is the payload; leave it out".to_owned()),
        _ if (1..=NAME_CHARACTERS_MAX).contains(&name.len()) && name.bytes().all(legal) => Ok(()),
        _ => Err(format!(
            "expected the name of an attribute, 1 to {NAME_CHARACTERS_MAX} lower-case letters and \
             digits, got {name:?}"
        )),
    }
}
