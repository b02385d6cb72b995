//! Events of the pool: each is one line of the log, and one message to subscribers.
//!
//! Never changes anything. Subscribers that are too slow miss the oldest events, and learn how many.

use std::time::Duration;

use tokio::sync::broadcast;

use crate::link::seam::WorkerId;
use crate::protocol::ids::SlotId;
use crate::supervisor::ended::EndedConnections;
use crate::supervisor::lifecycle::SlotState;
use crate::supervisor::rollout::{Outcome, Report, Trigger};

/// Events that a subscriber may be behind.
const KEPT: usize = 1024;

/// An event.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Something in a worker's life.
    Worker {
        /// The worker.
        worker: WorkerId,
        /// Its process, 0 if it couldn't be started.
        pid: i32,
        /// The change.
        change: WorkerChange,
    },
    /// A slot has no worker for now. One that is drained has none any more.
    Slot {
        /// The slot.
        slot: SlotId,
        /// How it is.
        state: SlotState,
        /// How long until its next worker is started, in a back-off.
        delay: Option<Duration>,
    },
    /// A rolling restart begins.
    RolloutStarted {
        /// Its number.
        number: u64,
        /// Its trigger.
        trigger: Trigger,
        /// Its slots.
        of: u16,
    },
    /// A rolling restart has ended.
    RolloutEnded(Report),
    /// A slot has the new worker that it was to get.
    Replaced {
        /// The slot.
        slot: SlotId,
    },
    /// A replacement that was under way, or ordered, came to nothing: the slot keeps its worker, or
    /// is to have none. The client that ordered it gets either this or `Replaced`.
    ReplacementFailed {
        /// The slot.
        slot: SlotId,
        /// How the new worker ended, or why there is to be none.
        reason: String,
    },
    /// There are to be more workers, or fewer.
    Scaled {
        /// The number before.
        from: u16,
        /// The number of slots from now on.
        to: u16,
        /// The origin: `command`, `signal`, `load` or `reload`.
        by: &'static str,
    },
    /// A pool goes on in the place of another one.
    Resumed {
        /// Workers that it has found.
        workers: u16,
        /// How the other pool ended.
        after: After,
    },
    /// Everything is to end.
    Stopping {
        /// At once, or gracefully.
        at_once: bool,
    },
}

/// How a pool's predecessor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It has handed over.
    Upgrade,
    /// It has crashed.
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

/// Something in a worker's life.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum WorkerChange {
    /// Its process was started.
    Spawned,
    /// It takes its slot's connections. So many slots serve, of so many.
    Ready {
        /// Slots that serve.
        serving: u16,
        /// Slots.
        of: u16,
    },
    /// It is to be replaced, for this reason.
    Replacing(String),
    /// It finishes what it has, for this reason.
    Draining(&'static str),
    /// It is killed, for this reason. Its end, which follows, has the same.
    Killed(String),
    /// It is aborted, for this reason: it may write a core before it ends.
    Aborted(String),
    /// It has ended.
    Exited(End),
}

/// A worker's end.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// How it ended, and why.
    pub reason: String,
    /// It was not ordered.
    pub unexpected: bool,
    /// How long it lived.
    pub uptime: Duration,
    /// Connections that it had taken over.
    pub connections: u64,
    /// Those of them that were open when its end began.
    pub ended: EndedConnections,
}

impl End {
    /// The end of a worker whose process was never seen to run.
    pub(super) fn unseen(reason: String, unexpected: bool) -> Self {
        Self {
            reason,
            unexpected,
            uptime: Duration::ZERO,
            connections: 0,
            ended: EndedConnections::default(),
        }
    }
}

impl End {
    fn log(&self, worker: WorkerId, pid: i32) {
        let Self { reason, unexpected, uptime, connections, ended } = self;
        let (slot, generation) = (worker.slot.0, worker.generation.0);
        let EndedConnections { open, finished, migrated, closed, protected, cut } = *ended;
        if *unexpected {
            tracing::warn!(
                slot,
                generation,
                pid,
                reason,
                ?uptime,
                connections,
                open,
                finished,
                migrated,
                closed,
                protected,
                cut,
                "worker crashed",
            );
        } else if cut > 0 {
            tracing::warn!(
                slot,
                generation,
                pid,
                reason,
                ?uptime,
                connections,
                open,
                finished,
                migrated,
                closed,
                protected,
                cut,
                "worker exited with connections open",
            );
        } else {
            tracing::info!(
                slot,
                generation,
                pid,
                reason,
                ?uptime,
                connections,
                open,
                finished,
                migrated,
                closed,
                protected,
                cut,
                "worker exited",
            );
        }
    }
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
            Self::RolloutStarted { number, trigger, of } => {
                tracing::info!(rollout = number, %trigger, slots = of, "rolling restart started");
            }
            Self::RolloutEnded(report) => log_report(report),
            Self::Replaced { slot } => tracing::debug!(slot = slot.0, "worker replaced"),
            Self::ReplacementFailed { slot, reason } => {
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
            Self::Ready { serving, of } => {
                tracing::info!(slot, generation, pid, serving, of, "worker ready");
            }
            Self::Replacing(reason) => {
                tracing::info!(slot, generation, pid, reason, "worker replacing");
            }
            Self::Draining(reason) => {
                tracing::info!(slot, generation, pid, reason, "worker draining");
            }
            Self::Killed(reason) => {
                tracing::debug!(slot, generation, pid, reason, "worker killed");
            }
            Self::Aborted(reason) => {
                tracing::warn!(slot, generation, pid, reason, "worker aborted");
            }
            Self::Exited(end) => end.log(worker, pid),
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
        // Without subscribers it fails, which is no error.
        let _ = self.events.send(event);
    }
}

impl Default for Announcer {
    fn default() -> Self {
        Self::new()
    }
}
