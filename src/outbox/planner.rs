//! Finds the columns of an outbox in its table, and decides what is made of them.

use super::Announced;
use super::make::{Json, Make, Piece, Style};
use super::plan::{Clock, Plan};
use crate::config::{Format, MissingColumns, Outbox, Payload};
use crate::connect::{Described, Kind};
use crate::pg::known;
use crate::pg::oid::{BIGINT, JSON, JSONB, UNKNOWN, is_date, is_whole};
use crate::record::{Field, Header, Origin};
use crate::template::{Fact, Part, SPAN_HEADERS, Source, Template};

/// The header that the row's `id` becomes.
const ID: &str = "id";

/// Notes what is needed, and what is wrong with it.
pub(super) struct Planner<'a> {
    outbox: &'a Outbox,
    columns: &'a [Announced],
    /// What the catalog says of them.
    known: &'a [known::Column],
    makes: Vec<Make>,
    missing: Vec<String>,
    wrong: Option<String>,
}

/// A column that was found.
struct Found {
    index: usize,
    kind: Kind,
    base_oid: u32,
    not_null: bool,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        outbox: &'a Outbox,
        columns: &'a [Announced],
        known: &'a [known::Column],
    ) -> Planner<'a> {
        Planner { outbox, columns, known, makes: Vec::new(), missing: Vec::new(), wrong: None }
    }

    /// The plan for the outbox with this index.
    pub(super) fn plan(mut self, index: usize, position_header: Option<&str>) -> Plan {
        let outbox = self.outbox;
        let id_column = outbox.id.as_ref().map(|name| self.column(name));
        let key = outbox.key.as_ref().map(|key| self.formatted(key, outbox.key_format));
        let (payload, payload_column) = match &outbox.payload {
            Payload::Column(column) => (self.payload(column), Some(self.column(column))),
            Payload::Columns(columns) => (self.row(columns.iter().map(String::as_str)), None),
            Payload::Row => (self.row(self.columns.iter().map(|it| it.name.as_str())), None),
        };
        let headers = self.headers(position_header);
        let topic = self.topic();
        let partition = outbox.partition.as_ref().and_then(|name| self.partition(name));
        let timestamp = outbox.timestamp.as_ref().and_then(|name| self.timestamp(name));
        Plan {
            outbox: index,
            origin: Origin::Table(outbox.table.clone()),
            columns: self.columns.iter().map(|column| column.name.clone()).collect(),
            topic,
            id: id_column,
            key,
            payload,
            payload_column,
            letter_headers: Plan::letter_headers(&headers, self.makes.len()),
            headers,
            tombstone_if_blank: outbox.tombstone_if_blank,
            partition,
            timestamp,
            unfit: self.unfit(),
            makes: self.makes,
        }
    }

    fn headers(&mut self, position_header: Option<&str>) -> Vec<Header> {
        let outbox = self.outbox;
        let mut headers = self.span_headers();
        if let Some(name) = &outbox.id {
            let field = self.header(&Source::Column(name.clone()));
            headers.extend(field.map(|field| Header::new(ID, field)));
        }
        for (name, source) in &outbox.headers {
            let field = self.header(source);
            headers.extend(field.map(|field| Header::new(name, field)));
        }
        for (name, text) in &outbox.static_headers {
            let text = vec![Piece::Literal(text.clone())];
            headers.push(Header::new(name, self.make(Make::Text(text))));
        }
        if let Some(name) = position_header {
            headers.push(Header::new(name, self.make(Make::Position)));
        }
        headers
    }

    fn found(&self, name: &str) -> Option<Found> {
        let index = self.columns.iter().position(|column| column.name == name)?;
        let Announced { type_oid, modifier, .. } = *self.columns.get(index)?;
        // The catalog is that of now, and the row may be older than the column's type.
        let known = self.known.iter().find(|it| it.name == name && it.type_oid == type_oid);
        let labels = known.map(|it| it.labels.clone()).filter(|labels| !labels.is_empty());
        let labels = labels.as_slice();
        let described =
            known.map_or(Described { type_oid, modifier, labels, element: 0 }, |it| Described {
                type_oid: it.base_oid,
                modifier: if it.base_oid == type_oid { modifier } else { it.modifier },
                labels,
                element: it.element_oid,
            });
        Some(Found {
            index,
            kind: Kind::of(&described),
            base_oid: described.type_oid,
            not_null: known.is_some_and(|it| it.not_null),
        })
    }

    /// A column without which there is no record.
    fn required(&mut self, name: &str) -> Option<Found> {
        let found = self.found(name);
        if found.is_none() && !self.missing.iter().any(|it| it == name) {
            self.missing.push(name.to_owned());
        }
        found
    }

    /// A column that the table may lack, if the configuration says so.
    fn optional(&mut self, name: &str) -> Option<Found> {
        match self.outbox.missing_columns {
            MissingColumns::Error => self.required(name),
            MissingColumns::Ignore => self.found(name),
        }
    }

    /// The index of a column without which there is no record.
    fn column(&mut self, name: &str) -> usize {
        // Never read: a row of a plan that misses something is poison.
        self.required(name).map_or(usize::MAX, |found| found.index)
    }

    /// What is used twice is made once.
    fn make(&mut self, make: Make) -> Field {
        let known = self.makes.iter().position(|it| *it == make);
        Field::Made(known.unwrap_or_else(|| {
            self.makes.push(make);
            self.makes.len() - 1
        }))
    }

    fn pieces(&mut self, template: &Template) -> Vec<Piece> {
        let piece = |part: &Part| match part {
            Part::Literal(text) => Piece::Literal(text.clone()),
            Part::Column(name) => Piece::Column(self.column(name)),
            Part::Fact(Fact::Schema) => Piece::Literal(self.outbox.table.schema.clone()),
            Part::Fact(Fact::Table) => Piece::Literal(self.outbox.table.name.clone()),
            Part::Fact(fact) => Piece::Fact(*fact),
        };
        template.parts().iter().map(piece).collect()
    }

    fn topic(&mut self) -> Field {
        let outbox = self.outbox;
        let pieces = self.pieces(&outbox.topic);
        match (&outbox.topic_rewrite, pieces.as_slice()) {
            (Some(rewrite), _) => self.make(Make::Rewritten(pieces, Box::new(rewrite.clone()))),
            (None, [Piece::Column(index)]) => Field::Column(*index),
            (None, _) => self.make(Make::Text(pieces)),
        }
    }

    fn span_headers(&mut self) -> Vec<Header> {
        let Some(name) = &self.outbox.span_context else { return Vec::new() };
        // Debezium does without it, and so would its users.
        let Some(Found { index, .. }) = self.found(name) else { return Vec::new() };
        let header = |name| {
            let field = self.make(Make::Span(index, name));
            Header { omitted_if_null: true, ..Header::new(name, field) }
        };
        SPAN_HEADERS.map(header).into()
    }

    /// What a header is filled from; nothing if the table lacks a column that it may lack.
    fn header(&mut self, source: &Source) -> Option<Field> {
        if self.outbox.missing_columns == MissingColumns::Ignore
            && source.columns().any(|column| self.found(column).is_none())
        {
            return None;
        }
        match (self.outbox.header_format, source) {
            (Format::String, Source::Column(name)) => Some(self.value(name, Style::Header)),
            (format, source) => Some(self.formatted(source, format)),
        }
    }

    fn value(&mut self, name: &str, style: Style) -> Field {
        match self.required(name) {
            Some(Found { index, kind, .. }) if !kind.is_verbatim() => {
                self.make(Make::Value(index, kind, style))
            }
            found => Field::Column(found.map_or(usize::MAX, |found| found.index)),
        }
    }

    fn formatted(&mut self, source: &Source, format: Format) -> Field {
        match (format, source) {
            (Format::String, Source::Column(name)) => self.value(name, Style::String),
            (Format::String, Source::Template(template)) => {
                let pieces = self.pieces(template);
                self.make(Make::Text(pieces))
            }
            (Format::Json | Format::JsonWithSchema, source) => {
                let (schema, value) = self.json(source);
                let value = match format {
                    Format::JsonWithSchema => with_schema(vec![Json::Literal(schema)], vec![value]),
                    Format::Json | Format::String => vec![value],
                };
                self.make(Make::Json(value))
            }
        }
    }

    /// The schema of a value, and how to write it.
    fn json(&mut self, source: &Source) -> (String, Json) {
        match source {
            Source::Template(template) => {
                let schema = Kind::Text { name: None }.schema(true, None);
                (schema, Json::Text(self.pieces(template)))
            }
            Source::Column(name) => match self.required(name) {
                Some(found) => {
                    let schema = found.kind.schema(!found.not_null, None);
                    (schema, Json::Value(found.index, found.kind))
                }
                None => (String::new(), Json::Document(usize::MAX)),
            },
        }
    }

    /// A JSON object of these columns.
    fn row(&mut self, columns: impl Iterator<Item = &'a str>) -> Field {
        let mut object = String::from("{");
        let mut pieces = Vec::new();
        for name in columns {
            let Some(found) = self.required(name) else { continue };
            let comma = if pieces.is_empty() { "" } else { "," };
            object = format!("{object}{comma}{}:", serde_json::Value::from(name));
            pieces.push(Json::Literal(std::mem::take(&mut object)));
            pieces.push(Json::Natural(found.index, found.kind));
        }
        pieces.push(Json::Literal(object + "}"));
        self.make(Make::Json(pieces))
    }

    fn payload(&mut self, column: &str) -> Field {
        let outbox = self.outbox;
        if outbox.envelope.members.is_empty() {
            return self.formatted(&Source::Column(column.to_owned()), outbox.payload_format);
        }
        let mut schemas = Vec::new();
        let mut values = Vec::new();
        let found = self.required(column).map(|found| ("payload", found));
        let mut members: Vec<_> = found.into_iter().collect();
        for (member, column) in &outbox.envelope.members {
            members.extend(self.optional(column).map(|found| (member.as_str(), found)));
        }
        for (member, found) in members {
            schemas.push(found.kind.schema(!found.not_null, Some(member)));
            let before = if values.is_empty() { '{' } else { ',' };
            let name = serde_json::Value::from(member);
            values.push(Json::Literal(format!("{before}{name}:")));
            // Without a converter in between, JSON needs no quotes around it.
            let document = member == "payload" && matches!(found.base_oid, JSON | JSONB);
            values.push(match outbox.payload_format {
                Format::String if document => Json::Document(found.index),
                _ => Json::Value(found.index, found.kind),
            });
        }
        values.push(Json::Literal("}".to_owned()));
        if outbox.payload_format == Format::JsonWithSchema {
            let schema = self.envelope_schema(&schemas.join(","));
            values = with_schema(schema, values);
        }
        self.make(Make::Json(values))
    }

    fn envelope_schema(&mut self, fields: &str) -> Vec<Json> {
        let envelope = &self.outbox.envelope;
        let start = format!(r#"{{"type":"struct","fields":[{fields}],"optional":false,"name":"#);
        let name = Json::Text(self.pieces(&envelope.schema_name));
        let version = envelope.schema_version.as_ref().map(|name| {
            let found = self.required(name);
            if found.as_ref().is_some_and(|found| !is_whole(found.base_oid)) {
                self.wrong =
                    Some(format!("column {name} cannot be the schema_version: it is no number"));
            }
            Json::Version(found.map_or(usize::MAX, |found| found.index))
        });
        let end = Json::Literal("}".to_owned());
        [Json::Literal(start), name].into_iter().chain(version).chain([end]).collect()
    }

    fn partition(&mut self, name: &str) -> Option<usize> {
        let found = self.optional(name)?;
        if !is_whole(found.base_oid) && found.base_oid != UNKNOWN {
            self.wrong = Some(format!("column {name} cannot be the partition: it is no number"));
        }
        Some(found.index)
    }

    fn timestamp(&mut self, name: &str) -> Option<(usize, Clock)> {
        let found = self.required(name)?;
        match found.base_oid {
            BIGINT => Some((found.index, Clock::Milliseconds)),
            UNKNOWN => Some((found.index, Clock::Json)),
            oid if is_date(oid) => Some((found.index, Clock::Text)),
            _ => {
                self.wrong = Some(format!("column {name} cannot be the timestamp: it is no date"));
                None
            }
        }
    }

    fn unfit(&self) -> Option<String> {
        if self.missing.is_empty() {
            return self.wrong.clone();
        }
        let missing = self.missing.join(", ");
        Some(format!("the table has no column {missing}; add it or change the mapping"))
    }
}

/// `{"schema": …, "payload": …}`, as Kafka Connect's `JsonConverter` writes it.
fn with_schema(schema: Vec<Json>, value: Vec<Json>) -> Vec<Json> {
    let literal = |text: &str| [Json::Literal(text.to_owned())];
    let start = literal("{\"schema\":").into_iter().chain(schema);
    start.chain(literal(",\"payload\":")).chain(value).chain(literal("}")).collect()
}
