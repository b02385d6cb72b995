//! What has become of all messages.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};
use tokio::time::Duration;

use crate::latencies::Latencies;
use crate::options::Options;

/// Counts and times of all clients together.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Connections that are open.
    pub(crate) open: u64,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// Messages whose answer never came.
    pub(crate) lost: u64,
    /// Connections that the app has ended.
    pub(crate) disconnects: u64,
    /// Times that a session went on in another worker.
    pub(crate) moves: u64,
    failed: u64,
    last_failure: Option<String>,
    /// From when a message was due to its answer.
    pub(crate) latencies: Latencies,
    /// From when a message was due until it was sent: this program's own part.
    late: Latencies,
    connecting: Latencies,
    connections_by_slot: BTreeMap<u64, u64>,
}

impl Figures {
    pub(crate) fn opened(&mut self, took: Duration, slot: Option<u64>) {
        self.open += 1;
        self.connecting.record(took);
        self.served_by(slot);
    }

    pub(crate) fn served_by(&mut self, slot: Option<u64>) {
        if let Some(slot) = slot {
            *self.connections_by_slot.entry(slot).or_default() += 1;
        }
    }

    pub(crate) fn failed(&mut self, error: String) {
        self.failed += 1;
        self.last_failure = Some(error);
    }

    /// A connection was ended by its client, with so many messages that have no answer.
    pub(crate) fn closed(&mut self, away: usize) {
        self.open -= 1;
        self.lost += away as u64;
    }

    /// A connection was ended by the app.
    pub(crate) fn cut(&mut self, away: usize) {
        self.closed(away);
        self.disconnects += 1;
    }

    pub(crate) fn sent(&mut self, late: Duration) {
        self.sent += 1;
        self.late.record(late);
    }

    pub(crate) fn answered(&mut self, took: Duration) {
        self.answered += 1;
        self.latencies.record(took);
    }

    /// For programs.
    pub(crate) fn report(&self, options: &Options) -> Value {
        json!({
            "address": options.address,
            "connections": options.connections,
            "sources": options.sources,
            "seconds": options.seconds,
            "rate": options.rate,
            "sent": self.sent,
            "answered": self.answered,
            "answered_per_second": self.rate(options),
            "lost": self.lost,
            "disconnects": self.disconnects,
            "connections_failed": self.failed,
            "last_failure": self.last_failure,
            "moves": self.moves,
            "latency_ms": self.latencies.report(),
            "sent_late_ms": self.late.report(),
            "connecting_ms": self.connecting.report(),
            "histogram_ms": self.latencies.histogram(),
            "connections_by_slot": self.connections_by_slot,
            "problems": self.problems(options),
        })
    }

    fn rate(&self, options: &Options) -> f64 {
        (self.answered as f64 / options.seconds * 10.0).round() / 10.0
    }

    /// For people.
    pub(crate) fn summary(&self, options: &Options) -> String {
        let Self { sent, answered, lost, disconnects, failed, moves, .. } = self;
        let mut text = format!(
            "{answered} of {sent} messages answered, {:.0} a second of {} that were wanted, {lost} lost\n\
             {} connections from {}, {failed} failed, {disconnects} disconnected, {moves} moves\n",
            self.rate(options),
            options.rate,
            options.connections,
            match options.sources {
                0 => "the address that the kernel chose".to_owned(),
                1 => "1 address".to_owned(),
                sources => format!("{} addresses", sources.min(options.connections)),
            },
        );
        for (name, times) in [
            ("from due to answered", &self.latencies),
            ("sent late", &self.late),
            ("connecting", &self.connecting),
        ] {
            let _ = writeln!(text, "{name}: {}", times.words());
        }
        for bar in self.latencies.bars() {
            let _ = writeln!(text, "{bar}");
        }
        let all: u64 = self.connections_by_slot.values().sum();
        for (slot, count) in &self.connections_by_slot {
            let _ = writeln!(text, "slot {slot}: {count} connections, {} %", count * 100 / all);
        }
        text
    }

    /// What should not be; nothing if all is well.
    pub(crate) fn problems(&self, options: &Options) -> Vec<String> {
        let mut problems = Vec::new();
        if self.answered == 0 {
            problems.push("nothing was answered".to_owned());
        }
        for (count, what) in [
            (self.failed, "attempts to connect failed"),
            (self.lost, "messages were lost"),
            (self.disconnects, "connections were ended by the app"),
        ] {
            if count > 0 {
                problems.push(format!("{count} {what}"));
            }
        }
        if let Some(failure) = &self.last_failure {
            problems.push(format!("the last failure: {failure}"));
        }
        let p99 = self.latencies.quantile(0.99);
        if let (Some(limit), Some(p99)) = (options.p99, p99)
            && p99 > limit
        {
            problems.push(format!("p99 is {p99:.1} ms, more than {limit} ms"));
        }
        problems
    }
}
