//! Apicurio Registry, which speaks Confluent's REST interface as well as its own. It keeps all in
//! memory: what ends has forgotten everything, so that it is frozen and not stopped.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::ports::{self, Port};
use crate::process::{Child, Launch, Signal};
use crate::{RunDir, downloads, wait_until};

/// On two busy cores it takes its time.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// A running registry. Dropping it kills it.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    /// The one that the lab itself uses.
    plain: Port,
    secure: Port,
    /// Last, so that the files go after the process.
    _run: RunDir,
}

impl Registry {
    /// Starts one, and waits until it answers. With a certificate and its key, PEM files, it
    /// speaks TLS on another port as well.
    pub fn start(certificate: Option<(&Path, &Path)>) -> Result<Registry> {
        let jar = downloads::apicurio()?;
        let (run, plain, secure) =
            (RunDir::create("registry")?, ports::reserve()?, ports::reserve()?);
        let mut launch = Launch::new("java", run.join("log"))
            .args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-Dquarkus.http.host=127.0.0.1"])
            .arg(format!("-Dquarkus.http.port={}", plain.number()))
            .arg(format!("-Dquarkus.http.ssl-port={}", secure.number()));
        if let Some((certificate, key)) = certificate {
            let option = "-Dquarkus.http.ssl.certificate";
            launch = launch
                .arg(format!("{option}.files={}", certificate.display()))
                .arg(format!("{option}.key-files={}", key.display()));
        }
        let child = launch.arg("-jar").arg(jar).dir(run.path()).spawn()?;
        let registry = Registry { child, plain, secure, _run: run };
        let subjects = format!("{}/subjects", registry.url());
        wait_until(START_TIMEOUT, "the registry to answer", || {
            !registry.child.is_running() || ureq::get(&subjects).call().is_ok()
        })
        .with_context(|| registry.log())?;
        ensure!(registry.child.is_running(), "the registry ended:\n{}", registry.log());
        Ok(registry)
    }

    /// One that all tests of a process share.
    pub fn shared() -> &'static Registry {
        static SHARED: OnceLock<Registry> = OnceLock::new();
        #[expect(clippy::expect_used, reason = "a test without its server fails")]
        SHARED.get_or_init(|| Registry::start(None).expect("a registry"))
    }

    /// Where clients of Confluent's registry find it.
    pub fn url(&self) -> String {
        format!("http://{}/apis/ccompat/v7", self.plain.address())
    }

    /// The same with TLS.
    pub fn secure_url(&self) -> String {
        format!("https://localhost:{}/apis/ccompat/v7", self.secure.number())
    }

    /// Registers a schema of a type (`AVRO`, `PROTOBUF`, `JSON`) with what it refers to: name and
    /// subject, of which the first version is meant. Returns its id.
    pub fn register(
        &self,
        subject: &str,
        kind: &str,
        schema: &str,
        references: &[(&str, &str)],
    ) -> Result<u32> {
        let references = references
            .iter()
            .map(|(name, subject)| json!({"name": name, "subject": subject, "version": 1}));
        let body = json!({
            "schemaType": kind,
            "schema": schema,
            "references": references.collect::<Vec<_>>(),
        });
        let url = format!("{}/subjects/{subject}/versions", self.url());
        let request = ureq::post(&url).content_type("application/vnd.schemaregistry.v1+json");
        let text = request.send(body.to_string())?.body_mut().read_to_string()?;
        let answer: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let id = answer.get("id").and_then(Value::as_u64).with_context(|| text)?;
        Ok(u32::try_from(id)?)
    }

    /// Deletes a subject with its schemas: first so that it could come back, and then for good, or
    /// the next schema would have the type of the first.
    pub fn forget(&self, subject: &str) -> Result<()> {
        for how in ["", "?permanent=true"] {
            ureq::delete(format!("{}/subjects/{subject}{how}", self.url())).call()?;
        }
        Ok(())
    }

    /// Where it listens, without TLS.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.plain.number()))
    }

    /// Sends a signal; with [`Signal::Stop`] it hangs.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.child.signal(signal)
    }

    /// Everything that it wrote.
    pub fn log(&self) -> String {
        self.child.log()
    }
}
