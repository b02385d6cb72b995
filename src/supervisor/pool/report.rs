//! Builds the pool's status, in one pass over all workers: it may be asked for several times a second.

use crate::link::seam::WorkerId;
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::lifecycle::{Phase, SlotState};
use crate::supervisor::pool::fleet::Fleet;
use crate::supervisor::pool::health::Health;
use crate::supervisor::pool::slots::Slot;
use crate::supervisor::pool::status::{PoolStatus, RolloutStatus, SlotStatus, WorkerStatus};

/// The pool's status now.
pub(super) fn status(fleet: &Fleet, health: &Health) -> PoolStatus {
    let (serving, of) = fleet.slots.count_serving();
    let pings = health.pings();
    let slots = fleet.slots.iter().map(|(id, slot)| slot_status(fleet, id, slot, pings));
    let gone = |slot: &SlotStatus| slot.state == SlotState::Removed && slot.workers.is_empty();
    let (removed, slots) = slots.partition(gone);
    let stats = &fleet.history.stats;
    PoolStatus {
        slots,
        removed,
        serving,
        of,
        accepting: fleet.accepting,
        stopping: fleet.state.is_stopping(),
        rollout: rollout_status(fleet),
        autoscale: fleet.settings.autoscale.map(|it| (it.min_workers, it.max_workers)),
        crashes: stats.crashes(),
        ended: fleet.history.summary.ended,
        replacements: stats.replacements(),
        rollouts: stats.rollouts(),
    }
}

fn rollout_status(fleet: &Fleet) -> Option<RolloutStatus> {
    let progress = fleet.planner.progress()?;
    let waits = |slot: &SlotId| {
        let waits_for = fleet.slots.get(*slot).map(|slot| slot.life.waits_for());
        (*slot, waits_for.unwrap_or_default())
    };
    Some(RolloutStatus {
        number: progress.number,
        trigger: progress.trigger.to_string(),
        replaced: progress.replaced,
        of: progress.of,
        under_way: progress.under_way.iter().map(waits).collect(),
    })
}

fn slot_status(fleet: &Fleet, id: SlotId, slot: &Slot, pings: bool) -> SlotStatus {
    let stats = fleet.history.stats.slot(id);
    let now = Timestamp::now();
    let workers: Vec<_> = slot
        .life
        .workers()
        .filter_map(|(generation, phase)| {
            let worker = WorkerId { slot: id, generation };
            let status = worker_status(fleet, worker, phase, now)?;
            Some(WorkerStatus { lag: status.lag.filter(|_| pings), ..status })
        })
        .collect();
    let sum = |gone: u64, count: fn(&WorkerStatus) -> u64| {
        workers.iter().map(count).fold(gone, u64::saturating_add)
    };
    SlotStatus {
        slot: id,
        state: slot.life.state(),
        weight: fleet.settings.weights.get(id.index()).copied().unwrap_or(1.0),
        crashes: stats.crashes,
        started: stats.started,
        delay: slot.life.next_start().map(|at| at.since(now)),
        last_failure: stats.last_failure,
        connections_total: sum(stats.connections, |worker| worker.connections_total),
        requests_total: sum(stats.requests, |worker| worker.requests_total),
        workers,
    }
}

/// Counts that a worker's dialect doesn't tell are 0 here.
fn worker_status(
    fleet: &Fleet,
    worker: WorkerId,
    phase: Phase,
    now: Timestamp,
) -> Option<WorkerStatus> {
    let running = fleet.workers.get(worker)?;
    let stats = running.stats();
    Some(WorkerStatus {
        generation: worker.generation,
        pid: running.process.pid(),
        phase: phase.name(),
        uptime: now.since(running.started),
        connections: stats.connections.unwrap_or(0),
        connections_total: stats.connections_total.unwrap_or(0),
        websockets: stats.websockets.unwrap_or(0),
        sessions: stats.sessions.unwrap_or(0),
        requests: stats.requests.unwrap_or(0),
        requests_total: stats.requests_total.unwrap_or(0),
        memory_at_start: running.memory_at_start(),
        lag: running.health.watchdog.last_lag(now),
    })
}
