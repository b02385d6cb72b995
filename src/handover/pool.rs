//! A pool, its slots and its workers, as plain data: the decisions that were made. A worker's own state
//! is on its scoreboard.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::handover::carry;
use crate::handover::settings::{
    DrainModeSnapshot, LifecycleSettingsSnapshot, PoolSettingsSnapshot, WorkerCommandSnapshot,
};
use crate::handover::text;
use crate::protocol::drain::{DrainOrder, DrainReason};
use crate::protocol::ids::{Generation, SlotId, Timestamp, WorkerId};

/// A pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolSnapshot {
    pub settings: PoolSettingsSnapshot,
    /// The settings before the rolling restart that is under way.
    pub before: Option<PoolSettingsSnapshot>,
    pub deferred: Option<DeferredSnapshot>,
    pub slots: Vec<SlotSnapshot>,
    pub running: Vec<WorkerSnapshot>,
    pub planner: PlannerSnapshot,
    pub stats: PoolStatsSnapshot,
    pub accepting: bool,
    pub stopping: StoppingSnapshot,
    pub summary: SummarySnapshot,
    pub last_failure: Option<(SlotId, String)>,
    /// Children that this process, and the parent that adopts orphans for it, had at first.
    pub inherited: Vec<i32>,
    /// The last messages of workers that the pool has not handled.
    pub unheard: Vec<(WorkerId, WorkerMessageSnapshot)>,
}

/// A slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlotSnapshot {
    pub slot: SlotId,
    pub life: SlotLifeSnapshot,
    pub command: CommandSnapshot,
    pub candidate: Option<CommandSnapshot>,
    pub ranked: bool,
}

/// The command of a slot. Most slots share one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CommandSnapshot {
    /// That of the settings.
    Current,
    /// That of the settings before.
    Before,
    /// Another, of settings before those.
    Other(Box<WorkerCommandSnapshot>),
}

/// A worker's process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerSnapshot {
    pub worker: WorkerId,
    pub pid: i32,
    pub started: Timestamp,
    pub jitter: f64,
    pub killed: Option<KillReasonSnapshot>,
}

/// A message of a worker. A pong is not worth carrying over.
#[derive(Copy, Eq, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WorkerMessageSnapshot {
    Hello,
    Ready,
    Leave,
    Violation,
}

/// How far the end is.
#[derive(Copy, Eq, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StoppingSnapshot {
    No,
    LameDuck(Timestamp),
    Closing,
    Draining,
}

/// A slot's workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlotLifeSnapshot {
    pub settings: LifecycleSettingsSnapshot,
    pub workers: PhasesSnapshot,
    pub next_generation: u32,
    pub desired: DesiredStateSnapshot,
    pub crashes: CrashesSnapshot,
    pub candidate: Option<Generation>,
    pub stable_at: Option<Timestamp>,
    pub ever_ready: bool,
    pub spare: SpareSnapshot,
}

/// A slot's workers, and those that end by a signal, with its time if it is to be sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhasesSnapshot {
    pub workers: Vec<(Generation, PhaseSnapshot)>,
    pub by_signal: Vec<(Generation, Option<EndTimesSnapshot>)>,
}

/// When a draining worker that ends by a signal is told what.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndTimesSnapshot {
    pub disconnect_at: Option<Timestamp>,
    pub signal_at: Timestamp,
}

/// A worker's phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PhaseSnapshot {
    Spawning { deadline: Timestamp },
    Serving { since: Timestamp },
    Standby { since: Timestamp },
    Spare { since: Timestamp },
    Draining { since: Option<Timestamp>, deadline: Timestamp, told: Option<DrainOrderSnapshot> },
    Aborted { deadline: Timestamp },
    Killed { since: Option<Timestamp> },
}

/// The order to drain that a worker has received.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrainOrderSnapshot {
    pub mode: DrainModeSnapshot,
    pub reason: DrainReasonSnapshot,
    pub window: Duration,
}

/// Why a worker drains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DrainReasonSnapshot {
    Restart,
    GoingAway,
}

/// The state that a slot is to reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DesiredStateSnapshot {
    Filled,
    FilledAt(Timestamp),
    Idle(SlotStateSnapshot),
    Removed,
}

/// A slot's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SlotStateSnapshot {
    Serving,
    Spawning,
    BackOff,
    Errored,
    Stopped,
    Drained,
    Removed,
}

/// A slot's crashes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CrashesSnapshot {
    pub streak: u32,
    pub recent: Vec<Timestamp>,
}

/// A slot's spare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpareSnapshot {
    pub generation: Option<Generation>,
    pub not_before: Option<Timestamp>,
}

/// Why a worker is killed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum KillReasonSnapshot {
    NotReady,
    Violation,
    GraceOver,
    Memory,
    Stalled,
    Superseded,
    StopNow,
    Ordered,
    Stopped,
}

/// The replacements that are under way or wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannerSnapshot {
    pub begun: u64,
    pub current: Option<RolloutSnapshot>,
    pub next: Option<(TriggerSnapshot, Vec<SlotId>)>,
    pub wanted: BTreeMap<SlotId, CauseSnapshot>,
    pub single: Option<(SlotId, CauseSnapshot)>,
    pub failed: BTreeMap<SlotId, Timestamp>,
    pub stopped: bool,
}

/// A rolling restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutSnapshot {
    pub number: u64,
    pub trigger: TriggerSnapshot,
    pub waiting: Vec<SlotId>,
    pub under_way: Vec<SlotId>,
    pub replaced: u16,
    pub of: u16,
    pub ending: Option<OutcomeSnapshot>,
}

/// The trigger of a rolling restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TriggerSnapshot {
    Signal,
    Command,
    Watch(#[serde(with = "text")] PathBuf),
    Cron,
}

/// Why a single slot gets a new worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CauseSnapshot {
    Limit(LimitReasonSnapshot),
    Asked,
    Ordered,
}

/// The limit that a worker has reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LimitReasonSnapshot {
    Age { age: Duration, limit: Duration },
    Connections { served: u64, limit: u64 },
    Memory { used: u64, limit: u64 },
}

/// How a rolling restart ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum OutcomeSnapshot {
    Done,
    Aborted(SlotId, String),
    Superseded,
    Stopped,
}

/// Changes of the number of workers that wait for the end of a rolling restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeferredSnapshot {
    pub to: Option<u16>,
    pub by: i32,
    pub who: OriginSnapshot,
}

/// The origin of such a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum OriginSnapshot {
    Signal,
    Command,
}

/// The counts of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolStatsSnapshot {
    pub crashes: BTreeMap<String, u64>,
    pub replacements: BTreeMap<String, u64>,
    pub rollouts: BTreeMap<String, u64>,
    pub slots: BTreeMap<SlotId, PoolSlotStatsSnapshot>,
}

/// The counts of a pool for one slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolSlotStatsSnapshot {
    pub crashes: u64,
    pub started: u64,
    pub last_failure: Option<String>,
    pub connections: u64,
    pub requests: u64,
}

/// The result so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SummarySnapshot {
    pub counters: CountersSnapshot,
    pub at_once: bool,
    pub killed: u16,
    #[serde(default)]
    pub ended: EndedConnectionsSnapshot,
}

/// Connections that were open in workers when those ended, by how they ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndedConnectionsSnapshot {
    pub open: u64,
    pub finished: u64,
    pub migrated: u64,
    pub closed: u64,
    pub protected: u64,
    pub cut: u64,
}

/// Connections and sessions by their fate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CountersSnapshot {
    pub accepted: u64,
    pub acknowledged: u64,
    pub redispatched: u64,
    pub fallbacks: u64,
    pub lost: u64,
    pub stalls: u64,
    pub refused: u64,
    pub accept_errors: u64,
    pub moved: u64,
    pub returned: u64,
    pub sessions_lost: u64,
    pub closed: u64,
    pub survival: SurvivalSnapshot,
}

/// Protected sessions by their fate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SurvivalSnapshot {
    pub recovered: u64,
    pub busy: u64,
    pub client_gone: u64,
    pub unverified: u64,
    pub no_target: u64,
    pub not_protected: u64,
}

carry!(struct DrainOrder => DrainOrderSnapshot { mode, reason, window });
carry!(enum DrainReason => DrainReasonSnapshot { Restart, GoingAway });
