//! The keeper's other children: the workers of primaries that crashed, and the processes that those have
//! started. They become the keeper's, since it is a child subreaper, or PID 1 of a container.
//!
//! Leaves no zombie but those whose pidfds are stored: their statuses are the next primary's to read.

use std::collections::HashSet;
use std::fs;
use std::io;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, set_child_subreaper, waitid,
};

/// Looks after children that are no primaries.
#[derive(Debug)]
pub(super) struct Children {
    /// The children of this process before it became a keeper.
    inherited: HashSet<Pid>,
}

impl Children {
    /// Makes this process the parent of orphans.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub(super) fn adopt() -> io::Result<Self> {
        set_child_subreaper(Some(getpid()))?;
        Ok(Self { inherited: all().into_iter().collect() })
    }

    /// Takes the statuses of those that have exited, but for those that are `spared`.
    pub(super) fn reap(&mut self, spared: impl Fn(Pid) -> bool) {
        for pid in all().into_iter().filter(|pid| !spared(*pid)) {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            if !matches!(waitid(WaitId::Pid(pid), options), Ok(None)) {
                self.inherited.remove(&pid);
            }
        }
    }

    /// Whether there is one that came after this process became a keeper.
    pub(super) fn has_any(&self) -> bool {
        self.own().next().is_some()
    }

    /// Sends a signal to those that came since.
    pub(super) fn signal(&self, signal: Signal) {
        for pid in self.own() {
            // Its number is its own: no other thread takes its status. It may just have exited.
            let _ = kill_process(pid, signal);
        }
    }

    fn own(&self) -> impl Iterator<Item = Pid> {
        all().into_iter().filter(|pid| !self.inherited.contains(pid))
    }
}

/// All children, with zombies. The keeper has one thread, whose children they are.
fn all() -> Vec<Pid> {
    let own = getpid();
    let list = fs::read_to_string(format!("/proc/self/task/{own}/children")).unwrap_or_default();
    let numbers = list.split_ascii_whitespace().filter_map(|number| number.parse().ok());
    numbers.filter_map(Pid::from_raw).collect()
}
