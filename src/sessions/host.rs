//! The frontend as the broker sees it: links by worker, queues by slot, and where clients belong.

use crate::link::Link;
use crate::link::connection::PendingConnection;
use crate::link::seam::{Counters, WorkerId};
use crate::protocol::ids::{AffinityKey, ConnectionId, SlotId, Timestamp};

/// Owns slots, links, router and counters.
pub trait Host {
    /// The time of this turn.
    fn now(&self) -> Timestamp;

    /// Counters of connections and sessions.
    fn counters(&mut self) -> &mut Counters;

    /// The link of a worker that is not quarantined. The caller's messages are sent at the end of the
    /// turn.
    fn link(&mut self, worker: WorkerId) -> Option<&mut Link>;

    /// Resumes the link of an adopted worker if it is known by now what its former primary had sent, and
    /// says whether it is.
    fn resume_link(&mut self, worker: WorkerId) -> bool;

    /// The state of a worker that has offered a session.
    fn sender(&self, worker: WorkerId) -> Sender;

    /// Workers that serve and take sessions.
    fn session_workers(&self) -> Vec<WorkerId>;

    /// Facts for the route of a session, and the memory of where clients are.
    fn targets(&mut self) -> impl MigrationTargets;

    /// Forgets which clients went elsewhere, and says how many there were.
    fn forget_fallbacks(&mut self) -> u64;

    /// Puts a session into a slot's queue.
    fn queue(&mut self, slot: SlotId, session: PendingConnection);

    /// Places a connection that is no session.
    fn place_client(&mut self, connection: PendingConnection);

    /// Whether a connection waits for a slot or is on its way to a worker.
    fn holds(&self, id: ConnectionId) -> bool;

    /// Whether so many more descriptors can be held beside those of clients.
    fn has_room_for(&self, descriptors: u64) -> bool;

    /// Notes that a slot's worker has taken a session.
    fn session_taken(&mut self, slot: SlotId);

    /// Has [`Broker::retry`](crate::sessions::broker::Broker::retry) called with the next tick.
    fn schedule_tick(&mut self);
}

/// The state of a worker that has offered a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// It serves its slot.
    Serving,
    /// It drains, or another worker serves its slot.
    Leaving,
    /// It is dead or quarantined.
    Gone,
    /// It is dead, and the session has survived it.
    Dead,
}

/// A slot, as far as sessions are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// Its worker takes connections and sessions.
    Open,
    /// Its worker takes connections, but no sessions.
    WithoutSessions,
    /// A successor of its worker is expected; sessions can wait in its queue.
    Awaited,
    /// Its queue is full.
    Full,
    /// It takes nothing.
    Closed,
}

/// Facts for the route of a session, and the memory of where clients are.
pub trait MigrationTargets {
    /// The state of a slot.
    fn state(&self, slot: SlotId) -> TargetState;

    /// Whether any worker could take a session sooner or later.
    fn is_any_expected(&self) -> bool;

    /// The slot where a client belongs, whatever its state; none where nothing sticks.
    fn ideal(&self, key: AffinityKey) -> Option<SlotId>;

    /// An open slot for a session of the client with this key, past those in `failed`. The client's next
    /// connections follow it.
    fn choose(&mut self, key: AffinityKey, failed: &[SlotId]) -> Option<SlotId>;

    /// Notes that a session of the client with this key stays in a slot: its next connections follow it.
    fn stay(&mut self, key: AffinityKey, slot: SlotId);

    /// Whether a session can go to a slot now.
    fn is_open(&self, slot: SlotId) -> bool {
        self.state(slot) == TargetState::Open
    }
}
