//! What is asked of a registry, and what it answers (Confluent's "Schema Registry API").

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::config::{self, Encoding};
use crate::schema::{Registered, Schema, other_kind};
use crate::trust::{certificates_in, system_certificates};

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How many bytes it may have. A schema of this size is a mistake.
const BYTES_MAX: u64 = 16 << 20;
/// How many schemas one may refer to, all in all.
const REFERENCES_MAX: usize = 256;

const ACCEPT: &str = "application/vnd.schemaregistry.v1+json, application/json";

/// A registry.
pub(super) struct Client {
    agent: Agent,
    url: String,
    authorization: Option<String>,
}

/// A schema as it is answered.
#[derive(Clone, Debug)]
pub(super) struct Latest {
    /// Its number in the registry.
    pub(super) id: u32,
    /// Its number in the subject.
    pub(super) version: u64,
    /// What kind of schema it is, as the registry has it.
    kind: String,
    text: String,
    references: Vec<Reference>,
}

/// What a schema refers to.
#[derive(Clone, Debug)]
struct Reference {
    name: String,
    subject: String,
    version: u64,
}

impl Client {
    pub(super) fn new(config: &config::Registry) -> Result<Client, String> {
        let url = config.url.clone().unwrap_or_default();
        let mut agent = Agent::config_builder()
            .timeout_global(Some(ANSWER_MAX))
            .http_status_as_error(false)
            .user_agent(concat!("walrelay/", env!("CARGO_PKG_VERSION")));
        if url.starts_with("https:") {
            let trusted = match &config.ca_file {
                Some(file) => certificates_in(file.as_ref())?,
                None => system_certificates("registry.ca_file")?,
            };
            let trusted = trusted.iter().map(|it| Certificate::from_der(it).to_owned());
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let tls = TlsConfig::builder()
                .root_certs(RootCerts::Specific(Arc::new(trusted.collect())))
                .unversioned_rustls_crypto_provider(provider)
                .build();
            agent = agent.tls_config(tls);
        }
        let authorization = config.basic_auth_user.as_ref().map(|user| {
            let password = config.password.as_ref().map_or("", |(secret, _)| secret.reveal());
            format!("Basic {}", crate::connect::base64(format!("{user}:{password}").as_bytes()))
        });
        Ok(Client { agent: agent.build().new_agent(), url, authorization })
    }

    /// The latest schema of a subject.
    pub(super) fn latest(&self, subject: &str) -> Result<Latest, String> {
        self.get(subject, "latest")
    }

    /// The schema, with all that it refers to, as what payloads are encoded by.
    pub(super) fn compile(
        &self,
        subject: &str,
        encoding: Encoding,
        latest: Latest,
    ) -> Result<Schema, String> {
        let Latest { id, kind, text, references, .. } = latest;
        if kind != encoding.name() {
            return Err(other_kind(subject, &kind, encoding));
        }
        let references = self.all(references)?;
        Schema::new(&Registered { id, encoding, text, references }).map_err(|error| {
            format!("schema {id} of subject {subject} cannot be used: {error}; register another")
        })
    }

    /// The schemas that are referred to, and those that they refer to, the deepest first.
    fn all(&self, mut waiting: Vec<Reference>) -> Result<Vec<(String, String)>, String> {
        let mut found: Vec<(String, String)> = Vec::new();
        while let Some(Reference { name, subject, version }) = waiting.pop() {
            if found.iter().any(|(known, _)| *known == name) {
                continue;
            }
            if found.len() >= REFERENCES_MAX {
                return Err(format!("it refers to more than {REFERENCES_MAX} schemas"));
            }
            let referred = self.get(&subject, &version.to_string())?;
            waiting.extend(referred.references);
            found.push((name, referred.text));
        }
        found.reverse();
        Ok(found)
    }

    fn get(&self, subject: &str, version: &str) -> Result<Latest, String> {
        let name = utf8_percent_encode(subject, NON_ALPHANUMERIC);
        let url = format!("{}/subjects/{name}/versions/{version}", self.url);
        let asked = |error: ureq::Error| {
            format!(
                "the schema registry at {} does not answer: {error}; see registry.url",
                self.url
            )
        };
        let mut request = self.agent.get(&url).header("Accept", ACCEPT);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let mut response = request.call().map_err(asked)?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(BYTES_MAX).read_to_vec();
        let body = body.map_err(asked)?;
        match status {
            200 => read(&body).ok_or_else(|| {
                format!("what {url} answers is no schema; see whether registry.url is right")
            }),
            404 => Err(format!(
                "subject {subject} has no schema in the registry; register one, and its records \
                 will follow"
            )),
            401 | 403 => Err(format!(
                "the schema registry refuses to show subject {subject} (status {status}); see \
                 registry.basic_auth_user and its password"
            )),
            _ => Err(format!(
                "the schema registry at {} answers with status {status} for subject {subject}; see \
                 its log",
                self.url
            )),
        }
    }
}

/// `{"id": 7, "version": 1, "schemaType": "AVRO", "schema": "…", "references": […]}`; the type is
/// left out where it is Avro.
fn read(body: &[u8]) -> Option<Latest> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let text = |value: &Value, name: &str| value.get(name)?.as_str().map(str::to_owned);
    let references = answer.get("references").and_then(Value::as_array);
    let references = references.into_iter().flatten().map(|it| {
        let version = it.get("version")?.as_u64()?;
        Some(Reference { name: text(it, "name")?, subject: text(it, "subject")?, version })
    });
    Some(Latest {
        id: u32::try_from(answer.get("id")?.as_u64()?).ok()?,
        version: answer.get("version")?.as_u64()?,
        kind: text(&answer, "schemaType").unwrap_or_else(|| Encoding::Avro.name().to_owned()),
        text: text(&answer, "schema")?,
        references: references.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::config::{PasswordFrom, Secret};

    #[test]
    fn answers_are_read_with_their_references() {
        let body = br#"{"subject": "a-value", "id": 7, "version": 2, "schema": "\"string\"",
            "references": [{"name": "b.proto", "subject": "b", "version": 1}]}"#;
        let latest = read(body).unwrap();
        assert_eq!((latest.id, latest.version, latest.kind.as_str()), (7, 2, "AVRO"));
        assert_eq!(latest.text, "\"string\"");
        assert_eq!(latest.references.len(), 1);
    }

    /// Apicurio's own users would need a server more.
    #[test]
    fn who_asks_is_said_and_subjects_are_escaped() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut heads = Vec::new();
            for (status, body) in [
                ("200 OK", r#"{"id": 7, "version": 2, "schema": "\"int\""}"#),
                ("404 Not Found", "{}"),
                ("401 Unauthorized", "{}"),
                ("503 Service Unavailable", "{}"),
                ("200 OK", "<html>"),
            ] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let head = lines.by_ref().map(Result::unwrap).take_while(|line| !line.is_empty());
                heads.push(head.collect::<Vec<_>>());
                let length = body.len();
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}");
                write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}").unwrap();
            }
            heads
        });
        let password = Some((Secret::new("p:w"), PasswordFrom::Env("X".to_owned())));
        let basic_auth_user = Some("key".to_owned());
        let config = config::Registry { url: Some(url), basic_auth_user, password, ca_file: None };
        let client = Client::new(&config).unwrap();
        let subject = "a/b c-value";
        assert_eq!(client.latest(subject).unwrap().id, 7);
        for why in [
            "subject a/b c-value has no schema in the registry; register one",
            "(status 401); see registry.basic_auth_user and its password",
            "answers with status 503 for subject a/b c-value; see its log",
            "is no schema; see whether registry.url is right",
        ] {
            let told = client.latest(subject).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
        let head = server.join().unwrap().remove(0);
        assert_eq!(head[0], "GET /subjects/a%2Fb%20c%2Dvalue/versions/latest HTTP/1.1");
        // "key:p:w"
        let said = "authorization: Basic a2V5OnA6dw==";
        assert!(head.iter().any(|line| line.eq_ignore_ascii_case(said)), "{head:?}");
        assert!(!format!("{config:?}").contains("p:w"));
    }

    #[test]
    fn what_is_no_schema_is_none() {
        for body in [
            "",
            "{}",
            "<html>",
            r#"{"id": -1, "version": 1, "schema": "x"}"#,
            r#"{"id": 5000000000, "version": 1, "schema": "x"}"#,
            r#"{"id": 1, "version": 1, "schema": {}}"#,
            r#"{"id": 1, "version": 1, "schema": "x", "references": [{}]}"#,
        ] {
            assert!(read(body.as_bytes()).is_none(), "{body}");
        }
    }
}
