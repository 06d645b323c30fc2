//! The pages over a real socket, asked for in plain HTTP/1.1.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use walrelay::health::{Health, Phase};
use walrelay::http::{self, Pages};
use walrelay::lsn::Lsn;
use walrelay::metrics::Metrics;
use walrelay::pg::slot::Slot;
use walrelay::pipe::Passed;

/// Long beyond what an answer takes, short of the ten seconds that a silent client is given.
const AT_ONCE: Duration = Duration::from_secs(5);

struct Server {
    address: SocketAddr,
    pages: Pages,
}

/// An answer: status, head in lower case, body.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Server {
    async fn start() -> Server {
        let listener = http::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::new().unwrap()));
        let pages = Pages { health, metrics };
        tokio::spawn(http::serve(listener, pages.clone()));
        Server { address, pages }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ask(&self, method: &str, path: &str) -> Answer {
        let mut stream = self.connect().await;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        let asked = async {
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.read_to_string(&mut answer).await.unwrap();
        };
        tokio::time::timeout(AT_ONCE, asked).await.expect("no answer");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let Answer { status, body, .. } = self.ask("GET", path).await;
        (status, body)
    }

    fn stream(&self) {
        self.pages.health.enter(Phase::Streaming, None);
        self.pages.health.update(Instant::now(), |state| state.kafka_connected = true);
    }
}

/// Every metric of ours as it looks before anything has happened.
const METRICS: [&str; 18] = [
    "walrelay_event_bytes_total 0",
    "walrelay_transactions_total 0",
    "walrelay_commit_to_ack_seconds_count 0",
    "walrelay_commit_to_ack_seconds_bucket{le=\"0.0005\"} 0",
    "walrelay_in_flight_records 0",
    "walrelay_in_flight_bytes 0",
    "walrelay_confirmed_lsn 0",
    "walrelay_received_lsn 0",
    "walrelay_server_lsn 0",
    "walrelay_lag_bytes 0",
    "walrelay_retained_wal_bytes 0",
    "walrelay_safe_wal_bytes inf",
    "walrelay_last_ack_age_seconds 0",
    "walrelay_standby 0",
    "walrelay_ready 0",
    "walrelay_producer_queue_full_total 0",
    "walrelay_kafka_connected 0",
    "walrelay_postgres_connected 0",
];

/// The same after what [`much_happens`] does, with those that have labels.
const METRICS_AFTER: [&str; 22] = [
    "walrelay_events_total{topic=\"orders\"} 3",
    "walrelay_events_total{topic=\"posts\"} 1",
    "walrelay_event_bytes_total 700",
    "walrelay_transactions_total 2",
    "walrelay_commit_to_ack_seconds_bucket{le=\"0.5\"} 1",
    "walrelay_in_flight_records 4",
    "walrelay_in_flight_bytes 2000",
    "walrelay_confirmed_lsn 100",
    "walrelay_received_lsn 120",
    "walrelay_server_lsn 150",
    "walrelay_lag_bytes 50",
    "walrelay_retained_wal_bytes 5000",
    "walrelay_safe_wal_bytes inf",
    "walrelay_wal_status{status=\"extended\"} 1",
    "walrelay_wal_status{status=\"reserved\"} 0",
    "walrelay_ready 1",
    "walrelay_sessions_total{reason=\"closed\"} 1",
    "walrelay_poison_total{policy=\"skip\"} 1",
    "walrelay_producer_queue_full_total 1",
    "walrelay_kafka_connected 1",
    "walrelay_postgres_connected 1",
    "walrelay_standby 0",
];

fn much_happens(server: &Server) {
    let metrics = &server.pages.metrics;
    let passed = Passed { transactions: 2, bytes: 700, loose: 3 };
    metrics.passed(passed, [("orders", 1), ("posts", 1), ("orders", 2)].into_iter());
    metrics.commit_to_ack.observe(0.3);
    metrics.session_ended("closed");
    metrics.poisoned("skip");
    metrics.queue_full();
    metrics.slot(&Slot {
        wal_status: "extended".into(),
        retained_wal_bytes: 5000,
        server: Lsn::from_wire(150),
        ..Slot::default()
    });
    server.stream();
    server.pages.health.update(Instant::now(), |state| {
        state.confirmed = Lsn::from_wire(100);
        state.received = Lsn::from_wire(120);
        (state.records, state.bytes) = (4, 2000);
    });
}

#[tokio::test]
async fn metrics_hold_every_name_and_what_happened() {
    let server = Server::start().await;
    let has = |text: &str, sample: &str| {
        assert!(text.lines().any(|line| line == sample), "{sample} is not in\n{text}");
    };
    let answer = server.ask("GET", "/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    for sample in METRICS {
        has(&answer.body, sample);
    }
    let version = env!("CARGO_PKG_VERSION");
    let versions = format!("version=\"{version}\"}} 1");
    let built = |line: &str| line.starts_with("walrelay_build_info{") && line.ends_with(&versions);
    assert!(answer.body.lines().any(built), "{}", answer.body);
    for process in ["resident_memory_bytes", "cpu_seconds_total", "open_fds", "start_time_seconds"]
    {
        assert!(answer.body.contains(&format!("\nprocess_{process} ")), "{process}");
    }

    much_happens(&server);
    let (_, text) = server.get("/metrics").await;
    for sample in METRICS_AFTER {
        has(&text, sample);
    }
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let ours = |line: &&str| line.starts_with("walrelay_") || line.starts_with("process_");
    assert_eq!(samples.filter(|line| !ours(line)).collect::<Vec<_>>(), [""; 0]);
    // Each metric is explained before its samples.
    for line in text.lines().filter(|line| line.starts_with("# TYPE walrelay_")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
    }
}

#[tokio::test]
async fn readyz_says_why_not_and_healthz_is_content() {
    let server = Server::start().await;
    assert_eq!(server.get("/readyz").await, (503, "starting\n".to_owned()));
    assert_eq!(server.get("/healthz").await, (200, "ok\n".to_owned()));
    let reason = Some("127.0.0.1:9092: refused".to_owned());
    server.pages.health.enter(Phase::WaitingForKafka, reason);
    let expected = "waiting_for_kafka: 127.0.0.1:9092: refused\n".to_owned();
    assert_eq!(server.get("/readyz").await, (503, expected));
    server.stream();
    assert_eq!(server.get("/readyz").await, (200, "ok\n".to_owned()));
    assert_eq!(server.get("/readyz?verbose").await.0, 200, "a query changes nothing");
    server.pages.health.enter(Phase::Halted, Some("the slot is gone".to_owned()));
    assert_eq!(server.get("/readyz").await, (503, "halted: the slot is gone\n".to_owned()));
    assert_eq!(server.get("/healthz").await.0, 200, "halted is alive");
}

#[tokio::test]
async fn healthz_fails_when_the_loop_is_stuck() {
    let Some(long_ago) = Instant::now().checked_sub(Duration::from_secs(31)) else { return };
    let server = Server::start().await;
    server.stream();
    server.pages.health.update(long_ago, |_| {});
    let (status, reason) = server.get("/healthz").await;
    assert_eq!(status, 503);
    assert!(reason.starts_with("the relay's loop has not turned for 3"), "{reason}");
}

#[tokio::test]
async fn status_is_the_state_as_json() {
    let server = Server::start().await;
    much_happens(&server);
    let answer = server.ask("GET", "/status").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    let status: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let expected = serde_json::json!({
        "state": "streaming",
        "ready": true,
        "reason": null,
        "postgres_connected": true,
        "kafka_connected": true,
        "confirmed_lsn": "0/64",
        "received_lsn": "0/78",
        "in_flight_records": 4,
        "in_flight_bytes": 2000,
        "last_ack_age_seconds": 0.0,
    });
    assert_eq!(status, expected);

    server.pages.health.enter(Phase::StandingBy, Some("slot walrelay is active".to_owned()));
    let status: serde_json::Value = serde_json::from_str(&server.get("/status").await.1).unwrap();
    assert_eq!(status["ready"], false);
    assert_eq!(status["state"], "standing_by");
    assert_eq!(status["reason"], "standing_by: slot walrelay is active");
    let (_, metrics) = server.get("/metrics").await;
    assert!(metrics.contains("\nwalrelay_standby 1\n") && metrics.contains("\nwalrelay_ready 0\n"));
}

#[tokio::test]
async fn other_pages_and_methods_are_refused() {
    let server = Server::start().await;
    for path in ["/", "/metrics/", "/readyz/x", "/favicon.ico", "//metrics"] {
        let (status, text) = server.get(path).await;
        assert_eq!((status, text.contains("/metrics, /healthz")), (404, true), "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(server.ask(method, "/metrics").await.status, 405, "{method}");
    }
    let head = server.ask("HEAD", "/readyz").await;
    assert_eq!((head.status, head.body.as_str()), (503, ""));
}

#[tokio::test]
async fn a_connection_serves_more_than_one_request() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok\n") {
            let read = stream.read_buf(&mut answer);
            let read = tokio::time::timeout(AT_ONCE, read).await.expect("no answer").unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        }
    }
}

#[tokio::test]
async fn clients_that_send_nothing_or_nonsense_do_not_block_others() {
    let server = Server::start().await;
    let mut idle = Vec::new();
    for begun in ["", "GET", "GET /metrics HTTP/1.1\r\nHost: x\r\n"].repeat(10) {
        let mut stream = server.connect().await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        idle.push(stream);
    }
    for nonsense in [&b"\x16\x03\x01\x02\0"[..], b"\r\n\r\n\r\n", b"GET /\xFF HTTP/9\r\n\r\n"] {
        let mut stream = server.connect().await;
        stream.write_all(nonsense).await.unwrap();
        drop(stream);
    }
    assert_eq!(server.get("/healthz").await.0, 200);
    drop(idle);
}
