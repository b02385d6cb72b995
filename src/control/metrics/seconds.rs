//! Metrics in seconds: the histogram of hand-off times, and CPU time.
//!
//! Rendered here: the facade's counters are whole numbers, and the exporter's histograms take each
//! sample one by one, millions between two scrapes.

use std::fmt::Write as _;
use std::time::Duration;

use crate::control::snapshot::Snapshot;

const HANDOFF: &str = "sticky_lb_handoff_seconds";
const HANDOFF_HELP: &str = "Time from accept to the worker's acknowledgement.";
const CPU: &str = "sticky_lb_worker_cpu_seconds_total";
const CPU_HELP: &str = "CPU time of a slot's workers and their child processes.";

/// Upper bounds of the buckets, and their text in seconds.
const BOUNDS: [(Duration, &str); 16] = [
    (Duration::from_micros(100), "0.0001"),
    (Duration::from_micros(250), "0.00025"),
    (Duration::from_micros(500), "0.0005"),
    (Duration::from_millis(1), "0.001"),
    (Duration::from_micros(2_500), "0.0025"),
    (Duration::from_millis(5), "0.005"),
    (Duration::from_millis(10), "0.01"),
    (Duration::from_millis(25), "0.025"),
    (Duration::from_millis(50), "0.05"),
    (Duration::from_millis(100), "0.1"),
    (Duration::from_millis(250), "0.25"),
    (Duration::from_millis(500), "0.5"),
    (Duration::from_secs(1), "1"),
    (Duration::from_millis(2_500), "2.5"),
    (Duration::from_secs(5), "5"),
    (Duration::from_secs(10), "10"),
];

/// Renders both families.
pub(super) fn render(snapshot: &Snapshot) -> String {
    let facts = &snapshot.frontend;
    let slots = snapshot.pool.slots.iter().map(|slot| slot.slot);
    let spent = slots.map(|slot| (slot.0, snapshot.cpu_time.get(&slot).copied()));
    handoffs(&facts.handoff_times, facts.handoff_total) + "\n" + &cpu(spent)
}

fn cpu(slots: impl Iterator<Item = (u16, Option<Duration>)>) -> String {
    let mut text = format!("# HELP {CPU} {CPU_HELP}\n# TYPE {CPU} counter\n");
    for (slot, spent) in slots {
        let seconds = spent.unwrap_or_default().as_secs_f64();
        // Writing to a string doesn't fail.
        let _ = writeln!(text, "{CPU}{{slot=\"{slot}\"}} {seconds}");
    }
    text
}

/// Renders hand-off times. `times` are upper bounds with counts; each sample counts as its bound.
fn handoffs(times: &[(Duration, u64)], total: Duration) -> String {
    let up_to = |bound: Duration| {
        times.iter().filter(|(time, _)| *time <= bound).map(|(_, count)| count).sum::<u64>()
    };
    let mut text = format!("# HELP {HANDOFF} {HANDOFF_HELP}\n# TYPE {HANDOFF} histogram\n");
    for (bound, seconds) in BOUNDS {
        let _ = writeln!(text, "{HANDOFF}_bucket{{le=\"{seconds}\"}} {}", up_to(bound));
    }
    let all = up_to(Duration::MAX);
    let _ = writeln!(text, "{HANDOFF}_bucket{{le=\"+Inf\"}} {all}");
    let _ = writeln!(text, "{HANDOFF}_sum {}\n{HANDOFF}_count {all}", total.as_secs_f64());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_as_they_are_and_rise() {
        for (bound, seconds) in BOUNDS {
            assert_eq!(seconds.parse(), Ok(bound.as_secs_f64()));
        }
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn each_bucket_holds_those_below_it() {
        let times = [
            (Duration::from_micros(90), 3),
            (Duration::from_millis(1), 2),
            (Duration::from_secs(30), 1),
        ];
        let text = handoffs(&times, Duration::from_millis(30_500));
        for line in [
            "_bucket{le=\"0.0001\"} 3",
            "_bucket{le=\"0.0005\"} 3",
            "_bucket{le=\"0.001\"} 5",
            "_bucket{le=\"10\"} 5",
            "_bucket{le=\"+Inf\"} 6",
            "_sum 30.5",
            "_count 6",
        ] {
            assert!(text.contains(&format!("{HANDOFF}{line}\n")), "{line} in {text}");
        }
    }
}
