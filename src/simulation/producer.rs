//! What `Producer::send` does: where a record goes, and whether it may go there now.

use super::broker::{Content, POSITIONS};
use super::process::Outside;
use crate::config::POINTER_HEADER;
use crate::frontier::Ticket;
use crate::kafka::routes::{Routes, Target};
use crate::lsn::{Lsn, Position};
use crate::pipe::{Refused, Sink};
use crate::record::Record;

/// The producer as the pipe sees it.
pub struct Sending<'a> {
    pub outside: &'a mut Outside,
    pub client: usize,
    pub routes: &'a mut Routes,
    pub asked: &'a mut bool,
    pub compresses: bool,
}

impl Sink for Sending<'_> {
    fn send(&mut self, record: &Record<'_>, ticket: Ticket) -> Result<(), Refused> {
        let Outside { broker, oracle, random, server, .. } = &mut *self.outside;
        // librdkafka's queue is full, now and then.
        if broker.failure(self.client).is_some() || random.below(16) == 0 {
            return Err(Refused::Full);
        }
        let idle = || broker.is_idle(self.client);
        let (partition, first) = match self.routes.target(record, idle) {
            Target::Partition(partition) => (partition, None),
            Target::First(partition) => (Some(partition), Some(partition)),
            Target::Ask => {
                *self.asked = true;
                return Err(Refused::Full);
            }
            Target::Wait | Target::WaitUntilIdle => return Err(Refused::Full),
            Target::Beyond(count) => panic!("no row asks for a partition, of {count} or not"),
        };
        if !self.compresses {
            self.routes.check_size(record)?;
        }
        let ticket = if first.is_some() { ticket.as_first() } else { ticket };
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        let header = |name| record.headers.iter().find(|(it, _)| *it == name).map(|(_, it)| it);
        let number = text(header("id").unwrap());
        let position = position(header("walrelay-position").unwrap());
        let payload = text(record.payload);
        let points = header(POINTER_HEADER).is_some();
        let told = if points { pointed(&payload) } else { payload.trim_start().to_owned() };
        assert_eq!(number, told, "another row's payload");
        let number: usize = number.parse().unwrap();
        assert!(!points || server.rows[number].large, "row {number} was not too large");
        oracle.sent(number, record.key.unwrap(), position);
        let partition = POSITIONS + 1 + partition.unwrap() as usize;
        broker.send(self.client, partition, Content::Row { number, position, ticket });
        self.routes.sent(record.topic, first);
        self.outside.say(|| format!("row {number} goes to producer {}", self.client));
        Ok(())
    }
}

/// A consumer's reading of the header.
fn position(header: Option<&[u8]>) -> Position {
    let text = std::str::from_utf8(header.unwrap()).unwrap();
    let number = |range| u64::from_str_radix(&text[range], 16).unwrap();
    let small = |range| u32::try_from(number(range)).unwrap();
    Position { epoch: small(0..8), commit: Lsn::from_wire(number(9..25)), row: small(26..34) }
}

/// The id of the row that a consumer would read.
fn pointed(value: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(value).unwrap();
    value["id"].as_str().unwrap().to_owned()
}
