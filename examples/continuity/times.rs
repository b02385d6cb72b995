//! How long things took, in a fixed size.

use serde_json::{Value, json};
use sticky_lb::internals::frontend::measure::times::{Bucket, Times};
use tokio::time::Duration;

/// Times of which the longest is known exactly, and all others to an eighth.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durations {
    times: Times,
    longest: Duration,
}

impl Durations {
    pub(crate) fn record(&mut self, time: Duration) {
        self.times.record(Bucket::of(time));
        self.longest = self.longest.max(time);
    }

    /// What this share of them took no longer than; zero if there are none.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let total: u64 = self.times.buckets().map(|(_, count)| count).sum();
        let mut seen = 0;
        let reached = self.times.buckets().find(|(_, count)| {
            seen += count;
            seen as f64 >= total as f64 * share
        });
        reached.map_or(Duration::ZERO, |(bound, _)| bound.min(self.longest))
    }

    /// In milliseconds.
    pub(crate) fn report(&self) -> Value {
        let count: u64 = self.times.buckets().map(|(_, count)| count).sum();
        json!({
            "count": count,
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
}
