//! Looks at a relay's pages for as long as it lives, as monitoring would, and finds out whether
//! they contradict each other.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::relay::{parse_answer, sum_of_metric};

/// The time between two looks.
const PERIOD: Duration = Duration::from_millis(200);
/// A process that is stopped does not answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How long pages may disagree, on a machine that is busy: each is from its own moment.
const DISAGREEMENT_MAX: Duration = Duration::from_secs(5);

/// A thread that looks. It ends with this.
#[derive(Debug)]
pub struct Monitor {
    stop: Sender<()>,
    thread: JoinHandle<Vec<String>>,
}

/// What one look found.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a metric of its own")]
struct Look {
    status: u16,
    reason: String,
    ready: bool,
    kafka_connected: bool,
    postgres_connected: bool,
    standby: bool,
}

impl Monitor {
    /// Begins to look at this address.
    pub fn start(address: SocketAddr) -> Monitor {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut contradictions = Vec::new();
            let mut since: Option<(&str, Instant)> = None;
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                let found = look(address).ok().and_then(|look| Some((contradiction(&look)?, look)));
                since = match (since, found) {
                    (_, None) => None,
                    (Some((before, at)), Some((now, look))) if before == now => {
                        if at.elapsed() > DISAGREEMENT_MAX && contradictions.is_empty() {
                            contradictions.push(format!("{now}: {look:?}"));
                        }
                        since
                    }
                    (_, Some((now, _))) => Some((now, Instant::now())),
                };
            }
            contradictions
        });
        Monitor { stop, thread }
    }

    /// Ends it. Returns what the pages contradicted each other in.
    pub fn contradictions(self) -> Vec<String> {
        drop(self.stop);
        self.thread.join().unwrap_or_else(|_| vec!["the monitor panicked".to_owned()])
    }
}

fn look(address: SocketAddr) -> Result<Look> {
    let (status, reason) = get(address, "/readyz")?;
    let (_, metrics) = get(address, "/metrics")?;
    let is_one = |name| sum_of_metric(&metrics, name, "") == Some(1.0);
    Ok(Look {
        status,
        reason,
        ready: is_one("walrelay_ready"),
        kafka_connected: is_one("walrelay_kafka_connected"),
        postgres_connected: is_one("walrelay_postgres_connected"),
        standby: is_one("walrelay_standby"),
    })
}

/// What must not be, if it lasts.
fn contradiction(look: &Look) -> Option<&'static str> {
    let unready = look.status != 200;
    match look {
        _ if look.ready == unready => Some("/readyz and walrelay_ready disagree"),
        _ if unready && look.reason.trim().is_empty() => Some("/readyz gives no reason"),
        _ if unready => None,
        Look { kafka_connected: false, .. } => Some("ready without Kafka"),
        Look { postgres_connected: false, .. } => Some("ready without Postgres"),
        Look { standby: true, .. } => Some("ready, and standing by"),
        _ => None,
    }
}

fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX).context("connect")?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("read the answer")?;
    parse_answer(&String::from_utf8_lossy(&answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_contradict_each_other_are_told() {
        let good = || Look {
            status: 200,
            reason: "ready".to_owned(),
            ready: true,
            kafka_connected: true,
            postgres_connected: true,
            standby: false,
        };
        assert_eq!(contradiction(&good()), None);
        let unready = || Look { status: 503, ready: false, ..good() };
        assert_eq!(contradiction(&unready()), None);
        assert_eq!(contradiction(&Look { kafka_connected: false, ..unready() }), None);
        for (look, told) in [
            (Look { ready: false, ..good() }, "disagree"),
            (Look { ready: true, ..unready() }, "disagree"),
            (Look { reason: " ".to_owned(), ..unready() }, "no reason"),
            (Look { kafka_connected: false, ..good() }, "without Kafka"),
            (Look { postgres_connected: false, ..good() }, "without Postgres"),
            (Look { standby: true, ..good() }, "standing by"),
        ] {
            assert!(contradiction(&look).is_some_and(|it| it.contains(told)), "{look:?}");
        }
    }
}
