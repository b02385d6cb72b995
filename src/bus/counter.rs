//! The programs' common counter, in memory that an upgrade and a crash of the primary carry over.
//!
//! Never fails: without memory the counter is lost with the primary, and only then.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};

/// Its name among the descriptors of a successor.
pub const COUNTER: &str = "node-counter";

/// The counter.
#[derive(Debug, Default)]
pub(super) struct SharedCounter {
    value: u64,
    memory: Option<File>,
}

impl SharedCounter {
    /// Goes on with the memory of a primary before, or with new memory.
    pub(super) fn resume(memory: Option<OwnedFd>) -> Self {
        let memory = memory.map_or_else(create, Ok);
        let memory = memory.inspect_err(|error| {
            tracing::warn!(%error, "no memory for the programs' counter: a crash loses it");
        });
        let memory = memory.ok().map(File::from);
        let mut bytes = [0; 8];
        let is_read = memory.as_ref().is_some_and(|it| it.read_exact_at(&mut bytes, 0).is_ok());
        Self { value: if is_read { u64::from_le_bytes(bytes) } else { 0 }, memory }
    }

    /// The memory for a successor, if there is any.
    pub(super) fn memory(&self) -> Option<OwnedFd> {
        Some(self.memory.as_ref()?.try_clone().ok()?.into())
    }

    pub(super) fn value(&self) -> u64 {
        self.value
    }

    /// Writes it down. Memory that is there can always be written.
    pub(super) fn set(&mut self, value: u64) {
        if value == self.value {
            return;
        }
        self.value = value;
        if let Some(memory) = &self.memory {
            let _ = memory.write_all_at(&value.to_le_bytes(), 0);
        }
    }
}

fn create() -> io::Result<OwnedFd> {
    Ok(memfd_create("sticky-lb counter", MemfdFlags::CLOEXEC)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_goes_on_with_it() {
        let mut counter = SharedCounter::resume(None);
        assert_eq!(counter.value(), 0);
        counter.set(7);
        let next = SharedCounter::resume(counter.memory());
        assert_eq!(next.value(), 7);
    }
}
