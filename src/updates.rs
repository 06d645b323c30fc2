//! Updates of outbox rows, and messages outside of transactions, which are no events: that there
//! are any is said now and then.

use std::time::{Duration, Instant};

/// The least time between two times that it is said.
const PERIOD: Duration = Duration::from_secs(60);

/// What there is to say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Updates {
    unsaid: u64,
    said: Option<Instant>,
}

impl Updates {
    /// There is one more. Returns how many there are to speak of, if it is time.
    pub fn note(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        let silent = self.said.is_some_and(|said| now.saturating_duration_since(said) < PERIOD);
        (!silent).then(|| {
            self.said = Some(now);
            std::mem::take(&mut self.unsaid)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_then_their_number_once_a_minute() {
        let (mut updates, start) = (Updates::default(), Instant::now());
        let mut note = |seconds| updates.note(start + Duration::from_secs(seconds));
        assert_eq!(
            [0, 1, 59, 60, 61, 300].map(&mut note),
            [Some(1), None, None, Some(3), None, Some(2)]
        );
    }
}
