//! A Kafka of our own: one node that is broker and controller.

mod admin;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::downloads;
use crate::ports::{self, Port};
use crate::process::{Child, Launch, Signal, read_log, require, show_log_of_failed_test, tool};
use crate::run_dir::RunDir;
use crate::wait_until;

const FORMAT_TIMEOUT: Duration = Duration::from_secs(60);
const START_TIMEOUT: Duration = Duration::from_secs(90);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const HEAP_MB: u32 = 512;

/// Java options for tools that end before good machine code would pay.
const SHORT_LIVED: &[&str] = &["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];

/// Any will do, but the same one keeps logs comparable.
const CLUSTER_ID: &str = "bGFiLWxhYi1sYWItbGFiLQ";

/// The listener that tests connect to, and that the broker itself uses.
const DIRECT: &str = "PLAINTEXT";
/// The listener whose clients are told to come back through a proxy.
const PROXIED: &str = "PROXIED";
const CONTROLLER: &str = "CONTROLLER";

/// What every broker of the lab starts with; a test's own properties win.
const PROPERTIES: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("controller.listener.names", CONTROLLER),
    ("inter.broker.listener.name", DIRECT),
    // A topic that springs into being with the wrong partitions would hide mistakes.
    ("auto.create.topics.enable", "false"),
    ("offsets.topic.num.partitions", "4"),
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.num.partitions", "4"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
    // A killed broker is let in again only when the session of its former life has expired; with
    // the defaults that takes nine seconds after each kill.
    ("broker.session.timeout.ms", "2000"),
    ("broker.heartbeat.interval.ms", "400"),
];

/// A running (or just stopped) broker. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Kafka {
    jars: PathBuf,
    heap_mb: u32,
    /// By listener name.
    listeners: BTreeMap<String, Port>,
    /// Where a proxy has to listen; nothing else does.
    proxy: Port,
    child: Mutex<Option<Child>>,
    /// Last, so that the data goes after the process.
    run: RunDir,
}

/// A broker about to be made.
#[derive(Debug)]
pub struct Builder {
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

    /// The most heap that the JVM takes (512 MB otherwise).
    #[must_use]
    pub fn heap_mb(mut self, heap_mb: u32) -> Builder {
        self.heap_mb = heap_mb;
        self
    }

    /// Makes the broker and starts it; it answers clients when this returns.
    pub fn start(self) -> Result<Kafka> {
        self.start_broker().context("start Kafka")
    }

    fn start_broker(mut self) -> Result<Kafka> {
        require(&[("java", "default-jre-headless")])?;
        for name in [DIRECT, PROXIED, CONTROLLER] {
            self.listeners.push((name.to_owned(), "PLAINTEXT".to_owned()));
        }
        let mut ports = BTreeMap::new();
        for (name, _) in &self.listeners {
            ports.insert(name.clone(), ports::reserve()?);
        }
        let kafka = Kafka {
            jars: downloads::kafka()?,
            heap_mb: self.heap_mb,
            listeners: ports,
            proxy: ports::reserve()?,
            child: Mutex::new(None),
            run: RunDir::create("kafka")?,
        };
        fs::write(kafka.run.join("server.properties"), self.properties_text(&kafka)?)?;
        let mut format = kafka
            .java(SHORT_LIVED, "kafka.tools.StorageTool", "format.log")
            .args(["format", "-t", CLUSTER_ID, "-c"])
            .arg(kafka.run.join("server.properties"));
        for (name, password) in &self.users {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                let user = format!("{mechanism}=[name=\"{name}\",password=\"{password}\"]");
                format = format.args(["--add-scram", &user]);
            }
        }
        format.run(FORMAT_TIMEOUT)?;
        kafka.start_again()?;
        Ok(kafka)
    }

    fn properties_text(&self, kafka: &Kafka) -> Result<String> {
        let (mut opened, mut advertised, mut protocols) = (vec![], vec![], vec![]);
        for (name, protocol) in &self.listeners {
            let address = kafka.address(name)?;
            opened.push(format!("{name}://{address}"));
            protocols.push(format!("{name}:{protocol}"));
            match &**name {
                CONTROLLER => {}
                PROXIED => advertised.push(format!("{name}://{}", kafka.proxy.address())),
                _ => advertised.push(format!("{name}://{address}")),
            }
        }
        let mut properties = BTreeMap::new();
        for (name, value) in PROPERTIES {
            properties.insert(*name, (*value).to_owned());
        }
        properties.insert("listeners", opened.join(","));
        properties.insert("advertised.listeners", advertised.join(","));
        properties.insert("listener.security.protocol.map", protocols.join(","));
        let voters = format!("1@{}", kafka.address(CONTROLLER)?);
        properties.insert("controller.quorum.voters", voters);
        properties.insert("log.dirs", kafka.run.join("data").display().to_string());
        for (name, value) in &self.properties {
            properties.insert(name, value.clone());
        }
        let mut text = String::new();
        for (name, value) in properties {
            writeln!(text, "{name}={value}")?;
        }
        Ok(text)
    }
}

impl Kafka {
    /// A broker with the lab's properties.
    pub fn start() -> Result<Kafka> {
        Kafka::builder().start()
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

    /// Starts the stopped or killed broker on the same ports with the same data, and waits until
    /// it answers clients.
    pub fn start_again(&self) -> Result<()> {
        let mut slot = self.lock();
        ensure!(!slot.as_ref().is_some_and(Child::is_running), "the broker runs already");
        let launch = self
            .java(&[&format!("-Xmx{}m", self.heap_mb)], "kafka.Kafka", "log")
            .arg(self.run.join("server.properties"));
        let child = slot.insert(launch.spawn()?);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port(DIRECT)?));
        let answers = wait_until(START_TIMEOUT, "Kafka to answer", || {
            !child.is_running()
                || (TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
                    && admin::has_broker(&address.to_string()))
        });
        match answers {
            Ok(()) if child.is_running() => Ok(()),
            Ok(()) => bail!("Kafka ended while starting:\n{}", self.log()),
            Err(error) => Err(error.context(self.log())),
        }
    }

    /// SIGKILL.
    pub fn kill_9(&self) -> Result<()> {
        self.running(Child::kill_9)
    }

    /// Orderly shutdown (SIGTERM).
    pub fn stop(&self) -> Result<()> {
        self.running(|child| {
            child.signal(Signal::Term)?;
            let ended = child.wait_timeout(STOP_TIMEOUT)?;
            ensure!(ended.is_some(), "Kafka still runs {STOP_TIMEOUT:?} after SIGTERM");
            Ok(())
        })
    }

    /// Orderly shutdown and start.
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Sends a signal; with [`Signal::Stop`] the broker hangs with its connections open.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running(|child| child.signal(signal))
    }

    /// The kernel's letter for the broker's state, `T` when it is frozen.
    pub fn state(&self) -> Option<char> {
        self.lock().as_ref().and_then(Child::state)
    }

    /// Whether the broker's process runs.
    pub fn is_running(&self) -> bool {
        self.lock().as_ref().is_some_and(Child::is_running)
    }

    /// `127.0.0.1:PORT`, for clients that go straight to the broker.
    pub fn bootstrap(&self) -> String {
        self.listeners.get(DIRECT).map(Port::address).unwrap_or_default()
    }

    /// `127.0.0.1:PORT`, for clients that go through a proxy, which the test has to start.
    pub fn proxied_bootstrap(&self) -> String {
        self.proxy.address()
    }

    /// Where the proxy has to listen.
    pub fn proxied_port(&self) -> u16 {
        self.proxy.number()
    }

    /// Where the proxy has to connect to.
    pub fn proxied_target(&self) -> SocketAddr {
        let port = self.listeners.get(PROXIED).map(Port::number).unwrap_or_default();
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// `127.0.0.1:PORT` of a listener by its name.
    pub fn address(&self, listener: &str) -> Result<String> {
        Ok(format!("127.0.0.1:{}", self.port(listener)?))
    }

    /// What the broker wrote since its first start, warnings and errors.
    pub fn log(&self) -> String {
        read_log(&self.run.join("log"))
    }

    /// Where the broker keeps its topics.
    pub fn data_dir(&self) -> PathBuf {
        self.run.join("data")
    }

    /// Runs one of Kafka's own Java tools, for example `org.apache.kafka.tools.ConsoleProducer`,
    /// with `input` as its standard input, and returns its standard output. Blocks.
    pub fn run_tool(&self, class: &str, args: &[&str], input: &str) -> Result<String> {
        let mut child = tool("java")?
            .args(SHORT_LIVED)
            .args(["-cp", &self.class_path(), class])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {class}"))?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let input = input.to_owned();
        // From a thread of its own, because a tool that writes much would not read to the end.
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().with_context(|| format!("wait for {class}"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{class} ended with {}:\n{errors}", output.status);
        writer.join().ok().context("the writer panicked")?.context("write standard input")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn port(&self, listener: &str) -> Result<u16> {
        let port = self.listeners.get(listener);
        Ok(port.with_context(|| format!("no listener is called {listener}"))?.number())
    }

    fn java(&self, options: &[&str], class: &str, log: &str) -> Launch {
        Launch::new("java", self.run.join(log))
            .args(options)
            .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"])
            .args(["-Dorg.slf4j.simpleLogger.showDateTime=true"])
            .args(["-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"])
            .args(["-cp", &self.class_path(), class])
            .dir(self.run.path())
    }

    fn class_path(&self) -> String {
        self.jars.join("*").display().to_string()
    }

    fn running<T>(&self, act: impl FnOnce(&Child) -> Result<T>) -> Result<T> {
        act(self.lock().as_ref().context("Kafka was never started")?)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        show_log_of_failed_test("Kafka", &self.log());
    }
}
