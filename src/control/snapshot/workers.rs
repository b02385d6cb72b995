//! All workers, and slots without a worker, as a report.

use std::collections::HashMap;

use crate::control::report::Worker;
use crate::control::snapshot::status::millis;
use crate::control::usage::Usage;
use crate::frontend::query::{FrontendFacts, SlotFacts};
use crate::link::seam::WorkerId;
use crate::supervisor::pool::status::{PoolStatus, SlotStatus, WorkerStatus};

/// Sorted by slot, the oldest worker of each first.
pub(super) fn workers(
    pool: &PoolStatus,
    frontend: &FrontendFacts,
    usage: &HashMap<WorkerId, Usage>,
) -> Vec<Worker> {
    let all = pool.slots.iter().flat_map(|slot| &slot.workers);
    let total: u64 = all.map(|worker| worker.connections).sum();
    let rows = pool.slots.iter().flat_map(|slot| {
        let facts = frontend.slots.get(slot.slot.index());
        if slot.workers.is_empty() {
            return vec![without_worker(slot, facts)];
        }
        let workers = slot.workers.iter();
        workers.map(|worker| row(slot, worker, facts, usage, total)).collect()
    });
    rows.collect()
}

fn without_worker(slot: &SlotStatus, facts: Option<&SlotFacts>) -> Worker {
    Worker {
        slot: slot.slot.0,
        state: slot.state.to_string(),
        crashes: slot.crashes,
        stalls: facts.map_or(0, |facts| facts.stalls),
        ..Worker::default()
    }
}

fn row(
    slot: &SlotStatus,
    worker: &WorkerStatus,
    facts: Option<&SlotFacts>,
    usage: &HashMap<WorkerId, Usage>,
    total: u64,
) -> Worker {
    let id = WorkerId { slot: slot.slot, generation: worker.generation };
    let usage = usage.get(&id).copied().unwrap_or_default();
    // The frontend's figures of a slot belong to its serving worker.
    let serving = facts.filter(|_| worker.phase == "serving");
    Worker {
        generation: Some(worker.generation.0),
        pid: Some(worker.pid),
        state: worker.phase.to_owned(),
        uptime_s: Some(worker.uptime.as_secs_f64()),
        connections: worker.connections,
        connections_total: worker.connections_total,
        websockets: worker.websockets,
        sessions: worker.sessions,
        requests: worker.requests,
        requests_total: worker.requests_total,
        handoffs_per_second: serving.map_or(0.0, |facts| facts.handoffs_per_second),
        handoff_p50_ms: serving.and_then(|facts| facts.recent.p50).map(millis),
        handoff_p99_ms: serving.and_then(|facts| facts.recent.p99).map(millis),
        memory: usage.memory,
        cpu: usage.cpu,
        share: share(worker.connections, total),
        ..without_worker(slot, facts)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^53")]
fn share(part: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { part as f64 / total as f64 }
}
