//! What a pool leaves to its successor, and what is written down of it: after an upgrade and after a
//! crash the same.
//!
//! Written down is what was decided; what a worker does, its scoreboard shows. The format is fixed by a
//! file that the tests read.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::link::Link;
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
use crate::supervisor::pool::stats::Stats;
pub(super) use crate::supervisor::pool::worker_message::WorkerMessage as Said;
use crate::supervisor::rollout::planner::Planner;
use crate::supervisor::slot_life::SlotLife;

/// The version of [`PoolDocument`]. It changes with the format.
pub const VERSION: u32 = 1;

/// How a pool's run ended.
#[derive(Debug)]
pub enum PoolEnd {
    /// With all its workers.
    Ended(Summary),
    /// As ordered, to be gone on with; its workers run.
    HandedOver(Box<PoolEstate>),
}

/// What a pool leaves that was ordered to.
#[derive(Debug)]
pub struct PoolEstate {
    /// What to write down.
    pub document: PoolDocument,
    /// The pidfds of the workers. One for which there was no descriptor left is missing, and found
    /// by its number.
    pub processes: Vec<(WorkerId, OwnedFd)>,
    /// What it was connected to. But for the way to the frontend, which has ended, a pool of the same
    /// process goes on with it: what was ordered meanwhile waits there.
    pub links: PoolLinks,
}

/// A worker that runs, or has ended and was not seen to.
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

/// Why a document cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Another version.
    #[error("pool is written down in version {0}, expected {VERSION}")]
    Version(u64),
    /// It is not what its version says.
    #[error("what is written down of the pool is not understood")]
    Malformed(#[from] serde_json::Error),
}

/// A pool, written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PoolDocument {
    version: u32,
    pub(super) settings: PoolSettings,
    pub(super) before: Option<PoolSettings>,
    pub(super) deferred: Option<Deferred>,
    pub(super) slots: Vec<WrittenSlot>,
    pub(super) running: Vec<WrittenWorker>,
    pub(super) planner: Planner,
    pub(super) stats: Stats,
    pub(super) accepting: bool,
    pub(super) stopping: WrittenStopping,
    pub(super) summary: Summary,
    pub(super) last_failure: Option<(SlotId, String)>,
    /// Children that this process, and whoever is its foster parent, had before all.
    inherited: Vec<i32>,
    /// What workers said last, and nobody has heard yet.
    pub(super) unheard: Vec<(WorkerId, Said)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct WrittenSlot {
    pub(super) slot: SlotId,
    pub(super) life: SlotLife,
    pub(super) command: Kind,
    pub(super) candidate: Option<Kind>,
    pub(super) ranked: bool,
}

/// What a slot runs. Most run the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// As the settings say.
    Current,
    /// As those say that held before.
    Before,
    /// Something else: of settings that gave way to others.
    Other(Box<WorkerCommand>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct WrittenWorker {
    pub(super) worker: WorkerId,
    pub(super) pid: i32,
    pub(super) started: Timestamp,
    pub(super) jitter: f64,
    pub(super) killed: Option<KillReason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WrittenStopping {
    No,
    LameDuck(Timestamp),
    Closing,
    Draining,
}

impl PoolDocument {
    /// As JSON. Empty if that cannot be, which nothing that is in it can lead to.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what [`Self::encode`] has written.
    ///
    /// # Errors
    ///
    /// If it is of another version, or not understood.
    pub fn decode(bytes: &[u8]) -> Result<Self, DocumentError> {
        let value: serde_json::Value = serde_json::from_slice(bytes)?;
        // First of all: the rest of another version may be anything.
        let version = value["version"].as_u64().unwrap_or(0);
        if version != u64::from(VERSION) {
            return Err(DocumentError::Version(version));
        }
        Ok(serde_json::from_value(value)?)
    }

    /// What the pool runs on.
    #[must_use]
    pub fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    /// Children that this process, and whoever is its foster parent, had before all: for
    /// [`Orphans::resume`](crate::supervisor::orphans::Orphans::resume).
    #[must_use]
    pub fn inherited(&self) -> Vec<i32> {
        self.inherited.clone()
    }

    /// What a slot runs.
    pub(super) fn command(&self, kind: &Kind) -> Arc<WorkerCommand> {
        match kind {
            Kind::Current => Arc::clone(&self.settings.command),
            Kind::Before => Arc::clone(&self.before.as_ref().unwrap_or(&self.settings).command),
            Kind::Other(command) => Arc::new(WorkerCommand::clone(command)),
        }
    }
}

/// The pool as it is now.
pub(super) fn document(fleet: &Fleet, deferred: Option<Deferred>) -> PoolDocument {
    let mut inherited: Vec<_> = fleet.orphans.inherited().iter().copied().collect();
    inherited.sort_unstable();
    PoolDocument {
        version: VERSION,
        settings: fleet.settings.clone(),
        before: fleet.before.clone(),
        deferred,
        slots: fleet.slots.iter().map(|(id, slot)| written_slot(fleet, id, slot)).collect(),
        running: written_workers(fleet),
        planner: fleet.planner.clone(),
        stats: fleet.history.stats.clone(),
        accepting: fleet.accepting,
        stopping: match fleet.state {
            RunState::Running | RunState::HandingOver => WrittenStopping::No,
            RunState::LameDuck(until) => WrittenStopping::LameDuck(until),
            RunState::Closing(_) => WrittenStopping::Closing,
            RunState::Draining => WrittenStopping::Draining,
        },
        summary: fleet.history.summary,
        last_failure: fleet.history.last_failure.clone(),
        inherited,
        unheard: Vec::new(),
    }
}

fn written_slot(fleet: &Fleet, id: SlotId, slot: &Slot) -> WrittenSlot {
    WrittenSlot {
        slot: id,
        life: slot.life.clone(),
        command: kind(fleet, &slot.command),
        candidate: slot.candidate.as_ref().map(|command| kind(fleet, command)),
        ranked: slot.ranked,
    }
}

fn kind(fleet: &Fleet, command: &Arc<WorkerCommand>) -> Kind {
    let is = |settings: &PoolSettings| Arc::ptr_eq(command, &settings.command);
    match &fleet.before {
        _ if is(&fleet.settings) => Kind::Current,
        Some(before) if is(before) => Kind::Before,
        _ => Kind::Other(Box::new(WorkerCommand::clone(command))),
    }
}

fn written_workers(fleet: &Fleet) -> Vec<WrittenWorker> {
    let workers = fleet.workers.iter().map(|(worker, running)| WrittenWorker {
        worker,
        pid: running.process.pid(),
        started: running.started,
        jitter: running.jitter,
        killed: running.killed,
    });
    let mut workers: Vec<_> = workers.collect();
    workers.sort_unstable_by_key(|written| written.worker);
    workers
}

#[cfg(test)]
mod tests;
