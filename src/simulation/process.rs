//! The relay between the models: supervisor and loop with their order of calls, and nothing more.
//!
//! Every decision is the core's own. What `supervise`, `relay`, `kafka::producer` and `pg::session`
//! do around it is imitated as thinly as possible; whoever changes an order there changes it here.

use std::time::{Duration, Instant};

use super::broker::{Broker, Report};
use super::oracle::Oracle;
use super::producer::Sending;
use super::server::{LARGE, Server, Walsender};
use crate::config::{OnOversize, Outbox};
use crate::feedback::{Feedback, status};
use crate::frontier::{Flush, Frontier, Limits, Reached, Ticket};
use crate::journal::Journal;
use crate::kafka::routes::{Description, Routes};
use crate::lsn::Lsn;
use crate::outbox::Outboxes;
use crate::past::Past;
use crate::pg::frame::{Framed, frame};
use crate::pg::response::Beside;
use crate::pg::table::TableName;
use crate::pipe::{Pipe, Step};
use crate::position::Gap;
use crate::remedy::Remedy;
use crate::template::{Source, Template};
use crate::testing::Random;

const TOPIC: &str = "events";
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Small, so that schedules are short: one large record and a few others, and cuts in between.
const LIMITS: Limits = Limits { records: 8, bytes: 6000, span: 3 };

/// Everything that is not in the process.
#[derive(Debug)]
pub struct Outside {
    pub random: Random,
    pub now: Instant,
    pub server: Server,
    pub broker: Broker,
    pub oracle: Oracle,
    /// The process that has the slot or had it last, while it lives.
    pub last: Option<u64>,
    /// The slot exists, or existed: what the mark on the publication tells.
    pub marked: bool,
    /// Whether everything is written out.
    pub traces: bool,
}

impl Outside {
    /// For who looks at a schedule that failed.
    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.traces {
            eprintln!("    {}", what());
        }
    }

    /// A request arrives at its partition.
    pub fn arrive(&mut self, client: usize, partition: usize, refuse: bool) {
        for (number, position) in self.broker.arrive(client, partition, refuse, &mut self.random) {
            self.say(|| format!("row {number} of producer {client} is in Kafka as {position}"));
            self.oracle.delivered(number, position);
        }
    }
}

/// What ended a session, or kept it from beginning.
#[derive(Debug)]
pub enum Ended {
    By(Remedy),
    OfRecord,
    Gap(Gap),
    SlotGone,
    RowsSkipped,
}

/// What all processes of a schedule have in common.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Whether only the broker can tell that a record is too large.
    pub compresses: bool,
    /// Whether a pointer goes in the place of one that is.
    pub pointers: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
pub struct Process {
    pub id: u64,
    pub pipe: Pipe,
    pub past: Past,
    pub journal: Option<Journal>,
    pub feedback: Feedback,
    pub accept_gap: bool,
    /// The producer, and what belongs to it.
    pub client: Option<usize>,
    pub routes: Routes,
    pub asked: bool,
    pub inbox: Vec<Report>,
    /// Whether only the broker can tell that a record is too large.
    pub compresses: bool,
    pub stream: Option<Walsender>,
    /// It has left a history, and knows only by itself how far it had got there.
    pub left: bool,
    /// It has seen that the server has less than it has read.
    pub saw_behind: bool,
    /// A row cannot be sent.
    pub stuck: bool,
    /// The end was asked for; so many turns the process has left.
    pub draining: Option<u32>,
    /// Why it halts.
    pub halted: Option<Ended>,
}

fn outboxes(pointers: bool) -> Outboxes {
    let table = TableName { schema: "public".into(), name: "outbox".into() };
    let outbox = Outbox {
        id: Some("id".into()),
        key: Some(Source::Column("key".into())),
        on_oversize: if pointers { OnOversize::Pointer } else { OnOversize::Poison },
        ..Outbox::bare(table, "payload", Template::parse(TOPIC).unwrap())
    };
    Outboxes::new(vec![outbox], Some("walrelay-position".into()))
}

impl Process {
    pub fn new(id: u64, kind: Kind, accept_gap: bool) -> Process {
        let Kind { compresses, pointers } = kind;
        Process {
            id,
            pipe: Pipe::new(outboxes(pointers), Frontier::new(Lsn::ZERO, LIMITS)),
            past: Past::default(),
            journal: None,
            feedback: Feedback::new(INTERVAL),
            accept_gap,
            client: None,
            routes: Routes::default(),
            asked: false,
            inbox: Vec::new(),
            compresses,
            stream: None,
            left: false,
            saw_behind: false,
            stuck: false,
            draining: None,
            halted: None,
        }
    }

    /// One turn of `Relay::run`. Returns whether the process has ended in good order.
    pub fn turn(&mut self, out: &mut Outside) -> Result<bool, Ended> {
        self.refresh_topics(out);
        self.fetch_acks()?;
        self.take_frames(out)?;
        self.remember(out);
        self.report(out);
        let closed = self.stream.as_ref().is_some_and(|stream| stream.closed);
        if closed && out.random.below(4) == 0 {
            // Nothing is read while a row waits, but it shows when a status is written.
            return Err(Ended::By(Remedy::Reconnect));
        }
        self.draining = self.draining.map(|turns| turns.saturating_sub(1));
        if self.has_settled() {
            let flush = self.flush();
            self.tell(out, flush);
            return Ok(true);
        }
        Ok(false)
    }

    /// `Supervisor::finish`, a turn of it: the end without Postgres.
    pub fn finish(&mut self, out: &mut Outside) -> bool {
        if self.journal.is_none() || self.client.is_none() {
            return true;
        }
        let failed = self.fetch_acks().is_err();
        if !failed && !self.has_settled() {
            self.remember(out);
        }
        self.draining = self.draining.map(|turns| turns.saturating_sub(1));
        failed || self.has_settled()
    }

    /// Whether it ends without having written how far it got.
    pub fn is_cut_off(&self) -> bool {
        let reached = self.pipe.reached();
        self.left
            || !self.pipe.frontier().is_idle()
            || self.journal.as_ref().is_some_and(|journal| !journal.has_written(reached))
    }

    pub fn hear(&mut self, reports: Vec<Report>) {
        self.inbox.extend(reports);
    }

    fn fetch_acks(&mut self) -> Result<(), Ended> {
        self.take_reports(false)
    }

    /// Acks of one transaction that came in a row are taken together, as `Acks` does it.
    pub fn take_reports(&mut self, settling: bool) -> Result<(), Ended> {
        let (mut run, mut position, mut failed) = (None::<(Ticket, usize, usize)>, false, None);
        for report in std::mem::take(&mut self.inbox) {
            match report {
                Report::Row { ticket, first } => {
                    if let Some(partition) = first {
                        self.routes.opened(TOPIC, partition);
                    }
                    match &mut run {
                        Some((of, records, bytes)) if of.same_span(ticket) => {
                            *records += 1;
                            *bytes += ticket.charge();
                        }
                        _ => {
                            if let Some((of, records, bytes)) =
                                run.replace((ticket, 1, ticket.charge()))
                            {
                                self.pipe.acked(of, records, bytes);
                            }
                        }
                    }
                }
                Report::Position => position = true,
                Report::Failed { of_record } => failed = Some(of_record),
            }
        }
        if let Some((of, records, bytes)) = run {
            self.pipe.acked(of, records, bytes);
        }
        match failed {
            Some(true) => Err(Ended::OfRecord),
            Some(false) => Err(Ended::By(Remedy::Restart)),
            None => {
                if position
                    && !settling
                    && let Some(journal) = &mut self.journal
                {
                    journal.acked();
                }
                Ok(())
            }
        }
    }

    fn takes_rows(&self) -> bool {
        let begun = self.journal.as_ref().is_some_and(Journal::has_begun);
        let patient = |turns| self.pipe.frontier().open().is_some() && turns > 20;
        begun && self.draining.is_none_or(patient)
    }

    fn take_frames(&mut self, out: &mut Outside) -> Result<(), Ended> {
        if self.stuck {
            if out.random.below(4) > 0 {
                return Ok(());
            }
            self.pipe.pardon();
        }
        let Some(mut stream) = self.stream.take() else { return Ok(()) };
        let outcome = self.read(&mut stream, out);
        self.stream = Some(stream);
        outcome
    }

    fn read(&mut self, stream: &mut Walsender, out: &mut Outside) -> Result<(), Ended> {
        while self.takes_rows() {
            let Framed::Complete { frame, len } = frame(stream.bytes()).unwrap() else {
                return if stream.closed { Err(Ended::By(Remedy::Reconnect)) } else { Ok(()) };
            };
            if frame.tag != b'd' {
                if matches!(Beside::parse(frame.tag, frame.body), Beside::RowsSkipped(_)) {
                    return Err(Ended::RowsSkipped);
                }
                stream.consume(len);
                continue;
            }
            let mut sink = Sending {
                outside: out,
                client: self.client.unwrap(),
                routes: &mut self.routes,
                asked: &mut self.asked,
                compresses: self.compresses,
            };
            match self.pipe.take(frame.body, &mut sink).expect("the stream is as it must be") {
                Step::Taken | Step::Updated(_) | Step::Loose(_) | Step::Replaced(_) => {}
                Step::ReplyWanted => self.feedback.want_answer(),
                Step::Full => return Ok(()),
                Step::Stuck(_) => {
                    self.stuck = true;
                    return Ok(());
                }
            }
            stream.consume(len);
            self.stuck = false;
        }
        // What the socket says is not looked at meanwhile, but a connection that broke shows.
        if stream.closed { Err(Ended::By(Remedy::Reconnect)) } else { Ok(()) }
    }

    fn remember(&mut self, out: &mut Outside) {
        let reached = self.reached();
        let hurry = self.draining.is_some() && self.pipe.frontier().is_idle();
        let Some(journal) = &self.journal else { return };
        if let Some(record) = journal.due(out.now, reached, hurry)
            && out.broker.failure(self.client.unwrap()).is_none()
        {
            let source = journal.source().clone();
            self.send_position(out, &source, &record);
            self.journal.as_mut().unwrap().sent(out.now, reached);
        }
    }

    fn reached(&self) -> Reached {
        if self.draining.is_some() { self.pipe.reached() } else { self.pipe.frontier().reached() }
    }

    fn has_settled(&self) -> bool {
        self.draining.is_some_and(|turns| {
            let settled = self.pipe.frontier().is_idle() && !self.takes_rows();
            let reached = self.reached();
            let written = self.journal.as_ref().is_none_or(|it| it.has_written(reached));
            settled && written || turns == 0
        })
    }

    fn flush(&self) -> Flush {
        self.journal.as_ref().map_or(self.pipe.frontier().confirmed(), Journal::flush)
    }

    fn report(&mut self, out: &mut Outside) {
        let flush = self.flush();
        if self.feedback.due(out.now, flush) {
            self.tell(out, flush);
            self.feedback.sent(out.now, flush);
        }
    }

    /// A status goes to the server, as the bytes that it is.
    fn tell(&self, out: &mut Outside, flush: Flush) {
        let written = self.pipe.received().max(flush.lsn());
        let frame = status(written, flush, 0, false);
        let told = u64::from_be_bytes(frame[14..22].try_into().unwrap());
        if let Some(stream) = self.stream.as_ref().filter(|stream| !stream.closed) {
            out.oracle.check(&out.server, told);
            out.server.told(stream.pid, told);
        }
    }

    /// `Producer::refresh_topics`: answers to what was asked come some time.
    fn refresh_topics(&mut self, out: &mut Outside) {
        if self.asked && out.random.below(3) == 0 {
            let partitions = u32::try_from(out.broker.partitions()).unwrap();
            let batch_bytes_max = (!out.broker.takes_large).then_some(LARGE);
            let answer = Ok(Description { partitions, batch_bytes_max, ahead_max_ms: None });
            self.routes.answered(TOPIC.to_owned(), answer);
        }
        self.routes.close_silent(out.now);
    }
}
