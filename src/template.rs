//! Templates for topics, keys and headers: `outbox.event.{aggregatetype}`.

use std::fmt;

use crate::pg::table::TableName;

/// Kafka refuses longer topic names, because a topic is also the name of a directory.
const TOPIC_BYTES_MAX: usize = 249;

/// Postgres cuts longer identifiers (`NAMEDATALEN - 1`), so nothing has such a name.
pub const IDENTIFIER_BYTES_MAX: usize = 63;

/// The headers that a trace may become: W3C Trace Context, and W3C Baggage.
pub const SPAN_HEADERS: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// Text with columns of the outbox row in braces, and what is known of the row beside them.
///
/// `{{` and `}}` stand for one brace. Of an odd number of `}` behind a column, the first one ends
/// it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// A piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text that stands there as it is.
    Literal(String),
    /// The name of the column whose value goes here, exactly as Postgres has it.
    Column(String),
    /// What is no column, written with a `$`.
    Fact(Fact),
}

/// What is known of a row beside its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// `{$schema}`: of its table, as `[[outbox]]` names it.
    Schema,
    /// `{$table}`: its table, as `[[outbox]]` names it.
    Table,
    /// `{$xid}`: its transaction's number, in decimal. It wraps around after four billions.
    Xid,
    /// `{$commit_lsn}`: where its transaction's commit record is in the log, like `16/B374D848`.
    CommitLsn,
    /// `{$commit_time}`: when that was, in milliseconds since 1970-01-01 UTC.
    CommitTime,
    /// `{$commit_time_iso}`: the same as RFC 3339 has it, like `2026-02-03T04:05:06.789012Z`.
    CommitTimeIso,
}

const FACTS: [(&str, Fact); 6] = [
    ("$schema", Fact::Schema),
    ("$table", Fact::Table),
    ("$xid", Fact::Xid),
    ("$commit_lsn", Fact::CommitLsn),
    ("$commit_time", Fact::CommitTime),
    ("$commit_time_iso", Fact::CommitTimeIso),
];

/// What a template is filled from, which decides what it may name with a `$`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A row of a table.
    Row,
    /// A message of `pg_logical_emit_message`. It has no table, but a prefix.
    Message,
}

/// The column of a message that holds its prefix: `{$prefix}`.
pub const PREFIX: &str = "$prefix";
/// The column with what the `*` of its rule stands for: `{$rest}`.
pub const REST: &str = "$rest";
/// The column with all of its content, as it came. It may be no text, so no template has it.
pub const CONTENT: &str = "$content";

impl Subject {
    /// What is in braces and begins with a `$`.
    fn part(self, name: String) -> Result<Part, String> {
        let own: &[&str] = match self {
            Subject::Row => &[],
            Subject::Message => &[PREFIX, REST],
        };
        if own.contains(&name.as_str()) {
            return Ok(Part::Column(name));
        }
        let has = |fact| match self {
            Subject::Row => true,
            Subject::Message => !matches!(fact, Fact::Schema | Fact::Table),
        };
        let facts = FACTS.iter().filter(|(_, fact)| has(*fact));
        let known = facts.clone().find(|(fact, _)| *fact == name);
        known.map(|(_, fact)| Part::Fact(*fact)).ok_or_else(|| {
            let all = own.iter().chain(facts.map(|(fact, _)| fact));
            let all: Vec<_> = all.map(|fact| format!("{{{fact}}}")).collect();
            format!("{{{name}}} is none of {}", all.join(", "))
        })
    }
}

impl Template {
    /// Reads a template over rows.
    pub fn parse(text: &str) -> Result<Template, String> {
        Template::over(Subject::Row, text)
    }

    /// Reads a template.
    pub fn over(subject: Subject, text: &str) -> Result<Template, String> {
        split(subject, text).map(|parts| Template { parts })
    }

    /// Reads a template of a topic over rows.
    pub fn topic(text: &str) -> Result<Template, String> {
        Template::topic_over(Subject::Row, text)
    }

    /// A template of these pieces.
    pub fn of(parts: Vec<Part>) -> Template {
        Template { parts }
    }

    /// Reads a template of a topic, and checks all of it that can be checked before a row is seen.
    pub fn topic_over(subject: Subject, text: &str) -> Result<Template, String> {
        let template = Template::over(subject, text)?;
        let mut literal_bytes = 0;
        for part in &template.parts {
            if let Part::Literal(literal) = part {
                check_topic_characters(literal)?;
                literal_bytes += literal.len();
            }
        }
        if literal_bytes > TOPIC_BYTES_MAX {
            return Err(format!("a topic name has at most {TOPIC_BYTES_MAX} characters"));
        }
        if let [] | [Part::Literal(_)] = template.parts.as_slice() {
            check_topic(text)?;
        }
        Ok(template)
    }

    /// The pieces, in order; never two literals in a row.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What it always is for rows of this table, if nothing in it changes from row to row.
    pub fn fixed(&self, table: &TableName) -> Option<String> {
        let parts = self.parts.iter().map(|part| match part {
            Part::Literal(literal) => Some(literal.as_str()),
            Part::Fact(Fact::Schema) => Some(table.schema.as_str()),
            Part::Fact(Fact::Table) => Some(table.name.as_str()),
            Part::Fact(_) | Part::Column(_) => None,
        });
        parts.collect()
    }

    /// The columns that the template needs, in order, as often as they occur.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) | Part::Fact(_) => None,
            Part::Column(column) => Some(column.as_str()),
        })
    }
}

/// What a key or a header is filled from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A column, with its type.
    Column(String),
    /// Text made of columns, as Postgres prints them.
    Template(Template),
}

impl Source {
    /// Reads a column's name, or a template over rows if there are braces in it.
    pub fn parse(text: &str) -> Result<Source, String> {
        Source::over(Subject::Row, text)
    }

    /// Reads a column's name, or a template if there are braces in it.
    pub fn over(subject: Subject, text: &str) -> Result<Source, String> {
        if text.contains(['{', '}']) {
            return Template::over(subject, text).map(Source::Template);
        }
        check_identifier(text).map(|()| Source::Column(text.to_owned()))
    }

    /// Reads what an attribute is filled from: a column's name, if it is a plain one, as SQL has
    /// them without quotes; else a template, also without braces: most attributes say the same of
    /// every row, like `/orders` or `text/csv`.
    pub fn attribute(text: &str) -> Result<Source, String> {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
        if text.chars().all(plain) && !text.starts_with(|c: char| c.is_ascii_digit() || c == '$') {
            return Source::parse(text);
        }
        Template::parse(text).map(Source::Template)
    }

    /// The columns it needs, in order, as often as they occur.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        let (column, template) = match self {
            Source::Column(column) => (Some(column.as_str()), None),
            Source::Template(template) => (None, Some(template.columns())),
        };
        column.into_iter().chain(template.into_iter().flatten())
    }
}

/// The text that [`Source::parse`] was given.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Column(column) => f.write_str(column),
            Source::Template(template) => template.fmt(f),
        }
    }
}

/// The text that [`Template::parse`] was given.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = |text: &str| text.replace('{', "{{").replace('}', "}}");
        self.parts.iter().try_for_each(|part| match part {
            Part::Literal(literal) => f.write_str(&escape(literal)),
            Part::Column(column) => write!(f, "{{{}}}", escape(column)),
            Part::Fact(fact) => {
                let name = FACTS.iter().find(|(_, it)| it == fact).map_or("", |(name, _)| *name);
                write!(f, "{{{name}}}")
            }
        })
    }
}

/// Whether Kafka takes this as the name of a topic.
pub fn check_topic(name: &str) -> Result<(), String> {
    match name {
        "" => return Err("a topic name cannot be empty".to_owned()),
        "." | ".." => return Err(format!("{name:?} cannot be a topic name")),
        _ => {}
    }
    if name.len() > TOPIC_BYTES_MAX {
        return Err(format!("a topic name has at most {TOPIC_BYTES_MAX} characters"));
    }
    check_topic_characters(name)
}

fn check_topic_characters(text: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match text.chars().find(|&c| !legal(c)) {
        None => Ok(()),
        Some(c) => Err(format!(
            "{c:?} is not allowed in a topic name (only letters, digits, \".\", \"_\" and \"-\")"
        )),
    }
}

/// Whether Postgres can have something of this name.
pub fn check_identifier(name: &str) -> Result<(), String> {
    if (1..=IDENTIFIER_BYTES_MAX).contains(&name.len()) && !name.contains('\0') {
        Ok(())
    } else {
        Err(format!(
            "expected a name of 1 to {IDENTIFIER_BYTES_MAX} bytes without NUL, got {name:?}"
        ))
    }
}

fn split(subject: Subject, text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut piece = String::new();
    let mut in_column = false;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let more = || rest.clone().take_while(|next| *next == '}').count();
        match c {
            // Else the name would go on.
            '}' if in_column && more().is_multiple_of(2) => {
                parts.push(named(subject, std::mem::take(&mut piece))?);
                in_column = false;
            }
            '{' | '}' if rest.next_if_eq(&c).is_some() => piece.push(c),
            '{' if in_column => return Err("\"{\" inside of a column name".to_owned()),
            '}' if !in_column => return Err("\"}\" without a \"{\" before it".to_owned()),
            '{' => {
                if !piece.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut piece)));
                }
                in_column = true;
            }
            _ => piece.push(c),
        }
    }
    if in_column {
        return Err("\"{\" without a \"}\" after it".to_owned());
    }
    if !piece.is_empty() {
        parts.push(Part::Literal(piece));
    }
    Ok(parts)
}

/// What stands in braces.
fn named(subject: Subject, name: String) -> Result<Part, String> {
    if name.starts_with('$') {
        return subject.part(name);
    }
    check_identifier(&name)?;
    Ok(Part::Column(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<Part> {
        Template::parse(text).unwrap().parts().to_vec()
    }

    fn literal(text: &str) -> Part {
        Part::Literal(text.to_owned())
    }

    fn column(text: &str) -> Part {
        Part::Column(text.to_owned())
    }

    #[test]
    fn splits_into_literals_and_columns() {
        assert_eq!(parts("posts"), [literal("posts")]);
        assert_eq!(parts("{topic}"), [column("topic")]);
        assert_eq!(parts("a.{b}"), [literal("a."), column("b")]);
        assert_eq!(
            parts("{a}{b}-{a}_z"),
            [column("a"), column("b"), literal("-"), column("a"), literal("_z")]
        );
        assert_eq!(parts("x.{My Column}"), [literal("x."), column("My Column")]);
        assert_eq!(parts("{odd}}name{{}"), [column("odd}name{")]);
        assert_eq!(parts("{.}"), [column(".")]);
        assert_eq!(parts("{a}}}"), [column("a"), literal("}")]);
        assert_eq!(parts("{{{a}}}"), [literal("{"), column("a"), literal("}")]);
        assert_eq!(parts("{a}}}{b}"), [column("a"), literal("}"), column("b")]);
    }

    #[test]
    fn names_the_columns_and_gives_the_source_text_again() {
        for text in [
            "posts",
            "outbox.event.{aggregatetype}",
            "{a}{b}-{a}_z",
            "{odd}}name{{}",
            "ä {{literal}} {$xid}",
            "{$schema}.{$table}@{$commit_lsn}/{$commit_time}",
            "",
        ] {
            assert_eq!(Template::parse(text).unwrap().to_string(), text);
        }
        let template = Template::parse("{a}.{b}.{a}").unwrap();
        assert_eq!(template.columns().collect::<Vec<_>>(), ["a", "b", "a"]);
    }

    #[test]
    fn what_begins_with_a_dollar_is_a_fact_and_no_column() {
        assert_eq!(parts("{$xid}-{a$}"), [Part::Fact(Fact::Xid), literal("-"), column("a$")]);
        let reason = Template::parse("{$lsn}").unwrap_err();
        let all = "{$lsn} is none of {$schema}, {$table}, {$xid}, {$commit_lsn}, {$commit_time}, \
                   {$commit_time_iso}";
        assert_eq!(reason, all);
    }

    #[test]
    fn a_message_has_a_prefix_and_no_table() {
        let over = |text: &str| Template::over(Subject::Message, text);
        let template = over("{$prefix}/{$rest}/{a}/{$xid}").unwrap();
        assert_eq!(template.columns().collect::<Vec<_>>(), ["$prefix", "$rest", "a"]);
        assert_eq!(template.to_string(), "{$prefix}/{$rest}/{a}/{$xid}");
        for name in ["$table", "$content"] {
            let all =
                "{$prefix}, {$rest}, {$xid}, {$commit_lsn}, {$commit_time}, {$commit_time_iso}";
            let told = format!("{{{name}}} is none of {all}");
            let text = format!("{{{name}}}");
            assert_eq!(over(&text), Err(told));
        }
    }

    #[test]
    fn an_attribute_is_a_column_or_a_template_without_braces() {
        for name in ["type", "größe", "a_1$"] {
            assert_eq!(Source::attribute(name), Ok(Source::Column(name.to_owned())));
        }
        for text in ["/shop", "com.example.order", "1", "$x", "{type}", "My Column", "a-b{c}"] {
            let template = Source::Template(Template::parse(text).unwrap());
            assert_eq!(Source::attribute(text), Ok(template.clone()));
            assert_eq!(Source::attribute(&template.to_string()), Ok(template));
        }
        assert!(Source::attribute("").is_err() && Source::attribute("a.{b").is_err());
    }

    #[test]
    fn refuses_what_can_never_be_a_topic() {
        let refused = |text: &str, part_of_reason: &str| {
            let reason = Template::topic(text).unwrap_err();
            assert!(reason.contains(part_of_reason), "{text:?}: {reason}");
        };
        refused("", "cannot be empty");
        refused(".", "\".\" cannot be a topic name");
        refused("..", "\"..\" cannot be a topic name");
        refused("a b", "' ' is not allowed");
        refused("ä.{b}", "'ä' is not allowed");
        refused("a/{b}", "'/' is not allowed");
        refused("{{a}}", "'{' is not allowed");
        refused("a.{b", "\"{\" without a \"}\"");
        refused("a.{b}}", "\"{\" without a \"}\"");
        refused("a.b}", "\"}\" without a \"{\"");
        refused("a.{b{c}", "\"{\" inside");
        refused("a.{}", "a name of 1 to 63 bytes");
        refused(&"x".repeat(250), "at most 249");
        refused(&format!("{{a}}{}", "x".repeat(250)), "at most 249");
        refused(&format!("{{{}}}", "x".repeat(64)), "a name of 1 to 63 bytes");
        assert!(Template::topic(&"x".repeat(249)).is_ok());
    }
}
