//! The pool shows itself.

use crate::handoff::ids::{SlotId, Timestamp};
use crate::handoff::scoreboard::Counter;
use crate::handoff::slots::WorkerId;
use crate::supervisor::lifecycle::{Phase, SlotState};
use crate::supervisor::pool::status::{PoolStatus, SlotStatus, WorkerStatus};
use crate::supervisor::pool::workers::Running;
use crate::supervisor::pool::{Pool, Slot};

impl Pool {
    pub(super) fn status(&self) -> PoolStatus {
        let now = Timestamp::now();
        let (serving, of) = self.count_serving();
        let slots = self.slots.iter().map(|(id, slot)| self.slot_status(*id, slot, now));
        let gone = |slot: &SlotStatus| slot.state == SlotState::Removed && slot.workers.is_empty();
        PoolStatus {
            slots: slots.filter(|slot| !gone(slot)).collect(),
            serving,
            of,
            accepting: self.accepting,
            stopping: self.stopping.is_ordered(),
            autoscale: self.settings.autoscale.map(|it| (it.min_workers, it.max_workers)),
            ..PoolStatus::default()
        }
    }

    fn slot_status(&self, id: SlotId, slot: &Slot, now: Timestamp) -> SlotStatus {
        let running = self.running.iter().filter(|(worker, _)| worker.slot == id);
        let mut workers: Vec<_> =
            running.map(|(worker, running)| worker_status(*worker, running, slot, now)).collect();
        workers.sort_by_key(|worker| worker.generation);
        SlotStatus {
            slot: id,
            state: slot.life.state(),
            weight: self.settings.weights.get(id.index()).copied().unwrap_or(1.0),
            deaths: 0,
            started: 0,
            delay: None,
            last_failure: None,
            connections_total: 0,
            requests_total: 0,
            workers,
        }
    }
}

fn worker_status(worker: WorkerId, running: &Running, slot: &Slot, now: Timestamp) -> WorkerStatus {
    let count = |counter| running.scoreboard.get(counter);
    WorkerStatus {
        generation: worker.generation,
        pid: running.process.pid(),
        phase: slot.life.phase(worker.generation).map_or("killed", Phase::name),
        uptime: now.since(running.started),
        connections: count(Counter::Connections),
        connections_total: count(Counter::ConnectionsTotal),
        requests: count(Counter::Requests),
        requests_total: count(Counter::RequestsTotal),
        lag: None,
    }
}
