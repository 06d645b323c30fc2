//! The rules for single values: each turns what was written into what the program uses, or says
//! what it expected.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use config::{Value, ValueKind};

use crate::pg::table::TableName;
use crate::template::{IDENTIFIER_BYTES_MAX, check_identifier};

/// The words that a key can take. A word without a value belongs to the contract, but this
/// version does not support it yet: give it its value once it works.
pub(super) type Words<T> = [(&'static str, Option<T>)];

pub(super) fn text(value: &Value) -> Result<&str, String> {
    match &value.kind {
        ValueKind::String(text) => Ok(text),
        _ => Err(expected("text", value)),
    }
}

/// Text that passes a check, or nothing if it is empty.
pub(super) fn optional(
    check: impl Fn(&str) -> Result<(), String>,
) -> impl Fn(&Value) -> Result<Option<String>, String> {
    move |value| match text(value)? {
        "" => Ok(None),
        text => check(text).map(|()| Some(text.to_owned())),
    }
}

/// Text that passes a check.
pub(super) fn checked(
    check: impl Fn(&str) -> Result<(), String>,
) -> impl Fn(&Value) -> Result<String, String> {
    move |value| {
        let text = text(value)?;
        check(text).map(|()| text.to_owned())
    }
}

pub(super) fn flag(value: &Value) -> Result<bool, String> {
    match &value.kind {
        ValueKind::Boolean(flag) => Ok(*flag),
        ValueKind::String(text) => text.parse().map_err(|_| expected("true or false", value)),
        _ => Err(expected("true or false", value)),
    }
}

pub(super) fn whole(range: RangeInclusive<usize>) -> impl Fn(&Value) -> Result<usize, String> {
    move |value| {
        scalar(value)
            .and_then(|text| text.parse().ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                let (min, max) = (range.start(), range.end());
                expected(&format!("a whole number from {min} to {max}"), value)
            })
    }
}

pub(super) fn size(range: RangeInclusive<ByteSize>) -> impl Fn(&Value) -> Result<usize, String> {
    move |value| {
        scalar(value)
            .and_then(|text| text.parse::<ByteSize>().ok())
            .filter(|size| range.contains(size))
            .and_then(|size| usize::try_from(size.as_u64()).ok())
            .ok_or_else(|| {
                let (min, max) = (bytes(range.start().as_u64()), bytes(range.end().as_u64()));
                expected(&format!("a size from {min} to {max}, like \"32MiB\""), value)
            })
    }
}

/// A size in the largest unit that loses nothing.
pub(super) fn bytes(size: u64) -> String {
    let units = [(bytesize::GIB, "GiB"), (bytesize::MIB, "MiB"), (bytesize::KIB, "KiB")];
    let whole = units.into_iter().find(|(unit, _)| size >= *unit && size.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{}{name}", size / unit),
        None => format!("{size}B"),
    }
}

pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&Value) -> Result<Duration, String> {
    move |value| {
        scalar(value)
            .and_then(|text| humantime::parse_duration(&text).ok())
            .filter(|duration| range.contains(duration))
            .ok_or_else(|| {
                let [min, max] =
                    [range.start(), range.end()].map(|limit| humantime::format_duration(*limit));
                expected(&format!("a time from {min} to {max}, like \"1s\""), value)
            })
    }
}

/// One of a few words.
pub(super) fn word<T: Clone>(words: &Words<T>) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let given = scalar(value).unwrap_or_default();
        match words.iter().find(|(word, _)| *word == given) {
            Some((_, Some(meaning))) => Ok(meaning.clone()),
            Some((word, None)) => {
                Err(format!("{word:?} is not supported by this version; use {}", choice(words)))
            }
            None => Err(expected(&choice(words), value)),
        }
    }
}

/// `"a", "b" or "c"`: the words that are supported.
fn choice<T>(words: &Words<T>) -> String {
    let supported = words.iter().filter(|(_, meaning)| meaning.is_some());
    let quoted: Vec<String> = supported.map(|(word, _)| format!("{word:?}")).collect();
    match quoted.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => quoted.concat(),
    }
}

/// The word for a meaning.
pub(super) fn spelled<T: PartialEq>(words: &Words<T>, meaning: &T) -> &'static str {
    let same = |entry: &&(&'static str, Option<T>)| entry.1.as_ref() == Some(meaning);
    words.iter().find(same).map_or("", |(word, _)| word)
}

pub(super) fn address(value: &Value) -> Result<SocketAddr, String> {
    let refused = || expected("an IP address and a port, like \"0.0.0.0:9187\"", value);
    text(value).ok().and_then(|text| text.parse().ok()).ok_or_else(refused)
}

/// A list of brokers, or one text with commas between them, as the environment has it.
pub(super) fn brokers(value: &Value) -> Result<Vec<String>, String> {
    let refused = |value: &Value| expected("host:port, like \"kafka:9092\"", value);
    let list = match &value.kind {
        ValueKind::Array(list) => list.clone(),
        ValueKind::String(text) => text.split(',').map(Value::from).collect(),
        _ => return Err(expected("a list of host:port, like [\"kafka:9092\"]", value)),
    };
    if list.is_empty() {
        return Err("expected at least one host:port, like [\"kafka:9092\"]".to_owned());
    }
    list.iter()
        .map(|value| {
            let broker = text(value).map_err(|_| refused(value))?.trim();
            if is_broker(broker) { Ok(broker.to_owned()) } else { Err(refused(value)) }
        })
        .collect()
}

fn is_broker(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let port_fits =
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(name),
    };
    port_fits && host_fits
}

/// What Postgres takes as the name of a slot.
pub(super) fn check_slot(name: &str) -> Result<(), String> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if (1..=IDENTIFIER_BYTES_MAX).contains(&name.len()) && name.bytes().all(legal) {
        Ok(())
    } else {
        Err(format!(
            "expected 1 to {IDENTIFIER_BYTES_MAX} lower-case letters, digits and \"_\", \
             got {name:?}"
        ))
    }
}

/// What Kafka and every terminal take as the name of a header.
pub(super) fn check_header(name: &str) -> Result<(), String> {
    if !name.is_empty() && !name.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(format!("expected a name without control characters, got {name:?}"))
    }
}

/// As in SQL: a part in double quotes is taken as it is, any other one in lower case.
pub(super) fn table_name(value: &Value) -> Result<TableName, String> {
    let parts = text(value).ok().and_then(identifiers);
    match parts.as_deref() {
        Some([name]) => Ok(TableName { schema: "public".to_owned(), name: name.clone() }),
        Some([schema, name]) => Ok(TableName { schema: schema.clone(), name: name.clone() }),
        _ => Err(expected(r#"a table, like public.outbox or "My Schema"."Outbox""#, value)),
    }
}

/// Splits `a."B c".d` at the dots outside of quotes.
fn identifiers(text: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        let (name, after) = quoted_identifier(rest).or_else(|| plain_identifier(rest))?;
        check_identifier(&name).ok()?;
        found.push(name);
        if after.is_empty() {
            return Some(found);
        }
        rest = after.strip_prefix('.')?;
    }
}

fn plain_identifier(text: &str) -> Option<(String, &str)> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii();
    let end = text.find(|c| !plain(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let starts_well = !name.starts_with(|c: char| c.is_ascii_digit() || c == '$');
    starts_well.then(|| (name.to_ascii_lowercase(), rest))
}

/// Inside of the quotes, two of them stand for one.
fn quoted_identifier(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text.strip_prefix('"')?;
    loop {
        let (piece, after) = rest.split_once('"')?;
        name.push_str(piece);
        let Some(more) = after.strip_prefix('"') else { return Some((name, after)) };
        name.push('"');
        rest = more;
    }
}

/// A number, a flag or a text, as text: the environment knows nothing else.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::Nil | ValueKind::Table(_) | ValueKind::Array(_) => None,
        kind => Some(kind.to_string()),
    }
}

pub(super) fn expected(what: &str, value: &Value) -> String {
    format!("expected {what}, got {}", describe(value))
}

/// How a mistake calls a value that may hold a secret.
pub(super) fn describe_kind(value: &Value) -> &'static str {
    match &value.kind {
        ValueKind::Nil => "nothing",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
        ValueKind::String(_) => "text",
        ValueKind::Boolean(_) => "true or false",
        _ => "a number",
    }
}

/// How a mistake calls a value.
pub(super) fn describe(value: &Value) -> String {
    match &value.kind {
        ValueKind::Nil | ValueKind::Table(_) | ValueKind::Array(_) => {
            describe_kind(value).to_owned()
        }
        ValueKind::String(text) => format!("{text:?}"),
        kind => kind.to_string(),
    }
}
