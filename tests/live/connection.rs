//! From the URL to a session: methods, TLS, hosts, time limits, and who is told what.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use lab::{Direction, Postgres, Proxy, Relay, ports};
use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use tokio::task::JoinSet;
use walrelay::pg::connect::{ConnectError, SessionOptions, connect};
use walrelay::pg::conninfo::Conninfo;
use walrelay::pg::sql::connect_sql;

use crate::guarded::{Authority, ESCAPED, Guarded, OLDEST_AND_LATEST};
use crate::scene::{LATEST, PATIENCE, Scene, insert};

impl Guarded {
    /// What comes of it, with the host as HOST.
    async fn outcome(&self, login: &str, parameters: &str) -> String {
        let outcome = outcome(&self.url(login, "127.0.0.1", parameters)).await;
        outcome.replace(&self.host(), "HOST").replace(&self.file("").display().to_string(), "DIR/")
    }
}

const UNBOUND: &str = "HOST: authentication: channel_binding=require, but this session cannot be \
                       bound: it takes TLS, scram-sha-256 in pg_hba.conf and a certificate signed \
                       with RSA or ECDSA";

/// `plain` or `TLS`, or else what the user is told.
async fn outcome(url: &str) -> String {
    match both_connections(url).await {
        Ok(true) => "TLS".to_owned(),
        Ok(false) => "plain".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Whether the server itself says that both are encrypted.
async fn both_connections(url: &str) -> Result<bool, ConnectError> {
    const ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let conninfo = Conninfo::parse(url).unwrap();
    let mut replication = connect(&conninfo, &SessionOptions::default()).await?;
    let client = connect_sql(&conninfo, replication.endpoint()).await?;
    let encrypted: bool = client.query_one(ENCRYPTED, &[]).await.unwrap().get(0);
    let answer = if encrypted { "t" } else { "f" };
    assert_eq!(replication.query(ENCRYPTED).await?, [[Some(answer.to_owned())]]);
    assert_eq!(replication.is_encrypted(), encrypted);
    Ok(encrypted)
}

#[tokio::test]
async fn every_method_lets_in_who_knows_the_password() {
    for version in OLDEST_AND_LATEST {
        let server = Guarded::shared(version).await;
        for (role, parameters, expected) in [
            ("trusted", "sslmode=disable", "plain"),
            ("cleartext", "sslmode=disable", "plain"),
            ("hashed", "sslmode=disable", "plain"),
            ("scram", "sslmode=disable", "plain"),
            ("trusted", "sslmode=require", "TLS"),
            ("cleartext", "sslmode=require", "TLS"),
            ("hashed", "sslmode=require", "TLS"),
            ("scram", "sslmode=require", "TLS"),
            // SCRAM-SHA-256-PLUS, and SCRAM-SHA-256 although the server offers both.
            ("scram", "sslmode=require&channel_binding=require", "TLS"),
            ("scram", "sslmode=require&channel_binding=disable", "TLS"),
        ] {
            let outcome = server.outcome(&format!("{role}:{ESCAPED}"), parameters).await;
            assert_eq!(outcome, expected, "{version}: {role} {parameters}");
        }
    }
}

#[tokio::test]
async fn b28_who_is_not_let_in_learns_where_and_why() {
    for version in OLDEST_AND_LATEST {
        let server = Guarded::shared(version).await;
        let unprivileged = match version {
            14 => "must be superuser or replication role to start walsender",
            _ => {
                "permission denied to start WAL sender (detail: Only roles with the REPLICATION \
                 attribute may start a WAL sender process.)"
            }
        };
        let unprivileged = format!(
            "HOST: FATAL 42501: {unprivileged}; give the role what it lacks, or run: ALTER ROLE … \
             REPLICATION"
        );
        let denied = |role: &str| {
            format!(
                "HOST: FATAL 28P01: password authentication failed for user \"{role}\"; check the \
                 user and the password"
            )
        };
        let let_in = "let the role in with a line of pg_hba.conf for this database (one for \
                      \"replication\" does not count)";
        let no_line = |role: &str, how: &str| {
            format!(
                "HOST: FATAL 28000: no pg_hba.conf entry for host \"127.0.0.1\", user \"{role}\", \
                 database \"postgres\", {how}; {let_in}"
            )
        };
        let no_login =
            format!("HOST: FATAL 28000: role \"guests\" is not permitted to log in; {let_in}");
        let needs_password = "HOST: authentication: user \"scram\" needs a password (method \
                              SCRAM-SHA-256); set postgres.password_file or postgres.password_env";
        let (plain, tls) = (no_line("stranger", "no encryption"), "SSL encryption");
        let neither = format!("no server could be used: {}; {plain}", no_line("stranger", tls));
        for (login, parameters, expected) in [
            ("cleartext:wrong", "sslmode=disable", &*denied("cleartext")),
            ("hashed:wrong", "sslmode=disable", &denied("hashed")),
            ("scram:wrong", "sslmode=disable", &denied("scram")),
            ("scram:wrong", "sslmode=require", &denied("scram")),
            // Not tried again in plain text: that would not make the password any better.
            ("scram:wrong", "sslmode=prefer", &denied("scram")),
            ("nobody:secret", "sslmode=disable", &denied("nobody")),
            ("scram", "sslmode=disable", needs_password),
            (
                "trusted",
                "sslmode=disable&dbname=nowhere",
                "HOST: FATAL 3D000: database \"nowhere\" does not exist; check the database in \
                 postgres.url, or create it",
            ),
            (&format!("ordinary:{ESCAPED}"), "sslmode=disable", &unprivileged),
            (
                "limited",
                "sslmode=disable",
                "HOST: FATAL 53300: too many connections for role \"limited\"; raise \
                 max_wal_senders or max_connections, or end what is not needed",
            ),
            ("guests", "sslmode=disable", &no_login),
            ("stranger", "sslmode=disable", &plain),
            ("stranger", "sslmode=require", &no_line("stranger", tls)),
            ("stranger", "sslmode=prefer", &neither),
            (&format!("scram:{ESCAPED}"), "sslmode=disable&channel_binding=require", UNBOUND),
            (&format!("hashed:{ESCAPED}"), "sslmode=require&channel_binding=require", UNBOUND),
        ] {
            let outcome = server.outcome(login, parameters).await;
            assert_eq!(outcome, expected, "{version}: {login} {parameters}");
        }
    }
}

#[tokio::test]
async fn the_sql_connection_says_the_same() {
    for version in OLDEST_AND_LATEST {
        let server = Guarded::shared(version).await;
        let parse = |login| Conninfo::parse(&server.url(login, "127.0.0.1", "sslmode=require"));
        let options = SessionOptions::default();
        let trusted = connect(&parse("trusted").unwrap(), &options).await.unwrap();
        for (login, expected) in [
            ("scram:wrong", "FATAL 28P01: password authentication failed for user \"scram\""),
            ("stranger", "FATAL 28000: no pg_hba.conf entry for host \"127.0.0.1\", user"),
        ] {
            let refused = connect_sql(&parse(login).unwrap(), trusted.endpoint()).await;
            let error = refused.unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}: {expected}", server.host())), "{error}");
        }
    }
}

#[tokio::test]
async fn a_unix_socket_takes_no_tls_and_any_method() {
    for version in OLDEST_AND_LATEST {
        let server = Guarded::shared(version).await;
        let (directory, port) = (server.postgres.socket_dir(), server.postgres.port());
        let directory = directory.display().to_string();
        for (login, mode, expected) in [
            ("postgres", "prefer", "plain"),
            (&format!("scram:{ESCAPED}"), "verify-full", "plain"),
            ("scram:wrong", "prefer", "SOCKET: FATAL 28P01: password authentication failed"),
        ] {
            let host = percent_encoding::utf8_percent_encode(
                &directory,
                percent_encoding::NON_ALPHANUMERIC,
            );
            let url = format!("postgres://{login}@{host}:{port}/postgres?sslmode={mode}");
            let outcome = outcome(&url).await;
            let outcome = outcome.replace(&format!("{directory}/.s.PGSQL.{port}"), "SOCKET");
            assert!(outcome.starts_with(expected), "{version}: {login}: {outcome}");
        }
    }
}

#[tokio::test]
async fn each_sslmode_on_a_server_with_tls() {
    const UNKNOWN: &str = "HOST: TLS: the server's certificate is signed by nobody in ";
    const ELSEWHERE: &str = "hostaddr=127.0.0.1&host=db.example";
    let (ours, theirs) = ("sslrootcert={dir}ca.pem", "sslrootcert={dir}other-ca.pem");
    let unknown = format!("{UNKNOWN}DIR/other-ca.pem; name the certificate of its authority with");
    for version in OLDEST_AND_LATEST {
        let server = Guarded::shared(version).await;
        for (role, parameters, expected) in [
            ("scram", String::new(), "TLS"),
            ("scram", "sslmode=prefer".into(), "TLS"),
            ("scram", "sslmode=disable".into(), "plain"),
            ("scram", format!("sslmode=verify-ca&{ours}"), "TLS"),
            ("scram", format!("sslmode=verify-full&{ours}"), "TLS"),
            ("scram", format!("sslmode=verify-full&{ours}&host=localhost"), "TLS"),
            ("scram", format!("sslmode=verify-ca&{ours}&{ELSEWHERE}"), "TLS"),
            ("scram", format!("sslmode=require&{theirs}"), &unknown),
            ("scram", format!("sslmode=verify-ca&{theirs}"), &unknown),
            ("scram", format!("sslmode=verify-full&{theirs}"), &unknown),
            // As in libpq: who prefers TLS goes on without when it fails.
            ("scram", format!("sslmode=prefer&{theirs}"), "plain"),
            (
                "scram",
                format!("sslmode=verify-full&{ours}&{ELSEWHERE}"),
                "db.example:PORT (127.0.0.1): TLS: invalid peer certificate: certificate not \
                 valid for name \"db.example\"",
            ),
            ("scram", "sslmode=verify-full".into(), "HOST: TLS: the server's certificate is"),
            (
                "scram",
                "sslmode=verify-full&sslrootcert={dir}missing.pem".into(),
                "TLS cannot be set up: DIR/missing.pem: No such file or directory",
            ),
            ("tls_only", "sslmode=prefer".into(), "TLS"),
            ("tls_only", "sslmode=disable".into(), "HOST: FATAL 28000: no pg_hba.conf entry"),
            ("plain_only", "sslmode=prefer".into(), "plain"),
            ("plain_only", "sslmode=require".into(), "HOST: FATAL 28000: no pg_hba.conf entry"),
        ] {
            let outcome = server.outcome(&format!("{role}:{ESCAPED}"), &parameters).await;
            let outcome = outcome.replace(&format!(":{} ", server.postgres.port()), ":PORT ");
            assert!(outcome.starts_with(expected), "{version}: {role} {parameters}: {outcome}");
        }
    }
}

#[tokio::test]
async fn each_sslmode_on_a_server_without_tls() {
    for version in OLDEST_AND_LATEST {
        let server = Postgres::shared(version);
        for (mode, is_open) in [
            ("disable", true),
            ("prefer", true),
            ("require", false),
            ("verify-ca", false),
            ("verify-full", false),
        ] {
            let outcome = outcome(&format!("{}?sslmode={mode}", server.url("postgres"))).await;
            let refused = format!(
                "127.0.0.1:{}: TLS: the server does not offer it and sslmode={mode} insists; set \
                 ssl = on in postgresql.conf, or sslmode=prefer in postgres.url",
                server.port()
            );
            assert_eq!(outcome, if is_open { "plain".to_owned() } else { refused });
        }
    }
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate() {
    let certificate =
        |name: &str| format!("sslmode=require&sslcert={{dir}}{name}.pem&sslkey={{dir}}{name}.key");
    let none = "HOST: FATAL 28000: connection requires a valid client certificate";
    let other = "HOST: FATAL 28000: certificate authentication failed for user \"certified\"";
    for version in OLDEST_AND_LATEST {
        let server = Guarded::shared(version).await;
        for (login, parameters, expected) in [
            ("certified", certificate("certified"), "TLS"),
            ("certified", "sslmode=require".into(), none),
            ("certified", certificate("twofold"), other),
            ("certified", certificate("forged"), "HOST: received fatal alert: "),
            ("certified", certificate("missing"), "TLS cannot be set up: DIR/missing.pem: "),
            (&format!("twofold:{ESCAPED}"), certificate("twofold"), "TLS"),
            ("twofold:wrong", certificate("twofold"), "HOST: FATAL 28P01: password authentication"),
            (&format!("twofold:{ESCAPED}"), "sslmode=require".into(), none),
        ] {
            let outcome = server.outcome(login, &parameters).await;
            assert!(outcome.starts_with(expected), "{version}: {login} {parameters}: {outcome}");
        }
    }
}

#[tokio::test]
async fn each_kind_of_certificate_binds_the_channel_or_is_said_not_to() {
    const NAMES: &[&str] = &["127.0.0.1"];
    const FULL: &str = "sslmode=verify-full&sslrootcert={dir}ca.pem&channel_binding=";
    let root = Authority::new("root");
    let middle = root.intermediate("middle");
    let chained = middle.issue("server", NAMES);
    let chained = (chained.0 + &middle.pem(), chained.1);
    let sha384 = Authority::with("sha384", &PKCS_ECDSA_P384_SHA384);
    let ed25519 = Authority::with("ed25519", &PKCS_ED25519);
    for version in OLDEST_AND_LATEST {
        let server = Guarded::start(version).await;
        for (authority, (certificate, key), required) in [
            (&root, chained.clone(), "TLS"),
            (&sha384, sha384.issue("server", NAMES), "TLS"),
            (&ed25519, ed25519.issue("server", NAMES), UNBOUND),
        ] {
            let files = [("server.pem", certificate), ("server.key", key)];
            for (name, text) in files.into_iter().chain([("ca.pem", authority.pem())]) {
                server.postgres.write_file(name, text.as_bytes()).unwrap();
            }
            server.postgres.restart().unwrap();
            for (binding, expected) in [("require", required), ("prefer", "TLS")] {
                let parameters = format!("{FULL}{binding}");
                let outcome = server.outcome(&format!("scram:{ESCAPED}"), &parameters).await;
                assert_eq!(outcome, expected, "{version}: {binding}");
            }
        }
    }
}

#[tokio::test]
async fn the_first_host_that_is_a_primary_is_taken() {
    // GIVEN a port where nobody listens, a standby of nobody, and a primary
    let (closed, primary) = (ports::reserve().unwrap(), Postgres::shared(LATEST));
    let standby = Postgres::builder(LATEST).file("standby.signal", "").start().unwrap();
    let (closed, standby) = (closed.address(), format!("127.0.0.1:{}", standby.port()));
    let url = |hosts: &[&str]| format!("postgres://postgres@{}/postgres", hosts.join(","));

    // WHEN they are named in this order
    let all = url(&[&closed, &standby, &format!("127.0.0.1:{}", primary.port())]);
    let found = connect(&Conninfo::parse(&all).unwrap(), &SessionOptions::default()).await;

    // THEN the primary is found, and without it every reason is told
    let found = found.unwrap().endpoint().to_string();
    assert_eq!(found, format!("127.0.0.1:{}", primary.port()));
    let reasons = outcome(&url(&[&closed, &standby])).await;
    assert_eq!(
        reasons,
        format!(
            "no server could be used: {closed}: Connection refused (os error 111): is Postgres \
             running there, and does its listen_addresses include this address?; {standby} is a \
             standby; walrelay needs the primary"
        )
    );
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = ([127, 0, 0, 1], Postgres::shared(LATEST).port());
    let stalled = Proxy::start(None, target.into()).unwrap();
    stalled.stall(Direction::ToClient);
    let begun = Instant::now();
    let mut attempts = JoinSet::new();
    for host in [silent.local_addr().unwrap().to_string(), stalled.address()] {
        for mode in ["disable", "prefer", "require"] {
            let url = format!("postgres://u@{host}/app?connect_timeout=1&sslmode={mode}");
            let expected = format!("{host} did not answer within 1s");
            attempts.spawn(async move { assert_eq!(outcome(&url).await, expected, "{mode}") });
        }
    }
    attempts.join_all().await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

fn start(config: String) -> Relay {
    Relay::builder(env!("CARGO_BIN_EXE_walrelay")).monitored().config(config).start().unwrap()
}

#[tokio::test]
async fn a_row_travels_over_verified_tls_with_a_password_file() {
    for version in OLDEST_AND_LATEST {
        // GIVEN a relay that knows the authority and finds its password in a file
        let (server, scene) = (Guarded::shared(version).await, Scene::new(LATEST, 1).await);
        let (database, client) = server.outbox(&scene.topic).await;
        let url = format!(
            "postgres://{}@localhost:{}/{}?channel_binding=require&sslmode=verify-full\
             &sslrootcert={}",
            scene.topic,
            database.port(),
            database.name(),
            server.file("ca.pem").display()
        );
        let file = format!("[postgres]\npassword_file = {:?}", server.file("password"));
        let config = scene.config(&url, &scene.kafka.bootstrap());
        let relay = start(config.replacen("[postgres]", &file, 1));
        relay.wait_ready(PATIENCE).await.unwrap();

        // WHEN a row is committed
        client.batch_execute(&insert("k1", "{}")).await.unwrap();

        // THEN it arrives, over connections that are all encrypted
        let mut reader = scene.reader();
        assert_eq!(reader.poll_until(1, PATIENCE).unwrap()[0].key_text(), "k1");
        let open = "SELECT count(*), count(*) FILTER (WHERE ssl) \
                    FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = $1";
        let open = client.query_one(open, &[&scene.topic]).await.unwrap();
        assert_eq!((open.get::<_, i64>(0), open.get::<_, i64>(1)), (2, 2), "{version}");
        drop(relay);
        database.remove().await.unwrap();
    }
}

#[tokio::test]
async fn e12_rows_arrive_over_a_slow_and_crumbling_network() {
    let faults: [fn(&Proxy); 2] =
        [|proxy| proxy.one_byte_writes(true), |proxy| proxy.delay(Duration::from_millis(100))];
    for fault in faults {
        // GIVEN a relay behind a bad network
        let scene = Scene::new(LATEST, 1).await;
        let target = ([127, 0, 0, 1], scene.postgres.port());
        let proxy = Proxy::start(None, target.into()).unwrap();
        fault(&proxy);
        let url = scene.database.url_through(proxy.port());
        let relay = scene.start(&url, &scene.kafka.bootstrap());
        relay.wait_ready(PATIENCE).await.unwrap();

        // WHEN rows are committed, small ones and large ones
        let payload = |key| format!(r#"{{"text": "{}"}}"#, "x".repeat(key * 1000));
        for key in 0..20 {
            scene.insert(&key.to_string(), &payload(key)).await;
        }

        // THEN they arrive whole, once and in order
        let mut reader = scene.reader();
        for (key, record) in reader.poll_until(20, PATIENCE).unwrap().iter().enumerate() {
            assert_eq!(record.key_text(), key.to_string());
            assert_eq!(record.payload_text(), payload(key));
        }
        assert_eq!(reader.records().len(), 20);
        assert!(proxy.stats().bytes_to_client > 190_000, "{:?}", proxy.stats());
        drop(relay);
        scene.database.remove().await.unwrap();
    }
}

#[tokio::test]
async fn the_handshake_bears_a_slow_and_crumbling_network() {
    let server = Guarded::shared(LATEST).await;
    let proxy = Proxy::start(None, ([127, 0, 0, 1], server.postgres.port()).into()).unwrap();
    proxy.one_byte_writes(true);
    proxy.delay(Duration::from_millis(50));
    let parameters = "sslmode=verify-full&sslrootcert={dir}ca.pem&channel_binding=require&port=";
    let url = server.url(&format!("scram:{ESCAPED}"), "127.0.0.1", parameters);
    let url = format!("{url}{}", proxy.port());
    assert_eq!(outcome(&url).await, "TLS");
    assert!(proxy.stats().connections == 2, "{:?}", proxy.stats());
}

#[tokio::test]
async fn a_password_that_is_wrong_is_told_to_nobody_and_works_once_it_is_right() {
    const WRONG: &str = "hunter2";
    let server = Guarded::shared(LATEST).await;
    let file = server.file("wrong");
    fs::write(&file, WRONG).unwrap();
    let file = format!("[postgres]\npassword_file = {file:?}");
    let variable = "[postgres]\npassword_env = \"OUR_SECRET\"";
    for (login, section) in [(":hunter2@", "[postgres]"), ("@", &*file), ("@", variable)] {
        // GIVEN a relay that says all it can, and does not know the password
        let mut scene = Scene::new(LATEST, 1).await;
        scene.configure("[log]\nlevel = \"trace\"");
        let (database, client) = server.outbox(&scene.topic).await;
        let url = database.url().replace("postgres@", &format!("{}{login}", scene.topic));
        let config = scene.config(&url, &scene.kafka.bootstrap());
        let config = config.replacen("[postgres]", section, 1);
        let binary = env!("CARGO_BIN_EXE_walrelay");
        let relay = Relay::builder(binary).monitored().config(config).env("OUR_SECRET", WRONG);
        let relay = relay.start().unwrap();

        // WHEN it is refused
        let reason = format!("password authentication failed for user \"{}\"", scene.topic);
        lab::eventually(PATIENCE, &reason, async || {
            relay.get("/readyz").await.is_ok_and(|(_, body)| body.contains(&reason))
        })
        .await
        .unwrap();

        // THEN nothing shows it, and it goes on by itself once the role has that password
        let change = format!("ALTER ROLE {} PASSWORD '{WRONG}'", scene.topic);
        client.batch_execute(&change).await.unwrap();
        let mut told = relay.get("/readyz").await.unwrap().1;
        relay.wait_ready(PATIENCE).await.unwrap();
        client.batch_execute(&insert("k1", "{}")).await.unwrap();
        assert_eq!(scene.reader().poll_until(1, PATIENCE).unwrap().len(), 1);
        for path in ["/status", "/metrics"] {
            told += &relay.get(path).await.unwrap().1;
        }
        told += &relay.log();
        assert!(told.contains("halted") && !told.contains(WRONG), "{told}");
        drop(relay);
        database.remove().await.unwrap();
    }
}
