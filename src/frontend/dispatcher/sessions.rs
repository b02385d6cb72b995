//! Sessions on their way from one worker to another: taken from whom offers them, placed, and
//! answered for.
//!
//! Each comes to one end: its taker has acknowledged it and its sender hears `moved`, or the sender
//! hears `returned`, or, with nobody left, it is closed. They count as no connections.

use crate::frontend::dispatcher::Dispatcher;
use crate::frontend::dispatcher::lines::{self, TakenBack};
use crate::frontend::dispatcher::recovery::Recovery;
use crate::frontend::session_route::{Journey, Sender, Way, way};
use crate::frontend::slot_table::SlotEstate;
use crate::handoff::channel::{ChannelError, Offer, PendingConnection};
use crate::handoff::ids::{ConnectionId, SlotId};
use crate::handoff::slots::WorkerId;

/// Sessions that are the primary's for now.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// How many there are, wherever they are.
    pub(super) under_way: u64,
    /// Those that nobody takes now, and whose senders are gone. Bounded by the descriptors that
    /// may be held.
    waiting: Vec<PendingConnection>,
    /// Lost, and not said yet.
    unsaid: u64,
}

impl Sessions {
    /// Those that another frontend has left; sessions on channels are counted as these are attached.
    pub(super) fn resume(
        slots: &SlotEstate,
        waiting: Vec<PendingConnection>,
        recovery: Option<&Recovery>,
    ) -> Self {
        let queued = slots.queues.iter().flat_map(|(_, queue)| queue);
        let held = recovery.iter().flat_map(|recovery| &recovery.held);
        let sessions = queued.chain(held).chain(&waiting).filter(|one| one.parcel.is_some());
        Self { under_way: sessions.count() as u64, waiting, unsaid: 0 }
    }

    pub(super) fn into_waiting(self) -> Vec<PendingConnection> {
        self.waiting
    }

    /// What they hold at the most: a socket and a parcel each.
    pub(super) fn descriptors(&self) -> u64 {
        2 * self.under_way
    }

    pub(super) fn any_waits(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Dispatcher {
    /// A worker offers a session.
    pub(super) fn offered(&mut self, worker: WorkerId, offer: Offer) {
        let id = offer.record().id;
        if !self.was_accepted(id) {
            return self.expel(worker, ChannelError::UnknownSession(id));
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

    fn was_accepted(&self, id: ConnectionId) -> bool {
        (1..=self.counters.accepted).contains(&id.0)
    }

    /// Whether it is the primary's: nobody else can offer it.
    fn has(&self, id: ConnectionId) -> bool {
        let held = self.recovery.iter().flat_map(|recovery| &recovery.held);
        let mut waiting = self.homeless.iter().chain(&self.sessions.waiting).chain(held);
        self.slots.holds(id) || waiting.any(|one| one.record.id == id)
    }

    pub(super) fn place_session(&mut self, session: PendingConnection) {
        let Some(parcel) = &session.parcel else { return self.place(session) };
        if let Some(recovery) = &mut self.recovery {
            return recovery.held.push(session);
        }
        let journey = Journey {
            key: session.record.key,
            from: parcel.from,
            sender: parcel.sender.map_or(Sender::Gone, |sender| self.slots.sender(sender)),
            failed: &parcel.failed,
            deaths: session.deaths,
        };
        let later = self.slots.has_takers();
        match way(&journey, &mut self.router, &self.slots, later, self.now) {
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
        self.counters.moved += 1;
        self.sessions.under_way -= 1;
        self.tally.took_session(worker.slot);
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
        self.counters.sessions_lost += 1;
        self.sessions.under_way -= 1;
        self.sessions.unsaid += 1;
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
    pub(super) fn mourn(&mut self) {
        let sessions = std::mem::take(&mut self.sessions.unsaid);
        if sessions > 0 {
            tracing::warn!(sessions, "sessions were closed: nobody is left who takes them");
        }
    }
}

/// A worker that should have taken it didn't.
pub(super) fn note_failure(session: &mut PendingConnection, slot: SlotId, reason: TakenBack) {
    if let Some(parcel) = &mut session.parcel
        && reason != TakenBack::Unfilled
    {
        parcel.failed.push(slot);
    }
}
