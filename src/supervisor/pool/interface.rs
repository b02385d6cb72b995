//! What the pool takes and gives: its settings, orders and errors, and how it all went.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::handover::carry;
use crate::handover::pool::SummarySnapshot;
use crate::handover::settings::PoolSettingsSnapshot;
use crate::link::seam::{CommandSender, Counters, FrontendGone, SlotEvent};
use crate::protocol::ids::SlotId;
use crate::supervisor::autoscale::AutoscaleSettings;
use crate::supervisor::command::WorkerCommand;
use crate::supervisor::event::Announcer;
use crate::supervisor::lifecycle::LifecycleSettings;
use crate::supervisor::limits::LimitSettings;
use crate::supervisor::orphans::Orphans;
use crate::supervisor::output::Output;
use crate::supervisor::pool::handle::{Reply, Scale, Scaled, SlotOrder};
use crate::supervisor::pool::status::PoolStatus;
use crate::supervisor::rollout::{RolloutSettings, Trigger};
use crate::system::journal::Journal;
use crate::system::store::Store;

/// More slots than these there cannot be.
pub const MOST_WORKERS: u16 = 1024;

/// What the pool runs on.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// How many slots.
    pub workers: u16,
    /// The weight of each slot, in placement; 1 for those beyond.
    pub weights: Vec<f64>,
    /// What each worker runs.
    pub command: Arc<WorkerCommand>,
    /// The port that the primary listens on, as `PORT`.
    pub port: u16,
    /// Connections that a worker may have unacknowledged.
    pub credits: usize,
    /// How long a slot's clients wait for a successor: for a later one they don't wait at all.
    pub slot_wait: Duration,
    /// A worker serves when it says that it is ready; else as soon as it has attached.
    pub wait_ready: bool,
    /// How long each phase may take.
    pub lifecycle: LifecycleSettings,
    /// How replacements are done.
    pub rollout: RolloutSettings,
    /// When to have more workers and when fewer, if load decides that.
    pub autoscale: Option<AutoscaleSettings>,
    /// Slots have to be numbered without gaps, lest clients move that needn't.
    pub contiguous: bool,
    /// When workers are replaced.
    pub limits: LimitSettings,
    /// A worker whose event loop has stood still for so long is aborted.
    pub watchdog_timeout: Option<Duration>,
    /// So long workers go on serving when the primary is gone.
    pub orphan_timeout: Duration,
    /// How often it is to be shown that pool and frontend go on.
    pub heartbeat: Option<Duration>,
    /// A session that hasn't moved to another worker within that is sent away.
    pub migrate_timeout: Duration,
    /// Whether sessions whose apps say so survive their worker.
    pub protect: bool,
    /// From the order to stop until connections are no longer accepted.
    pub lameduck: Duration,
}

carry!(struct PoolSettings => PoolSettingsSnapshot { workers, weights, command, port, credits, slot_wait, wait_ready, lifecycle, rollout, autoscale, contiguous, limits, watchdog_timeout, orphan_timeout, heartbeat, migrate_timeout, protect, lameduck });

/// What the pool is connected to.
#[derive(Debug)]
pub struct PoolLinks {
    /// Takes what workers are to be given.
    pub frontend: CommandSender,
    /// What workers say on their channels.
    pub events: mpsc::Receiver<SlotEvent>,
    /// What workers print.
    pub output: Output,
    /// What workers leave behind.
    pub orphans: Orphans,
    /// What the operator wants.
    pub orders: mpsc::Receiver<Order>,
    /// How far the start is.
    pub progress: watch::Sender<Progress>,
    /// What happens.
    pub announcer: Announcer,
    /// Keeps descriptors for a successor after a crash, if anybody does.
    pub store: Option<Store>,
    /// Where the pool is written down for that one.
    pub journal: Option<Journal>,
}

/// What the operator wants.
#[derive(Debug)]
pub enum Order {
    /// Drain all and end.
    Stop,
    /// End all at once.
    StopNow,
    /// Replace all workers, slot by slot, by workers of these settings.
    Reload(Trigger, Box<PoolSettings>, Option<Reply<u64>>),
    /// More workers, or fewer.
    Scale(Scale, Option<Reply<Scaled>>),
    /// Something for a single slot.
    Slot(SlotId, SlotOrder, Reply<()>),
    /// Stop, leave everything to a successor, and tell when that begins.
    HandOver(Reply<()>),
    /// Say how all is.
    Status(Reply<PoolStatus>),
}

/// How far the start is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Slots that serve.
    pub serving: u16,
    /// Slots that are to serve.
    pub of: u16,
    /// Connections are accepted.
    pub accepting: bool,
    /// Heartbeats since the start.
    pub beats: u64,
}

/// Why the pool ended without being asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The command cannot be run.
    #[error("cannot run worker command {command:?}")]
    Command {
        /// The program.
        command: std::ffi::OsString,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No worker ever got ready.
    #[error("no worker became ready: the last one, in slot {slot}, {reason}")]
    NeverReady {
        /// The slot of the last attempt.
        slot: SlotId,
        /// What became of it.
        reason: String,
    },
    /// Every slot is errored.
    #[error(
        "every slot is errored after too many crashes: the last worker, in slot {slot}, {reason}"
    )]
    AllErrored {
        /// The slot of the last one.
        slot: SlotId,
        /// What became of it.
        reason: String,
    },
    /// A worker's channel cannot be made.
    #[error("cannot make a channel for a worker")]
    Channel(#[source] io::Error),
    /// The frontend has ended.
    #[error(transparent)]
    Frontend(#[from] FrontendGone),
}

/// How it all went, when it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// What became of connections.
    pub counters: Counters,
    /// It was ended at once, not gracefully.
    pub at_once: bool,
    /// Workers that had to be killed at the end.
    pub killed: u16,
    /// Connections that were established in those.
    pub cut: u64,
}

carry!(struct Summary => SummarySnapshot { counters, at_once, killed, cut });
