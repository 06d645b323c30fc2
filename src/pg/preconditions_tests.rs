use super::*;
use crate::lsn::Lsn;
use crate::pg::facts::Server;
use crate::pg::known::Column;
use crate::pg::setup::{Messages, RowFilters};
use crate::pg::table::TableName;

fn table_name(name: &str) -> TableName {
    TableName { schema: "public".to_owned(), name: name.to_owned() }
}

fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn column(name: &str, type_oid: u32) -> Column {
    Column { name: name.to_owned(), type_oid, base_oid: type_oid, ..Column::default() }
}

fn setup() -> Setup {
    let columns = [("id", "id"), ("key", "k"), ("payload", "p")];
    let columns = columns.map(|(key, column)| (key, column.to_owned())).to_vec();
    Setup {
        slot: "s".to_owned(),
        publication: "pub".to_owned(),
        tables: vec![Mapped { table: table_name("outbox"), columns, optional: Vec::new() }],
        row_filters: RowFilters::Refuse,
        create: true,
        application_name: "walrelay".to_owned(),
        ..Setup::default()
    }
}

fn slot() -> Slot {
    Slot {
        plugin: Some("pgoutput".to_owned()),
        database: Some("app".to_owned()),
        confirmed: Some(Lsn::from_wire(7)),
        wal_status: "reserved".to_owned(),
        failover: Some(false),
        ..Slot::default()
    }
}

/// All is well, and the relay has run before.
fn facts() -> Facts {
    let server = Server {
        version: 180_004,
        wal_level: "logical".to_owned(),
        slots: 1,
        slots_max: 10,
        role: "relay".to_owned(),
        may_replicate: true,
        may_create: true,
        database: "app".to_owned(),
        ..Server::default()
    };
    let outbox = Table {
        outbox: 0,
        oid: 5,
        name: table_name("outbox"),
        named: true,
        kind: "r".to_owned(),
        persistence: "p".to_owned(),
        owned: true,
        has_identity: true,
        columns: vec![column("id", 2950), column("k", 25), column("p", 3802)],
    };
    let published = Published {
        table: table_name("outbox"),
        columns: Some(columns(&["id", "k", "p"])),
        row_filter: None,
    };
    let publication =
        Publication { inserts: true, tables: vec![published], ..Publication::default() };
    Facts { server, publication: Some(publication), tables: vec![outbox], slot: Some(slot()) }
}

/// Before the first start.
fn bare() -> Facts {
    Facts { publication: None, slot: None, ..facts() }
}

fn verdicts(setup: &Setup, facts: &Facts) -> Vec<String> {
    checks(setup, facts)
        .into_iter()
        .filter_map(|Check { name, verdict }| match verdict {
            Verdict::Passed(_) => None,
            Verdict::Doubtful(problem) => Some(format!("{name}? {problem}")),
            Verdict::Failed(problem) if problem.loses => Some(format!("{name}!! {problem}")),
            Verdict::Failed(problem) => Some(format!("{name}! {problem}")),
        })
        .collect()
}

#[track_caller]
fn check(facts: Facts, change: impl FnOnce(&mut Setup, &mut Facts), expected: &[&str]) {
    let (mut setup, mut facts) = (setup(), facts);
    change(&mut setup, &mut facts);
    assert_eq!(verdicts(&setup, &facts), expected);
}

#[test]
fn all_is_well() {
    check(facts(), |_, _| {}, &[]);
    check(bare(), |_, _| {}, &[]);
    // Partitions under their own names, or under that of their root.
    let partition = |facts: &mut Facts| {
        facts.tables[0].kind = "p".to_owned();
        let part =
            Table { oid: 6, named: false, name: table_name("p1"), ..facts.tables[0].clone() };
        facts.tables.push(Table { kind: "r".to_owned(), ..part });
    };
    check(facts(), |_, facts| partition(facts), &[]);
    let by_leaf = |facts: &mut Facts| {
        partition(facts);
        facts.publication.as_mut().unwrap().tables[0].table = table_name("p1");
    };
    check(facts(), |_, facts| by_leaf(facts), &[]);
}

#[test]
fn server_and_role() {
    check(
        bare(),
        |_, facts| facts.server.wal_level = "replica".to_owned(),
        &["wal_level! wal_level is replica, so that the log cannot be decoded; run: ALTER SYSTEM \
           SET wal_level = 'logical'; then restart Postgres"],
    );
    check(
        bare(),
        |_, facts| facts.server.may_replicate = false,
        &["role! role relay may not use replication; run: ALTER ROLE \"relay\" REPLICATION"],
    );
    check(
        bare(),
        |_, facts| facts.server.slots = 10,
        &["slot! all 10 replication slots of the server are in use; drop one that nobody needs \
           (see pg_replication_slots), or raise max_replication_slots and restart Postgres"],
    );
    check(
        facts(),
        |_, facts| facts.server.idle_slot_timeout_s = 3600,
        &["idle slots? idle_replication_slot_timeout is 3600 s: a relay that is down for longer \
           loses its slot, and events with it; raise it to a day or more, or set it to 0"],
    );
}

#[test]
fn a21_a_synchronous_standby() {
    let text = |setting: &str| {
        format!(
            "synchronous_standby_names = '{setting}' makes the relay a synchronous standby: while \
             Kafka is down, every commit in Postgres waits; name the standbys in it, and not \
             \"*\" or \"walrelay\""
        )
    };
    for setting in ["*", "ANY 1 (s1, \"WalRelay\")", "walrelay"] {
        let failed = format!("synchronous standby! {}", text(setting));
        let set = |_: &mut Setup, facts: &mut Facts| facts.server.synchronous = setting.to_owned();
        check(bare(), set, &[&failed]);
        let doubtful = format!("synchronous standby? {}", text(setting));
        check(facts(), set, &[&doubtful]);
    }
    let named = |_: &mut Setup, facts: &mut Facts| {
        facts.server.synchronous = "FIRST 1 (walrelay2, s1)".to_owned();
    };
    check(bare(), named, &[]);
}

#[test]
fn publication() {
    const CREATE: &str = "CREATE PUBLICATION \"pub\" FOR TABLE \"public\".\"outbox\" WITH \
                          (publish = 'insert', publish_via_partition_root = true)";
    let missing = format!(
        "publication!! publication \"pub\" does not exist, so that rows are lost; run: {CREATE}"
    );
    check(facts(), |_, facts| facts.publication = None, &[&missing]);
    let missing = format!("publication! publication \"pub\" does not exist; run: {CREATE}");
    let slot = "slot! slot s does not exist; run: \
                SELECT pg_create_logical_replication_slot('s', 'pgoutput')";
    check(bare(), |setup, _| setup.create = false, &[&missing, slot]);
    let foreign = format!(
        "publication! publication \"pub\" does not exist, and role relay, which does not own \
         public.outbox, may not make it; run as the owner: {CREATE}"
    );
    check(bare(), |_, facts| facts.tables[0].owned = false, &[&foreign]);
    check(
        bare(),
        |_, facts| facts.server.may_create = false,
        &["publication! publication \"pub\" does not exist, and role relay may not make it; run: \
           GRANT CREATE ON DATABASE \"app\" TO \"relay\""],
    );
    check(
        facts(),
        |_, facts| facts.publication.as_mut().unwrap().inserts = false,
        &["publication!! publication \"pub\" does not publish inserts; run: ALTER PUBLICATION \
           \"pub\" SET (publish = 'insert')"],
    );
    check(
        facts(),
        |_, facts| {
            facts.publication.as_mut().unwrap().changes = true;
            facts.tables[0].has_identity = false;
        },
        &["replica identity? publication \"pub\" publishes updates and deletes, and \
           public.outbox has no primary key: the application's own UPDATE and DELETE fail there; \
           run: ALTER PUBLICATION \"pub\" SET (publish = 'insert')"],
    );
}

#[test]
fn tables() {
    let elsewhere = "rows of public.outbox!! publication \"pub\" does not hold public.outbox, \
                     whose rows would be lost; there is no such table: create it and add it to \
                     the publication, or set table of its [[outbox]] to the name it has now \
                     (\"pub\" holds public.outbox)";
    let none = "table public.outbox! table public.outbox does not exist; create the outbox \
                tables, or set table of its [[outbox]] to the name it has now";
    let stranger = "strangers? publication \"pub\" holds public.outbox, which no [[outbox]] names: \
                    its first row halts the relay; run: ALTER PUBLICATION \"pub\" DROP TABLE \
                    \"public\".\"outbox\", or add an [[outbox]]";
    check(facts(), |_, facts| facts.tables.clear(), &[none, elsewhere, stranger]);
    check(bare(), |_, facts| facts.tables.clear(), &[none]);
    check(
        facts(),
        |_, facts| facts.tables[0].kind = "v".to_owned(),
        &["table public.outbox! public.outbox is not a table, so that nothing of it is in the \
           log; set table of its [[outbox]] to the table that is written to"],
    );
    check(
        facts(),
        |_, facts| facts.tables[0].persistence = "u".to_owned(),
        &["table public.outbox!! table public.outbox is unlogged, so that its rows are not in \
           the log; run: ALTER TABLE \"public\".\"outbox\" SET LOGGED"],
    );
    check(
        facts(),
        |setup, _| setup.tables[0].columns[1].1 = "key".to_owned(),
        &["table public.outbox! table public.outbox has no column key, which key of its \
           [[outbox]] names; add the column, or set key to another"],
    );
}

const AGAIN: &str = "BEGIN; LOCK TABLE \"public\".\"outbox\" IN SHARE ROW EXCLUSIVE MODE; \
                     ALTER PUBLICATION \"pub\" DROP TABLE \"public\".\"outbox\"; \
                     ALTER PUBLICATION \"pub\" ADD TABLE \"public\".\"outbox\"; COMMIT";

#[test]
fn rows() {
    let publication = |facts: &mut Facts| facts.publication.take().unwrap();
    check(
        facts(),
        |_, facts| {
            let mut publication = publication(facts);
            publication.tables[0].table = table_name("other");
            facts.publication = Some(publication);
        },
        &[
            "rows of public.outbox!! publication \"pub\" does not hold public.outbox, whose rows \
             would be lost; run: ALTER PUBLICATION \"pub\" ADD TABLE \"public\".\"outbox\"",
            "strangers? publication \"pub\" holds public.other, which no [[outbox]] names: its \
             first row halts the relay; run: ALTER PUBLICATION \"pub\" DROP TABLE \
             \"public\".\"other\", or add an [[outbox]]",
        ],
    );
    let filtered = format!(
        "rows of public.outbox!! publication \"pub\" holds only those rows of public.outbox with \
         (n > 3); run: {AGAIN}; or, if another relay sends the others, set postgres.row_filters to \
         \"allow\""
    );
    let filter = |facts: &mut Facts| {
        let mut publication = publication(facts);
        publication.tables[0].row_filter = Some("(n > 3)".to_owned());
        facts.publication = Some(publication);
    };
    check(facts(), |_, facts| filter(facts), &[&filtered]);
    let allow = |setup: &mut Setup, facts: &mut Facts| {
        setup.row_filters = RowFilters::Allow;
        filter(facts);
    };
    check(facts(), allow, &[]);
    let left_out = format!(
        "rows of public.outbox! publication \"pub\" leaves out column k of public.outbox; run: \
         {AGAIN}"
    );
    check(
        facts(),
        |_, facts| {
            let mut publication = publication(facts);
            publication.tables[0].columns = Some(columns(&["id", "p"]));
            facts.publication = Some(publication);
        },
        &[&left_out],
    );
    // Before version 15 the catalog says nothing, and generated columns are left out all the same.
    check(
        facts(),
        |_, facts| {
            let mut publication = publication(facts);
            publication.tables[0].columns = None;
            facts.server.version = 140_023;
            facts.publication = Some(publication);
            facts.tables[0].columns[1].generated = true;
        },
        &["rows of public.outbox! publication \"pub\" leaves out column k of public.outbox, \
           which is generated; set key of its [[outbox]] to a column that is written"],
    );
}

#[test]
fn slots() {
    let wrong = |change: fn(&mut Slot), what: &str| {
        let expected = format!(
            "slot!! slot s {what}; set postgres.slot to another name, or drop the slot if it is \
             yours"
        );
        check(facts(), |_, facts| change(facts.slot.as_mut().unwrap()), &[&expected]);
    };
    wrong(
        |slot| slot.plugin = Some("wal2json".to_owned()),
        "decodes with wal2json, not with pgoutput",
    );
    wrong(|slot| slot.plugin = None, "is a physical one");
    wrong(|slot| slot.database = Some("other".to_owned()), "belongs to database other, not to app");
    wrong(
        |slot| slot.two_phase = true,
        "was created with two_phase and sends transactions that may yet roll back",
    );
    for (reason, why) in [
        (None, "it kept more log than max_slot_wal_keep_size allows"),
        (Some("wal_removed"), "it kept more log than max_slot_wal_keep_size allows"),
        (
            Some("idle_timeout"),
            "nobody read it for longer than idle_replication_slot_timeout allows",
        ),
        (Some("rows_removed"), "the reason it gives is rows_removed"),
    ] {
        let expected = format!(
            "slot!! slot s is lost: {why}, so Postgres gave it up, and events that were not yet in \
             Kafka are not in the log any more; compare the outbox with Kafka; run: SELECT \
             pg_drop_replication_slot('s'); then run once: walrelay run --accept-gap"
        );
        let lost = |_: &mut Setup, facts: &mut Facts| {
            let slot = facts.slot.as_mut().unwrap();
            slot.wal_status = "lost".to_owned();
            slot.invalidation_reason = reason.map(str::to_owned);
        };
        check(facts(), lost, &[&expected]);
    }
}

#[test]
fn a_slot_that_is_gone_is_a_gap_unless_accepted() {
    let gone = "slot! slot s is gone, and with it every event between its last position and now: \
                publication \"pub\" bears the mark that the slot once existed; compare the outbox \
                with Kafka; then run once: walrelay run --accept-gap, and a new slot will start \
                from now";
    let marked = |facts: &mut Facts| {
        facts.slot = None;
        let comment = Some("walrelay: slot s exists".to_owned());
        facts.publication.as_mut().unwrap().comment = comment;
    };
    check(facts(), |_, facts| marked(facts), &[gone]);
    let accepted = |setup: &mut Setup, facts: &mut Facts| {
        marked(facts);
        setup.accept_gap = true;
    };
    check(facts(), accepted, &[]);
}

#[test]
fn b19_failover_slots() {
    let asked = |facts: &mut Facts, setup: &mut Setup| {
        setup.failover = true;
        facts.server.version = 160_013;
    };
    check(
        bare(),
        |setup, facts| asked(facts, setup),
        &["slot! postgres.failover is set, and slots reach standbys from Postgres 17 on only; \
           set postgres.failover = false"],
    );
    check(
        facts(),
        |setup, facts| {
            asked(facts, setup);
            facts.slot.as_mut().unwrap().failover = None;
        },
        &["failover? postgres.failover is set, and slots reach standbys from Postgres 17 on \
           only; set postgres.failover = false"],
    );
    check(
        facts(),
        |setup, _| setup.failover = true,
        &["failover? slot s is not a failover slot yet; the relay makes it one when it next \
           starts"],
    );
}

#[test]
fn b30_minors_with_known_faults() {
    let fault = |version: i32, expected: &[&str]| {
        check(facts(), |_, facts| facts.server.version = version, expected);
    };
    fault(
        170_007,
        &["version? Postgres 17.7 has faults in its slots and its logical decoding that can lose \
           events; update it to 17.8 or later"],
    );
    fault(170_008, &[]);
    fault(
        180_000,
        &["version? Postgres 18.0 has faults in its slots and its logical decoding that can lose \
           events; update it to 18.2 or later"],
    );
    fault(190_000, &[]);
}

#[test]
fn columns_are_of_a_type_that_their_key_takes() {
    const INTEGER: u32 = 23;
    const TIMESTAMPTZ: u32 = 1184;
    let with = |key, type_oid| {
        move |setup: &mut Setup, facts: &mut Facts| {
            setup.tables[0].columns.push((key, "more".to_owned()));
            facts.tables[0].columns.push(column("more", type_oid));
            let published = &mut facts.publication.as_mut().unwrap().tables[0];
            published.columns.as_mut().unwrap().push("more".to_owned());
        }
    };
    check(facts(), with("partition", INTEGER), &[]);
    check(facts(), with("timestamp", TIMESTAMPTZ), &[]);
    check(facts(), with("timestamp", BIGINT), &[]);
    check(
        facts(),
        with("partition", TIMESTAMPTZ),
        &["table public.outbox! column more of public.outbox cannot be the partition of its \
           [[outbox]]; set partition to a column of type smallint, integer or bigint"],
    );
    check(
        facts(),
        with("timestamp", INTEGER),
        &["table public.outbox! column more of public.outbox cannot be the timestamp of its \
           [[outbox]]; set timestamp to a column of type timestamptz, timestamp or date, or \
           bigint with milliseconds since 1970"],
    );
}

/// Messages are in no publication; there is one with nothing in it.
#[test]
fn messages_alone_need_an_empty_publication() {
    let setup = Setup { tables: Vec::new(), messages: Messages::Read, ..setup() };
    let sql =
        "CREATE PUBLICATION \"pub\" WITH (publish = 'insert', publish_via_partition_root = true)";
    assert_eq!(setup.create_publication_sql(), sql);
    let options = "(proto_version '1', publication_names '\"pub\"', messages 'true')";
    assert!(
        setup.start_command(Lsn::ZERO).ends_with(options),
        "{}",
        setup.start_command(Lsn::ZERO)
    );
    let publication = Publication { tables: Vec::new(), ..facts().publication.unwrap() };
    let there = Facts { publication: Some(publication), tables: Vec::new(), ..facts() };
    let missing = Facts { publication: None, slot: None, ..there.clone() };
    for facts in [&there, &missing] {
        let checks = checks(&setup, facts);
        assert!(checks.iter().all(|check| check.failure().is_none()), "{checks:?}");
    }
    // Rows are numbered differently with messages among them.
    let rows = Setup { messages: Messages::Ignored, ..setup.clone() };
    assert_eq!((rows.numbering(), setup.numbering()), ("pub".into(), "pub and messages".into()));
    assert!(!rows.start_command(Lsn::ZERO).contains("messages"));
}
