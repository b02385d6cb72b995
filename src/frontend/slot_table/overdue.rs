//! What the passing of time changes in slots: workers stall, refuse no longer, or never come.

use std::time::Duration;

use crate::frontend::slot_table::{Slot, SlotTable, State};
use crate::handoff::channel::PendingConnection;
use crate::handoff::ids::{SlotId, Timestamp};
use crate::handoff::slots::WorkerId;

/// What the passing of time has changed in a slot.
#[derive(Debug)]
pub enum Overdue {
    /// Its worker has stalled; these connections can go elsewhere.
    Stalled(WorkerId, Vec<PendingConnection>),
    /// No successor came in time; these connections can go elsewhere.
    Unfilled(SlotId, Vec<PendingConnection>),
}

impl SlotTable {
    /// What the time that has passed changes, slot by slot.
    pub fn overdue(&mut self, now: Timestamp) -> Vec<Overdue> {
        let stall_after = self.settings.stall_after;
        self.awaited_until = self.awaited_until.filter(|until| now < *until);
        let slots = (0..).map(SlotId).zip(&mut self.slots);
        let overdue = slots.flat_map(|(id, slot)| slot.all_overdue(id, now, stall_after)).collect();
        let channels = self.slots.iter().flat_map(|slot| &slot.workers);
        self.in_flight = channels.map(|attached| attached.channel.in_flight()).sum();
        overdue
    }
}

impl Slot {
    fn all_overdue(&mut self, id: SlotId, now: Timestamp, stall_after: Duration) -> Vec<Overdue> {
        let mut overdue = self.left_behind(now, stall_after);
        overdue.extend(self.overdue(id, now, stall_after));
        overdue
    }

    /// What workers have not received that serve no longer: one that was replaced since it had
    /// stalled has years to drain, and its last clients haven't.
    fn left_behind(&mut self, now: Timestamp, stall_after: Duration) -> Vec<Overdue> {
        let serving = self.state.worker();
        let others = self.workers.iter_mut().filter(|one| Some(one.id) != serving && !one.expelled);
        let late = others.filter(|one| one.channel.waiting(now) >= Some(stall_after));
        let freed = late.map(|one| Overdue::Stalled(one.id, one.channel.take_back()));
        freed.filter(|it| matches!(it, Overdue::Stalled(_, freed) if !freed.is_empty())).collect()
    }

    fn overdue(&mut self, id: SlotId, now: Timestamp, stall_after: Duration) -> Option<Overdue> {
        match self.state {
            State::Vacant { until } if now >= until => {
                self.state = State::Closed;
                Some(Overdue::Unfilled(id, self.queue.drain(..).collect()))
            }
            State::Refusing { worker, until } if now >= until => {
                self.state = State::Serving(worker);
                None
            }
            State::Serving(worker) => self.stalled(worker, now, stall_after),
            _ => None,
        }
    }

    fn stalled(
        &mut self,
        worker: WorkerId,
        now: Timestamp,
        stall_after: Duration,
    ) -> Option<Overdue> {
        let serving = self.workers.iter_mut().find(|attached| attached.id == worker)?;
        if serving.channel.waiting(now)? < stall_after {
            return None;
        }
        self.state = State::Stalled(worker);
        let mut freed = serving.channel.take_back();
        // Its answer says that it is back, even if nothing else is left for it to answer.
        let _ = serving.channel.ping();
        freed.extend(self.queue.drain(..));
        Some(Overdue::Stalled(worker, freed))
    }
}
