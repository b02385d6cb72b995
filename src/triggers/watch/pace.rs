//! Rolling restarts whose workers change watched files would follow each other without end. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// A change that comes so soon after a rolling restart may be made by the new workers.
const SETTLE_TIME: Duration = Duration::from_secs(5);

/// Restarts in a row that may be caused by the one before, until the next of them waits.
const FREE: u32 = 4;

/// The first wait; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(15);

/// The longest wait.
const MAX_WAIT: Duration = Duration::from_secs(15 * 60);

/// When changes are followed by rolling restarts.
#[derive(Debug, Default)]
pub struct Pace {
    last: Last,
    /// Changes so far, each of which came with the restart for the one before.
    row: u32,
}

/// The last rolling restart for a change.
#[derive(Debug, Default)]
enum Last {
    #[default]
    None,
    UnderWay,
    Ended(Instant),
}

impl Pace {
    /// How long a change that is told now waits for its rolling restart; `None` if it doesn't.
    pub fn wait(&mut self, now: Instant) -> Option<Duration> {
        let follows = match self.last {
            Last::None => false,
            Last::UnderWay => true,
            Last::Ended(at) => now.saturating_duration_since(at) < SETTLE_TIME,
        };
        self.row = if follows { self.row.saturating_add(1) } else { 0 };
        let waits = self.row.checked_sub(FREE + 1)?;
        let factor = 2_u32.saturating_pow(waits);
        Some(FIRST_WAIT.saturating_mul(factor).min(MAX_WAIT))
    }

    /// The rolling restart for a change begins.
    pub fn restarted(&mut self) {
        self.last = Last::UnderWay;
    }

    /// A rolling restart has ended, or none was done.
    pub fn ended(&mut self, now: Instant) {
        if matches!(self.last, Last::UnderWay) {
            self.last = Last::Ended(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changes that come so long after the end of the restart before, in seconds.
    fn waits(pauses: &[u64]) -> Vec<u64> {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        let mut wait_after = |pause: &u64| {
            now += Duration::from_secs(*pause);
            let wait = pace.wait(now).unwrap_or_default();
            now += wait;
            pace.restarted();
            now += Duration::from_secs(1);
            pace.ended(now);
            wait.as_secs()
        };
        pauses.iter().map(&mut wait_after).collect()
    }

    #[test]
    fn changes_that_follow_restarts_wait_longer_and_longer() {
        assert_eq!(waits(&[0; 8]), [0, 0, 0, 0, 0, 15, 30, 60]);
        assert_eq!(waits(&[0; 40])[39], 900);
        let mut pauses = [0; 8];
        pauses[6] = 6;
        assert_eq!(waits(&pauses), [0, 0, 0, 0, 0, 15, 0, 0], "a pause ends a row");
        assert_eq!(waits(&[6; 20]), [0; 20], "somebody edits a file now and then");
    }

    #[test]
    fn a_change_during_the_restart_follows_it() {
        let mut pace = Pace::default();
        let now = Instant::now();
        for _ in 0..=FREE {
            assert_eq!(pace.wait(now), None);
            pace.restarted();
        }
        assert_eq!(pace.wait(now + Duration::from_secs(60)), Some(FIRST_WAIT));
    }
}
