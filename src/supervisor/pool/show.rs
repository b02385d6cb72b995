//! The pool shows itself, in one pass over all workers: it may be asked several times a second.

use crate::link::seam::WorkerId;
use crate::protocol::ids::{SlotId, Timestamp};
use crate::protocol::scoreboard::Counter;
use crate::supervisor::lifecycle::{Phase, SlotState};
use crate::supervisor::pool::status::{PoolStatus, RolloutStatus, SlotStatus, WorkerStatus};
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
            rollout: self.rollout_status(),
            autoscale: self.settings.autoscale.map(|it| (it.min_workers, it.max_workers)),
            crashes: self.stats.crashes(),
            replacements: self.stats.replacements(),
            rollouts: self.stats.rollouts(),
        }
    }

    fn rollout_status(&self) -> Option<RolloutStatus> {
        let standing = self.planner.standing()?;
        let waits = |slot: &SlotId| {
            let waits_for = self.slots.get(slot).map(|slot| slot.life.waits_for());
            (*slot, waits_for.unwrap_or_default())
        };
        Some(RolloutStatus {
            number: standing.number,
            trigger: standing.trigger.to_string(),
            replaced: standing.replaced,
            of: standing.of,
            under_way: standing.under_way.iter().map(waits).collect(),
        })
    }

    fn slot_status(&self, id: SlotId, slot: &Slot, now: Timestamp) -> SlotStatus {
        let stats = self.stats.slot(id);
        let workers: Vec<_> = slot
            .life
            .workers()
            .filter_map(|(generation, phase)| {
                self.worker_status(WorkerId { slot: id, generation }, phase, now)
            })
            .collect();
        let sum = |gone: u64, count: fn(&WorkerStatus) -> u64| {
            workers.iter().map(count).fold(gone, u64::saturating_add)
        };
        SlotStatus {
            slot: id,
            state: slot.life.state(),
            weight: self.settings.weights.get(id.index()).copied().unwrap_or(1.0),
            crashes: stats.crashes,
            started: stats.started,
            delay: slot.life.next_start().map(|at| at.since(now)),
            last_failure: stats.last_failure,
            connections_total: sum(stats.connections, |worker| worker.connections_total),
            requests_total: sum(stats.requests, |worker| worker.requests_total),
            workers,
        }
    }

    fn worker_status(
        &self,
        worker: WorkerId,
        phase: Phase,
        now: Timestamp,
    ) -> Option<WorkerStatus> {
        let running = self.running.get(&worker)?;
        let count = |counter| running.scoreboard.get(counter);
        let lag = running.vitals.watchdog.last_lag(now);
        Some(WorkerStatus {
            generation: worker.generation,
            pid: running.process.pid(),
            phase: phase.name(),
            uptime: now.since(running.started),
            connections: count(Counter::Connections),
            connections_total: count(Counter::ConnectionsTotal),
            websockets: count(Counter::WebSockets),
            sessions: count(Counter::Sessions),
            requests: count(Counter::Requests),
            requests_total: count(Counter::RequestsTotal),
            lag: lag.filter(|_| self.health.asks()),
        })
    }
}
