//! How long things took, in a fixed size.

use serde_json::{Value, json};
use sticky_lb::internals::frontend::measure::times::{Bucket, Times};
use tokio::time::Duration;

/// Times of which the longest is known exactly, and all others to an eighth.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies {
    times: Times,
    longest: Duration,
}

impl Latencies {
    pub(crate) fn record(&mut self, time: Duration) {
        self.times.record(Bucket::of(time));
        self.longest = self.longest.max(time);
    }

    /// What this share of them took no longer than, in milliseconds; nothing if there are none.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let total: u64 = self.times.buckets().map(|(_, count)| count).sum();
        let mut seen = 0;
        let mut buckets = self.times.buckets();
        let reached = buckets.find(|(_, count)| {
            seen += count;
            seen as f64 >= total as f64 * share
        });
        reached.map(|(bound, _)| milliseconds(bound.min(self.longest)))
    }

    pub(crate) fn report(&self) -> Value {
        json!({
            "p50": self.quantile(0.5),
            "p90": self.quantile(0.9),
            "p99": self.quantile(0.99),
            "p999": self.quantile(0.999),
            "max": self.quantile(1.0),
        })
    }

    /// Upper bounds in milliseconds, with the number of each alone.
    pub(crate) fn histogram(&self) -> Vec<(f64, u64)> {
        let buckets = self.times.buckets();
        buckets.map(|(bound, count)| (milliseconds(bound), count)).collect()
    }

    /// For people.
    pub(crate) fn words(&self) -> String {
        let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|share| words(self.quantile(share)));
        format!("p50 {p50}, p99 {p99}, longest {longest}")
    }

    /// A bar for each octave.
    pub(crate) fn bars(&self) -> Vec<String> {
        const WIDTH: u64 = 40;
        // Up to 1, 2, 4, 8 … milliseconds; what is longer than a minute is in the last.
        let mut octaves = [0; 18];
        for (bound, count) in self.histogram() {
            let octave = (0..17).find(|octave| bound <= f64::from(1_u32 << octave)).unwrap_or(17);
            octaves[octave] += count;
        }
        let most = octaves.iter().copied().max().unwrap_or_default().max(1);
        let first = octaves.iter().position(|count| *count > 0).unwrap_or(octaves.len());
        let last = octaves.iter().rposition(|count| *count > 0).unwrap_or_default();
        (first..octaves.len().min(last + 1))
            .map(|octave| {
                let count = octaves[octave];
                let width = usize::try_from((count * WIDTH).div_ceil(most)).unwrap_or_default();
                format!("up to {:>6} ms {:<40} {count}", 1_u32 << octave, "#".repeat(width))
            })
            .collect()
    }
}

/// Milliseconds for people.
pub(crate) fn words(time: Option<f64>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{time:.1} ms"))
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
