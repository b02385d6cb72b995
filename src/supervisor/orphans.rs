//! What workers have started and left behind: it comes to the primary when its own parent ends, and
//! ends with its worker.
//!
//! A worker's process group is killed with the worker. What has left the group (`setsid`, a double
//! fork) arrives here, since the primary is a child subreaper, or PID 1 of a container, whose duty
//! this is anyway.
//!
//! # Promises
//!
//! * Never takes the status of a worker: the pool does that.
//! * Kills nothing that belongs to a worker that still runs, and nothing that this process had for
//!   a child before it became a primary.
//! * Leaves no zombie.
//!
//! # Pitfalls
//!
//! A process is known by the environment that it was started with. One that has overwritten or
//! cleared it is left alone until everything ends.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, set_child_subreaper, waitid,
};
use tokio::signal::unix::{self, SignalKind};
use tokio::time::timeout;

use crate::handoff::slots::WorkerId;
use crate::supervisor::procfs::{children, worker_of};

/// How long killed processes may take to end: longer only what the kernel itself holds up, or what
/// has a privilege that the primary hasn't.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks after processes that have lost their worker.
#[derive(Debug)]
pub struct Orphans {
    ended: unix::Signal,
    /// Children that this process had before.
    inherited: HashSet<i32>,
    killed: HashSet<i32>,
}

impl Orphans {
    /// Makes this process the one that orphans come to.
    ///
    /// # Errors
    ///
    /// If the handler for SIGCHLD cannot be installed.
    pub fn adopt() -> io::Result<Self> {
        // Where SIGCHLD is ignored, as whoever started this process may have done, the kernel takes
        // every status itself.
        let ended = unix::signal(SignalKind::child())?;
        set_child_subreaper(Some(getpid()))?;
        let inherited = own_children().collect();
        Ok(Self { ended, inherited, killed: HashSet::new() })
    }

    /// Waits until a child has ended: a worker or an orphan.
    pub async fn child_ended(&mut self) {
        self.ended.recv().await;
    }

    /// Kills the orphans whose workers are gone, and takes the status of those that have ended. To
    /// be called when a child has ended, and when a worker is no longer among the `running`.
    pub fn tend(&mut self, running: &HashMap<WorkerId, i32>) {
        let workers: HashSet<_> = running.values().copied().collect();
        for pid in own_children().filter(|pid| !workers.contains(pid)) {
            let inherited = self.inherited.contains(&pid);
            if self.bury(pid) || inherited {
                continue;
            }
            if worker_of(pid).is_some_and(|worker| !running.contains_key(&worker)) {
                self.kill(pid);
            }
        }
    }

    /// Kills all that is left and waits for its end. To be called when all workers are gone.
    pub async fn end(&mut self) {
        if timeout(PATIENCE, self.end_all()).await.is_err() {
            let left: Vec<_> = self.left().collect();
            tracing::warn!(?left, "processes that workers have left behind do not end");
        }
    }

    async fn end_all(&mut self) {
        loop {
            let left: Vec<_> = self.left().collect();
            if left.is_empty() {
                return;
            }
            let mut has_buried = false;
            for pid in left {
                if self.bury(pid) {
                    has_buried = true;
                } else {
                    self.kill(pid);
                }
            }
            // With each that has ended, those below it have arrived.
            if !has_buried {
                self.child_ended().await;
            }
        }
    }

    fn left(&self) -> impl Iterator<Item = i32> {
        own_children().filter(|pid| !self.inherited.contains(pid))
    }

    /// Takes the status of a child, if it has ended.
    fn bury(&mut self, pid: i32) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let process = Pid::from_raw(pid).map(WaitId::Pid);
        let has_ended =
            process.is_some_and(|process| !matches!(waitid(process, options), Ok(None)));
        if has_ended {
            self.inherited.remove(&pid);
            self.killed.remove(&pid);
        }
        has_ended
    }

    /// The number is still its own: it is a child, whose status nobody takes but `bury`.
    fn kill(&mut self, pid: i32) {
        if self.killed.insert(pid) {
            let worker = worker_of(pid);
            let slot = worker.map(|worker| worker.slot.0);
            tracing::debug!(pid, slot, "process left behind by a worker is killed");
            // It may have ended this moment.
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
        }
    }
}

fn own_children() -> impl Iterator<Item = i32> {
    children(getpid().as_raw_nonzero().get()).into_iter()
}
