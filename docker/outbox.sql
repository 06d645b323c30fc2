-- The outbox, and what walrelay needs besides wal_level = logical. Run it as a superuser.

-- Debezium's default columns, which walrelay's defaults fit.
CREATE TABLE outbox (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    aggregatetype varchar(255) NOT NULL,   -- the topic: outbox.event.{aggregatetype}
    aggregateid   varchar(255) NOT NULL,   -- the key
    type          varchar(255) NOT NULL,   -- the header eventType
    payload       jsonb                    -- the value, as Postgres prints it
);

-- It reads the log, so it needs no right on the table. Choose another password.
CREATE ROLE walrelay LOGIN REPLICATION PASSWORD 'walrelay';

CREATE PUBLICATION walrelay FOR TABLE outbox WITH (publish = 'insert');

-- The relay notes in the publication's comment that its slot exists, so that a slot that is lost
-- later does not look like a first start. Only the owner of a publication may.
ALTER PUBLICATION walrelay OWNER TO walrelay;
