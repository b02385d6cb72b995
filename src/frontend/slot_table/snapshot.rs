//! Slots that have stopped, and the start of the next ones from them.

use crate::frontend::slot_table::{Slot, SlotTable, State};
use crate::link::Link;
use crate::link::connection::PendingConnection;
use crate::link::seam::WorkerId;
use crate::protocol::ids::{SlotId, Timestamp};

/// Everything that slots hold, and what the supervisor doesn't know of their workers.
#[derive(Debug, Default)]
pub struct SlotsHandover {
    /// All channels.
    pub channels: Vec<(WorkerId, Link)>,
    /// The connections that wait for a slot.
    pub queues: Vec<(SlotId, Vec<PendingConnection>)>,
    /// Workers that broke the protocol.
    pub quarantined: Vec<WorkerId>,
    /// Workers that serve and haven't acknowledged in time.
    pub stalled: Vec<WorkerId>,
}

impl SlotTable {
    /// Everything that they hold.
    #[must_use]
    pub fn into_handover(self) -> SlotsHandover {
        let mut handover = SlotsHandover::default();
        for (id, slot) in (0..).map(SlotId).zip(self.slots) {
            let Slot { state, queue, workers } = slot;
            if let State::Stalled(worker) = state {
                handover.stalled.push(worker);
            }
            if !queue.is_empty() {
                handover.queues.push((id, queue.into()));
            }
            for attached in workers {
                if attached.quarantined {
                    handover.quarantined.push(attached.id);
                }
                handover.channels.push((attached.id, attached.channel));
            }
        }
        handover
    }

    /// Resumes with the connections that waited. Workers are about to be attached and to serve: until
    /// then slots keep the connections that come for them, for as long as for any successor.
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

    /// Resumes the channel of a worker that had another primary before, if it is known by now what that
    /// one has sent. Returns how many connections the worker had acknowledged that nobody has counted.
    pub fn go_on(&mut self, worker: WorkerId) -> Option<u64> {
        self.heard(worker)?.go_on()
    }

    /// Notes the counts of a slot's workers, for a successor.
    pub fn note_seen(&mut self, slot: SlotId) {
        let slot = self.slots.get_mut(slot.index());
        let workers = slot.into_iter().flat_map(|slot| &mut slot.workers);
        workers.for_each(|attached| attached.channel.note_seen());
    }

    /// Clients that wait or are on their way, without sessions.
    #[must_use]
    pub fn clients(&self) -> u64 {
        let waiting = |slot: &Slot| slot.queue.iter().filter(|one| one.parcel.is_none()).count();
        let workers = self.slots.iter().flat_map(|slot| &slot.workers);
        let under_way = workers.map(|attached| attached.channel.in_flight().clients());
        self.slots.iter().map(waiting).chain(under_way).sum::<usize>() as u64
    }
}
