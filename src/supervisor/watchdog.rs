//! The watch over a worker's event loop: pings go out, pongs come back, the time between is its lag.
//!
//! The pong of a worker that has something to acknowledge for too long is none: its loop turns, but
//! not the part of it that takes connections.
//!
//! Pure: the times of pings and pongs in, the lag out. Never sends and never kills.
//!
//! # Pitfalls
//!
//! * Read the worker's messages before calling [`Watchdog::has_stalled`]: a primary
//!   that was itself held up would else blame a worker whose pong waits to be read.

use std::time::Duration;

use crate::protocol::ids::Timestamp;

/// The state of one worker's event loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watchdog {
    /// When the ping was sent that has no pong yet.
    open: Option<Timestamp>,
    /// The last one, once there was one.
    measured: Option<Duration>,
    /// The open ping has a pong, of a worker with something overdue.
    overdue: bool,
}

impl Watchdog {
    /// Of a worker that was never asked.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a ping. One that is already open goes on waiting.
    pub fn ping_sent(&mut self, now: Timestamp) {
        self.open.get_or_insert(now);
    }

    /// Notes a pong, of a worker that may have something to acknowledge that is overdue: its ping stays
    /// open.
    pub fn answered(&mut self, now: Timestamp, overdue: bool) {
        self.overdue = overdue;
        if !overdue {
            self.pong(now);
        }
    }

    /// Whether the worker has answered the open ping, and acknowledges nothing.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.overdue
    }

    /// Notes a pong and says how late it came. One without a ping changes nothing.
    pub fn pong(&mut self, now: Timestamp) -> Duration {
        if let Some(sent) = self.open.take() {
            self.measured = Some(now.since(sent));
        }
        self.measured.unwrap_or_default()
    }

    /// The last lag that was measured, or how long the open ping has waited if that is longer.
    #[must_use]
    pub fn lag(&self, now: Timestamp) -> Duration {
        self.last_lag(now).unwrap_or_default()
    }

    /// The same; nothing of a worker that was never asked.
    #[must_use]
    pub fn last_lag(&self, now: Timestamp) -> Option<Duration> {
        self.measured.max(self.open.map(|sent| now.since(sent)))
    }

    /// Whether the open ping has waited for so long that the event loop has to be standing still.
    #[must_use]
    pub fn has_stalled(&self, now: Timestamp, watchdog_timeout: Duration) -> bool {
        self.open.is_some() && self.waited(now) >= watchdog_timeout
    }

    fn waited(&self, now: Timestamp) -> Duration {
        self.open.map_or(Duration::ZERO, |sent| now.since(sent))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp(0) + Duration::from_millis(millis)
    }

    #[test]
    fn lag_is_what_was_measured_or_what_is_waited_for() {
        enum Step {
            Ping,
            Pong(u64),
            Look { lag: u64, stalled: bool },
        }
        use Step::{Look, Ping, Pong};
        let steps = [
            (0, Look { lag: 0, stalled: false }),
            // Without a ping.
            (5, Pong(0)),
            (1_000, Ping),
            (1_010, Look { lag: 10, stalled: false }),
            (1_020, Pong(20)),
            (1_500, Look { lag: 20, stalled: false }),
            // A second one changes nothing.
            (1_600, Pong(20)),
            (2_000, Ping),
            (2_010, Look { lag: 20, stalled: false }),
            // A ping too many doesn't hide how long the first has waited.
            (4_000, Ping),
            (6_999, Look { lag: 4_999, stalled: false }),
            (7_000, Look { lag: 5_000, stalled: true }),
            (8_000, Pong(6_000)),
            (9_000, Look { lag: 6_000, stalled: false }),
            (9_000, Ping),
            (9_001, Pong(1)),
            (9_002, Look { lag: 1, stalled: false }),
        ];
        let mut watchdog = Watchdog::new();
        assert_eq!(watchdog.last_lag(at(0)), None);
        for (step, (millis, what)) in steps.into_iter().enumerate() {
            let now = at(millis);
            match what {
                Ping => watchdog.ping_sent(now),
                Pong(lag) => assert_eq!(watchdog.pong(now).as_millis(), lag.into(), "step {step}"),
                Look { lag, stalled } => {
                    assert_eq!(watchdog.lag(now).as_millis(), lag.into(), "step {step}");
                    let timeout = Duration::from_secs(5);
                    assert_eq!(watchdog.has_stalled(now, timeout), stalled, "step {step}");
                }
            }
        }
    }

    #[test]
    fn a_pong_of_a_worker_with_something_overdue_leaves_its_ping_open() {
        let timeout = Duration::from_secs(5);
        let mut watchdog = Watchdog::new();
        watchdog.ping_sent(at(0));
        watchdog.answered(at(1), true);
        watchdog.ping_sent(at(4_000));
        watchdog.answered(at(4_001), true);
        assert!(!watchdog.has_stalled(at(4_999), timeout) && watchdog.is_overdue());
        assert!(watchdog.has_stalled(at(5_000), timeout));
        watchdog.answered(at(5_001), false);
        assert!(!watchdog.has_stalled(at(60_000), timeout) && !watchdog.is_overdue());
        assert_eq!(watchdog.lag(at(60_000)), Duration::from_millis(5_001));
    }

    proptest! {
        #[test]
        fn only_a_worker_that_owes_a_pong_has_stalled(
            steps in prop::collection::vec((0..3_000_u64, any::<bool>()), 1..60),
            timeout in 0..5_000_u64,
        ) {
            let mut watchdog = Watchdog::new();
            let mut now = 0;
            let mut oldest_open = None;
            for (millis, ping) in steps {
                now += millis;
                if ping {
                    watchdog.ping_sent(at(now));
                    oldest_open.get_or_insert(now);
                } else {
                    let lag = watchdog.pong(at(now));
                    prop_assert!(oldest_open.is_none_or(|sent| lag == at(now).since(at(sent))));
                    oldest_open = None;
                }
                let later = now + 700;
                let stalled = watchdog.has_stalled(at(later), Duration::from_millis(timeout));
                prop_assert_eq!(stalled, oldest_open.is_some_and(|sent| later - sent >= timeout));
                prop_assert_eq!(watchdog.open, oldest_open.map(at));
                let waited = oldest_open.map_or(Duration::ZERO, |sent| at(later).since(at(sent)));
                prop_assert!(watchdog.lag(at(later)) >= waited);
            }
        }
    }
}
