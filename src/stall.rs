//! When Postgres writes and the stream stands still.
//!
//! A walsender may wait for something that has nothing to do with us: for a standby named in
//! `synchronized_standby_slots`, for a lock, for a disk. It goes on answering meanwhile, so that
//! the stream looks idle; only how far the server has got tells otherwise.

use crate::lsn::Lsn;

/// As much log may lie between what the server has written and what its walsender has read
/// without a meaning: the rest of a page, or what is not flushed yet.
const SLACK_BYTES: u64 = 64 * 1024;
/// Looks in a row without any progress.
const LOOKS: u32 = 2;
/// While a walsender waits for a standby to have what it is about to send (version 17 and later).
const FOR_STANDBY: &str = "WaitForStandbyConfirmation";

/// What the last look has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stall {
    received: Lsn,
    server: Lsn,
    looks: u32,
}

impl Stall {
    /// Takes in a look: how far the stream and the server have got, and what the walsender waits
    /// for. Says why nothing comes, once it is sure that nothing does.
    pub fn look(&mut self, received: Lsn, server: Lsn, wait_event: Option<&str>) -> Option<String> {
        let for_standby = wait_event.is_some_and(|event| event.ends_with(FOR_STANDBY));
        let slack = if for_standby { 0 } else { SLACK_BYTES };
        // What lay ahead at the last look should have come by now.
        let ahead = self.server.to_wire().saturating_sub(received.to_wire());
        let still = received == self.received && ahead > slack;
        self.looks = if still { self.looks + 1 } else { 0 };
        (self.received, self.server) = (received, server);
        (self.looks >= LOOKS).then(|| {
            let event = wait_event.unwrap_or("none");
            let advice = if for_standby {
                "; a slot named in synchronized_standby_slots is missing, or its standby is behind"
            } else {
                "; see the walsender in pg_stat_activity"
            };
            format!(
                "Postgres has written up to {server}, and its walsender stands still at \
                 {received} (wait event {event}){advice}"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(raw: u64) -> Lsn {
        Lsn::from_wire(raw)
    }

    #[test]
    fn a_stream_that_moves_or_has_nothing_to_bring_does_not_stall() {
        let mut stall = Stall::default();
        for n in 1..10 {
            let far = lsn(n << 20);
            assert_eq!(stall.look(lsn(n), far, Some("Client/ClientWrite")), None, "moves");
        }
        let mut stall = Stall::default();
        for _ in 0..10 {
            assert_eq!(stall.look(lsn(9), lsn(9 + SLACK_BYTES), None), None, "is idle");
        }
    }

    #[test]
    fn what_lay_ahead_and_did_not_come_is_a_stall() {
        let mut stall = Stall::default();
        let far = lsn(1 << 20);
        assert_eq!(stall.look(lsn(9), far, None), None);
        assert_eq!(stall.look(lsn(9), far, None), None, "may just be on its way");
        let said = stall.look(lsn(9), far, None).unwrap_or_default();
        assert!(said.contains("stands still at 0/9 (wait event none)"), "{said}");
        assert_eq!(stall.look(far, far, None), None, "goes on");
    }

    #[test]
    fn a_wait_for_a_standby_is_said_however_little_waits() {
        let mut stall = Stall::default();
        let event = Some("IPC/WaitForStandbyConfirmation");
        let said: Vec<_> = (0..3).map(|_| stall.look(lsn(9), lsn(99), event)).collect();
        assert_eq!((&said[0], &said[1]), (&None, &None));
        assert!(said[2].as_ref().is_some_and(|said| said.contains("synchronized_standby_slots")));
    }
}
