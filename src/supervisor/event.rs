//! What happens in the pool, said once: one line of the log, and one event for whoever subscribes.
//!
//! Never changes anything. Subscribers that are too slow miss the oldest events, and learn how many.

use std::time::Duration;

use tokio::sync::broadcast;

use crate::link::seam::WorkerId;
use crate::protocol::ids::SlotId;
use crate::supervisor::lifecycle::SlotState;
use crate::supervisor::pool::snapshot::After;
use crate::supervisor::rollout::{Outcome, Report, Trigger};

/// Events that a subscriber may be behind.
const KEPT: usize = 1024;

/// What happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Something in a worker's life.
    Worker {
        /// Which.
        worker: WorkerId,
        /// Its process, 0 if it couldn't be started.
        pid: i32,
        /// What.
        change: WorkerChange,
    },
    /// A slot has no worker for now. One that is drained has none any more.
    Slot {
        /// Which.
        slot: SlotId,
        /// How it is.
        state: SlotState,
        /// How long until its next worker is started, in a back-off.
        delay: Option<Duration>,
    },
    /// A rolling restart begins.
    RolloutBegun {
        /// Its number.
        number: u64,
        /// What it was begun by.
        trigger: Trigger,
        /// Its slots.
        of: u16,
    },
    /// A rolling restart has ended.
    RolloutEnded(Report),
    /// A slot has the new worker that it was to get.
    Replaced {
        /// Which.
        slot: SlotId,
    },
    /// A replacement that was under way, or ordered, came to nothing: the slot keeps its worker, or
    /// is to have none. Whoever has ordered one hears of either this or `Replaced`.
    NotReplaced {
        /// Which.
        slot: SlotId,
        /// What became of the new one, or why there is to be none.
        reason: String,
    },
    /// There are to be more workers, or fewer.
    Scaled {
        /// So many there were to be.
        from: u16,
        /// So many there are to be.
        to: u16,
        /// Who wanted it: `command`, `signal`, `load` or `reload`.
        by: &'static str,
    },
    /// A pool goes on in the place of another one.
    Resumed {
        /// So many workers it has found.
        workers: u16,
        /// What became of the other one.
        after: After,
    },
    /// Everything is to end.
    Stopping {
        /// At once, or gracefully.
        at_once: bool,
    },
}

/// Something in a worker's life.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum WorkerChange {
    /// Its process was started.
    Spawned,
    /// It takes its slot's connections. So many slots serve, of so many.
    Serves {
        /// Slots that serve.
        serving: u16,
        /// Slots.
        of: u16,
    },
    /// It is to be replaced, for this reason.
    Outdated(String),
    /// It finishes what it has, for this reason.
    Drains(&'static str),
    /// It is killed, for this reason.
    Killed(String),
    /// It has ended.
    Gone(End),
}

/// A worker's end.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// How it ended, and why.
    pub reason: String,
    /// Nobody ordered it.
    pub unexpected: bool,
    /// How long it lived.
    pub uptime: Duration,
    /// Connections that it had taken over.
    pub connections: u64,
}

impl Event {
    /// Writes the event's line of the log.
    pub fn log(&self) {
        match self {
            Self::Worker { worker, pid, change } => change.log(*worker, *pid),
            Self::Slot { slot, state: SlotState::BackOff, delay } => {
                let delay_ms = delay.unwrap_or_default().as_millis();
                let delay_ms = u64::try_from(delay_ms).unwrap_or(u64::MAX);
                tracing::warn!(slot = slot.0, delay_ms, "slot in back-off");
            }
            Self::Slot { slot, state: SlotState::Errored, .. } => tracing::error!(
                slot = slot.0,
                "slot errored: too many crashes, other slots serve its clients until a reload or \
                 `undrain`",
            ),
            Self::Slot { slot, state, .. } => {
                tracing::info!(slot = slot.0, %state, "slot out of service")
            }
            Self::RolloutBegun { number, trigger, of } => {
                tracing::info!(rollout = number, %trigger, slots = of, "rolling restart started");
            }
            Self::RolloutEnded(report) => log_report(report),
            Self::Replaced { slot } => tracing::debug!(slot = slot.0, "worker replaced"),
            Self::NotReplaced { slot, reason } => {
                tracing::debug!(slot = slot.0, reason, "replacement failed");
            }
            Self::Scaled { from, to, by } => tracing::info!(from, to, by, "scaled"),
            Self::Resumed { workers, after } => {
                tracing::info!(workers, %after, "workers resumed");
            }
            Self::Stopping { at_once: false } => tracing::info!("stopping gracefully"),
            Self::Stopping { at_once: true } => tracing::warn!("stopping, forced"),
        }
    }
}

impl WorkerChange {
    fn log(&self, worker: WorkerId, pid: i32) {
        let (slot, generation) = (worker.slot.0, worker.generation.0);
        match self {
            Self::Spawned => tracing::info!(slot, generation, pid, "worker started"),
            Self::Serves { serving, of } => {
                tracing::info!(slot, generation, pid, serving, of, "worker ready");
            }
            Self::Outdated(reason) => {
                tracing::info!(slot, generation, pid, reason, "worker replacing");
            }
            Self::Drains(reason) => {
                tracing::info!(slot, generation, pid, reason, "worker draining");
            }
            Self::Killed(reason) => {
                tracing::warn!(slot, generation, pid, reason, "worker killed");
            }
            Self::Gone(End { reason, unexpected: false, uptime, connections }) => {
                tracing::info!(slot, generation, pid, reason, ?uptime, connections, "worker exited",)
            }
            Self::Gone(End { reason, unexpected: true, uptime, connections }) => {
                tracing::warn!(
                    slot,
                    generation,
                    pid,
                    reason,
                    ?uptime,
                    connections,
                    "worker crashed",
                )
            }
        }
    }
}

fn log_report(Report { number, trigger, outcome, replaced, of }: &Report) {
    match outcome {
        Outcome::Done => {
            tracing::info!(rollout = number, %trigger, replaced, of, "rolling restart done");
        }
        Outcome::Aborted(slot, reason) => tracing::error!(
            rollout = number, %trigger, replaced, of, slot = slot.0, reason,
            "rolling restart aborted, the other slots keep their workers",
        ),
        Outcome::Superseded => tracing::warn!(
            rollout = number, %trigger, replaced, of, "rolling restart superseded",
        ),
        Outcome::Stopped => {
            tracing::warn!(rollout = number, %trigger, replaced, of, "rolling restart stopped");
        }
    }
}

/// Says what happens.
#[derive(Clone, Debug)]
pub struct Announcer {
    events: broadcast::Sender<Event>,
}

impl Announcer {
    /// Without subscribers yet.
    #[must_use]
    pub fn new() -> Self {
        Self { events: broadcast::Sender::new(KEPT) }
    }

    /// From now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    pub(super) fn announce(&self, event: Event) {
        event.log();
        // That nobody listens is no error.
        let _ = self.events.send(event);
    }
}

impl Default for Announcer {
    fn default() -> Self {
        Self::new()
    }
}
