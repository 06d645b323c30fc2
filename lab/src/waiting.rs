//! Waiting for what happens in another process, which nobody announces.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// What a condition may answer: `bool`, or an `Option` whose value the waiter wants.
pub trait Answer {
    /// What the waiter gets once the condition holds.
    type Value;

    /// The value if the condition holds.
    fn met(self) -> Option<Self::Value>;
}

impl Answer for bool {
    type Value = ();

    fn met(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Answer for Option<T> {
    type Value = T;

    fn met(self) -> Option<T> {
        self
    }
}

/// Polls `condition` until it answers `true` or `Some`, and fails with `what` after `timeout`.
///
/// One last look is taken after the deadline, so that a slow machine cannot fail a test whose
/// condition came true while a poll was under way.
pub async fn eventually<A: Answer>(
    timeout: Duration,
    what: impl Display,
    mut condition: impl AsyncFnMut() -> A,
) -> Result<A::Value> {
    let deadline = Instant::now() + timeout;
    loop {
        let last_look = Instant::now() >= deadline;
        if let Some(value) = condition().await.met() {
            return Ok(value);
        }
        if last_look {
            bail!("waited {timeout:?} in vain for: {what}");
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The same as [`eventually`] for callers without a runtime; blocks the thread.
pub fn wait_until<A: Answer>(
    timeout: Duration,
    what: impl Display,
    mut condition: impl FnMut() -> A,
) -> Result<A::Value> {
    let deadline = Instant::now() + timeout;
    loop {
        let last_look = Instant::now() >= deadline;
        if let Some(value) = condition().met() {
            return Ok(value);
        }
        if last_look {
            bail!("waited {timeout:?} in vain for: {what}");
        }
        pause(POLL_INTERVAL);
    }
}

/// Blocks the calling thread.
#[expect(
    clippy::disallowed_methods,
    reason = "servers are started and stopped from threads of the test, where no loop is blocked"
)]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
