//! The slots as the frontend sees them: who serves each, and which connections wait for it.
//!
//! Decides nothing about clients and reads no clock; the dispatcher drives it.
//!
//! A slot's queue is the one place where connections wait: for credits, for a worker that has
//! stalled to be noticed, or for the successor of one that died. It is bounded; a slot whose queue
//! is full counts as closed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::frontend::fallback::FallbackReason;
use crate::frontend::placement::{Availability, Slots};
use crate::link::connection::PendingConnection;
use crate::link::error::ChannelError;
use crate::link::event::LinkEvent;
use crate::link::seam::WorkerId;
use crate::link::{Attached, Delivery, Link};
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::{SlotId, Timestamp};

mod overdue;
mod sessions;
mod snapshot;

pub use overdue::Overdue;
pub use snapshot::SlotsHandover;

/// How long slots are patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotSettings {
    /// A worker that hasn't acknowledged for so long is stalled.
    pub ack_timeout: Duration,
    /// Connections wait so long for the successor of a worker that died.
    pub slot_wait: Duration,
    /// So many connections wait for a slot at the most.
    pub queue: usize,
}

/// A worker that refused gets no connection for so long.
const REFUSAL_PAUSE: Duration = Duration::from_millis(100);

/// All slots.
#[derive(Debug)]
pub struct SlotTable {
    slots: Vec<Slot>,
    settings: SlotSettings,
    /// Connections on their way to any worker.
    in_flight: usize,
    /// Slots that are not filled yet will be until then: another primary's workers are taken over.
    awaited_until: Option<Timestamp>,
}

#[derive(Debug)]
struct Slot {
    state: State,
    queue: VecDeque<PendingConnection>,
    /// The serving one, those that are still starting, those that drain. Seldom more than two.
    workers: Vec<SlotWorker>,
}

#[derive(Debug)]
struct SlotWorker {
    id: WorkerId,
    channel: Link,
    delivery: Delivery,
    /// It broke the protocol: nothing that it says or counts is heard until it is gone.
    quarantined: bool,
}

/// What a slot's clients meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No worker; a successor may come until then.
    Vacant { until: Timestamp },
    /// This worker takes them.
    Serving(WorkerId),
    /// This worker hasn't acknowledged in time.
    Stalled(WorkerId),
    /// This worker has no descriptors left; it is asked again then.
    Refusing { worker: WorkerId, until: Timestamp },
    /// No worker, and none expected soon.
    Closed,
}

/// What a look at the scoreboards of a slot brought.
#[derive(Debug, Default)]
pub struct Completion {
    /// So many more connections, sessions included, are their worker's own.
    pub acknowledged: usize,
    /// This worker has refused some, and its messages are to be read before the next look.
    pub refusals: Option<WorkerId>,
    /// This worker has settled what it was not sent.
    pub breach: Option<(WorkerId, ChannelError)>,
}

impl State {
    /// Whoever answers is not stalled.
    fn is_alive(&mut self, worker: WorkerId) {
        if *self == Self::Stalled(worker) {
            *self = Self::Serving(worker);
        }
    }

    fn worker(self) -> Option<WorkerId> {
        match self {
            Self::Serving(worker) | Self::Stalled(worker) | Self::Refusing { worker, .. } => {
                Some(worker)
            }
            Self::Vacant { .. } | Self::Closed => None,
        }
    }
}

impl SlotTable {
    /// No slot yet: they are made as workers come for them.
    #[must_use]
    pub fn new(settings: SlotSettings) -> Self {
        Self { slots: Vec::new(), settings, in_flight: 0, awaited_until: None }
    }

    /// So many slots there are at least; new ones are closed until a worker serves.
    pub fn grow(&mut self, count: usize) {
        let queue = self.settings.queue;
        let state = self.awaited_until.map_or(State::Closed, |until| State::Vacant { until });
        let new = || Slot { state, queue: VecDeque::with_capacity(queue), workers: Vec::new() };
        self.slots.resize_with(count.max(self.slots.len()), new);
    }

    /// A new worker's link, or one of another primary's.
    pub fn attach(&mut self, worker: WorkerId, attached: Attached) {
        let Attached { link: channel, delivery } = attached;
        self.grow(worker.slot.index() + 1);
        self.in_flight += channel.in_flight().len();
        let slot = &mut self.slots[worker.slot.index()];
        slot.workers.push(SlotWorker { id: worker, channel, delivery, quarantined: false });
    }

    /// From now on the slot's clients, waiting ones included, go to `worker`, unless it has been
    /// quarantined since it said that it is ready. Returns sessions that waited and that it doesn't
    /// take.
    pub fn serve(&mut self, worker: WorkerId) -> Vec<PendingConnection> {
        let Some(slot) = self.slots.get_mut(worker.slot.index()) else { return Vec::new() };
        let mut workers = slot.workers.iter().filter(|attached| !attached.quarantined);
        let Some(serving) = workers.find(|attached| attached.id == worker) else {
            return Vec::new();
        };
        let takes_sessions = serving.channel.takes_sessions();
        slot.state = State::Serving(worker);
        if takes_sessions { Vec::new() } else { slot.withdraw_sessions() }
    }

    /// Nothing more for `worker`. If it served, its slot waits for a successor.
    pub fn retire(&mut self, worker: WorkerId, now: Timestamp) {
        if self.state_of(worker.slot).and_then(State::worker) == Some(worker) {
            self.slots[worker.slot.index()].state =
                State::Vacant { until: now + self.settings.slot_wait };
        }
    }

    /// Nothing more for `worker`, and nothing more from it.
    pub fn quarantine(&mut self, worker: WorkerId, now: Timestamp) {
        self.retire(worker, now);
        if let Some(slot) = self.slots.get_mut(worker.slot.index())
            && let Some(attached) = slot.workers.iter_mut().find(|attached| attached.id == worker)
        {
            attached.quarantined = true;
        }
    }

    /// Tells `worker` that no more come, and ends its service.
    pub fn drain(&mut self, worker: WorkerId, order: DrainOrder, now: Timestamp) {
        self.retire(worker, now);
        if let Some(channel) = self.channel(worker) {
            channel.drain(order);
        }
    }

    /// Takes out a worker that is gone.
    pub fn remove(&mut self, worker: WorkerId, now: Timestamp) -> Option<Link> {
        self.retire(worker, now);
        let workers = &mut self.slots.get_mut(worker.slot.index())?.workers;
        let position = workers.iter().position(|attached| attached.id == worker)?;
        let channel = workers.swap_remove(position).channel;
        self.in_flight = self.in_flight.saturating_sub(channel.in_flight().len());
        Some(channel)
    }

    /// Nobody will fill the slot soon. Returns who waited for it.
    pub fn close(&mut self, slot: SlotId) -> Vec<PendingConnection> {
        let Some(slot) = self.slots.get_mut(slot.index()) else { return Vec::new() };
        if slot.state.worker().is_some() {
            return Vec::new();
        }
        slot.state = State::Closed;
        slot.queue.drain(..).collect()
    }

    /// A worker's channel.
    pub fn channel(&mut self, worker: WorkerId) -> Option<&mut Link> {
        let slot = self.slots.get_mut(worker.slot.index())?;
        slot.workers
            .iter_mut()
            .find(|attached| attached.id == worker)
            .map(|found| &mut found.channel)
    }

    /// Reads one message of a worker's. Whatever it says, it is alive.
    ///
    /// # Errors
    ///
    /// If it breaks the protocol.
    pub fn receive(&mut self, worker: WorkerId, now: Timestamp) -> Result<LinkEvent, ChannelError> {
        let Some(channel) = self.channel(worker) else { return Ok(LinkEvent::Nothing) };
        let notice = channel.receive()?;
        let state = &mut self.slots[worker.slot.index()].state;
        match (&notice, *state) {
            (LinkEvent::Nothing, _) => {}
            (LinkEvent::Refused(refused), State::Serving(serving))
                if serving == worker && refused.iter().any(|one| one.parcel.is_none()) =>
            {
                *state = State::Refusing { worker, until: now + REFUSAL_PAUSE };
            }
            _ => state.is_alive(worker),
        }
        Ok(notice)
    }

    /// Gives what a slot's workers have acknowledged to `acknowledged`, to be closed here.
    pub fn settle(
        &mut self,
        slot: SlotId,
        mut acknowledged: impl FnMut(WorkerId, PendingConnection),
    ) -> Completion {
        let mut completion = Completion::default();
        let Some(slot) = self.slots.get_mut(slot.index()) else { return completion };
        for SlotWorker { id, channel, .. } in slot.workers.iter_mut().filter(|one| !one.quarantined)
        {
            let before = channel.in_flight().len();
            match channel.settle(|connection| acknowledged(*id, connection)) {
                Ok(Some(0)) => continue,
                Ok(Some(count)) => completion.acknowledged += count,
                Ok(None) => completion.refusals = Some(*id),
                Err(error) => completion.breach = Some((*id, error)),
            }
            self.in_flight = self.in_flight.saturating_sub(before - channel.in_flight().len());
            slot.state.is_alive(*id);
        }
        completion
    }

    /// Puts a connection into a slot's queue.
    pub fn push(&mut self, slot: SlotId, connection: PendingConnection) {
        // The router names slots of this table only.
        self.slots[slot.index()].queue.push_back(connection);
    }

    /// Tells a slot's workers what they are to be told, sends what waits for it to the one that
    /// serves, as far as credits go, tells `handed_over` of each, and says whether any went.
    ///
    /// # Errors
    ///
    /// If the worker has closed its channel; what waits still waits.
    pub fn flush(
        &mut self,
        slot: SlotId,
        now: Timestamp,
        mut handed_over: impl FnMut(WorkerId, &PendingConnection),
    ) -> Result<bool, (WorkerId, ChannelError)> {
        let slot = &mut self.slots[slot.index()];
        slot.send_notes()?;
        let State::Serving(worker) = slot.state else { return Ok(false) };
        let serving = slot.workers.iter_mut().find(|attached| attached.id == worker);
        let Some(SlotWorker { channel, delivery, .. }) = serving else { return Ok(false) };
        let sent = match delivery {
            Delivery::HandOff => channel.send_from(&mut slot.queue, now),
        };
        let sent = sent.map_err(|error| (worker, error))?;
        channel.in_flight().last(sent).for_each(|connection| handed_over(worker, connection));
        self.in_flight += sent;
        Ok(sent > 0)
    }

    /// Whether time changes anything: something waits or is on its way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let waits = |slot: &Slot| {
            !slot.queue.is_empty()
                || slot.has_notes()
                || matches!(slot.state, State::Vacant { .. } | State::Refusing { .. })
        };
        self.in_flight > 0 || self.slots.iter().any(waits)
    }

    /// Whether no connection waits or is on its way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.slots.iter().all(|slot| slot.queue.is_empty())
    }

    /// Connections on their way to any worker.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Connections that wait for a slot, and those on their way to its workers.
    #[must_use]
    pub fn held_for(&self, slot: SlotId) -> (usize, usize) {
        let Some(slot) = self.slots.get(slot.index()) else { return (0, 0) };
        let in_flight =
            slot.workers.iter().map(|attached| attached.channel.in_flight().len()).sum();
        (slot.queue.len(), in_flight)
    }

    fn state_of(&self, slot: SlotId) -> Option<State> {
        self.slots.get(slot.index()).map(|slot| slot.state)
    }
}

impl Slots for SlotTable {
    fn count(&self) -> u16 {
        u16::try_from(self.slots.len()).unwrap_or(u16::MAX)
    }

    /// An operator may ask before the slot is there.
    fn availability(&self, slot: SlotId) -> Availability {
        let Some(slot) = self.slots.get(slot.index()) else { return Availability::Closed };
        if slot.queue.len() >= self.settings.queue {
            return Availability::Closed;
        }
        match slot.state {
            State::Serving(_) => Availability::Open,
            State::Vacant { .. } => Availability::Holding,
            State::Stalled(_) | State::Refusing { .. } | State::Closed => Availability::Closed,
        }
    }

    fn load(&self, slot: SlotId) -> u64 {
        let Some(slot) = self.slots.get(slot.index()) else { return 0 };
        let channels: u64 = slot.workers.iter().map(|attached| attached.channel.load()).sum();
        channels.saturating_add(slot.queue.len() as u64)
    }

    fn closed_because(&self, slot: SlotId) -> FallbackReason {
        match self.state_of(slot) {
            Some(State::Stalled(_)) => FallbackReason::Stalled,
            Some(State::Refusing { .. }) => FallbackReason::Refusing,
            Some(State::Closed) | None => FallbackReason::NotServing,
            Some(State::Serving(_) | State::Vacant { .. }) => FallbackReason::QueueFull,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ids::Generation;

    #[test]
    fn an_expelled_worker_is_not_put_into_service_by_an_order_on_its_way() {
        let second = Duration::from_secs(1);
        let settings = SlotSettings { ack_timeout: second, slot_wait: second, queue: 4 };
        let mut slots = SlotTable::new(settings);
        let worker = |generation| WorkerId { slot: SlotId(0), generation: Generation(generation) };
        for generation in 0..2 {
            let (link, _end) = Link::native(1).unwrap();
            slots.attach(worker(generation), link.into());
        }
        slots.quarantine(worker(0), Timestamp(0));
        slots.serve(worker(0));
        assert_eq!(slots.availability(SlotId(0)), Availability::Closed);
        slots.serve(worker(1));
        assert_eq!(slots.availability(SlotId(0)), Availability::Open);
    }
}
