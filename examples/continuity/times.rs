//! How long things took, in a fixed size.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sticky_lb::internals::frontend::measure::times::{Bucket, Times};
use tokio::time::Duration;

/// Times of which the longest is known exactly, and all others to an eighth.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(from = "Record", into = "Record")]
pub(crate) struct Durations {
    times: Times,
    longest: Duration,
}

/// The same for another process, in microseconds.
#[derive(Deserialize, Serialize)]
struct Record {
    longest: u64,
    /// Upper bounds, exclusive, and how many times lie below each and not below the one before.
    buckets: Vec<(u64, u64)>,
}

impl From<Record> for Durations {
    fn from(record: Record) -> Self {
        let mut durations = Self::default();
        for (bound, count) in record.buckets {
            durations.record_below(Duration::from_micros(bound), count);
        }
        durations.longest = Duration::from_micros(record.longest);
        durations
    }
}

impl From<Durations> for Record {
    fn from(durations: Durations) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let buckets = durations.times.buckets().map(|(bound, count)| (micros(bound), count));
        Self { longest: micros(durations.longest), buckets: buckets.collect() }
    }
}

impl Durations {
    pub(crate) fn record(&mut self, time: Duration) {
        self.times.record(Bucket::of(time));
        self.longest = self.longest.max(time);
    }

    /// Those of another process as well.
    pub(crate) fn add(&mut self, other: &Self) {
        other.times.buckets().for_each(|(bound, count)| self.record_below(bound, count));
        self.longest = self.longest.max(other.longest);
    }

    /// So many of the bucket with this upper bound.
    fn record_below(&mut self, bound: Duration, count: u64) {
        let bucket = Bucket::of(bound.saturating_sub(Duration::from_micros(1)));
        (0..count).for_each(|_| self.times.record(bucket));
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.times.buckets().map(|(_, count)| count).sum()
    }

    /// What this share of them took no longer than; zero if there are none.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let total = self.count();
        let mut seen = 0;
        let reached = self.times.buckets().find(|(_, count)| {
            seen += count;
            seen as f64 >= total as f64 * share
        });
        reached.map_or(Duration::ZERO, |(bound, _)| bound.min(self.longest))
    }

    /// In milliseconds.
    pub(crate) fn report(&self) -> Value {
        json!({
            "count": self.count(),
            "p50_ms": milliseconds(self.quantile(0.5)),
            "p99_ms": milliseconds(self.quantile(0.99)),
            "max_ms": milliseconds(self.longest),
        })
    }

    /// For people.
    pub(crate) fn words(&self) -> String {
        let [p50, p99] = [0.5, 0.99].map(|share| milliseconds(self.quantile(share)));
        format!("p50 {p50:.1} ms · p99 {p99:.1} ms · max {:.1} ms", milliseconds(self.longest))
    }
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_all_that_were_recorded() {
        let mut times = Durations::default();
        assert_eq!(times.quantile(0.5), Duration::ZERO);
        (1..=100).for_each(|n| times.record(Duration::from_millis(n)));
        let near = |share, wanted: f64| {
            let found = milliseconds(times.quantile(share));
            assert!((wanted..=wanted * 1.13).contains(&found), "{found} for {wanted}");
        };
        near(0.5, 50.0);
        near(0.99, 99.0);
        assert_eq!(times.quantile(1.0), Duration::from_millis(100));
    }

    #[test]
    fn times_of_two_processes_are_added_up() {
        let mut times = Durations::default();
        for micros in [1, 7, 90, 90, 40_000] {
            times.record(Duration::from_micros(micros));
        }
        let text = serde_json::to_string(&times).expect("text");
        let mut both: Durations = serde_json::from_str(&text).expect("the same");
        assert_eq!(both.report(), times.report());
        both.add(&times);
        assert_eq!((both.count(), both.quantile(0.5)), (10, times.quantile(0.5)));
    }
}
