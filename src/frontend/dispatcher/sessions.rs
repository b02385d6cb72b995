//! Sessions on their way from one worker to another: taken from whom offers them, placed, and
//! answered for.
//!
//! Each comes to one end: its taker has acknowledged it and its sender hears `moved`, or the sender
//! hears `returned`, or, with nobody left, it is closed. They count as no connections.

use crate::frontend::dispatcher::Dispatcher;
use crate::frontend::dispatcher::lines::{self, TakenBack};
use crate::frontend::dispatcher::recovery::Recovery;
use crate::frontend::session_route::{RouteRequest, Sender, Way, way};
use crate::frontend::slot_table::SlotsHandover;
use crate::link::native::{ChannelError, Offer, PendingConnection};
use crate::link::seam::WorkerId;
use crate::protocol::ids::{ConnectionId, SlotId};

/// Sessions that are the primary's for now.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// How many there are, wherever they are.
    pub(super) under_way: u64,
    /// Those of them that have recovered their worker, and count as protected.
    pub(super) survivors: u64,
    /// Those that nobody takes now, and whose senders are gone. Bounded by the descriptors that
    /// may be held.
    waiting: Vec<PendingConnection>,
    /// Lost, and not said yet.
    unsaid: u64,
}

impl Sessions {
    /// Those that another frontend has left; sessions on channels are counted as these are attached.
    pub(super) fn resume(
        slots: &SlotsHandover,
        waiting: Vec<PendingConnection>,
        recovery: Option<&Recovery>,
    ) -> Self {
        let queued = slots.queues.iter().flat_map(|(_, queue)| queue);
        let held = recovery.iter().flat_map(|recovery| &recovery.held);
        let sessions = queued.chain(held).chain(&waiting).filter(|one| one.parcel.is_some());
        Self { under_way: sessions.count() as u64, survivors: 0, waiting, unsaid: 0 }
    }

    pub(super) fn into_waiting(self) -> Vec<PendingConnection> {
        self.waiting
    }

    /// What they hold at the most: a socket and a parcel each. Survivors have theirs in the ledger.
    pub(super) fn descriptors(&self) -> u64 {
        2 * self.under_way.saturating_sub(self.survivors)
    }

    pub(super) fn any_waits(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Dispatcher {
    /// A worker offers a session.
    pub(super) fn offered(&mut self, worker: WorkerId, offer: Offer) {
        let id = offer.record().id;
        self.protected.forget(worker, id);
        if !self.was_accepted(id) {
            return self.quarantine(worker, ChannelError::UnknownSession(id));
        }
        if self.has(id) {
            // It may just have come here: what its worker has acknowledged since this turn began is
            // not seen yet.
            self.settle_slot(worker.slot);
        }
        if self.has(id) || self.held() >= self.most_held {
            self.return_to(worker, id);
        } else {
            self.begin(worker, offer);
        }
    }

    /// A session that its worker had offered when it died.
    pub(super) fn take_over(&mut self, worker: WorkerId, offer: Offer) {
        let id = offer.record().id;
        if self.was_accepted(id) && !self.has(id) {
            self.begin(worker, offer);
        }
    }

    fn begin(&mut self, worker: WorkerId, offer: Offer) {
        lines::session(worker, offer.record().id, "offered");
        self.sessions.under_way += 1;
        self.place_session(offer.depart(worker));
    }

    pub(super) fn was_accepted(&self, id: ConnectionId) -> bool {
        (1..=self.counters.accepted).contains(&id.0)
    }

    /// Whether it is the primary's: nobody else can offer it.
    fn has(&self, id: ConnectionId) -> bool {
        let held = self.recovery.iter().flat_map(|recovery| &recovery.held);
        let mut waiting = self.unroutable.iter().chain(&self.sessions.waiting).chain(held);
        self.slots.holds(id) || waiting.any(|one| one.record.id == id)
    }

    pub(super) fn place_session(&mut self, session: PendingConnection) {
        let Some(parcel) = &session.parcel else { return self.place(session) };
        if let Some(recovery) = &mut self.recovery {
            return recovery.held.push(session);
        }
        let request = RouteRequest {
            key: session.record.key,
            from: parcel.from,
            sender: match parcel.sender {
                _ if parcel.is_survivor() => Sender::Dead,
                Some(sender) => self.slots.sender(sender),
                None => Sender::Gone,
            },
            failed: &parcel.failed,
            crashes: session.crashes,
        };
        let later = self.slots.has_takers();
        match way(&request, &mut self.router, &self.slots, later, self.now) {
            Way::To(slot) => {
                self.slots.push(slot, session);
                self.touched.push(slot);
                self.watch_time();
            }
            Way::Back => {
                self.sessions.under_way -= 1;
                if let Some(sender) = parcel.sender {
                    self.return_to(sender, session.record.id);
                }
            }
            Way::Wait => {
                self.sessions.waiting.push(session);
                self.watch_time();
            }
            Way::Nowhere => self.lose_session(session),
        }
    }

    /// Gives those whom nobody took another chance.
    pub(super) fn house_sessions(&mut self) {
        for session in std::mem::take(&mut self.sessions.waiting) {
            self.place_session(session);
        }
    }

    /// A worker has acknowledged a session: it is its own.
    pub(super) fn note_moved(&mut self, worker: WorkerId, session: &PendingConnection) {
        let id = session.record.id;
        lines::session(worker, id, "taken");
        self.sessions.under_way -= 1;
        if is_survivor(session) {
            self.note_recovered(worker, session);
        } else {
            self.counters.moved += 1;
        }
        self.stats.took_session(worker.slot);
        self.tell_moved(session);
    }

    fn return_to(&mut self, sender: WorkerId, id: ConnectionId) {
        if let Some(channel) = self.slots.heard(sender) {
            channel.tell_returned(id);
        }
        self.note_returned(sender, id);
    }

    /// A session goes on where it was.
    pub(super) fn note_returned(&mut self, sender: WorkerId, id: ConnectionId) {
        lines::session(sender, id, "returned");
        self.counters.returned += 1;
        self.touched.push(sender.slot);
    }

    /// Closes one. If its sender lives, somebody else has used it since.
    pub(super) fn lose_session(&mut self, session: PendingConnection) {
        self.sessions.under_way -= 1;
        self.sessions.unsaid += 1;
        if is_survivor(&session) {
            return self.lose_survivor(&session);
        }
        self.counters.sessions_lost += 1;
        self.tell_moved(&session);
    }

    fn tell_moved(&mut self, session: &PendingConnection) {
        let Some(sender) = session.parcel.as_ref().and_then(|parcel| parcel.sender) else { return };
        if let Some(channel) = self.slots.heard(sender) {
            channel.tell_moved(session.record.id);
            self.touched.push(sender.slot);
        }
    }

    /// Says once a turn what there is to say of lost ones.
    pub(super) fn log_lost(&mut self) {
        let sessions = std::mem::take(&mut self.sessions.unsaid);
        if sessions > 0 {
            tracing::warn!(sessions, "sessions were closed: nobody is left who takes them");
        }
    }
}

fn is_survivor(session: &PendingConnection) -> bool {
    session.parcel.as_ref().is_some_and(|parcel| parcel.is_survivor())
}

/// A worker that should have taken it didn't.
pub(super) fn note_failure(session: &mut PendingConnection, slot: SlotId, reason: TakenBack) {
    if let Some(parcel) = &mut session.parcel
        && reason != TakenBack::Unfilled
    {
        parcel.failed.push(slot);
    }
}
