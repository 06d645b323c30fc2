//! The YAML of Quarkus: nested maps are names with dots, and the key `~` is the name so far.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::Mistake;
use super::options::Given;

/// Deeper than any configuration.
const DEPTH_MAX: usize = 32;

/// Reads all values, in order, under their names with dots.
pub(super) fn read(text: &str) -> Result<Vec<Given>, Mistake> {
    let mut reader = Reader { parser: Parser::new_from_str(text), options: Vec::new() };
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(reader.options),
            (Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd, _) => {}
            (Event::MappingStart(..), _) => reader.map("", 1)?,
            // A document without anything in it.
            (Event::Scalar(text, ScalarStyle::Plain, ..), _) if is_null(&text) => {}
            (_, line) => return Err(Mistake::new(line, "is not a map of options")),
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    options: Vec<Given>,
}

impl<'a> Reader<'a> {
    /// The next event, and its line.
    fn next(&mut self) -> Result<(Event<'a>, Option<usize>), Mistake> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, Some(line(&span)))),
            Some(Err(error)) => Err(no_yaml(&error)),
            None => Ok((Event::StreamEnd, None)),
        }
    }

    /// What is left of a map, whose values are called `path` and their key.
    fn map(&mut self, path: &str, depth: usize) -> Result<(), Mistake> {
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => return Ok(()),
                (Event::Scalar(key, style, ..), _) => {
                    if style == ScalarStyle::Plain && is_null(&key) { "".into() } else { key }
                }
                (_, line) => return Err(Mistake::new(line, "a key that is not text")),
            };
            let name = match (path, &*key) {
                (path, "") => path.to_owned(),
                ("", key) => key.to_owned(),
                (path, key) => format!("{path}.{key}"),
            };
            self.value(name, depth)?;
        }
    }

    fn value(&mut self, name: String, depth: usize) -> Result<(), Mistake> {
        let (event, line) = self.next()?;
        match event {
            Event::Scalar(text, style, ..) => {
                if style != ScalarStyle::Plain || !is_null(&text) {
                    self.options.push(Given { name, value: text.into_owned(), line });
                }
            }
            Event::MappingStart(..) if depth < DEPTH_MAX => self.map(&name, depth + 1)?,
            Event::MappingStart(..) => return Err(Mistake::new(line, "too many maps in maps")),
            Event::SequenceStart(..) => {
                let value = self.list()?;
                self.options.push(Given { name, value, line });
            }
            Event::Alias(_) => {
                let what = format!("{name}: an alias; write the value in its place");
                return Err(Mistake::new(line, what));
            }
            _ => return Err(Mistake::new(line, format!("{name}: no value"))),
        }
        Ok(())
    }

    /// A list is one text with commas.
    fn list(&mut self) -> Result<String, Mistake> {
        let mut items: Vec<String> = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items.join(",")),
                (Event::Scalar(text, ..), _) => items.push(text.into_owned()),
                (_, line) => return Err(Mistake::new(line, "a list of something else than text")),
            }
        }
    }
}

/// What a plain scalar must be to be nothing.
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn line(span: &Span) -> usize {
    span.start.line()
}

fn no_yaml(error: &ScanError) -> Mistake {
    Mistake::new(Some(error.marker().line()), format!("no YAML: {}", error.info()))
}
