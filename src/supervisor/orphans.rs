//! Processes that workers have started and left behind: the primary becomes their parent when their
//! own parent ends, and they end with their worker.
//!
//! A worker's process group is killed with the worker. Processes that have left the group (`setsid`, a
//! double fork) arrive here, since the primary is a child subreaper, or PID 1 of a container. Orphans
//! of workers that an earlier primary had started arrive at the subreaper that became the parent of
//! these workers when that primary died: they are looked for there.
//!
//! # Promises
//!
//! * Never takes the status of a worker: the pool does that.
//! * Kills nothing that belongs to a worker that still runs, and nothing that this process, or the
//!   subreaper, had for a child before it became a primary.
//! * Kills nothing of the subreaper's but what was started by a worker, in the control group
//!   that this process is in: that one may have taken care of others all along.
//! * Leaves no zombie of its own; the subreaper does the same.
//!
//! # Pitfalls
//!
//! A process is known by the environment that it was started with. One that has overwritten or
//! cleared it is left alone until everything ends, and at the subreaper's for good.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, set_child_subreaper, waitid,
};
use tokio::signal::unix::{self, SignalKind};
use tokio::time::{Instant, sleep_until, timeout};

use crate::link::seam::WorkerId;
use crate::supervisor::procfs::{children, worker_of};

/// How long killed processes may take to end: longer only what the kernel itself holds up, or what
/// has a privilege that the primary hasn't.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// The ends of the subreaper's children are not reported: they are looked at again after that time.
const RECHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Reaps processes that have lost their worker.
#[derive(Debug)]
pub struct Orphans {
    ended: unix::Signal,
    /// The subreaper that has the orphans of a dead primary: the keeper, or systemd.
    subreaper: Option<i32>,
    /// Children that this process and the subreaper had before.
    inherited: HashSet<i32>,
    killed: HashSet<i32>,
    /// When to look at the subreaper's children, where some were killed.
    look_at: Option<Instant>,
}

impl Orphans {
    /// Makes this process the one that orphans come to, beside its subreaper, if it has one.
    ///
    /// # Errors
    ///
    /// If the handler for SIGCHLD cannot be installed.
    pub fn adopt(subreaper: Option<i32>) -> io::Result<Self> {
        let before = own_children().chain(subreaper.into_iter().flat_map(children));
        let inherited = before.filter(|pid| *pid != own_pid()).collect();
        Self::resume(subreaper, inherited)
    }

    /// As [`Self::adopt`], in the place of a primary that had `inherited` these: all others are
    /// workers, or what they have left behind.
    ///
    /// # Errors
    ///
    /// If the handler for SIGCHLD cannot be installed.
    pub fn resume(subreaper: Option<i32>, inherited: HashSet<i32>) -> io::Result<Self> {
        // Where SIGCHLD is ignored, as the parent may have set it up, the kernel takes every status
        // itself.
        let ended = unix::signal(SignalKind::child())?;
        set_child_subreaper(Some(getpid()))?;
        Ok(Self { ended, subreaper, inherited, killed: HashSet::new(), look_at: None })
    }

    /// Children that this process and the subreaper had before, for a successor.
    #[must_use]
    pub fn inherited(&self) -> &HashSet<i32> {
        &self.inherited
    }

    /// The processes among which workers are: this process' children and the subreaper's.
    #[must_use]
    pub fn candidates(&self) -> Vec<i32> {
        let own = own_children().filter(|pid| !self.inherited.contains(pid));
        own.chain(self.subreaper_children()).collect()
    }

    /// Waits until a child has ended, a worker or an orphan, or it is time to look at the
    /// subreaper's.
    pub async fn child_ended(&mut self) {
        let look_at = self.look_at;
        let time = async move {
            match look_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.ended.recv() => {}
            () = time => self.look_at = None,
        }
    }

    /// Kills the orphans whose workers are gone, and takes the status of those that have ended. To
    /// be called when a child has ended, and when a worker is no longer among the `running`.
    pub fn reap(&mut self, running: &HashMap<WorkerId, i32>) {
        let workers: HashSet<_> = running.values().copied().collect();
        for pid in own_children().filter(|pid| !workers.contains(pid)) {
            let inherited = self.inherited.contains(&pid);
            if self.reap_child(pid) || inherited {
                continue;
            }
            if worker_of(pid).is_some_and(|worker| !running.contains_key(&worker)) {
                self.kill(pid);
            }
        }
        for (pid, worker) in self.at_subreaper() {
            if !workers.contains(&pid) && !running.contains_key(&worker) {
                self.kill(pid);
                // With each that has ended, those below it arrive.
                self.look_at = Some(Instant::now() + RECHECK_INTERVAL);
            }
        }
    }

    /// Kills all that is left and waits for its end. To be called when all workers are gone.
    pub async fn end(&mut self) {
        if timeout(KILL_TIMEOUT, self.end_all()).await.is_err() {
            let left: Vec<_> = self.left().collect();
            tracing::warn!(?left, "orphaned processes do not end");
        }
    }

    async fn end_all(&mut self) {
        loop {
            let left: Vec<_> = self.left().collect();
            let at_subreaper = self.at_subreaper();
            if left.is_empty() && at_subreaper.is_empty() {
                return;
            }
            let mut has_reaped = false;
            for pid in left {
                if self.reap_child(pid) {
                    has_reaped = true;
                } else {
                    self.kill(pid);
                }
            }
            for (pid, _) in at_subreaper {
                self.kill(pid);
                self.look_at = Some(Instant::now() + RECHECK_INTERVAL);
            }
            // With each that has ended, those below it have arrived.
            if !has_reaped {
                self.child_ended().await;
            }
        }
    }

    fn left(&self) -> impl Iterator<Item = i32> {
        own_children().filter(|pid| !self.inherited.contains(pid))
    }

    /// The subreaper's children that live and were started by workers, and by whom. Numbers of
    /// those that have ended are forgotten: others may get them.
    fn at_subreaper(&mut self) -> Vec<(i32, WorkerId)> {
        let Some(subreaper) = self.subreaper else { return Vec::new() };
        let there: HashSet<_> = own_children().chain(children(subreaper)).collect();
        self.inherited.retain(|pid| there.contains(pid));
        self.killed.retain(|pid| there.contains(pid));
        let found = self.subreaper_children().into_iter();
        found.filter_map(|pid| Some((pid, worker_of(pid)?))).collect()
    }

    /// Those that may be ours.
    fn subreaper_children(&self) -> Vec<i32> {
        let Some(subreaper) = self.subreaper else { return Vec::new() };
        let own_group = control_group(own_pid());
        let found = children(subreaper).into_iter();
        found
            .filter(|pid| *pid != own_pid() && !self.inherited.contains(pid))
            .filter(|pid| control_group(*pid) == own_group)
            .collect()
    }

    /// Takes the status of a child, if it has ended.
    fn reap_child(&mut self, pid: i32) -> bool {
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

    /// The number is still its own: only `reap_child` takes a child's status; a child of the
    /// subreaper was seen a moment ago.
    fn kill(&mut self, pid: i32) {
        if self.killed.insert(pid) {
            let worker = worker_of(pid);
            let slot = worker.map(|worker| worker.slot.0);
            tracing::debug!(pid, slot, "orphaned process killed");
            // It may have ended this moment.
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
        }
    }
}

fn own_pid() -> i32 {
    getpid().as_raw_nonzero().get()
}

fn own_children() -> impl Iterator<Item = i32> {
    children(own_pid()).into_iter()
}

fn control_group(pid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()
}
