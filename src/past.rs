//! What a process knows from its sessions so far, beside what is written in Kafka: what follows
//! from the end of one, and where the next one begins.

use std::time::Duration;

use crate::frontier::Reached;
use crate::journal::Journal;
use crate::lsn::Lsn;
use crate::pg::before::{Before, Changed};
use crate::pipe::Pipe;
use crate::position::{Context, Found, Gap, PositionRecord, Remembered, Source};
use crate::remedy::Remedy;

/// The past of this process.
#[derive(Debug, Default)]
pub struct Past {
    /// The server of the last session; none where the next one must find out where to begin.
    pub before: Before,
    /// What the positions of this process are about; none before the first start.
    stream: Option<(Source, Context)>,
    /// What was in Kafka when the server turned out to have another history. It is more than what
    /// is written there, and what the next start goes by.
    known: Option<(Source, PositionRecord)>,
    /// How far that server had been read.
    read: Lsn,
}

/// How a start comes out.
#[derive(Debug)]
pub struct Begun {
    /// Of the positions to come.
    pub journal: Journal,
    /// What the operator should know.
    pub remark: Option<String>,
}

/// A start that must not be.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub gap: Gap,
    /// What is to be written, so that a later start knows it.
    pub record: Option<PositionRecord>,
}

impl Past {
    /// Whether what is in flight is to be given a moment to arrive before [`ended`](Past::ended),
    /// because another history is followed next.
    pub fn is_left(&self, remedy: Remedy) -> bool {
        matches!(remedy, Remedy::BeginAgain { .. }) && self.before.system.is_some()
    }

    /// A session ended, with everything in Kafka that has been `reached`. Returns whether the
    /// producer is to be dropped, with what it has in flight. `remembers` says whether positions
    /// are written to Kafka: without, every process begins with the slot and the first epoch.
    pub fn ended(&mut self, remedy: Remedy, reached: Reached, remembers: bool) -> bool {
        // Whoever holds the slot now goes on from what is confirmed; nothing of ours may come in
        // between, and where to begin afterwards is to be found out anew.
        let anew = matches!(remedy, Remedy::BeginAgain { .. } | Remedy::StandBy);
        if remedy == Remedy::StandBy {
            self.known = None;
        } else if let Remedy::BeginAgain { behind } = remedy
            && self.is_left(remedy)
            && remembers
            && let Some((source, context)) = &self.stream
        {
            // To the row if possible, so that nothing is repeated.
            let record = PositionRecord::new(context.clone(), reached);
            self.known = Some((source.clone(), PositionRecord { behind, ..record }));
            self.read = self.before.received;
        }
        let drops = anew && self.before.system.is_some() || remedy == Remedy::Restart;
        if anew {
            self.before = Before::default();
        }
        drops
    }

    /// Adds what this process knows to what is written. Returns whether that is more.
    ///
    /// # Errors
    /// If it knows something of another server.
    pub fn take_in(&self, source: &Source, remembered: &mut Remembered) -> Result<bool, Changed> {
        let Some((known_source, known)) = &self.known else { return Ok(false) };
        if known_source != source {
            return Err(Changed::OtherServer(format!(
                "this is another Postgres or database than before: {}, not {}",
                source.key(),
                known_source.key()
            )));
        }
        let written = remembered.record.take();
        let record = match written.clone() {
            Some(written) => written.joined(known.clone()),
            None => known.clone(),
        };
        let own = written.as_ref() != Some(&record);
        if record.context.timeline == known.context.timeline {
            remembered.read = self.read;
        }
        remembered.record = Some(record);
        Ok(own)
    }

    /// Has the pipe begin where the slot, held against what is remembered, says. `own` is what
    /// [`take_in`](Past::take_in) returned.
    ///
    /// The slot has no reader at this moment, so whatever another relay has confirmed is written
    /// already: a slot beyond the record is a gap, and not a race.
    ///
    /// # Errors
    /// If there is a gap, and it is not accepted.
    pub fn begin(
        &mut self,
        pipe: &mut Pipe,
        source: &Source,
        found: Found<'_>,
        own: bool,
        accept_gap: bool,
        interval: Duration,
    ) -> Result<Begun, Refusal> {
        let start = match found.start(accept_gap) {
            Err(gap @ Gap::ServerBehind { server, .. }) => {
                let record = self.refuse(source, found.remembered.record, server, own);
                return Err(Refusal { gap, record });
            }
            Err(gap) => return Err(Refusal { gap, record: None }),
            Ok(start) => start,
        };
        pipe.start(&start);
        self.known = None;
        // What is not written yet may not be confirmed.
        let written = if own { Reached::default() } else { pipe.frontier().reached() };
        let publication = found.publication.to_owned();
        let context = Context { timeline: found.timeline, publication, epoch: start.epoch };
        self.stream = Some((source.clone(), context.clone()));
        let journal = Journal::new(source.clone(), context, interval, written);
        Ok(Begun { journal, remark: start.remark })
    }

    /// A server that is behind may grow; that it was is remembered, here and in Kafka. It is
    /// written until it is found there: what carried it may have failed.
    fn refuse(
        &mut self,
        source: &Source,
        record: Option<PositionRecord>,
        server: Lsn,
        own: bool,
    ) -> Option<PositionRecord> {
        let mut record = record?;
        let news = record.behind.replace(server).is_none() || own;
        self.known = Some((source.clone(), record.clone()));
        news.then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontier::{Frontier, Limits};
    use crate::outbox::Outboxes;
    use crate::pg::before::System;

    fn lsn(raw: u64) -> Lsn {
        Lsn::from_wire(raw)
    }

    #[test]
    fn a_server_that_went_back_is_refused_although_it_has_grown_by_the_next_look() {
        let source = Source { system: "7".into(), database: 5, slot: "s".into() };
        let limits = Limits { records: 1, bytes: 1, span: 1 };
        let mut pipe = Pipe::new(Outboxes::new(Vec::new(), None), Frontier::new(lsn(0), limits));
        let mut past = Past::default();
        let begin = |past: &mut Past, pipe: &mut Pipe, remembered, own, server| {
            let (slot, server) = (lsn(100), lsn(server));
            let publication = "p";
            let found =
                Found { remembered, slot, server, timeline: 1, switched: None, publication };
            past.begin(pipe, &source, found, own, false, Duration::ZERO)
        };
        assert!(begin(&mut past, &mut pipe, Remembered::default(), false, 120).is_ok());
        past.before.system = Some(System { identifier: "7".into(), timeline: 1 });
        past.before.received = lsn(120);
        let again = Remedy::BeginAgain { behind: Some(lsn(90)) };
        assert!(past.ended(again, pipe.reached(), true));
        let context = Context { timeline: 1, publication: "p".into(), epoch: 0 };
        let record = PositionRecord { context, end: lsn(100), inside: None, behind: None };
        let mut remembered = Remembered { record: Some(record.clone()), ..Remembered::default() };
        let own = past.take_in(&source, &mut remembered).unwrap();
        let refusal = begin(&mut past, &mut pipe, remembered, own, 150).unwrap_err();
        assert_eq!(refusal.gap, Gap::ServerBehind { server: lsn(90), record: lsn(100) });
        assert_eq!(refusal.record, Some(PositionRecord { behind: Some(lsn(90)), ..record }));
    }

    #[test]
    fn a_refusal_is_written_until_it_is_found_in_kafka() {
        let source = Source { system: "7".into(), database: 5, slot: "s".into() };
        let context = Context { timeline: 1, publication: "p".into(), epoch: 0 };
        let record = PositionRecord { context, end: lsn(100), inside: None, behind: None };
        let mut written = Remembered { record: Some(record.clone()), ..Remembered::default() };
        let limits = Limits { records: 1, bytes: 1, span: 1 };
        let mut pipe = Pipe::new(Outboxes::new(Vec::new(), None), Frontier::new(lsn(0), limits));
        let mut past = Past::default();
        let mut refused = |written: &Remembered, server| {
            let mut remembered = written.clone();
            let own = past.take_in(&source, &mut remembered).unwrap();
            let (slot, server) = (lsn(50), lsn(server));
            let publication = "p";
            let found =
                Found { remembered, slot, server, timeline: 1, switched: None, publication };
            past.begin(&mut pipe, &source, found, own, false, Duration::ZERO).unwrap_err().record
        };
        let refusal = PositionRecord { behind: Some(lsn(90)), ..record };
        assert_eq!(refused(&written, 90), Some(refusal.clone()));
        assert_eq!(refused(&written, 150), Some(refusal.clone()), "what carried it has failed");
        written.record = Some(refusal);
        assert_eq!(refused(&written, 150), None);
    }
}
