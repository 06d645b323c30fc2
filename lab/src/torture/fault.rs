//! What can go wrong, and what has to follow from it.

use std::fmt;
use std::time::Duration;

/// Which connections of the relay a fault of the network hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wire {
    /// Those to Postgres.
    Postgres,
    /// Those to Kafka.
    Kafka,
}

/// A fault, or a burden that is no fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL to the relay, and a new start.
    RelayKilled,
    /// SIGTERM to the relay, and a new start.
    RelayTerminated,
    /// SIGSTOP to the relay, then SIGCONT.
    RelayFrozen,
    /// The same for longer than `wal_sender_timeout`, so that Postgres ends the session.
    RelayFrozenLong,
    /// A second relay on the slot; the first is killed, later the second ended.
    SecondRelay,
    /// The relay's calendar jumps by two hours, and back.
    ClockJumped,

    /// SIGQUIT to Postgres, then a new start.
    PostgresImmediateStop,
    /// SIGINT to Postgres, then a new start.
    PostgresFastStop,
    /// SIGKILL to Postgres with all its processes, then a new start.
    PostgresKilled,
    /// SIGSTOP to all processes of Postgres, then SIGCONT.
    PostgresFrozen,
    /// SIGKILL to one backend, upon which Postgres restarts itself.
    BackendCrash,
    /// `pg_terminate_backend` on the walsender.
    WalsenderTerminated,
    /// Postgres stops while a long transaction is on its way.
    HalfSent,
    /// A walsender can write no more to disk, where it keeps what is too long for its memory.
    DiskFull,
    /// Updates and deletes are published as well, for a while.
    PublicationAltered,
    /// The primary dies, and its standby, which is behind, is promoted.
    Promotion,

    /// SIGKILL to Kafka, then a new start.
    KafkaKilled,
    /// SIGTERM to Kafka, then a new start.
    KafkaStopped,
    /// SIGSTOP to Kafka, then SIGCONT.
    KafkaFrozen,
    /// The topic gets more partitions.
    PartitionsAdded,
    /// The topic takes no large records for a while, and there is one.
    MessageBytesLowered,
    /// Nobody may write to the topic for a while.
    WriteDenied,
    /// Kafka takes only so many bytes a second.
    Quota,
    /// The topic is deleted, and made anew later.
    TopicRecreated,
    /// SIGKILL to the broker that leads a partition, of three; another leads.
    LeaderKilled,
    /// SIGKILL to one broker of three, while all three have to be in sync.
    TooFewInSync,
    /// SIGKILL to the active controller of three; another takes over.
    ControllerKilled,

    /// All connections are reset.
    Cut(Wire),
    /// New connections are refused, open ones reset, for a while.
    Refused(Wire),
    /// Nothing arrives at the server.
    StallToServer(Wire),
    /// Nothing comes back from the server.
    StallToClient(Wire),
    /// Nothing passes, and nobody is told of it.
    HalfOpen(Wire),
    /// Every byte comes by itself.
    OneByteWrites(Wire),
    /// Everything comes late, by times that change.
    Delay(Wire),
    /// 100 kB a second.
    Throttle(Wire),

    /// A transaction of many rows.
    HugeTransaction,
    /// A transaction of thousands of subtransactions.
    Subtransactions,
    /// Rows of up to 10 MB.
    LargeRows,
    /// Columns come and go, types change, the table is renamed and renamed back.
    Ddl,
    /// Other tables are updated in bulk.
    BulkUpdates,
}

/// Where a fault comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The relay's own process.
    Relay,
    /// Postgres, or the way to it.
    Postgres,
    /// Kafka, or the way to it.
    Kafka,
    /// What is written.
    Load,
}

#[allow(clippy::enum_glob_use, reason = "tables of nothing but faults")]
use Fault::*;

/// Every fault that a schedule may hold at any place.
pub const ALL: &[Fault] = &[
    RelayKilled,
    RelayTerminated,
    RelayFrozen,
    RelayFrozenLong,
    SecondRelay,
    ClockJumped,
    PostgresImmediateStop,
    PostgresFastStop,
    PostgresKilled,
    PostgresFrozen,
    BackendCrash,
    WalsenderTerminated,
    HalfSent,
    DiskFull,
    PublicationAltered,
    Promotion,
    KafkaKilled,
    KafkaStopped,
    KafkaFrozen,
    PartitionsAdded,
    MessageBytesLowered,
    WriteDenied,
    Quota,
    TopicRecreated,
    LeaderKilled,
    TooFewInSync,
    ControllerKilled,
    Cut(Wire::Postgres),
    Cut(Wire::Kafka),
    Refused(Wire::Postgres),
    Refused(Wire::Kafka),
    StallToServer(Wire::Postgres),
    StallToServer(Wire::Kafka),
    StallToClient(Wire::Postgres),
    StallToClient(Wire::Kafka),
    HalfOpen(Wire::Postgres),
    HalfOpen(Wire::Kafka),
    OneByteWrites(Wire::Postgres),
    OneByteWrites(Wire::Kafka),
    Delay(Wire::Postgres),
    Delay(Wire::Kafka),
    Throttle(Wire::Postgres),
    Throttle(Wire::Kafka),
    HugeTransaction,
    Subtransactions,
    LargeRows,
    Ddl,
    BulkUpdates,
];

impl Fault {
    /// Where it comes from.
    pub fn side(self) -> Side {
        match self {
            RelayKilled | RelayTerminated | RelayFrozen | RelayFrozenLong | SecondRelay
            | ClockJumped => Side::Relay,
            PostgresImmediateStop
            | PostgresFastStop
            | PostgresKilled
            | PostgresFrozen
            | BackendCrash
            | WalsenderTerminated
            | HalfSent
            | DiskFull
            | PublicationAltered
            | Promotion => Side::Postgres,
            KafkaKilled | KafkaStopped | KafkaFrozen | PartitionsAdded | MessageBytesLowered
            | WriteDenied | Quota | TopicRecreated | LeaderKilled | TooFewInSync
            | ControllerKilled => Side::Kafka,
            Cut(wire) | Refused(wire) | StallToServer(wire) | StallToClient(wire)
            | HalfOpen(wire) | OneByteWrites(wire) | Delay(wire) | Throttle(wire) => match wire {
                Wire::Postgres => Side::Postgres,
                Wire::Kafka => Side::Kafka,
            },
            HugeTransaction | Subtransactions | LargeRows | Ddl | BulkUpdates => Side::Load,
        }
    }

    /// If it lasts so long, `/readyz` must have said no by then; `None` if rows may go on flowing.
    pub fn unready_after(self) -> Option<Duration> {
        let seconds = match self {
            // A closed connection is noticed at once, and then said.
            PostgresImmediateStop | PostgresFastStop | PostgresKilled | Refused(Wire::Postgres) => {
                3
            }
            // No connection to any broker, or no ack for ten seconds.
            KafkaKilled
            | KafkaStopped
            | KafkaFrozen
            | Refused(Wire::Kafka)
            | StallToServer(Wire::Kafka)
            | StallToClient(Wire::Kafka)
            | HalfOpen(Wire::Kafka)
            | TooFewInSync => 14,
            _ => return None,
        };
        Some(Duration::from_secs(seconds))
    }

    /// The connection that is gone with it, and after how long the relay must not claim to have
    /// it any more: brokers are asked every ten seconds, and have five to answer.
    pub fn disconnects(self) -> Option<(Wire, Duration)> {
        match self {
            PostgresImmediateStop | PostgresFastStop | PostgresKilled | Refused(Wire::Postgres) => {
                Some((Wire::Postgres, Duration::from_secs(3)))
            }
            // Of a broker that is silent nobody knows whether it is there.
            KafkaKilled | KafkaStopped | Refused(Wire::Kafka) => {
                Some((Wire::Kafka, Duration::from_secs(17)))
            }
            _ => None,
        }
    }

    /// Whether requests to Kafka may be held on their way, and arrive when their sender is gone.
    pub fn holds_requests(self) -> bool {
        match self {
            KafkaFrozen | Quota | TooFewInSync => true,
            StallToServer(wire) | StallToClient(wire) | HalfOpen(wire) | OneByteWrites(wire)
            | Delay(wire) | Throttle(wire) => wire == Wire::Kafka,
            _ => false,
        }
    }

    /// Whether it needs a cluster of brokers.
    pub fn needs_cluster(self) -> bool {
        matches!(self, LeaderKilled | TooFewInSync | ControllerKilled)
    }

    /// Whether it can take records that are under way with it, so that they are sent again.
    pub fn may_repeat(self) -> bool {
        matches!(self.side(), Side::Relay | Side::Kafka)
            && !matches!(self, RelayTerminated | ClockJumped)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire = |f: &mut fmt::Formatter<'_>, name: &str, wire: &Wire| {
            write!(f, "{name}-{}", if *wire == Wire::Postgres { "postgres" } else { "kafka" })
        };
        match self {
            Cut(to) => wire(f, "cut", to),
            Refused(to) => wire(f, "refused", to),
            StallToServer(to) => wire(f, "stall-to", to),
            StallToClient(to) => wire(f, "stall-from", to),
            HalfOpen(to) => wire(f, "half-open", to),
            OneByteWrites(to) => wire(f, "one-byte", to),
            Delay(to) => wire(f, "delay", to),
            Throttle(to) => wire(f, "throttle", to),
            other => {
                // `KafkaKilled` is `kafka-killed`.
                for (place, c) in format!("{other:?}").chars().enumerate() {
                    if c.is_uppercase() && place > 0 {
                        f.write_str("-")?;
                    }
                    write!(f, "{}", c.to_ascii_lowercase())?;
                }
                Ok(())
            }
        }
    }
}

impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let found = ALL.iter().find(|fault| fault.to_string() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<_> = ALL.iter().map(Fault::to_string).collect();
            format!("the faults are {}", names.join(", "))
        })
    }
}
