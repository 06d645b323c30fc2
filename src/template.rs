//! Templates for topic names: `outbox.event.{aggregatetype}`.

use std::fmt;

/// Kafka refuses longer topic names, because a topic is also the name of a directory.
const TOPIC_BYTES_MAX: usize = 249;

/// Postgres cuts longer identifiers (`NAMEDATALEN - 1`), so nothing has such a name.
pub const IDENTIFIER_BYTES_MAX: usize = 63;

/// A topic name with columns of the outbox row in braces, or a plain name.
///
/// `{{` and `}}` stand for one brace. Only a column's name can use them: Kafka allows no brace in
/// a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// A piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text that goes into the topic name as it stands; every byte is legal there.
    Literal(String),
    /// The name of the column whose value goes here, exactly as Postgres has it.
    Column(String),
}

impl Template {
    /// Reads a template and checks all of it that can be checked before a row is seen.
    pub fn parse(text: &str) -> Result<Template, String> {
        let parts = split(text)?;
        let mut literal_bytes = 0;
        for part in &parts {
            match part {
                Part::Literal(literal) => {
                    check_topic_characters(literal)?;
                    literal_bytes += literal.len();
                }
                Part::Column(column) => check_identifier(column)?,
            }
        }
        if literal_bytes > TOPIC_BYTES_MAX {
            return Err(format!("a topic name has at most {TOPIC_BYTES_MAX} characters"));
        }
        if let [] | [Part::Literal(_)] = parts.as_slice() {
            check_topic(text)?;
        }
        Ok(Template { parts })
    }

    /// The pieces, in order; never two literals in a row.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The columns that the template needs, in order, as often as they occur.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Column(column) => Some(column.as_str()),
        })
    }
}

/// The text that [`Template::parse`] was given.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = |text: &str| text.replace('{', "{{").replace('}', "}}");
        self.parts.iter().try_for_each(|part| match part {
            Part::Literal(literal) => f.write_str(&escape(literal)),
            Part::Column(column) => write!(f, "{{{}}}", escape(column)),
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

fn split(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut piece = String::new();
    let mut in_column = false;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '{' | '}' if rest.next_if_eq(&c).is_some() => piece.push(c),
            '{' if in_column => return Err("\"{\" inside of a column name".to_owned()),
            '}' if !in_column => return Err("\"}\" without a \"{\" before it".to_owned()),
            '{' => {
                if !piece.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut piece)));
                }
                in_column = true;
            }
            '}' => {
                parts.push(Part::Column(std::mem::take(&mut piece)));
                in_column = false;
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
    }

    #[test]
    fn names_the_columns_and_gives_the_source_text_again() {
        for text in ["posts", "outbox.event.{aggregatetype}", "{a}{b}-{a}_z", "{odd}}name{{}"] {
            assert_eq!(Template::parse(text).unwrap().to_string(), text);
        }
        let template = Template::parse("{a}.{b}.{a}").unwrap();
        assert_eq!(template.columns().collect::<Vec<_>>(), ["a", "b", "a"]);
    }

    #[test]
    fn refuses_what_can_never_be_a_topic() {
        let refused = |text: &str, part_of_reason: &str| {
            let reason = Template::parse(text).unwrap_err();
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
        assert!(Template::parse(&"x".repeat(249)).is_ok());
    }
}
