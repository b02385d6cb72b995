//! How the connections ended that were open in a worker when its end began.
//!
//! Pure: counts what the worker and the primary have noted. What a worker writes may be anything, and does
//! no harm here.

use std::fmt;

use crate::handover::carry;
use crate::handover::pool::EndedConnectionsSnapshot;
use crate::link::stats::WorkerStats;

/// Connections that were open in workers when their ends began, by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndedConnections {
    /// All of them.
    pub open: u64,
    /// By their clients, or as their handlers were done with them.
    pub finished: u64,
    /// They have gone on in another worker.
    pub migrated: u64,
    /// With a close frame.
    pub closed: u64,
    /// Their worker crashed, and another one goes on with them if they were at rest: sessions that are
    /// protected. What has become of them is counted apart.
    pub protected: u64,
    /// Without a word, in whatever they were doing.
    pub cut: u64,
}

carry!(struct EndedConnections => EndedConnectionsSnapshot { open, finished, migrated, closed, protected, cut });

impl EndedConnections {
    /// Those of a worker whose process has ended, by what it has left on its page.
    pub(super) fn new(stats: &WorkerStats) -> Self {
        let [left, open_at_drain, migrated, closed, protected, cut] = [
            stats.connections,
            stats.open_at_drain,
            stats.migrated,
            stats.closed,
            stats.protected,
            stats.cut,
        ]
        .map(count);
        let protected = protected.min(left);
        let cut = cut.saturating_add(left - protected);
        let ended = [migrated, closed, protected, cut].into_iter().fold(0, u64::saturating_add);
        let open = open_at_drain.max(ended);
        Self { open, finished: open - ended, migrated, closed, protected, cut }
    }

    /// Adds those of another worker.
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, count) in [
            (&mut self.open, other.open),
            (&mut self.finished, other.finished),
            (&mut self.migrated, other.migrated),
            (&mut self.closed, other.closed),
            (&mut self.protected, other.protected),
            (&mut self.cut, other.cut),
        ] {
            *sum = sum.saturating_add(count);
        }
    }

    /// By a word for how they ended.
    #[must_use]
    pub fn by_result(&self) -> [(&'static str, u64); 5] {
        [
            ("finished", self.finished),
            ("migrated", self.migrated),
            ("closed", self.closed),
            ("protected", self.protected),
            ("cut", self.cut),
        ]
    }
}

/// A count that a worker has written. One that has counted down below 0 has none.
fn count(count: Option<u64>) -> u64 {
    count.filter(|count| *count < u64::from(u32::MAX)).unwrap_or(0)
}

/// `8 open: 3 closed, 5 cut`.
impl fmt::Display for EndedConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} open", self.open)?;
        let ended = self.by_result().into_iter().filter(|(_, count)| *count > 0);
        for (place, (word, count)) in ended.enumerate() {
            write!(f, "{} {count} {word}", if place == 0 { ":" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(left: u64, open_at_drain: u64, ends: [u64; 4]) -> WorkerStats {
        let [migrated, closed, protected, cut] = ends.map(Some);
        let (connections, open_at_drain) = (Some(left), Some(open_at_drain));
        WorkerStats {
            connections,
            open_at_drain,
            migrated,
            closed,
            protected,
            cut,
            ..WorkerStats::default()
        }
    }

    #[test]
    fn each_connection_is_counted_once() {
        let table = [
            // Nothing at all, and a worker that says nothing.
            (stats(0, 0, [0; 4]), "0 open"),
            (WorkerStats::default(), "0 open"),
            // Killed with eight, of which three are protected.
            (stats(8, 0, [0; 4]), "8 open: 8 cut"),
            (stats(8, 0, [0, 0, 3, 0]), "8 open: 3 protected, 5 cut"),
            // Drained.
            (stats(0, 9, [4, 3, 0, 0]), "9 open: 2 finished, 4 migrated, 3 closed"),
            // Killed at the end of its time, or ended by itself with some open.
            (stats(2, 9, [0, 3, 0, 0]), "9 open: 4 finished, 3 closed, 2 cut"),
            (stats(0, 9, [0, 3, 0, 6]), "9 open: 3 closed, 6 cut"),
            // Some came after the order.
            (stats(0, 1, [3, 0, 0, 0]), "3 open: 3 migrated"),
            // No number does harm.
            (stats(u64::MAX, u64::MAX, [u64::MAX; 4]), "0 open"),
            (stats(0, 0, [0, 0, 7, 0]), "0 open"),
        ];
        for (row, (stats, text)) in table.into_iter().enumerate() {
            let ended = EndedConnections::new(&stats);
            assert_eq!(ended.to_string(), text, "row {row}");
            let sum: u64 = ended.by_result().iter().map(|(_, count)| count).sum();
            assert_eq!(ended.open, sum, "row {row}");
        }
    }
}
