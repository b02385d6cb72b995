//! The descriptors that a primary leaves to its successor, each with a name: to the program that it
//! becomes by an upgrade, or, by copies that the keeper or systemd holds, to the one that follows its
//! crash.
//!
//! Only names and holds them. The parts that own them convert themselves.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::{fmt, io};

use crate::closing::Deferred;
use crate::protocol::ids::{Generation, SlotId, WorkerId};

/// The name of the listener.
pub const LISTENER: &str = "listener";

/// A variable may not be longer than 128 KiB: names that don't fit into `LISTEN_FDNAMES` go on in
/// variables of this name and a number, from 1.
pub const MORE_NAMES: &str = "STICKY_LB_FDNAMES_";

/// A descriptor of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkerPart {
    /// Part of the link to it, by the name that the link's dialect gives.
    Link(&'static str),
    /// The pidfd of its process.
    Process,
    /// The read end of its standard output.
    Stdout,
    /// The read end of its standard error.
    Stderr,
}

impl WorkerPart {
    fn word(self) -> &'static str {
        match self {
            Self::Link(name) => name,
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

/// Why a part cannot be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// A descriptor is missing.
    #[error("descriptor {0} of the primary before is missing")]
    Missing(String),
    /// A descriptor is not what its name says.
    #[error("descriptor {name} of the primary before cannot be used")]
    Unusable {
        /// Its name.
        name: String,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// A snapshot contradicts itself.
    #[error("snapshot of {0} is malformed")]
    Malformed(&'static str),
}

/// The store for copies of descriptors that a successor gets after a crash. Never fails and never waits.
pub trait DescriptorKeeper: fmt::Debug + Send {
    /// Stores a copy of `descriptor`. A name is to be used once, unless it was removed.
    fn keep(&self, name: &str, descriptor: BorrowedFd<'_>);

    /// Removes the descriptor of that name.
    fn remove(&self, name: &str);
}

/// Descriptors by their names. Dropping it closes them.
#[derive(Debug, Default)]
pub struct Descriptors {
    named: BTreeMap<String, Deferred>,
}

impl Descriptors {
    /// Adds one. Of two with the same name, the later one stays.
    pub fn insert(&mut self, name: impl Into<String>, descriptor: impl Into<OwnedFd>) {
        self.named.insert(name.into(), descriptor.into().into());
    }

    /// Takes one out.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        self.named.remove(name).map(Deferred::into_inner)
    }

    /// Takes out one that must be there.
    ///
    /// # Errors
    ///
    /// If it is missing.
    pub fn require(&mut self, name: &str) -> Result<OwnedFd, RestoreError> {
        self.take(name).ok_or_else(|| RestoreError::Missing(name.to_owned()))
    }

    /// Whether one is there.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.named.contains_key(name)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, impl AsFd + '_)> {
        self.named.iter().map(|(name, descriptor)| (name.as_str(), descriptor))
    }

    /// The workers of which at least that part is there.
    #[must_use]
    pub fn workers_with(&self, part: WorkerPart) -> Vec<WorkerId> {
        self.named.keys().filter_map(|name| worker(name, part)).collect()
    }

    /// Whether nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }
}

/// The worker whose `part` has that name, if it is one.
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
        let channel = WorkerPart::Link("channel");
        for part in [channel, WorkerPart::Process, WorkerPart::Stdout, WorkerPart::Stderr] {
            assert_eq!(worker(&part.name(id), part), Some(id));
        }
        for wrong in ["channel", "channel.", "channel.1", "channel.1.x", "channels.1.2", "listener"]
        {
            assert_eq!(worker(wrong, channel), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_taken_is_gone() {
        let mut descriptors = Descriptors::default();
        let id = WorkerId { slot: SlotId(0), generation: Generation(1) };
        let null = || std::fs::File::open("/dev/null").unwrap();
        let channel = WorkerPart::Link("channel");
        descriptors.insert(channel.name(id), null());
        descriptors.insert("listener", null());
        assert_eq!(descriptors.workers_with(channel), [id]);
        assert!(descriptors.take("listener").is_some());
        assert!(descriptors.take("listener").is_none());
        assert_eq!(descriptors.iter().count(), 1);
    }
}
