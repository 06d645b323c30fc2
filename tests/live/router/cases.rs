//! The behaviours, in the order in which the router is described.
//!
//! `outbox.event.Router` is Debezium's default topic for the aggregate type `Router`, and so on.

#![expect(clippy::needless_update, reason = "cases that give everything look like the others")]

use super::{Case, Halts, Refuses, Sends};

/// Debezium's default table.
pub(super) const COLUMNS: &str =
    "id text, aggregatetype text, aggregateid text, type text, payload text";

/// What most cases have in common.
const PLAIN: Case = Case {
    what: "",
    differs: "",
    columns: "",
    outbox: "",
    rows: &["('1', 'Router', 'k', 'made', 'p')"],
    outcome: Sends(&[r#"outbox.event.Router "k" "p" id="1" eventType="made""#]),
};

/// The same without an event type.
const BARE: Case = Case {
    outbox: "headers = {}",
    outcome: Sends(&[r#"outbox.event.Router "k" "p" id="1""#]),
    ..PLAIN
};

pub(super) const CASES: &[Case] = &[
    // 4. The produced record.
    Case {
        what: "topic: the value of the routing column goes into the replacement, its case is kept",
        rows: &["('1', 'RouterUser', 'k', 'made', 'p')"],
        outcome: Sends(&[r#"outbox.event.RouterUser "k" "p" id="1" eventType="made""#]),
        ..PLAIN
    },
    Case {
        what: "topic: another column may be the one",
        outbox: "topic = 'outbox.event.{type}'\nheaders = {}",
        rows: &["('1', 'x', 'k', 'Router', 'p')"],
        ..BARE
    },
    Case {
        what: "topic: where the whole value matches the regex, the replacement has its groups",
        outbox: "topic = '{aggregatetype}'\ntopic_regex = '(.*)-(?<rest>.*)'\n\
                 topic_replacement = '${rest}.$1'\nheaders = {}",
        rows: &["('1', 'a-router', 'k', 'made', 'p')"],
        outcome: Sends(&[r#"router.a "k" "p" id="1""#]),
        ..BARE
    },
    Case {
        what: "topic: where it does not, the value itself is the topic, without any prefix",
        outbox: "topic = '{aggregatetype}'\ntopic_regex = 'order|payment'\n\
                 topic_replacement = 'events.$0'\nheaders = {}",
        rows: &[
            "('1', 'router.raw', 'k', 'made', 'p')",
            "('2', 'orders.router', 'k', 'made', 'q')",
        ],
        outcome: Sends(&[r#"router.raw "k" "p" id="1""#, r#"orders.router "k" "q" id="2""#]),
        ..BARE
    },
    Case {
        what: "topic: only the first find is replaced, what follows is kept",
        outbox: "topic = '{aggregatetype}'\ntopic_regex = 'router|router.*'\n\
                 topic_replacement = 'm.$0'\nheaders = {}",
        rows: &["('1', 'routers', 'k', 'made', 'p')"],
        outcome: Sends(&[r#"m.routers "k" "p" id="1""#]),
        ..BARE
    },
    Case {
        what: "key: the value of the column, and never the primary key of the table",
        columns: "id int PRIMARY KEY, aggregatetype text, aggregateid text, payload text",
        outbox: "headers = {}",
        rows: &["(7, 'Router', 'not 7', 'p')"],
        outcome: Sends(&[r#"outbox.event.Router "not 7" "p" id="7""#]),
        ..BARE
    },
    Case {
        what: "key: NULL is no key, and no other column takes its place",
        rows: &["('1', 'Router', NULL, 'made', 'p')"],
        outcome: Sends(&[r#"outbox.event.Router null "p" id="1""#]),
        ..BARE
    },
    Case {
        what: "key: with JsonConverter, NULL is the text null",
        outbox: "key_format = 'json'\nheaders = {}",
        rows: &["('1', 'Router', NULL, 'made', 'p')", "('2', 'Router', 'k', 'made', 'p')"],
        outcome: Sends(&[
            r#"outbox.event.Router "null" "p" id="1""#,
            r#"outbox.event.Router "\"k\"" "p" id="2""#,
        ]),
        ..BARE
    },
    Case {
        what: "key: empty text is an empty key, and not none",
        rows: &["('1', 'Router', '', 'made', 'p')"],
        outcome: Sends(&[r#"outbox.event.Router "" "p" id="1""#]),
        ..BARE
    },
    Case { what: "value: the payload itself, without an envelope", ..BARE },
    Case {
        what: "value: with an envelope, the payload is its first member, and more follow in order",
        columns: "id text, aggregatetype text, aggregateid text, payload text, b text, a int",
        outbox: "envelope = { bee = 'b', a = 'a' }\nheaders = {}",
        rows: &["('1', 'Router', 'k', 'p', 'x', 5)", "('2', 'Router', 'k', NULL, NULL, NULL)"],
        outcome: Sends(&[
            r#"outbox.event.Router "k" "{\"payload\":\"p\",\"bee\":\"x\",\"a\":5}" id="1""#,
            r#"outbox.event.Router "k" "{\"payload\":null,\"bee\":null,\"a\":null}" id="2""#,
        ]),
        ..BARE
    },
    Case {
        what: "value: the envelope's schema is named after each routed value",
        differs: "of two types with one payload schema, each has its own name; there, the first's",
        columns: "id text, aggregatetype text, aggregateid text, payload text, a text",
        outbox: "envelope = { a = 'a' }\nheaders = {}\npayload_format = 'json_with_schema'\n\
                 schema_name = 's.{aggregatetype}.Value'",
        rows: &["('1', 'Router', 'k', 'p', 'x')", "('2', 'RouterOther', 'k', 'p', 'x')"],
        outcome: Sends(&[
            concat!(
                r#"outbox.event.Router "k" "{\"schema\":{\"type\":\"struct\","#,
                r#"\"fields\":[{\"type\":\"string\",\"optional\":true,\"field\":\"payload\"},"#,
                r#"{\"type\":\"string\",\"optional\":true,\"field\":\"a\"}],\"optional\":false,"#,
                r#"\"name\":\"s.Router.Value\"},\"payload\":{\"payload\":\"p\",\"a\":\"x\"}}" "#,
                r#"id="1""#,
            ),
            concat!(
                r#"outbox.event.RouterOther "k" "{\"schema\":{\"type\":\"struct\","#,
                r#"\"fields\":[{\"type\":\"string\",\"optional\":true,\"field\":\"payload\"},"#,
                r#"{\"type\":\"string\",\"optional\":true,\"field\":\"a\"}],\"optional\":false,"#,
                r#"\"name\":\"s.RouterOther.Value\"},"#,
                r#"\"payload\":{\"payload\":\"p\",\"a\":\"x\"}}" id="2""#,
            ),
        ]),
        ..BARE
    },
    Case {
        what: "headers: id first, then columns in the order of the configuration",
        outbox: "headers = { z = 'type', a = 'aggregatetype', m = 'aggregateid' }",
        outcome: Sends(&[r#"outbox.event.Router "k" "p" id="1" z="made" a="Router" m="k""#]),
        ..PLAIN
    },
    Case {
        what: "headers: a NULL column is a header without a value",
        rows: &["('1', 'Router', 'k', NULL, 'p')"],
        outcome: Sends(&[r#"outbox.event.Router "k" "p" id="1" eventType=null"#]),
        ..PLAIN
    },
    Case {
        what: "headers: a name may be there twice, also id",
        differs: "readers take one or the other of them, so it is refused",
        outbox: "headers = { id = 'id' }",
        outcome: Refuses("outbox[0].headers.id: the column of the key \"id\" has this header"),
        ..PLAIN
    },
    Case {
        what: "partition: an integer column says which, and keys are of no account",
        columns: "id text, aggregatetype text, aggregateid text, payload text, p int",
        outbox: "partition = 'p'\nheaders = {}",
        rows: &["('1', 'Router', 'k', 'p', 0)", "('2', 'Router', 'k', 'p', 2)"],
        outcome: Sends(&[
            r#"outbox.event.Router "k" "p" id="1" partition 0"#,
            r#"outbox.event.Router "k" "p" id="2" partition 2"#,
        ]),
        ..BARE
    },
    Case {
        what: "partition: NULL leaves it to the key",
        columns: "id text, aggregatetype text, aggregateid text, payload text, p int",
        outbox: "partition = 'p'\nheaders = {}",
        rows: &["('1', 'Router', 'k', 'p', NULL)"],
        outcome: Sends(&[r#"outbox.event.Router "k" "p" id="1" partition 2"#]),
        ..BARE
    },
    Case {
        what: "partition: smallint and bigint throw",
        differs: "they are whole numbers, too",
        columns: "id text, aggregatetype text, aggregateid text, payload text, p bigint",
        outbox: "partition = 'p'\nheaders = {}",
        rows: &["('1', 'Router', 'k', 'p', 2)"],
        outcome: Sends(&[r#"outbox.event.Router "k" "p" id="1" partition 2"#]),
        ..BARE
    },
    Case {
        what: "partition: one that the topic does not have is waited for, and then fails the task",
        differs: "it halts at once, with the rows before it sent",
        columns: "id text, aggregatetype text, aggregateid text, payload text, p int",
        outbox: "partition = 'p'\nheaders = {}",
        rows: &["('1', 'Router', 'k', 'p', 0)", "('2', 'Router', 'k', 'p', 3)"],
        outcome: Halts(
            &[r#"outbox.event.Router "k" "p" id="1""#],
            "it asks for partition 3, and topic outbox.event.Router has 3",
        ),
        ..BARE
    },
    Case {
        what: "timestamp: a bigint column with milliseconds, whatever its sign",
        differs: "there, timestamptz, date and bigint fail; and here NULL is the commit's time",
        columns: "id text, aggregatetype text, aggregateid text, payload text, t timestamptz",
        outbox: "timestamp = 't'\nheaders = {}",
        rows: &["('1', 'Router', 'k', 'p', '2020-02-03 04:05:06.789+00')"],
        outcome: Sends(&[r#"outbox.event.Router "k" "p" id="1" time 1580702706789"#]),
        ..BARE
    },
    Case {
        what: "order: that of the commits",
        rows: &[
            "('1', 'Router', 'k', 'made', 'a')",
            "INSERT INTO T VALUES ('2', 'Router', 'k', 'x', 'b'), ('3', 'Router', 'k', 'x', 'c')",
            "('4', 'Router', 'k', 'made', 'd')",
        ],
        outcome: Sends(&[
            r#"outbox.event.Router "k" "a" id="1""#,
            r#"outbox.event.Router "k" "b" id="2""#,
            r#"outbox.event.Router "k" "c" id="3""#,
            r#"outbox.event.Router "k" "d" id="4""#,
        ]),
        ..BARE
    },
    // 5. Tombstones.
    Case {
        what: "tombstone: with the option, empty and blank text and NULL; JSON null is text",
        outbox: "tombstone_if_blank = true\nheaders = {}",
        rows: &[
            "('1', 'Router', 'k', 'x', '')",
            "('2', 'Router', 'k', 'x', E' \\t\\n\\x01')",
            "('3', 'Router', 'k', 'x', NULL)",
            "('4', 'Router', 'k', 'x', 'null')",
            "('5', 'Router', 'k', 'x', E'\\u00A0')",
        ],
        outcome: Sends(&[
            r#"outbox.event.Router "k" null id="1""#,
            r#"outbox.event.Router "k" null id="2""#,
            r#"outbox.event.Router "k" null id="3""#,
            r#"outbox.event.Router "k" "null" id="4""#,
            r#"outbox.event.Router "k" "\u{a0}" id="5""#,
        ]),
        ..BARE
    },
    Case {
        what: "tombstone: jsonb is one as NULL only",
        columns: "id text, aggregatetype text, aggregateid text, payload jsonb",
        outbox: "tombstone_if_blank = true\nheaders = {}",
        rows: &["('1', 'Router', 'k', 'null')", "('2', 'Router', 'k', NULL)"],
        outcome: Sends(&[
            r#"outbox.event.Router "k" "null" id="1""#,
            r#"outbox.event.Router "k" null id="2""#,
        ]),
        ..BARE
    },
    Case {
        what: "tombstone: bytea without bytes is none, NULL is one",
        columns: "id text, aggregatetype text, aggregateid text, payload bytea",
        outbox: "tombstone_if_blank = true\nheaders = {}",
        rows: &["('1', 'Router', 'k', '')", "('2', 'Router', 'k', NULL)"],
        outcome: Sends(&[
            r#"outbox.event.Router "k" "" id="1""#,
            r#"outbox.event.Router "k" null id="2""#,
        ]),
        ..BARE
    },
    Case {
        what: "tombstone: without the option, empty text is an empty value, and NULL is one still",
        rows: &["('1', 'Router', 'k', 'x', '')", "('2', 'Router', 'k', 'x', NULL)"],
        outcome: Sends(&[
            r#"outbox.event.Router "k" "" id="1""#,
            r#"outbox.event.Router "k" null id="2""#,
        ]),
        ..BARE
    },
    Case {
        what: "tombstone: without the option, NULL through JsonConverter is the text null",
        outbox: "payload_format = 'json'\nheaders = {}",
        rows: &["('1', 'Router', 'k', 'x', NULL)"],
        outcome: Sends(&[r#"outbox.event.Router "k" "null" id="1""#]),
        ..BARE
    },
    Case {
        what: "tombstone: key, headers, partition and time are kept, the envelope is lost",
        columns: "id text, aggregatetype text, aggregateid text, payload text, p int, t bigint",
        outbox: "tombstone_if_blank = true\npartition = 'p'\ntimestamp = 't'\n\
                 envelope = { p = 'p' }\nheaders = { t = 'aggregatetype' }",
        rows: &["('1', 'Router', 'k', ' ', 2, 1600000000000)"],
        outcome: Sends(&[
            r#"outbox.event.Router "k" null id="1" t="Router" partition 2 time 1600000000000"#,
        ]),
        ..BARE
    },
    // 6. JSON expansion: here, the text of the column is sent as it is.
    Case {
        what: "expansion: members that are null or [] vanish, numbers and spaces are rendered anew",
        differs: "nothing is lost: json is sent byte for byte",
        columns: "id text, aggregatetype text, aggregateid text, payload json",
        outbox: "headers = {}",
        rows: &[
            r#"('1', 'Router', 'k', '{"a": null, "b":[],"c":1.0, "c":2e3}')"#,
            "('2', 'Router', 'k', '[1, 2.5, 12345678901234567890]')",
            r#"('3', 'Router', 'k', '  {"a":[{"p":1},{"q":null}]}')"#,
        ],
        outcome: Sends(&[
            r#"outbox.event.Router "k" "{\"a\": null, \"b\":[],\"c\":1.0, \"c\":2e3}" id="1""#,
            r#"outbox.event.Router "k" "[1, 2.5, 12345678901234567890]" id="2""#,
            r#"outbox.event.Router "k" "  {\"a\":[{\"p\":1},{\"q\":null}]}" id="3""#,
        ]),
        ..BARE
    },
    Case {
        what: "expansion: jsonb in Postgres' order of members, with null",
        columns: "id text, aggregatetype text, aggregateid text, payload jsonb",
        outbox: "headers = {}",
        rows: &[r#"('1', 'Router', 'k', '{"bb":1, "a":[[],[1]], "c":null}')"#],
        outcome: Sends(&[
            r#"outbox.event.Router "k" "{\"a\": [[], [1]], \"c\": null, \"bb\": 1}" id="1""#,
        ]),
        ..BARE
    },
    Case {
        what: "expansion: text that is no JSON, or more than that, goes out as text",
        differs: "what follows a complete value is kept, too",
        rows: &[
            "('1', 'Router', 'k', 'x', '{\"a\":')",
            "('2', 'Router', 'k', 'x', '{\"a\":1}{\"b\":2}')",
            "('3', 'Router', 'k', 'x', 'plain')",
        ],
        outcome: Sends(&[
            r#"outbox.event.Router "k" "{\"a\":" id="1""#,
            r#"outbox.event.Router "k" "{\"a\":1}{\"b\":2}" id="2""#,
            r#"outbox.event.Router "k" "plain" id="3""#,
        ]),
        ..BARE
    },
    Case {
        what: "expansion: not asked for, JsonConverter makes a string in quotes of it",
        columns: "id text, aggregatetype text, aggregateid text, payload jsonb",
        outbox: "payload_format = 'json'\nheaders = {}",
        rows: &[r#"('1', 'Router', 'k', '{"a":1}')"#],
        outcome: Sends(&[r#"outbox.event.Router "k" "\"{\\\"a\\\": 1}\"" id="1""#]),
        ..BARE
    },
    // 8. Tracing.
    Case {
        what: "tracing: the properties of the column become headers before id",
        differs: "those of the application, and not a span of our own; baggage is forwarded, too",
        columns: "id text, aggregatetype text, aggregateid text, payload text, s text",
        outbox: "span_context = 's'\nheaders = {}",
        rows: &[
            "('1', 'Router', 'k', 'p', E'traceparent=00-ab-cd-01\\ntracestate\\\\:x : y\\n')",
            "('2', 'Router', 'k', 'p', E'traceparent:00-ab-cd-01\\nbaggage=a\\ntracestate=v')",
        ],
        outcome: Sends(&[
            r#"outbox.event.Router "k" "p" traceparent="00-ab-cd-01" id="1""#,
            concat!(
                r#"outbox.event.Router "k" "p" traceparent="00-ab-cd-01" tracestate="v" "#,
                r#"baggage="a" id="2""#,
            ),
        ]),
        ..BARE
    },
    Case {
        what: "tracing: NULL is nothing; text without the names is a new trace",
        differs: "text without them is nothing, either",
        columns: "id text, aggregatetype text, aggregateid text, payload text, s text",
        outbox: "span_context = 's'\nheaders = {}",
        rows: &["('1', 'Router', 'k', 'p', NULL)", "('2', 'Router', 'k', 'p', '00-ab-cd-01')"],
        outcome: Sends(&[
            r#"outbox.event.Router "k" "p" id="1""#,
            r#"outbox.event.Router "k" "p" id="2""#,
        ]),
        ..BARE
    },
    Case {
        what: "tracing: a table need not have the column",
        outbox: "span_context = 'tracingspancontext'\nheaders = {}",
        ..BARE
    },
    // 9. Errors.
    Case {
        what: "error: the payload's column is missing: fails at the first row",
        differs: "known before a row comes; so are the next five",
        outbox: "payload = 'nope'",
        outcome: Refuses("has no column nope, which payload of its [[outbox]] names"),
        ..PLAIN
    },
    Case {
        what: "error: the id's column is missing",
        outbox: "id = 'nope'",
        outcome: Refuses("has no column nope, which id of its [[outbox]] names"),
        ..PLAIN
    },
    Case {
        what: "error: the key's column is missing",
        outbox: "key = 'nope'",
        outcome: Refuses("has no column nope, which key of its [[outbox]] names"),
        ..PLAIN
    },
    Case {
        what: "error: the timestamp's column is missing",
        outbox: "timestamp = 'nope'",
        outcome: Refuses("has no column nope, which timestamp of its [[outbox]] names"),
        ..PLAIN
    },
    Case {
        what: "error: the timestamp's column is no time",
        outbox: "timestamp = 'type'",
        outcome: Refuses("column type of public.T cannot be the timestamp"),
        ..PLAIN
    },
    Case {
        what: "error: the routing column is missing",
        outbox: "topic = '{nope}'",
        outcome: Refuses("has no column nope, which topic of its [[outbox]] names"),
        ..PLAIN
    },
    Case {
        what: "error: the routing column is no text",
        differs: "whatever is in it has a text",
        columns: "id text, aggregatetype int, aggregateid text, payload text",
        outbox: "topic = 'router.{aggregatetype}'\nheaders = {}",
        rows: &["('1', 7, 'k', 'p')"],
        outcome: Sends(&[r#"router.7 "k" "p" id="1""#]),
        ..BARE
    },
    Case {
        what: "error: the routing column is NULL",
        rows: &["('1', 'Router', 'k', 'made', 'p')", "('2', NULL, 'k', 'made', 'p')"],
        outcome: Halts(
            &[r#"outbox.event.Router "k" "p" id="1""#],
            "of public.T (id 2): a column of the topic is NULL",
        ),
        ..BARE
    },
    Case {
        what: "error: an envelope's column is missing",
        outbox: "envelope = { a = 'nope' }",
        outcome: Refuses("has no column nope, which envelope of its [[outbox]] names"),
        ..PLAIN
    },
    Case {
        what: "error: a header's column is missing",
        outbox: "headers = { a = 'nope' }",
        outcome: Refuses("has no column nope, which headers of its [[outbox]] names"),
        ..PLAIN
    },
    Case {
        what: "error: the partition's column is missing",
        outbox: "partition = 'nope'",
        outcome: Refuses("has no column nope, which partition of its [[outbox]] names"),
        ..PLAIN
    },
    Case {
        what: "error: columns that are missing are done without, if that is asked for",
        outbox: "partition = 'nope'\nheaders = { a = 'nope' }\nenvelope = { b = 'nope' }\n\
                 missing_columns = 'ignore'",
        outcome: Sends(&[r#"outbox.event.Router "k" "{\"payload\":\"p\"}" id="1""#]),
        ..PLAIN
    },
    Case {
        what: "error: the partition's column is no integer",
        outbox: "partition = 'type'",
        outcome: Refuses("column type of public.T cannot be the partition"),
        ..PLAIN
    },
    Case {
        what: "error: the topic has a name that Kafka does not allow: the engine stops",
        differs: "it halts, and the reason names the row",
        rows: &["('1', 'Router', 'k', 'made', 'p')", "('2', 'a b', 'k', 'made', 'p')"],
        outcome: Halts(
            &[r#"outbox.event.Router "k" "p" id="1""#],
            "of public.T (id 2): ' ' is not allowed in a topic name",
        ),
        ..BARE
    },
    Case {
        what: "error: errors.tolerance = all leaves the row out",
        outbox: "headers = {}\non_poison = 'skip'",
        rows: &["('1', NULL, 'k', 'made', 'p')", "('2', 'Router', 'k', 'made', 'q')"],
        outcome: Sends(&[r#"outbox.event.Router "k" "q" id="2""#]),
        ..BARE
    },
    Case {
        what: "error: there is no topic for rows that fail",
        differs: "on_poison = \"dead_letter\" has one",
        outbox: "headers = {}\non_poison = 'dead_letter'\ndead_letter_topic = 'router.dead'",
        rows: &["('1', NULL, 'k', 'made', 'p')", "('2', 'Router', 'k', 'made', 'q')"],
        outcome: Sends(&[
            concat!(
                r#"router.dead "k" "p" id="1" walrelay-reason="a column of the topic is NULL" "#,
                r#"walrelay-id="1" walrelay-payload-bytes="1""#,
            ),
            r#"outbox.event.Router "k" "q" id="2""#,
        ]),
        ..BARE
    },
    // 11. What is tested there, where it is not said above.
    Case {
        what: "a deleted row, and one that is inserted and deleted in one transaction",
        rows: &[
            "('1', 'Router', 'k', 'made', 'p')",
            "DELETE FROM T WHERE id = '1'",
            "BEGIN; INSERT INTO T VALUES ('2', 'Router', 'k', 'x', 'q'); DELETE FROM T; COMMIT",
            "TRUNCATE T",
        ],
        outcome: Sends(&[
            r#"outbox.event.Router "k" "p" id="1""#,
            r#"outbox.event.Router "k" "q" id="2""#,
        ]),
        ..BARE
    },
    Case {
        what: "an updated row is no event",
        columns: "id text PRIMARY KEY, aggregatetype text, aggregateid text, payload text",
        rows: &["('1', 'Router', 'k', 'p')", "UPDATE T SET payload = 'q'"],
        ..BARE
    },
    Case {
        what: "an updated row fails the task, if that is asked for",
        columns: "id text PRIMARY KEY, aggregatetype text, aggregateid text, payload text",
        outbox: "headers = {}\non_update = 'halt'",
        rows: &[
            "ALTER PUBLICATION T SET (publish = 'insert, update')",
            "('1', 'Router', 'k', 'p')",
            "UPDATE T SET payload = 'q'",
        ],
        outcome: Halts(&[r#"outbox.event.Router "k" "p" id="1""#], "updated"),
        ..BARE
    },
    Case {
        what: "messages of pg_logical_emit_message are passed through to a topic of their own",
        differs: "they are not sent without a [[message]]",
        rows: &[
            "SELECT pg_logical_emit_message(true, 'outbox', 'x')",
            "('1', 'Router', 'k', 'made', 'p')",
        ],
        ..BARE
    },
    Case {
        what: "every column may have another name",
        columns: "event uuid, class text, of bigint, kind text, body text",
        outbox: "id = 'event'\nkey = 'of'\ntopic = 'outbox.event.{class}'\npayload = 'body'\n\
                 headers = { eventType = 'kind' }",
        rows: &["('3f0c2b5e-0000-4000-8000-000000000000', 'Router', 5, 'made', 'p')"],
        outcome: Sends(&[concat!(
            r#"outbox.event.Router "5" "p" id="3f0c2b5e-0000-4000-8000-000000000000" "#,
            r#"eventType="made""#,
        )]),
        ..PLAIN
    },
    Case {
        what: "the key may be of another column, binary, or a number",
        columns: "id text, aggregatetype text, aggregateid bytea, payload bytea",
        outbox: "headers = {}",
        rows: &["('1', 'Router', 'abc', '\\x6465')"],
        outcome: Sends(&[r#"outbox.event.Router "abc" "de" id="1""#]),
        ..BARE
    },
    Case {
        what: "a regex that is none is refused",
        outbox: "topic_regex = '('",
        outcome: Refuses("outbox[0].topic_regex"),
        ..PLAIN
    },
    Case {
        what: "a policy for updates that is none is refused",
        outbox: "on_update = 'fatal'",
        outcome: Refuses("outbox[0].on_update: expected \"ignore\", \"warn\" or \"halt\""),
        ..PLAIN
    },
];
