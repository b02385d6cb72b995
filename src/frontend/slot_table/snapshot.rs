//! What slots leave to a successor, and how they go on from it.

use crate::frontend::slot_table::{Slot, SlotTable, State};
use crate::link::Link;
use crate::link::connection::PendingConnection;
use crate::link::seam::WorkerId;
use crate::protocol::ids::{SlotId, Timestamp};

/// Everything that slots hold, and what is to be known of workers beside what the supervisor knows.
#[derive(Debug, Default)]
pub struct SlotEstate {
    /// All of them.
    pub channels: Vec<(WorkerId, Link)>,
    /// Who waits for which slot.
    pub queues: Vec<(SlotId, Vec<PendingConnection>)>,
    /// These broke the protocol.
    pub quarantined: Vec<WorkerId>,
    /// These serve and haven't acknowledged in time.
    pub stalled: Vec<WorkerId>,
}

impl SlotTable {
    /// Everything.
    #[must_use]
    pub fn into_estate(self) -> SlotEstate {
        let mut estate = SlotEstate::default();
        for (id, slot) in (0..).map(SlotId).zip(self.slots) {
            let Slot { state, queue, workers } = slot;
            if let State::Stalled(worker) = state {
                estate.stalled.push(worker);
            }
            if !queue.is_empty() {
                estate.queues.push((id, queue.into()));
            }
            for attached in workers {
                if attached.quarantined {
                    estate.quarantined.push(attached.id);
                }
                estate.channels.push((attached.id, attached.channel));
            }
        }
        estate
    }

    /// Goes on where another has ended. Its workers are about to be attached and to serve: until then
    /// slots keep whoever comes for them, for as long as for any successor.
    pub fn resume(&mut self, queues: Vec<(SlotId, Vec<PendingConnection>)>, now: Timestamp) {
        self.awaited_until = Some(now + self.settings.slot_wait);
        for (slot, waiting) in queues {
            self.grow(slot.index() + 1);
            self.slots[slot.index()].queue.extend(waiting);
        }
    }

    /// A worker that serves is stalled, as it was before.
    pub fn stall(&mut self, worker: WorkerId) {
        if let Some(slot) = self.slots.get_mut(worker.slot.index())
            && slot.state == State::Serving(worker)
        {
            slot.state = State::Stalled(worker);
        }
    }

    /// Goes on with the channel of a worker that had another primary before, if it can be known by now
    /// what that one has sent. Returns how many it had acknowledged that nobody has counted.
    pub fn complete_resync(&mut self, worker: WorkerId) -> Option<u64> {
        self.heard(worker)?.complete_resync()
    }

    /// Notes what is counted of a slot's workers, for whoever has to go on from here.
    pub fn publish_counts(&mut self, slot: SlotId) {
        let slot = self.slots.get_mut(slot.index());
        let workers = slot.into_iter().flat_map(|slot| &mut slot.workers);
        workers.for_each(|attached| attached.channel.publish_counts());
    }

    /// Clients that wait or are on their way, sessions not among them.
    #[must_use]
    pub fn clients(&self) -> u64 {
        let waiting = |slot: &Slot| slot.queue.iter().filter(|one| one.transfer.is_none()).count();
        let workers = self.slots.iter().flat_map(|slot| &slot.workers);
        let under_way = workers.map(|attached| attached.channel.in_flight().clients());
        self.slots.iter().map(waiting).chain(under_way).sum::<usize>() as u64
    }
}
