//! How all slots and workers are: what the pool says of itself.

use std::time::Duration;

use crate::protocol::ids::{Generation, SlotId};
use crate::supervisor::ended::EndedConnections;
use crate::supervisor::lifecycle::SlotState;

/// The words of [`PoolStatus::crashes`]: it ended by itself; by a signal; the kernel had no memory
/// left; it was killed since it was not ready in time, stood still, used more than
/// `max_memory_kill`, broke the protocol; its program could not be run; it was killed by an
/// operator's command.
pub const CRASHES: [&str; 9] = [
    "exited",
    "signal",
    "out-of-memory",
    "not-ready",
    "stalled",
    "memory",
    "violation",
    "not-started",
    "ordered",
];

/// The words of [`PoolStatus::replacements`]: `max_memory_restart`, `max_age`,
/// `max_connections_served`; the worker asked for it; an operator's command.
pub const REPLACEMENTS: [&str; 5] = ["memory", "age", "connections", "asked", "ordered"];

/// The words of [`PoolStatus::rollouts`].
pub const ROLLOUTS: [&str; 4] = ["done", "aborted", "superseded", "stopped"];

/// The pool, at one moment.
#[derive(Clone, Debug, Default)]
pub struct PoolStatus {
    /// All slots that are not removed, and removed ones whose workers still drain.
    pub slots: Vec<SlotStatus>,
    /// Slots that serve.
    pub serving: u16,
    /// Slots that are to be there.
    pub of: u16,
    /// Connections are accepted: the first workers were ready.
    pub accepting: bool,
    /// Everything is to end.
    pub stopping: bool,
    /// The rolling restart that is under way.
    pub rollout: Option<RolloutStatus>,
    /// Between how many workers load decides.
    pub autoscale: Option<(u16, u16)>,
    /// How often workers ended without being told to, by a word for the reason: all of [`CRASHES`],
    /// from the start.
    pub crashes: Vec<(&'static str, u64)>,
    /// Connections that were open in workers when those ended.
    pub ended: EndedConnections,
    /// Slots that were removed, for their counts.
    pub removed: Vec<SlotStatus>,
    /// Single slots whose worker was replaced, by a word for the reason: all of [`REPLACEMENTS`].
    pub replacements: Vec<(&'static str, u64)>,
    /// Rolling restarts that have ended, by result: all of [`ROLLOUTS`].
    pub rollouts: Vec<(&'static str, u64)>,
}

/// A rolling restart that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutStatus {
    /// Its number, from 1.
    pub number: u64,
    /// Its trigger, in words.
    pub trigger: String,
    /// Slots that have a new worker.
    pub replaced: u16,
    /// Slots that are to get one.
    pub of: u16,
    /// Slots whose successor is on its way, and what that waits for: `its new worker to be ready`.
    pub under_way: Vec<(SlotId, &'static str)>,
}

/// A slot.
#[derive(Clone, Debug)]
pub struct SlotStatus {
    /// Its number.
    pub slot: SlotId,
    /// How it is.
    pub state: SlotState,
    /// Its weight in placement.
    pub weight: f64,
    /// How often its workers ended without being told to.
    pub crashes: u64,
    /// Workers that were started in it.
    pub started: u64,
    /// Until its next worker is started, in a back-off.
    pub delay: Option<Duration>,
    /// The last reason why one of its workers ended without being told to.
    pub last_failure: Option<String>,
    /// Connections that its workers have taken over, those that are gone included.
    pub connections_total: u64,
    /// Requests that its workers have finished, those that are gone included.
    pub requests_total: u64,
    /// Its workers, the oldest first.
    pub workers: Vec<WorkerStatus>,
}

/// A worker that runs.
#[derive(Clone, Debug)]
pub struct WorkerStatus {
    /// Its generation.
    pub generation: Generation,
    /// Its process.
    pub pid: i32,
    /// Where it stands: `spawning`, `spare`, `serving`, `standby`, `draining`, `aborted`,
    /// `killed`.
    pub phase: &'static str,
    /// Since its process was started.
    pub uptime: Duration,
    /// Connections established.
    pub connections: u64,
    /// Connections that it has taken over.
    pub connections_total: u64,
    /// WebSockets among them.
    pub websockets: u64,
    /// Those that can move to another worker.
    pub sessions: u64,
    /// Requests in flight.
    pub requests: u64,
    /// Requests that it has finished.
    pub requests_total: u64,
    /// Bytes of memory that it had as it became ready, if this primary has seen that.
    pub memory_at_start: Option<u64>,
    /// How long its event loop took to answer last, where it is asked.
    pub lag: Option<Duration>,
}
