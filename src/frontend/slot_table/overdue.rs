//! What the passing of time changes in slots: workers stall, refuse no longer, or never come.

use std::time::Duration;

use crate::frontend::slot_table::{Slot, SlotTable, State};
use crate::link::connection::PendingConnection;
use crate::link::seam::WorkerId;
use crate::protocol::ids::{SlotId, Timestamp};

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
        let ack_timeout = self.settings.ack_timeout;
        self.awaited_until = self.awaited_until.filter(|until| now < *until);
        let slots = (0..).map(SlotId).zip(&mut self.slots);
        let overdue = slots.flat_map(|(id, slot)| slot.all_overdue(id, now, ack_timeout)).collect();
        let channels = self.slots.iter().flat_map(|slot| &slot.workers);
        self.in_flight = channels.map(|attached| attached.channel.in_flight().len()).sum();
        overdue
    }
}

impl Slot {
    fn all_overdue(&mut self, id: SlotId, now: Timestamp, ack_timeout: Duration) -> Vec<Overdue> {
        let mut overdue = self.left_behind(now, ack_timeout);
        overdue.extend(self.overdue(id, now, ack_timeout));
        overdue
    }

    /// What workers have not received that serve no longer: one that was replaced since it had
    /// stalled has years to drain, and its last clients haven't.
    fn left_behind(&mut self, now: Timestamp, ack_timeout: Duration) -> Vec<Overdue> {
        let serving = self.state.worker();
        let others =
            self.workers.iter_mut().filter(|one| Some(one.id) != serving && !one.quarantined);
        let late = others.filter(|one| one.channel.waiting(now) >= Some(ack_timeout));
        let freed = late.map(|one| Overdue::Stalled(one.id, one.channel.take_back()));
        freed.filter(|it| matches!(it, Overdue::Stalled(_, freed) if !freed.is_empty())).collect()
    }

    fn overdue(&mut self, id: SlotId, now: Timestamp, ack_timeout: Duration) -> Option<Overdue> {
        match self.state {
            State::Vacant { until } if now >= until => {
                self.state = State::Closed;
                Some(Overdue::Unfilled(id, self.queue.drain(..).collect()))
            }
            State::Refusing { worker, until } if now >= until => {
                self.state = State::Serving(worker);
                None
            }
            State::Serving(worker) => self.stalled(worker, now, ack_timeout),
            _ => None,
        }
    }

    fn stalled(
        &mut self,
        worker: WorkerId,
        now: Timestamp,
        ack_timeout: Duration,
    ) -> Option<Overdue> {
        let serving = self.workers.iter_mut().find(|attached| attached.id == worker)?;
        if serving.channel.waiting(now)? < ack_timeout {
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
