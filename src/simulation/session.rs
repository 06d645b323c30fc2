//! How a session of the relay begins, and what follows from its end.

use super::broker::{Content, POSITIONS};
use super::process::{Ended, INTERVAL, Outside, Process};
use crate::feedback::Feedback;
use crate::kafka::routes::Routes;
use crate::lsn::Lsn;
use crate::past::{Begun, Refusal};
use crate::pg::before::{Changed, System};
use crate::pipe::Flaw;
use crate::position::{Found, PositionRecord, Source, switched};
use crate::remedy::Remedy;

/// The one stream of a schedule.
pub fn source() -> Source {
    Source { system: "7".into(), database: 5, slot: "s".into() }
}

impl Process {
    /// `Supervisor::open`, and what of `session::open` decides.
    pub fn open(&mut self, out: &mut Outside) -> Result<(), Ended> {
        if let Some(of_record) = self.client.and_then(|client| out.broker.failure(client)) {
            return Err(if of_record { Ended::OfRecord } else { Ended::By(Remedy::Restart) });
        }
        if self.client.is_none() {
            self.client = Some(out.broker.connect());
            self.routes = Routes::after(self.routes.counts());
            (self.asked, self.inbox) = (false, Vec::new());
        }
        let before = &mut self.past.before;
        before.reached = self.pipe.frontier().confirmed().lsn();
        before.received = self.pipe.received();
        before.remembers = true;
        let system = System { identifier: "7".into(), timeline: out.server.state.timeline };
        let server = Lsn::from_wire(out.server.state.written);
        let pid = out.server.process();
        if let Err(changed) = before.check(&system, server) {
            self.saw_behind |= matches!(changed, Changed::WentBack { .. });
            return Err(Ended::By(changed.remedy()));
        }
        if let Some(reader) = out.server.reader {
            if before.backend_pid != Some(reader) {
                return Err(Ended::By(Remedy::StandBy));
            }
            out.server.let_go(&mut out.random);
            return Err(Ended::By(Remedy::Reconnect));
        }
        let slot = match out.server.state.slot {
            Some(slot) => slot,
            None if out.marked && !self.accept_gap => return Err(Ended::SlotGone),
            None => {
                // What was committed before there was a slot is nobody's.
                let created = out.server.create_slot();
                out.oracle.gap_accepted(&out.server);
                created
            }
        };
        out.marked = true;
        let slot = Lsn::from_wire(slot);
        before.check_slot("s", slot).map_err(|it| Ended::By(it.remedy()))?;
        if before.system.is_none() {
            self.find_start(out, slot, server)?;
        }
        // Of two relays, one sends what it has read already while the other one begins.
        out.oracle.shared |= out.last.is_some_and(|last| last != self.id);
        out.last = Some(self.id);
        self.past.before.backend_pid = Some(pid);
        let from = self.pipe.frontier().confirmed().lsn().to_wire();
        let start = from.max(out.server.state.slot.unwrap());
        out.say(|| {
            format!(
                "producer {:?} goes with a stream from {from}, which the slot makes {start}",
                self.client
            )
        });
        out.oracle.check_start(&out.server, start, &out.broker, self.client.unwrap());
        self.stream = Some(out.server.start(pid, from));
        self.pipe.reconnect();
        self.past.before.system = Some(system);
        self.feedback = Feedback::new(INTERVAL);
        (self.stuck, self.left, self.saw_behind) = (false, false, false);
        Ok(())
    }

    /// `Supervisor::find_start`.
    fn find_start(&mut self, out: &mut Outside, slot: Lsn, server: Lsn) -> Result<(), Ended> {
        let source = source();
        if out.broker.positions.is_empty() {
            // Not simulated: the very first record comes behind a start that did not find it.
            // Between them, a promotion would have told their epochs apart only by chance.
            out.broker.lose_late_positions();
        }
        let mut remembered = out.broker.remembered.clone();
        let own = self.past.take_in(&source, &mut remembered).unwrap();
        let timeline = out.server.state.timeline;
        let switched = remembered.record.as_ref().and_then(|record| {
            let before = record.context.timeline;
            (before < timeline).then(|| switched(&out.server.history(), before)).flatten()
        });
        let found = Found { remembered, slot, server, timeline, switched, publication: "p" };
        let accept = self.accept_gap;
        if accept {
            out.oracle.gap_accepted(&out.server);
        }
        let begun = self.past.begin(&mut self.pipe, &source, found, own, accept, INTERVAL);
        match begun {
            Ok(Begun { journal, .. }) => {
                self.journal = Some(journal);
                self.accept_gap = false;
                Ok(())
            }
            Err(Refusal { gap, record }) => {
                if let Some(record) = record {
                    self.send_position(out, &source, &record);
                }
                Err(Ended::Gap(gap))
            }
        }
    }

    pub fn send_position(&self, out: &mut Outside, source: &Source, record: &PositionRecord) {
        let (key, value) = (source.key(), record.to_json(source));
        out.broker.send(self.client.unwrap(), POSITIONS, Content::Position { key, value });
    }

    /// What follows from the end of a session, as `Supervisor::run` has it.
    pub fn ended(&mut self, ended: Ended, out: &mut Outside) {
        out.say(|| format!("producer {:?}: {ended:?}", self.client));
        self.stream = None;
        let remedy = match ended {
            Ended::By(remedy) => remedy,
            Ended::OfRecord => {
                self.pipe.suspect(Flaw::Size, "too large");
                Remedy::Restart
            }
            Ended::Gap(_) | Ended::SlotGone | Ended::RowsSkipped => Remedy::Halt,
        };
        self.halted = (remedy == Remedy::Halt).then_some(ended);
        if self.past.is_left(remedy) {
            self.settle(out);
        }
        let anew = matches!(remedy, Remedy::BeginAgain { .. });
        self.left |= anew;
        let to_the_row = self.pipe.reached();
        let reached = if anew { to_the_row } else { self.pipe.frontier().reached() };
        let forgets = remedy == Remedy::StandBy;
        if self.past.ended(remedy, to_the_row, true) {
            if forgets {
                self.saw_behind = false;
                out.oracle.forgot(&out.broker);
            } else {
                out.oracle.may_repeat(reached.flush.lsn(), reached.inside, &out.broker);
            }
            if let Some(client) = self.client.take() {
                out.broker.drop_client(client, &mut out.random);
            }
            self.inbox.clear();
            self.pipe.restart();
            if let Some(journal) = &mut self.journal {
                journal.restart();
            }
        }
    }

    /// What is in flight is given a moment, in which it may arrive or not.
    fn settle(&mut self, out: &mut Outside) {
        let Some(client) = self.client else { return };
        for _ in 0..out.random.below(12) {
            for partition in 0..=out.broker.partitions() {
                out.arrive(client, partition, false);
            }
            let reports = out.broker.reports(client, &mut out.random, false);
            self.inbox.extend(reports);
            if self.take_reports(true).is_err() {
                return;
            }
        }
    }
}
