//! Finds the columns of an outbox in its table, and decides what is made of them.

use super::Announced;
use super::event::{self, Attribute, Data, Event, Filling};
use super::make::{Json, Make, Piece, Planned, Style};
use super::plan::{Clock, Plan};
use crate::config::{
    CONTENT_TYPE, ContentMode, DATA_CONTENT_TYPE, Format, MissingColumns, OnOversize, Outbox,
    Payload, REQUIRED_ATTRIBUTES, attribute_header,
};
use crate::connect::{Described, Kind};
use crate::pg::known;
use crate::pg::oid::{BIGINT, BYTEA, JSON, JSONB, UNKNOWN, XML, is_date, is_whole};
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
        let key = outbox.key.as_ref().map(|key| {
            let key = self.formatted(key, outbox.key_format);
            self.field(key)
        });
        let (payload, payload_column) = match &outbox.payload {
            Payload::Column(column) => (self.payload(column), Some(self.column(column))),
            Payload::Columns(columns) => (self.row(columns.iter().map(String::as_str)), None),
            Payload::Row => (self.row(self.columns.iter().map(|it| it.name.as_str())), None),
        };
        let (payload, events) = self.event(payload);
        let subject = outbox.schema_subject.as_ref().map(|subject| {
            let pieces = self.pieces(subject);
            self.make(Make::Text(pieces))
        });
        let event = match (outbox.cloudevents.mode, payload, events.as_slice()) {
            (
                Some(ContentMode::Structured),
                Field::Made(event),
                [Header { value: Field::Made(header), .. }],
            ) => Some([event, *header]),
            _ => None,
        };
        let headers = self.headers(events, position_header);
        let topic = self.topic();
        let partition = outbox.partition.as_ref().and_then(|name| self.partition(name));
        let timestamp = outbox.timestamp.as_ref().and_then(|name| self.timestamp(name));
        let (is_event, makes) = (outbox.cloudevents.mode.is_some(), self.makes.len());
        let points = outbox.on_oversize == OnOversize::Pointer;
        Plan {
            outbox: index,
            origin: Origin::Table(outbox.table.clone()),
            columns: self.columns.iter().map(|column| column.name.clone()).collect(),
            topic,
            id: id_column,
            key,
            payload,
            payload_column,
            encoding: outbox.encoding.map(|encoding| (encoding, subject)),
            event,
            letter_headers: Plan::letter_headers(&headers, makes),
            pointer_headers: points.then(|| Plan::pointer_headers(&headers, is_event, makes)),
            headers,
            tombstone_if_blank: outbox.tombstone_if_blank,
            partition,
            timestamp,
            unfit: self.unfit(),
            makes: self.makes,
        }
    }

    fn headers(&mut self, events: Vec<Header>, position_header: Option<&str>) -> Vec<Header> {
        let outbox = self.outbox;
        let mut headers = self.span_headers();
        if let Some(name) = &outbox.id {
            let field = self.header(&Source::Column(name.clone()));
            headers.extend(field.map(|field| Header::new(ID, field)));
        }
        headers.extend(events);
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

    fn field(&mut self, planned: Planned) -> Field {
        match planned {
            Planned::Column(index) => Field::Column(index),
            Planned::Made(make) => self.make(make),
        }
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
        let planned = match (self.outbox.header_format, source) {
            (Format::String, Source::Column(name)) => self.value(name, Style::Header),
            (format, source) => self.formatted(source, format),
        };
        Some(self.field(planned))
    }

    fn value(&mut self, name: &str, style: Style) -> Planned {
        match self.required(name) {
            Some(Found { index, kind, .. }) if !kind.is_verbatim() => {
                Planned::Made(Make::Value(index, kind, style))
            }
            found => Planned::Column(found.map_or(usize::MAX, |found| found.index)),
        }
    }

    fn formatted(&mut self, source: &Source, format: Format) -> Planned {
        match (format, source) {
            (Format::String, Source::Column(name)) => self.value(name, Style::String),
            (Format::String, Source::Template(template)) => {
                Planned::Made(Make::Text(self.pieces(template)))
            }
            (Format::Json | Format::JsonWithSchema, source) => {
                let (schema, value) = self.json(source);
                let value = match format {
                    Format::JsonWithSchema => with_schema(vec![Json::Literal(schema)], vec![value]),
                    Format::Json | Format::String => vec![value],
                };
                Planned::Made(Make::Json(value))
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
    fn row(&mut self, columns: impl Iterator<Item = &'a str>) -> Planned {
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
        Planned::Made(Make::Json(pieces))
    }

    fn payload(&mut self, column: &str) -> Planned {
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
        Planned::Made(Make::Json(values))
    }

    /// The value of a record with this payload, and the headers that make an event of it.
    fn event(&mut self, payload: Planned) -> (Field, Vec<Header>) {
        let text = |text: &str| Make::Text(vec![Piece::Literal(text.to_owned())]);
        let Some(mode) = self.outbox.cloudevents.mode else {
            return (self.field(payload), Vec::new());
        };
        let attributes = self.attributes();
        if mode == ContentMode::Structured {
            let data = self.data(payload);
            let event = self.make(Make::Event(Box::new(Event { attributes, data })));
            let header = Header::new(CONTENT_TYPE, self.make(text(event::STRUCTURED)));
            return (event, vec![Header { omitted_if_null: true, ..header }]);
        }
        let payload = self.field(payload);
        let version = self.make(text(event::VERSION));
        let mut headers = vec![Header::new(&attribute_header("specversion"), version)];
        for attribute in attributes {
            let name = attribute_header(&attribute.name);
            let value = self.make(Make::Attribute(attribute));
            headers.push(Header { omitted_if_null: true, ..Header::new(&name, value) });
        }
        (payload, headers)
    }

    /// The attributes of an event; those are left out whose columns may be missing, and are.
    fn attributes(&mut self) -> Vec<Attribute> {
        let outbox = self.outbox;
        let mut filled = outbox.cloudevents.filled(outbox.id.as_deref());
        if !filled.iter().any(|(name, _)| name == DATA_CONTENT_TYPE) {
            filled.push((DATA_CONTENT_TYPE.to_owned(), Source::Template(Template::default())));
        }
        let mut attributes = Vec::new();
        for (name, source) in filled {
            let optional = outbox.missing_columns == MissingColumns::Ignore
                && !REQUIRED_ATTRIBUTES.contains(&name.as_str());
            let missing = source.columns().any(|column| self.found(column).is_none());
            let filling = match &source {
                _ if optional && missing => Filling::Text(Vec::new()),
                Source::Column(column) => match self.required(column) {
                    Some(found) => Filling::Column(found.index, found.kind),
                    None => Filling::Text(Vec::new()),
                },
                Source::Template(template) => Filling::Text(self.pieces(template)),
            };
            let fallback = if name == DATA_CONTENT_TYPE { self.content_type() } else { "" };
            attributes.push(Attribute { name, filling, fallback });
        }
        attributes
    }

    /// What the payload is, if nothing else is said.
    fn content_type(&self) -> &'static str {
        match self.payload_oid() {
            None | Some(JSON | JSONB) => "application/json",
            Some(BYTEA) => "application/octet-stream",
            Some(XML) => "application/xml",
            Some(_) => "text/plain; charset=UTF-8",
        }
    }

    /// The type of the column that is the payload; nothing if JSON is made of it.
    fn payload_oid(&self) -> Option<u32> {
        let outbox = self.outbox;
        let plain = outbox.envelope.members.is_empty() && outbox.payload_format == Format::String;
        match &outbox.payload {
            Payload::Column(column) if plain => self.found(column).map(|found| found.base_oid),
            _ => None,
        }
    }

    fn data(&self, payload: Planned) -> Data {
        match (self.payload_oid(), payload) {
            (Some(BYTEA), Planned::Made(Make::Value(index, ..))) => Data::Bytes(index),
            (None | Some(JSON | JSONB), payload) => Data::Json(payload),
            (Some(_), payload) => Data::Text(payload),
        }
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
