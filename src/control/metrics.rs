//! Metrics in the text format of Prometheus.
//!
//! Nothing is recorded during hand-offs: each snapshot is rendered as a whole by a recorder of its
//! own. A removed slot has no series, and concurrent scrapes count nothing twice. Labels are slots and
//! words from fixed lists; the series of all words exist from the start.
//!
//! Names start with `sticky_lb_` and end with their unit; counters end with `_total`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::sync::Mutex;

use crate::control::links::Links;
use crate::control::snapshot::{Snapshot, Snapshots};
use crate::protocol::ids::Timestamp;
use crate::supervisor::pool::handle::Refusal;

mod frontend;
mod pool;
mod seconds;
mod slots;

/// Renders snapshots as text.
#[derive(Clone, Debug)]
pub struct Metrics {
    links: Links,
    snapshots: Snapshots,
    /// Start of the run, since 1970.
    started: Duration,
    /// The time of the last rendered snapshot, and its text. Locked while a new one is rendered.
    last: Arc<Mutex<Option<(Timestamp, Bytes)>>>,
}

impl Metrics {
    /// Metrics of the primary with these handles.
    #[must_use]
    pub fn new(links: Links, snapshots: Snapshots) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let started = now.saturating_sub(Timestamp::now().since(links.facts.started));
        Self { links, snapshots, started, last: Arc::default() }
    }

    /// The text of the current snapshot.
    ///
    /// # Errors
    ///
    /// If pool or frontend has ended.
    pub async fn text(&self) -> Result<Bytes, Refusal> {
        let snapshot = self.snapshots.take().await?;
        let mut last = self.last.lock().await;
        if let Some((_, text)) = last.as_ref().filter(|(at, _)| *at >= snapshot.at) {
            return Ok(text.clone());
        }
        let at = snapshot.at;
        let primary = Primary {
            started: self.started,
            dropped: self.links.output.dropped(),
            messages: self.links.bus.dropped(),
            upgrades: self.links.facts.replacements.upgrades,
            crashes: self.links.facts.replacements.recoveries,
        };
        // A thousand slots take some milliseconds: other clients are answered meanwhile.
        let render = move || Bytes::from(render(&snapshot, &primary));
        let text = tokio::task::spawn_blocking(render).await.map_err(|_| Refusal::Gone)?;
        *last = Some((at, text.clone()));
        Ok(text)
    }
}

/// Figures of the primary as a whole.
#[derive(Debug, Default)]
struct Primary {
    /// Start of the run, since 1970.
    started: Duration,
    /// Dropped lines of output.
    dropped: u64,
    /// Dropped messages of workers' programs, and messages to them.
    messages: (u64, u64),
    upgrades: u64,
    crashes: u64,
}

fn render(snapshot: &Snapshot, primary: &Primary) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        let version = ("version", env!("CARGO_PKG_VERSION"));
        labelled("sticky_lb_build_info", "Release of the primary.", [([version], 1.0)]);
        gauge(
            "sticky_lb_start_time_seconds",
            "Start of the primary since 1970; upgrades and crashes do not change it.",
            primary.started.as_secs_f64(),
        );
        count("sticky_lb_upgrades_total", "Upgrades of the primary in place.", primary.upgrades);
        count(
            "sticky_lb_primary_crashes_total",
            "Crashes of the primary after which a successor took over.",
            primary.crashes,
        );
        count(
            "sticky_lb_dropped_output_lines_total",
            "Lines of workers' output that were dropped.",
            primary.dropped,
        );
        counts(
            "sticky_lb_dropped_node_messages_total",
            "Messages of Node workers' programs that were dropped, and messages to these.",
            "direction",
            [("from", primary.messages.0), ("to", primary.messages.1)],
        );
        frontend::record(&snapshot.frontend);
        pool::record(&snapshot.pool);
        slots::record(snapshot);
    });
    in_order(&recorder.handle().render()) + &seconds::render(snapshot)
}

/// Sorts families by name and series by label, for readers.
fn in_order(text: &str) -> String {
    let mut families: Vec<Vec<&str>> =
        text.split("\n\n").map(|family| family.lines().collect()).collect();
    // `#` sorts before letters: `# HELP` and `# TYPE` precede their series.
    families.iter_mut().for_each(|lines| lines.sort_unstable());
    families.retain(|lines| !lines.is_empty());
    families.sort_unstable();
    families.iter().map(|lines| lines.join("\n") + "\n\n").collect()
}

/// A counter.
fn count(name: &'static str, help: &'static str, value: u64) {
    describe_counter!(name, help);
    counter!(name).absolute(value);
}

/// Counters by one label.
fn counts<V: ToString>(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    series: impl IntoIterator<Item = (V, u64)>,
) {
    describe_counter!(name, help);
    for (value, number) in series {
        counter!(name, label => value.to_string()).absolute(number);
    }
}

/// A gauge.
fn gauge(name: &'static str, help: &'static str, value: f64) {
    describe_gauge!(name, help);
    gauge!(name).set(value);
}

/// Gauges by their labels.
fn labelled<V: ToString, const N: usize>(
    name: &'static str,
    help: &'static str,
    series: impl IntoIterator<Item = ([(&'static str, V); N], f64)>,
) {
    describe_gauge!(name, help);
    for (labels, value) in series {
        let labels = labels.map(|(name, value)| (name, value.to_string()));
        gauge!(name, &labels).set(value);
    }
}

/// 1 for true, 0 for false.
fn flag(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::control::report::Status;
    use crate::frontend::query::FrontendFacts;
    use crate::protocol::ids::SlotId;
    use crate::supervisor::lifecycle::SlotState;
    use crate::supervisor::pool::status::{PoolStatus, SlotStatus};

    fn slot(number: u16) -> SlotStatus {
        SlotStatus {
            slot: SlotId(number),
            state: SlotState::Serving,
            weight: 1.0,
            crashes: 0,
            started: 1,
            delay: None,
            last_failure: None,
            connections_total: 0,
            requests_total: 0,
            workers: Vec::new(),
        }
    }

    #[test]
    fn each_slot_adds_as_many_series() {
        let series = |slots: u16| {
            let pool =
                PoolStatus { slots: (0..slots).map(slot).collect(), ..PoolStatus::default() };
            let snapshot = Snapshot {
                at: Timestamp(0),
                pool,
                frontend: FrontendFacts::default(),
                usage: HashMap::new(),
                cpu_time: HashMap::new(),
                status: Status::default(),
                workers: Vec::new(),
            };
            let begin = Timestamp::now();
            let text = render(&snapshot, &Primary::default());
            println!("{slots} slots: {} bytes in {:?}", text.len(), Timestamp::now().since(begin));
            text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count()
        };
        let (none, one, many) = (series(0), series(1), series(1024));
        assert_eq!(many - none, 1024 * (one - none));
        assert!(one - none < 25, "{}", one - none);
    }

    #[test]
    fn families_and_series_have_an_order() {
        let text = "# HELP b x\n# TYPE b gauge\nb{slot=\"1\"} 1\nb{slot=\"0\"} 1\n\n\
                    # HELP a x\n# TYPE a gauge\na 1\n\n";
        let expected = "# HELP a x\n# TYPE a gauge\na 1\n\n\
                        # HELP b x\n# TYPE b gauge\nb{slot=\"0\"} 1\nb{slot=\"1\"} 1\n\n";
        assert_eq!(in_order(text), expected);
    }
}
