//! A pool as plain data, for its successor: after an upgrade and after a crash the same.
//!
//! It holds the decisions; a worker's own state is on its scoreboard. A file that the tests read fixes
//! the format.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::handover::pool::{
    CommandSnapshot, PoolSnapshot, SlotSnapshot, StoppingSnapshot, WorkerSnapshot,
};
use crate::handover::{Carry, carry};
use crate::link::Attached;
use crate::link::seam::WorkerId;
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::command::WorkerCommand;
pub use crate::supervisor::event::After;
use crate::supervisor::lifecycle::KillReason;
use crate::supervisor::pool::fleet::Fleet;
use crate::supervisor::pool::links::{PoolLinks, Summary};
use crate::supervisor::pool::run_state::RunState;
use crate::supervisor::pool::scaling::Deferred;
use crate::supervisor::pool::settings::PoolSettings;
use crate::supervisor::pool::slots::Slot;

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
    /// Its channel, and its listening socket if it has one.
    pub channel: Attached,
    /// Its pidfd; its process is looked for if there is none.
    pub process: Option<OwnedFd>,
    /// The read end of its standard output, unless the [`Output`](crate::supervisor::output::Output)
    /// has it.
    pub stdout: Option<OwnedFd>,
    /// The read end of its standard error, likewise.
    pub stderr: Option<OwnedFd>,
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

/// The pool as it is now.
pub(super) fn snapshot(fleet: &Fleet, deferred: Option<Deferred>) -> PoolSnapshot {
    let mut inherited: Vec<_> = fleet.orphans.inherited().iter().copied().collect();
    inherited.sort_unstable();
    PoolSnapshot {
        settings: fleet.settings.snapshot(),
        before: fleet.before.snapshot(),
        deferred: deferred.snapshot(),
        slots: fleet.slots.iter().map(|(id, slot)| slot_snapshot(fleet, id, slot)).collect(),
        running: worker_snapshots(fleet),
        planner: fleet.planner.snapshot(),
        stats: fleet.history.stats.snapshot(),
        accepting: fleet.accepting,
        stopping: match fleet.state {
            RunState::Running | RunState::HandingOver => StoppingSnapshot::No,
            RunState::LameDuck(until) => StoppingSnapshot::LameDuck(until),
            RunState::Closing(_) => StoppingSnapshot::Closing,
            RunState::Draining => StoppingSnapshot::Draining,
        },
        summary: fleet.history.summary.snapshot(),
        last_failure: fleet.history.last_failure.clone(),
        inherited,
        unheard: Vec::new(),
    }
}

fn slot_snapshot(fleet: &Fleet, id: SlotId, slot: &Slot) -> SlotSnapshot {
    SlotSnapshot {
        slot: id,
        life: slot.life.snapshot(),
        command: command_snapshot(fleet, &slot.command),
        candidate: slot.candidate.as_ref().map(|command| command_snapshot(fleet, command)),
        ranked: slot.ranked,
    }
}

fn command_snapshot(fleet: &Fleet, command: &Arc<WorkerCommand>) -> CommandSnapshot {
    let is = |settings: &PoolSettings| Arc::ptr_eq(command, &settings.command);
    match &fleet.before {
        _ if is(&fleet.settings) => CommandSnapshot::Current,
        Some(before) if is(before) => CommandSnapshot::Before,
        _ => CommandSnapshot::Other(Box::new(command.snapshot())),
    }
}

fn worker_snapshots(fleet: &Fleet) -> Vec<WorkerSnapshot> {
    let workers = fleet.workers.iter().map(|(worker, running)| WorkerSnapshot {
        worker,
        pid: running.process.pid(),
        started: running.started,
        jitter: running.jitter,
        killed: running.killed.snapshot(),
    });
    let mut workers: Vec<_> = workers.collect();
    workers.sort_unstable_by_key(|snapshot| snapshot.worker);
    workers
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
