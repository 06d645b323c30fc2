use std::collections::BTreeMap;

use toml::de::DeTable;

use super::debezium;
use super::options::Given;
use super::placement::{Place, Placement};
use super::route::Route;
use super::{placement, route, source, yaml};
use crate::config::{Config, OnPoison};

/// A connector that says nothing but what it must; then the more, which may say it otherwise.
fn connector(more: &[(&str, &str)]) -> String {
    let mut options = BTreeMap::from([
        ("connector.class", "io.debezium.connector.postgresql.PostgresConnector"),
        ("plugin.name", "pgoutput"),
        ("publication.autocreate.mode", "filtered"),
        ("database.hostname", "db"),
        ("database.user", "debezium"),
        ("database.dbname", "app"),
        ("topic.prefix", "srv"),
        ("extended.headers.enabled", "false"),
        ("table.include.list", "public.outbox"),
        ("key.converter", "org.apache.kafka.connect.storage.StringConverter"),
        ("value.converter", "org.apache.kafka.connect.storage.StringConverter"),
        ("transforms", "outbox"),
        ("transforms.outbox.type", "io.debezium.transforms.outbox.EventRouter"),
    ]);
    let long: Vec<(String, &str)> = more
        .iter()
        .map(|(name, value)| match name.strip_prefix('.') {
            Some(name) => (format!("transforms.outbox.{name}"), *value),
            None => ((*name).to_owned(), *value),
        })
        .collect();
    options.extend(long.iter().map(|(name, value)| (name.as_str(), *value)));
    options.retain(|_, value| *value != "-");
    serde_json::to_string_pretty(&options).unwrap()
}

fn server(more: &[(&str, &str)]) -> String {
    let mut options = vec![
        ("sink.type", "kafka"),
        ("sink.kafka.producer.bootstrap.servers", "kafka:9092"),
        ("source.connector.class", "io.debezium.connector.postgresql.PostgresConnector"),
        ("source.plugin.name", "pgoutput"),
        ("source.publication.autocreate.mode", "filtered"),
        ("source.database.hostname", "db"),
        ("source.database.user", "debezium"),
        ("source.database.dbname", "app"),
        ("source.topic.prefix", "srv"),
        ("source.extended.headers.enabled", "false"),
        ("source.table.include.list", "public.outbox"),
        ("format.key", "simplestring"),
        ("format.value", "simplestring"),
        ("transforms", "outbox"),
        ("transforms.outbox.type", "io.debezium.transforms.outbox.EventRouter"),
    ];
    options.extend(more);
    let line = |(name, value): &(&str, &str)| match name.strip_prefix('.') {
        Some(name) => format!("debezium.transforms.outbox.{name}={value}\n"),
        None => format!("debezium.{name}={value}\n"),
    };
    options.iter().map(line).collect()
}

fn printed(text: &str) -> String {
    let document = debezium("it", text).unwrap_or_else(|refused| panic!("{refused}"));
    let parsed = DeTable::parse(&document);
    assert!(parsed.is_ok(), "{parsed:?} of\n{document}");
    document
}

fn connect(more: &[(&str, &str)]) -> String {
    printed(&connector(more))
}

fn of_server(more: &[(&str, &str)]) -> String {
    printed(&server(more))
}

fn refused(text: &str) -> Vec<String> {
    debezium("it", text).unwrap_err().to_string().lines().map(str::to_owned).collect()
}

/// The lines of keys, without comments.
fn keys(document: &str) -> Vec<&str> {
    document.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect()
}

fn outbox(document: &str) -> Vec<&str> {
    keys(document).into_iter().skip_while(|line| *line != "[[outbox]]").skip(1).collect()
}

/// The comments as one text, however they are broken.
fn comments(document: &str) -> String {
    let lines = document.lines().filter_map(|line| line.strip_prefix('#'));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    words.join(" ")
}

#[track_caller]
fn has(document: &str, line: &str) {
    assert!(document.lines().any(|it| it == line), "no {line:?} in\n{document}");
}

#[track_caller]
fn has_not(document: &str, text: &str) {
    assert!(!document.contains(text), "{text:?} in\n{document}");
}

#[track_caller]
fn says(document: &str, text: &str) {
    let comments = comments(document);
    assert!(comments.contains(text), "no {text:?} in\n{comments}");
}

fn given(pairs: Vec<Given>) -> Vec<(String, String, usize)> {
    let pair = |it: Given| (it.name, it.value, it.line.unwrap_or_default());
    pairs.into_iter().map(pair).collect()
}

fn pair(name: &str, value: &str, line: usize) -> (String, String, usize) {
    (name.to_owned(), value.to_owned(), line)
}

#[test]
fn what_is_default_in_both_is_not_printed() {
    let document = connect(&[]);
    assert_eq!(
        outbox(&document),
        [
            "table = \"public.outbox\"",
            "id = \"id\"",
            "key = \"aggregateid\"",
            "payload = \"payload\"",
            "topic = \"outbox.event.{aggregatetype}\"",
            "timestamp = \"\"",
            "headers = {}",
        ]
    );
    let document = connect(&[("extended.headers.enabled", "-")]);
    says(&document, "The four headers __debezium.context.*, which Debezium 3.3 and later send");
}

#[test]
fn every_column_is_named() {
    let document = connect(&[
        (".table.field.event.id", "event_id"),
        (".table.field.event.key", "tenant"),
        (".table.field.event.payload", "body"),
        (".table.field.event.timestamp", "at"),
        (".table.field.event.type", "kind"),
        (".route.by.field", "topic"),
        (".tracing.span.context.field", "span"),
    ]);
    let lines = [
        "id = \"event_id\"",
        "key = \"tenant\"",
        "payload = \"body\"",
        "timestamp = \"at\"",
        "topic = \"outbox.event.{topic}\"",
        "span_context = \"span\"",
    ];
    for line in lines {
        has(&document, line);
    }
    says(&document, "transforms.outbox.table.field.event.type has no effect in Debezium either.");
    says(&document, "timestamptz, date, and bigint with milliseconds do as well");
    let document = connect(&[
        (".table.field.event.key", "a{b"),
        (".tracing.operation.name", "relay"),
        (".route.by.field", "c}d"),
    ]);
    has(&document, "key = \"{a{{b}\"");
    has(&document, "topic = \"outbox.event.{c}}d}\"");
    has(&document, "span_context = \"tracingspancontext\"");
    for option in ["id", "key", "payload"] {
        let option = format!(".table.field.event.{option}");
        let told = refused(&connector(&[(&option, "")]));
        assert!(told[0].ends_with("Postgres cannot have a column of this name"), "{told:?}");
        let told = refused(&connector(&[(&option, "a}")]));
        assert!(told[0].ends_with("walrelay cannot name a column that ends in a }"), "{told:?}");
        let told = refused(&connector(&[(&option, "${env:COLUMN}")]));
        assert!(told[0].contains("takes its value from outside of the file"), "{told:?}");
    }
}

#[test]
fn a_placement_is_a_header_a_member_or_the_partition() {
    let list =
        "type:header:eventType, tenant : HEADER ,shard:partition,type:envelope:kind,a:header:";
    let more = [
        (".table.fields.additional.placement", list),
        (".table.field.additional.missing", "Ignore"),
    ];
    let document = connect(&more);
    has(&document, "headers = { eventType = \"type\", tenant = \"tenant\", a = \"a\" }");
    has(&document, "partition = \"shard\"");
    has(&document, "envelope = { kind = \"type\" }");
    has(&document, "missing_columns = \"ignore\"");
    says(&document, "Debezium sent Java's text for it, like Struct{payload=…}.");

    let list = "x:header:id,x:header:a b,x:header:a\u{7}b,type:header:t,tenant:header:t,a{:header";
    let document = connect(&[(".table.fields.additional.placement", list)]);
    has(&document, "headers = { \"a b\" = \"x\", t = \"type\", \"a{\" = \"{a{{}\" }");
    says(&document, "A second header \"id\", of the column x, is not possible here.");
    says(&document, "A second header \"t\", of the column tenant, is not possible here.");
    says(&document, "A header \"a\\u{7}b\", of the column x, is not possible here");
    has_not(&document, "missing_columns");
}

#[test]
fn placements_are_read_and_refused_as_the_router_does() {
    let one = |column: &str, place, name: &str| Placement {
        column: column.to_owned(),
        place,
        name: name.to_owned(),
    };
    assert_eq!(
        placement::read("a:header,b:Envelope: c ,").unwrap(),
        [one("a", Place::Header, "a"), one("b", Place::Envelope, "c")]
    );
    for (list, told) in [
        ("type", "refuses the entry \"type\""),
        ("", "refuses the entry \"\""),
        ("a:header,,b:header", "refuses the entry \"\""),
        ("a:header:b:c", "refuses the entry \"a:header:b:c\""),
        (":", "refuses the entry \":\""),
        ("a:headers", "fails at \"headers\""),
        ("a::x", "fails at \"\""),
    ] {
        let mistakes = placement::read(list).unwrap_err();
        assert!(mistakes[0].contains(told), "{list:?}: {mistakes:?}");
    }
    let told = refused(&connector(&[(".table.fields.additional.placement", "a,b:c,:header")]));
    assert_eq!(told.len(), 2, "{told:?}");
    let told = refused(&connector(&[(".table.fields.additional.placement", ":header")]));
    assert!(told[0].ends_with("\"\": Postgres cannot have a column of this name"), "{told:?}");
    let twice = "a:envelope:payload,b:envelope:c,d:envelope:c";
    let told = refused(&connector(&[(".table.fields.additional.placement", twice)]));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].ends_with("Debezium fails at a second member \"c\" of the envelope"));
}

#[test]
fn a_route_is_a_template_where_it_can_be() {
    let template = |regex: &str, replacement: &str| match route::route("t", regex, replacement) {
        Ok(Route::Template(topic)) => topic,
        other => panic!("{regex} {replacement}: {other:?}"),
    };
    let default = "(?<routedByValue>.*)";
    assert_eq!(template(default, "outbox.event.${routedByValue}"), "outbox.event.{t}");
    assert_eq!(template("(?P<r>.*)", "a_${r}.${r}"), "a_{t}.{t}");
    assert_eq!(template(default, "a.$1.$0b"), "a.{t}.{t}b");
    assert_eq!(template("(.*)", "$12.$01"), "{t}2.{t}");
    assert_eq!(template(".*", "$00-x"), "{t}-x");
    assert_eq!(template(default, "all.events"), "all.events");
    assert_eq!(template(default, r"\a\.\0$1"), "a.0{t}");
    for regex in ["(.*)\\.(.*)", "(?<a>.*)(?<b>.*)", "a|ab", "(?i)order", "(?<1>.*)", "(?<>.*)"] {
        assert_eq!(route::route("a{", regex, "$9"), Ok(Route::Regex("{a{{}".to_owned())));
    }
    for (regex, replacement, told) in [
        (default, "", "a topic name cannot be empty"),
        (default, "a/${routedByValue}", "'/' is not allowed"),
        (default, r"x\$1", "'$' is not allowed"),
        (default, "{}", "'{' is not allowed"),
        (default, "${other}", "names a group \"other\" that the expression has not"),
        ("(.*)", "${routedByValue}", "names a group"),
        (default, "$2", "names a group 2"),
        (".*", "$1", "names a group 1"),
        (default, "${a", "without a \"}\""),
        (default, "$x", "names no group"),
        (default, "a\\", "ends in a backslash"),
    ] {
        let reason = route::route("t", regex, replacement).unwrap_err();
        assert!(reason.contains(told), "{regex} {replacement}: {reason}");
    }
    let document = connect(&[
        (".route.topic.regex", "(.*)\\.(.*)"),
        (".route.topic.replacement", "it's.$2"),
        (".route.by.field", "t"),
    ]);
    has(&document, "topic = \"{t}\"");
    has(&document, "topic_regex = '(.*)\\.(.*)'");
    has(&document, "topic_replacement = \"it's.$2\"");
    let told = refused(&connector(&[(".route.topic.replacement", "a b")]));
    assert!(told[0].starts_with("it: transforms.outbox.route.topic.replacement: no record"));
    // What Quarkus would take for an expression of its own.
    for dollar in ["$", "\\\\$", "$$"] {
        let replacement = format!("{dollar}{{routedByValue}}.events");
        let document = of_server(&[(".route.topic.replacement", &replacement)]);
        has(&document, "topic = \"{aggregatetype}.events\"");
    }
}

#[test]
fn converters_say_which_bytes_are_sent() {
    const JSON: &str = "org.apache.kafka.connect.json.JsonConverter";
    let format = |part: &str, class: &str, schemas: &str| {
        let name = format!("{part}.converter");
        let document = connect(&[(&name, class), (&format!("{name}.schemas.enable"), schemas)]);
        let key = match part {
            "value" => "payload_format",
            "key" => "key_format",
            _ => "header_format",
        };
        let lines = outbox(&document);
        let line = lines.iter().find_map(|line| line.strip_prefix(&format!("{key} = ")));
        (line.map(str::to_owned), comments(&document))
    };
    for part in ["key", "value", "header"] {
        let form = |class, schemas| format(part, class, schemas).0;
        assert_eq!(form(JSON, "-").as_deref(), Some("\"json_with_schema\""));
        assert_eq!(form(JSON, "TRUE").as_deref(), Some("\"json_with_schema\""));
        assert_eq!(form(JSON, "false").as_deref(), Some("\"json\""));
        assert_eq!(form("org.apache.kafka.connect.storage.StringConverter", "-"), None);
        let (form, said) = format(part, "io.confluent.connect.avro.AvroConverter", "-");
        assert_eq!(form.as_deref(), Some("\"string\""));
        assert!(said.contains("AvroConverter, by schemas that Debezium makes"), "{said}");
        let (form, said) = format(part, "io.debezium.converters.BinaryDataConverter", "-");
        assert_eq!(form.as_deref(), Some("\"string\""));
        assert!(said.contains("bytes of a bytea column go out as they are"), "{said}");
        let (form, said) = format(part, "-", "-");
        assert_eq!(form.as_deref(), (part != "header").then_some("\"string\""));
        let doubt = format!("The file has no {part}.converter, so the worker's own decides.");
        assert_eq!(said.contains(&doubt), part != "header", "{said}");
    }
    let header = "org.apache.kafka.connect.storage.SimpleHeaderConverter";
    assert_eq!(format("header", header, "-").0, None);
}

#[test]
fn formats_of_debezium_server_say_which_bytes_are_sent() {
    let forms = |more: &[(&str, &str)]| {
        let document = of_server(more);
        let lines = outbox(&document);
        let form = |key: &str| {
            let line = lines.iter().find_map(|line| line.strip_prefix(key));
            line.map(|line| line.trim_matches([' ', '=', '"']).to_owned()).unwrap_or_default()
        };
        [form("key_format"), form("payload_format"), form("header_format")]
    };
    let with = "json_with_schema";
    assert_eq!(forms(&[]), ["", "", with]);
    assert_eq!(forms(&[("format.key", "json"), ("format.value", "json")]), [with, with, with]);
    let all = ("format.schemas.enable", "false");
    assert_eq!(forms(&[("format.key", "jsonbytearray"), all]), ["json", "", "json"]);
    let header = ("format.header.schemas.enable", "true");
    assert_eq!(forms(&[("format.key", "json"), all, header]), ["json", "", with]);
    assert_eq!(forms(&[("format.value", "binary")]), ["", "string", with]);
    let document = of_server(&[("format.value", "avro"), ("format.apicurio.x", "y")]);
    says(&document, "debezium.format.value is avro, by schemas that Debezium makes");
    says(&document, "no counterpart: debezium.format.apicurio.x: walrelay makes no schemas");
    for (name, format) in [("format.value", "xml"), ("format.header", "simplestring")] {
        let told = refused(&server(&[(name, format)]));
        let expected =
            format!("it:16: debezium.{name}: Debezium refuses {format:?}; it knows json");
        assert!(told[0].starts_with(&expected), "{told:?}");
    }
}

#[test]
fn expanded_json_is_the_json_of_the_column() {
    let expand = (".table.expand.json.payload", "true");
    let json = ("value.converter", "org.apache.kafka.connect.json.JsonConverter");
    let document = connect(&[expand, json, ("value.converter.schemas.enable", "false")]);
    has(&document, "payload_format = \"string\"");
    says(&document, "here nothing is left out");
    let nulls = (".table.json.payload.null.behavior", "optional_bytes");
    let document = connect(&[expand, json, nulls]);
    has(&document, "payload_format = \"json_with_schema\"");
    says(&document, "no schema is made out of a payload");
    let document = connect(&[expand]);
    has(&document, "payload_format = \"string\"");
    says(&document, "Debezium sent Java's text, like Struct{a=1}");
    let told = refused(&connector(&[(".table.json.payload.null.behavior", "drop")]));
    assert!(told[0].ends_with("Debezium refuses \"drop\"; it knows ignore, optional_bytes"));
}

#[test]
fn the_schema_of_an_envelope_is_named_as_by_debezium() {
    let list = (".table.fields.additional.placement", "type:envelope");
    let version = (".table.field.event.schema.version", "version");
    let json = ("value.converter", "org.apache.kafka.connect.json.JsonConverter");
    let tables = ("table.include.list", "public.outbox,sales.outbox{1");
    let document = connect(&[list, version, json]);
    has(&document, "schema_version = \"version\"");
    has(&document, "schema_name = \"srv.public.outbox.{aggregatetype}.Value\"");
    let document = connect(&[list, json, tables]);
    says(&document, "Debezium reads the tables that sales.outbox{1 matches");
    let document = connect(&[version, json]);
    says(&document, "it has no effect but in the schema of an envelope");
    has(&document, "# schema_version = \"version\"");
    has_not(&document, "schema_name");
    let old = [("topic.prefix", "-"), ("database.server.name", "old"), list, json];
    has(&connect(&old), "schema_name = \"old.public.outbox.{aggregatetype}.Value\"");
    let told = refused(&connector(&[("topic.prefix", "-"), list, json]));
    assert_eq!(
        told,
        ["it: topic.prefix is missing; the schema of an envelope is named by it".to_owned()]
    );
}

#[test]
fn policies_keep_their_meaning() {
    let on_update = |word: &str| connect(&[(".table.op.invalid.behavior", word)]);
    has_not(&on_update("WARN"), "on_update = ");
    has(&on_update("error"), "on_update = \"warn\"");
    says(&on_update("error"), "A warning in the log, and no error.");
    let fatal = on_update("fatal");
    has(&fatal, "on_update = \"halt\"");
    has(&fatal, "#      ALTER PUBLICATION \"dbz_publication\" SET (publish = 'insert, update');");
    has(&connect(&[("skipped.operations", "u, t")]), "on_update = \"ignore\"");
    has(&connect(&[(".route.tombstone.on.empty.payload", "TRUE")]), "tombstone_if_blank = true");
    let all = connect(&[("errors.tolerance", "all")]);
    has(&all, "on_poison = \"skip\"");
    says(&all, "consumers never see an event that cannot become a record");
    for (name, value) in [
        (".table.op.invalid.behavior", "explode"),
        (".table.field.additional.missing", "whatever"),
        ("errors.tolerance", "some"),
    ] {
        let told = refused(&connector(&[(name, value)]));
        assert!(told[0].contains(&format!("Debezium refuses {value:?}; it knows ")), "{told:?}");
    }
    let told = refused(&connector(&[("skipped.operations", "c")]));
    assert!(told[0].contains("nothing is sent of what is inserted"), "{told:?}");
}

#[test]
fn what_the_sink_of_debezium_server_ignores_is_not_in_effect() {
    let document = of_server(&[
        (".table.fields.additional.placement", "shard:partition"),
        (".table.field.event.timestamp", "at"),
    ]);
    has(&document, "# partition = \"shard\"");
    has(&document, "# timestamp = \"at\"");
    says(&document, "so that the key has decided; with this line events would move.");
}

#[test]
fn every_table_has_an_outbox() {
    let tables = |list: &str| connect(&[("table.include.list", list)]);
    let document = tables("public\\.outbox, sales.OutboxEvent,public.outbox");
    let names: Vec<_> =
        keys(&document).into_iter().filter(|it| it.starts_with("table = ")).collect();
    assert_eq!(names, ["table = \"public.outbox\"", "table = 'sales.\"OutboxEvent\"'"]);
    assert_eq!(document.matches("[[outbox]]\n").count(), 2);
    says(&document, "Write sales.outboxevent if the table was made without quotes.");
    says(&document, "the publication holds public.outbox and sales.\"OutboxEvent\" and nothing");
    let document = tables("public.outbox_.*,(a|b).outbox,outbox");
    assert_eq!(outbox(&document)[0], "table = \"public.outbox\"");
    for entry in ["public.outbox_.*", "(a|b).outbox", "outbox"] {
        says(&document, &format!("Debezium reads the tables that {entry} matches"));
    }
    let document = tables("-");
    has(&document, "table = \"public.outbox\"");
    says(&document, "There is no table.include.list: Debezium reads every table.");
    let document = connect(&[
        (".predicate", "isOutbox"),
        (".negate", "true"),
        ("predicates", "isOutbox"),
        ("predicates.isOutbox.type", "org.apache.kafka.connect.transforms.predicates.X"),
        ("predicates.isOutbox.pattern", "srv.public.*"),
    ]);
    says(&document, "predicate isOutbox (type org.apache.kafka.connect.transforms.predicates.X,");
    says(&document, "pattern srv.public.*) does not hold. Leave out the [[outbox]] of tables");
}

#[test]
fn the_url_has_what_the_connector_has() {
    let url = |more: &[(&str, &str)]| {
        let document = connect(more);
        let line = keys(&document)[1].to_owned();
        (line.trim_start_matches("url = ").trim_matches('"').to_owned(), comments(&document))
    };
    assert_eq!(url(&[]).0, "postgres://debezium@db:5432/app");
    let more = [
        ("database.port", "6000"),
        ("database.user", "a@b:c"),
        ("database.dbname", "my app"),
        ("database.sslmode", "verify-full"),
        ("database.sslrootcert", "/ca&1.pem"),
        ("database.sslcert", "/c.pem"),
        ("database.sslkey", "/k.pk8"),
        ("database.sslpassword", "geheim"),
    ];
    let (text, said) = url(&more);
    assert_eq!(
        text,
        "postgres://a%40b%3Ac@db:6000/my%20app?sslmode=verify-full&sslrootcert=/ca%261.pem\
         &sslcert=/c.pem&sslkey=/k.pk8"
    );
    assert!(said.contains("in DER (PKCS #8), walrelay in PEM"), "{said}");
    assert!(said.contains("must not be encrypted") && !said.contains("geheim"), "{said}");
    assert_eq!(url(&[("database.hostname", "::1")]).0, "postgres://debezium@[::1]:5432/app");
    let (text, said) = url(&[("database.sslmode", "allow"), ("database.sslcert", "/c.pem")]);
    assert_eq!(text, "postgres://debezium@db:5432/app?sslmode=prefer");
    assert!(said.contains("sslcert and sslkey belong together"), "{said}");
    let (text, said) = url(&[("database.hostname", "${env:DB}"), ("database.user", "-")]);
    assert_eq!(text, "postgres://walrelay@localhost:5432/app");
    assert!(said.contains("database.hostname is ${env:DB}: put its value in the place"), "{said}");
    assert!(said.contains("The file has no database.user: put it in the place of"), "{said}");
    for (name, value, told) in [
        ("database.sslmode", "on", "it: database.sslmode: there is no such mode: \"on\""),
        ("database.port", "x", "it: database.*: no URL can be made of it: "),
        ("database.hostname", "", "it: database.*: no URL can be made of it: "),
    ] {
        assert!(refused(&connector(&[(name, value)]))[0].starts_with(told), "{name}");
    }
    assert!(connect(&[("slot.failover", "true")]).contains("\nfailover = true\n"));
}

#[test]
fn a_password_is_never_printed() {
    let password = |text: &str, value: fn(&[(&str, &str)]) -> String, name: &str| {
        let document = value(&[(name, text)]);
        assert!(!document.contains("geheim"), "{document}");
        let line = document.lines().find(|line| line.starts_with("password_"));
        line.unwrap_or_default().to_owned()
    };
    let of = |text: &str| password(text, connect, "database.password");
    assert_eq!(of("-"), "");
    assert_eq!(of("geheim"), "password_env = \"PGPASSWORD\"");
    assert_eq!(of("${file:/run/db.properties:pw}"), "password_env = \"PGPASSWORD\"");
    assert_eq!(of("${env:DB_PASSWORD}"), "password_env = \"DB_PASSWORD\"");
    assert_eq!(of("${dir:/run/secrets:pg}"), "password_file = \"/run/secrets/pg\"");
    assert_eq!(of("${vault:x:y:z}"), "password_env = \"PGPASSWORD\"");
    assert_eq!(of("x${env:A}y"), "password_env = \"PGPASSWORD\"");
    let of = |text: &str| password(text, of_server, "source.database.password");
    assert_eq!(of("${DB_PASSWORD:geheim}"), "password_env = \"DB_PASSWORD\"");
    assert_eq!(of("${db.password}"), "password_env = \"PGPASSWORD\"");
    let told = connect(&[("database.password", "${file:/run/db.properties:pw}")]);
    says(&told, "database.password is the value of pw in /run/db.properties: put it into");
}

#[test]
fn slot_and_publication_are_debeziums_where_they_can_be() {
    let document = connect(&[("slot.name", "s1"), ("publication.name", "P")]);
    for line in ["slot = \"s1\"", "publication = \"P\"", "create = false"] {
        has(&document, line);
    }
    has(&document, "#      SELECT pg_replication_slot_advance('s1', pg_current_wal_lsn());");
    says(&document, "The offset of a row names the transaction before it, so that the last one");

    let document = connect(&[("publication.autocreate.mode", "-")]);
    has(&document, "slot = \"debezium\"");
    has(&document, "publication = \"walrelay\"");
    says(&document, "dbz_publication, if Debezium made it, is FOR ALL TABLES.");
    says(
        &document,
        "CREATE PUBLICATION \"walrelay\" FOR TABLE \"public\".\"outbox\" WITH (publish =",
    );

    for more in [("plugin.name", "-"), ("plugin.name", "wal2json"), ("slot.drop.on.stop", "true")] {
        let document = connect(&[more]);
        has(&document, "slot = \"walrelay\"");
        has(&document, "publication = \"walrelay\"");
        has_not(&document, "create = ");
        says(&document, "Debezium's slot debezium cannot be taken over: ");
        says(&document, "SELECT pg_drop_replication_slot('debezium');");
    }
    says(&connect(&[("plugin.name", "-")]), "it decodes with decoderbufs, and walrelay with pgout");

    let manual = connect(&[("lsn.flush.mode", "manual")]);
    says(&manual, "Debezium does not confirm this slot itself");
    says(&connect(&[("flush.lsn.source", "false")]), "Debezium does not confirm this slot itself");
    for more in [("heartbeat.interval.ms", "5000"), ("provide.transaction.metadata", "true")] {
        let document = connect(&[more]);
        says(&document, "when the outbox is quiet for a while");
        says(&document, &format!("no counterpart: {}: ", more.0));
    }
    let named = connect(&[("name", "orders")]);
    says(&named, "PUT /connectors/orders/stop");
    says(&of_server(&[]), "Stop Debezium Server, with SIGTERM.");
    for name in ["slot.name", "publication.name"] {
        let told = refused(&connector(&[(name, "")]));
        assert!(told[0].contains("Postgres cannot have this name"), "{told:?}");
    }
    assert!(refused(&connector(&[("slot.name", "Upper")]))[0].contains("\"Upper\""));
}

#[test]
fn properties_of_the_producer_are_librdkafkas() {
    let document = of_server(&[
        ("sink.kafka.producer.bootstrap.servers", "PLAINTEXT://a:9092, [::1]:9093"),
        ("sink.kafka.producer.security.protocol", "SASL_SSL"),
        ("sink.kafka.producer.sasl.mechanism", "SCRAM-SHA-512"),
        ("sink.kafka.producer.sasl.jaas.config", "x username=\"u\" password=\"geheim\";"),
        ("sink.kafka.producer.linger.ms", "5"),
        ("sink.kafka.producer.batch.size", "0"),
        ("sink.kafka.producer.max.request.size", "2000000"),
        ("sink.kafka.producer.retries", "3"),
        ("sink.kafka.producer.client.id", "${HOSTNAME}"),
        ("sink.kafka.producer.no.such", "geheim"),
        ("sink.kafka.producer.ssl.endpoint.identification.algorithm", ""),
        ("sink.kafka.producer.ssl.truststore.location", "/t.jks"),
        ("sink.kafka.producer.ssl.truststore.password", "geheim"),
        ("sink.kafka.producer.ssl.keystore.location", "/k.p12"),
        ("sink.kafka.producer.ssl.keystore.type", "PKCS12"),
        ("sink.kafka.producer.ssl.keystore.password", "geheim"),
    ]);
    has_not(&document, "geheim");
    has(&document, "brokers = [\"a:9092\", \"[::1]:9093\"]");
    let properties: Vec<_> = keys(&document)
        .into_iter()
        .skip_while(|line| *line != "[kafka.properties]")
        .skip(1)
        .take_while(|line| *line != "[delivery]")
        .collect();
    assert_eq!(
        properties,
        [
            "\"security.protocol\" = \"sasl_ssl\"",
            "\"sasl.mechanisms\" = \"SCRAM-SHA-512\"",
            "\"linger.ms\" = \"5\"",
            "\"message.max.bytes\" = \"2000000\"",
            "\"ssl.endpoint.identification.algorithm\" = \"none\"",
            "\"ssl.keystore.location\" = \"/k.p12\"",
        ]
    );
    for said in [
        "sasl.jaas.config: set sasl.username here, and the password as WALRELAY__KAFKA__PROPERTIES",
        "batch.size: librdkafka does not take its value as batch.size.",
        "retries: an event is tried until Kafka takes it.",
        "client.id: its value comes from outside of the file; set client.id here.",
        "no.such: librdkafka has no such property.",
        "ssl.truststore.location: a store of Java's;",
        "ssl.keystore.password: a secret; give it as \
         WALRELAY__KAFKA__PROPERTIES__SSL_KEYSTORE_PASSWORD.",
    ] {
        says(&document, &format!("no counterpart: debezium.sink.kafka.producer.{said}"));
    }
    let document = of_server(&[
        ("sink.kafka.producer.ssl.truststore.type", "PEM"),
        ("sink.kafka.producer.ssl.truststore.location", "/ca.pem"),
        ("sink.kafka.producer.ssl.keystore.type", "PEM"),
        ("sink.kafka.producer.ssl.keystore.location", "/k.pem"),
        ("sink.kafka.producer.bootstrap.servers", "${BROKERS}"),
    ]);
    has(&document, "\"ssl.ca.location\" = \"/ca.pem\"");
    has(&document, "\"ssl.certificate.location\" = \"/k.pem\"");
    says(&document, "debezium.sink.kafka.producer.bootstrap.servers is ${BROKERS}: set it here.");
    let document = connect(&[("producer.override.compression.type", "ZSTD")]);
    has(&document, "\"compression.type\" = \"zstd\"");
    has(&document, "brokers = [\"localhost:9092\"]");
    says(&document, "Set this to the worker's bootstrap.servers.");
    let told = refused(&server(&[("sink.type", "kinesis")]));
    assert_eq!(told, ["it:16: debezium.sink.type: is \"kinesis\"; walrelay sends to kafka"]);
}

#[test]
fn what_has_no_counterpart_is_named() {
    let document = connect(&[
        ("transforms", "first, outbox,last,again"),
        ("transforms.first.type", "org.example.Filter"),
        ("transforms.first.condition", "geheim"),
        ("transforms.last.type", "org.example.Rename"),
        ("transforms.again.type", "io.debezium.transforms.outbox.EventRouter"),
        (".route.topic.regexp", "x"),
        ("topic.creation.default.partitions", "6"),
        ("snapshot.mode", "initial"),
        ("my.own.option", "geheim"),
        ("odd\nname", "x"),
    ]);
    has_not(&document, "geheim");
    for said in [
        "transforms.first (org.example.Filter): there are no transforms; what it did before the",
        "transforms.last (org.example.Rename): there are no transforms; what it made of the",
        "transforms.again: a second router; write the [[outbox]] of its tables by hand.",
        "transforms.outbox.route.topic.regexp: the router does not know it either.",
        "topic.creation.default.partitions: walrelay creates no topic of events",
        "snapshot.mode: there are no snapshots; rows from before the slot are never sent.",
        "my.own.option.",
        "odd\u{fffd}name.",
    ] {
        says(&document, &format!("no counterpart: {said}"));
    }
    let text = server(&[("api.enabled", "true"), ("source.offset.flush.interval.ms", "0")])
        + "quarkus.log.level=INFO\n%dev.quarkus.log.level=DEBUG\n%prod.debezium.format.key=json\n";
    let document = printed(&text);
    has(&document, "key_format = \"json_with_schema\"");
    for said in [
        "debezium.api.enabled.",
        "debezium.source.offset.flush.interval.ms: how far walrelay has got is in the slot",
        "quarkus.log.level: of Quarkus; see [http] and [log].",
        "%dev.quarkus.log.level: of another profile than prod.",
    ] {
        says(&document, &format!("no counterpart: {said}"));
    }
}

#[test]
fn what_is_no_outbox_of_postgres_is_refused_with_every_mistake() {
    let mysql = "io.debezium.connector.mysql.MySqlConnector";
    let told = refused(&connector(&[
        ("connector.class", mysql),
        ("transforms", "-"),
        (".table.op.invalid.behavior", "x"),
        ("slot.name", "A"),
    ]));
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with(&format!("it: connector.class: is {mysql:?}; only io.debezium")));
    assert!(told[1].starts_with("it: no transform is an outbox event router: transforms must"));
    let told = refused(&connector(&[("connector.class", "-")]));
    assert!(told[0].starts_with("it: connector.class is missing; it must be io.debezium"));
    assert_eq!(refused("")[0].split(';').next(), Some("it: connector.class is missing"));
    assert!(debezium("it", &"#".repeat(super::FILE_BYTES_MAX + 1)).is_err());
}

#[test]
fn json_is_bare_or_under_config() {
    let bare = connector(&[]);
    let rest = format!("{{\"name\": \"orders\", \"config\": {bare}, \"tasks\": []}}");
    let document = printed(&rest);
    assert_eq!(keys(&document), keys(&printed(&bare)));
    says(&document, "PUT /connectors/orders/stop");
    for (text, told) in [
        ("{", "it:1: no JSON: EOF while parsing"),
        ("{\"a\": 1,\n\"b\" 2}", "it:2: no JSON: expected `:`"),
        ("{\"a\": [1]}", "it: a: the value of an option is text, and no list or object"),
    ] {
        assert!(refused(text)[0].starts_with(told), "{text}: {:?}", refused(text));
    }
    assert!(debezium("c.json", "[]").unwrap_err().to_string().contains("no JSON object"));
    let options = source::read("it", "{\"a\": 1.50, \"b\": true, \"c\": null}").unwrap();
    assert_eq!(options.get("a").map(|it| it.value.as_str()), Some("1.5"));
    assert_eq!(options.get("b").map(|it| it.value.as_str()), Some("true"));
    assert!(options.get("c").is_none());
}

#[test]
fn properties_are_read_as_java_does() {
    let text = concat!(
        "# comment \\\n! another\n\n  a=1\nb : 2\nc 3\r\nd\\=\\:\\ e = f=g:h \n",
        "long = one, \\\n   two, \\\r\n\ttwo and a half\n\\u00e4\\uD83D\\uDE80=\\t\\n\\x\\\\\n",
        "empty=\nbare\n  = no name\nlast=\\"
    );
    let expected = [
        pair("a", "1", 4),
        pair("b", "2", 5),
        pair("c", "3", 6),
        pair("d=: e", "f=g:h ", 7),
        pair("long", "one, two, two and a half", 8),
        pair("ä🚀", "\t\nx\\", 11),
        pair("empty", "", 12),
        pair("bare", "", 13),
        pair("", "no name", 14),
        pair("last", "", 15),
    ];
    assert_eq!(given(source::of_properties(text).unwrap()), expected);
    for text in ["a=\\u12", "a=1\nb=\\u00zz"] {
        let mistake = source::of_properties(text).unwrap_err();
        assert_eq!(mistake.line, Some(text.lines().count()));
    }
}

#[test]
fn yaml_is_read_as_quarkus_does() {
    let text = "\
# comment
debezium:
  format:
    value:
      ~: json
      schemas.enable: false
  transforms:
    \"\": outbox
    outbox:
      type: 'a''b'
      list: [a, \"b c\"]
  text: |
    one
    two
  none: ~
  nothing:
quarkus.log.level: INFO
";
    let expected = [
        pair("debezium.format.value", "json", 5),
        pair("debezium.format.value.schemas.enable", "false", 6),
        pair("debezium.transforms", "outbox", 8),
        pair("debezium.transforms.outbox.type", "a'b", 10),
        pair("debezium.transforms.outbox.list", "a,b c", 11),
        pair("debezium.text", "one\ntwo\n", 13),
        pair("quarkus.log.level", "INFO", 17),
    ];
    assert_eq!(given(yaml::read(text).unwrap()), expected);
    assert_eq!(given(yaml::read("").unwrap()), []);
    assert_eq!(given(yaml::read("---\n...\n").unwrap()), []);
    let deep = "a: {".repeat(40);
    for (text, line, what) in [
        ("a: 1\nb: *c\n", 2, "no YAML: "),
        ("a: &c 1\nb: *c\n", 2, "b: an alias; write the value in its place"),
        ("- a\n", 1, "is not a map of options"),
        ("a:\n  - b: c\n", 2, "a list of something else than text"),
        ("? {a: b}\n: c\n", 1, "a key that is not text"),
        ("a: \"b\nc: d\n", 1, "no YAML: "),
        (&deep, 1, "too many maps in maps"),
    ] {
        let mistake = yaml::read(text).unwrap_err();
        assert!(mistake.what.starts_with(what), "{text}: {mistake:?}");
        assert_eq!(mistake.line, Some(line), "{text}");
    }
}

#[test]
fn the_end_of_the_name_or_the_content_tells_the_syntax() {
    let properties = server(&[]);
    let mut yaml = String::new();
    for line in properties.lines() {
        yaml.push_str(&line.replacen('=', ": ", 1));
        yaml.push('\n');
    }
    let nested = yaml.replacen("debezium.", "debezium:\n  ", 1).replace("\ndebezium.", "\n  ");
    // The first line of a file, which names it, aside.
    let body = |document: String| document.split_once("\n\n").unwrap().1.to_owned();
    let expected = body(printed(&properties));
    for (name, text) in [
        ("application.properties", &properties),
        ("application.yaml", &yaml),
        ("a.YML", &nested),
        ("-", &nested),
        ("standard input", &format!("\u{feff}# a comment\n{nested}")),
    ] {
        let document = debezium(name, text).unwrap_or_else(|refused| panic!("{refused}"));
        assert_eq!(body(document), expected, "{name}");
    }
    let connect = connector(&[("name", "x")]);
    let standalone: Vec<String> = serde_json::from_str::<BTreeMap<String, String>>(&connect)
        .unwrap()
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(body(printed(&standalone.join("\n"))), body(printed(&connect)));
}

#[test]
fn what_is_printed_can_be_loaded() {
    let document = of_server(&[
        ("format.header.schemas.enable", "-"),
        ("source.database.password", "geheim"),
        ("sink.kafka.producer.linger.ms", "5"),
        ("sink.kafka.producer.security.protocol", "SSL"),
        (".table.fields.additional.placement", "type:header:eventType"),
        (".route.tombstone.on.empty.payload", "true"),
        (".table.field.event.timestamp", "at"),
    ]);
    // Headers of Debezium Server are always JSON.
    let env = [("PGPASSWORD".to_owned(), "geheim".to_owned())];
    let config =
        Config::parse("it", &document, env).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(config.postgres.slot, "debezium");
    assert!(!config.postgres.create);
    assert_eq!(config.delivery.position_header, None);
    let outbox = &config.outboxes[0];
    assert_eq!(outbox.on_poison, OnPoison::Halt);
    let headers: Vec<_> = outbox.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(headers, ["eventType"]);
    assert!(outbox.tombstone_if_blank);
}

#[test]
fn no_input_is_a_panic() {
    let json = connector(&[("database.password", "x"), ("a", "${b")]);
    let properties = server(&[(".route.topic.replacement", "\\u0041\\\n  $1")]);
    let yaml = "debezium:\n  a: [1, {b: c}]\n  ~: 'x'\n  \"d\\u0041\": |\n   e\n";
    for (name, text) in [("a.json", &*json), ("a.properties", &*properties), ("a.yaml", yaml)] {
        for (end, _) in text.char_indices() {
            let _ = debezium(name, &text[..end]);
        }
        for (at, _) in text.char_indices() {
            for odd in ["\0", "\n", "\\", "$", "{", "&", "*", "%", "'", "é", "\u{2028}", ":", "-"]
            {
                let text = format!("{}{odd}{}", &text[..at], &text[at..]);
                if let Ok(document) = debezium(name, &text) {
                    assert!(DeTable::parse(&document).is_ok(), "{document}");
                }
            }
        }
    }
}

const CONNECTOR: &str = r#"{
  "name": "orders-outbox",
  "config": {
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "tasks.max": "1",
    "database.hostname": "db.internal",
    "database.port": 5432,
    "database.user": "debezium",
    "database.password": "geheim",
    "database.dbname": "orders",
    "topic.prefix": "orders",
    "plugin.name": "pgoutput",
    "publication.autocreate.mode": "filtered",
    "slot.name": "orders_outbox",
    "table.include.list": "public.outbox",
    "tombstones.on.delete": "false",
    "heartbeat.interval.ms": "10000",
    "key.converter": "org.apache.kafka.connect.storage.StringConverter",
    "value.converter": "org.apache.kafka.connect.storage.StringConverter",
    "transforms": "outbox",
    "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
    "transforms.outbox.route.topic.replacement": "${routedByValue}.events",
    "transforms.outbox.table.field.event.timestamp": "created_at",
    "transforms.outbox.table.fields.additional.placement": "type:header:kind,shard:partition"
  }
}"#;

const OF_CONNECTOR: &str = r#"
# Made by `walrelay migrate debezium` from connector.json, a configuration of Kafka Connect. What
# stands above a key says what Debezium did otherwise; what stands at the end, which options have no
# counterpart, and how to take over without losing an event.

[postgres]
url = "postgres://debezium@db.internal:5432/orders"

# database.password is in the file itself: put it into this variable, or into a file of its own and
# name that as password_file.
password_env = "PGPASSWORD"
slot = "orders_outbox"
publication = "dbz_publication"

# The slot is there. If its name is wrong here, walrelay says so, and does not make one that begins
# with the present.
create = false

[kafka]
# Set this to the worker's bootstrap.servers.
brokers = ["localhost:9092"]

[kafka.properties]
# How the worker logs in is in its own file: security.protocol, sasl.* and ssl.*, also with
# producer. in front. What it has of them belongs here.

[delivery]
# Debezium has no such header, and this leaves it out. Without this line each record carries its
# position, and consumers can drop every repeat by one comparison.
position_header = ""

[[outbox]]
table = "public.outbox"

# An UPDATE that changes the primary key is an event to Debezium; here it is an update like any
# other (on_update).
id = "id"
key = "aggregateid"
payload = "payload"
topic = "{aggregatetype}.events"
partition = "shard"

# Debezium takes timestamp without time zone only; here timestamptz, date, and bigint with
# milliseconds do as well. NULL is the time of the commit, not of reading.
timestamp = "created_at"

# The four headers __debezium.context.*, which Debezium 3.3 and later send first
# (extended.headers.enabled), are not sent.
headers = { kind = "type" }

# no counterpart: heartbeat.interval.ms: an idle slot is confirmed without heartbeats.
# no counterpart: tasks.max: one relay reads a slot; a second one stands by.
# no counterpart: tombstones.on.delete: rows that are deleted are nothing to walrelay.

# Taking over from Debezium
#
# walrelay goes on where the slot orders_outbox stands, and sends everything behind that. So no
# event is missing, and Debezium's own offsets are not needed; some events may come a second time,
# with the same header id.
#
# 1. While Debezium runs: do what the comments above ask for.
# 2. Still while Debezium runs: see that the publication holds public.outbox and nothing else. The
#    first row of any other table halts walrelay.
#      SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = 'dbz_publication';
#    Take out what does not belong there:
#      BEGIN;
#      LOCK TABLE … IN SHARE ROW EXCLUSIVE MODE;
#      ALTER PUBLICATION "dbz_publication" DROP TABLE …;
#      COMMIT;
#    Then wait until Debezium is past that: rows are read with the publications of their time. X is
#    what the first line answers; it may take an event or two, and a flush of Debezium's offsets (a
#    minute on Kafka Connect).
#      SELECT pg_current_wal_lsn();
#      SELECT confirmed_flush_lsn >= 'X' FROM pg_replication_slots
#        WHERE slot_name = 'orders_outbox';
# 3. Look with `walrelay check`, which changes nothing; there must be nothing to mend. Stop the
#    connector: PUT /connectors/orders-outbox/stop on the worker's REST interface (Kafka 3.5 and
#    later), or delete it. A paused one keeps the slot.
#    A clean stop flushes its offsets and confirms them. Here they get past the last transaction
#    when the outbox is quiet for a while (by heartbeats, or records of transactions): then nothing
#    comes again, else the last one does, and what was under way. If it was killed, it is everything
#    since it last flushed its offsets.
#    To have no repeat either: insert nothing until step 4, and when the last event is in Kafka and
#    Debezium has stopped, move the slot behind it. An event that is not in Kafka by then is lost by
#    this.
#      SELECT pg_replication_slot_advance('orders_outbox', pg_current_wal_lsn());
# 4. Start walrelay. It may be started before that: it stands by for as long as Debezium reads the
#    slot. It leaves a comment on the publication, so that it will notice if the slot is ever lost;
#    if its role may not, the log says so, with the SQL.
# 5. When Debezium is gone for good, spare Postgres what is not sent. (For a warning at an UPDATE,
#    publish 'insert, update'.)
#      ALTER PUBLICATION "dbz_publication" SET (publish = 'insert');
#
# Once walrelay has begun, do not start Debezium with the same slot again: what it confirms is a gap
# to walrelay, which halts the next time it starts.
"#;

#[test]
fn a_connector_of_kafka_connect_in_full() {
    assert_eq!(debezium("connector.json", CONNECTOR).unwrap(), OF_CONNECTOR.trim_start());
}

const SERVER: &str = r#"
# Debezium Server
debezium.sink.type=kafka
debezium.sink.kafka.producer.bootstrap.servers=kafka-1:9092,kafka-2:9092
debezium.sink.kafka.producer.key.serializer=\
    org.apache.kafka.common.serialization.StringSerializer
debezium.sink.kafka.producer.value.serializer=\
    org.apache.kafka.common.serialization.StringSerializer
debezium.sink.kafka.producer.security.protocol=SASL_SSL
debezium.sink.kafka.producer.sasl.mechanism=SCRAM-SHA-512
debezium.sink.kafka.producer.sasl.jaas.config=\
    org.apache.kafka.common.security.scram.ScramLoginModule \
    required username="relay" password="geheim";
debezium.sink.kafka.producer.compression.type=lz4
debezium.sink.kafka.producer.acks=all
debezium.source.connector.class=io.debezium.connector.postgresql.PostgresConnector
debezium.source.offset.storage.file.filename=data/offsets.dat
debezium.source.offset.flush.interval.ms=0
debezium.source.database.hostname=${DB_HOST:localhost}
debezium.source.database.user=postgres
debezium.source.database.password=${DB_PASSWORD:postgres}
debezium.source.database.dbname=app
debezium.source.topic.prefix=app
debezium.source.plugin.name=pgoutput
debezium.source.snapshot.mode=no_data
debezium.source.table.include.list=public\\.outbox,sales.OutboxEvent
debezium.transforms=outbox
debezium.transforms.outbox.type=io.debezium.transforms.outbox.EventRouter
debezium.transforms.outbox.table.fields.additional.placement=type:envelope:eventType,shard:partition
debezium.transforms.outbox.route.topic.regex=(.*)\\.(.*)
debezium.transforms.outbox.route.topic.replacement=$2.$1
debezium.transforms.outbox.table.op.invalid.behavior=fatal
debezium.format.key=simplestring
debezium.format.header.schemas.enable=false
quarkus.log.level=INFO
"#;

const OF_SERVER: &str = r#"
# Made by `walrelay migrate debezium` from application.properties, a configuration of Debezium
# Server. What stands above a key says what Debezium did otherwise; what stands at the end, which
# options have no counterpart, and how to take over without losing an event.

[postgres]
# debezium.source.database.hostname is ${DB_HOST:localhost}: put its value in the place of
# localhost, or give the whole URL as WALRELAY__POSTGRES__URL.
url = "postgres://postgres@localhost:5432/app"
password_env = "DB_PASSWORD"
slot = "debezium"

# Not Debezium's publication dbz_publication, which may be one of all tables: the first row of a
# table without an [[outbox]] would halt walrelay. How to make this one is said at the end.
publication = "walrelay"

# The slot is there. If its name is wrong here, walrelay says so, and does not make one that begins
# with the present.
create = false

[kafka]
brokers = ["kafka-1:9092", "kafka-2:9092"]

[kafka.properties]
"security.protocol" = "sasl_ssl"
"sasl.mechanisms" = "SCRAM-SHA-512"
"compression.type" = "lz4"
# no counterpart: debezium.sink.kafka.producer.key.serializer: key_format says what a key is.
# no counterpart: debezium.sink.kafka.producer.value.serializer: payload_format says what a value
# is.
# no counterpart: debezium.sink.kafka.producer.sasl.jaas.config: set sasl.username here, and the
# password as WALRELAY__KAFKA__PROPERTIES__SASL_PASSWORD; for OAUTHBEARER see librdkafka's
# sasl.oauthbearer.*.
# no counterpart: debezium.sink.kafka.producer.acks: always all.

[delivery]
# Debezium has no such header, and this leaves it out. Without this line each record carries its
# position, and consumers can drop every repeat by one comparison.
position_header = ""

[[outbox]]
table = "public.outbox"

# An UPDATE that changes the primary key is an event to Debezium; here it is an update like any
# other (on_update).
id = "id"
key = "aggregateid"
payload = "payload"

# Of columns with a DEFAULT, Debezium writes that into schemas, and sends it in the place of NULL;
# here NULL is null, and schemas have no defaults. Such a key may have other bytes, and another
# partition.
payload_format = "json_with_schema"
envelope = { eventType = "type" }
topic = "{aggregatetype}"
topic_regex = '(.*)\.(.*)'
topic_replacement = "$2.$1"

# Debezium Server's Kafka sink ignores it, so that the key has decided; with this line events would
# move.
# partition = "shard"

# Debezium's records bear the time at which a row was sent, walrelay's that of the commit.
timestamp = ""

# The four headers __debezium.context.*, which Debezium 3.3 and later send first
# (extended.headers.enabled), are not sent.
headers = {}
header_format = "json"
on_update = "halt"

# Debezium gives all events of one version of the schema the name that the first one had after its
# start; here each has its own.
schema_name = "app.public.outbox.{aggregatetype}.Value"

[[outbox]]
# Debezium compares without regard to case. Write sales.outboxevent if the table was made without
# quotes.
table = 'sales."OutboxEvent"'
id = "id"
key = "aggregateid"
payload = "payload"
payload_format = "json_with_schema"
envelope = { eventType = "type" }
topic = "{aggregatetype}"
topic_regex = '(.*)\.(.*)'
topic_replacement = "$2.$1"
timestamp = ""
headers = {}
header_format = "json"
on_update = "halt"
schema_name = "app.sales.OutboxEvent.{aggregatetype}.Value"

# no counterpart: debezium.source.offset.storage.file.filename: how far walrelay has got is in the
# slot, and in the topic delivery.positions_topic.
# no counterpart: debezium.source.offset.flush.interval.ms: how far walrelay has got is in the slot,
# and in the topic delivery.positions_topic.
# no counterpart: debezium.source.snapshot.mode: there are no snapshots; rows from before the slot
# are never sent.
# no counterpart: quarkus.log.level: of Quarkus; see [http] and [log].

# Taking over from Debezium
#
# walrelay goes on where the slot debezium stands, and sends everything behind that. So no event is
# missing, and Debezium's own offsets are not needed; some events may come a second time, with the
# same header id.
#
# 1. While Debezium runs: do what the comments above ask for.
# 2. Still while Debezium runs: make a publication of the outbox tables alone. dbz_publication, if
#    Debezium made it, is FOR ALL TABLES. (If it holds the outbox tables and no others, name it in
#    postgres.publication, and leave this step out.)
#      BEGIN;
#      LOCK TABLE "public"."outbox", "sales"."OutboxEvent" IN SHARE ROW EXCLUSIVE MODE;
#      CREATE PUBLICATION "walrelay" FOR TABLE "public"."outbox", "sales"."OutboxEvent"
#        WITH (publish = 'insert, update', publish_via_partition_root = true);
#      COMMIT;
#    Then wait until Debezium is past that: rows are read with the publications of their time. X is
#    what the first line answers; it may take an event or two, and a flush of Debezium's offsets (a
#    minute on Kafka Connect).
#      SELECT pg_current_wal_lsn();
#      SELECT confirmed_flush_lsn >= 'X' FROM pg_replication_slots
#        WHERE slot_name = 'debezium';
# 3. Look with `walrelay check`, which changes nothing; there must be nothing to mend. Stop Debezium
#    Server, with SIGTERM.
#    A clean stop flushes its offsets and confirms them. The offset of a row names the transaction
#    before it, so that the last one comes again, and what was under way. If it was killed, it is
#    everything since it last flushed its offsets.
#    To have no repeat either: insert nothing until step 4, and when the last event is in Kafka and
#    Debezium has stopped, move the slot behind it. An event that is not in Kafka by then is lost by
#    this.
#      SELECT pg_replication_slot_advance('debezium', pg_current_wal_lsn());
# 4. Start walrelay. It may be started before that: it stands by for as long as Debezium reads the
#    slot. It leaves a comment on the publication, so that it will notice if the slot is ever lost;
#    if its role may not, the log says so, with the SQL.
#
# Once walrelay has begun, do not start Debezium with the same slot again: what it confirms is a gap
# to walrelay, which halts the next time it starts.
"#;

#[test]
fn a_debezium_server_in_full() {
    assert_eq!(debezium("application.properties", SERVER).unwrap(), OF_SERVER.trim_start());
}
