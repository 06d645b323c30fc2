//! The servers of a run and the relay between them, each behind a proxy.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio_postgres::Client;

use crate::history::History;
use crate::history::seen::Seen;
use crate::kafka::Broker;
use crate::load::Load;
use crate::postgres::connect;
use crate::relay::Builder;
use crate::torture::fault::{Fault, Wire};
use crate::torture::plan::Plan;
use crate::{Clock, Database, Kafka, Postgres, Proxy, Relay, eventually, read_all};

/// The name of everything that has one: slot, publication, topic.
pub const NAME: &str = "torture";
/// For what has to happen on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// The largest row, and what else a record takes.
pub const RECORD_MAX: &str = "16777216";

/// When a fault was there.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Which.
    pub fault: Fault,
    /// Since it was complete.
    pub from: Instant,
    /// Until its mending began.
    pub to: Instant,
}

/// Everything that runs.
#[derive(Debug)]
pub struct Stage {
    /// What the run is.
    pub plan: Plan,
    /// One broker, or three.
    pub kafka: Arc<Kafka>,
    /// Between the relay and each of them.
    pub kafka_proxies: Vec<Proxy>,
    /// Between the relay and each Postgres.
    pub postgres_proxies: Vec<Proxy>,
    primary: RwLock<Arc<Postgres>>,
    /// The primary at the beginning, also when it is dead.
    pub first: Arc<Postgres>,
    /// Also when it is promoted.
    pub standby: Option<Arc<Postgres>>,
    database: Database,
    /// The process under test.
    pub relay: Relay,
    /// Its calendar, if that jumps.
    pub clock: Option<Clock>,
    /// What was written.
    pub history: History,
    /// Who writes.
    pub load: OnceLock<Load>,
    /// Held by faults that write, and by one that must have silence.
    pub writing: tokio::sync::RwLock<()>,
    /// The topic's partitions, one number after the other as it grew.
    pub counts: Mutex<Vec<i32>>,
    /// What was read of topics that are deleted by now.
    pub deleted: Mutex<Vec<Vec<Seen>>>,
    /// SIGKILLs of a relay.
    pub kills: AtomicU64,
    /// Rows that were to be poison.
    pub poisoned: AtomicU64,
    /// The most records that were under way when a relay was killed.
    pub in_flight: AtomicU64,
    /// The most memory that a second relay took.
    pub second_peak_bytes: AtomicU64,
    /// What second relays wrote.
    pub second_log: Mutex<String>,
    /// Faults that lasted: which, and from when to when.
    pub lasted: Mutex<Vec<Window>>,
    binary: PathBuf,
}

impl Stage {
    /// Starts everything, and waits until the relay is ready.
    pub async fn set(plan: Plan, binary: &Path) -> Result<Stage> {
        let (version, brokers) = (plan.postgres, plan.brokers);
        let guarded = plan.has(Fault::WriteDenied);
        let kafka = blocking(move || start_kafka(brokers, guarded));
        let postgres = blocking(move || start_postgres(version));
        let (kafka, primary) = tokio::try_join!(kafka, postgres)?;
        let (kafka, primary) = (Arc::new(kafka), Arc::new(primary));
        let database = primary.create_database().await?;
        database.create_outbox().await?;
        let record_max = [("max.message.bytes", RECORD_MAX)];
        kafka.create_topic_with(NAME, plan.partitions, &record_max).await?;
        let proxy = |it: &Broker| Proxy::start(Some(it.proxied_port()), it.proxied_target());
        let kafka_proxies = kafka.brokers().iter().map(proxy).collect::<Result<Vec<_>>>()?;
        let mut postgres_proxies = vec![proxy_to(&primary)?];
        let config = config(&plan, &database, &postgres_proxies, &kafka);
        let clock = if plan.has(Fault::ClockJumped) { Some(Clock::start()?) } else { None };
        let relay = relay_of(&plan, binary);
        let relay = clock.iter().fold(relay, Builder::clock);
        let relay = relay.config(config).start()?;
        relay.wait_ready(PATIENCE).await?;
        let mut standby = None;
        if plan.has(Fault::Promotion) {
            let started = Arc::new(follow(&plan, &primary).await?);
            postgres_proxies.push(proxy_to(&started)?);
            standby = Some(started);
            // From here on it knows both.
            relay.write_config(&self::config(&plan, &database, &postgres_proxies, &kafka))?;
            relay.restart()?;
            relay.wait_ready(PATIENCE).await?;
        }
        Ok(Stage {
            counts: Mutex::new(vec![plan.partitions]),
            plan,
            kafka,
            kafka_proxies,
            postgres_proxies,
            first: Arc::clone(&primary),
            primary: RwLock::new(primary),
            standby,
            database,
            relay,
            clock,
            history: History::default(),
            load: OnceLock::new(),
            writing: tokio::sync::RwLock::default(),
            deleted: Mutex::default(),
            kills: AtomicU64::new(0),
            poisoned: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            second_peak_bytes: AtomicU64::new(0),
            second_log: Mutex::default(),
            lasted: Mutex::default(),
            binary: binary.to_owned(),
        })
    }

    /// The writers.
    pub fn load(&self) -> Result<&Load> {
        self.load.get().context("nobody writes yet")
    }

    /// The server that is written to now.
    pub fn primary(&self) -> Arc<Postgres> {
        Arc::clone(&self.primary.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The standby is the primary from now on.
    pub fn promoted(&self, standby: Arc<Postgres>) {
        *self.primary.write().unwrap_or_else(PoisonError::into_inner) = standby;
    }

    /// The database on the server that is written to now.
    pub fn database(&self) -> Database {
        self.database.on(&self.primary())
    }

    /// A connection to it.
    pub async fn client(&self) -> Result<Client> {
        self.database().client().await
    }

    /// For writers: straight to whichever server can be written to.
    pub fn writers_url(&self) -> String {
        let primary = self.primary();
        let servers = std::iter::once(&*primary).chain(self.standby.as_deref());
        self.database.url_of_primary(&servers.collect::<Vec<_>>())
    }

    /// A client of a writer, however often the server goes.
    pub async fn writer(&self) -> Result<Client> {
        let url = self.writers_url();
        eventually(PATIENCE, "a connection to write", async || connect(&url).await.ok()).await
    }

    /// The proxies of a wire.
    pub fn proxies(&self, wire: Wire) -> &[Proxy] {
        match wire {
            Wire::Postgres => &self.postgres_proxies,
            Wire::Kafka => &self.kafka_proxies,
        }
    }

    /// One more relay, with the same configuration.
    pub fn second_relay(&self) -> Result<SecondRelay<'_>> {
        let config = config(&self.plan, &self.database, &self.postgres_proxies, &self.kafka);
        let relay = relay_of(&self.plan, &self.binary).config(config).start()?;
        Ok(SecondRelay { relay, stage: self })
    }

    /// Notes how many records are under way with a relay that is about to be killed.
    pub async fn note_in_flight(&self) {
        let in_flight = self.relay.metric("walrelay_in_flight_records").await.unwrap_or(0.0);
        self.in_flight.fetch_max(format!("{in_flight:.0}").parse().unwrap_or(0), Ordering::SeqCst);
    }

    /// Kills the relay and starts it again.
    pub fn kill_relay(&self) -> Result<()> {
        self.relay.kill_9()?;
        self.kills.fetch_add(1, Ordering::SeqCst);
        self.relay.start_again()
    }

    /// Everything that is in the topic now.
    pub async fn read(&self) -> Result<Vec<Seen>> {
        let bootstrap = self.kafka.bootstrap();
        let records = blocking(move || read_all(&bootstrap, NAME)).await?;
        Ok(records.iter().map(Seen::of).collect())
    }

    /// Waits until the slot has got to where the server writes now.
    pub async fn followed(&self, patience: Duration) -> Result<()> {
        let client = self.writer().await?;
        let lsn = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await?;
        let target: String = lsn.get(0);
        let sql = "SELECT 1 FROM pg_replication_slots
                   WHERE slot_name = $1 AND confirmed_flush_lsn >= $2::text::pg_lsn";
        eventually(patience, format!("the slot to follow to {target}"), async || {
            // The server may be stopped and started meanwhile.
            let client = self.writer().await.ok()?;
            client.query_opt(sql, &[&NAME, &target]).await.ok()?.map(drop)
        })
        .await
    }

    /// Whether `/readyz` says yes.
    pub async fn is_ready(&self) -> bool {
        self.relay.get("/readyz").await.is_ok_and(|(status, _)| status == 200)
    }
}

/// A relay beside the first one; what it wrote is kept when it goes.
#[derive(Debug)]
pub struct SecondRelay<'a> {
    /// The process.
    pub relay: Relay,
    stage: &'a Stage,
}

impl SecondRelay<'_> {
    /// Notes how much memory it has taken.
    pub fn note_peak(&self) {
        let peak = self.relay.peak_rss_bytes().unwrap_or(0);
        self.stage.second_peak_bytes.fetch_max(peak, Ordering::SeqCst);
    }
}

impl Drop for SecondRelay<'_> {
    fn drop(&mut self) {
        let mut log = self.stage.second_log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push_str(&self.relay.log());
    }
}

/// What blocks its thread must not keep the others of a run waiting.
pub async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(act).await?
}

fn start_kafka(brokers: u32, guarded: bool) -> Result<Kafka> {
    let kafka = if brokers > 1 { Kafka::builder().brokers(brokers) } else { Kafka::builder() };
    let kafka = kafka.property("socket.request.max.bytes", "209715200");
    // Where no rule names a resource, everybody may do everything.
    let rules = [
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("allow.everyone.if.no.acl.found", "true"),
    ];
    let rules = if guarded { rules.as_slice() } else { &[] };
    rules.iter().fold(kafka, |kafka, (name, value)| kafka.property(name, value)).start()
}

fn start_postgres(version: u16) -> Result<Postgres> {
    // Little, so that a walsender writes what is long to disk.
    Postgres::builder(version).setting("logical_decoding_work_mem", "256kB").start()
}

fn relay_of(plan: &Plan, binary: &Path) -> Builder {
    let relay = Relay::builder(binary);
    match plan.limit_mib() {
        Some(limit) => relay.memory_max(limit << 20),
        None => relay,
    }
}

fn proxy_to(server: &Postgres) -> Result<Proxy> {
    Proxy::start(None, SocketAddr::from((Ipv4Addr::LOCALHOST, server.port())))
}

/// A standby that has the relay's slot.
async fn follow(plan: &Plan, primary: &Postgres) -> Result<Postgres> {
    if !plan.has_failover_slots() {
        return primary.standby().keep_slots().start().await;
    }
    let standby = primary.standby().slot("standby").sync_slots().start().await?;
    if plan.waits_for_standby() {
        let client = primary.client("postgres").await?;
        client
            .batch_execute("ALTER SYSTEM SET synchronized_standby_slots = 'standby'")
            .await
            .context("name the standby")?;
        client.batch_execute("SELECT pg_reload_conf()").await?;
    }
    standby.sync_slot(primary, NAME).await?;
    Ok(standby)
}

/// The relay's configuration.
fn config(plan: &Plan, database: &Database, proxies: &[Proxy], kafka: &Kafka) -> String {
    let hosts: Vec<String> = proxies.iter().map(Proxy::address).collect();
    let (hosts, name) = (hosts.join(","), database.name());
    let failover = plan.has(Fault::Promotion) && plan.has_failover_slots();
    let choices = &plan.choices;
    let positions = if choices.positions { "__walrelay_positions" } else { "" };
    format!(
        r#"
        [postgres]
        url = "postgres://postgres@{hosts}/{name}?target_session_attrs=read-write"
        slot = "{NAME}"
        failover = {failover}
        status_interval = "{}ms"
        check_interval = "1s"
        [kafka]
        brokers = {:?}
        [kafka.properties]
        "message.max.bytes" = {RECORD_MAX}
        "linger.ms" = {}
        "batch.num.messages" = {}
        "batch.size" = {}
        "compression.type" = "{}"
        [delivery]
        positions_topic = "{positions}"
        max_in_flight = {}
        max_in_flight_bytes = "{}MiB"
        [http]
        listen = "{{http}}"
        [[outbox]]
        topic = "{NAME}"
        "#,
        choices.status_interval_ms,
        kafka.proxied_bootstrap().split(',').collect::<Vec<_>>(),
        choices.linger_ms,
        choices.batch,
        choices.batch_bytes,
        choices.compression,
        choices.max_in_flight,
        choices.max_in_flight_mib,
    )
}
