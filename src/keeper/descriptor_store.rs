//! The descriptors that the primary stores for the next one, by their names.
//!
//! Bounded: a descriptor that comes when it is full is closed, and logged once. Workers and clients have
//! had most of them, so that no thread that does anything else closes them.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::process::Pid;

use crate::closing::Deferred;

/// The most descriptors that are stored. A worker has six, so that there is room for two generations
/// of as many workers as there may be, and some.
const MAX_DESCRIPTORS: usize = 16_384;

/// The stored descriptors.
#[derive(Debug)]
pub(super) struct DescriptorStore {
    entries: Vec<Entry>,
    limit: usize,
    was_full: bool,
}

#[derive(Debug)]
struct Entry {
    name: String,
    descriptor: Deferred,
    /// The process, of a pidfd.
    process: Option<Pid>,
}

impl Default for DescriptorStore {
    fn default() -> Self {
        Self { entries: Vec::new(), limit: MAX_DESCRIPTORS, was_full: false }
    }
}

impl DescriptorStore {
    /// Stores them all by one name.
    pub(super) fn insert(
        &mut self,
        name: &str,
        descriptors: impl IntoIterator<Item = impl Into<Deferred>>,
    ) {
        for descriptor in descriptors.into_iter().map(Into::into) {
            if self.entries.len() >= self.limit {
                if !std::mem::replace(&mut self.was_full, true) {
                    tracing::error!(
                        name,
                        limit = self.limit,
                        "descriptor not stored: a crash of the primary would lose it"
                    );
                }
                return;
            }
            let process = process(descriptor.as_fd());
            self.entries.push(Entry { name: name.to_owned(), descriptor, process });
        }
    }

    /// Closes all that have that name.
    pub(super) fn remove(&mut self, name: &str) {
        self.entries.retain(|entry| entry.name != name);
    }

    /// Closes all but pidfds.
    pub(super) fn retain_processes(&mut self) {
        self.entries.retain(|entry| entry.process.is_some());
    }

    /// Closes everything.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// All of them, with their names, in the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.entries.iter().map(|entry| (entry.name.as_str(), entry.descriptor.as_fd()))
    }

    /// Whether the pidfd of that process is stored: its status is the next primary's to read.
    pub(super) fn has_process(&self, pid: Pid) -> bool {
        self.entries.iter().any(|entry| entry.process == Some(pid))
    }
}

/// The process of a pidfd.
fn process(descriptor: BorrowedFd<'_>) -> Option<Pid> {
    let path = format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd());
    let text = fs::read_to_string(path).ok()?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    // -1 if it is gone, 0 if it is in another namespace.
    pid.trim().parse().ok().filter(|pid| *pid > 0).and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::*;

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    fn names(store: &DescriptorStore) -> Vec<&str> {
        store.iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_name_stands_for_all_descriptors_that_came_with_it() {
        let mut store = DescriptorStore::default();
        store.insert("a", vec![null(), null()]);
        store.insert("b", vec![null()]);
        store.insert("c", [] as [OwnedFd; 0]);
        store.insert("a", vec![null()]);
        assert_eq!(names(&store), ["a", "a", "b", "a"]);
        store.remove("x");
        store.remove("a");
        assert_eq!(names(&store), ["b"]);
        store.clear();
        assert!(names(&store).is_empty());
    }

    #[test]
    fn a_process_is_known_as_long_as_its_pidfd_is_stored() {
        let mut store = DescriptorStore::default();
        store.insert("listener", vec![null()]);
        assert!(!store.has_process(getpid()));
        store.insert("process", vec![pidfd_open(getpid(), PidfdFlags::empty()).unwrap()]);
        assert!(store.has_process(getpid()));
        store.retain_processes();
        assert_eq!(names(&store), ["process"]);
        assert!(store.has_process(getpid()));
        store.remove("process");
        assert!(!store.has_process(getpid()));
    }

    #[test]
    fn a_descriptor_too_many_is_closed() {
        let mut store = DescriptorStore { limit: 2, ..DescriptorStore::default() };
        let (mut reader, writer) = std::io::pipe().unwrap();
        store.insert("a", vec![null(), null(), OwnedFd::from(writer)]);
        assert_eq!(names(&store), ["a", "a"]);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "its other end is open");
        store.insert("b", vec![null()]);
        store.remove("a");
        store.insert("b", vec![null()]);
        assert_eq!(names(&store), ["b"]);
    }
}
