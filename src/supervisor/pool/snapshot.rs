//! A pool as plain data, for its successor: after an upgrade and after a crash the same.
//!
//! It holds the decisions; a worker's own state is on its scoreboard. A file that the tests read fixes
//! the format.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::handover::pool::{
    CommandSnapshot, PoolSnapshot, SlotSnapshot, StoppingSnapshot, WorkerMessage, WorkerSnapshot,
};
use crate::handover::{Carry, carry};
use crate::link::Link;
use crate::link::seam::{SlotEventKind, WorkerId};
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::command::WorkerCommand;
use crate::supervisor::lifecycle::KillReason;
use crate::supervisor::pool::stop::Stopping;
use crate::supervisor::pool::{Pool, PoolLinks, PoolSettings, Slot, Summary};

/// How a pool's run ended.
#[derive(Debug)]
pub enum PoolEnd {
    /// With all its workers.
    Ended(Summary),
    /// As ordered, for a successor; its workers run.
    HandedOver(Box<PoolHandover>),
}

/// A pool that has stopped while its workers run.
#[derive(Debug)]
pub struct PoolHandover {
    /// The pool as plain data.
    pub snapshot: PoolSnapshot,
    /// The pidfds of the workers. If there was no descriptor left for one, it is missing, and its process
    /// is found by its number.
    pub processes: Vec<(WorkerId, OwnedFd)>,
    /// What it was connected to. But for the way to the frontend, which has ended, a pool of the same
    /// process uses it again: orders that came meanwhile wait there.
    pub links: PoolLinks,
}

/// A worker of another pool that runs, or has ended without being noticed.
#[derive(Debug)]
pub struct AdoptedWorker {
    /// Which.
    pub id: WorkerId,
    /// Its channel.
    pub channel: Link,
    /// Its pidfd; its process is looked for if there is none.
    pub process: Option<OwnedFd>,
    /// The read end of its standard output, unless the [`Output`](crate::supervisor::output::Output)
    /// has it.
    pub stdout: Option<OwnedFd>,
    /// The read end of its standard error, likewise.
    pub stderr: Option<OwnedFd>,
}

/// What a pool resumes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Its predecessor has handed over.
    Upgrade,
    /// Its predecessor has crashed.
    Crash,
}

impl std::fmt::Display for After {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Upgrade => "upgrade",
            Self::Crash => "crash",
        })
    }
}

/// What is known of a worker's process.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WorkerRecord {
    pub(super) worker: WorkerId,
    pub(super) pid: i32,
    pub(super) started: Timestamp,
    pub(super) jitter: f64,
    pub(super) killed: Option<KillReason>,
}

carry!(struct WorkerRecord => WorkerSnapshot { worker, pid, started, jitter, killed });

/// The message to carry over, if it is worth that.
pub(super) fn worker_message(kind: &SlotEventKind) -> Option<WorkerMessage> {
    match kind {
        SlotEventKind::Hello => Some(WorkerMessage::Hello),
        SlotEventKind::Ready => Some(WorkerMessage::Ready),
        SlotEventKind::Leave => Some(WorkerMessage::Leave),
        SlotEventKind::Violation(_) => Some(WorkerMessage::Violation),
        SlotEventKind::Pong => None,
    }
}

impl Pool {
    /// As it is now.
    pub(super) fn snapshot(&self) -> PoolSnapshot {
        let mut inherited: Vec<_> = self.links.orphans.inherited().iter().copied().collect();
        inherited.sort_unstable();
        PoolSnapshot {
            settings: self.settings.snapshot(),
            before: self.before.snapshot(),
            deferred: self.deferred.snapshot(),
            slots: self.slots.iter().map(|(id, slot)| self.slot_snapshot(*id, slot)).collect(),
            running: self.worker_snapshots(),
            planner: self.planner.snapshot(),
            stats: self.stats.snapshot(),
            accepting: self.accepting,
            stopping: match self.stopping {
                Stopping::No => StoppingSnapshot::No,
                Stopping::LameDuck(until) => StoppingSnapshot::LameDuck(until),
                Stopping::Closing(_) => StoppingSnapshot::Closing,
                Stopping::Draining => StoppingSnapshot::Draining,
            },
            summary: self.summary.snapshot(),
            last_failure: self.last_failure.clone(),
            inherited,
            unheard: Vec::new(),
        }
    }

    fn slot_snapshot(&self, id: SlotId, slot: &Slot) -> SlotSnapshot {
        SlotSnapshot {
            slot: id,
            life: slot.life.snapshot(),
            command: self.command_snapshot(&slot.command),
            candidate: slot.candidate.as_ref().map(|command| self.command_snapshot(command)),
            ranked: slot.ranked,
        }
    }

    fn command_snapshot(&self, command: &Arc<WorkerCommand>) -> CommandSnapshot {
        let is = |settings: &PoolSettings| Arc::ptr_eq(command, &settings.command);
        match &self.before {
            _ if is(&self.settings) => CommandSnapshot::Current,
            Some(before) if is(before) => CommandSnapshot::Before,
            _ => CommandSnapshot::Other(Box::new(command.snapshot())),
        }
    }

    fn worker_snapshots(&self) -> Vec<WorkerSnapshot> {
        let workers = self.running.iter().map(|(worker, running)| WorkerSnapshot {
            worker: *worker,
            pid: running.process.pid(),
            started: running.started,
            jitter: running.jitter,
            killed: running.killed.snapshot(),
        });
        let mut workers: Vec<_> = workers.collect();
        workers.sort_unstable_by_key(|snapshot| snapshot.worker);
        workers
    }
}

/// The settings of a snapshot, restored; slots of the same command share it again.
#[derive(Debug)]
pub(super) struct RestoredSettings {
    pub(super) current: PoolSettings,
    pub(super) before: Option<PoolSettings>,
}

impl RestoredSettings {
    /// A slot's command.
    pub(super) fn command(&self, snapshot: CommandSnapshot) -> Arc<WorkerCommand> {
        match snapshot {
            CommandSnapshot::Current => Arc::clone(&self.current.command),
            CommandSnapshot::Before => {
                Arc::clone(&self.before.as_ref().unwrap_or(&self.current).command)
            }
            CommandSnapshot::Other(command) => Arc::new(Carry::restore(*command)),
        }
    }
}

#[cfg(test)]
mod tests;
