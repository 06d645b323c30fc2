//! Debezium Server, the relay that most know. Its version 3.6 needs Java 21, which Debian 12 does
//! not have: `WALRELAY_BENCH_JAVA` names another `java` than the one on the PATH.

use std::fs;

use anyhow::{Context, Result};
use lab::process::{Child, Launch};
use lab::{Database, RunDir, downloads};

/// A running Debezium Server. Dropping it kills it.
pub struct Debezium {
    child: Child,
    /// Last, so that the files go after the process.
    _run: RunDir,
}

/// Larger batches, asked for more often: what its documentation offers for throughput.
const TUNED: &str = "
debezium.source.poll.interval.ms=10
debezium.source.max.batch.size=16384
debezium.source.max.queue.size=65536
debezium.sink.kafka.producer.linger.ms=5
debezium.sink.kafka.producer.batch.size=1000000
debezium.sink.kafka.producer.buffer.memory=134217728
debezium.sink.kafka.producer.compression.type=lz4
";

impl Debezium {
    /// Reads a slot into a topic, through its outbox event router with one more header.
    pub fn start(database: &Database, brokers: &str, slot: &str, tuned: bool) -> Result<Debezium> {
        let home = downloads::debezium()?;
        let run = RunDir::create("debezium")?;
        fs::create_dir(run.join("config"))?;
        let text = properties(database, brokers, slot, run.path()) + if tuned { TUNED } else { "" };
        let file = run.join("config/application.properties");
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        let home = home.display();
        let class_path = format!("{home}/*:{home}/lib/*:{}", run.join("config").display());
        let java = std::env::var_os("WALRELAY_BENCH_JAVA").unwrap_or_else(|| "java".into());
        let child = Launch::new(java, run.join("log"))
            .args(["-cp", &class_path, "io.debezium.server.Main"])
            .dir(run.path())
            .spawn()?;
        Ok(Debezium { child, _run: run })
    }

    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    pub fn log(&self) -> String {
        self.child.log()
    }
}

fn properties(database: &Database, brokers: &str, slot: &str, folder: &std::path::Path) -> String {
    let (port, name, folder) = (database.port(), database.name(), folder.display());
    format!(
        "quarkus.log.console.json=false
quarkus.http.port=0
debezium.sink.type=kafka
debezium.sink.kafka.producer.bootstrap.servers={brokers}
debezium.sink.kafka.producer.key.serializer=\
org.apache.kafka.common.serialization.StringSerializer
debezium.sink.kafka.producer.value.serializer=\
org.apache.kafka.common.serialization.StringSerializer
debezium.sink.kafka.producer.acks=all
debezium.format.key=simplestring
debezium.format.value=simplestring
debezium.source.connector.class=io.debezium.connector.postgresql.PostgresConnector
debezium.source.offset.storage=org.apache.kafka.connect.storage.FileOffsetBackingStore
debezium.source.offset.storage.file.filename={folder}/offsets
debezium.source.offset.flush.interval.ms=1000
debezium.source.database.hostname=127.0.0.1
debezium.source.database.port={port}
debezium.source.database.user=postgres
debezium.source.database.password=unused
debezium.source.database.dbname={name}
debezium.source.topic.prefix=bench
debezium.source.plugin.name=pgoutput
debezium.source.slot.name={slot}
debezium.source.publication.name=walrelay
debezium.source.publication.autocreate.mode=disabled
debezium.source.snapshot.mode=no_data
debezium.source.table.include.list=public.outbox
debezium.source.tombstones.on.delete=false
debezium.transforms=outbox
debezium.transforms.outbox.type=io.debezium.transforms.outbox.EventRouter
debezium.transforms.outbox.route.topic.replacement={slot}
debezium.transforms.outbox.table.fields.additional.placement=type:header:eventType
"
    )
}
