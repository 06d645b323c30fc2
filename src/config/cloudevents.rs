//! What an `[[outbox]]` says of CloudEvents, which the core works by.

use crate::template::{Fact, Part, Source, Template};

/// The attributes without which there is no event, `specversion` aside, which is always `1.0`:
/// CloudEvents 1.0.2, "REQUIRED Attributes".
pub const REQUIRED_ATTRIBUTES: [&str; 3] = ["id", "source", "type"];

/// The attribute that has a header of its own.
pub const DATA_CONTENT_TYPE: &str = "datacontenttype";

/// That header.
pub const CONTENT_TYPE: &str = "content-type";

/// Whether records are CloudEvents, and what these tell of themselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CloudEvents {
    /// Where an event has its attributes; without, records are no events.
    pub mode: Option<ContentMode>,
    /// Attributes and what fills them, in order, as far as they are given.
    pub attributes: Vec<(String, Source)>,
}

/// Where an event has its attributes (Kafka Protocol Binding 1.0.2, section 1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentMode {
    /// In headers: the payload is the value.
    Binary,
    /// In the value, which is JSON, with the payload in it.
    Structured,
}

impl CloudEvents {
    /// All attributes and what fills them: those with a default in front, then the others as they
    /// are given. Without one that is given, the content type follows from the payload, and is not
    /// there. `id` is the column of that name.
    pub fn filled(&self, id: Option<&str>) -> Vec<(String, Source)> {
        if self.mode.is_none() {
            return Vec::new();
        }
        let column = |name: &str| Source::Column(name.to_owned());
        let slash = || Part::Literal("/".to_owned());
        let table = [slash(), Part::Fact(Fact::Schema), slash(), Part::Fact(Fact::Table)];
        let template = |parts: &[Part]| Source::Template(Template::of(parts.to_vec()));
        let defaults = [
            ("id", id.map(column)),
            ("source", Some(template(&table))),
            ("type", Some(column("type"))),
            ("time", Some(template(&[Part::Fact(Fact::CommitTimeIso)]))),
        ];
        let given = |name: &str| self.attributes.iter().find(|(it, _)| it == name);
        let defaults = defaults.into_iter().filter(|(name, _)| given(name).is_none());
        let mut filled: Vec<_> =
            defaults.filter_map(|(name, source)| Some((name.to_owned(), source?))).collect();
        filled.extend(self.attributes.iter().cloned());
        filled
    }

    /// The headers that a record has because of it; `id` is the column of that name.
    pub fn headers(&self, id: Option<&str>) -> Vec<String> {
        match self.mode {
            None => Vec::new(),
            Some(ContentMode::Structured) => vec![CONTENT_TYPE.to_owned()],
            Some(ContentMode::Binary) => {
                let filled = self.filled(id).into_iter().map(|(name, _)| name);
                let names = filled.filter(|name| name != DATA_CONTENT_TYPE);
                let all = ["specversion".to_owned()].into_iter().chain(names);
                all.map(|name| attribute_header(&name)).chain([CONTENT_TYPE.to_owned()]).collect()
            }
        }
    }
}

/// The header that an attribute becomes: "attributes are prefixed with `ce_`" (Kafka Protocol
/// Binding 1.0.2, section 3.2.3.1), and "the header `content-type` property MUST be mapped directly
/// to the CloudEvents `datacontenttype` attribute" (3.2.1).
pub fn attribute_header(attribute: &str) -> String {
    match attribute {
        DATA_CONTENT_TYPE => CONTENT_TYPE.to_owned(),
        _ => format!("ce_{attribute}"),
    }
}
