//! The loop: one replication stream, from the socket to the producer and back to the status.
//!
//! Everything here is order of work; what must be right is decided in [`pipe`](crate::pipe),
//! [`frontier`](crate::frontier) and [`feedback`](crate::feedback).

use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;

use crate::config::OnPoison;
use crate::error::Error;
use crate::feedback::{Feedback, status};
use crate::frontier::{Flush, Reached};
use crate::health::{Health, Phase};
use crate::kafka::acks::Run;
use crate::kafka::positions::Positions;
use crate::kafka::producer::Producer;
use crate::metrics::{Metrics, postgres_clock_us};
use crate::pg::response::Beside;
use crate::pg::wire::{Wire, gather};
use crate::pipe::{Pipe, Step, Stuck};
use crate::record::Poison;
use crate::registry::{Registry, answered};
use crate::sensor::News;
use crate::shutdown::Shutdown;
use crate::stall::Stall;
use crate::updates::Updates;

/// The stream counts as dead when nothing came for so long although replies were asked for. The
/// server answers between two messages, and while it decodes without sending anything at least
/// every half `wal_sender_timeout` (15 s); this is four times that.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How often a row that halts the relay is tried again.
const STUCK_RETRY: Duration = Duration::from_secs(10);

/// How long acks may take once Postgres shuts down. It would wait for them for ever, so that an
/// outage of Kafka would keep the database from being stopped; nothing is lost by leaving.
const LEAVE_GRACE: Duration = Duration::from_secs(3);

/// How long the transaction under way may take to come to its end, once the end was asked for.
const FINISH_MAX: Duration = Duration::from_secs(1);

/// How soon a status or a position record that could not be handed over is tried again.
const WRITE_RETRY: Duration = Duration::from_millis(100);

/// How often it is looked at whether everything has settled.
const DRAIN_PERIOD: Duration = Duration::from_millis(50);

/// The message that ends our side of the copy.
const COPY_DONE: [u8; 5] = *b"c\0\0\0\x04";

/// How long the server may take to answer the last status.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// One session.
pub struct Relay<'a> {
    /// The stream.
    pub wire: Wire,
    /// Rows to records, acks to positions. Outlives the session.
    pub pipe: &'a mut Pipe,
    /// Outlives the session as well.
    pub producer: &'a mut Producer,
    /// Who asks for schemas, if there are any.
    pub registry: Option<&'a Registry>,
    /// What is remembered in Kafka; without it, the slot is all there is.
    pub positions: Option<&'a mut Positions>,
    /// When statuses are due.
    pub feedback: Feedback,
    /// For the operator.
    pub health: &'a Health,
    /// For the operator's machines.
    pub metrics: &'a Metrics,
    /// What the sensor has noticed beside the stream.
    pub news: Receiver<News>,
    /// The request to end.
    pub shutdown: &'a mut Shutdown,
    /// How long records in flight may take to settle once it has come.
    pub shutdown_grace: Duration,
    /// [`SILENCE_MAX`].
    pub silence_max: Duration,
}

/// What the loop remembers from turn to turn.
#[derive(Debug)]
struct Turn {
    runs: Vec<Run>,
    /// When something last came from the server, or could not have.
    heard: Instant,
    /// Nothing came since the last status.
    quiet: bool,
    /// A row waits for room.
    blocked: bool,
    /// A row cannot be sent, and is tried again at that time.
    halted: Option<(Stuck, Instant)>,
    /// How far everything was in Kafka, and since when it has been so with records in flight.
    reached: Reached,
    waiting_since: Option<Instant>,
    /// Since when the end has been asked for.
    draining: Option<Instant>,
    /// When to leave a server that shuts down, whatever is not confirmed.
    leave_at: Option<Instant>,
    /// Why nothing comes although there is something to come.
    stall: Stall,
    stalled: Option<String>,
    updates: Updates,
    /// The same of messages outside of transactions.
    loose: Updates,
}

impl Relay<'_> {
    /// Streams until the end is asked for and what was sent has settled.
    pub async fn run(mut self) -> Result<(), Error> {
        let now = Instant::now();
        let mut turn = Turn {
            runs: Vec::new(),
            heard: now,
            quiet: true,
            blocked: false,
            halted: None,
            reached: self.pipe.frontier().reached(),
            waiting_since: None,
            draining: None,
            leave_at: None,
            stall: Stall::default(),
            stalled: None,
            updates: Updates::default(),
            loose: Updates::default(),
        };
        loop {
            // 1. What brokers say: of topics, and acks, which make room for rows and are news for
            // the status.
            self.producer.refresh_topics();
            if let Some(registry) = self.registry {
                registry.tell(self.pipe.encoder_mut());
            }
            self.fetch_acks(&mut turn)?;
            // 2. Rows, as long as there is room.
            self.take_frames(&mut turn)?;
            if let Some(registry) = self.registry {
                registry.ask(self.pipe.encoder_mut());
            }
            // 3. The position, and a status if one is due, whatever became of the rows.
            let now = Instant::now();
            self.remember(now, &turn);
            self.report(now, &mut turn);
            // 4. What happened, for the operator: once a turn and not for each row.
            self.publish(now, &mut turn);
            // 5. Nothing left to do but wait.
            if self.has_settled(&turn) {
                return self.take_leave().await;
            }
            if turn.leave_at.is_some_and(|at| now >= at) {
                return Err(Error::ShuttingDown);
            }
            self.wait(now, &mut turn).await?;
        }
    }

    /// Whether rows are to be taken: once it is written where this start begins, until the end is
    /// asked for, and then to the end of the transaction of which rows have been sent, since
    /// nothing of it can be confirmed before. A long one is not waited for.
    fn takes_rows(&self, turn: &Turn) -> bool {
        let begun = self.positions.as_ref().is_none_or(|it| it.journal.has_begun());
        begun
            && turn.draining.is_none_or(|since| {
                let patience = FINISH_MAX.min(self.shutdown_grace);
                self.pipe.frontier().open().is_some() && since.elapsed() < patience
            })
    }

    fn has_settled(&self, turn: &Turn) -> bool {
        turn.draining.is_some_and(|since| {
            let settled = self.pipe.frontier().is_idle() && !self.takes_rows(turn);
            let reached = self.reached(turn);
            let written = self.positions.as_ref().is_none_or(|it| it.journal.has_written(reached));
            settled && written || since.elapsed() >= self.shutdown_grace
        })
    }

    /// What may be told to Postgres: what is in Kafka, and remembered there.
    fn flush(&self) -> Flush {
        self.positions.as_ref().map_or(self.pipe.frontier().confirmed(), |it| it.journal.flush())
    }

    fn remember(&mut self, now: Instant, turn: &Turn) {
        let reached = self.reached(turn);
        if let Some(positions) = &mut self.positions {
            // At the end nobody waits for the interval.
            let hurry = turn.draining.is_some() && self.pipe.frontier().is_idle();
            positions.write(self.producer, now, reached, hurry);
        }
    }

    /// How far everything is in Kafka; at the end to the very row, for nothing comes behind it.
    fn reached(&self, turn: &Turn) -> Reached {
        if turn.draining.is_some() { self.pipe.reached() } else { self.pipe.frontier().reached() }
    }

    async fn wait(&mut self, now: Instant, turn: &mut Turn) -> Result<(), Error> {
        let draining = turn.draining.is_some();
        let read = !turn.blocked && self.takes_rows(turn);
        if !read {
            turn.heard = now;
        } else if now.saturating_duration_since(turn.heard) > self.silence_max {
            return Err(Error::Silent(self.silence_max));
        }
        let mut next = self.feedback.next(now);
        if !self.wire.is_writable() {
            // The status that is due waits for the one before it; the socket will wake us.
            next = next.max(now + WRITE_RETRY);
        }
        if draining {
            next = next.min(now + DRAIN_PERIOD);
        }
        next = turn.leave_at.map_or(next, |at| next.min(at));
        let reached = self.reached(turn);
        if let Some(write) = self.positions.as_ref().and_then(|it| it.journal.next(now, reached)) {
            next = next.min(write.max(now + WRITE_RETRY));
        }
        if let Some(gathered) = self.wire.gathers_until().filter(|_| read) {
            next = next.min(gathered);
        }
        if let Some(pause) = self.wire.pause(now).filter(|_| read) {
            gather(pause).await;
        }
        tokio::select! {
            biased;
            // 1. The end first: nothing else may keep it waiting.
            () = self.shutdown.requested(), if !draining => {
                turn.draining = Some(Instant::now());
                self.health.enter(Phase::Draining, None);
            }
            // 2. What would otherwise never be noticed.
            Some(news) = self.news.recv() => self.take_in(news, turn)?,
            // 3. The socket: writes what is queued; reads if rows can be taken.
            came = self.wire.turn(read) => {
                if !matches!(came, Ok(1..)) {
                    // The reason may be among what has gathered.
                    self.wire.gathered();
                    self.take_frames(turn)?;
                    came?;
                    return Err(Error::Closed);
                }
                turn.heard = Instant::now();
                turn.quiet = false;
            }
            // 4. Acks: they are fetched with every turn, so that none waits for a stream that
            // never pauses.
            () = self.producer.acks().arrived() => {}
            // 5. Schemas.
            () = answered(self.registry) => {}
            // 6. The next status.
            () = tokio::time::sleep_until(next.into()) => {}
        }
        Ok(())
    }

    fn take_in(&mut self, news: News, turn: &mut Turn) -> Result<(), Error> {
        match news {
            News::ShuttingDown => turn.leave_at = Some(Instant::now() + LEAVE_GRACE),
            News::Unfit(error) => return Err(Error::Setup(error)),
            News::Fit { tables, server, wait_event } => {
                if self.pipe.know(&tables)
                    && let Some((_, again)) = &mut turn.halted
                {
                    *again = Instant::now();
                }
                let received = self.pipe.received();
                let stalled = turn.stall.look(received, server, wait_event.as_deref());
                // What is not read cannot get on.
                turn.stalled = stalled.filter(|_| !turn.blocked && self.takes_rows(turn));
            }
        }
        Ok(())
    }

    fn fetch_acks(&mut self, turn: &mut Turn) -> Result<(), Error> {
        let fetched = self.producer.acks().fetch(&mut turn.runs);
        if !turn.runs.is_empty() {
            let clock_us = postgres_clock_us();
            for run in &turn.runs {
                let committed_us = self.pipe.acked(run.ticket, run.records, run.bytes);
                let age_us = u64::try_from(clock_us.saturating_sub(committed_us)).unwrap_or(0);
                let age = Duration::from_micros(age_us);
                self.metrics.commit_to_ack.observe(age.as_secs_f64());
            }
        }
        if fetched.map_err(Error::Delivery)?
            && let Some(positions) = &mut self.positions
        {
            positions.journal.acked();
        }
        Ok(())
    }

    fn take_frames(&mut self, turn: &mut Turn) -> Result<(), Error> {
        turn.blocked = false;
        if let Some((_, again)) = &turn.halted {
            if Instant::now() < *again {
                turn.blocked = true;
                return Ok(());
            }
            self.pipe.pardon();
        }
        if self.wire.gathers_until().is_some_and(|until| Instant::now() < until) {
            // `wait` wakes up for them.
            return Ok(());
        }
        while self.takes_rows(turn)
            && let Some((frame, len)) = self.wire.peek()?
        {
            let step = match frame.tag {
                b'd' => self.pipe.take(frame.body, self.producer)?,
                tag => {
                    if let Some(notice) = Error::beside(Beside::parse(tag, frame.body))? {
                        tracing::warn!("Postgres: {notice}");
                    }
                    Step::Taken
                }
            };
            match step {
                Step::Taken => {}
                Step::ReplyWanted => self.feedback.want_answer(),
                Step::Replaced(instead) => {
                    tracing::warn!("{instead}");
                    self.metrics.poisoned(instead.policy());
                }
                Step::Updated(relation) => self.warn_of_update(turn, relation),
                Step::Loose(rule) => self.warn_of_loose(turn, rule),
                Step::Full => {
                    self.metrics.queue_full();
                    turn.blocked = true;
                    return Ok(());
                }
                Step::Stuck(stuck) => {
                    let Some(poison) = self.skipped(&stuck) else {
                        self.halt(turn, stuck);
                        return Ok(());
                    };
                    tracing::warn!("skipped: {poison}");
                    self.metrics.poisoned("skip");
                    self.pipe.skip_row();
                }
            }
            self.wire.consume(len);
            turn.halted = None;
        }
        Ok(())
    }

    /// The row, if its outbox has it that such rows are left out.
    fn skipped<'a>(&self, stuck: &'a Stuck) -> Option<&'a Poison> {
        let Stuck::Poison(poison) = stuck else { return None };
        let skips = self.pipe.outboxes().on_poison(&poison.origin) == OnPoison::Skip;
        skips.then_some(poison)
    }

    /// Says that rows were updated, but not of each.
    fn warn_of_update(&self, turn: &mut Turn, relation: u32) {
        if let Some(updates) = turn.updates.note(Instant::now())
            && let Some((_, table)) = self.pipe.outboxes().on_update(relation)
        {
            tracing::warn!(updates, "rows of {table} are updated: no event is sent for that");
        }
    }

    /// The same of messages that nothing tells the place of.
    fn warn_of_loose(&self, turn: &mut Turn, rule: usize) {
        if let Some(messages) = turn.loose.note(Instant::now())
            && let Some(origin) = self.pipe.outboxes().origin(rule)
        {
            tracing::warn!(
                messages,
                "messages of {origin} came outside of transactions and are not sent: they are \
                 there even if what emits them rolls back, and have no place among its events; \
                 emit them with pg_logical_emit_message(true, ...)"
            );
        }
    }

    /// The row stays where it is, and everything behind it in Postgres. The stream goes on: what
    /// was sent before it is still to be acked and confirmed.
    fn halt(&self, turn: &mut Turn, stuck: Stuck) {
        if turn.halted.as_ref().is_none_or(|(before, _)| *before != stuck) {
            tracing::error!("halted: {stuck}");
            self.metrics.poisoned("halt");
        }
        turn.halted = Some((stuck, Instant::now() + STUCK_RETRY));
        turn.blocked = true;
    }

    fn report(&mut self, now: Instant, turn: &mut Turn) {
        let flush = self.flush();
        // A status that has not gone out yet is not joined by a second one: what waits is bounded.
        if self.wire.is_writable() && self.feedback.due(now, flush) {
            // In a quiet stream, a reply tells that the server lives and how far it has read.
            self.queue_status(flush, turn.quiet);
            self.feedback.sent(now, flush);
            turn.quiet = true;
        }
    }

    fn queue_status(&mut self, flush: Flush, reply: bool) {
        let written = self.pipe.received().max(flush.lsn());
        self.wire.queue(&status(written, flush, postgres_clock_us(), reply));
    }

    fn publish(&mut self, now: Instant, turn: &mut Turn) {
        self.metrics.passed(self.pipe.passed(), self.producer.take_sent());
        self.metrics.read(self.wire.take_reads());
        let flush = self.flush();
        let frontier = self.pipe.frontier();
        // Acks alone are no progress: one partition may hang while the others get on.
        if frontier.is_idle() || frontier.reached() != turn.reached {
            turn.reached = frontier.reached();
            turn.waiting_since = None;
        }
        if !frontier.is_idle() {
            turn.waiting_since.get_or_insert(now);
        }
        let acks = self.producer.acks();
        let connected = acks.is_connected();
        let reason = match &turn.halted {
            Some((stuck, _)) => Some(stuck.to_string()),
            None if !connected => acks.trouble(),
            None if turn.blocked => {
                let topic = self.producer.topic_trouble();
                topic.or(self.pipe.encoder().trouble()).map(str::to_owned)
            }
            // Rows that wait for acks are not missing.
            None if frontier.is_idle() => turn.stalled.clone(),
            None => None,
        };
        let phase = match (turn.draining, &turn.halted) {
            (Some(_), _) => Phase::Draining,
            (None, Some(_)) => Phase::Halted,
            (None, None) => Phase::Streaming,
        };
        let unwritten_since = self.positions.as_ref().and_then(|it| it.journal.waiting_since());
        let mut news = None;
        self.health.update(now, |state| {
            state.phase = phase;
            state.kafka_connected = connected;
            state.waiting_since = turn.waiting_since;
            state.unwritten_since = unwritten_since;
            state.confirmed = flush.lsn();
            state.received = self.pipe.received();
            state.records = frontier.records();
            state.bytes = frontier.bytes();
            if state.reason != reason {
                state.reason.clone_from(&reason);
                news = Some(reason);
            }
        });
        match news {
            Some(Some(reason)) if turn.halted.is_none() => tracing::warn!("held up: {reason}"),
            Some(None) => tracing::info!("going on"),
            _ => {}
        }
    }

    /// The last status, and the end of the copy behind it: the server's own `CopyDone` says that
    /// it has taken in both. An answer to the status alone could be one to the status before.
    ///
    /// Rows that still come are left in Postgres. The end of a long transaction is not waited
    /// for: the socket is closed, which ends the stream at once.
    async fn take_leave(mut self) -> Result<(), Error> {
        let (left, flush) = (self.pipe.frontier().records(), self.flush());
        if left > 0 {
            tracing::warn!("{left} records were not acked in time; they will be sent again");
        }
        self.queue_status(flush, false);
        self.wire.queue(&COPY_DONE);
        match tokio::time::timeout(FAREWELL_MAX, self.farewell()).await {
            Ok(Ok(())) => tracing::info!(lsn = %flush.lsn(), "ended"),
            Ok(Err(error)) => tracing::warn!("the last status may not have arrived: {error}"),
            Err(_) => tracing::warn!("Postgres did not answer the last status in time"),
        }
        Ok(())
    }

    async fn farewell(&mut self) -> Result<(), Error> {
        loop {
            while let Some((frame, len)) = self.wire.peek()? {
                let tag = frame.tag;
                self.wire.consume(len);
                if tag == b'c' {
                    return Ok(());
                }
            }
            if self.wire.turn(true).await? == 0 {
                return Err(Error::Closed);
            }
        }
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
