//! A rate limit: at most so many times within any second.
//!
//! Pure: the caller passes the time.

use std::time::Duration;

use crate::protocol::ids::Timestamp;

/// A steady pace. Late ones are made up for, but no more than a hundredth of a second's worth at
/// once.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Nanoseconds from one to the next.
    spacing: u64,
    /// How much of that may be made up for at once.
    slack: u64,
    /// When the next one would be due if all came when they were due.
    next: Timestamp,
}

impl Pace {
    /// So often in a second; a rate that is not a positive number counts as one in a thousand seconds.
    #[must_use]
    pub fn new(rate: f64) -> Self {
        let rate = if rate.is_finite() { rate.clamp(0.001, 1e6) } else { 0.001 };
        // Those that come at once are taken from the steady ones, so that no second has too many.
        let burst = (rate / 100.0).floor();
        let spacing = nanos(1.0 / (rate - burst));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10,000")]
        let slack = spacing * burst as u64;
        Self { spacing, slack, next: Timestamp(0) }
    }

    /// When the next one is due if all come when they are due.
    #[must_use]
    pub fn next(&self) -> Timestamp {
        self.next
    }

    /// At this rate from there on.
    #[must_use]
    pub fn from(rate: f64, next: Timestamp) -> Self {
        Self { next, ..Self::new(rate) }
    }

    /// When it may be done again.
    #[must_use]
    pub fn free_at(&self) -> Timestamp {
        Timestamp(self.next.0.saturating_sub(self.slack))
    }

    /// Whether it may be done now.
    #[must_use]
    pub fn is_free(&self, now: Timestamp) -> bool {
        now >= self.free_at()
    }

    /// It is done now.
    pub fn step(&mut self, now: Timestamp) {
        self.next = self.next.max(now) + Duration::from_nanos(self.spacing);
    }
}

/// Rounded up: a pace may be a little too slow, and never too fast.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1e3 to 1e12")]
fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9).ceil() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_second_has_too_many(
            rate in 1..5_000_u32, pauses in prop::collection::vec(0..20_000_000_u64, 100..400),
        ) {
            let (mut pace, mut now) = (Pace::new(rate.into()), Timestamp(1_000_000_000_000));
            let mut done = Vec::new();
            for pause in pauses {
                now = now + Duration::from_nanos(pause);
                while pace.is_free(now) {
                    pace.step(now);
                    done.push(now.0);
                }
            }
            for run in done.windows(rate as usize + 1) {
                prop_assert!(run[rate as usize] - run[0] >= 1_000_000_000, "more than {rate}");
            }
        }

        #[test]
        fn one_that_is_on_time_loses_next_to_nothing(rate in 1..5_000_u32) {
            let (mut pace, start) = (Pace::new(rate.into()), Timestamp(1_000_000_000_000));
            let mut done = 0;
            while pace.free_at().max(start).since(start) < Duration::from_secs(10) {
                pace.step(pace.free_at().max(start));
                done += 1;
            }
            prop_assert!(done > rate * 98 / 10, "{done} in ten seconds at {rate}");
        }
    }

    #[test]
    fn a_rate_that_is_none_stands_still() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let mut pace = Pace::new(rate);
            pace.step(Timestamp(0));
            assert!(!pace.is_free(Timestamp(999_000_000_000)), "{rate}");
        }
    }
}
