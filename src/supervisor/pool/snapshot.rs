//! What a pool leaves to its successor, and what is written down of it: after an upgrade and after a
//! crash the same.
//!
//! Written down is what was decided; what a worker does, its scoreboard shows. The format is fixed by a
//! file that the tests read.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::link::Link;
use crate::link::seam::{SlotEventKind, WorkerId};
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::command::WorkerCommand;
use crate::supervisor::lifecycle::KillReason;
use crate::supervisor::pool::scaling::Deferred;
use crate::supervisor::pool::stats::Stats;
use crate::supervisor::pool::stop::Stopping;
use crate::supervisor::pool::{Pool, PoolLinks, PoolSettings, Slot, Summary};
use crate::supervisor::rollout::Planner;
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

/// What a pool resumes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Its predecessor has handed over.
    Upgrade,
    /// Its predecessor has died.
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

/// What a worker has said. That it is alive is of no interest later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Said {
    Hello,
    Ready,
    Leave,
    Violation,
}

impl Said {
    pub(super) fn of(kind: &SlotEventKind) -> Option<Self> {
        match kind {
            SlotEventKind::Hello => Some(Self::Hello),
            SlotEventKind::Ready => Some(Self::Ready),
            SlotEventKind::Leave => Some(Self::Leave),
            SlotEventKind::Violation(_) => Some(Self::Violation),
            SlotEventKind::Pong => None,
        }
    }
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

impl Pool {
    /// As it is now.
    pub(super) fn document(&self) -> PoolDocument {
        let mut inherited: Vec<_> = self.links.orphans.inherited().iter().copied().collect();
        inherited.sort_unstable();
        PoolDocument {
            version: VERSION,
            settings: self.settings.clone(),
            before: self.before.clone(),
            deferred: self.deferred,
            slots: self.slots.iter().map(|(id, slot)| self.written_slot(*id, slot)).collect(),
            running: self.written_workers(),
            planner: self.planner.clone(),
            stats: self.stats.clone(),
            accepting: self.accepting,
            stopping: match self.stopping {
                Stopping::No => WrittenStopping::No,
                Stopping::LameDuck(until) => WrittenStopping::LameDuck(until),
                Stopping::Closing(_) => WrittenStopping::Closing,
                Stopping::Draining => WrittenStopping::Draining,
            },
            summary: self.summary,
            last_failure: self.last_failure.clone(),
            inherited,
            unheard: Vec::new(),
        }
    }

    fn written_slot(&self, id: SlotId, slot: &Slot) -> WrittenSlot {
        WrittenSlot {
            slot: id,
            life: slot.life.clone(),
            command: self.kind(&slot.command),
            candidate: slot.candidate.as_ref().map(|command| self.kind(command)),
            ranked: slot.ranked,
        }
    }

    fn kind(&self, command: &Arc<WorkerCommand>) -> Kind {
        let is = |settings: &PoolSettings| Arc::ptr_eq(command, &settings.command);
        match &self.before {
            _ if is(&self.settings) => Kind::Current,
            Some(before) if is(before) => Kind::Before,
            _ => Kind::Other(Box::new(WorkerCommand::clone(command))),
        }
    }

    fn written_workers(&self) -> Vec<WrittenWorker> {
        let workers = self.running.iter().map(|(worker, running)| WrittenWorker {
            worker: *worker,
            pid: running.process.pid(),
            started: running.started,
            jitter: running.jitter,
            killed: running.killed,
        });
        let mut workers: Vec<_> = workers.collect();
        workers.sort_unstable_by_key(|written| written.worker);
        workers
    }
}

#[cfg(test)]
mod tests;
