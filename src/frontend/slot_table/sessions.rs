//! Sessions, as far as slots know of them: who takes any, who offered which, and what workers are
//! to be told.

use crate::frontend::session_targets::SessionSlots;
use crate::frontend::slot_table::{Slot, SlotTable, SlotWorker, State};
use crate::link::Link;
use crate::link::connection::PendingConnection;
use crate::link::error::ChannelError;
use crate::link::seam::WorkerId;
use crate::protocol::ids::{ConnectionId, SlotId};
use crate::sessions::host::Sender;

impl SlotTable {
    /// A worker's channel, if it is still heard.
    pub fn heard(&mut self, worker: WorkerId) -> Option<&mut Link> {
        let slot = self.slots.get_mut(worker.slot.index())?;
        let mut heard = slot.workers.iter_mut().filter(|attached| !attached.quarantined);
        heard.find(|attached| attached.id == worker).map(|found| &mut found.channel)
    }

    /// What has become of a worker that has offered a session.
    #[must_use]
    pub fn sender(&self, worker: WorkerId) -> Sender {
        let Some(slot) = self.slots.get(worker.slot.index()) else { return Sender::Gone };
        if !slot.workers.iter().any(|attached| attached.id == worker && !attached.quarantined) {
            Sender::Gone
        } else if slot.state.worker() == Some(worker) {
            Sender::Serving
        } else {
            Sender::Leaving
        }
    }

    /// Whether a session is with the primary, whoever has offered it.
    #[must_use]
    pub fn holds(&self, id: ConnectionId) -> bool {
        let waits = |slot: &Slot| slot.queue.iter().any(|waiting| waiting.record.id == id);
        let goes = |attached: &SlotWorker| attached.channel.in_flight().contains(id);
        self.slots.iter().any(|slot| waits(slot) || slot.workers.iter().any(goes))
    }

    /// All workers that serve and take sessions.
    pub fn takers(&self) -> impl Iterator<Item = WorkerId> {
        let serving = self.slots.iter().filter_map(Slot::serving);
        serving.filter(|one| one.channel.takes_sessions()).map(|one| one.id)
    }
}

impl SessionSlots for SlotTable {
    fn takes_sessions(&self, slot: SlotId) -> bool {
        let slot = self.slots.get(slot.index());
        let serving = slot.and_then(Slot::serving);
        serving.is_some_and(|serving| serving.channel.takes_sessions())
    }

    fn expects_sessions(&self) -> bool {
        let awaited = |slot: &Slot| matches!(slot.state, State::Vacant { .. });
        self.takers().next().is_some() || self.slots.iter().any(awaited)
    }
}

impl Slot {
    /// Stalled and refusing ones, too.
    fn serving(&self) -> Option<&SlotWorker> {
        let serving = self.state.worker()?;
        self.workers.iter().find(|attached| attached.id == serving && !attached.quarantined)
    }

    pub(super) fn has_notes(&self) -> bool {
        self.workers.iter().any(|attached| !attached.quarantined && attached.channel.has_notes())
    }

    pub(super) fn send_notes(&mut self) -> Result<(), (WorkerId, ChannelError)> {
        let mut heard = self.workers.iter_mut().filter(|attached| !attached.quarantined);
        heard.try_for_each(|attached| {
            attached.channel.send_notes().map_err(|error| (attached.id, error))
        })
    }

    pub(super) fn withdraw_sessions(&mut self) -> Vec<PendingConnection> {
        // Seldom any, and then few: the rest keeps its room.
        let mut sessions = Vec::new();
        for _ in 0..self.queue.len() {
            match self.queue.pop_front() {
                Some(session) if session.parcel.is_some() => sessions.push(session),
                Some(client) => self.queue.push_back(client),
                None => {}
            }
        }
        sessions
    }
}
