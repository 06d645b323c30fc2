//! How a row is handed over: as its record, or as what stands in for it.

use super::Pipe;
use super::refused::{Condemned, Flaw, Form, Refused, Sink};
use super::step::{Instead, Step, Stuck};
use crate::encode::{Encoder, Unencoded};
use crate::frontier::Frontier;
use crate::lsn::Position;
use crate::outbox::{Place, Whose};
use crate::pg::output::Tuple;
use crate::record::{Poison, Record};

/// How a row may be handed over.
#[derive(Clone, Copy, Debug)]
struct Terms {
    /// Whether it was before.
    again: bool,
    /// Among suspects, so many may be in flight together.
    together: Option<usize>,
}

impl Terms {
    /// Whether as many suspects are in flight as may be.
    fn crowded(self, frontier: &Frontier) -> bool {
        self.together.is_some_and(|together| frontier.records() >= together)
    }
}

impl Pipe {
    /// Hands the row over: as a record, or as what stands in for one that it cannot be.
    pub(super) fn offer(
        &mut self,
        whose: Whose<'_>,
        row: Tuple<'_>,
        place: Place,
        sink: &mut impl Sink,
    ) -> Step {
        let Place { position, .. } = place;
        let terms = self.terms(position);
        let condemned = self.condemned.get(&position);
        match self.outboxes.record(whose, row, place) {
            Ok(Ok(record)) => {
                let record = Record { again: terms.again, ..record };
                let handed_over = match condemned {
                    None => {
                        let Pipe { frontier, encoder, .. } = self;
                        encode_and_hand_over(frontier, encoder, terms, &record, place, sink)
                    }
                    Some(Condemned { flaw, reason, .. }) => {
                        Err(Refused::Unsendable(*flaw, reason.clone()))
                    }
                };
                match handed_over {
                    Ok(bytes) => self.handed_over(position, Form::Record, bytes, Step::Taken),
                    Err(Refused::Full) => Step::Full,
                    Err(Refused::Unsendable(flaw, reason)) => {
                        let large = record.payload.filter(|_| flaw == Flaw::Size);
                        let (poison, large) =
                            (record.poison(position, reason), large.map(<[u8]>::len));
                        self.offer_instead(whose, row, place, poison, large, sink)
                    }
                }
            }
            Ok(Err(poison)) => self.offer_instead(whose, row, place, poison, None, sink),
            Err(unmapped) => Step::Stuck(Stuck::Unmapped { unmapped, at: position.commit }),
        }
    }

    /// Hands over what there is in place of a record that cannot be sent: a pointer, if that is for
    /// its size alone, and `large` says how much of it is its value; or else a letter.
    fn offer_instead(
        &mut self,
        whose: Whose<'_>,
        row: Tuple<'_>,
        place: Place,
        poison: Poison,
        large: Option<usize>,
        sink: &mut impl Sink,
    ) -> Step {
        let position = place.position;
        let terms = self.terms(position);
        let refused = self.condemned.get(&position).map(|condemned| condemned.refused);
        if let Some(bytes) = large
            && refused < Some(Form::Pointer)
            && let Some(pointer) = self.outboxes.pointer(whose, row, place, bytes)
        {
            let pointer = Record { again: terms.again, ..pointer };
            match hand_over(&mut self.frontier, terms, &pointer, place, sink) {
                Ok(sent) => {
                    let topic = pointer.topic.to_owned();
                    let step = Step::Replaced(Box::new(Instead::Pointer { poison, topic, bytes }));
                    return self.handed_over(position, Form::Pointer, sent, step);
                }
                Err(Refused::Full) => return Step::Full,
                // What else it has is too large as well: it is poison, then.
                Err(Refused::Unsendable(..)) => {}
            }
        }
        for with_payload in [true, false] {
            if refused >= Some(Form::Letter) {
                break;
            }
            let letter = self.outboxes.letter(whose, row, place, &poison, with_payload);
            let Some(letter) = letter else { break };
            let letter = Record { again: terms.again, ..letter };
            match hand_over(&mut self.frontier, terms, &letter, place, sink) {
                Ok(bytes) => {
                    let step = Step::Replaced(Box::new(Instead::Letter(poison)));
                    return self.handed_over(position, Form::Letter, bytes, step);
                }
                Err(Refused::Full) => return Step::Full,
                // Without the payload, then.
                Err(Refused::Unsendable(..)) => {}
            }
        }
        Step::Stuck(Stuck::Poison(poison))
    }

    /// How the row at this position may be handed over.
    #[inline]
    fn terms(&self, position: Position) -> Terms {
        let suspects = self.suspects.filter(|suspects| position <= suspects.last);
        Terms {
            again: self.furthest.is_some_and(|furthest| position <= furthest),
            together: suspects.map(|suspects| suspects.together),
        }
    }

    fn handed_over(&mut self, position: Position, form: Form, bytes: u64, step: Step) -> Step {
        self.passed.bytes += bytes;
        self.done = Some(position);
        self.furthest = self.furthest.max(self.done);
        self.form = form;
        self.next_row();
        step
    }
}

/// Hands one record over as what its schema makes of it, if it has one. Returns its bytes.
fn encode_and_hand_over(
    frontier: &mut Frontier,
    encoder: &mut Encoder,
    terms: Terms,
    record: &Record<'_>,
    place: Place,
    sink: &mut impl Sink,
) -> Result<u64, Refused> {
    let (Some(how), Some(_)) = (record.encoded, record.payload) else {
        return hand_over(frontier, terms, record, place, sink);
    };
    // While a row waits it comes again with every ack, and this is the dear part.
    if terms.crowded(frontier) || !frontier.has_room(0) {
        return Err(Refused::Full);
    }
    let payload = encoder.encode(record, how, place.position).map_err(|why| match why {
        Unencoded::Waits => Refused::Full,
        Unencoded::Unfit(reason) => Refused::Unsendable(Flaw::Other, reason),
    })?;
    let record = Record { payload: Some(payload), encoded: None, ..*record };
    hand_over(frontier, terms, &record, place, sink)
}

/// Hands one record over, if there is room for it. Returns its bytes.
fn hand_over(
    frontier: &mut Frontier,
    terms: Terms,
    record: &Record<'_>,
    place: Place,
    sink: &mut impl Sink,
) -> Result<u64, Refused> {
    let Place { position, committed_us, .. } = place;
    let charge = record.charge();
    if terms.crowded(frontier) || !frontier.has_room(charge) {
        return Err(Refused::Full);
    }
    let ticket = frontier.ticket(position, charge);
    sink.send(record, ticket)?;
    frontier.sent(position, committed_us, ticket);
    if terms.together.is_some() {
        // What the broker has taken of them need not be sent again because of the next one.
        frontier.cut();
    }
    let size = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len) as u64;
    Ok(size(record.key) + size(record.payload))
}
