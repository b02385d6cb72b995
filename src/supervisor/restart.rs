//! When to start a worker again after a crash, and when to give up.
//!
//! Pure: facts in, a decision out.

use std::collections::VecDeque;
use std::time::Duration;

use crate::handover::carry;
use crate::handover::pool::CrashesSnapshot;
use crate::handover::settings::RestartPolicySnapshot;
use crate::protocol::ids::Timestamp;

/// How workers that crash are restarted. The names in brackets are PM2's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Whether a worker that ends is followed by another (`autorestart`).
    pub autorestart: bool,
    /// Exit codes after which none follows (`stop_exit_codes`).
    pub stop_exit_codes: Vec<i32>,
    /// The delay after any ended (`restart_delay`).
    pub restart_delay: Duration,
    /// The first delay after an end that came too soon; it doubles with each that follows
    /// (`exp_backoff_restart_delay`).
    pub first_delay: Duration,
    /// The longest delay.
    pub longest_delay: Duration,
    /// A worker that served for so long has done well: the next is started at once.
    pub min_uptime: Duration,
    /// A slot's workers are started again so many times within the window, then it is given up
    /// (`max_restarts`).
    pub max_restarts: u32,
    /// The window.
    pub restart_window: Duration,
    /// When no worker at all has become ready after so many crashes in each slot, the start failed.
    pub start_attempts: u32,
}

carry!(struct RestartPolicy => RestartPolicySnapshot { autorestart, stop_exit_codes, restart_delay, first_delay, longest_delay, min_uptime, max_restarts, restart_window, start_attempts });

impl RestartPolicy {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        autorestart: true,
        stop_exit_codes: Vec::new(),
        restart_delay: Duration::ZERO,
        first_delay: Duration::from_millis(100),
        longest_delay: Duration::from_secs(15),
        min_uptime: Duration::from_secs(1),
        max_restarts: 16,
        restart_window: Duration::from_secs(5 * 60),
        start_attempts: 3,
    };
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The end of a worker that was not ordered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ended {
    /// For how long it served, if it ever did.
    pub served: Option<Duration>,
    /// Its exit code, if it ended by itself.
    pub status: Option<i32>,
    /// From 0 to 1: keeps slots from moving in step.
    pub jitter: f64,
}

/// The consequence of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartDecision {
    /// The next worker, after this delay.
    Restart(Duration),
    /// Too many crashes: none until an operator or a reload says so.
    Errored,
    /// The worker is done, and is not to be started again.
    Stopped,
}

/// A slot's crashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crashes {
    /// Those that came too soon, one after the other.
    streak: u32,
    /// When those within the window were; never more than the policy allows, and one.
    recent: VecDeque<Timestamp>,
}

carry!(struct Crashes => CrashesSnapshot { streak, recent });

impl Crashes {
    /// Notes an end and decides what follows. Jitter takes away up to half of a back-off.
    pub fn after(
        &mut self,
        ended: Ended,
        policy: &RestartPolicy,
        now: Timestamp,
    ) -> RestartDecision {
        if ended.status.is_some_and(|status| policy.stop_exit_codes.contains(&status)) {
            return RestartDecision::Stopped;
        }
        self.recent.retain(|at| now.since(*at) < policy.restart_window);
        self.recent.push_back(now);
        let did_well = ended.served.is_some_and(|served| served >= policy.min_uptime);
        self.streak = if did_well { 0 } else { self.streak.saturating_add(1) };
        if !policy.autorestart {
            return RestartDecision::Stopped;
        }
        if self.recent.len() > usize::try_from(policy.max_restarts).unwrap_or(usize::MAX) {
            return RestartDecision::Errored;
        }
        RestartDecision::Restart(self.back_off(policy, ended.jitter).max(policy.restart_delay))
    }

    /// Crashes that came too soon, one after the other.
    #[must_use]
    pub fn in_a_row(&self) -> u32 {
        self.streak
    }

    fn back_off(&self, policy: &RestartPolicy, jitter: f64) -> Duration {
        let Some(doublings) = self.streak.checked_sub(1) else { return Duration::ZERO };
        let factor = 2_u32.saturating_pow(doublings.min(31));
        let delay = policy.first_delay.saturating_mul(factor).min(policy.longest_delay);
        delay.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp(0) + Duration::from_millis(millis)
    }

    fn ended(served: Option<u64>) -> Ended {
        Ended { served: served.map(Duration::from_millis), status: Some(1), jitter: 0.0 }
    }

    fn millis(decision: RestartDecision) -> Option<u128> {
        match decision {
            RestartDecision::Restart(delay) => Some(delay.as_millis()),
            RestartDecision::Errored | RestartDecision::Stopped => None,
        }
    }

    #[test]
    fn delays_double_up_to_the_longest_and_start_over_after_a_good_time() {
        let policy = RestartPolicy { max_restarts: 100, ..RestartPolicy::DEFAULT };
        let mut crashes = Crashes::default();
        let mut next =
            |served| millis(crashes.after(ended(served), &policy, at(0))).expect("a restart");
        assert_eq!([next(None), next(Some(999)), next(None)], [100, 200, 400]);
        assert_eq!((0..10).map(|_| next(None)).last(), Some(15_000));
        assert_eq!(next(Some(1_000)), 0);
        assert_eq!(next(None), 100);
    }

    #[test]
    fn the_fixed_delay_is_the_least() {
        let restart_delay = Duration::from_millis(250);
        let policy = RestartPolicy { restart_delay, ..RestartPolicy::DEFAULT };
        let mut crashes = Crashes::default();
        let mut next = |served| millis(crashes.after(ended(served), &policy, at(0)));
        assert_eq!(
            [next(Some(5_000)), next(None), next(None), next(None)].map(Option::unwrap),
            [250, 250, 250, 400]
        );
    }

    #[test]
    fn too_many_crashes_within_the_window_end_it_even_if_each_lived_well() {
        let policy = RestartPolicy { max_restarts: 2, ..RestartPolicy::DEFAULT };
        let minute = 60_000;
        for (minutes, expected) in [
            (&[0, 1, 2][..], RestartDecision::Errored),
            (&[0, 1, 5], RestartDecision::Restart(Duration::ZERO)),
            (&[0, 4, 6, 7], RestartDecision::Errored),
        ] {
            let mut crashes = Crashes::default();
            let verdicts = minutes
                .iter()
                .map(|minutes| crashes.after(ended(Some(5_000)), &policy, at(minutes * minute)));
            assert_eq!(verdicts.last(), Some(expected), "{minutes:?}");
        }
    }

    #[test]
    fn some_ends_are_wanted() {
        let stop_exit_codes = vec![0, 7];
        let policy = RestartPolicy { stop_exit_codes, ..RestartPolicy::DEFAULT };
        let exited =
            |status| Crashes::default().after(Ended { status, ..ended(None) }, &policy, at(0));
        assert_eq!([exited(Some(0)), exited(Some(7))], [RestartDecision::Stopped; 2]);
        assert!(matches!(exited(Some(1)), RestartDecision::Restart(_)));
        assert!(matches!(exited(None), RestartDecision::Restart(_)), "a signal has no code");
        let never = RestartPolicy { autorestart: false, ..RestartPolicy::DEFAULT };
        assert_eq!(Crashes::default().after(ended(None), &never, at(0)), RestartDecision::Stopped);
    }

    proptest! {
        #[test]
        fn no_row_of_crashes_leaves_the_bounds(
            lives in prop::collection::vec((prop::option::of(0..2_000_u64), 0..100_000_u64), 1..100),
            jitter: f64,
        ) {
            let policy = RestartPolicy::DEFAULT;
            let mut crashes = Crashes::default();
            let mut now = 0;
            for (served, pause) in lives {
                now += pause;
                let decision = crashes.after(Ended { jitter, ..ended(served) }, &policy, at(now));
                prop_assert!(crashes.recent.len() <= 101);
                if let RestartDecision::Restart(delay) = decision {
                    prop_assert!(delay <= policy.longest_delay);
                    prop_assert_eq!(delay.is_zero(), crashes.in_a_row() == 0);
                }
            }
        }
    }
}
