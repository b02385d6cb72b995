//! Processes of a worker that stand still for a while.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::protocol::ids::Timestamp;
use crate::supervisor::procfs;

/// How long the signal may take to all threads.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// They go on when it is dropped.
#[derive(Debug)]
pub struct Stopped(Vec<Pid>);

impl Stopped {
    /// A process and what it has started, but for one of them.
    #[must_use]
    pub fn all_but(root: i32, one: Option<i32>) -> Self {
        let others = procfs::tree(root).into_iter().filter(|pid| Some(*pid) != one);
        let pids: Vec<_> = others.filter_map(Pid::from_raw).collect();
        for pid in &pids {
            // It may have ended.
            let _ = kill_process(*pid, Signal::STOP);
        }
        let start = Timestamp::now();
        while !pids.iter().all(|pid| has_stopped(*pid))
            && Timestamp::now().since(start) < STOP_TIMEOUT
        {
            std::thread::sleep(LOOK_INTERVAL);
        }
        Self(pids)
    }
}

/// Whether all of its threads stand still, or it has ended.
fn has_stopped(pid: Pid) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    let states = threads.filter_map(|thread| {
        let stat = fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
        // The name before it may have anything in it.
        stat.rsplit_once(')')?.1.trim_start().chars().next()
    });
    states.into_iter().all(|state| matches!(state, 'T' | 't' | 'Z' | 'X'))
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}
