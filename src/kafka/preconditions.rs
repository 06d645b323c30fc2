//! What must be so in Kafka before a run, asked in one go.

use std::collections::HashMap;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::{Metadata, MetadataTopic};

use super::settings::Settings;
use super::topics::{ANSWER_MAX, read_answer};
use crate::verdict::{Check, Problem, Verdict, problem};

/// Looks at the brokers, at the topics whose names are known beforehand, and at that of the
/// position records.
pub async fn checks(settings: &Settings, topics: &[String], positions: Option<&str>) -> Vec<Check> {
    let client = settings.client.clone();
    let asked = tokio::task::spawn_blocking(move || -> Result<Metadata, String> {
        let client: BaseConsumer = client.create().map_err(|error| error.to_string())?;
        client.fetch_metadata(None, ANSWER_MAX).map_err(|error| error.to_string())
    });
    let metadata = match asked.await.map_err(|error| error.to_string()) {
        Ok(Ok(metadata)) => metadata,
        Ok(Err(error)) | Err(error) => {
            let remedy = "check kafka.brokers, and security.protocol and sasl.* in \
                          [kafka.properties]";
            let what = format!("no broker of kafka.brokers answers ({error})");
            return vec![Check::new("brokers", Err(problem(what, remedy)))];
        }
    };
    let brokers = metadata.brokers().len();
    let found = format!("{brokers} broker{}", if brokers == 1 { "" } else { "s" });
    let mut checks = vec![Check::new("brokers", Ok(found))];
    let configs = configs(settings, &metadata, topics, positions).await;
    for topic in topics {
        let name = format!("topic {topic}");
        let found = partitions(&metadata, topic);
        let config = configs.get(topic.as_str());
        let failed = found.is_err();
        checks
            .push(Check::new(name.clone(), found.and_then(|it| size(settings, topic, it, config))));
        let doubts = if failed { Vec::new() } else { doubts(topic, &metadata, config) };
        let check = |doubt| Check { name: name.clone(), verdict: Verdict::Doubtful(doubt) };
        checks.extend(doubts.into_iter().map(check));
    }
    if let Some(topic) = positions {
        let found = position_topic(&metadata, topic, configs.get(topic));
        checks.push(Check::new(format!("topic {topic}"), found));
    }
    checks
}

fn described<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a MetadataTopic> {
    metadata.topics().iter().find(|topic| topic.name() == name)
}

fn partitions(metadata: &Metadata, name: &str) -> Result<u32, Problem> {
    let topic = described(metadata, name);
    let partitions = topic.map_or(0, |topic| topic.partitions().len());
    let error = topic.and_then(MetadataTopic::error);
    read_answer(name, partitions, error).map_err(|error| match error.split_once("; ") {
        Some((what, remedy)) => problem(what, remedy),
        None => problem(error, "see the broker's log"),
    })
}

/// What is found of the topic of position records when it can be read.
pub const THERE: &str = "there";

type Config = HashMap<String, String>;

/// The settings of those topics that exist. Without the right to know them (`DESCRIBE_CONFIGS`),
/// none.
async fn configs(
    settings: &Settings,
    metadata: &Metadata,
    topics: &[String],
    positions: Option<&str>,
) -> HashMap<String, Config> {
    let names = topics.iter().map(String::as_str).chain(positions);
    let names = names.filter(|name| partitions(metadata, name).is_ok());
    let resources: Vec<_> = names.map(ResourceSpecifier::Topic).collect();
    let admin: Result<AdminClient<DefaultClientContext>, _> = settings.client.create();
    let Ok(admin) = admin else { return HashMap::new() };
    let options = AdminOptions::new().request_timeout(Some(ANSWER_MAX));
    let described = admin.describe_configs(&resources, &options).await.unwrap_or_default();
    let read = |resource: ConfigResource| {
        let entries = resource.entries.into_iter();
        let config = entries.filter_map(|entry| Some((entry.name, entry.value?))).collect();
        match resource.specifier {
            rdkafka::admin::OwnedResourceSpecifier::Topic(name) => Some((name, config)),
            _ => None,
        }
    };
    described.into_iter().flatten().filter_map(read).collect()
}

fn size(
    settings: &Settings,
    topic: &str,
    partitions: u32,
    config: Option<&Config>,
) -> Result<String, Problem> {
    let max = config.and_then(|config| config.get("max.message.bytes")?.parse::<usize>().ok());
    match max {
        Some(max) if max < settings.batch_bytes => Err(problem(
            format!("topic {topic} takes batches of at most {max} bytes"),
            format!(
                "set batch.size in [kafka.properties] to {max} or less, or raise max.message.bytes \
                 of the topic"
            ),
        )),
        _ => Ok(format!("{partitions} partition{}", if partitions == 1 { "" } else { "s" })),
    }
}

/// An acknowledged record may be lost with one broker, or be thrown away. Without the right to know
/// the topic's settings, only its replicas tell.
fn doubts(topic: &str, metadata: &Metadata, config: Option<&Config>) -> Vec<Problem> {
    let setting = |name: &str| config.and_then(|config| config.get(name)).map(String::as_str);
    let partitions = described(metadata, topic).map_or(&[][..], MetadataTopic::partitions);
    // Brokers with eligible leader replicas take min.insync.replicas = 2 for one replica, too.
    let alone = partitions.iter().any(|partition| partition.replicas().len() == 1);
    let mut doubts = Vec::new();
    if setting("unclean.leader.election.enable") == Some("true") {
        let what = format!(
            "topic {topic} may be led by a replica that lacks records (unclean.leader.election)"
        );
        let remedy = "set unclean.leader.election.enable = false on the topic";
        doubts.push(problem(what, remedy));
    }
    if alone || setting("min.insync.replicas") == Some("1") {
        let what = format!("a record of topic {topic} is acknowledged once a single broker has it");
        doubts.push(problem(
            what,
            "with three replicas, set min.insync.replicas = 2 on the topic, so that the loss of \
             one broker loses nothing",
        ));
    }
    if setting("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
        doubts.push(problem(
            format!("topic {topic} is compacted: of the events of a key only the last may stay"),
            "set cleanup.policy = delete on the topic, unless that is meant",
        ));
    }
    doubts
}

fn position_topic(
    metadata: &Metadata,
    topic: &str,
    config: Option<&Config>,
) -> Result<String, Problem> {
    let missing = described(metadata, topic).is_none_or(|topic| topic.partitions().is_empty());
    if missing {
        return Ok("to be created by the first start".to_owned());
    }
    let partitions = partitions(metadata, topic)?;
    let policy = config.and_then(|config| config.get("cleanup.policy"));
    match policy {
        Some(policy) if !policy.contains("compact") => Err(problem(
            format!("topic {topic} has cleanup.policy={policy}, so that positions are deleted"),
            "set cleanup.policy = compact on the topic",
        )),
        _ if partitions != 1 => Err(problem(
            format!("topic {topic} has {partitions} partitions, and only the first is used"),
            "delete it while no relay runs, or set delivery.positions_topic to another name",
        )),
        _ => Ok(THERE.to_owned()),
    }
}
