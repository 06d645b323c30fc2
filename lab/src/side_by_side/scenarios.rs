//! The scenarios: the options of the event router and the formats of Debezium Server that are in
//! use, each with rows that have what is odd about text, JSON, bytes, keys and times.

use crate::scenario::{Options, Scenario};

/// Functions that rows are made of: text with a bit of everything, and a document of it.
pub const FUNCTIONS: &str = r#"
CREATE FUNCTION odd(i int) RETURNS text LANGUAGE sql AS $$
    SELECT (ARRAY['plain ', 'größer ', '日本語 ', 'русский ', '🚀 beyond ', E'line\nbreak ',
        E'tab\tand "quotes" \\ / ', E'control \u0001\u001f\u007f ',
        E'e\u0301 nbsp\u00a0 bom\ufeff ', '  blanks  ', '{"a": [1, null]}', '\x00ff',
        '${env} $1 {id} %s '])[1 + i % 13] || i
$$;
CREATE FUNCTION document(i int) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('n', i, 'text', odd(i), 'words', jsonb_build_array(odd(i), 'word'),
        'nothing', NULL, 'none', '[]'::jsonb, 'price', round(i::numeric / 8, 3),
        'large', i::bigint * 4000000000, 'within', jsonb_build_object('even', i % 2 = 0,
            'deeper', jsonb_build_object('odd', odd(i + 5))))
$$;
CREATE FUNCTION kind(i int) RETURNS text LANGUAGE sql AS $$
    SELECT (ARRAY['order', 'customer', 'Invoice'])[1 + i % 3]
$$;
"#;

const DEFAULT: &str = "
    id uuid PRIMARY KEY,
    aggregatetype varchar(255) NOT NULL,
    aggregateid varchar(255) NOT NULL,
    type varchar(255) NOT NULL,
    payload jsonb";

const TEXT: &str = "
    id uuid PRIMARY KEY,
    aggregatetype text NOT NULL,
    aggregateid text,
    type text,
    payload text";

const BYTES: &str = "
    id uuid PRIMARY KEY,
    aggregatetype text NOT NULL,
    aggregateid text,
    payload bytea";

const WITH_DEFAULTS: &str = "
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    aggregatetype varchar(255) NOT NULL,
    aggregateid varchar(255) NOT NULL DEFAULT 'nobody',
    payload jsonb,
    tenant text DEFAULT 'acme',
    place text DEFAULT 'here'";

/// Columns of many types, for headers and envelopes.
const MANY: &str = "
    id uuid PRIMARY KEY,
    aggregatetype varchar(255) NOT NULL,
    aggregateid varchar(255) NOT NULL,
    type varchar(255) NOT NULL,
    payload jsonb,
    tenant text,
    flag boolean,
    small smallint,
    amount numeric(10,2),
    large bigint,
    ratio double precision,
    at timestamptz,
    happened timestamp,
    milli timestamp(3),
    day date,
    clock time,
    tags text[],
    doc jsonb,
    raw bytea,
    ref uuid,
    version integer NOT NULL";

const MANY_ROWS: &[&str] = &[
    "INSERT INTO outbox SELECT gen_random_uuid(), kind(i), 'key-' || i % 20, odd(i), document(i),
        odd(i), i % 2 = 0, i, i * 1.37, i::bigint * 9007199254740993, i / 7.0::float8,
        '2026-02-03 04:05:06.789+02'::timestamptz + i * interval '1.000001 hours',
        '2026-02-03 04:05:06.789123'::timestamp + i * interval '1 hour',
        '2026-02-03 04:05:06.789'::timestamp + i * interval '1 day',
        '2026-02-03'::date + i, '04:05:06.789123'::time + i * interval '1 minute',
        ARRAY[odd(i), NULL, 'tag'], document(i), decode(md5(i::text), 'hex'), gen_random_uuid(),
        1 + i % 3 / 2
        FROM generate_series(1, 150) i",
    "INSERT INTO outbox (id, aggregatetype, aggregateid, type, version)
        SELECT gen_random_uuid(), kind(i), 'key-' || i, 'nothing', 1 FROM generate_series(1, 30) i",
];

const KINDS: &[&str] = &["outbox.event.order", "outbox.event.customer", "outbox.event.Invoice"];

const NO_CONTEXT: (&str, &str) = ("source.extended.headers.enabled", "false");
const TEXT_KEY: (&str, &str) = ("format.key", "simplestring");
const TEXT_VALUE: (&str, &str) = ("format.value", "simplestring");
const PLAIN_HEADER: (&str, &str) = ("format.header.schemas.enable", "false");

/// As the server comes: JSON with schemas, in key, value and headers.
const WITH_SCHEMAS: Options = &[NO_CONTEXT];
const JSON: Options = &[NO_CONTEXT, ("format.schemas.enable", "false")];
const PLAIN: Options = &[NO_CONTEXT, TEXT_KEY, TEXT_VALUE, PLAIN_HEADER];
const PLAIN_KEY: Options =
    &[NO_CONTEXT, TEXT_KEY, ("format.value.schemas.enable", "false"), PLAIN_HEADER];
const BINARY: Options = &[NO_CONTEXT, TEXT_KEY, ("format.value", "binary"), PLAIN_HEADER];

const EVENT_TYPE: (&str, &str) = ("table.fields.additional.placement", "type:header:eventType");
const EXPAND: (&str, &str) = ("table.expand.json.payload", "true");
const TOMBSTONE: (&str, &str) = ("route.tombstone.on.empty.payload", "true");

const BYTES_ROWS: &[&str] = &["INSERT INTO outbox (id, aggregatetype, aggregateid, payload)
    SELECT gen_random_uuid(), kind(i), odd(i), CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2
        THEN decode(md5(i::text), 'hex') || '\\x00ff0a' ELSE convert_to(odd(i), 'UTF8') END
    FROM generate_series(1, 150) i"];

const DOCUMENTS: &[&str] = &[
    "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
        SELECT gen_random_uuid(), kind(i), 'key-' || i % 40, odd(i), document(i)
            FROM generate_series(1, 300) i",
    "INSERT INTO outbox (id, aggregatetype, aggregateid, type)
        SELECT gen_random_uuid(), kind(i), 'key-' || i % 40, 'nothing'
            FROM generate_series(1, 20) i",
];

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "defaults",
        columns: DEFAULT,
        server: &[],
        router: &[],
        rows: &["DO $$ BEGIN
            FOR i IN 1..2000 LOOP
                INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
                VALUES (gen_random_uuid(), kind(i), 'key-' || i % 200, 'created', document(i));
                IF i % 10 = 0 THEN COMMIT; END IF;
            END LOOP;
        END $$"],
        topics: KINDS,
    },
    Scenario {
        name: "text",
        columns: TEXT,
        server: PLAIN,
        router: &[EVENT_TYPE],
        rows: ODD_ROWS,
        topics: KINDS,
    },
    Scenario {
        name: "JSON without schemas",
        columns: TEXT,
        server: JSON,
        router: &[EVENT_TYPE],
        rows: ODD_ROWS,
        topics: KINDS,
    },
    Scenario {
        name: "JSON with schemas",
        columns: TEXT,
        server: WITH_SCHEMAS,
        router: &[EVENT_TYPE],
        rows: ODD_ROWS,
        topics: KINDS,
    },
    Scenario {
        name: "columns and routes",
        columns: "
            event_id uuid PRIMARY KEY,
            topic_name text NOT NULL,
            agg_key text,
            kind varchar(40),
            body jsonb",
        server: PLAIN,
        router: &[
            ("table.field.event.id", "event_id"),
            ("table.field.event.key", "agg_key"),
            ("table.field.event.type", "kind"),
            ("table.field.event.payload", "body"),
            ("table.fields.additional.placement", "kind:header, agg_key : HEADER : key "),
            ("route.by.field", "topic_name"),
            ("route.topic.regex", r"(?<area>[a-z]+)\.(?<kind>[a-z]+)"),
            ("route.topic.replacement", "@${kind}.of.$1"),
        ],
        rows: &["INSERT INTO outbox (event_id, topic_name, agg_key, kind, body)
            SELECT gen_random_uuid(),
                (ARRAY['eu.orders', 'us.orders', 'eu.refunds', 'us.refunds'])[1 + i % 4],
                'key-' || i % 30, kind(i), document(i) FROM generate_series(1, 200) i"],
        topics: &["orders.of.eu", "orders.of.us", "refunds.of.eu", "refunds.of.us"],
    },
    Scenario {
        name: "headers into one topic",
        columns: MANY,
        server: PLAIN,
        router: &[
            ("table.fields.additional.placement", MANY_HEADERS),
            ("route.topic.replacement", "@all.events"),
        ],
        rows: MANY_ROWS,
        topics: &["all.events"],
    },
    Scenario {
        name: "headers with schemas",
        columns: MANY,
        server: &[NO_CONTEXT, TEXT_KEY, TEXT_VALUE],
        router: &[("table.fields.additional.placement", MANY_HEADERS)],
        rows: MANY_ROWS,
        topics: KINDS,
    },
    Scenario {
        name: "envelope",
        columns: MANY,
        server: PLAIN_KEY,
        router: &[("table.fields.additional.placement", MANY_MEMBERS)],
        rows: MANY_ROWS,
        topics: KINDS,
    },
    Scenario {
        name: "envelope with schema and version",
        columns: MANY,
        server: WITH_SCHEMAS,
        router: &[
            ("table.fields.additional.placement", MANY_MEMBERS),
            ("table.field.event.schema.version", "version"),
        ],
        rows: MANY_ROWS,
        topics: KINDS,
    },
    Scenario {
        name: "partition and time",
        columns: "
            id uuid PRIMARY KEY,
            aggregatetype varchar(255) NOT NULL,
            aggregateid varchar(255) NOT NULL,
            payload jsonb,
            shard integer,
            happened timestamp(3)",
        server: PLAIN,
        router: &[
            ("table.fields.additional.placement", "shard:partition"),
            ("table.field.event.timestamp", "happened"),
        ],
        rows: &["INSERT INTO outbox (id, aggregatetype, aggregateid, payload, shard, happened)
            SELECT gen_random_uuid(), kind(i), 'key-' || i % 20, document(i), nullif(i % 7, 6),
                '2026-02-03 04:05:06.789'::timestamp + i * interval '1 minute'
            FROM generate_series(1, 200) i"],
        topics: KINDS,
    },
    Scenario {
        name: "expanded JSON",
        columns: DEFAULT,
        server: PLAIN_KEY,
        router: &[EXPAND, EVENT_TYPE],
        rows: DOCUMENTS,
        topics: KINDS,
    },
    Scenario {
        name: "expanded JSON in an envelope",
        columns: DEFAULT,
        server: PLAIN_KEY,
        router: &[
            EXPAND,
            ("table.fields.additional.placement", "type:envelope:eventType,id:envelope:eventId"),
        ],
        rows: DOCUMENTS,
        topics: KINDS,
    },
    Scenario {
        name: "tombstones as text",
        columns: TEXT,
        server: PLAIN,
        router: &[TOMBSTONE, EVENT_TYPE],
        rows: ODD_ROWS,
        topics: KINDS,
    },
    Scenario {
        name: "tombstones as JSON",
        columns: TEXT,
        server: JSON,
        router: &[TOMBSTONE, EVENT_TYPE],
        rows: ODD_ROWS,
        topics: KINDS,
    },
    Scenario {
        name: "bytes",
        columns: BYTES,
        server: BINARY,
        router: &[TOMBSTONE],
        rows: BYTES_ROWS,
        topics: KINDS,
    },
    Scenario {
        name: "bytes as JSON",
        columns: BYTES,
        server: WITH_SCHEMAS,
        router: &[],
        rows: BYTES_ROWS,
        topics: KINDS,
    },
    Scenario {
        name: "bytes as text",
        columns: BYTES,
        server: PLAIN,
        router: &[],
        rows: BYTES_ROWS,
        topics: KINDS,
    },
    Scenario {
        name: "numbers for keys",
        columns: "
            id bigint PRIMARY KEY,
            aggregatetype varchar(255) NOT NULL,
            aggregateid bigint NOT NULL,
            payload json",
        server: WITH_SCHEMAS,
        router: &[],
        rows: &["INSERT INTO outbox (id, aggregatetype, aggregateid, payload)
            SELECT i, kind(i), i * 1000003::bigint, ('{ \"n\" : ' || i || ' }')::json
            FROM generate_series(1, 200) i"],
        topics: KINDS,
    },
    Scenario {
        name: "columns that are missing",
        columns: DEFAULT,
        server: PLAIN,
        router: &[
            ("table.fields.additional.placement", "trace:header,type:header:eventType"),
            ("table.field.additional.missing", "ignore"),
        ],
        rows: DOCUMENTS,
        topics: KINDS,
    },
    Scenario {
        name: "defaults of columns, schemas",
        columns: WITH_DEFAULTS,
        server: WITH_SCHEMAS,
        router: &[("table.fields.additional.placement", "tenant:header,place:envelope")],
        rows: &["INSERT INTO outbox (aggregatetype, aggregateid, payload)
            SELECT 'order', 'key-' || i, document(i) FROM generate_series(1, 150) i"],
        topics: &["outbox.event.order"],
    },
    Scenario {
        name: "NULL in spite of a default",
        columns: WITH_DEFAULTS,
        server: JSON,
        router: &[("table.fields.additional.placement", "tenant:header,place:envelope")],
        rows: &["INSERT INTO outbox (aggregatetype, aggregateid, payload, tenant, place)
            SELECT kind(i), 'key-' || i, document(i), nullif(odd(i), odd(3)),
                CASE WHEN i % 2 = 0 THEN odd(i) END FROM generate_series(1, 150) i"],
        topics: KINDS,
    },
    Scenario {
        name: "other changes",
        columns: DEFAULT,
        server: PLAIN,
        router: &[EVENT_TYPE],
        rows: OTHER_CHANGES,
        topics: KINDS,
    },
];

const MANY_HEADERS: &str = "type:header:eventType,tenant:header,flag:header,small:header,\
    amount:header,large:header,ratio:header,at:header,happened:header,milli:header,day:header,\
    clock:header,tags:header,doc:header,raw:header,ref:header,version:header";

const MANY_MEMBERS: &str = "type:header:eventType,tenant:envelope,flag:envelope,small:envelope,\
    amount:envelope,large:envelope,ratio:envelope,at:envelope,happened:envelope:happenedAt,\
    milli:envelope,day:envelope,clock:envelope,tags:envelope,doc:envelope,raw:envelope,\
    ref:envelope";

/// Long keys, odd ones, empty ones and none; payloads that are odd, empty, blank, and none.
const ODD_ROWS: &[&str] = &["INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
    SELECT gen_random_uuid(), kind(i),
        CASE WHEN i % 50 = 3 THEN NULL WHEN i % 50 = 4 THEN '' WHEN i % 10 = 0
            THEN repeat('long ', i) WHEN i % 3 = 0 THEN odd(i) ELSE 'key-' || i END,
        CASE WHEN i % 8 = 0 THEN NULL ELSE odd(i) END,
        CASE i % 9 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN E' \\t\\n '
            WHEN 3 THEN document(i)::text ELSE odd(i) END
    FROM generate_series(1, 500) i"];

/// What is no insert, and inserts that are not committed, or later than others.
const OTHER_CHANGES: &[&str] = &[
    "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
        SELECT gen_random_uuid(), kind(i), 'key-' || i % 10, 'created', document(i)
            FROM generate_series(1, 500) i",
    "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
        SELECT gen_random_uuid(), kind(i), 'key-' || i % 10, 'gone', document(i)
            FROM generate_series(1, 50) i;
     DELETE FROM outbox WHERE type = 'gone'",
    "BEGIN;
     INSERT INTO outbox (id, aggregatetype, aggregateid, type)
         VALUES (gen_random_uuid(), 'order', 'key-1', 'undone');
     ROLLBACK",
    "BEGIN;
     INSERT INTO outbox (id, aggregatetype, aggregateid, type)
         VALUES (gen_random_uuid(), 'order', 'key-1', 'first');
     SAVEPOINT here;
     INSERT INTO outbox (id, aggregatetype, aggregateid, type)
         VALUES (gen_random_uuid(), 'order', 'key-1', 'undone');
     ROLLBACK TO here;
     INSERT INTO outbox (id, aggregatetype, aggregateid, type)
         VALUES (gen_random_uuid(), 'order', 'key-1', 'second');
     COMMIT",
    "BEGIN;
     INSERT INTO outbox (id, aggregatetype, aggregateid, type)
         VALUES (gen_random_uuid(), 'order', 'key-1', 'later');
     PREPARE TRANSACTION 'later'",
    "INSERT INTO outbox (id, aggregatetype, aggregateid, type)
        VALUES (gen_random_uuid(), 'order', 'key-1', 'sooner')",
    "COMMIT PREPARED 'later'",
    "UPDATE outbox SET payload = '{\"n\": \"updated\"}' WHERE aggregateid = 'key-2'",
    "UPDATE outbox SET id = gen_random_uuid(), type = 'renumbered' WHERE type = 'sooner'",
    "DELETE FROM outbox WHERE aggregateid = 'key-3'",
    "TRUNCATE outbox",
    "INSERT INTO outbox (id, aggregatetype, aggregateid, type)
        VALUES (gen_random_uuid(), 'order', 'key-1', 'last')",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known::KNOWN;

    #[test]
    fn each_scenario_has_a_name_of_its_own_and_what_is_known_is_of_one() {
        let mut names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SCENARIOS.len());
        for known in KNOWN {
            assert!(names.contains(&known.scenario), "{known:?}");
        }
    }
}
