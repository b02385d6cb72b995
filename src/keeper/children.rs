//! The keeper's other children: what primaries that crashed have left, workers and what those have
//! started. All of it comes here, since the keeper is a child subreaper, or PID 1 of a container.
//!
//! Leaves no zombie but those whose pidfds are kept: their statuses are the next primary's to read.

use std::collections::HashSet;
use std::fs;
use std::io;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, set_child_subreaper, waitid,
};

/// Looks after children that are no primaries.
#[derive(Debug)]
pub(super) struct Children {
    /// Those that this process had before it became a keeper.
    inherited: HashSet<Pid>,
}

impl Children {
    /// Makes this process the one that orphans come to.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn adopt() -> io::Result<Self> {
        set_child_subreaper(Some(getpid()))?;
        Ok(Self { inherited: all().into_iter().collect() })
    }

    /// Takes the statuses of those that have ended, but for those that are `spared`.
    pub(super) fn bury(&mut self, spared: impl Fn(Pid) -> bool) {
        for pid in all().into_iter().filter(|pid| !spared(*pid)) {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            if !matches!(waitid(WaitId::Pid(pid), options), Ok(None)) {
                self.inherited.remove(&pid);
            }
        }
    }

    /// Whether one is there that came later than this process became a keeper.
    pub(super) fn has_any(&self) -> bool {
        self.own().next().is_some()
    }

    /// Sends a signal to them; not to what was there before.
    pub(super) fn signal(&self, signal: Signal) {
        for pid in self.own() {
            // Its number is its own: nobody else takes its status. It may have ended this moment.
            let _ = kill_process(pid, signal);
        }
    }

    fn own(&self) -> impl Iterator<Item = Pid> {
        all().into_iter().filter(|pid| !self.inherited.contains(pid))
    }
}

/// All children, with those that have ended. The keeper has one thread, whose children they are.
fn all() -> Vec<Pid> {
    let own = getpid();
    let list = fs::read_to_string(format!("/proc/self/task/{own}/children")).unwrap_or_default();
    let numbers = list.split_ascii_whitespace().filter_map(|number| number.parse().ok());
    numbers.filter_map(Pid::from_raw).collect()
}
