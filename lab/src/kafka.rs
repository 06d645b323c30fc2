//! A Kafka of our own: one node that is broker and controller, or several of them.

mod admin;
mod broker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;
use std::{io::Write as _, thread};

use anyhow::{Context, Result, ensure};

pub use broker::Broker;

use crate::downloads;
use crate::process::{Signal, require, tool};

const HEAP_MB: u32 = 512;
/// Three of them have to fit beside everything else.
const CLUSTERED_HEAP_MB: u32 = 256;

/// Java options for what ends before good machine code would pay.
const SHORT_LIVED: &[&str] = &["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];

/// The listener that tests connect to, and that the brokers themselves use.
const DIRECT: &str = "PLAINTEXT";
/// The listener whose clients are told to come back through a proxy.
const PROXIED: &str = "PROXIED";
const CONTROLLER: &str = "CONTROLLER";

/// What every broker of the lab starts with; a test's own properties win.
const PROPERTIES: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    ("controller.listener.names", CONTROLLER),
    ("inter.broker.listener.name", DIRECT),
    // A topic that springs into being with the wrong partitions would hide mistakes.
    ("auto.create.topics.enable", "false"),
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.num.partitions", "4"),
    ("group.initial.rebalance.delay.ms", "0"),
    // A killed broker is let in again only when the session of its former life has expired; with
    // the defaults that takes nine seconds after each kill.
    ("broker.session.timeout.ms", "2000"),
    ("broker.heartbeat.interval.ms", "400"),
];

/// What brokers of a cluster have besides.
const CLUSTERED: &[(&str, &str)] = &[
    // Three JVMs on a busy machine are slow, and not dead.
    ("broker.session.timeout.ms", "4000"),
    ("controller.quorum.fetch.timeout.ms", "4000"),
    // A broker that is back leads its partitions again after a second or two, not five minutes.
    ("leader.imbalance.check.interval.seconds", "1"),
    ("leader.imbalance.per.broker.percentage", "0"),
];

/// As many replicas as there are brokers.
const REPLICATED: &[&str] = &[
    "default.replication.factor",
    "offsets.topic.replication.factor",
    "transaction.state.log.replication.factor",
    "share.coordinator.state.topic.replication.factor",
];

/// As many of them as must have a record before it is acknowledged.
const IN_SYNC: &[&str] = &[
    "min.insync.replicas",
    "transaction.state.log.min.isr",
    "share.coordinator.state.topic.min.isr",
];

/// A running (or just stopped) Kafka. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Kafka {
    brokers: Vec<Broker>,
}

/// A Kafka about to be made.
#[derive(Debug)]
pub struct Builder {
    brokers: u32,
    properties: Vec<(String, String)>,
    /// Name and security protocol.
    listeners: Vec<(String, String)>,
    /// Name and password.
    users: Vec<(String, String)>,
    heap_mb: u32,
}

impl Builder {
    /// Adds a line to `server.properties`.
    #[must_use]
    pub fn property(mut self, name: &str, value: &str) -> Builder {
        self.properties.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Opens one more listener, for example `("SECURE", "SASL_SSL")`; [`Kafka::address`] tells
    /// where. Its keys and users are properties: `listener.name.secure.ssl.keystore.location`.
    #[must_use]
    pub fn listener(mut self, name: &str, protocol: &str) -> Builder {
        self.listeners.push((name.to_owned(), protocol.to_owned()));
        self
    }

    /// Adds a user with SCRAM credentials of both kinds, there from the first start.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Builder {
        self.users.push((name.to_owned(), password.to_owned()));
        self
    }

    /// The most heap that each JVM takes (512 MB otherwise, 256 MB in a cluster).
    #[must_use]
    pub fn heap_mb(mut self, heap_mb: u32) -> Builder {
        self.heap_mb = heap_mb;
        self
    }

    /// So many brokers, each of them also a controller. A topic has as many replicas, and with
    /// three of them a record is acknowledged once two have it.
    #[must_use]
    pub fn brokers(mut self, brokers: u32) -> Builder {
        self.brokers = brokers;
        self.heap_mb = self.heap_mb.min(CLUSTERED_HEAP_MB);
        self
    }

    /// Makes the brokers and starts them; they answer clients when this returns.
    pub fn start(self) -> Result<Kafka> {
        self.start_brokers().context("start Kafka")
    }

    fn start_brokers(mut self) -> Result<Kafka> {
        require(&[("java", "default-jre-headless")])?;
        for name in [DIRECT, PROXIED, CONTROLLER] {
            self.listeners.push((name.to_owned(), "PLAINTEXT".to_owned()));
        }
        let jars = downloads::kafka()?;
        let brokers = (1..=self.brokers).map(|id| Broker::reserve(id, &jars, &self));
        let brokers = brokers.collect::<Result<Vec<_>>>()?;
        let voters =
            brokers.iter().map(|it| Ok(format!("{}@{}", it.id(), it.address(CONTROLLER)?)));
        let voters = voters.collect::<Result<Vec<_>>>()?.join(",");
        self.properties.insert(0, ("controller.quorum.voters".to_owned(), voters));
        let builder = &self;
        thread::scope(|scope| {
            let format = |broker| scope.spawn(move || Broker::format(broker, builder));
            let threads: Vec<_> = brokers.iter().map(format).collect();
            let done = threads.into_iter().map(|it| it.join().ok().context("a thread panicked")?);
            done.collect::<Result<()>>()
        })?;
        let kafka = Kafka { brokers };
        kafka.start_again()?;
        Ok(kafka)
    }

    /// What every broker's `server.properties` says, later lines over earlier ones.
    fn common_properties(&self) -> Vec<(String, String)> {
        let (replicas, majority) = (self.brokers.to_string(), self.brokers / 2 + 1);
        let all = |names: &[&str], value: &str| {
            names.iter().map(|name| ((*name).to_owned(), value.to_owned())).collect::<Vec<_>>()
        };
        let clustered = if self.brokers > 1 { CLUSTERED } else { &[] };
        let lab = PROPERTIES.iter().chain(clustered);
        let lab = lab.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let counts = [all(REPLICATED, &replicas), all(IN_SYNC, &majority.to_string())].concat();
        lab.chain(counts).chain(self.properties.iter().cloned()).collect()
    }
}

impl Kafka {
    /// A broker with the lab's properties.
    pub fn start() -> Result<Kafka> {
        Kafka::builder().start()
    }

    /// So many brokers with the lab's properties.
    pub fn cluster(brokers: u32) -> Result<Kafka> {
        Kafka::builder().brokers(brokers).start()
    }

    /// A broker with more lines in its `server.properties`.
    pub fn start_with(properties: &[(&str, &str)]) -> Result<Kafka> {
        properties
            .iter()
            .fold(Kafka::builder(), |builder, (name, value)| builder.property(name, value))
            .start()
    }

    /// For what [`Kafka::start_with`] cannot say.
    pub fn builder() -> Builder {
        Builder {
            brokers: 1,
            properties: Vec::new(),
            listeners: Vec::new(),
            users: Vec::new(),
            heap_mb: HEAP_MB,
        }
    }

    /// The broker that all tests of this process share: started by the first that asks, dead when
    /// the process is. Do not stop it; topics with unique names keep tests apart.
    ///
    /// # Panics
    ///
    /// If it cannot be started, which fails the test that asked.
    pub fn shared() -> &'static Kafka {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| match Kafka::start() {
            Ok(kafka) => kafka,
            Err(error) => panic!("no shared broker: {error:?}"),
        })
    }

    /// The brokers, to hurt them one by one.
    pub fn brokers(&self) -> &[Broker] {
        &self.brokers
    }

    /// The broker with this number; they count from one.
    pub fn broker(&self, id: i32) -> Result<&Broker> {
        let found = self.brokers.iter().find(|broker| broker.id() == id);
        found.with_context(|| format!("there is no broker {id}"))
    }

    /// Starts the stopped or killed brokers on the same ports with the same data, and waits until
    /// they answer clients.
    pub fn start_again(&self) -> Result<()> {
        let stopped: Vec<_> = self.brokers.iter().filter(|broker| !broker.is_running()).collect();
        ensure!(!stopped.is_empty(), "Kafka runs already");
        // All before any is waited for: one alone has no quorum, and answers nobody.
        stopped.iter().try_for_each(|broker| broker.spawn())?;
        stopped.iter().try_for_each(|broker| broker.wait_until_it_answers())
    }

    /// SIGKILL to every broker.
    pub fn kill_9(&self) -> Result<()> {
        self.brokers.iter().try_for_each(Broker::kill_9)
    }

    /// Orderly shutdown (SIGTERM) of all brokers at once: the last ones would wait for a quorum.
    pub fn stop(&self) -> Result<()> {
        self.brokers.iter().try_for_each(|broker| broker.signal(Signal::Term))?;
        self.brokers.iter().try_for_each(Broker::wait_until_it_ends)
    }

    /// Orderly shutdown and start.
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Sends a signal to every broker; with [`Signal::Stop`] they hang with their connections open.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.brokers.iter().try_for_each(|broker| broker.signal(signal))
    }

    /// The kernel's letter for the state that all brokers are in, `T` when they are frozen.
    pub fn state(&self) -> Option<char> {
        let mut states = self.brokers.iter().map(Broker::state);
        let first = states.next()??;
        states.all(|state| state == Some(first)).then_some(first)
    }

    /// The process id of the only broker's present or last process.
    pub fn pid(&self) -> Option<u32> {
        self.first().pid()
    }

    /// Whether the process of any broker runs.
    pub fn is_running(&self) -> bool {
        self.brokers.iter().any(Broker::is_running)
    }

    /// `127.0.0.1:PORT` of each broker, for clients that go straight to them.
    pub fn bootstrap(&self) -> String {
        let addresses = self.brokers.iter().filter_map(|broker| broker.address(DIRECT).ok());
        addresses.collect::<Vec<_>>().join(",")
    }

    /// `127.0.0.1:PORT` for clients that go through a proxy to each broker, which the test has to
    /// start.
    pub fn proxied_bootstrap(&self) -> String {
        let addresses = self.brokers.iter().map(|it| format!("127.0.0.1:{}", it.proxied_port()));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// Where the proxy of the only broker has to listen.
    pub fn proxied_port(&self) -> u16 {
        self.first().proxied_port()
    }

    /// Where the proxy of the only broker has to connect to.
    pub fn proxied_target(&self) -> SocketAddr {
        self.first().proxied_target()
    }

    /// `127.0.0.1:PORT` of a listener of the only broker by its name.
    pub fn address(&self, listener: &str) -> Result<String> {
        self.first().address(listener)
    }

    /// Where the only broker keeps its topics.
    pub fn data_dir(&self) -> PathBuf {
        self.first().data_dir()
    }

    /// Runs one of Kafka's own Java tools, for example `org.apache.kafka.tools.ConsoleProducer`,
    /// with `input` as its standard input, and returns its standard output. Blocks.
    pub fn run_tool(&self, class: &str, args: &[&str], input: &str) -> Result<String> {
        let mut child = tool("java")?
            .args(SHORT_LIVED)
            .args(["-cp", &self.first().class_path(), class])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {class}"))?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let input = input.to_owned();
        // From a thread of its own, because a tool that writes much would not read to the end.
        let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().with_context(|| format!("wait for {class}"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{class} ended with {}:\n{errors}", output.status);
        writer.join().ok().context("the writer panicked")?.context("write standard input")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn first(&self) -> &Broker {
        // A Kafka is made with one at least.
        self.brokers.first().unwrap_or_else(|| unreachable!("no broker"))
    }
}
