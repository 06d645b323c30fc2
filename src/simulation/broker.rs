//! A model of Kafka: partitions that take batches in order, and what an idempotent producer makes
//! of it.
//!
//! A broker that knows a producer in a partition refuses what does not follow; one that does not
//! know it takes any sequence number. A producer that is dropped leaves requests on the wire that
//! may arrive at any later time.

use std::collections::VecDeque;

use super::server::LARGE;
use super::session::source;
use crate::frontier::Ticket;
use crate::lsn::Position;
use crate::position::{PositionRecord, Remembered};
use crate::testing::Random;

/// The partition of the position records; those of the topic of rows follow.
pub const POSITIONS: usize = 0;

/// How many requests of a producer may be on the wire to a partition.
const REQUESTS_MAX: usize = 5;

#[derive(Clone, Debug)]
pub enum Content {
    Row { number: usize, position: Position, ticket: Ticket },
    Position { key: String, value: String },
}

/// What a producer is told.
#[derive(Clone, Copy, Debug)]
pub enum Report {
    /// The broker has it; `first` is the partition that it was the first record of.
    Row {
        ticket: Ticket,
        first: Option<u32>,
    },
    Position,
    Failed {
        of_record: bool,
    },
}

/// What a producer has under way to one partition.
#[derive(Debug, Default)]
struct Lane {
    /// Handed over and not answered, with sequence numbers.
    sent: VecDeque<(u64, Content)>,
    next: u64,
    /// Answered, and the answer is under way.
    answers: VecDeque<Report>,
}

#[derive(Debug, Default)]
struct Client {
    lanes: Vec<Lane>,
    /// A request was refused.
    failed: Option<bool>,
    gone: bool,
}

#[derive(Debug, Default)]
struct Partition {
    /// The next sequence number of each producer that is known.
    known: Vec<(usize, u64)>,
    unreachable: bool,
}

#[derive(Debug)]
pub struct Broker {
    clients: Vec<Client>,
    partitions: Vec<Partition>,
    /// The records of the positions topic, and what a relay makes of all of them.
    pub positions: Vec<PositionRecord>,
    pub remembered: Remembered,
    /// Whether the topic takes large records.
    pub takes_large: bool,
}

impl Broker {
    pub fn new(partitions: usize) -> Broker {
        let partitions = (0..=partitions).map(|_| Partition::default()).collect();
        let (clients, positions, remembered) = (Vec::new(), Vec::new(), Remembered::default());
        Broker { clients, partitions, positions, remembered, takes_large: true }
    }

    /// Partitions of the topic of rows.
    pub fn partitions(&self) -> usize {
        self.partitions.len() - 1
    }

    pub fn grow(&mut self) {
        self.partitions.push(Partition::default());
    }

    pub fn connect(&mut self) -> usize {
        self.clients.push(Client::default());
        self.clients.len() - 1
    }

    /// Whether the producer has neither records nor answers under way.
    pub fn is_idle(&self, client: usize) -> bool {
        let lanes = &self.clients[client].lanes;
        lanes.iter().all(|lane| lane.sent.is_empty() && lane.answers.is_empty())
    }

    /// Whether the producer has this row under way.
    pub fn carries(&self, client: usize, wanted: usize) -> bool {
        let mut sent = self.clients[client].lanes.iter().flat_map(|lane| &lane.sent);
        sent.any(|(_, it)| matches!(it, Content::Row { number, .. } if *number == wanted))
    }

    /// Rows that may still arrive.
    pub fn under_way(&self) -> impl Iterator<Item = usize> {
        let sent = self.clients.iter().flat_map(|it| &it.lanes).flat_map(|lane| &lane.sent);
        sent.filter_map(|(_, content)| match content {
            Content::Row { number, .. } => Some(*number),
            Content::Position { .. } => None,
        })
    }

    /// Whether the first of all position records is under way.
    pub fn begins(&self) -> bool {
        let lanes = self.clients.iter().filter_map(|client| client.lanes.first());
        self.positions.is_empty() && lanes.flat_map(|lane| &lane.sent).next().is_some()
    }

    /// Position records that dropped producers have left on the wire never arrive.
    pub fn lose_late_positions(&mut self) {
        let gone = self.clients.iter_mut().filter(|client| client.gone);
        gone.filter_map(|client| client.lanes.first_mut()).for_each(|lane| lane.sent.clear());
    }

    /// A record is handed over.
    pub fn send(&mut self, client: usize, partition: usize, content: Content) {
        let lanes = &mut self.clients[client].lanes;
        if lanes.len() <= partition {
            lanes.resize_with(partition + 1, Lane::default);
        }
        let lane = &mut lanes[partition];
        lane.sent.push_back((lane.next, content));
        lane.next += 1;
    }

    /// The producer is dropped, and with it all answers; a few requests are on the wire.
    pub fn drop_client(&mut self, client: usize, random: &mut Random) {
        let client = &mut self.clients[client];
        client.gone = true;
        for lane in &mut client.lanes {
            lane.answers.clear();
            let kept = random.index(REQUESTS_MAX + 1);
            lane.sent.truncate(kept);
        }
    }

    /// A partition's next request arrives and is answered. Returns the rows that are new in the
    /// partition. With `refuse`, the broker takes none of it, for good.
    pub fn arrive(
        &mut self,
        client: usize,
        partition: usize,
        refuse: bool,
        random: &mut Random,
    ) -> Vec<(usize, Position)> {
        let of = &mut self.clients[client];
        let (Some(lane), place) = (of.lanes.get_mut(partition), &mut self.partitions[partition])
        else {
            return Vec::new();
        };
        if lane.sent.is_empty() || place.unreachable {
            return Vec::new();
        }
        let size = 1 + random.index(lane.sent.len().min(3));
        let batch: Vec<_> = lane.sent.drain(..size).collect();
        let known = place.known.iter_mut().find(|(id, _)| *id == client);
        let first = batch[0].0;
        let gap = known.as_ref().is_some_and(|(_, next)| *next != first);
        let large = !self.takes_large && batch.iter().any(|(_, it)| it.is_large());
        if gap || large || refuse {
            // The first is the cause; after it nothing more is put on the wire.
            of.failed.get_or_insert(large && !gap);
            for lane in &mut of.lanes {
                lane.sent.truncate(REQUESTS_MAX);
            }
            return Vec::new();
        }
        let next = first + batch.len() as u64;
        match known {
            Some(known) => known.1 = next,
            None => place.known.push((client, next)),
        }
        let mut rows = Vec::new();
        for (_, content) in batch {
            let answer = match content {
                Content::Row { number, position, ticket } => {
                    rows.push((number, position));
                    let first = ticket.is_first().then(|| u32::try_from(partition - 1).unwrap());
                    Report::Row { ticket, first }
                }
                Content::Position { key, value } => {
                    // Read once, and not by each start: that would take most of a schedule's time.
                    let (key, value) = (key.as_bytes(), value.as_bytes());
                    self.remembered.take(&source(), key, value).unwrap();
                    self.positions.push(PositionRecord::parse(value).unwrap());
                    Report::Position
                }
            };
            if !of.gone {
                lane.answers.push_back(answer);
            }
        }
        rows
    }

    /// Some request that is on its way; which, is chance.
    pub fn choose(&self, random: &mut Random) -> Option<(usize, usize)> {
        // What a producer has left behind takes its time.
        let late = random.below(8) == 0;
        let clients = self.clients.iter().enumerate().filter(|(_, it)| late || !it.gone);
        let lanes = clients.flat_map(|(id, client)| {
            let lanes = client.lanes.iter().enumerate().filter(|(_, lane)| !lane.sent.is_empty());
            lanes.map(move |(partition, _)| (id, partition))
        });
        let lanes: Vec<_> = lanes.collect();
        (!lanes.is_empty()).then(|| lanes[random.index(lanes.len())])
    }

    /// Some answers of one partition reach the producer, in their order.
    pub fn reports(&mut self, client: usize, random: &mut Random, all: bool) -> Vec<Report> {
        let client = &mut self.clients[client];
        let mut reports = Vec::new();
        if !client.lanes.is_empty() {
            let chosen = random.index(client.lanes.len());
            for (index, lane) in client.lanes.iter_mut().enumerate() {
                let some =
                    if lane.answers.is_empty() { 0 } else { random.index(lane.answers.len()) + 1 };
                let count = if all { lane.answers.len() } else { some };
                if all || index == chosen {
                    reports.extend(lane.answers.drain(..count));
                }
            }
        }
        if (all || random.below(2) == 0)
            && let Some(of_record) = client.failed
        {
            reports.push(Report::Failed { of_record });
        }
        reports
    }

    /// Whether the producer has failed, and for a record's sake.
    pub fn failure(&self, client: usize) -> Option<bool> {
        self.clients[client].failed
    }

    pub fn reach(&mut self, partition: usize, reachable: bool) {
        self.partitions[partition].unreachable = !reachable;
    }

    pub fn reach_all(&mut self) {
        self.partitions.iter_mut().for_each(|it| it.unreachable = false);
    }

    /// Producers that have been silent for a day are forgotten.
    pub fn forget(&mut self) {
        let quiet = |partition: usize| {
            let mut lanes = self.clients.iter().filter_map(|it| it.lanes.get(partition));
            lanes.all(|lane: &Lane| lane.sent.is_empty())
        };
        let quiet: Vec<_> = (0..self.partitions.len()).map(quiet).collect();
        for (partition, _) in self.partitions.iter_mut().zip(quiet).filter(|(_, quiet)| *quiet) {
            partition.known.clear();
        }
    }
}

impl Content {
    fn is_large(&self) -> bool {
        matches!(self, Content::Row { ticket, .. } if ticket.charge() > LARGE)
    }
}
