//! The watch over a worker's event loop: pings go out, pongs come back, the time between is its lag.
//!
//! The pong of a worker that has something to acknowledge for too long is none: its loop turns, but
//! not the part of it that takes connections.
//!
//! A worker that starts or drains is asked nothing. One whose process is stopped stands still in any
//! case. Any other signal would wait with it, so that it is to be killed:
//!
//! | a stopped worker | ends at the latest after |
//! |---|---|
//! | starts | `watchdog_timeout`; `listen_timeout` |
//! | serves, stands by, is a spare | `watchdog_timeout` |
//! | drains, or was told to end as it started | `watchdog_timeout`; its grace period |
//! | was aborted | `watchdog_timeout`; the time for its core |
//!
//! and the time from one look to the next. Under another primary the time begins again.
//!
//! Pure: the times of pings and pongs in, the lag out. Never sends and never kills.
//!
//! # Pitfalls
//!
//! * Read the worker's messages before calling [`Watchdog::stall`]: a primary
//!   that was itself held up would else blame a worker whose pong waits to be read.

use std::time::Duration;

use crate::protocol::ids::Timestamp;

/// The state of one worker's event loop, and of its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watchdog {
    /// When the ping was sent that has no pong yet.
    open: Option<Timestamp>,
    /// The last one, once there was one.
    measured: Option<Duration>,
    /// The open ping has a pong, of a worker with something overdue.
    overdue: bool,
    /// The stop of its process, if it is stopped, and when that was seen first.
    stopped: Option<(u64, Timestamp)>,
}

/// What stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// The event loop, as far as a ping shows.
    EventLoop,
    /// The process: it is stopped.
    Process,
}

impl Watchdog {
    /// Of a worker that was never asked.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes the stop of the worker's process, another one each time, and whether the worker is asked
    /// anything: if not, it owes no pong as long as it runs.
    pub fn looked_at(&mut self, now: Timestamp, stop: Option<u64>, is_asked: bool) {
        let before = self.stopped.filter(|(before, _)| Some(*before) == stop);
        self.stopped = before.or_else(|| Some((stop?, now)));
        if stop.is_none() && !is_asked {
            self.open = None;
        }
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

    /// What stands still: the open ping has waited for that long, or the process was stopped for that long.
    #[must_use]
    pub fn stall(&self, now: Timestamp, watchdog_timeout: Duration) -> Option<Stall> {
        let stopped = self.stopped.map(|(_, since)| since);
        let mut since = [self.open, stopped].into_iter().flatten();
        let stands_still = since.any(|since| now.since(since) >= watchdog_timeout);
        let what = if self.stopped.is_some() { Stall::Process } else { Stall::EventLoop };
        stands_still.then_some(what)
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
                    let stall = stalled.then_some(Stall::EventLoop);
                    assert_eq!(watchdog.stall(now, timeout), stall, "step {step}");
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
        assert!(watchdog.stall(at(4_999), timeout).is_none() && watchdog.is_overdue());
        assert_eq!(watchdog.stall(at(5_000), timeout), Some(Stall::EventLoop));
        watchdog.answered(at(5_001), false);
        assert!(watchdog.stall(at(60_000), timeout).is_none() && !watchdog.is_overdue());
        assert_eq!(watchdog.lag(at(60_000)), Duration::from_millis(5_001));
    }

    #[test]
    fn a_process_that_is_stopped_stands_still_whether_it_is_asked_or_not() {
        let timeout = Duration::from_secs(5);
        let mut watchdog = Watchdog::new();
        // It starts.
        watchdog.looked_at(at(0), Some(7), false);
        watchdog.looked_at(at(4_000), Some(7), false);
        assert_eq!(watchdog.stall(at(4_999), timeout), None);
        assert_eq!(watchdog.stall(at(5_000), timeout), Some(Stall::Process));
        assert_eq!(watchdog.last_lag(at(5_000)), None, "nothing was asked");
        // It has run meanwhile, and was stopped again.
        watchdog.looked_at(at(5_000), Some(9), false);
        assert_eq!(watchdog.stall(at(9_999), timeout), None);
        watchdog.looked_at(at(9_999), None, true);
        assert_eq!(watchdog.stall(at(60_000), timeout), None);
        // It serves, and then drains: time goes on.
        watchdog.ping_sent(at(60_000));
        watchdog.looked_at(at(64_000), Some(11), false);
        assert_eq!(watchdog.stall(at(64_999), timeout), None);
        assert_eq!(watchdog.stall(at(65_000), timeout), Some(Stall::Process));
        // It goes on: the order to drain was the last thing that it was told.
        watchdog.looked_at(at(65_000), None, false);
        assert_eq!(watchdog.stall(at(99_000), timeout), None);
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
                let stall = watchdog.stall(at(later), Duration::from_millis(timeout));
                prop_assert_eq!(stall.is_some(), oldest_open.is_some_and(|sent| later - sent >= timeout));
                prop_assert_eq!(watchdog.open, oldest_open.map(at));
                let waited = oldest_open.map_or(Duration::ZERO, |sent| at(later).since(at(sent)));
                prop_assert!(watchdog.lag(at(later)) >= waited);
            }
        }
    }
}
