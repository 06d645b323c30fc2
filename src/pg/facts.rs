//! What a run rests on in Postgres, read in one go. What it means is said in
//! [`preconditions`](super::preconditions).

use tokio_postgres::{Client, Row};

use super::known::Column;
use super::setup::Setup;
use super::slot::{Slot, slot};
use super::sql::SqlError;
use super::table::TableName;

/// Everything that is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The server and our login.
    pub server: Server,
    /// The publication, if there is one.
    pub publication: Option<Publication>,
    /// The outbox tables with their partitions and children, in the order of the configuration.
    pub tables: Vec<Table>,
    /// The slot, if there is one.
    pub slot: Option<Slot>,
}

/// The server and our login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// `server_version_num`: 180004 is 18.4.
    pub version: i32,
    /// `wal_level`.
    pub wal_level: String,
    /// Slots in use.
    pub slots: i64,
    /// `max_replication_slots`.
    pub slots_max: i64,
    /// `synchronous_standby_names`.
    pub synchronous: String,
    /// `idle_replication_slot_timeout` in seconds, 0 for never (version 18 and later).
    pub idle_slot_timeout_s: i64,
    /// Who we are.
    pub role: String,
    /// Whether we may use replication.
    pub may_replicate: bool,
    /// Whether we may create something in the database.
    pub may_create: bool,
    /// The database.
    pub database: String,
    /// Its OID.
    pub database_oid: u32,
}

/// A publication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publication {
    /// Whether it holds inserts.
    pub inserts: bool,
    /// Whether it holds updates or deletes, for which a table needs a replica identity.
    pub changes: bool,
    /// Whether rows of partitions come under the name of the table they are part of.
    pub via_root: bool,
    /// Its comment.
    pub comment: Option<String>,
    /// What is in it.
    pub tables: Vec<Published>,
}

/// A table of a publication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Its name.
    pub table: TableName,
    /// The columns that are sent; `None` before version 15, where it is all but generated ones.
    pub columns: Option<Vec<String>>,
    /// The condition that rows must meet.
    pub row_filter: Option<String>,
}

/// A table of the configuration, or one that is part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Index of the outbox.
    pub outbox: usize,
    /// What rows are known by in the stream.
    pub oid: u32,
    /// Its name.
    pub name: TableName,
    /// Whether it is the one that the configuration names.
    pub named: bool,
    /// `pg_class.relkind`: `r` is a table, `p` a partitioned one.
    pub kind: String,
    /// `pg_class.relpersistence`: `p` is written to the log.
    pub persistence: String,
    /// Whether it belongs to our role.
    pub owned: bool,
    /// Whether it has a primary key or another replica identity.
    pub has_identity: bool,
    /// Its columns.
    pub columns: Vec<Column>,
}

impl Table {
    /// A column by its name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl Facts {
    /// Reads them all.
    pub async fn read(client: &Client, setup: &Setup) -> Result<Facts, SqlError> {
        Ok(Facts {
            server: server(client).await?,
            publication: publication(client, &setup.publication).await?,
            tables: tables(client, setup).await?,
            slot: slot(client, &setup.slot).await?,
        })
    }
}

async fn server(client: &Client) -> Result<Server, SqlError> {
    // Hosted Postgres keeps the attribute REPLICATION to itself, and has a role for it instead.
    let sql = "
        SELECT current_setting('server_version_num')::int4, current_setting('wal_level'),
               (SELECT count(*) FROM pg_catalog.pg_replication_slots),
               current_setting('max_replication_slots')::int8,
               current_setting('synchronous_standby_names'),
               coalesce((SELECT setting::int8 * CASE unit WHEN 'min' THEN 60 ELSE 1 END
                         FROM pg_catalog.pg_settings
                         WHERE name = 'idle_replication_slot_timeout'), 0),
               current_user::text,
               r.rolsuper OR r.rolreplication
                   OR EXISTS (SELECT FROM pg_catalog.pg_roles g
                              WHERE g.rolname IN ('rds_replication', 'cloudsqlreplica')
                                    AND pg_catalog.pg_has_role(g.oid, 'MEMBER')),
               pg_catalog.has_database_privilege(d.oid, 'CREATE'),
               d.datname::text, d.oid
        FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
        WHERE d.datname = current_database() AND r.rolname = current_user";
    let doing = "asking the server about itself";
    let row = client.query_one(sql, &[]).await.map_err(SqlError::when(doing))?;
    let read = |row: &Row| -> Result<Server, tokio_postgres::Error> {
        Ok(Server {
            version: row.try_get(0)?,
            wal_level: row.try_get(1)?,
            slots: row.try_get(2)?,
            slots_max: row.try_get(3)?,
            synchronous: row.try_get(4)?,
            idle_slot_timeout_s: row.try_get(5)?,
            role: row.try_get(6)?,
            may_replicate: row.try_get(7)?,
            may_create: row.try_get(8)?,
            database: row.try_get(9)?,
            database_oid: row.try_get(10)?,
        })
    };
    read(&row).map_err(SqlError::when(doing))
}

async fn publication(client: &Client, name: &str) -> Result<Option<Publication>, SqlError> {
    let doing = "looking for the publication";
    let sql = "
        SELECT pubinsert, pubupdate OR pubdelete, pubviaroot,
               pg_catalog.obj_description(oid, 'pg_publication')
        FROM pg_catalog.pg_publication WHERE pubname = $1";
    let Some(row) = client.query_opt(sql, &[&name]).await.map_err(SqlError::when(doing))? else {
        return Ok(None);
    };
    let doing = "reading the publication's tables";
    // Column lists and row filters came with version 15.
    let sql = "
        SELECT schemaname::text, tablename::text, pg_catalog.to_jsonb(t) ->> 'rowfilter',
               ARRAY(SELECT pg_catalog.jsonb_array_elements_text(
                     nullif(pg_catalog.to_jsonb(t) -> 'attnames', 'null'))),
               pg_catalog.to_jsonb(t) ? 'attnames'
        FROM pg_catalog.pg_publication_tables t WHERE pubname = $1";
    let published = client.query(sql, &[&name]).await.map_err(SqlError::when(doing))?;
    let read = |row: &Row| -> Result<Published, tokio_postgres::Error> {
        let columns: Vec<String> = row.try_get(3)?;
        Ok(Published {
            table: TableName { schema: row.try_get(0)?, name: row.try_get(1)? },
            row_filter: row.try_get(2)?,
            columns: row.try_get::<_, bool>(4)?.then_some(columns),
        })
    };
    let tables =
        published.iter().map(read).collect::<Result<_, _>>().map_err(SqlError::when(doing))?;
    let read = |row: &Row| -> Result<Publication, tokio_postgres::Error> {
        let (inserts, changes) = (row.try_get(0)?, row.try_get(1)?);
        let (via_root, comment) = (row.try_get(2)?, row.try_get(3)?);
        Ok(Publication { inserts, changes, via_root, comment, tables })
    };
    read(&row).map(Some).map_err(SqlError::when(doing))
}

async fn tables(client: &Client, setup: &Setup) -> Result<Vec<Table>, SqlError> {
    let sql = "
        WITH RECURSIVE family AS (
            SELECT w.outbox, c.oid, true AS named
            FROM unnest($1::text[], $2::text[])
                 WITH ORDINALITY AS w (schema, name, outbox)
            JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
            JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
            UNION ALL
            SELECT f.outbox, i.inhrelid, false
            FROM family f JOIN pg_catalog.pg_inherits i ON i.inhparent = f.oid)
        SELECT f.outbox - 1, c.oid, n.nspname::text, c.relname::text, f.named, c.relkind::text,
               c.relpersistence::text, pg_catalog.pg_has_role(c.relowner, 'USAGE'),
               c.relreplident IN ('f', 'i')
                   OR EXISTS (SELECT FROM pg_catalog.pg_index i
                              WHERE i.indrelid = c.oid AND i.indisprimary),
               a.names, a.types, a.bases, a.modifiers, a.elements, a.not_null, a.generated, a.labels
        FROM family f
        JOIN pg_catalog.pg_class c ON c.oid = f.oid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        CROSS JOIN LATERAL (
            SELECT array_agg(a.attname::text ORDER BY a.attnum) AS names,
                   array_agg(a.atttypid ORDER BY a.attnum) AS types,
                   array_agg(b.oid ORDER BY a.attnum) AS bases,
                   array_agg(b.modifier ORDER BY a.attnum) AS modifiers,
                   array_agg(CASE b.category WHEN 'A' THEN b.element ELSE 0 END
                             ORDER BY a.attnum) AS elements,
                   array_agg(a.attnotnull OR b.not_null ORDER BY a.attnum) AS not_null,
                   array_agg(a.attgenerated <> '' ORDER BY a.attnum) AS generated,
                   array_agg(b.labels ORDER BY a.attnum) AS labels
            FROM pg_catalog.pg_attribute a
            CROSS JOIN LATERAL (
                -- A domain may be one over a domain.
                WITH RECURSIVE type AS (
                    SELECT a.atttypid AS oid, a.atttypmod AS modifier, false AS not_null, 0 AS depth
                    UNION ALL
                    SELECT t.typbasetype, t.typtypmod, type.not_null OR t.typnotnull, depth + 1
                    FROM type JOIN pg_catalog.pg_type t ON t.oid = type.oid AND t.typtype = 'd')
                SELECT type.oid, type.modifier, type.not_null, t.typcategory AS category,
                       t.typelem AS element,
                       (SELECT coalesce(string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder), '')
                        FROM pg_catalog.pg_enum e
                        WHERE e.enumtypid IN (type.oid, t.typelem)) AS labels
                FROM type JOIN pg_catalog.pg_type t ON t.oid = type.oid
                ORDER BY depth DESC LIMIT 1) b
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) a
        ORDER BY f.outbox, f.named DESC, c.oid";
    let doing = "looking at the outbox tables";
    let schemas: Vec<&str> = setup.tables.iter().map(|it| it.table.schema.as_str()).collect();
    let names: Vec<&str> = setup.tables.iter().map(|it| it.table.name.as_str()).collect();
    let rows = client.query(sql, &[&schemas, &names]).await.map_err(SqlError::when(doing))?;
    let read = |row: &Row| -> Result<Table, tokio_postgres::Error> {
        Ok(Table {
            outbox: usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(usize::MAX),
            oid: row.try_get(1)?,
            name: TableName { schema: row.try_get(2)?, name: row.try_get(3)? },
            named: row.try_get(4)?,
            kind: row.try_get(5)?,
            persistence: row.try_get(6)?,
            owned: row.try_get(7)?,
            has_identity: row.try_get(8)?,
            columns: columns(row)?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(SqlError::when(doing))
}

/// The columns of a table; a table may have none.
fn columns(row: &Row) -> Result<Vec<Column>, tokio_postgres::Error> {
    let Some(names) = row.try_get::<_, Option<Vec<String>>>(9)? else { return Ok(Vec::new()) };
    let (types, bases): (Vec<u32>, Vec<u32>) = (row.try_get(10)?, row.try_get(11)?);
    let (modifiers, elements): (Vec<i32>, Vec<u32>) = (row.try_get(12)?, row.try_get(13)?);
    let (not_null, generated): (Vec<bool>, Vec<bool>) = (row.try_get(14)?, row.try_get(15)?);
    let labels: Vec<String> = row.try_get(16)?;
    let types = types.into_iter().zip(bases).zip(modifiers.into_iter().zip(elements));
    let flags = not_null.into_iter().zip(generated);
    let described = names.into_iter().zip(types).zip(flags.zip(labels));
    let column = |((name, types), (flags, labels))| {
        let ((type_oid, base_oid), (modifier, element_oid)) = types;
        let (not_null, generated) = flags;
        Column { name, type_oid, base_oid, modifier, element_oid, not_null, generated, labels }
    };
    Ok(described.map(column).collect())
}
