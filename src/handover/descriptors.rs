//! The descriptors that a primary leaves to its successor, each with a name: to the program that it
//! becomes by an upgrade, or, through whoever keeps copies of them, to the one that follows its crash.
//!
//! Only names and holds them. What they belong to is written down by the parts that own it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::protocol::ids::{Generation, SlotId, WorkerId};

/// The name of the listener.
pub const LISTENER: &str = "listener";

/// What a descriptor of a worker is, in the name that it is kept by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkerPart {
    /// The primary's end of the channel.
    Channel,
    /// The worker's end.
    WorkerEnd,
    /// The scoreboard's memory.
    Scoreboard,
    /// The pidfd of its process.
    Process,
    /// The read end of its standard output.
    Stdout,
    /// The read end of its standard error.
    Stderr,
}

impl WorkerPart {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Channel,
        Self::WorkerEnd,
        Self::Scoreboard,
        Self::Process,
        Self::Stdout,
        Self::Stderr,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::WorkerEnd => "worker-end",
            Self::Scoreboard => "scoreboard",
            Self::Process => "process",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// The name of this part of a worker: `channel.3.7` in slot 3, generation 7.
    #[must_use]
    pub fn name(self, worker: WorkerId) -> String {
        format!("{}.{}.{}", self.word(), worker.slot, worker.generation)
    }
}

/// Why something cannot be taken over from the primary before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeOverError {
    /// A descriptor is missing.
    #[error("{0} was not left to this primary")]
    Missing(String),
    /// A descriptor is not what its name says.
    #[error("{name} that was left to this primary is of no use")]
    Unusable {
        /// Its name.
        name: String,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// What is written is not what was meant.
    #[error("what was written of {0} is not understood")]
    Malformed(&'static str),
}

/// Descriptors by their names. Dropping it closes them.
#[derive(Debug, Default)]
pub struct Descriptors {
    named: BTreeMap<String, OwnedFd>,
}

impl Descriptors {
    /// Adds one; of two with a name the later one stays.
    pub fn insert(&mut self, name: impl Into<String>, descriptor: impl Into<OwnedFd>) {
        self.named.insert(name.into(), descriptor.into());
    }

    /// Takes one out.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        self.named.remove(name)
    }

    /// Takes out one that must be there.
    ///
    /// # Errors
    ///
    /// If it isn't.
    pub fn require(&mut self, name: &str) -> Result<OwnedFd, TakeOverError> {
        self.take(name).ok_or_else(|| TakeOverError::Missing(name.to_owned()))
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, impl AsFd + '_)> {
        self.named.iter().map(|(name, descriptor)| (name.as_str(), descriptor))
    }

    /// Workers of which at least the channel is there.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerId> {
        self.named.keys().filter_map(|name| worker(name, WorkerPart::Channel)).collect()
    }

    /// Whether nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }
}

/// The worker whose `part` has that name.
fn worker(name: &str, part: WorkerPart) -> Option<WorkerId> {
    let (slot, generation) = name.strip_prefix(part.word())?.strip_prefix('.')?.split_once('.')?;
    let (slot, generation) = (SlotId(slot.parse().ok()?), Generation(generation.parse().ok()?));
    Some(WorkerId { slot, generation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workers_descriptors_are_found_by_their_names() {
        let id = WorkerId { slot: SlotId(3), generation: Generation(70) };
        for part in WorkerPart::ALL {
            assert_eq!(worker(&part.name(id), part), Some(id));
        }
        for wrong in ["channel", "channel.", "channel.1", "channel.1.x", "channels.1.2", "listener"]
        {
            assert_eq!(worker(wrong, WorkerPart::Channel), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_taken_is_gone() {
        let mut descriptors = Descriptors::default();
        let id = WorkerId { slot: SlotId(0), generation: Generation(1) };
        let null = || std::fs::File::open("/dev/null").unwrap();
        descriptors.insert(WorkerPart::Channel.name(id), null());
        descriptors.insert("listener", null());
        assert_eq!(descriptors.workers(), [id]);
        assert!(descriptors.take("listener").is_some());
        assert!(descriptors.take("listener").is_none());
        assert_eq!(descriptors.iter().count(), 1);
    }
}
