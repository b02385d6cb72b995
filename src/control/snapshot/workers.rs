//! All workers, and slots without a worker, as a report.

use std::collections::HashMap;

use crate::control::report::{HeavyConnections, Worker};
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
        memory_per_connection: usage.memory.and_then(|memory| per_connection(memory, worker)),
        cpu: usage.cpu,
        share: share(worker.connections, total),
        ..without_worker(slot, facts)
    }
}

/// The phase of a worker that serves.
const SERVING: &str = "serving";

/// Fewer connections say little: an app has other things in memory, too.
const MIN_CONNECTIONS: u64 = 100;

/// The memory that has come with its connections. If its app keeps anything else in memory that it hadn't at its
/// start, that is part of it. One that drains gives its memory back later than its connections.
fn per_connection(memory: u64, worker: &WorkerStatus) -> Option<u64> {
    let since = memory.saturating_sub(worker.memory_at_start?);
    let is_told = worker.connections >= MIN_CONNECTIONS && worker.phase == SERVING;
    is_told.then(|| since / worker.connections)
}

/// Far more than a WebSocket needs: 4 to 20 KiB, by the library. Buffers of 128 KiB are what makes it more.
const HEAVY: u64 = 64 * 1_024;

/// The page of the guide about the memory of connections.
const MEMORY: &str = "the guide's chapter \"Workers in Rust\", on memory";

/// The worker whose WebSockets take most, if that is far more than they need.
pub(super) fn heavy_connections(workers: &[Worker]) -> Option<HeavyConnections> {
    let sockets = workers.iter().filter(|worker| 2 * worker.websockets > worker.connections);
    let each = sockets.filter_map(|worker| Some((worker.memory_per_connection?, worker.slot)));
    let (memory_per_connection, slot) = each.max().filter(|(each, _)| *each > HEAVY)?;
    Some(HeavyConnections { slot, memory_per_connection, guide: MEMORY.to_owned() })
}

#[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^53")]
fn share(part: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { part as f64 / total as f64 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::ids::Generation;

    fn worker(connections: u64, memory_at_start: Option<u64>) -> WorkerStatus {
        WorkerStatus {
            generation: Generation(0),
            pid: 1,
            phase: "serving",
            uptime: Duration::ZERO,
            connections,
            connections_total: connections,
            websockets: connections,
            sessions: 0,
            requests: 0,
            requests_total: 0,
            memory_at_start,
            lag: None,
        }
    }

    #[test]
    fn memory_since_the_start_is_the_connections() {
        assert_eq!(per_connection(15_000, &worker(1_000, Some(10_000))), Some(5));
        assert_eq!(per_connection(9_000, &worker(1_000, Some(10_000))), Some(0));
        let draining = WorkerStatus { phase: "draining", ..worker(1_000, Some(10_000)) };
        assert_eq!(per_connection(15_000, &draining), None);
        assert_eq!(per_connection(15_000, &worker(99, Some(10_000))), None, "too few");
        assert_eq!(per_connection(15_000, &worker(1_000, None)), None, "before this primary");
    }

    #[test]
    fn the_heaviest_is_named_if_it_is_far_too_heavy() {
        let with = |slot, memory: Option<u64>, websockets| Worker {
            slot,
            memory_per_connection: memory,
            connections: 1_000,
            websockets,
            ..Worker::default()
        };
        let quiet = [with(0, None, 1_000), with(1, Some(20_000), 1_000), with(2, Some(99_999), 3)];
        assert_eq!(heavy_connections(&quiet), None);
        let heavy = [with(0, Some(70_000), 1_000), with(1, Some(135_000), 900)];
        let found = heavy_connections(&heavy).unwrap();
        assert_eq!((found.slot, found.memory_per_connection), (1, 135_000));
    }
}
