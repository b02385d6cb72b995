//! A native worker's counts: its scoreboard, as the supervisor reads it.

use std::io;
use std::os::fd::BorrowedFd;

use crate::link::stats::WorkerStats;
use crate::protocol::scoreboard::{Counter, Scoreboard, SharedFlag};

/// No worker counts more, whatever it writes: all workers' counts can be added up.
const MAX_COUNT: u64 = 1 << 40;

/// A mapping of a worker's scoreboard.
#[derive(Debug)]
pub struct NativeStats {
    scoreboard: Scoreboard,
}

impl NativeStats {
    /// Maps the scoreboard that `page` stands for.
    ///
    /// # Errors
    ///
    /// If it is too short or cannot be mapped.
    pub fn open(page: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { scoreboard: Scoreboard::open(page)? })
    }

    pub(in crate::link) fn read(&self) -> WorkerStats {
        let count = |counter| Some(self.scoreboard.get(counter).min(MAX_COUNT));
        WorkerStats {
            connections: count(Counter::Connections),
            connections_total: count(Counter::ConnectionsTotal),
            websockets: count(Counter::WebSockets),
            sessions: count(Counter::Sessions),
            requests: count(Counter::Requests),
            requests_total: count(Counter::RequestsTotal),
            open_at_drain: count(Counter::OpenAtDrain),
            migrated: count(Counter::Migrated),
            closed: count(Counter::Closed),
            cut: count(Counter::Cut),
            protected: count(Counter::Protected),
        }
    }

    pub(in crate::link) fn note_stopping(&self) {
        self.scoreboard.increment(Counter::Stop);
    }

    pub(in crate::link) fn note_clients(&self, count: u64) {
        self.scoreboard.set(Counter::Connections, count);
    }

    pub(in crate::link) fn has_attached(&self) -> bool {
        self.scoreboard.has_flag(SharedFlag::Hello)
    }

    pub(in crate::link) fn is_drain_ordered(&self) -> bool {
        self.scoreboard.get(Counter::Drain) > 0
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn counts_of_nonsense_can_be_added_up() {
        let (page, file) = Scoreboard::create().unwrap();
        let stats = NativeStats::open(file.as_fd()).unwrap();
        page.set(Counter::Connections, u64::MAX);
        let connections = stats.read().connections.unwrap();
        let all = u64::from(u16::MAX) + 1;
        assert!(
            connections.checked_mul(all).is_some(),
            "one of {all} workers counts {connections}"
        );
    }

    #[test]
    fn the_scoreboard_is_read_and_written() {
        let (page, file) = Scoreboard::create().unwrap();
        let stats = NativeStats::open(file.as_fd()).unwrap();
        page.add(Counter::Connections, 2);
        page.add(Counter::RequestsTotal, 7);
        let read = stats.read();
        assert_eq!((read.connections, read.requests_total), (Some(2), Some(7)));
        assert!(!stats.is_drain_ordered());
        page.increment(Counter::Drain);
        stats.note_stopping();
        assert!(stats.is_drain_ordered() && page.get(Counter::Stop) == 1);
    }
}
