//! Workers ask to close clients and are granted their closes evenly over the time that they have, all
//! workers together at no more than one rate, so that clients don't reconnect all at once.
//!
//! Pure: the caller passes the time. Never knows the clients.

use std::collections::HashMap;
use std::time::Duration;

use crate::handover::frontend::{CloseRequestSnapshot, CloseRequestsSnapshot};
use crate::handover::{Carry, carry};
use crate::link::seam::WorkerId;
use crate::protocol::ids::Timestamp;
use crate::sessions::pace::Pace;

/// How fast clients are made to move, over all workers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PaceSettings {
    /// Clients closed per second, above 0.
    pub close_rate: f64,
    /// Sessions per second that a rebalance moves, above 0.
    pub rebalance_rate: f64,
}

impl Default for PaceSettings {
    fn default() -> Self {
        Self { close_rate: 100.0, rebalance_rate: 100.0 }
    }
}

/// The last tenth of a worker's time, at most this long, is reserved: all closes that are left then are
/// granted at once, since a late close frame is better than none.
const MAX_RESERVE: Duration = Duration::from_secs(2);

/// A worker whose time is over gets all that is left at once, but no more often than that, however often it
/// asks.
const HURRIED_INTERVAL: Duration = Duration::from_millis(100);

/// Grants closes.
#[derive(Debug)]
pub struct CloseRequests {
    pace: Pace,
    requests: Vec<CloseRequest>,
    /// When workers that have asked were granted something last. Those that wait longest come first.
    granted: HashMap<WorkerId, Granted>,
}

/// The last grants to a worker.
#[derive(Clone, Copy, Debug, Default)]
struct Granted {
    /// The number of the last one, over all workers.
    turn: u64,
    hurried: Option<Timestamp>,
}

/// The rest of a worker's request.
#[derive(Debug)]
struct CloseRequest {
    worker: WorkerId,
    left: u32,
    /// When the next one is due, if the rate allows it.
    due: Timestamp,
    interval: Duration,
    /// When all that are left are due.
    last_call: Timestamp,
}

carry!(struct CloseRequest => CloseRequestSnapshot { worker, left, due, interval, last_call });

/// A permission for a worker to close clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The worker.
    pub worker: WorkerId,
    /// How many clients it may close now.
    pub count: u32,
    /// More than the rate allows: the worker's time is nearly over.
    pub hurried: bool,
}

impl CloseRequests {
    /// At so many clients in a second.
    #[must_use]
    pub fn new(rate: f64) -> Self {
        Self { pace: Pace::new(rate), requests: Vec::new(), granted: HashMap::new() }
    }

    /// The open requests, for a successor.
    #[must_use]
    pub fn into_snapshot(self) -> CloseRequestsSnapshot {
        CloseRequestsSnapshot { next: Some(self.pace.next()), requests: self.requests.snapshot() }
    }

    /// Resumes from open requests, at so many clients in a second.
    #[must_use]
    pub fn resume(rate: f64, snapshot: CloseRequestsSnapshot) -> Self {
        let next = snapshot.next.unwrap_or(Timestamp(0));
        let requests = Carry::restore(snapshot.requests);
        Self { pace: Pace::from(rate, next), requests, granted: HashMap::new() }
    }

    /// A worker asks to close so many clients within that time. Replaces its request before.
    pub fn ask(&mut self, worker: WorkerId, count: u32, within: Duration, now: Timestamp) {
        let before = self.requests.iter().position(|request| request.worker == worker);
        let before = before.map(|position| self.requests.swap_remove(position));
        if count == 0 {
            return;
        }
        let time = within - (within / 10).min(MAX_RESERVE);
        let interval = time / count;
        // Asking often brings no more.
        let due = before.map_or(now, |request| request.due.clamp(now, now + interval));
        let hurried = self.granted.get(&worker).and_then(|granted| granted.hurried);
        let last_call = (now + time).max(hurried.map_or(now, |at| at + HURRIED_INTERVAL));
        self.requests.push(CloseRequest { worker, left: count, due, interval, last_call });
    }

    /// Drops the request of a worker that is gone.
    pub fn forget(&mut self, worker: WorkerId) {
        self.requests.retain(|request| request.worker != worker);
        self.granted.remove(&worker);
    }

    /// When the next close is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let free = self.pace.free_at();
        self.requests.iter().map(|request| request.due.max(free).min(request.last_call)).min()
    }

    /// The next grant that is due now. To be called until there is none.
    pub fn grant(&mut self, now: Timestamp) -> Option<Grant> {
        let requests = self.requests.iter().enumerate().filter(|(_, request)| now >= request.due);
        let turn = |worker| self.granted.get(&worker).map_or(0, |granted| granted.turn);
        let next = requests.min_by_key(|(_, request)| (turn(request.worker), request.due));
        if let Some((next, _)) = next
            && self.pace.is_free(now)
        {
            self.pace.step(now);
            return Some(self.take(next, 1, None));
        }
        let late = self.requests.iter().position(|request| now >= request.last_call)?;
        Some(self.take(late, self.requests[late].left, Some(now)))
    }

    fn take(&mut self, position: usize, count: u32, hurried_at: Option<Timestamp>) -> Grant {
        let request = &mut self.requests[position];
        let (worker, hurried) = (request.worker, hurried_at.is_some());
        let turn = self.granted.values().map(|granted| granted.turn).max().unwrap_or(0) + 1;
        let granted = self.granted.entry(worker).or_default();
        *granted = Granted { turn, hurried: hurried_at.or(granted.hurried) };
        request.due = request.due + request.interval;
        request.left -= count;
        if request.left == 0 {
            self.requests.swap_remove(position);
        }
        Grant { worker, count, hurried }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::ids::{Generation, SlotId};

    const START: Timestamp = Timestamp(1_000_000_000_000);

    fn worker(slot: u16) -> WorkerId {
        WorkerId { slot: SlotId(slot), generation: Generation(0) }
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// All that is granted from now on, and when, as milliseconds.
    fn all(close_requests: &mut CloseRequests) -> Vec<(u64, Grant)> {
        let mut granted = Vec::new();
        while let Some(due) = close_requests.next_due() {
            let before = granted.len();
            while let Some(grant) = close_requests.grant(due) {
                granted.push(((due.0 - START.0) / 1_000_000, grant));
            }
            assert!(granted.len() > before, "due, and nothing to grant");
        }
        granted
    }

    /// A worker that asks again as soon as it is granted something, without time.
    #[test]
    fn asking_all_the_time_takes_nothing_from_others() {
        let mut close_requests = CloseRequests::new(100.0);
        close_requests.ask(worker(1), 100, millis(2_000), START);
        let (mut greedy, mut modest) = (Vec::new(), Vec::new());
        for at in 0..3_000 {
            let now = START + millis(at);
            close_requests.ask(worker(0), 1, Duration::ZERO, now);
            while let Some(grant) = close_requests.grant(now) {
                let grants = if grant.worker == worker(0) { &mut greedy } else { &mut modest };
                grants.push(grant);
                assert!(greedy.len() + modest.len() < 1_000);
            }
        }
        assert!(modest.iter().filter(|grant| !grant.hurried).count() >= 85, "{modest:?}");
        let hurried = greedy.iter().filter(|grant| grant.hurried).count();
        assert!(hurried <= 31, "one in {HURRIED_INTERVAL:?}: {hurried}");
    }

    #[test]
    fn closes_are_spread_evenly_over_nine_tenths_of_the_time() {
        let mut close_requests = CloseRequests::new(100.0);
        close_requests.ask(worker(0), 9, millis(10_000), START);
        let granted = all(&mut close_requests);
        let times: Vec<_> = granted.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, (0..9).map(|n| n * 1_000).collect::<Vec<_>>());
        let plain = Grant { worker: worker(0), count: 1, hurried: false };
        assert!(granted.iter().all(|(_, grant)| *grant == plain));
    }

    #[test]
    fn all_together_keep_to_the_rate_and_the_rest_goes_at_last_call() {
        let mut close_requests = CloseRequests::new(10.0);
        close_requests.ask(worker(0), 100, millis(10_000), START);
        close_requests.ask(worker(1), 30, millis(30_000), START);
        let granted = all(&mut close_requests);
        let of = |slot, hurried: bool| {
            let of = granted
                .iter()
                .filter(move |(_, grant)| grant.worker == worker(slot) && grant.hurried == hurried);
            (of.clone().map(|(_, grant)| grant.count).sum::<u32>(), of.map(|(at, _)| *at).max())
        };
        let ((plain, _), (hurried, at)) = (of(0, false), of(0, true));
        assert_eq!(plain + hurried, 100);
        assert!((70..=90).contains(&plain), "{plain} at ten a second in nine, shared");
        assert_eq!(at, Some(9_000));
        assert_eq!((of(1, false).0, of(1, true).0), (30, 0));
        assert!(of(1, false).1 < Some(28_000));
    }

    #[test]
    fn a_new_request_replaces_the_old_one_and_comes_no_sooner() {
        let mut close_requests = CloseRequests::new(1_000.0);
        close_requests.ask(worker(0), 9, millis(10_000), START);
        assert!(close_requests.grant(START).is_some());
        for _ in 0..50 {
            close_requests.ask(worker(0), 4, millis(10_000), START);
            assert_eq!(close_requests.grant(START), None);
        }
        let times: Vec<_> = all(&mut close_requests).iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [1_000, 3_250, 5_500, 7_750]);
        close_requests.ask(worker(0), 9, millis(10_000), START);
        close_requests.ask(worker(0), 0, millis(10_000), START);
        assert_eq!(close_requests.next_due(), None);
    }

    #[test]
    fn a_worker_that_is_gone_or_has_no_time_waits_for_nothing() {
        let mut close_requests = CloseRequests::new(1.0);
        close_requests.ask(worker(0), 5, millis(10_000), START);
        close_requests.ask(worker(1), 5, Duration::ZERO, START);
        close_requests.forget(worker(0));
        let counts: Vec<_> =
            all(&mut close_requests).iter().map(|(_, grant)| grant.count).collect();
        assert_eq!(counts, [1, 4]);
    }

    proptest! {
        #[test]
        fn never_above_the_rate_and_everything_in_the_end(
            rate in 1..300_u32,
            asks in prop::collection::vec((0..4_u16, 1..200_u32, 0..20_000_u64, 0..3_000_u64), 1..12),
        ) {
            let (mut close_requests, mut now) = (CloseRequests::new(rate.into()), START);
            let (mut plain, mut wanted, mut given) = (Vec::new(), [0; 4], [0; 4]);
            let mut run = |close_requests: &mut CloseRequests, until: Timestamp, given: &mut [u32; 4]| {
                while let Some(due) = close_requests.next_due().filter(|due| *due <= until) {
                    // A millisecond late, as the poller.
                    let at = due + millis(1);
                    while let Some(grant) = close_requests.grant(at) {
                        given[grant.worker.slot.index()] += grant.count;
                        if !grant.hurried {
                            plain.push(at.0);
                        }
                    }
                }
            };
            for (slot, count, within, pause) in asks {
                close_requests.ask(worker(slot), count, millis(within), now);
                (wanted[usize::from(slot)], given[usize::from(slot)]) = (count, 0);
                now = now + millis(pause);
                run(&mut close_requests, now, &mut given);
            }
            run(&mut close_requests, now + millis(100_000), &mut given);
            prop_assert_eq!(given, wanted);
            for run in plain.windows(rate as usize + 1) {
                prop_assert!(run[rate as usize] - run[0] >= 1_000_000_000);
            }
        }

        #[test]
        fn as_long_as_the_rate_allows_no_close_is_hurried(
            count in 1..100_u32, within in 2_000..20_000_u64,
        ) {
            let mut close_requests = CloseRequests::new(1_000.0);
            close_requests.ask(worker(0), count, millis(within), START);
            let granted = all(&mut close_requests);
            prop_assert!(granted.iter().all(|(_, grant)| !grant.hurried && grant.count == 1));
            let even = within * 9 / 10 / u64::from(count);
            for pair in granted.windows(2) {
                let apart = pair[1].0 - pair[0].0;
                prop_assert!(apart.abs_diff(even) <= 2 + within / 100, "{apart} instead of {even}");
            }
        }
    }
}
