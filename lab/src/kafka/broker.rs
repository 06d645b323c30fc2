//! One broker: a process with its ports and its data.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Builder, CONTROLLER, DIRECT, PROXIED, SHORT_LIVED, admin};
use crate::ports::{self, Port};
use crate::process::{Child, Launch, Signal, read_log, show_log_of_failed_test};
use crate::run_dir::RunDir;
use crate::wait_until;

const FORMAT_TIMEOUT: Duration = Duration::from_secs(60);
const START_TIMEOUT: Duration = Duration::from_secs(90);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Any will do, but the same one keeps logs comparable.
const CLUSTER_ID: &str = "bGFiLWxhYi1sYWItbGFiLQ";

/// One broker of a [`Kafka`](super::Kafka). Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Broker {
    id: i32,
    jars: PathBuf,
    heap_mb: u32,
    /// Whether there are others.
    clustered: bool,
    /// By listener name.
    listeners: BTreeMap<String, Port>,
    /// Where a proxy has to listen; nothing else does.
    proxy: Port,
    child: Mutex<Option<Child>>,
    /// Last, so that the data goes after the process.
    run: RunDir,
}

impl Broker {
    /// A broker with its ports and a directory, and nothing in it.
    pub(super) fn reserve(id: u32, jars: &Path, builder: &Builder) -> Result<Broker> {
        let ports = builder.listeners.iter().map(|(name, _)| Ok((name.clone(), ports::reserve()?)));
        Ok(Broker {
            id: i32::try_from(id)?,
            jars: jars.to_owned(),
            heap_mb: builder.heap_mb,
            clustered: builder.brokers > 1,
            listeners: ports.collect::<Result<_>>()?,
            proxy: ports::reserve()?,
            child: Mutex::new(None),
            run: RunDir::create("kafka")?,
        })
    }

    /// Writes its configuration and formats its data directory.
    pub(super) fn format(&self, builder: &Builder) -> Result<()> {
        fs::write(self.run.join("server.properties"), self.properties_text(builder)?)?;
        let mut format = self
            .java(SHORT_LIVED, "kafka.tools.StorageTool", "format.log")
            .args(["format", "-t", CLUSTER_ID, "-c"])
            .arg(self.run.join("server.properties"));
        for (name, password) in &builder.users {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                let user = format!("{mechanism}=[name=\"{name}\",password=\"{password}\"]");
                format = format.args(["--add-scram", &user]);
            }
        }
        format.run(FORMAT_TIMEOUT).map(drop)
    }

    fn properties_text(&self, builder: &Builder) -> Result<String> {
        let (mut opened, mut advertised, mut protocols) = (vec![], vec![], vec![]);
        for (name, protocol) in &builder.listeners {
            let address = self.address(name)?;
            opened.push(format!("{name}://{address}"));
            protocols.push(format!("{name}:{protocol}"));
            match &**name {
                CONTROLLER => {}
                PROXIED => advertised.push(format!("{name}://{}", self.proxy.address())),
                _ => advertised.push(format!("{name}://{address}")),
            }
        }
        let own = [
            ("node.id", self.id.to_string()),
            ("listeners", opened.join(",")),
            ("advertised.listeners", advertised.join(",")),
            ("listener.security.protocol.map", protocols.join(",")),
            ("log.dirs", self.data_dir().display().to_string()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        // A line of the test's own wins.
        let properties: BTreeMap<_, _> =
            own.into_iter().chain(builder.common_properties()).collect();
        let mut text = String::new();
        for (name, value) in properties {
            writeln!(text, "{name}={value}")?;
        }
        Ok(text)
    }

    /// Its number, from one on.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Starts the stopped or killed broker on the same ports with the same data, and waits until
    /// it answers clients. That takes a quorum: of three, one other broker must run.
    pub fn start_again(&self) -> Result<()> {
        self.spawn()?;
        self.wait_until_it_answers()
    }

    pub(super) fn spawn(&self) -> Result<()> {
        let mut slot = self.lock();
        ensure!(!slot.as_ref().is_some_and(Child::is_running), "broker {} runs already", self.id);
        // Compiling takes the processors that a cluster's brokers have to share.
        let quick = if self.clustered { SHORT_LIVED } else { &[] };
        let launch = self
            .java(&[quick, &[&format!("-Xmx{}m", self.heap_mb)]].concat(), "kafka.Kafka", "log")
            .arg(self.run.join("server.properties"));
        *slot = Some(launch.spawn()?);
        Ok(())
    }

    pub(super) fn wait_until_it_answers(&self) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port(DIRECT)?));
        let answers = wait_until(START_TIMEOUT, format!("broker {} to answer", self.id), || {
            !self.is_running()
                || (TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
                    && admin::has_broker(&address.to_string(), self.id))
        });
        match answers {
            Ok(()) if self.is_running() => Ok(()),
            Ok(()) => bail!("broker {} ended while starting:\n{}", self.id, self.log()),
            Err(error) => Err(error.context(self.log())),
        }
    }

    /// SIGKILL.
    pub fn kill_9(&self) -> Result<()> {
        self.running(Child::kill_9)
    }

    /// Orderly shutdown (SIGTERM): what it leads is led by others before it goes.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::Term)?;
        self.wait_until_it_ends()
    }

    pub(super) fn wait_until_it_ends(&self) -> Result<()> {
        let ended = self.running(|child| child.wait_timeout(STOP_TIMEOUT))?;
        ensure!(ended.is_some(), "broker {} still runs {STOP_TIMEOUT:?} after SIGTERM", self.id);
        Ok(())
    }

    /// Sends a signal; with [`Signal::Stop`] the broker hangs with its connections open.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running(|child| child.signal(signal))
    }

    /// The process id of the present or last process.
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Child::pid)
    }

    /// The kernel's letter for the broker's state, `T` when it is frozen.
    pub fn state(&self) -> Option<char> {
        self.lock().as_ref().and_then(Child::state)
    }

    /// Whether the broker's process runs.
    pub fn is_running(&self) -> bool {
        self.lock().as_ref().is_some_and(Child::is_running)
    }

    /// `127.0.0.1:PORT` of a listener by its name.
    pub fn address(&self, listener: &str) -> Result<String> {
        Ok(format!("127.0.0.1:{}", self.port(listener)?))
    }

    /// Where a proxy has to listen for clients of `proxied_bootstrap`.
    pub fn proxied_port(&self) -> u16 {
        self.proxy.number()
    }

    /// Where that proxy has to connect to.
    pub fn proxied_target(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port(PROXIED).unwrap_or_default()))
    }

    /// What the broker wrote since its first start, warnings and errors.
    pub fn log(&self) -> String {
        read_log(&self.run.join("log"))
    }

    /// Where the broker keeps its topics.
    pub fn data_dir(&self) -> PathBuf {
        self.run.join("data")
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

    pub(super) fn class_path(&self) -> String {
        self.jars.join("*").display().to_string()
    }

    fn running<T>(&self, act: impl FnOnce(&Child) -> Result<T>) -> Result<T> {
        act(self.lock().as_ref().context("the broker was never started")?)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        show_log_of_failed_test(&format!("broker {}", self.id), &self.log());
    }
}
