//! What is kept of the primary for the next one: descriptors by their names.
//!
//! Bounded: what comes when it is full is closed, and said once.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::process::Pid;

/// The most descriptors that are kept. A worker has six, so that there is room for two generations
/// of as many workers as there may be, and some.
const MOST: usize = 16_384;

/// Descriptors that are kept.
#[derive(Debug)]
pub(super) struct Kept {
    entries: Vec<Entry>,
    most: usize,
    was_full: bool,
}

#[derive(Debug)]
struct Entry {
    name: String,
    descriptor: OwnedFd,
    /// The process, of a pidfd.
    process: Option<Pid>,
}

impl Default for Kept {
    fn default() -> Self {
        Self { entries: Vec::new(), most: MOST, was_full: false }
    }
}

impl Kept {
    /// Keeps them all by one name.
    pub(super) fn keep(&mut self, name: &str, descriptors: Vec<OwnedFd>) {
        for descriptor in descriptors {
            if self.entries.len() >= self.most {
                if !std::mem::replace(&mut self.was_full, true) {
                    let most = self.most;
                    tracing::error!(
                        name,
                        most,
                        "too many descriptors: a crash of the primary would lose this one"
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
    pub(super) fn keep_processes_only(&mut self) {
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

    /// Whether that process is one whose pidfd is kept: its status is the next primary's to read.
    pub(super) fn has_process(&self, pid: Pid) -> bool {
        self.entries.iter().any(|entry| entry.process == Some(pid))
    }
}

/// Whose pidfd it is, if it is one.
fn process(descriptor: BorrowedFd<'_>) -> Option<Pid> {
    let path = format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd());
    let text = fs::read_to_string(path).ok()?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    // -1 if it is gone for good, 0 if it is elsewhere.
    pid.trim().parse().ok().filter(|pid| *pid > 0).and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::*;

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    fn names(kept: &Kept) -> Vec<&str> {
        kept.iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_name_stands_for_all_that_came_by_it() {
        let mut kept = Kept::default();
        kept.keep("a", vec![null(), null()]);
        kept.keep("b", vec![null()]);
        kept.keep("c", Vec::new());
        kept.keep("a", vec![null()]);
        assert_eq!(names(&kept), ["a", "a", "b", "a"]);
        kept.remove("x");
        kept.remove("a");
        assert_eq!(names(&kept), ["b"]);
        kept.clear();
        assert!(names(&kept).is_empty());
    }

    #[test]
    fn a_process_is_known_as_long_as_its_pidfd_is_kept() {
        let mut kept = Kept::default();
        kept.keep("listener", vec![null()]);
        assert!(!kept.has_process(getpid()));
        kept.keep("process", vec![pidfd_open(getpid(), PidfdFlags::empty()).unwrap()]);
        assert!(kept.has_process(getpid()));
        kept.keep_processes_only();
        assert_eq!(names(&kept), ["process"]);
        assert!(kept.has_process(getpid()));
        kept.remove("process");
        assert!(!kept.has_process(getpid()));
    }

    #[test]
    fn what_is_too_much_is_closed() {
        let mut kept = Kept { most: 2, ..Kept::default() };
        let (mut reader, writer) = std::io::pipe().unwrap();
        kept.keep("a", vec![null(), null(), writer.into()]);
        assert_eq!(names(&kept), ["a", "a"]);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "its other end is open");
        kept.keep("b", vec![null()]);
        kept.remove("a");
        kept.keep("b", vec![null()]);
        assert_eq!(names(&kept), ["b"]);
    }
}
