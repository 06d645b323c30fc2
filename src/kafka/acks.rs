//! Delivery reports, on their way from librdkafka's poll thread to the frontier.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::bindings::RD_KAFKA_OFFSET_INVALID;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use tokio::sync::Notify;

use crate::frontier::Ticket;
use crate::pipe::Flaw;

/// Acks of one transaction that came in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The ticket of one of them.
    pub ticket: Ticket,
    /// How many.
    pub records: usize,
    /// Their charges, added up.
    pub bytes: usize,
}

/// The producer cannot go on: it is dropped, and what it had not delivered is sent again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Kafka did not take a record{at}: {reason}", at = Topic(.topic))]
pub struct Failure {
    /// The record's topic, if it was a record that failed.
    pub topic: Option<String>,
    /// The broker's or librdkafka's words, and what to do.
    pub reason: String,
    /// What is wrong with a record in the batch, if one is at fault, and would be again.
    pub of_record: Option<Flaw>,
}

impl Failure {
    /// librdkafka takes a record for delivered as soon as one behind it is, for a broker lets
    /// nothing in behind a gap (`rd_kafka_dr_implicit_ack`). But one that does not know the
    /// producer does: if the topic was deleted and made anew, of two batches under way the first
    /// may have been refused for want of a topic, and the second taken. There is no other trace of
    /// that than an ack without an offset.
    fn implied(topic: &str, partition: i32) -> Failure {
        let reason = format!(
            "not it was acknowledged, but one behind it in partition {partition}, which proves \
             nothing if the topic was deleted and made anew"
        );
        Failure { topic: Some(topic.to_owned()), reason, of_record: None }
    }

    fn of_code(topic: &str, error: &KafkaError) -> Failure {
        let code = error.rdkafka_error_code();
        let advice = code.map_or("", |code| match code {
            RDKafkaErrorCode::MessageSizeTooLarge => "; raise max.message.bytes of the topic",
            RDKafkaErrorCode::InvalidRecord => {
                "; a record without a key cannot go to a compacted topic"
            }
            RDKafkaErrorCode::TopicAuthorizationFailed => {
                "; the relay's Kafka user needs WRITE on it"
            }
            RDKafkaErrorCode::ClusterAuthorizationFailed => {
                "; the relay's Kafka user needs IDEMPOTENT_WRITE on the cluster"
            }
            RDKafkaErrorCode::InvalidTimestamp => {
                "; compare the clocks of this machine and of Postgres' with the brokers'"
            }
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                "; create it"
            }
            _ => "",
        });
        let text = code.map_or_else(|| error.to_string(), |code| code.to_string());
        let of_record = code.and_then(of_record);
        Failure { topic: Some(topic.to_owned()), reason: format!("{text}{advice}"), of_record }
    }
}

/// What a broker says of a batch because of one record in it. A row with a time of its own has
/// been looked at before; it is a clock that is wrong, and no row is at fault for it.
fn of_record(code: RDKafkaErrorCode) -> Option<Flaw> {
    match code {
        RDKafkaErrorCode::MessageSizeTooLarge => Some(Flaw::Size),
        RDKafkaErrorCode::InvalidRecord => Some(Flaw::Other),
        _ => None,
    }
}

/// What librdkafka says of the records behind one that failed.
fn is_echo(code: Option<RDKafkaErrorCode>) -> bool {
    use RDKafkaErrorCode::{Fatal, PurgeInflight, PurgeQueue};
    matches!(code, Some(Fatal | PurgeQueue | PurgeInflight))
}

/// How long the cause of a failure may come after its echo.
const CAUSE_MAX: Duration = Duration::from_secs(1);

struct Topic<'a>(&'a Option<String>);

impl std::fmt::Display for Topic<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |topic| write!(f, " of topic {topic}"))
    }
}

#[derive(Debug, Default)]
struct Batch {
    runs: Vec<Run>,
    position: bool,
    /// Topics and partitions whose first record has been delivered.
    opened: Vec<(String, u32)>,
    failure: Option<Failure>,
    /// A failure whose cause may still come, and since when.
    echo: Option<(Failure, Instant)>,
}

impl Batch {
    fn failure(&self) -> Option<Failure> {
        let echo = self.echo.as_ref().filter(|(_, since)| since.elapsed() >= CAUSE_MAX);
        self.failure.as_ref().or(echo.map(|(failure, _)| failure)).cloned()
    }
}

/// What librdkafka tells us, gathered until the relay's loop comes to fetch it.
///
/// The lock is taken by the poll thread for each report and by the loop once a turn, to swap the
/// whole batch out; it is never held across anything that waits.
#[derive(Debug, Default)]
pub struct Acks {
    batch: Mutex<Batch>,
    wake: Notify,
    failed: AtomicBool,
    connected: AtomicBool,
    trouble: Mutex<Option<String>>,
}

impl Acks {
    /// Swaps the reports gathered so far into `runs`, which is emptied before. Returns whether
    /// the position record was delivered.
    ///
    /// # Errors
    /// Once a record has failed; `runs` then holds what was delivered all the same.
    pub fn fetch(&self, runs: &mut Vec<Run>) -> Result<bool, Failure> {
        runs.clear();
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(runs, &mut batch.runs);
        let position = std::mem::take(&mut batch.position);
        batch.failure().map_or(Ok(position), Err)
    }

    /// Why the producer is done for, if it is. Changes nothing.
    pub fn failure(&self) -> Option<Failure> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner).failure()
    }

    /// Partitions whose first record the broker has, since this was last called.
    pub(super) fn take_opened(&self) -> Vec<(String, u32)> {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut batch.opened)
    }

    /// Waits until there may be something to fetch, or something to look at.
    pub async fn arrived(&self) {
        self.wake.notified().await;
    }

    /// Wakes the loop.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Whether a record has failed, so that none may be sent behind it.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Whether a broker has answered and not all have gone since.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// What Kafka last complained of, while it is not connected.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A broker answered.
    pub(super) fn connected(&self) {
        if !self.connected.swap(true, Ordering::Relaxed) {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.wake();
        }
    }

    pub(super) fn disconnected(&self, reason: String) {
        self.connected.store(false, Ordering::Relaxed);
        self.complain(reason);
    }

    fn complain(&self, reason: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        self.wake();
    }

    /// The producer is done for.
    pub(super) fn fail(&self, topic: &str, error: &KafkaError) {
        let failure = Failure::of_code(topic, error);
        if is_echo(error.rdkafka_error_code()) {
            self.echoes(failure);
        } else {
            self.ends(failure);
        }
    }

    fn ends(&self, failure: Failure) {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        // The first is the cause.
        batch.failure.get_or_insert(failure);
        drop(batch);
        self.failed.store(true, Ordering::Release);
        self.wake();
    }

    fn echoes(&self, failure: Failure) {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        batch.echo.get_or_insert_with(|| (failure, Instant::now()));
        drop(batch);
        self.failed.store(true, Ordering::Release);
        self.wake();
    }

    fn opened(&self, topic: &str, partition: u32) {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        batch.opened.push((topic.to_owned(), partition));
        self.wake();
    }

    fn acked(&self, ticket: Ticket) {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        if ticket == Ticket::POSITION {
            batch.position = true;
            return self.wake();
        }
        let bytes = ticket.charge();
        match batch.runs.last_mut() {
            Some(run) if run.ticket.same_span(ticket) => {
                run.records += 1;
                run.bytes += bytes;
                return;
            }
            Some(_) => {}
            None => self.wake(),
        }
        batch.runs.push(Run { ticket, records: 1, bytes });
    }
}

impl ClientContext for Acks {
    /// librdkafka repeats itself while a broker is away; what matters becomes a state of the
    /// relay, which is logged once when it changes. That a broker hung up is told nowhere else
    /// than in a line of its log.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" && !self.is_connected() {
            self.complain(plain(message));
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", "{facility}: {message}");
            }
            _ => tracing::debug!(target: "librdkafka", "{facility}: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => {
                let reason = plain(reason);
                self.echoes(Failure { topic: None, reason, of_record: None });
            }
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                let cause = self.trouble().unwrap_or_else(|| reason.to_owned());
                self.disconnected(cause);
            }
            _ => self.complain(plain(reason)),
        }
    }
}

/// librdkafka's text without what changes from one attempt to the next, which would make each of
/// them news, and with advice where the text alone gives none.
fn plain(reason: &str) -> String {
    let text = reason.split(" (after ").next().unwrap_or(reason);
    // Log lines name the thread as well.
    let text =
        text.split_once("]: ").filter(|_| text.starts_with("[thrd:")).map_or(text, |it| it.1);
    // The broker does not understand our first words, or we are to speak TLS.
    let misunderstood = reason.contains("in state APIVERSION_QUERY");
    let advice = if misunderstood { "; check security.protocol and the port" } else { "" };
    format!("{text}{advice}")
}

impl ProducerContext for Acks {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        match result {
            Ok(message) if message.offset() == i64::from(RD_KAFKA_OFFSET_INVALID) => {
                self.ends(Failure::implied(message.topic(), message.partition()));
            }
            Ok(message) => {
                let ticket = Ticket::from_opaque(opaque);
                self.acked(ticket);
                if ticket.is_first()
                    && let Ok(partition) = u32::try_from(message.partition())
                {
                    self.opened(message.topic(), partition);
                }
            }
            Err((error, message)) => self.fail(message.topic(), error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_of_one_transaction_become_one_run() {
        let acks = Acks::default();
        let ticket = |span: usize| Ticket::from_opaque(2 << 40 | span);
        for span in [7, 7, 7, 8, 7] {
            acks.acked(ticket(span));
        }
        let mut runs = vec![Run { ticket: ticket(0), records: 9, bytes: 9 }];
        assert_eq!(acks.fetch(&mut runs), Ok(false));
        let run = |span, records| Run { ticket: ticket(span), records, bytes: records * 128 };
        assert_eq!(runs, [run(7, 3), run(8, 1), run(7, 1)]);
        acks.acked(Ticket::POSITION);
        assert_eq!(acks.fetch(&mut runs), Ok(true));
        assert_eq!(runs, []);
    }

    #[test]
    fn the_same_trouble_is_the_same_text() {
        for (reason, expected) in [
            ("a:1/bootstrap: refused (after 9ms in state CONNECT)", "a:1/bootstrap: refused"),
            ("a:1: refused", "a:1: refused"),
            ("[thrd:a:1/bootstrap]: a:1/bootstrap: refused", "a:1/bootstrap: refused"),
            (
                "a:1: Disconnected: closed (after 1ms in state APIVERSION_QUERY, 2 suppressed)",
                "a:1: Disconnected: closed; check security.protocol and the port",
            ),
        ] {
            assert_eq!(plain(reason), expected);
        }
    }

    #[test]
    fn the_cause_of_a_failure_counts_and_not_its_echo() {
        let acks = Acks::default();
        let error = KafkaError::MessageProduction;
        acks.fail("orders", &error(RDKafkaErrorCode::Fatal));
        assert_eq!(acks.fetch(&mut Vec::new()), Ok(false), "the cause may still come");
        assert!(acks.has_failed());
        acks.fail("orders", &error(RDKafkaErrorCode::MessageSizeTooLarge));
        acks.fail("posts", &error(RDKafkaErrorCode::TopicAuthorizationFailed));
        let failure = acks.fetch(&mut Vec::new()).unwrap_err();
        let expected = "Kafka did not take a record of topic orders: MessageSizeTooLarge (Broker: \
                        Message size too large); raise max.message.bytes of the topic";
        assert_eq!((failure.to_string().as_str(), failure.of_record), (expected, Some(Flaw::Size)));
        assert!(acks.fetch(&mut Vec::new()).is_err(), "it stays");
    }
}
