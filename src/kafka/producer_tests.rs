use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::config::Config;
use crate::frontier::{Frontier, Limits};
use crate::kafka::acks::Run;
use crate::lsn::{Lsn, Position};
use crate::pg::output::Tuple;
use crate::record::{Headers, Origin, Row};

const PATIENCE: Duration = Duration::from_secs(60);

/// Sends a record as soon as it is taken. What is acked meanwhile is counted.
async fn send(producer: &mut Producer, ticket: Ticket) {
    let record = Record {
        origin: &Origin::Messages("m".into()),
        topic: "t",
        key: Some(b"k"),
        payload: None,
        encoded: None,
        headers: Headers {
            fields: &[],
            row: Row { tuple: Tuple::of(&[0, 0]).unwrap(), bytes: &[], made: &[] },
        },
        partition: None,
        timestamp: Timestamp::Committed(1),
        id: None,
        again: false,
    };
    let taken = async {
        while producer.send(&record, ticket).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            producer.refresh_topics();
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.unwrap();
}

/// Waits for the next acks.
async fn acks(producer: &Producer) -> Result<Vec<Run>, crate::kafka::acks::Failure> {
    let fetched = async {
        let mut runs = Vec::new();
        loop {
            producer.acks().fetch(&mut runs)?;
            if !runs.is_empty() {
                return Ok(runs);
            }
            producer.acks().arrived().await;
        }
    };
    tokio::time::timeout(PATIENCE, fetched).await.unwrap()
}

/// Only librdkafka's own cluster refuses one batch and takes the next one on demand. A real broker
/// does so for a moment, if its topic is deleted and made anew between the two.
#[tokio::test(flavor = "multi_thread")]
async fn d14_a_record_is_not_delivered_because_one_behind_it_is() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let text = format!(
        "postgres.url = 'postgres://u@h/d'\nkafka.brokers = ['{}']",
        cluster.bootstrap_servers()
    );
    let settings = Settings::new(&Config::parse("t", &text, []).unwrap());
    let mut producer = Producer::start(&settings, Counts::new()).unwrap();
    let limits = Limits { records: 10, bytes: 1 << 20, span: 10 };
    let frontier = Frontier::new(Lsn::ZERO, limits);
    let ticket = frontier.ticket(Position { epoch: 0, commit: Lsn::from_wire(1), row: 0 }, 1);
    send(&mut producer, ticket).await;
    assert_eq!(acks(&producer).await.unwrap().len(), 1);

    cluster.broker_round_trip_time(1, Duration::from_secs(4)).unwrap();
    let missing = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    cluster.request_errors(RDKafkaApiKey::Produce, &[missing]);
    send(&mut producer, ticket).await;
    // Time enough on a busy machine to go out, and be on the way when the next one does.
    tokio::time::sleep(Duration::from_secs(1)).await;
    send(&mut producer, ticket).await;
    let failure = acks(&producer).await.unwrap_err();
    let expected = "Kafka did not take a record of topic t: not it was acknowledged, but one \
                    behind it in partition 0, which proves nothing if the topic was deleted and \
                    made anew";
    assert_eq!(failure.to_string(), expected);
}
