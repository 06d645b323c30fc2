//! Debezium Server, the relay that most know. Its version 3.6 needs Java 21, which Debian 12 does
//! not have: `WALRELAY_BENCH_JAVA` names another `java` than the one on the PATH.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::{Child, Launch};
use crate::{Database, RunDir, downloads};

/// A running Debezium Server. Dropping it kills it.
#[derive(Debug)]
pub struct Debezium {
    child: Child,
    /// Last, so that the files go after the process.
    _run: RunDir,
}

impl Debezium {
    /// Writes the text as `application.properties` and starts the server. `{folder}` in it becomes
    /// a directory of the server's own.
    pub fn start(properties: &str) -> Result<Debezium> {
        let home = downloads::debezium()?;
        let run = RunDir::create("debezium")?;
        let config = run.join("config");
        fs::create_dir(&config)?;
        let text = properties.replace("{folder}", &run.path().display().to_string());
        let file = config.join("application.properties");
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        let home = home.display();
        let class_path = format!("{home}/*:{home}/lib/*:{}", config.display());
        let java = std::env::var_os("WALRELAY_BENCH_JAVA").unwrap_or_else(|| "java".into());
        let child = Launch::new(java, run.join("log"))
            .args(["-cp", &class_path, "io.debezium.server.Main"])
            .dir(run.path())
            .spawn()?;
        Ok(Debezium { child, _run: run })
    }

    /// Whether the process has not ended.
    pub fn is_running(&self) -> bool {
        self.child.is_running()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Everything that it wrote.
    pub fn log(&self) -> String {
        self.child.log()
    }
}

/// JSON without the members that Debezium leaves out when it takes JSON apart, and with its
/// numbers.
pub fn without_nothing(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| (name, without_nothing(value)));
            let nothing = |value: &Value| value.is_null() || *value == Value::Array(Vec::new());
            members.filter(|(_, value)| !nothing(value)).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nothing).collect(),
        Value::Number(number) => number.as_f64().map_or(Value::Null, Value::from),
        value => value,
    }
}

/// The lines that carry the table `public.outbox` of a database through the event router to a
/// Kafka, from a slot and a publication that are there. What is written, and how, is up to more
/// lines.
pub fn properties(database: &Database, brokers: &str, slot: &str, publication: &str) -> String {
    let (port, name) = (database.port(), database.name());
    format!(
        "quarkus.log.console.json=false
quarkus.http.port=0
debezium.sink.type=kafka
debezium.sink.kafka.producer.bootstrap.servers={brokers}
debezium.sink.kafka.producer.key.serializer=\
org.apache.kafka.common.serialization.StringSerializer
debezium.sink.kafka.producer.acks=all
debezium.source.connector.class=io.debezium.connector.postgresql.PostgresConnector
debezium.source.offset.storage=org.apache.kafka.connect.storage.FileOffsetBackingStore
debezium.source.offset.storage.file.filename={{folder}}/offsets
debezium.source.offset.flush.interval.ms=1000
debezium.source.database.hostname=127.0.0.1
debezium.source.database.port={port}
debezium.source.database.user=postgres
debezium.source.database.password=unused
debezium.source.database.dbname={name}
debezium.source.topic.prefix=lab
debezium.source.plugin.name=pgoutput
debezium.source.slot.name={slot}
debezium.source.publication.name={publication}
debezium.source.publication.autocreate.mode=disabled
debezium.source.snapshot.mode=no_data
debezium.source.table.include.list=public.outbox
debezium.source.tombstones.on.delete=false
debezium.transforms=outbox
debezium.transforms.outbox.type=io.debezium.transforms.outbox.EventRouter
"
    )
}
