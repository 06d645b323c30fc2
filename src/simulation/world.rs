//! What each step of a schedule does, and how a schedule ends.

use std::time::{Duration, Instant};

use super::broker::Broker;
use super::oracle::{Oracle, is_refused, remembered};
use super::process::{Ended, Kind, Outside, Process};
use super::schedule::{ROUNDS_MAX, STEPS, Schedule, Step};
use super::server::{Server, State, Walsender};
use crate::lsn::Lsn;
use crate::position::Gap;
use crate::testing::Random;

pub struct World {
    out: Outside,
    processes: Vec<Process>,
    schedule: Schedule,
    backup: Option<State>,
    /// Somebody has done to the slot or the server what only somebody can answer for.
    tampered: bool,
    /// A backup was restored that ends here, and nothing may be written until it has been looked
    /// at: once it has grown, nothing tells it from the server that was read.
    restored: Option<u64>,
    kind: Kind,
    /// Processes so far.
    begun: u64,
}

impl World {
    pub fn new(mut random: Random, traces: bool) -> World {
        let broker = Broker::new(1 + random.index(2));
        let schedule = Schedule::new(&mut random);
        let kind = Kind { compresses: random.below(2) == 0, pointers: random.below(2) == 0 };
        let (server, oracle, now) = (Server::new(), Oracle::default(), Instant::now());
        let out =
            Outside { random, now, server, broker, oracle, last: None, marked: false, traces };
        World {
            out,
            processes: vec![Process::new(0, kind, false)],
            schedule,
            backup: None,
            tampered: false,
            restored: None,
            kind,
            begun: 0,
        }
    }

    /// The schedule, and its end.
    pub fn run(&mut self) {
        for _ in 0..STEPS {
            let step = self.schedule.next(&mut self.out.random);
            self.trace(step);
            self.take(step);
            self.check();
        }
        self.recover();
    }

    fn trace(&self, step: Step) {
        if self.out.traces {
            let state = &self.out.server.state;
            let streams = self.processes.iter().map(|it| it.pipe.reached()).collect::<Vec<_>>();
            eprintln!(
                "{step:?}: log {} on {}, slot {:?}, remembered {:?}, reached {streams:?}",
                state.written,
                state.timeline,
                state.slot,
                remembered(&self.out.broker).map(|it| (it.context.epoch, it.end, it.inside)),
            );
        }
    }

    fn check(&mut self) {
        if let Some(slot) = self.out.server.state.slot {
            self.out.oracle.check(&self.out.server, slot);
        }
    }

    fn take(&mut self, step: Step) {
        let grows = self.may_grow();
        let out = &mut self.out;
        match step {
            Step::Commit if grows => self.commit(),
            Step::OtherLog if grows => out.server.other_log(&mut out.random),
            Step::Write => {
                for _ in 0..=out.random.below(4) {
                    self.write();
                }
            }
            Step::Carry => {
                let bytes = out.random.index(400);
                self.streams().for_each(|stream| stream.carry(bytes));
            }
            Step::Turn if self.processes.is_empty() => self.begin(false),
            Step::Turn => {
                let chosen = out.random.index(self.processes.len());
                self.turn(chosen);
            }
            Step::Arrive => self.arrive(false),
            Step::Refuse => self.arrive(true),
            Step::Report => self.report(false),
            Step::Status => out.server.take_status(),
            Step::Time => out.now += Duration::from_millis(out.random.below(800)),
            Step::SaveSlot => out.server.save_slot(),
            Step::Unreachable => {
                let partition = out.random.index(out.broker.partitions() + 1);
                let reachable = out.random.below(2) == 0;
                out.broker.reach(partition, reachable);
            }
            Step::Grow if out.broker.partitions() < 4 => out.broker.grow(),
            Step::Commit | Step::OtherLog | Step::Grow => {}
            Step::RefuseLarge => out.broker.takes_large ^= true,
            Step::Silence => self.silence(),
            _ => self.fail(step),
        }
    }

    fn fail(&mut self, step: Step) {
        let forgets = self.may_forget();
        let seen = self.processes.iter().any(|it| it.saw_behind);
        let out = &mut self.out;
        match step {
            Step::BreakConnection => {
                self.streams().for_each(|stream| stream.closed = true);
                if self.out.random.below(2) == 0 {
                    let out = &mut self.out;
                    out.server.let_go(&mut out.random);
                }
            }
            Step::LetGo => {
                let held = self.processes.iter().filter_map(|it| it.stream.as_ref());
                let held = held.filter(|it| !it.closed).any(|it| Some(it.pid) == out.server.reader);
                if !held {
                    out.server.let_go(&mut out.random);
                }
            }
            Step::CrashServer => {
                out.server.crash();
                self.streams().for_each(|stream| stream.closed = true);
            }
            // A first record that comes as late as that would be taken for a later start's.
            Step::Promote if forgets && !out.broker.begins() => {
                out.server.promote(&mut out.random);
                out.oracle.rewritten(&out.server);
                self.backup = None;
                self.streams().for_each(|stream| stream.closed = true);
            }
            Step::BackUp => self.backup = Some(out.server.state.clone()),
            Step::Restore => self.restore(),
            // Dropped, and made again.
            Step::DropPublication => out.server.state.unpublished ^= true,
            Step::AdvanceSlot | Step::RecreateSlot => self.tamper(step == Step::RecreateSlot),
            Step::Kill if forgets => {
                if let Some(process) = self.processes.pop() {
                    self.end(&process, true);
                }
            }
            Step::Terminate if forgets || !seen => {
                if let Some(process) = self.processes.first_mut() {
                    process.draining.get_or_insert(25);
                }
            }
            Step::SecondRelay if self.processes.len() == 1 && (forgets || !seen) => {
                self.begin(false);
            }
            _ => {}
        }
    }

    fn streams(&mut self) -> impl Iterator<Item = &mut Walsender> {
        self.processes.iter_mut().filter_map(|it| it.stream.as_mut())
    }

    fn commit(&mut self) {
        let out = &mut self.out;
        out.server.commit(&mut out.random);
        out.oracle.committed(&out.server);
    }

    fn write(&mut self) {
        let out = &mut self.out;
        for stream in self.processes.iter_mut().filter_map(|it| it.stream.as_mut()) {
            if !stream.closed {
                stream.write_next(&out.server, &mut out.random);
            }
        }
    }

    fn arrive(&mut self, refuse: bool) {
        let out = &mut self.out;
        if let Some((client, partition)) = out.broker.choose(&mut out.random) {
            out.arrive(client, partition, refuse);
        }
    }

    fn report(&mut self, all: bool) {
        let out = &mut self.out;
        for process in &mut self.processes {
            if let Some(client) = process.client {
                process.hear(out.broker.reports(client, &mut out.random, all));
            }
        }
    }

    /// A day passes in which nothing is sent; the brokers forget producers.
    fn silence(&mut self) {
        let out = &mut self.out;
        let busy = self.processes.iter().any(|it| !it.pipe.frontier().is_idle());
        if busy || out.broker.under_way().next().is_some() {
            return;
        }
        for _ in 0..3 {
            self.out.now += Duration::from_secs(601);
            for process in 0..self.processes.len() {
                self.turn(process);
                if self.out.broker.under_way().next().is_some() {
                    return;
                }
            }
        }
        self.out.broker.forget();
    }

    fn begin(&mut self, accept_gap: bool) {
        self.begun += 1;
        self.processes.push(Process::new(self.begun, self.kind, accept_gap));
    }

    /// A process is no more. `forgets` says whether it had not written how far it got.
    fn end(&mut self, process: &Process, forgets: bool) {
        let out = &mut self.out;
        out.last.take_if(|last| *last == process.id);
        if forgets {
            out.oracle.forgot(&out.broker);
        }
        if let Some(client) = process.client {
            out.broker.drop_client(client, &mut out.random);
        }
    }

    /// The process does what there is to do.
    fn turn(&mut self, chosen: usize) {
        let Some(mut process) =
            (chosen < self.processes.len()).then(|| self.processes.remove(chosen))
        else {
            return;
        };
        let ended = if process.stream.is_some() {
            process.turn(&mut self.out)
        } else if process.draining.is_some() {
            Ok(process.finish(&mut self.out))
        } else {
            process.halted = None;
            process.open(&mut self.out).map(|()| false)
        };
        match ended {
            Ok(true) => {
                let cut_off = process.is_cut_off();
                self.end(&process, cut_off);
                return;
            }
            Ok(false) => {}
            Err(ended) => {
                if let Ended::Gap(gap) = &ended {
                    // Of two relays one may have begun on a timeline that is gone by now, knowing
                    // less than the other one has confirmed: it halts rather than guess.
                    let two = self.out.oracle.shared && matches!(gap, Gap::SlotBeyondSwitch { .. });
                    assert!(self.tampered || two, "a gap where there is none: {gap}");
                }
                process.ended(ended, &mut self.out);
            }
        }
        self.processes.insert(chosen, process);
    }

    fn restore(&mut self) {
        let Some(backup) = self.backup.take().filter(|_| self.restored.is_none()) else { return };
        let written = backup.written;
        // What was delivered since, and is written nowhere, would be known to nobody.
        if self.out.oracle.reaches_beyond(written, &self.out.broker) && !self.is_behind(written) {
            return;
        }
        // Nor is there anything left of relays that are gone: to restore a backup takes long.
        self.out.broker.lose_late_positions();
        self.out.server.restore(backup);
        self.out.oracle.rewritten(&self.out.server);
        self.streams().for_each(Walsender::cut);
        (self.restored, self.tampered) = (Some(written), true);
    }

    /// Whether the topic tells that a server at `written` is behind.
    fn is_behind(&self, written: u64) -> bool {
        remembered(&self.out.broker).is_some_and(|it| {
            let written = Lsn::from_wire(written);
            it.end > written || it.inside.is_some_and(|row| row.commit >= written)
        })
    }

    /// Whether the server may go on: a restored one only once it has been looked at.
    fn may_grow(&self) -> bool {
        let all_saw = !self.processes.is_empty() && self.processes.iter().all(|it| it.saw_behind);
        all_saw || self.may_forget()
    }

    /// Whether a relay may go: once a restored server is refused, not only seen.
    fn may_forget(&self) -> bool {
        let Some(written) = self.restored else { return true };
        let refused = |it: &Process| matches!(it.halted, Some(Ended::Gap(_)));
        let received = |it: &&Process| it.pipe.received().to_wire() > written;
        let looked = if self.is_behind(written) { is_refused(&self.out.broker) } else { true };
        looked && self.processes.iter().filter(received).all(refused)
    }

    /// Somebody moves the slot, or makes it anew, while nobody reads it.
    fn tamper(&mut self, recreate: bool) {
        let out = &mut self.out;
        let (Some(slot), None) = (out.server.state.slot, out.server.reader) else { return };
        if out.broker.positions.is_empty() {
            // Before anything is remembered, the slot is all there is.
            return;
        }
        let ahead = out.server.state.written - slot;
        let moved = slot + out.random.below(ahead + 1);
        match recreate {
            true if out.random.below(2) == 0 => out.server.state.slot = None,
            true => drop(out.server.create_slot()),
            false => out.server.state.slot = Some(moved),
        }
        out.oracle.slot_moved(&out.server);
        self.tampered = true;
    }

    /// No more faults: everything must come to its end.
    fn recover(&mut self) {
        self.out.server.quiet = self.out.random.below(2) == 0;
        self.out.server.state.unpublished = false;
        self.out.broker.takes_large = true;
        self.out.broker.reach_all();
        for _ in 0..ROUNDS_MAX {
            self.round();
            let busy = self.out.broker.under_way().next().is_some();
            if !busy && self.out.oracle.is_done(&self.out.server) {
                return;
            }
        }
        let (state, left) = (&self.out.server.state, &self.out.oracle);
        panic!("not done: log at {}, slot at {:?}, {left:?}", state.written, state.slot);
    }

    fn round(&mut self) {
        if self.out.traces {
            self.trace(Step::Turn);
        }
        self.fail(Step::LetGo);
        self.accept_gaps();
        if self.processes.is_empty() {
            self.begin(false);
        }
        for process in (0..self.processes.len()).rev() {
            self.turn(process);
        }
        for _ in 0..20 {
            self.write();
        }
        self.streams().for_each(|stream| stream.carry(usize::MAX));
        for _ in 0..10 {
            self.arrive(false);
        }
        self.report(true);
        for _ in 0..3 {
            self.out.server.take_status();
        }
        self.out.now += Duration::from_millis(700);
        self.check();
    }

    /// Whoever is asked compares, and starts one relay that goes on.
    fn accept_gaps(&mut self) {
        let refused = self
            .processes
            .iter()
            .any(|it| matches!(it.halted, Some(Ended::Gap(_) | Ended::SlotGone)));
        let skipped = self.processes.iter().any(|it| matches!(it.halted, Some(Ended::RowsSkipped)));
        if !refused && !skipped {
            return;
        }
        let behind = |it: &Process| matches!(it.halted, Some(Ended::Gap(Gap::ServerBehind { .. })));
        if self.processes.iter().any(behind) && self.restored.is_some() {
            // Not before it is remembered.
            if !is_refused(&self.out.broker) {
                return;
            }
        }
        while let Some(process) = self.processes.pop() {
            self.end(&process, true);
        }
        // What they had under way arrives, or does not, before somebody looks.
        while self.out.broker.under_way().next().is_some() {
            self.arrive(false);
        }
        if skipped && self.out.server.state.slot.is_some() {
            // The slot would always come to them again.
            self.out.server.hang_up();
            self.out.server.state.slot = Some(self.out.server.state.written);
            self.out.oracle.slot_moved(&self.out.server);
        }
        self.begin(true);
        (self.tampered, self.restored) = (false, None);
    }
}
