//! When to start a worker again after one has died.
//!
//! Pure: facts in, a delay out.

use std::time::Duration;

/// How patient the supervisor is with workers that die. The names in brackets are PM2's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Whether a worker that dies is followed by another (`autorestart`).
    pub autorestart: bool,
    /// Exit codes after which none follows (`stop_exit_codes`).
    pub stop_exit_codes: Vec<i32>,
    /// The delay after any death (`restart_delay`).
    pub restart_delay: Duration,
    /// The first delay after a death that came too soon; it doubles with each that follows
    /// (`exp_backoff_restart_delay`).
    pub first_delay: Duration,
    /// The longest delay.
    pub longest_delay: Duration,
    /// A worker that served for so long has done well: the next is started at once.
    pub min_uptime: Duration,
    /// So many deaths within the window, and the slot is given up (`max_restarts`).
    pub max_restarts: u32,
    /// The window.
    pub restart_window: Duration,
    /// When no worker at all has become ready after so many deaths in each slot, the start failed.
    pub start_attempts: u32,
}

impl RestartPolicy {
    /// What holds unless something else is said.
    pub const DEFAULT: Self = Self {
        autorestart: true,
        stop_exit_codes: Vec::new(),
        restart_delay: Duration::ZERO,
        first_delay: Duration::from_millis(100),
        longest_delay: Duration::from_secs(15),
        min_uptime: Duration::from_secs(1),
        max_restarts: 16,
        restart_window: Duration::from_secs(15 * 60),
        start_attempts: 3,
    };
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A slot's deaths in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deaths {
    streak: u32,
}

impl Deaths {
    /// Notes a death of a worker that served for `served`, or never got ready, and says how long to
    /// wait before the next is started. `jitter`, from 0 to 1, keeps slots from moving in step: it
    /// takes away up to half of the delay.
    pub fn after_death(
        &mut self,
        policy: &RestartPolicy,
        served: Option<Duration>,
        jitter: f64,
    ) -> Duration {
        if served.is_some_and(|served| served >= policy.min_uptime) {
            self.streak = 0;
            return Duration::ZERO;
        }
        let doublings = 2_u32.saturating_pow(self.streak.min(31));
        self.streak = self.streak.saturating_add(1);
        let delay = policy.first_delay.saturating_mul(doublings).min(policy.longest_delay);
        delay.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// Deaths that came too soon, one after the other.
    #[must_use]
    pub fn in_a_row(self) -> u32 {
        self.streak
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_start_anew_after_a_good_time() {
        let policy = RestartPolicy::default();
        let mut deaths = Deaths::default();
        let mut next = |served: Option<u64>| {
            let served = served.map(Duration::from_millis);
            deaths.after_death(&policy, served, 0.0).as_millis()
        };
        assert_eq!([next(None), next(Some(999)), next(None)], [100, 200, 400]);
        assert_eq!((0..10).map(|_| next(None)).last(), Some(15_000));
        assert_eq!(next(Some(1_000)), 0);
        assert_eq!(next(None), 100);
    }

    proptest! {
        #[test]
        fn no_row_of_deaths_leaves_the_bounds(
            served in prop::collection::vec(prop::option::of(0..2_000_u64), 1..100), jitter: f64,
        ) {
            let policy = RestartPolicy::default();
            let mut deaths = Deaths::default();
            for served in served {
                let served = served.map(Duration::from_millis);
                let delay = deaths.after_death(&policy, served, jitter);
                prop_assert!(delay <= policy.longest_delay);
                prop_assert!(delay.is_zero() == (deaths.in_a_row() == 0));
            }
        }
    }
}
