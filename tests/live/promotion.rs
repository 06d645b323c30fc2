//! A standby takes over, or a server is not the one it was: LSNs name other content then.

use lab::history::History;
use lab::history::checker::Verdict;
use lab::load::{Load, Shape, write_huge};
use lab::{Kafka, Postgres, Reader, Relay, Signal, eventually, read_all};
use tokio_postgres::Client;
use walrelay::lsn::Lsn;
use walrelay::position::{PositionRecord, switched};

use crate::scene::{LATEST, PATIENCE, Scene, insert, judge, not_ready};

// The server is another one, or an older one.
mod other_server;

/// The last position record, which says how far everything was delivered.
fn remembered(scene: &Scene<'_>) -> PositionRecord {
    let records = read_all(&scene.kafka.bootstrap(), "__walrelay_positions").unwrap();
    let ours = format!("/{}", scene.topic);
    let ours = records.iter().rfind(|record| record.key_text().ends_with(&ours)).unwrap();
    PositionRecord::parse(ours.payload.as_deref().unwrap()).unwrap()
}

/// Where timeline 1 was left by a promotion that took place.
async fn switch_of(standby: &Postgres) -> Lsn {
    assert_eq!(standby.timeline().await.unwrap(), 2);
    switched(&standby.timeline_history(2).unwrap(), 1).unwrap()
}

/// Events `name 0`, `name 1`, … each in a transaction of its own.
async fn write(client: &Client, name: &str, count: usize) {
    for n in 0..count {
        client.batch_execute(&insert("k", &format!("\"{name} {n}\""))).await.unwrap();
    }
}

fn named(name: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("\"{name} {n}\""))
}

/// Waits for so many records, and compares all that the topic holds with what it must.
fn arrived(reader: &mut Reader, expected: impl Iterator<Item = String>) -> Vec<lab::Record> {
    let expected: Vec<String> = expected.collect();
    let records = reader.poll_until(expected.len(), PATIENCE).unwrap().to_vec();
    let payloads: Vec<String> = records.iter().map(lab::Record::payload_text).collect();
    assert_eq!(payloads, expected);
    reader.read_to_end(PATIENCE).unwrap();
    assert_eq!(reader.records().len(), expected.len(), "something came twice");
    records
}

/// Epoch and commit LSN of the position header.
fn position(record: &lab::Record) -> (u32, Lsn) {
    let header = record.header("walrelay-position").unwrap();
    let parts: Vec<u64> =
        header.split('-').map(|part| u64::from_str_radix(part, 16).unwrap()).collect();
    (u32::try_from(parts[0]).unwrap(), Lsn::from_wire(parts[1]))
}

/// The relay, pointed at both servers.
async fn relay_on(scene: &Scene<'_>, servers: &[&Postgres]) -> Relay {
    let url = scene.database.url_of_primary(servers);
    let relay = scene.start(&url, &scene.kafka.bootstrap());
    relay.wait_ready(PATIENCE).await.unwrap();
    relay
}

/// Publication and slot as an operator makes them who plans for a failover.
async fn create_failover_slot(scene: &Scene<'_>) {
    let sql = "CREATE PUBLICATION walrelay FOR TABLE outbox WITH (publish = 'insert')";
    scene.execute(sql).await;
    let sql = "SELECT pg_create_logical_replication_slot($1, 'pgoutput', false, false, true)::text";
    scene.client.query_one(sql, &[&scene.topic]).await.unwrap();
}

/// How the slot gets to the standby.
#[derive(Clone, Copy, PartialEq)]
enum Slots {
    /// Its files were copied.
    Copied,
    /// Postgres keeps it in step.
    Synced,
}

/// The relay is ahead of what the standby knows when that is promoted. What it had delivered
/// cannot be taken back; what is written instead has LSNs of the same range, and must arrive.
async fn relay_ahead(version: u16, slots: Slots) {
    const LOST: usize = 400;
    let primary = Postgres::start(version).unwrap();
    let scene = Scene::on(&primary, Kafka::shared(), 1).await;
    let standby = if slots == Slots::Synced {
        let standby = primary.standby().slot("standby").sync_slots().start().await.unwrap();
        create_failover_slot(&scene).await;
        standby
    } else {
        drop(scene.relay().await);
        primary.standby().keep_slots().start().await.unwrap()
    };
    let relay = relay_on(&scene, &[&primary, &standby]).await;
    write(&scene.client, "known", 10).await;
    let mut reader = scene.reader();
    arrived(&mut reader, named("known", 10));
    scene.followed(PATIENCE).await;
    standby.follow(&primary).await.unwrap();
    if slots == Slots::Synced {
        standby.sync_slot(&primary, &scene.topic).await.unwrap();
    }

    let _frozen = standby.freeze_wal_receiver().await.unwrap();
    write(&scene.client, "lost", LOST).await;
    let old = || named("known", 10).chain(named("lost", LOST));
    arrived(&mut reader, old());
    scene.followed(PATIENCE).await;
    primary.kill_9().unwrap();
    let delivered = remembered(&scene);
    standby.promote().await.unwrap();
    let switch = switch_of(&standby).await;
    assert!(delivered.end > switch, "the relay was not ahead: {} {switch}", delivered.end);

    let client = scene.database.on(&standby).client().await.unwrap();
    write(&client, "new", 50).await;
    relay.wait_ready(PATIENCE).await.unwrap();
    let records = arrived(&mut reader, old().chain(named("new", 50)));
    let (before, first) = (position(&records[9]), position(&records[10 + LOST]));
    assert_eq!((before.0, first.0), (0, 1), "the epoch grows by one");
    assert!(first.1 < delivered.end, "no LSN was used a second time: the test shows nothing");
    let said = format!(
        "timeline 2 leaves timeline 1 at {switch}, but events up to {} were delivered already",
        delivered.end
    );
    relay.wait_for_log(PATIENCE, &said).unwrap();
    // And it is remembered: a restart neither repeats nor skips.
    relay.restart().unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();
    write(&client, "last", 1).await;
    arrived(&mut reader, old().chain(named("new", 50)).chain(named("last", 1)));
    let context = remembered(&scene).context;
    assert_eq!((context.timeline, context.epoch), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn b18_a_relay_ahead_of_the_promoted_standby_skips_no_row_of_the_new_timeline() {
    for version in [14, LATEST] {
        relay_ahead(version, Slots::Copied).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b19_a_relay_ahead_of_a_synced_slot_skips_no_row_of_the_new_timeline() {
    for version in [17, LATEST] {
        relay_ahead(version, Slots::Synced).await;
    }
}

const MIXED: Shape = Shape { writers: 4, keys: 300, ..lab::load::MIXED };

/// Nothing was delivered that the standby does not know; it knows more.
#[tokio::test(flavor = "multi_thread")]
async fn b18_a_relay_behind_the_promoted_standby_goes_on_where_it_was() {
    for version in [15, LATEST] {
        let primary = Postgres::start(version).unwrap();
        let scene = Scene::on(&primary, Kafka::shared(), 3).await;
        drop(scene.relay().await);
        let standby = primary.standby().keep_slots().start().await.unwrap();
        let relay = relay_on(&scene, &[&primary, &standby]).await;
        let history = History::default();
        let load = Load::start(&scene.database, MIXED, &history).await.unwrap();
        let some = async || relay.metric("walrelay_events_total").await > Some(3000.0);
        eventually(PATIENCE, "some events", some).await.unwrap();
        relay.signal(Signal::Stop).unwrap();
        let frozen_at = load.written();
        let more = async || load.written() > frozen_at + 3000;
        eventually(PATIENCE, "more events", more).await.unwrap();
        load.stop().await.unwrap();
        standby.follow(&primary).await.unwrap();
        primary.kill_9().unwrap();
        standby.promote().await.unwrap();
        let switch = switch_of(&standby).await;
        assert!(remembered(&scene).end < switch, "the relay was not behind");
        relay.signal(Signal::Cont).unwrap();

        let database = scene.database.on(&standby);
        let load = Load::start(&database, MIXED, &history).await.unwrap();
        eventually(PATIENCE, "new events", async || load.written() > 2000).await.unwrap();
        load.stop().await.unwrap();
        let verdict = all_arrived(&scene, &database.client().await.unwrap(), &history).await;
        println!("Postgres {version}: {verdict}");
        assert!(verdict.is_perfect(), "{verdict}");
        let said = format!("timeline 2 follows timeline 1 at {switch}, behind everything");
        relay.wait_for_log(PATIENCE, &said).unwrap();
    }
}

/// Waits until nothing is missing of what the server has, and judges.
async fn all_arrived(scene: &Scene<'_>, client: &Client, history: &History) -> Verdict {
    let done = async || {
        let records = read_all(&scene.kafka.bootstrap(), &scene.topic).unwrap();
        (judge(history, client, &records, 3).await.lost == 0).then_some(records)
    };
    let waited = eventually(PATIENCE, "all events", done).await;
    let records = match waited {
        Ok(records) => records,
        Err(_) => read_all(&scene.kafka.bootstrap(), &scene.topic).unwrap(),
    };
    judge(history, client, &records, 3).await
}

/// Up to version 16 no slot comes along by itself.
#[tokio::test(flavor = "multi_thread")]
async fn b18_a_slot_that_did_not_come_along_is_a_gap() {
    let primary = Postgres::start(16).unwrap();
    let scene = Scene::on(&primary, Kafka::shared(), 1).await;
    let standby = primary.standby().slot("standby").start().await.unwrap();
    let relay = relay_on(&scene, &[&primary, &standby]).await;
    standby.follow(&primary).await.unwrap();
    let _frozen = standby.freeze_wal_receiver().await.unwrap();
    write(&scene.client, "lost", 200).await;
    let mut reader = scene.reader();
    arrived(&mut reader, named("lost", 200));
    scene.followed(PATIENCE).await;
    primary.kill_9().unwrap();
    standby.promote().await.unwrap();
    let (switch, delivered) = (switch_of(&standby).await, remembered(&scene).end);
    assert!(delivered > switch, "the relay was not ahead");

    let client = scene.database.on(&standby).client().await.unwrap();
    write(&client, "unseen", 1).await;
    not_ready(&relay, "is gone, and with it every event").await;
    // A slot made by hand is no better: what was written before it stays unseen.
    let sql = "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')";
    let slot: String = client.query_one(sql, &[&scene.topic]).await.unwrap().get(0);
    not_ready(&relay, &format!("but the slot stands at {slot}, and the events from")).await;
    not_ready(&relay, &format!("timeline 1 was left at {switch}")).await;
    write(&client, "new", 5).await;
    relay.terminate_and_wait(PATIENCE).unwrap();

    let url = scene.database.url_of_primary(&[&primary, &standby]);
    let accepting = scene.start_with(&url, &scene.kafka.bootstrap(), &["--accept-gap"]);
    accepting.wait_ready(PATIENCE).await.unwrap();
    let records = arrived(&mut reader, named("lost", 200).chain(named("new", 5)));
    assert_eq!(position(&records[200]).0, 1, "the epoch grows");
    accepting.wait_for_log(PATIENCE, &format!("accepted a gap, from {switch} to {slot}")).unwrap();
    accepting.wait_for_log(PATIENCE, &format!("events up to {delivered}")).unwrap();
}

/// From 17 on a slot comes along, and nothing gets ahead of the standby that has it.
#[tokio::test(flavor = "multi_thread")]
async fn b19_a_failover_slot_carries_on_after_promotion() {
    for version in [17, LATEST] {
        let primary = Postgres::start(version).unwrap();
        let scene = Scene::on(&primary, Kafka::shared(), 3).await;
        let standby = primary.standby().slot("standby").sync_slots().start().await.unwrap();
        create_failover_slot(&scene).await;
        scene.execute("ALTER SYSTEM SET synchronized_standby_slots = 'standby'").await;
        scene.execute("SELECT pg_reload_conf()").await;
        standby.sync_slot(&primary, &scene.topic).await.unwrap();
        let relay = relay_on(&scene, &[&primary, &standby]).await;
        let history = History::default();
        let load = Load::start(&scene.database, MIXED, &history).await.unwrap();
        let some = async || relay.metric("walrelay_events_total").await > Some(5000.0);
        eventually(PATIENCE, "some events", some).await.unwrap();
        // The standby hears nothing more, so that nothing more may be delivered.
        let _frozen = standby.freeze_wal_receiver().await.unwrap();
        let frozen_at = load.written();
        let more = async || load.written() > frozen_at + 2000;
        eventually(PATIENCE, "events unknown to the standby", more).await.unwrap();
        primary.kill_9().unwrap();
        load.outlive_server().await.unwrap();
        history.fork();
        standby.promote().await.unwrap();
        let switch = switch_of(&standby).await;
        assert!(remembered(&scene).end <= switch, "the relay was ahead of the standby");

        let database = scene.database.on(&standby);
        let load = Load::start(&database, MIXED, &history).await.unwrap();
        eventually(PATIENCE, "new events", async || load.written() > 2000).await.unwrap();
        load.stop().await.unwrap();
        let client = database.client().await.unwrap();
        let verdict = all_arrived(&scene, &client, &history).await;
        println!("Postgres {version}: {verdict}");
        assert!(verdict.is_perfect(), "{verdict}");
        relay
            .wait_for_log(PATIENCE, &format!("timeline 2 follows timeline 1 at {switch}"))
            .unwrap();
        relay.wait_ready(PATIENCE).await.unwrap();
        let sql = "SELECT synced AND failover FROM pg_replication_slots WHERE slot_name = $1";
        let row = client.query_one(sql, &[&scene.topic]).await.unwrap();
        assert!(row.get::<_, bool>(0), "this is not the slot that came along");
    }
}

/// What was in flight is given up and sent again, on the new timeline.
#[tokio::test(flavor = "multi_thread")]
async fn b19_a_failover_while_kafka_is_away_loses_and_reorders_nothing() {
    let (primary, kafka) = (Postgres::start(LATEST).unwrap(), Kafka::start().unwrap());
    let scene = Scene::on(&primary, &kafka, 3).await;
    let standby = primary.standby().slot("standby").sync_slots().start().await.unwrap();
    create_failover_slot(&scene).await;
    let relay = relay_on(&scene, &[&primary, &standby]).await;
    standby.sync_slot(&primary, &scene.topic).await.unwrap();
    let history = History::default();
    let load = Load::start(&scene.database, MIXED, &history).await.unwrap();
    let some = async || relay.metric("walrelay_events_total").await > Some(2000.0);
    eventually(PATIENCE, "some events", some).await.unwrap();
    kafka.kill_9().unwrap();
    let in_flight = async || relay.metric("walrelay_in_flight_records").await > Some(100.0);
    eventually(PATIENCE, "events in flight", in_flight).await.unwrap();
    load.stop().await.unwrap();
    standby.follow(&primary).await.unwrap();
    primary.kill_9().unwrap();
    standby.promote().await.unwrap();
    switch_of(&standby).await;
    let database = scene.database.on(&standby);
    let load = Load::start(&database, MIXED, &history).await.unwrap();
    relay.wait_for_log(PATIENCE, "Postgres is on timeline 2 now, and was on 1").unwrap();
    not_ready(&relay, "Connection refused").await;
    load.stop().await.unwrap();
    kafka.start_again().unwrap();
    let verdict = all_arrived(&scene, &database.client().await.unwrap(), &history).await;
    println!("{verdict}");
    assert!(verdict.is_faithful(), "{verdict}");
    relay.wait_ready(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b19_a_synced_slot_on_a_standby_is_not_used_before_promotion() {
    let primary = Postgres::start(LATEST).unwrap();
    let scene = Scene::on(&primary, Kafka::shared(), 1).await;
    let standby = primary.standby().slot("standby").sync_slots().start().await.unwrap();
    create_failover_slot(&scene).await;
    standby.sync_slot(&primary, &scene.topic).await.unwrap();
    write(&scene.client, "early", 3).await;
    standby.follow(&primary).await.unwrap();
    let url = scene.database.on(&standby).url();
    let relay = scene.start(&url, &scene.kafka.bootstrap());
    not_ready(&relay, "is a standby; walrelay needs the primary").await;
    primary.kill_9().unwrap();
    standby.promote().await.unwrap();
    switch_of(&standby).await;
    relay.wait_ready(PATIENCE).await.unwrap();
    let client = scene.database.on(&standby).client().await.unwrap();
    write(&client, "late", 3).await;
    arrived(&mut scene.reader(), named("early", 3).chain(named("late", 3)));
}

/// Up to 15 a standby decodes nothing, from 16 on it could: the relay wants the primary.
#[tokio::test(flavor = "multi_thread")]
async fn b22_a_relay_pointed_at_a_standby_says_so() {
    for version in [15, 17] {
        let primary = Postgres::start(version).unwrap();
        let scene = Scene::on(&primary, Kafka::shared(), 1).await;
        let standby = primary.standby().start().await.unwrap();
        standby.follow(&primary).await.unwrap();
        let database = scene.database.on(&standby);
        let relay = scene.start(&database.url(), &scene.kafka.bootstrap());
        not_ready(&relay, "is a standby; walrelay needs the primary").await;
        // It tries again, says it once, and leaves nothing behind.
        let tried = async || relay.metric("walrelay_sessions_total").await >= Some(4.0);
        eventually(PATIENCE, "more attempts", tried).await.unwrap();
        assert_eq!(relay.log().matches("is a standby").count(), 1, "{}", relay.log());
        let client = database.client().await.unwrap();
        let slots = "SELECT FROM pg_replication_slots";
        assert!(client.query(slots, &[]).await.unwrap().is_empty());
        assert!(scene.client.query(slots, &[]).await.unwrap().is_empty());
        // A list of hosts with the primary in it is enough.
        relay.terminate_and_wait(PATIENCE).unwrap();
        let relay = relay_on(&scene, &[&standby, &primary]).await;
        write(&scene.client, "one", 1).await;
        arrived(&mut scene.reader(), named("one", 1));
        drop(relay);
    }
}

/// Both servers, with a slot that comes along, and the relay on its way through one long
/// transaction when the primary dies. The standby knows all of the transaction or nothing.
async fn long_transaction(standby_knows: bool) {
    const ROWS: u32 = 200_000;
    let primary = Postgres::start(LATEST).unwrap();
    let mut scene = Scene::on(&primary, Kafka::shared(), 3).await;
    let standby = primary.standby().slot("standby").sync_slots().start().await.unwrap();
    create_failover_slot(&scene).await;
    // Slow enough that no more than a part has been sent when the primary dies.
    scene.configure("[delivery]\nmax_in_flight = 500\n[kafka.properties]\n\"linger.ms\" = 20");
    let relay = relay_on(&scene, &[&primary, &standby]).await;
    standby.sync_slot(&primary, &scene.topic).await.unwrap();
    standby.follow(&primary).await.unwrap();
    let frozen = if standby_knows { None } else { Some(standby.freeze_wal_receiver().await) };
    let _frozen = frozen.transpose().unwrap();
    relay.signal(Signal::Stop).unwrap();
    let history = History::default();
    write_huge(&scene.database, &history, 1000, ROWS / 1000).await.unwrap();
    if standby_knows {
        standby.follow(&primary).await.unwrap();
    }
    relay.signal(Signal::Cont).unwrap();
    let sent = async || relay.metric("walrelay_events_total").await > Some(20_000.0);
    eventually(PATIENCE, "some way into the transaction", sent).await.unwrap();
    primary.kill_9().unwrap();
    let part = read_all(&scene.kafka.bootstrap(), &scene.topic).unwrap().len();
    assert!(part < ROWS as usize, "all of it was sent");
    standby.promote().await.unwrap();
    let switch = switch_of(&standby).await;
    let database = scene.database.on(&standby);
    let client = database.client().await.unwrap();
    if standby_knows {
        let verdict = all_arrived(&scene, &client, &history).await;
        println!("{part} of {ROWS} were sent before: {verdict}");
        assert!(verdict.is_perfect(), "{verdict}");
        relay
            .wait_for_log(PATIENCE, &format!("timeline 2 follows timeline 1 at {switch}"))
            .unwrap();
    } else {
        write(&client, "new", 100).await;
        let new = async || {
            let records = read_all(&scene.kafka.bootstrap(), &scene.topic).unwrap();
            let (new, old): (Vec<_>, Vec<_>) =
                records.iter().map(lab::Record::payload_text).partition(|it| it.contains("new"));
            (new.len() >= 100).then_some((new, old))
        };
        let (new, old) = eventually(PATIENCE, "the new events", new).await.unwrap();
        assert_eq!(new, named("new", 100).collect::<Vec<_>>());
        println!("{} of {ROWS} were sent that Postgres lost", old.len());
        let said = format!("timeline 2 leaves timeline 1 at {switch}, but events up to ");
        relay.wait_for_log(PATIENCE, &said).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b19_a_long_transaction_goes_on_at_the_same_row_after_promotion() {
    long_transaction(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b18_a_long_transaction_that_the_standby_did_not_know_hides_nothing_new() {
    long_transaction(false).await;
}

/// Asked for, a slot is made so that standbys have it, and one that is there becomes such a one.
#[tokio::test(flavor = "multi_thread")]
async fn b19_failover_slots_are_made_when_asked_for() {
    for version in [17, LATEST] {
        let mut scene = Scene::new(version, 1).await;
        let failover = async |scene: &Scene<'_>| -> bool {
            let sql = "SELECT failover FROM pg_replication_slots WHERE slot_name = $1";
            scene.client.query_one(sql, &[&scene.topic]).await.unwrap().get(0)
        };
        let relay = scene.relay().await;
        assert!(!failover(&scene).await);
        relay.terminate_and_wait(PATIENCE).unwrap();
        scene.configure_postgres("failover = true");
        let relay = scene.relay().await;
        assert!(failover(&scene).await, "{version}: it becomes one");
        relay.terminate_and_wait(PATIENCE).unwrap();
        let mut scene = Scene::new(version, 1).await;
        scene.configure_postgres("failover = true");
        let _relay = scene.relay().await;
        assert!(failover(&scene).await, "{version}: it is made as one");
        scene.insert("k", "1").await;
        scene.reader().poll_until(1, PATIENCE).unwrap();
    }
}

/// B20: rows commit, and the walsender waits for a standby that does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn b20_a_missing_synchronized_standby_slot_is_a_stall_with_its_wait_event() {
    for version in [17, LATEST] {
        let settings = [("synchronized_standby_slots", "nobody")];
        let postgres = Postgres::start_with(version, &settings, None).unwrap();
        let scene = Scene::on(&postgres, Kafka::shared(), 1).await;
        create_failover_slot(&scene).await;
        let relay = scene.relay().await;
        let sessions = relay.metric("walrelay_sessions_total").await;
        write(&scene.client, "held", 3).await;
        let sql = "SELECT wait_event FROM pg_stat_activity JOIN pg_replication_slots
                   ON pid = active_pid WHERE slot_name = $1";
        let waits = async || {
            let row = scene.client.query_opt(sql, &[&scene.topic]).await.unwrap()?;
            let event: Option<String> = row.get(0);
            (event.as_deref() == Some("WaitForStandbyConfirmation")).then_some(())
        };
        eventually(PATIENCE, "the walsender to wait for the standby", waits).await.unwrap();
        not_ready(&relay, "WaitForStandbyConfirmation").await;
        assert_eq!(scene.reader().read_to_end(PATIENCE).unwrap(), []);
        assert_eq!(relay.metric("walrelay_sessions_total").await, sessions, "it connects anew");

        scene.execute("ALTER SYSTEM SET synchronized_standby_slots = ''").await;
        scene.execute("SELECT pg_reload_conf()").await;
        arrived(&mut scene.reader(), named("held", 3));
        relay.wait_ready(PATIENCE).await.unwrap();
        assert_eq!(relay.metric("walrelay_sessions_total").await, sessions, "it connects anew");
    }
}
