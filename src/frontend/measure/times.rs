//! How long something takes, counted in buckets: since the start, and lately.
//!
//! Fixed in size: recording allocates nothing. Buckets are 1 µs wide at first and then an eighth of
//! their octave, so that a time is told too long by no more than 12.5 %. Pure.

use std::time::Duration;

use crate::frontend::query::Quantiles;
use crate::handover::carry;
use crate::handover::frontend::{RecentTimesSnapshot, TimesSnapshot, WindowSnapshot};
use crate::protocol::ids::Timestamp;

/// Buckets an octave.
const EACH_OCTAVE: usize = 8;
/// Octaves that are told apart; what takes longer, 18 minutes, counts in the last bucket.
const OCTAVES: usize = 27;
const BUCKETS: usize = EACH_OCTAVE * (OCTAVES + 1);

/// Where a time counts: found once, however often it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket(usize);

impl Bucket {
    /// That of a time.
    #[must_use]
    pub fn of(time: Duration) -> Self {
        let micros = usize::try_from(time.as_micros()).unwrap_or(usize::MAX);
        let Some(octave) = (micros / EACH_OCTAVE).checked_ilog2() else { return Self(micros) };
        let within = (micros >> octave) % EACH_OCTAVE;
        Self(((octave as usize + 1) * EACH_OCTAVE + within).min(BUCKETS - 1))
    }

    /// Its upper bound, exclusive.
    fn bound(self) -> Duration {
        let next = self.0 + 1;
        let octave = (next / EACH_OCTAVE).saturating_sub(1);
        let within = next - octave * EACH_OCTAVE;
        Duration::from_micros((within as u64) << octave)
    }
}

/// How many took how long.
#[derive(Clone, Debug)]
pub struct Times {
    counts: [u64; BUCKETS],
}

carry!(struct Times => TimesSnapshot { counts });

impl Default for Times {
    fn default() -> Self {
        Self { counts: [0; BUCKETS] }
    }
}

impl Times {
    /// One has taken that long.
    pub fn record(&mut self, time: Bucket) {
        self.counts[time.0] += 1;
    }

    /// Buckets that aren't empty: upper bounds, rising, and the count of each alone.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let all = (0..).map(Bucket).zip(self.counts);
        all.filter(|(_, count)| *count > 0).map(|(bucket, count)| (bucket.bound(), count))
    }

    fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// The upper bound of the bucket of the `rank`th one, counted from 1.
    fn nth(&self, rank: u64) -> Option<Duration> {
        let mut seen = 0;
        let reached = |count: &u64| {
            seen += count;
            rank > 0 && seen >= rank
        };
        self.counts.iter().position(reached).map(|index| Bucket(index).bound())
    }
}

/// How long a window lasts, of which the last two are told.
const WINDOW: u64 = 10_000_000_000;

/// How many took how long in the last 10 to 20 seconds.
#[derive(Clone, Debug, Default)]
pub struct RecentTimes {
    windows: [Window; 2],
}

carry!(struct RecentTimes => RecentTimesSnapshot { windows });

#[derive(Clone, Debug, Default)]
struct Window {
    number: u64,
    times: Times,
}

carry!(struct Window => WindowSnapshot { number, times });

impl RecentTimes {
    /// One has taken that long, until now.
    pub fn record(&mut self, time: Bucket, now: Timestamp) {
        let number = now.0 / WINDOW;
        let window = &mut self.windows[usize::from(number % 2 == 1)];
        if window.number != number {
            *window = Window { number, times: Times::default() };
        }
        window.times.record(time);
    }

    /// The quantiles of recent times.
    #[must_use]
    pub fn quantiles(&self, now: Timestamp) -> Quantiles {
        let number = now.0 / WINDOW;
        let lately = |window: &&Window| number.saturating_sub(window.number) <= 1;
        let mut times = Times::default();
        self.windows.iter().filter(lately).for_each(|window| times.add(&window.times));
        let total = times.counts.iter().sum::<u64>();
        Quantiles { p50: times.nth(total.div_ceil(2)), p99: times.nth(total - total / 100) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp(0) + Duration::from_secs(seconds)
    }

    fn bound(index: usize) -> Duration {
        Bucket(index).bound()
    }

    fn record(recent: &mut RecentTimes, time: Duration, now: Timestamp) {
        recent.record(Bucket::of(time), now);
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        assert_eq!(bound(0), micros(1));
        assert_eq!(bound(7), micros(8));
        assert_eq!(bound(8), micros(9));
        assert_eq!(bound(15), micros(16));
        assert_eq!(bound(16), micros(18));
        assert_eq!(bound(BUCKETS - 1), micros(1 << 30));
        for index in 0..BUCKETS - 1 {
            assert!(bound(index) < bound(index + 1));
            assert_eq!(
                Bucket::of(bound(index)),
                Bucket(index + 1),
                "the first one that is too long"
            );
            let last = bound(index) - Duration::from_nanos(1);
            assert_eq!(Bucket::of(last), Bucket(index), "the last one in it");
        }
        assert_eq!(Bucket::of(Duration::MAX), Bucket(BUCKETS - 1));
    }

    #[test]
    fn quantiles_are_of_the_last_two_windows() {
        let mut recent = RecentTimes::default();
        assert_eq!(recent.quantiles(at(0)), Quantiles::default());
        for _ in 0..99 {
            record(&mut recent, micros(100), at(12));
        }
        record(&mut recent, micros(50_000), at(12));
        let both = |p50, p99| Quantiles { p50: Some(micros(p50)), p99: Some(micros(p99)) };
        assert_eq!(recent.quantiles(at(12)), both(104, 104));
        record(&mut recent, micros(50_000), at(21));
        assert_eq!(recent.quantiles(at(29)), both(104, 53_248));
        assert_eq!(recent.quantiles(at(30)), both(53_248, 53_248), "the first window is over");
        assert_eq!(recent.quantiles(at(40)), Quantiles::default());
        record(&mut recent, micros(3), at(41));
        assert_eq!(recent.quantiles(at(41)), both(4, 4));
    }

    #[test]
    fn one_alone_is_both_quantiles() {
        let mut recent = RecentTimes::default();
        record(&mut recent, Duration::ZERO, at(0));
        let first = Some(micros(1));
        assert_eq!(recent.quantiles(at(0)), Quantiles { p50: first, p99: first });
    }

    proptest! {
        #[test]
        fn each_is_in_one_bucket_that_is_little_longer(
            nanos in prop::collection::vec(0..600_000_000_000_u64, 1..50),
        ) {
            let mut times = Times::default();
            for nanos in &nanos {
                let time = Duration::from_nanos(*nanos);
                times.record(Bucket::of(time));
                let bound = Bucket::of(time).bound();
                prop_assert!(time < bound);
                prop_assert!(bound <= time.mul_f64(1.125) + micros(2), "{time:?} in {bound:?}");
            }
            prop_assert_eq!(times.buckets().map(|(_, count)| count).sum::<u64>(), nanos.len() as u64);
            prop_assert!(times.buckets().is_sorted());
        }

        #[test]
        fn quantiles_are_what_a_sorted_list_says(
            mut list in prop::collection::vec(1..10_000_000_u64, 1..300),
        ) {
            let mut recent = RecentTimes::default();
            for time in &list {
                record(&mut recent, micros(*time), at(5));
            }
            list.sort_unstable();
            let Quantiles { p50: Some(p50), p99: Some(p99) } = recent.quantiles(at(5)) else {
                panic!("there were some")
            };
            let nth = |percent: usize| list[(list.len() * percent).div_ceil(100) - 1];
            for (told, exact) in [(p50, micros(nth(50))), (p99, micros(nth(99)))] {
                prop_assert!(told > exact && told <= exact.mul_f64(1.125) + micros(2));
            }
        }
    }
}
