//! A look at a process that is being started: those who may signal it could stop it before it runs its program,
//! and this process waits for that.
//!
//! A new process is its user's from the moment it has become that user, and the standard library waits
//! without limit for what it says of its program. A stopped one is told to go on, and killed in the end.

use std::fs;
use std::process;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::supervisor::procfs;

/// A start usually takes some milliseconds.
const FIRST_LOOK: Duration = Duration::from_millis(250);

/// How often is looked then.
const INTERVAL: Duration = Duration::from_millis(50);

/// Looks until the process is told to go on no more, but killed.
const PATIENCE: u32 = 40;

/// Watches a start until it is dropped. Without a thread left, nothing is watched.
#[derive(Debug)]
pub(super) struct SpawnGuard {
    _running: Sender<()>,
}

impl SpawnGuard {
    /// Of children that this process starts.
    pub(super) fn start() -> Self {
        let own = i32::try_from(process::id()).unwrap_or_default();
        Self::of(words(own))
    }

    /// Of children whose command line is still this one.
    pub(super) fn of(command_line: Option<Vec<u8>>) -> Self {
        let (running, ended) = channel();
        let watch = move || {
            let mut looks = 0;
            let mut pause = FIRST_LOOK;
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                looks += 1;
                pause = INTERVAL;
                let signal = if looks > PATIENCE { Signal::KILL } else { Signal::CONT };
                stopped(command_line.as_deref())
                    .into_iter()
                    .for_each(|pid| _ = kill_process(pid, signal));
            }
        };
        // A failure to start one is no reason to start no worker.
        let _ = thread::Builder::new().name("spawn-guard".to_owned()).spawn(watch);
        Self { _running: running }
    }
}

/// Children that stand still and haven't run their program yet: their words are still this process's.
fn stopped(command_line: Option<&[u8]>) -> Vec<Pid> {
    let own = i32::try_from(process::id()).unwrap_or_default();
    let is_new = |pid: &i32| procfs::is_stopped(*pid) && words(*pid).as_deref() == command_line;
    procfs::children(own).into_iter().filter(is_new).filter_map(Pid::from_raw).collect()
}

/// A process's command line, with its zero bytes.
fn words(pid: i32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/cmdline")).ok()
}
