//! How the supervisor gets to know a worker's load: one line a dialect.

use std::io;

use crate::link::Link;
use crate::link::native::NativeStats;
use crate::link::stats::WorkerStats;

/// Where a worker's counts come from.
#[derive(Debug, Default)]
pub enum StatsSource {
    /// The page that it shares with the primary.
    Native(NativeStats),
    /// Its dialect tells nothing.
    #[default]
    None,
}

impl StatsSource {
    /// The source for the worker at the other end of `link`.
    ///
    /// # Errors
    ///
    /// If its memory cannot be mapped.
    pub fn new(link: &Link) -> io::Result<Self> {
        match link {
            Link::Native(channel) => NativeStats::open(channel.page()).map(Self::Native),
            Link::Node(channel) => NativeStats::open(channel.page()).map(Self::Native),
            Link::Listen(channel) => NativeStats::open(channel.page()).map(Self::Native),
            Link::Undecided(both) => match both.page() {
                Some(page) => NativeStats::open(page).map(Self::Native),
                None => Ok(Self::None),
            },
        }
    }

    /// The counts at this moment. Never trusted: a worker may write any number.
    #[must_use]
    pub fn read(&self) -> WorkerStats {
        match self {
            Self::Native(native) => native.read(),
            Self::None => WorkerStats::default(),
        }
    }

    /// Tells the worker that everything is to end, so that its health checks fail, where its dialect
    /// has a way to. Connections still come for a while.
    pub fn note_stopping(&self) {
        match self {
            Self::Native(native) => native.note_stopping(),
            Self::None => {}
        }
    }

    /// Notes how many clients a worker has that doesn't say so itself.
    pub fn note_clients(&self, count: u64) {
        match self {
            Self::Native(native) => native.note_clients(count),
            Self::None => {}
        }
    }

    /// Whether the worker has attached, as far as its dialect has to.
    #[must_use]
    pub fn has_attached(&self) -> bool {
        match self {
            Self::Native(native) => native.has_attached(),
            Self::None => true,
        }
    }

    /// Whether the worker was told to drain, by this primary or by the one before.
    #[must_use]
    pub fn is_drain_ordered(&self) -> bool {
        match self {
            Self::Native(native) => native.is_drain_ordered(),
            Self::None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_tells_nothing_has_no_counts() {
        let source = StatsSource::default();
        source.note_stopping();
        assert_eq!((source.read(), source.is_drain_ordered()), (WorkerStats::default(), false));
    }
}
