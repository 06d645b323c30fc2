//! What a `[[message]]` says, which the core works by.

use std::fmt;

use super::outbox::Outbox;
use crate::template::PREFIX;

/// `[[message]]`: messages of `pg_logical_emit_message`, and how one becomes a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Which messages.
    pub prefix: Prefix,
    /// What they hold.
    pub content: Content,
    /// What is taken from one: names of members, [`PREFIX`](crate::template::PREFIX) and the like;
    /// each once, and everything that `mapping` names.
    pub columns: Vec<String>,
    /// How one becomes a record, as if it were a row. It has no table, so that what is said there
    /// of one, of columns that it lacks and of rows that are changed, means nothing.
    pub mapping: Outbox,
}

/// `content`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// An object of JSON; its members are what a row's columns are.
    Json,
    /// Bytes, which become the value.
    Raw,
}

/// A prefix of messages, or of prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    text: String,
    /// Whether anything may follow: written as a `*`.
    open: bool,
}

impl Message {
    /// The topic, if it is the same one for all of them.
    pub fn topic(&self) -> Option<String> {
        let all = self.mapping.topic.to_string() == format!("{{{PREFIX}}}");
        if all && !self.prefix.open {
            return self.mapping.rewritten(self.prefix.text.clone());
        }
        self.mapping.fixed_topic()
    }
}

impl Prefix {
    /// Reads a prefix, with or without a `*` at its end.
    pub fn parse(text: &str) -> Result<Prefix, String> {
        let (plain, open) = text.strip_suffix('*').map_or((text, false), |plain| (plain, true));
        if text.is_empty() || plain.contains(['*', '\0']) {
            return Err(format!(
                "expected a prefix, like \"orders\", or \"orders.*\" for all that begin so, got \
                 {text:?}"
            ));
        }
        Ok(Prefix { text: plain.to_owned(), open })
    }

    /// What the `*` stands for, if messages of this prefix are meant.
    pub fn rest<'a>(&self, prefix: &'a [u8]) -> Option<&'a [u8]> {
        let rest = prefix.strip_prefix(self.text.as_bytes())?;
        (self.open || rest.is_empty()).then_some(rest)
    }

    /// Of two that mean the same message, the greater one counts: the longer one, and at last the
    /// one without a `*`.
    pub fn precedence(&self) -> (usize, bool) {
        (self.text.len(), !self.open)
    }
}

/// The text that [`Prefix::parse`] was given.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.open { "*" } else { "" };
        write!(f, "{}{star}", self.text)
    }
}
