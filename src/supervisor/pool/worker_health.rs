//! Measurements of one worker from outside: its event loop's lag, its memory, its processor time.

use std::time::Duration;

use crate::protocol::ids::Timestamp;
use crate::supervisor::watchdog::Watchdog;

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
}

impl WorkerHealth {
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
