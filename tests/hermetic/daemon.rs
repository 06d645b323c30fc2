//! The program itself, without any server to talk to.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use lab::ports::{self, Port};
use lab::{Relay, Signal, eventually};
use walrelay::config::Config;

const BINARY: &str = env!("CARGO_BIN_EXE_walrelay");

/// Long enough for a process to start on a busy machine.
const START: Duration = Duration::from_secs(20);

/// Runs the program to its end, with nothing in its environment, in a folder without a file.
fn run(args: &[&str]) -> Output {
    let folder = env::temp_dir();
    Command::new(BINARY).args(args).env_clear().current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A configuration file that goes with its test.
struct File(std::path::PathBuf);

impl File {
    fn new(name: &str, text: &str) -> File {
        let path = env::temp_dir().join(format!("walrelay-{}-{name}.toml", std::process::id()));
        fs::write(&path, text).unwrap();
        File(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Servers at which nobody listens.
struct Nobody {
    postgres: Port,
    kafka: Port,
}

impl Nobody {
    fn new() -> Nobody {
        Nobody { postgres: ports::reserve().unwrap(), kafka: ports::reserve().unwrap() }
    }

    fn config(&self, listen: &str) -> String {
        let (postgres, kafka) = (self.postgres.address(), self.kafka.address());
        format!(
            "postgres.url = 'postgres://walrelay:geheim@{postgres}/app?sslmode=disable'\n\
             kafka.brokers = ['{kafka}']\nhttp.listen = '{listen}'\n"
        )
    }

    fn relay(&self, more: &str) -> Relay {
        Relay::builder(BINARY).config(self.config("{http}") + more).start().unwrap()
    }
}

async fn answers(relay: &Relay) {
    eventually(START, "/healthz", async || relay.get("/healthz").await.is_ok()).await.unwrap();
}

#[test]
fn says_its_version() {
    let output = run(&["--version"]);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), format!("walrelay {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn config_prints_what_is_in_effect_and_masks_secrets() {
    let file = File::new("good", &Nobody::new().config("127.0.0.1:1"));
    let output = run(&["config", "--config", file.path()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = Config::parse("printed", text(&output.stdout), []).unwrap();
    assert_eq!(printed.http.listen.to_string(), "127.0.0.1:1");
    assert_eq!(printed.postgres.slot, "walrelay", "a default");
    assert!(!text(&output.stdout).contains("geheim"), "{}", text(&output.stdout));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn every_mistake_is_told_at_once_and_the_status_is_64() {
    let file = File::new(
        "bad",
        "kafka.brokers = []\npostgres.slott = 'x'\nlog.level = 'loud'\n[[outbox]]\ntopic = 'a b'\n",
    );
    for command in [["run", "--config"], ["config", "--config"]] {
        let output = run(&[&command[..], &[file.path()]].concat());
        assert_eq!(output.status.code(), Some(64));
        assert_eq!(text(&output.stdout), "");
        let told = text(&output.stderr);
        for key in ["postgres.url", "postgres.slott", "kafka.brokers", "log.level", "topic"] {
            let lines = told.lines().filter(|line| line.contains(key)).count();
            assert_eq!(lines, 1, "{key} in\n{told}");
        }
        assert_eq!(told.lines().count(), 5, "{told}");
    }
}

#[test]
fn migrate_prints_a_configuration_or_all_mistakes() {
    let options = [
        "connector.class=io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname=db",
        "database.user=debezium",
        "database.password=geheim",
        "database.dbname=app",
        "plugin.name=pgoutput",
        "slot.name=orders",
        "table.include.list=public.outbox",
        "transforms=outbox",
        "transforms.outbox.type=io.debezium.transforms.outbox.EventRouter",
    ];
    let migrate = |text: &str| {
        let mut command = Command::new(BINARY);
        command.args(["migrate", "debezium", "-"]).env_clear().current_dir(env::temp_dir());
        let [stdin, stdout, stderr] = [(); 3].map(|()| Stdio::piped());
        let mut child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = migrate(&options.join("\n"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let document = text(&output.stdout);
    assert!(document.starts_with("# Made by `walrelay migrate debezium` from standard input"));
    assert!(document.contains("\nslot = \"orders\"\n") && !document.contains("geheim"));
    assert_eq!(text(&output.stderr), "");

    let output = migrate("slot.name=Orders\nconnector.class=X\n");
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(text(&output.stdout), "");
    let told: Vec<_> = text(&output.stderr).lines().collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().any(|line| line.starts_with("standard input:1: slot.name: ")), "{told:?}");
    let output = run(&["migrate", "debezium", "/nowhere/connector.json"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).starts_with("/nowhere/connector.json: cannot be read: "));
}

#[test]
fn a_wrong_command_line_or_a_missing_file_is_a_mistake_of_the_caller() {
    for args in [&["rnu"][..], &["--cofnig"], &["run", "--config", "/nowhere/walrelay.toml"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{args:?}");
    }
    assert!(
        text(&run(&["run", "--config", "/nowhere/it.toml"]).stderr).contains("/nowhere/it.toml")
    );
}

#[test]
fn an_address_in_use_ends_it_with_a_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = File::new("taken", &Nobody::new().config(&address));
    let output = run(&["--config", file.path()]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    let expected = format!("cannot listen on http.listen = {address}: Address already in use");
    assert!(told.contains(&expected), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[tokio::test]
async fn without_servers_it_stays_up_and_says_what_it_waits_for() {
    let nobody = Nobody::new();
    let relay = nobody.relay("");
    let kafka = nobody.kafka.address();
    let reason = eventually(START, "a reason that names Kafka", async || {
        let (status, reason) = relay.get("/readyz").await.ok()?;
        assert_eq!(status, 503, "{reason}");
        reason.contains(&kafka).then_some(reason)
    });
    let reason = reason.await.unwrap();
    assert!(reason.starts_with("waiting_for_kafka: "), "{reason}");
    assert_eq!(relay.get("/healthz").await.unwrap().0, 200);
    assert_eq!(relay.metric("walrelay_ready").await, Some(0.0));
    assert_eq!(relay.metric("walrelay_kafka_connected").await, Some(0.0));
    assert!(relay.is_running());
    let log = relay.log();
    assert!(log.contains("waiting for Kafka: ") && !log.contains("geheim"), "{log}");
    // librdkafka tries again every second or so: the log does not tell of each time.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let told = relay.log().matches("waiting for Kafka").count();
    assert!(told <= 2, "{told} times:\n{}", relay.log());
}

#[tokio::test]
async fn a_signal_ends_it_in_order() {
    let nobody = Nobody::new();
    for (signal, name) in [(Signal::Term, "SIGTERM"), (Signal::Int, "SIGINT")] {
        let relay = nobody.relay("");
        answers(&relay).await;
        let asked = Instant::now();
        relay.signal(signal).unwrap();
        let status = relay.wait(Duration::from_secs(20)).unwrap();
        let took = asked.elapsed();
        assert_eq!(status.code(), Some(0), "{name}: {}", relay.log());
        assert!(took < Duration::from_secs(2), "{name} took {took:?}");
        assert!(relay.log().contains(name), "{}", relay.log());
    }
}

#[tokio::test]
async fn json_logs_are_one_object_a_line() {
    let relay = Nobody::new().relay("log.format = 'json'\nlog.level = 'debug'\n");
    answers(&relay).await;
    relay.wait_for_log(START, "waiting for Kafka").unwrap();
    relay.terminate_and_wait(START).unwrap();
    let log = relay.log();
    let mut levels = Vec::new();
    // The lab marks each start in the log file.
    for line in log.lines().filter(|line| !line.starts_with("--- lab starts")) {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(object["timestamp"].is_string() && object["message"].is_string(), "{line}");
        levels.push(object["level"].as_str().unwrap().to_owned());
    }
    assert!(levels.contains(&"INFO".into()) && levels.contains(&"WARN".into()), "{levels:?}");
}

/// E17: a log that cannot be written is no reason to end.
#[tokio::test]
async fn e17_a_full_disk_under_the_log_does_not_end_it() {
    let (nobody, port) = (Nobody::new(), ports::reserve().unwrap());
    let http = port.address();
    let file = File::new("full", &nobody.config(&http));
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let mut relay = Command::new(BINARY)
        .args(["run", "--config", file.path()])
        .env_clear()
        .stdout(full())
        .stderr(full())
        .spawn()
        .unwrap();
    let said = eventually(START, "a reason that names Kafka", async || {
        let (_, reason) = lab::relay::http_get(&http, "/readyz").await.ok()?;
        reason.contains(&nobody.kafka.address()).then_some(())
    });
    let (said, ended) = (said.await, relay.try_wait());
    relay.kill().unwrap();
    relay.wait().unwrap();
    said.unwrap();
    assert_eq!(ended.unwrap(), None);
}
