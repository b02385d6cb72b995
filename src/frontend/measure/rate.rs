//! How often something happens in a second, without a timer: the time comes with what happens.
//!
//! Counts by whole seconds and keeps the last one. What is told is the second that ends now: all of
//! this one so far, and of the last one the share that still lies within. Pure.

use crate::handover::carry;
use crate::handover::frontend::RateSnapshot;
use crate::protocol::ids::Timestamp;

const SECOND: u64 = 1_000_000_000;

/// Counts by the second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// The second that is counted now.
    second: u64,
    current: u64,
    last: u64,
}

carry!(struct Rate => RateSnapshot { second, current, last });

impl Rate {
    /// It has happened so often now.
    pub fn count(&mut self, times: u64, now: Timestamp) {
        let second = now.0 / SECOND;
        if second != self.second {
            (self.last, self.current) = self.counted_until(second);
            self.second = second;
        }
        self.current += times;
    }

    /// How often it happened in the second before now.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of a second are far below 2^53")]
    pub fn per_second(&self, now: Timestamp) -> f64 {
        let (last, current) = self.counted_until(now.0 / SECOND);
        let still_within = (SECOND - now.0 % SECOND) as f64 / SECOND as f64;
        current as f64 + last as f64 * still_within
    }

    /// The counts of the second before this one, and of this one.
    fn counted_until(&self, second: u64) -> (u64, u64) {
        match second.saturating_sub(self.second) {
            0 => (self.last, self.current),
            1 => (self.current, 0),
            _ => (0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp(millis * 1_000_000)
    }

    #[test]
    fn tells_of_the_second_that_ends_now() {
        // What happened when (in milliseconds), and what is told when.
        type Case<'a> = (&'a [(u64, u64)], u64, f64);
        let cases: [Case<'_>; 10] = [
            (&[], 5_000, 0.0),
            (&[(0, 7)], 0, 7.0),
            (&[(5_000, 10)], 5_000, 10.0),
            (&[(5_000, 10)], 5_999, 10.0),
            (&[(5_000, 10)], 6_000, 10.0),
            (&[(5_000, 10)], 6_250, 7.5),
            (&[(5_000, 10)], 7_000, 0.0),
            (&[(5_000, 10), (6_100, 4)], 6_500, 9.0),
            (&[(5_000, 10), (6_100, 4)], 7_500, 2.0),
            (&[(5_000, 10), (9_000, 4)], 9_500, 4.0),
        ];
        for (happened, when, expected) in cases {
            let mut rate = Rate::default();
            for (millis, times) in happened {
                rate.count(*times, at(*millis));
            }
            let told = rate.per_second(at(when));
            assert!((told - expected).abs() < 1e-9, "{happened:?} at {when}: {told}");
        }
    }

    proptest! {
        #[test]
        fn what_is_regular_is_told_as_it_is(each_second in 1..500_u64, millis in 2_000..9_000_u64) {
            let mut rate = Rate::default();
            let moments = (0..).map(|n| n * 1_000 / each_second);
            for moment in moments.take_while(|moment| *moment <= millis) {
                rate.count(1, at(moment));
            }
            let told = rate.per_second(at(millis));
            let expected = f64::from(u32::try_from(each_second).unwrap());
            prop_assert!((told - expected).abs() <= 2.0, "{told} instead of {expected}");
        }
    }
}
