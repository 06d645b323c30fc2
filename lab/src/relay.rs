//! The relay as users run it: the binary, a configuration file, an HTTP port.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::clock::Clock;
use crate::monitor::Monitor;
use crate::ports::{self, Port};
use crate::process::{Child, Launch, Signal, read_log, show_log_of_failed_test};
use crate::run_dir::RunDir;
use crate::{eventually, wait_until};

const HTTP_TIMEOUT: Duration = Duration::from_secs(5);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A relay process with its configuration. Dropping it kills it.
#[derive(Debug)]
pub struct Relay {
    builder: Builder,
    http: Port,
    child: Mutex<Option<Child>>,
    monitor: Option<Monitor>,
    /// Last, so that the files go after the process.
    run: RunDir,
}

/// A relay about to be started.
#[derive(Clone, Debug)]
pub struct Builder {
    binary: PathBuf,
    config: String,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    memory_max: Option<u64>,
    monitored: bool,
}

impl Builder {
    /// The configuration file's text; `{http}` in it becomes `127.0.0.1:PORT`.
    #[must_use]
    pub fn config(mut self, toml: impl Into<String>) -> Builder {
        self.config = toml.into();
        self
    }

    /// Sets an environment variable of the relay.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Builder {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives the relay a calendar of its own.
    #[must_use]
    pub fn clock(mut self, clock: &Clock) -> Builder {
        self.env.extend(clock.environment());
        self
    }

    /// What follows `walrelay run --config FILE` on the command line.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Builder {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The most memory that each of its processes may write to.
    #[must_use]
    pub fn memory_max(mut self, bytes: u64) -> Builder {
        self.memory_max = Some(bytes);
        self
    }

    /// Whether its pages are looked at all the time. If they contradict each other, dropping it
    /// panics.
    #[must_use]
    pub fn monitored(mut self) -> Builder {
        self.monitored = true;
        self
    }

    /// Writes the file and starts the process. It need not be ready yet, nor live long.
    pub fn start(self) -> Result<Relay> {
        let (http, run) = (ports::reserve()?, RunDir::create("relay")?);
        let address = http.address().parse().context("the address of the pages")?;
        let monitor = self.monitored.then(|| Monitor::start(address));
        let relay = Relay { builder: self, http, child: Mutex::new(None), monitor, run };
        relay.write_config(&relay.builder.config)?;
        relay.start_again()?;
        Ok(relay)
    }
}

impl Relay {
    /// A relay that runs this binary.
    pub fn builder(binary: impl Into<PathBuf>) -> Builder {
        Builder {
            binary: binary.into(),
            config: String::new(),
            args: Vec::new(),
            env: Vec::new(),
            memory_max: None,
            monitored: false,
        }
    }

    /// Replaces the configuration file, for the next start. `{http}` is filled in.
    pub fn write_config(&self, toml: &str) -> Result<()> {
        let path = self.config_path();
        fs::write(&path, toml.replace("{http}", &self.http_address()))
            .with_context(|| format!("write {}", path.display()))
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.run.join("walrelay.toml")
    }

    /// Starts the ended process again, with the same file and port.
    pub fn start_again(&self) -> Result<()> {
        self.start_again_with(&[])
    }

    /// The same with more arguments, this time only.
    pub fn start_again_with(&self, args: &[&str]) -> Result<()> {
        let mut slot = self.lock();
        ensure!(!slot.as_ref().is_some_and(Child::is_running), "the relay runs already");
        let mut launch = Launch::new(&self.builder.binary, self.run.join("log"))
            .args(["run", "--config"])
            .arg(self.config_path())
            .args(&self.builder.args)
            .args(args)
            .dir(self.run.path());
        // The tester's own environment must not configure the relay under test.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WALRELAY_") {
                launch = launch.env_remove(name);
            }
        }
        for (name, value) in &self.builder.env {
            launch = launch.env(name, value);
        }
        if let Some(bytes) = self.builder.memory_max {
            launch = launch.memory_max(bytes);
        }
        *slot = Some(launch.spawn()?);
        Ok(())
    }

    /// SIGTERM, the orderly end, and a new start.
    pub fn restart(&self) -> Result<()> {
        self.terminate_and_wait(STOP_TIMEOUT)?;
        self.start_again()
    }

    /// SIGKILL.
    pub fn kill_9(&self) -> Result<()> {
        self.running(Child::kill_9)
    }

    /// Sends a signal; an error if the relay has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running(|child| child.signal(signal))
    }

    /// SIGTERM; fails if the relay has not ended after `timeout`.
    pub fn terminate_and_wait(&self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::Term)?;
        self.wait(timeout)
    }

    /// How the relay ended by itself; fails if it still runs after `timeout`.
    pub fn wait(&self, timeout: Duration) -> Result<ExitStatus> {
        let ended = self.running(|child| child.wait_timeout(timeout))?;
        ended.with_context(|| format!("the relay still runs after {timeout:?}"))
    }

    /// Whether the process has not ended.
    pub fn is_running(&self) -> bool {
        self.lock().as_ref().is_some_and(Child::is_running)
    }

    /// The process id of the present or last process.
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Child::pid)
    }

    /// The kernel's letter for its state, `T` when it is frozen.
    pub fn state(&self) -> Option<char> {
        self.lock().as_ref().and_then(Child::state)
    }

    /// Resident memory now.
    pub fn rss_bytes(&self) -> Option<u64> {
        self.lock().as_ref().and_then(Child::rss_bytes)
    }

    /// The most resident memory since the last start.
    pub fn peak_rss_bytes(&self) -> Option<u64> {
        self.lock().as_ref().and_then(Child::peak_rss_bytes)
    }

    /// The most memory that the present process may write to, as the kernel has it.
    pub fn memory_max(&self) -> Option<u64> {
        self.lock().as_ref().and_then(Child::memory_max)
    }

    /// Everything that the relay wrote, over all its starts.
    pub fn log(&self) -> String {
        read_log(&self.run.join("log"))
    }

    /// Blocks until the log holds `text`.
    pub fn wait_for_log(&self, timeout: Duration, text: &str) -> Result<()> {
        wait_until(timeout, format!("{text:?} in the relay's log"), || self.log().contains(text))
    }

    /// `127.0.0.1:PORT`
    pub fn http_address(&self) -> String {
        self.http.address()
    }

    /// GETs a path and returns status and body.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        let address = self.http_address();
        tokio::time::timeout(HTTP_TIMEOUT, http_get(&address, path))
            .await
            .unwrap_or_else(|_| bail!("no answer in {HTTP_TIMEOUT:?}"))
            .with_context(|| format!("GET {path}"))
    }

    /// The sum of a metric over its labels; `None` while it or the relay is not there.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (status, text) = self.get("/metrics").await.ok()?;
        if status == 200 { sum_of_metric(&text, name, "") } else { None }
    }

    /// The sum over the samples with this text among their labels, such as `topic="orders"`.
    pub async fn metric_where(&self, name: &str, label: &str) -> Option<f64> {
        let (status, text) = self.get("/metrics").await.ok()?;
        if status == 200 { sum_of_metric(&text, name, label) } else { None }
    }

    /// Waits until `/readyz` answers 200; fails at once, with the log, if the relay ends.
    pub async fn wait_ready(&self, timeout: Duration) -> Result<()> {
        let mut ended = false;
        let ready = eventually(timeout, "the relay to be ready", async || {
            ended = !self.is_running();
            ended || self.get("/readyz").await.is_ok_and(|(status, _)| status == 200)
        });
        ready.await.with_context(|| self.log())?;
        ensure!(!ended, "the relay ended before it was ready:\n{}", self.log());
        Ok(())
    }

    fn running<T>(&self, act: impl FnOnce(&Child) -> Result<T>) -> Result<T> {
        act(self.lock().as_ref().context("the relay was never started")?)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let contradictions = self.monitor.take().map(Monitor::contradictions).unwrap_or_default();
        let failed = std::thread::panicking();
        if !failed && !contradictions.is_empty() {
            eprintln!("{}", self.log());
        }
        show_log_of_failed_test("the relay", &self.log());
        assert!(failed || contradictions.is_empty(), "{contradictions:?}");
    }
}

/// A GET over a connection of its own, whose end is the answer's end.
pub async fn http_get(address: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.context("connect")?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("send the request")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.context("read the answer")?;
    parse_answer(&String::from_utf8_lossy(&answer))
}

pub(crate) fn parse_answer(answer: &str) -> Result<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of head")?;
    let status = head.split_whitespace().nth(1).context("the answer has no status")?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    ensure!(!chunked, "the answer comes in chunks, which the lab does not read");
    Ok((status.parse().context("the status is no number")?, body.to_owned()))
}

pub(crate) fn sum_of_metric(text: &str, name: &str, label: &str) -> Option<f64> {
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once('}')?,
            None => ("", rest.strip_prefix(' ')?),
        };
        let value: f64 = value.split_whitespace().next()?.parse().ok()?;
        labels.contains(label).then_some(value)
    });
    samples.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_mistaken_for_a_longer_name() {
        let text = "# TYPE events_total counter\nevents_total{topic=\"a} b\"} 2\n\
                    events_total{topic=\"c\"} 3.5\nevents_total_max 100\nup 1\n";
        assert_eq!(sum_of_metric(text, "events_total", ""), Some(5.5));
        assert_eq!(sum_of_metric(text, "events_total", "topic=\"c\""), Some(3.5));
        assert_eq!(sum_of_metric(text, "up", ""), Some(1.0));
        assert_eq!(sum_of_metric(text, "events", ""), None);
    }

    #[test]
    fn an_answer_is_status_and_body() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno";
        assert_eq!(parse_answer(answer).unwrap(), (503, "no".to_owned()));
        assert!(parse_answer("HTTP/1.1 200 OK\r\n").is_err());
    }
}
