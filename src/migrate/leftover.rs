//! What nobody has translated, named one by one.

use super::options::{Debezium, Given};

const SNAPSHOT: &str = "there are no snapshots; rows from before the slot are never sent";
const VALUES: &str = "walrelay has one way to write a value; compare columns of such types, where \
                      they are in keys, headers or envelopes";
const ROWS: &str = "rows are read as they are, and of their columns those that [[outbox]] names";
const BOUNDS: &str = "delivery.max_in_flight and max_in_flight_bytes bound what is under way";
const RETRIES: &str = "Postgres and Kafka are tried again for as long as it takes";
const TOPICS: &str =
    "walrelay creates no topic of events; each must be there before its first event";
const SIGNALS: &str = "there are no signals and no notifications; see /status and /metrics";
const OFFSETS: &str =
    "how far walrelay has got is in the slot, and in the topic delivery.positions_topic";
const MESSAGES: &str = "only rows of outbox tables are sent, and no messages of the log";
const METADATA: &str = "BEGIN and END of transactions are not sent";
const SCHEMAS: &str = "walrelay makes no schemas of its own; [registry] and payload_format encode \
                       JSON by those that you register";

/// Why there is no counterpart, by the beginning of the option's name.
const REASONS: [(&str, &str); 62] = [
    ("binary.handling.mode", "the bytes of a bytea column go out as they are"),
    ("column.", ROWS),
    ("config.action.reload", "walrelay reads its configuration when it starts"),
    ("connection.validation.timeout.ms", RETRIES),
    ("converters", VALUES),
    ("database.", "the URL of [postgres] takes the parameters of libpq"),
    ("datatype.propagate.source.type", ROWS),
    ("decimal.handling.mode", VALUES),
    ("errors.", RETRIES),
    ("event.", "on_poison says what is done about a row that cannot be sent"),
    ("exactly.once.support", "delivery.guarantee is at_least_once, as Debezium's is without it"),
    ("executor.shutdown.timeout.ms", "delivery.shutdown_grace"),
    ("field.name.adjustment.mode", "names go out as they are"),
    ("flush.lsn.source", OFFSETS),
    ("header.converter.", SCHEMAS),
    ("heartbeat.", "an idle slot is confirmed without heartbeats"),
    ("hstore.handling.mode", VALUES),
    ("include.unknown.datatypes", VALUES),
    ("incremental.", SNAPSHOT),
    ("interval.handling.mode", VALUES),
    ("key.converter.", SCHEMAS),
    ("legacy.snapshot", SNAPSHOT),
    ("lsn.flush", OFFSETS),
    ("max.batch.size", BOUNDS),
    ("max.queue", BOUNDS),
    ("message.key.columns", "the key is that of [[outbox]]"),
    ("message.prefix", MESSAGES),
    ("money.fraction.digits", VALUES),
    ("notification.", SIGNALS),
    ("offset", OFFSETS),
    ("openlineage", "not supported"),
    ("poll.", "rows are sent as soon as they are read"),
    ("post.processors", ROWS),
    ("predicates", "there are no transforms"),
    ("provide.transaction.metadata", METADATA),
    ("publish.via.partition.root", "partitioned outboxes are read either way"),
    ("query.fetch.size", SNAPSHOT),
    ("read.only", SIGNALS),
    ("replica.identity.autoset.values", "inserts need no replica identity"),
    ("retriable.restart.connector.wait.ms", RETRIES),
    ("schema.exclude.list", "each table has an [[outbox]]"),
    ("schema.history", "there is no history of schemas; rows bring theirs along"),
    ("schema.include.list", "each table has an [[outbox]]"),
    ("schema.", ROWS),
    ("signal.", SIGNALS),
    ("slot.max.retries", RETRIES),
    ("slot.retry.delay.ms", RETRIES),
    ("slot.stream.params", "the stream is started with what walrelay needs"),
    ("snapshot", SNAPSHOT),
    ("statistics.metrics.enabled", "see /metrics"),
    ("status.update.interval.ms", "postgres.status_interval, which is a second"),
    ("streaming.delay.ms", SNAPSHOT),
    ("table.exclude.list", "each table has an [[outbox]]"),
    ("tasks.max", "one relay reads a slot; a second one stands by"),
    ("time.precision.mode", VALUES),
    ("tombstones.on.delete", "rows that are deleted are nothing to walrelay"),
    ("topic.creation.", TOPICS),
    ("topic.", "the topic of an event is that of its [[outbox]]"),
    ("transaction.", METADATA),
    ("unavailable.value.placeholder", "an insert has all of its values"),
    ("value.converter.", SCHEMAS),
    ("xmin.fetch.interval.ms", "see /metrics"),
];

/// A line for each; takes all that is left.
pub(super) fn comments(debezium: &mut Debezium) -> Vec<String> {
    let mut comments: Vec<String> = Vec::new();
    let others = std::mem::take(&mut debezium.others);
    comments.extend(others.iter().map(|other| format!("no counterpart: {other}.")));
    let router = debezium.router_name("");
    for Given { name, .. } in debezium.options.take_all("") {
        let reason = match name.strip_prefix(&router) {
            Some(_) if !router.is_empty() => Some("the router does not know it either"),
            _ => reason(debezium, &name),
        };
        comments.push(match reason {
            Some(reason) => format!("no counterpart: {name}: {reason}."),
            None => format!("no counterpart: {name}."),
        });
    }
    comments
}

fn reason(debezium: &Debezium, name: &str) -> Option<&'static str> {
    let name = if debezium.is_server() {
        match name.strip_prefix("debezium.source.") {
            Some(name) => name,
            None if name.starts_with("debezium.format.") => return Some(SCHEMAS),
            None if name.starts_with("debezium.predicates") => {
                return Some("there are no transforms");
            }
            None if name.starts_with("quarkus.") => {
                return Some("of Quarkus; see [http] and [log]");
            }
            None if name.starts_with('%') => return Some("of another profile than prod"),
            None => return None,
        }
    } else {
        name
    };
    REASONS.iter().find(|(begin, _)| name.starts_with(begin)).map(|(_, reason)| *reason)
}
