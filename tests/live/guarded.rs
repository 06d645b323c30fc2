//! A Postgres that looks closely at whom it lets in, and certificates for it and for others.

use std::path::PathBuf;

use lab::{Database, Postgres};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rcgen::{PKCS_ECDSA_P256_SHA256, SignatureAlgorithm};
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use crate::scene::LATEST;

pub const OLDEST_AND_LATEST: [u16; 2] = [14, LATEST];

/// Everybody's password: what a URL has to escape, and what is not ASCII.
pub const PASSWORD: &str = "p@ss:/wörd?";
pub const ESCAPED: &str = "p%40ss%3A%2Fw%C3%B6rd%3F";

/// One role for each way to get in. There is no line for `stranger`.
const HBA: &str = "
    local     all  postgres         trust
    local     all  all              scram-sha-256
    host      all  postgres,trusted,limited,guests 127.0.0.1/32 trust
    host      all  cleartext        127.0.0.1/32 password
    host      all  hashed           127.0.0.1/32 md5
    host      all  scram,nobody,ordinary,+guests 127.0.0.1/32 scram-sha-256
    hostssl   all  tls_only         127.0.0.1/32 scram-sha-256
    hostnossl all  plain_only       127.0.0.1/32 scram-sha-256
    hostssl   all  certified        127.0.0.1/32 cert
    hostssl   all  twofold          127.0.0.1/32 scram-sha-256 clientcert=verify-full
";

/// Signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Authority {
        Authority::with(name, &PKCS_ECDSA_P256_SHA256)
    }

    /// One that signs in this way.
    pub fn with(name: &str, algorithm: &'static SignatureAlgorithm) -> Authority {
        let key = KeyPair::generate_for(algorithm).unwrap();
        Authority(CertifiedIssuer::self_signed(authority(name), key).unwrap())
    }

    /// One that this one vouches for.
    pub fn intermediate(&self, name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::signed_by(authority(name), key, &self.0).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key: of a server with these names, or of a client.
    pub fn issue(&self, common_name: &str, names: &[&str]) -> (String, String) {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// A server that looks closely at whom it lets in.
pub struct Guarded {
    pub postgres: Postgres,
}

impl Guarded {
    /// The one that the tests share.
    pub async fn shared(version: u16) -> &'static Guarded {
        static SERVERS: [OnceCell<Guarded>; 2] = [const { OnceCell::const_new() }; 2];
        let number = OLDEST_AND_LATEST.iter().position(|known| *known == version).unwrap();
        SERVERS[number].get_or_init(|| Guarded::start(version)).await
    }

    /// One of its own for a test that changes it.
    pub async fn start(version: u16) -> Guarded {
        let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
        let (certificate, key) = ours.issue("server", &["localhost", "127.0.0.1"]);
        let mut builder = Postgres::builder(version)
            .hba(HBA)
            .file("server.pem", certificate)
            .file("server.key", key)
            .file("ca.pem", ours.pem())
            .file("other-ca.pem", theirs.pem())
            .file("password", format!("{PASSWORD}\n"));
        for (name, value) in [
            ("ssl", "on"),
            ("ssl_cert_file", "server.pem"),
            ("ssl_key_file", "server.key"),
            ("ssl_ca_file", "ca.pem"),
            ("log_connections", "on"),
        ] {
            builder = builder.setting(name, value);
        }
        for (file, name, authority) in [
            ("certified", "certified", &ours),
            ("twofold", "twofold", &ours),
            ("forged", "certified", &theirs),
        ] {
            let (certificate, key) = authority.issue(name, &[]);
            let files = [(format!("{file}.pem"), certificate), (format!("{file}.key"), key)];
            builder = files.into_iter().fold(builder, |all, (name, text)| all.file(&name, text));
        }
        let postgres = builder.start().unwrap();
        let create =
            |role: &&str| format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD '{PASSWORD}';\n");
        let scram =
            ["trusted", "scram", "tls_only", "plain_only", "certified", "twofold", "stranger"];
        let sql = format!(
            "CREATE ROLE guests;
             SET password_encryption = 'scram-sha-256';
             CREATE ROLE ordinary LOGIN PASSWORD '{PASSWORD}';
             CREATE ROLE limited LOGIN REPLICATION CONNECTION LIMIT 0;
             {}
             SET password_encryption = 'md5';
             {}",
            scram.iter().map(create).collect::<String>(),
            ["cleartext", "hashed"].iter().map(create).collect::<String>(),
        );
        postgres.client("postgres").await.unwrap().batch_execute(&sql).await.unwrap();
        Guarded { postgres }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.postgres.data_dir().join(name)
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.postgres.port())
    }

    /// `{dir}` in the parameters is where the files are.
    pub fn url(&self, login: &str, host: &str, parameters: &str) -> String {
        let parameters = parameters.replace("{dir}", &self.file("").display().to_string());
        format!("postgres://{login}@{host}:{}/postgres?{parameters}", self.postgres.port())
    }

    /// A database with an outbox, and a role that may do in it just what the relay has to.
    pub async fn outbox(&self, role: &str) -> (Database, Client) {
        let database = self.postgres.create_database().await.unwrap();
        database.create_outbox().await.unwrap();
        let client = database.client().await.unwrap();
        let name = database.name();
        let sql = format!(
            "CREATE ROLE {role} LOGIN REPLICATION PASSWORD '{PASSWORD}' IN ROLE guests;
             GRANT CREATE ON DATABASE {name} TO {role};
             ALTER TABLE outbox OWNER TO {role};"
        );
        client.batch_execute(&sql).await.unwrap();
        (database, client)
    }
}
