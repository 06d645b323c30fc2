//! `walrelay migrate debezium`: the configuration of a Debezium outbox connector as one of
//! walrelay, with what differs said in comments. Text in, text out.
//!
//! A `source` is read into `options`, from which `postgres`, `kafka` and `router` each take what
//! they translate. What nobody has taken is named in the end (`leftover`), so that no option is
//! dropped without a word.

mod document;
mod format;
mod kafka;
mod leftover;
mod options;
mod payload;
mod placement;
mod postgres;
mod route;
mod router;
mod source;
mod tables;
mod takeover;
mod yaml;

use std::error::Error;
use std::fmt;

use self::document::{Key, Section};
use self::options::Debezium;

/// No configuration is as large.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Why a file cannot be translated: everything at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    name: String,
    mistakes: Vec<Mistake>,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// The line, where it is known.
    line: Option<usize>,
    /// What is wrong. Holds no secret.
    what: String,
}

impl Mistake {
    fn new(line: Option<usize>, what: impl Into<String>) -> Mistake {
        Mistake { line, what: what.into() }
    }
}

impl Refused {
    fn new(name: &str, mistakes: Vec<Mistake>) -> Refused {
        Refused { name: name.to_owned(), mistakes }
    }
}

/// A line for each mistake.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Mistake { line, what }) in self.mistakes.iter().enumerate() {
            let gap = if number == 0 { "" } else { "\n" };
            match line {
                Some(line) => write!(f, "{gap}{}:{line}: {what}", self.name)?,
                None => write!(f, "{gap}{}: {what}", self.name)?,
            }
        }
        Ok(())
    }
}

impl Error for Refused {}

/// Translates the configuration of a connector (JSON or properties), or that of Debezium Server
/// (properties or YAML), into a TOML document. `name` is what the file is called; its end tells
/// the syntax, or else the text does.
///
/// # Errors
/// If the text cannot be read, is of something else than an outbox of Postgres, or holds what
/// Debezium itself would refuse.
pub fn debezium(name: &str, text: &str) -> Result<String, Refused> {
    if text.len() > FILE_BYTES_MAX {
        let what = format!("is larger than {FILE_BYTES_MAX} bytes, which no configuration is");
        return Err(Refused::new(name, vec![Mistake::new(None, what)]));
    }
    let options = source::read(name, text).map_err(|mistake| Refused::new(name, vec![mistake]))?;
    let mut debezium = Debezium::new(options);
    let deployment = if debezium.is_server() { "Debezium Server" } else { "Kafka Connect" };
    let head = format!(
        "Made by `walrelay migrate debezium` from {name}, a configuration of {deployment}. What \
         stands above a key says what Debezium did otherwise; what stands at the end, which \
         options have no counterpart, and how to take over without losing an event."
    );
    debezium.find_router();
    let postgres = postgres::translate(&mut debezium);
    let (kafka, properties) = kafka::translate(&mut debezium);
    let outbox = router::translate(&mut debezium);
    let takeover = takeover::text(&debezium, &postgres, &outbox);
    let rest = leftover::comments(&mut debezium);
    if !debezium.mistakes.is_empty() {
        return Err(Refused::new(name, debezium.mistakes));
    }
    let mut sections = vec![postgres.section, kafka, properties, delivery()];
    sections.extend(outbox.sections);
    Ok(document::render(&head, &sections, &[&rest, &takeover]))
}

fn delivery() -> Section {
    let mut section = Section::new("[delivery]");
    section.push(Key::text("position_header", "").say(
        "Debezium has no such header, and this leaves it out. Without this line each record \
         carries its position, and consumers can drop every repeat by one comparison.",
    ));
    section
}

#[cfg(test)]
#[path = "migrate_tests.rs"]
mod tests;
