//! Brokers that want to know who is there, and that are to prove who they are themselves.

use std::fs;
use std::path::PathBuf;

use lab::{Kafka, Relay};
use tokio::sync::OnceCell;

use crate::guarded::Authority;
use crate::scene::{LATEST, PATIENCE, Scene};

/// Needs escaping in a JAAS line and in TOML's basic strings.
const PASSWORD: &str = "it's p@ss";
const WRONG: &str = "hunter2";

/// The listeners besides the lab's own.
const SECURE: &str = "SECURE";
const MUTUAL: &str = "MUTUAL";

/// A broker with a certificate, that asks for a login at one port and for a certificate at another.
struct Guarded {
    kafka: Kafka,
}

impl Guarded {
    async fn shared() -> &'static Guarded {
        static BROKER: OnceCell<Guarded> = OnceCell::const_new();
        BROKER.get_or_init(async || Guarded::start()).await
    }

    fn start() -> Guarded {
        const HANDLER: &str = "org.apache.kafka.common.security.oauthbearer.internals.unsecured.\
                               OAuthBearerUnsecuredValidatorCallbackHandler";
        const MODULES: &str = "org.apache.kafka.common.security";
        let authority = Authority::new("ours");
        let (certificate, key) = authority.issue("broker", &["localhost", "127.0.0.1"]);
        // A properties file has a value on one line.
        let line = |pem: &str| pem.replace('\n', "\\n");
        let login = |module: &str, options: &str| format!("{MODULES}.{module} required {options};");
        let plain = format!(r#"user_relay="{PASSWORD}""#);
        let mut builder = Kafka::builder()
            .listener(SECURE, "SASL_SSL")
            .listener(MUTUAL, "SSL")
            .user("relay", PASSWORD);
        for (name, value) in [
            ("ssl.keystore.type", "PEM"),
            ("ssl.keystore.certificate.chain", &*line(&certificate)),
            ("ssl.keystore.key", &line(&key)),
            ("ssl.truststore.type", "PEM"),
            ("ssl.truststore.certificates", &line(&authority.pem())),
            ("listener.name.mutual.ssl.client.auth", "required"),
            (
                "listener.name.secure.sasl.enabled.mechanisms",
                "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            ),
            (
                "listener.name.secure.plain.sasl.jaas.config",
                &login("plain.PlainLoginModule", &plain),
            ),
            (
                "listener.name.secure.scram-sha-256.sasl.jaas.config",
                &login("scram.ScramLoginModule", ""),
            ),
            (
                "listener.name.secure.scram-sha-512.sasl.jaas.config",
                &login("scram.ScramLoginModule", ""),
            ),
            (
                "listener.name.secure.oauthbearer.sasl.jaas.config",
                &login(
                    "oauthbearer.OAuthBearerLoginModule",
                    r#"unsecuredLoginStringClaim_sub="b""#,
                ),
            ),
            // Passwords are asked for again after so long.
            ("listener.name.secure.scram-sha-512.connections.max.reauth.ms", "5000"),
            ("listener.name.secure.oauthbearer.sasl.server.callback.handler.class", HANDLER),
        ] {
            builder = builder.property(name, value);
        }
        let kafka = builder.start().unwrap();
        let guarded = Guarded { kafka };
        let (client, client_key) = authority.issue("relay", &[]);
        for (name, text) in [
            ("ca.pem", authority.pem()),
            ("other-ca.pem", Authority::new("theirs").pem()),
            ("client.pem", client),
            ("client.key", client_key),
        ] {
            fs::write(guarded.file(name), text).unwrap();
        }
        guarded
    }

    /// In the broker's own directory, which goes with it.
    fn file(&self, name: &str) -> PathBuf {
        self.kafka.data_dir().with_file_name(name)
    }

    /// Takes a second, because it is a Java program.
    fn add_user(&self, name: &str, password: &str) {
        let credential = format!("SCRAM-SHA-512=[password={password}]");
        let bootstrap = self.kafka.bootstrap();
        let arguments = ["--bootstrap-server", &*bootstrap, "--alter", "--add-config", &credential];
        let arguments = [&arguments[..], &["--entity-type", "users", "--entity-name", name]];
        self.kafka.run_tool("kafka.admin.ConfigCommand", &arguments.concat(), "").unwrap();
    }

    /// A scene whose topic is on this broker. `{dir}` in a property is where the files are.
    async fn scene(&'static self, properties: &[&[(&str, &str)]]) -> Scene<'static> {
        let mut scene = Scene::new(LATEST, 0).await;
        scene.kafka = &self.kafka;
        self.kafka.create_topic(&scene.topic, 1).await.unwrap();
        scene.configure("[kafka.properties]\n");
        for (name, value) in properties.concat() {
            let value = value.replace("{dir}", &self.file("").display().to_string());
            scene.configure(&format!("{name:?} = {value:?}\n"));
        }
        scene
    }

    /// A relay that talks to this listener and to no other.
    fn relay(&self, scene: &Scene<'_>, listener: &str) -> Relay {
        scene.start(&scene.database.url(), &self.kafka.address(listener).unwrap())
    }
}

const SASL_SSL: [(&str, &str); 2] =
    [("security.protocol", "sasl_ssl"), ("ssl.ca.location", "{dir}ca.pem")];
const SSL: [(&str, &str); 2] = [("security.protocol", "ssl"), ("ssl.ca.location", "{dir}ca.pem")];
const LOGIN: [(&str, &str); 2] = [("sasl.username", "relay"), ("sasl.password", PASSWORD)];

/// A row that is inserted now is in the topic soon.
async fn assert_carries_a_row(scene: &Scene<'_>, relay: &Relay) {
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k1", "{}").await;
    let mut reader = scene.reader();
    assert_eq!(reader.poll_until(1, PATIENCE).unwrap()[0].key_text(), "k1");
}

/// `/readyz`, as soon as it holds this.
async fn wait_for_reason(relay: &Relay, reason: &str) -> String {
    let mut last = String::new();
    let said = lab::eventually(PATIENCE, format!("{reason:?} on /readyz"), async || {
        if let Ok((503, body)) = relay.get("/readyz").await {
            last = body;
        }
        last.contains(reason)
    });
    let said = said.await;
    said.unwrap_or_else(|error| panic!("{error}; it says {last:?}"));
    last
}

#[tokio::test]
async fn each_login_over_tls_lets_rows_through() {
    const TOKEN: [(&str, &str); 2] = [
        ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
        ("sasl.oauthbearer.config", "principal=relay"),
    ];
    let broker = Guarded::shared().await;
    for (mechanism, login) in [
        ("PLAIN", LOGIN),
        ("SCRAM-SHA-256", LOGIN),
        ("SCRAM-SHA-512", LOGIN),
        ("OAUTHBEARER", TOKEN),
    ] {
        let mechanism = [("sasl.mechanisms", mechanism)];
        let scene = broker.scene(&[&SASL_SSL, &mechanism, &login]).await;
        assert_carries_a_row(&scene, &broker.relay(&scene, SECURE)).await;
    }
}

#[tokio::test]
async fn a_certificate_of_our_own_lets_rows_through() {
    let broker = Guarded::shared().await;
    let text = |name: &str| fs::read_to_string(broker.file(name)).unwrap();
    let (ca, certificate, key) = (text("ca.pem"), text("client.pem"), text("client.key"));
    for properties in [
        [
            ("ssl.ca.location", "{dir}ca.pem"),
            ("ssl.certificate.location", "{dir}client.pem"),
            ("ssl.key.location", "{dir}client.key"),
        ],
        [("ssl.ca.pem", &*ca), ("ssl.certificate.pem", &certificate), ("ssl.key.pem", &key)],
    ] {
        let scene = broker.scene(&[&[("security.protocol", "ssl")], &properties]).await;
        assert_carries_a_row(&scene, &broker.relay(&scene, MUTUAL)).await;
    }
}

#[tokio::test]
async fn who_is_not_let_in_learns_why() {
    const PLAIN: [(&str, &str); 3] =
        [("sasl.mechanisms", "PLAIN"), ("sasl.username", "relay"), ("sasl.password", WRONG)];
    let stranger = [("security.protocol", "sasl_ssl"), ("ssl.ca.location", "{dir}other-ca.pem")];
    let missing = [("security.protocol", "ssl"), ("ssl.ca.location", "{dir}missing.pem")];
    let broker = Guarded::shared().await;
    for (listener, properties, reason) in [
        (SECURE, [&SASL_SSL[..], &PLAIN].concat(), "SASL authentication error: Authentication"),
        (SECURE, [&stranger[..], &PLAIN].concat(), "certificate verify failed"),
        (SECURE, missing.to_vec(), "ssl.ca.location failed"),
        (MUTUAL, SSL.to_vec(), "/tls alert bad certificate"),
        // The broker hangs up on who does not speak its protocol, and so says nothing.
        (SECURE, vec![], "waiting_for_kafka: "),
        (SECURE, SSL.to_vec(), "waiting_for_kafka: "),
    ] {
        let scene = broker.scene(&[&properties]).await;
        let relay = broker.relay(&scene, listener);
        let told = wait_for_reason(&relay, reason).await;
        let told = told + &relay.log() + &relay.get("/status").await.unwrap().1;
        assert!(!told.contains(WRONG), "{told}");
    }
}

#[tokio::test]
async fn d28_a_relay_goes_on_once_the_broker_knows_its_password() {
    // GIVEN a relay with a password that the broker does not know
    let broker = Guarded::shared().await;
    let scram = [("sasl.mechanisms", "SCRAM-SHA-512"), ("sasl.username", "late")];
    let scene = broker.scene(&[&SASL_SSL, &scram, &[("sasl.password", WRONG)]]).await;
    let relay = broker.relay(&scene, SECURE);
    wait_for_reason(&relay, "SASL authentication error").await;

    // WHEN the broker learns it
    broker.add_user("late", WRONG);

    // THEN rows arrive, and no restart was needed
    assert_carries_a_row(&scene, &relay).await;

    // WHEN it is changed, and the broker asks for it again
    broker.add_user("late", PASSWORD);
    wait_for_reason(&relay, "SASL authentication error").await;
    scene.insert("k2", "{}").await;
    broker.add_user("late", WRONG);

    // THEN what was written meanwhile arrives once it is the old one
    let mut reader = scene.reader();
    assert_eq!(reader.poll_until(2, PATIENCE).unwrap()[1].key_text(), "k2");
    relay.wait_ready(PATIENCE).await.unwrap();
    assert!(!relay.log().contains(WRONG));
}

/// D19: with just the rights that README lists, and what happens when one is taken away.
#[tokio::test(flavor = "multi_thread")]
async fn d19_a_right_that_was_taken_away_halts_the_relay_until_it_is_back() {
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
    let jaas = format!(r#"{module} required user_relay="secret";"#);
    let kafka = Kafka::builder()
        .listener("LOGIN", "SASL_PLAINTEXT")
        .property("listener.name.login.sasl.enabled.mechanisms", "PLAIN")
        .property("listener.name.login.plain.sasl.jaas.config", &jaas)
        .property(
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        )
        // Whoever comes without a login: the lab and the broker itself.
        .property("super.users", "User:ANONYMOUS")
        .start()
        .unwrap();
    let mut scene = Scene::on(lab::Postgres::shared(LATEST), &kafka, 1).await;
    scene.configure(
        "[kafka.properties]\n\"security.protocol\" = \"sasl_plaintext\"\n\
         \"sasl.mechanisms\" = \"PLAIN\"\n\"sasl.username\" = \"relay\"\n\
         \"sasl.password\" = \"secret\"",
    );
    let bootstrap = kafka.bootstrap();
    let acl = |how: &str, topic: &str, operations: &[&str]| {
        let mut args = vec!["--bootstrap-server", &bootstrap, how, "--force"];
        args.extend(["--allow-principal", "User:relay", "--topic", topic]);
        for operation in operations {
            args.extend(["--operation", operation]);
        }
        kafka.run_tool("org.apache.kafka.tools.AclCommand", &args, "").unwrap();
    };
    let positions = ["Create", "Read", "Write", "Describe"];
    acl("--add", "__walrelay_positions", &positions);
    let relay = scene.start(&scene.database.url(), &kafka.address("LOGIN").unwrap());
    relay.wait_ready(PATIENCE).await.unwrap();
    scene.insert("k", "1").await;
    // To whom may not describe it, a topic looks like none.
    wait_for_reason(&relay, &format!("topic {}", scene.topic)).await;
    acl("--add", &scene.topic, &["Write", "Describe"]);
    let mut reader = scene.reader();
    reader.poll_until(1, PATIENCE).unwrap();
    relay.wait_ready(PATIENCE).await.unwrap();

    acl("--remove", &scene.topic, &["Write"]);
    for n in 2..20 {
        scene.insert("k", &n.to_string()).await;
    }
    wait_for_reason(&relay, "the relay's Kafka user needs WRITE").await;
    assert_eq!(reader.read_to_end(PATIENCE).unwrap().len(), 1);
    acl("--add", &scene.topic, &["Write"]);
    let last = |records: &[lab::Record]| records.iter().any(|it| it.payload_text() == "19");
    let records = reader.read_until(PATIENCE, "the last row", last).unwrap();
    let mut numbers: Vec<u32> =
        records.iter().map(|record| record.payload_text().parse().unwrap()).collect();
    numbers.dedup();
    assert_eq!(numbers, (1..20).collect::<Vec<u32>>());
    relay.wait_ready(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn records_are_compressed_as_asked() {
    // The low bits of a batch's attributes, which stand at its 22nd and 23rd byte.
    for (name, number) in [("none", 0), ("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)] {
        let mut scene = Scene::new(LATEST, 1).await;
        scene.configure(&format!("[kafka.properties]\n\"compression.type\" = \"{name}\""));
        let relay = scene.relay().await;
        let payload = format!(r#"{{"text": "{}"}}"#, "again and ".repeat(1000));
        scene.insert("k1", &payload).await;
        let mut reader = scene.reader();
        assert_eq!(reader.poll_until(1, PATIENCE).unwrap()[0].payload_text(), payload);
        let segment = format!("{}-0/00000000000000000000.log", scene.topic);
        let segment = fs::read(scene.kafka.data_dir().join(segment)).unwrap();
        assert_eq!(segment[22] & 7, number, "{name}");
        drop(relay);
    }
}
