//! Measurements of one worker from outside: its event loop's lag, its memory, its processor time.

use std::time::Duration;

use crate::protocol::ids::Timestamp;
use crate::supervisor::watchdog::Watchdog;

/// A count that is too high so often in a row is wrong: connections that end meanwhile are not it.
const MAX_OVERSTATED: u32 = 3;

/// One worker's measurements.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WorkerHealth {
    pub(super) watchdog: Watchdog,
    /// Bytes, of the last sample.
    pub(super) memory: Option<u64>,
    /// Percent of one processor, between the last two samples.
    pub(super) cpu: Option<f64>,
    /// Its processor time, and when it was sampled.
    cpu_time: Option<(Timestamp, Duration)>,
    /// How often in a row it counted more connections than it has descriptors.
    overstated: u32,
}

impl WorkerHealth {
    /// Takes a comparison of the connections that it counts and the descriptors that it has open. True if
    /// the difference has lasted, and was not said yet.
    pub(super) fn compare(&mut self, connections: u64, descriptors: u64) -> bool {
        if connections <= descriptors {
            // What was said once isn't said again.
            if self.overstated < MAX_OVERSTATED {
                self.overstated = 0;
            }
            return false;
        }
        self.overstated = self.overstated.saturating_add(1);
        self.overstated == MAX_OVERSTATED
    }

    /// Takes a sample.
    pub(super) fn record(
        &mut self,
        at: Timestamp,
        memory: Option<u64>,
        cpu_time: Option<Duration>,
    ) {
        self.memory = memory;
        let Some(cpu_time) = cpu_time else { return };
        if let Some((before_at, before)) = self.cpu_time.replace((at, cpu_time)) {
            let (passed, used) = (at.since(before_at), cpu_time.saturating_sub(before));
            self.cpu = Some(100.0 * used.as_secs_f64() / passed.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_is_too_high_for_long_is_said_once() {
        let mut health = WorkerHealth::default();
        let said = |health: &mut WorkerHealth, counts: &[u64]| {
            counts.iter().filter(|count| health.compare(**count, 10)).count()
        };
        assert_eq!(said(&mut health, &[11, 11, 10, 11, 12, 3, 60, 60]), 0);
        assert_eq!(said(&mut health, &[60, 60, 2, 60, 60, 60, 60]), 1);
    }

    #[test]
    fn processor_time_is_a_share_between_two_samples() {
        let at = |seconds| Timestamp(0) + Duration::from_secs(seconds);
        let mut health = WorkerHealth::default();
        health.record(at(10), Some(1), Some(Duration::from_secs(3)));
        assert_eq!((health.memory, health.cpu), (Some(1), None));
        health.record(at(14), Some(2), Some(Duration::from_secs(5)));
        assert_eq!((health.memory, health.cpu), (Some(2), Some(50.0)));
        // A process that has ended has neither.
        health.record(at(15), None, None);
        assert_eq!((health.memory, health.cpu), (None, Some(50.0)));
    }
}
