//! The slots as the frontend sees them: the worker that serves each, and the connections that wait for it.
//!
//! Decides nothing about clients and reads no clock; [`routing`](crate::frontend) drives it.
//!
//! A slot's queue is the one place where connections wait: for credits, for a worker that has
//! stalled to be noticed, or for the successor of one that died. It is bounded; a slot whose queue
//! is full counts as closed.

use std::sync::Arc;
use std::time::Duration;

use crate::frontend::fallback::FallbackReason;
use crate::frontend::placement::{Availability, Slots};
use crate::frontend::session_targets::SessionSlots;
use crate::link::connection::PendingConnection;
use crate::link::error::ChannelError;
use crate::link::event::{LinkEvent, SessionEvent};
use crate::link::programs::Recipients;
use crate::link::seam::WorkerId;
use crate::link::{Attached, Delivery, Link};
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::{ConnectionId, SlotId, Timestamp};
use crate::sessions::host::Sender;

mod slot;
mod snapshot;

pub use slot::{AckTimeout, Overdue};
use slot::{Slot, SlotWorker, State};
pub use snapshot::SlotsHandover;

/// Timeouts and limits of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotSettings {
    /// How long workers may take to acknowledge.
    pub ack_timeout: AckTimeout,
    /// Connections wait so long for the successor of a worker that died.
    pub slot_wait: Duration,
    /// Connections that wait for a slot, at most.
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

/// The acknowledgements of a slot's workers.
#[derive(Debug, Default)]
pub struct Completion {
    /// So many connections were acknowledged, sessions included.
    pub acknowledged: usize,
    /// This worker has refused some; its messages are to be read before the next look.
    pub refusals: Option<WorkerId>,
    /// This worker has acknowledged more than it was sent.
    pub breach: Option<(WorkerId, ChannelError)>,
}

/// The outcome of a message to programs.
#[derive(Debug, Default)]
pub struct Told {
    /// Slots in which it waits to be sent.
    pub slots: Vec<SlotId>,
    /// Workers that have no room for it.
    pub refused: Vec<WorkerId>,
}

impl SlotTable {
    /// Without slots: they are made as workers come for them.
    #[must_use]
    pub fn new(settings: SlotSettings) -> Self {
        Self { slots: Vec::new(), settings, in_flight: 0, awaited_until: None }
    }

    /// A native worker that hasn't acknowledged for so long is stalled.
    #[must_use]
    pub fn ack_timeout(&self) -> Duration {
        self.settings.ack_timeout.native
    }

    /// Makes slots until there are so many; new ones are closed until a worker serves.
    pub fn grow(&mut self, count: usize) {
        let queue = self.settings.queue;
        let state = self.awaited_until.map_or(State::Closed, |until| State::Vacant { until });
        self.slots.resize_with(count.max(self.slots.len()), || Slot::new(state, queue));
    }

    /// A new worker's link, or one of another primary's.
    pub fn attach(&mut self, worker: WorkerId, attached: Attached) {
        let Attached { link, delivery } = attached;
        self.grow(worker.slot.index() + 1);
        self.in_flight += link.in_flight().len();
        let slot = &mut self.slots[worker.slot.index()];
        slot.workers.push(SlotWorker::new(worker, link, delivery));
    }

    /// From now on the slot's clients, waiting ones included, go to `worker`, unless it has been
    /// quarantined since it said that it is ready. Returns sessions that waited and that it doesn't
    /// take.
    pub fn serve(&mut self, worker: WorkerId) -> Vec<PendingConnection> {
        let Some(slot) = self.slots.get_mut(worker.slot.index()) else { return Vec::new() };
        let serving = slot.worker(worker).filter(|serving| !serving.quarantined);
        let Some(serving) = serving else { return Vec::new() };
        let takes_sessions = serving.link.takes_sessions();
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
            && let Some(found) = slot.worker(worker)
        {
            found.quarantined = true;
        }
    }

    /// Orders `worker` to drain, and ends its service.
    pub fn drain(&mut self, worker: WorkerId, order: DrainOrder, now: Timestamp) {
        self.retire(worker, now);
        if let Some(link) = self.any_link(worker) {
            link.drain(order);
        }
    }

    /// Has a message sent to workers' programs.
    pub fn tell(&mut self, recipients: Recipients, line: &Arc<[u8]>) -> Told {
        let mut told = Told::default();
        let workers = self.slots.iter_mut().flat_map(|slot| &mut slot.workers);
        for one in workers.filter(|one| !one.quarantined && recipients.include(one.id)) {
            if one.link.tell(line) {
                told.slots.push(one.id.slot);
            } else {
                told.refused.push(one.id);
            }
        }
        told
    }

    /// Takes out a worker that is gone.
    pub fn remove(&mut self, worker: WorkerId, now: Timestamp) -> Option<Link> {
        self.retire(worker, now);
        let workers = &mut self.slots.get_mut(worker.slot.index())?.workers;
        let position = workers.iter().position(|one| one.id == worker)?;
        let link = workers.swap_remove(position).link;
        self.in_flight = self.in_flight.saturating_sub(link.in_flight().len());
        Some(link)
    }

    /// No worker will fill the slot soon. Returns the connections that waited for it.
    pub fn close(&mut self, slot: SlotId) -> Vec<PendingConnection> {
        let Some(slot) = self.slots.get_mut(slot.index()) else { return Vec::new() };
        if slot.state.worker().is_some() {
            return Vec::new();
        }
        slot.state = State::Closed;
        slot.queue.drain(..).collect()
    }

    /// A worker's link, even if it is quarantined.
    pub fn any_link(&mut self, worker: WorkerId) -> Option<&mut Link> {
        let slot = self.slots.get_mut(worker.slot.index())?;
        slot.worker(worker).map(|found| &mut found.link)
    }

    /// A worker's link, unless it is quarantined.
    pub fn link(&mut self, worker: WorkerId) -> Option<&mut Link> {
        let slot = self.slots.get_mut(worker.slot.index())?;
        let found = slot.worker(worker).filter(|found| !found.quarantined);
        found.map(|found| &mut found.link)
    }

    /// The state of a worker that has offered a session.
    #[must_use]
    pub fn sender(&self, worker: WorkerId) -> Sender {
        let Some(slot) = self.slots.get(worker.slot.index()) else { return Sender::Gone };
        if !slot.workers.iter().any(|one| one.id == worker && !one.quarantined) {
            Sender::Gone
        } else if slot.state.worker() == Some(worker) {
            Sender::Serving
        } else {
            Sender::Leaving
        }
    }

    /// Whether a connection waits for a slot or is on its way to a worker.
    #[must_use]
    pub fn holds(&self, id: ConnectionId) -> bool {
        self.slots.iter().any(|slot| slot.holds(id))
    }

    /// All workers that serve and take sessions.
    pub fn session_workers(&self) -> impl Iterator<Item = WorkerId> {
        let serving = self.slots.iter().filter_map(Slot::serving);
        serving.filter(|one| one.link.takes_sessions()).map(|one| one.id)
    }

    /// The worker of each slot that has a listening socket of its own, and whether it serves: the serving one, or the
    /// newest.
    #[must_use]
    pub fn listening(&self) -> Vec<(WorkerId, bool)> {
        let listens = |one: &&SlotWorker| matches!(one.delivery, Delivery::Listener(_));
        let of_slot = |slot: &Slot| match slot.serving().filter(listens) {
            Some(serving) => Some((serving.id, true)),
            None => {
                let newest =
                    slot.workers.iter().filter(listens).max_by_key(|one| one.id.generation);
                newest.map(|newest| (newest.id, false))
            }
        };
        self.slots.iter().filter_map(of_slot).collect()
    }

    /// Whether a worker has something that it should have acknowledged by now.
    #[must_use]
    pub fn is_overdue(&self, worker: WorkerId, now: Timestamp) -> bool {
        let slot = self.slots.get(worker.slot.index());
        let mut workers = slot.into_iter().flat_map(|slot| &slot.workers);
        workers.any(|one| one.id == worker && one.is_overdue(now, self.settings.ack_timeout))
    }

    /// Reads one message of a worker. Any message shows that it is alive, which is not to say that it
    /// takes connections.
    ///
    /// # Errors
    ///
    /// If it breaks the protocol.
    pub fn receive(&mut self, worker: WorkerId, now: Timestamp) -> Result<LinkEvent, ChannelError> {
        let slot = self.slots.get_mut(worker.slot.index());
        let Some(slot) = slot else { return Ok(LinkEvent::Nothing) };
        // It may have been quarantined since its message was reported.
        let found = slot.worker(worker).filter(|found| !found.quarantined);
        let Some(found) = found else { return Ok(LinkEvent::Nothing) };
        let event = match found.link.receive()? {
            LinkEvent::ReplaceMe if !found.asks(now) => SessionEvent::Ignored.into(),
            event => event,
        };
        match (&event, slot.state) {
            (LinkEvent::Nothing, _) => {}
            (LinkEvent::Refused(refused), State::Serving(serving))
                if serving == worker && refused.iter().any(|one| one.transfer.is_none()) =>
            {
                slot.state = State::Refusing { worker, until: now + REFUSAL_PAUSE };
            }
            _ => slot.answered(worker, now, self.settings.ack_timeout),
        }
        Ok(event)
    }

    /// Gives what a slot's workers have acknowledged to `acknowledged`, to be closed here.
    pub fn complete(
        &mut self,
        slot: SlotId,
        now: Timestamp,
        mut acknowledged: impl FnMut(WorkerId, PendingConnection),
    ) -> Completion {
        let mut completion = Completion::default();
        let Some(slot) = self.slots.get_mut(slot.index()) else { return completion };
        let mut answered = None;
        for SlotWorker { id, link, .. } in slot.workers.iter_mut().filter(|one| !one.quarantined) {
            let before = link.in_flight().len();
            match link.complete(|connection| acknowledged(*id, connection)) {
                Ok(Some(0)) => continue,
                Ok(Some(count)) => completion.acknowledged += count,
                Ok(None) => completion.refusals = Some(*id),
                Err(error) => completion.breach = Some((*id, error)),
            }
            self.in_flight = self.in_flight.saturating_sub(before - link.in_flight().len());
            answered = slot.state.worker().filter(|serving| serving == id).or(answered);
        }
        if let Some(worker) = answered {
            slot.answered(worker, now, self.settings.ack_timeout);
        }
        completion
    }

    /// Puts a connection into a slot's queue.
    pub fn push(&mut self, slot: SlotId, connection: PendingConnection) {
        // The router names slots of this table only.
        self.slots[slot.index()].queue.push_back(connection);
    }

    /// Sends a slot's workers the messages that wait for them, and the one that serves the connections
    /// that wait, as far as credits go. Calls `handed_over` for each, and says whether there was one.
    ///
    /// # Errors
    ///
    /// If the worker has closed its link; the connections still wait.
    pub fn flush(
        &mut self,
        slot: SlotId,
        now: Timestamp,
        mut handed_over: impl FnMut(WorkerId, &PendingConnection),
    ) -> Result<bool, (WorkerId, ChannelError)> {
        let slot = &mut self.slots[slot.index()];
        slot.send_outgoing()?;
        let State::Serving(worker) = slot.state else { return Ok(false) };
        let serving = slot.workers.iter_mut().find(|one| one.id == worker);
        let Some(SlotWorker { link, delivery, .. }) = serving else { return Ok(false) };
        let sent = match delivery {
            Delivery::HandOff => link.send_from(&mut slot.queue, now),
            // Clients that came to the primary all the same wait for one that is handed connections, or are closed.
            Delivery::Listener(_) => Ok(0),
        };
        let sent = sent.map_err(|error| (worker, error))?;
        link.in_flight().last(sent).for_each(|connection| handed_over(worker, connection));
        self.in_flight += sent;
        Ok(sent > 0)
    }

    /// Applies the time that has passed to all slots, and returns the changes.
    pub fn overdue(&mut self, now: Timestamp) -> Vec<Overdue> {
        let ack_timeout = self.settings.ack_timeout;
        self.awaited_until = self.awaited_until.filter(|until| now < *until);
        let slots = (0..).map(SlotId).zip(&mut self.slots);
        let overdue = slots.flat_map(|(id, slot)| slot.all_overdue(id, now, ack_timeout)).collect();
        let workers = self.slots.iter().flat_map(|slot| &slot.workers);
        self.in_flight = workers.map(|worker| worker.link.in_flight().len()).sum();
        overdue
    }

    /// Whether time changes anything: something waits or is on its way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.in_flight > 0 || self.slots.iter().any(Slot::is_busy)
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
        let in_flight = slot.workers.iter().map(|worker| worker.link.in_flight().len()).sum();
        (slot.queue.len(), in_flight)
    }

    /// Everything, for a successor.
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
            for worker in workers {
                if worker.quarantined {
                    handover.quarantined.push(worker.id);
                }
                let SlotWorker { id, link, delivery, .. } = worker;
                handover.channels.push((id, Attached { link, delivery }));
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

    /// Resumes the link of a worker that had another primary before, if it is known by now what that
    /// one has sent. Returns how many connections the worker had acknowledged that no primary has counted.
    pub fn complete_resync(&mut self, worker: WorkerId, now: Timestamp) -> Option<u64> {
        let uncounted = self.link(worker)?.complete_resync()?;
        self.slots[worker.slot.index()].answered(worker, now, self.settings.ack_timeout);
        Some(uncounted)
    }

    /// Notes the counts of a slot's workers, for a successor.
    pub fn publish_counts(&mut self, slot: SlotId) {
        let slot = self.slots.get_mut(slot.index());
        let workers = slot.into_iter().flat_map(|slot| &mut slot.workers);
        workers.for_each(|worker| worker.link.publish_counts());
    }

    /// Clients that wait or are on their way, without sessions.
    #[must_use]
    pub fn clients(&self) -> u64 {
        let waiting = |slot: &Slot| slot.queue.iter().filter(|one| one.transfer.is_none()).count();
        let workers = self.slots.iter().flat_map(|slot| &slot.workers);
        let under_way = workers.map(|worker| worker.link.in_flight().clients());
        self.slots.iter().map(waiting).chain(under_way).sum::<usize>() as u64
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
        // Workers may count anything.
        let loads = slot.workers.iter().map(|worker| worker.link.load());
        loads.fold(slot.queue.len() as u64, u64::saturating_add)
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

impl SessionSlots for SlotTable {
    fn takes_sessions(&self, slot: SlotId) -> bool {
        let serving = self.slots.get(slot.index()).and_then(Slot::serving);
        serving.is_some_and(|serving| serving.link.takes_sessions())
    }

    fn expects_sessions(&self) -> bool {
        let awaited = |slot: &Slot| matches!(slot.state, State::Vacant { .. });
        self.session_workers().next().is_some() || self.slots.iter().any(awaited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ids::Generation;
    use crate::protocol::message::{HELLO, READY};
    use crate::protocol::scm_rights::send;
    use crate::protocol::scoreboard::{Counter, Scoreboard};

    #[test]
    fn workers_that_count_anything_make_no_slot_look_idle() {
        let second = Duration::from_secs(1);
        let settings =
            SlotSettings { ack_timeout: AckTimeout::same(second), slot_wait: second, queue: 4 };
        let mut slots = SlotTable::new(settings);
        for generation in 0..2 {
            let worker = WorkerId { slot: SlotId(0), generation: Generation(generation) };
            let (link, inherit) = Link::native(1).unwrap();
            let board = Scoreboard::open(inherit.descriptor("scoreboard").unwrap()).unwrap();
            board.set(Counter::Connections, u64::MAX);
            slots.attach(worker, link.into());
        }
        assert_eq!(slots.load(SlotId(0)), u64::MAX);
    }

    #[test]
    fn a_quarantined_worker_is_not_heard_though_its_message_was_reported_before() {
        let second = Duration::from_secs(1);
        let settings =
            SlotSettings { ack_timeout: AckTimeout::same(second), slot_wait: second, queue: 4 };
        let (mut slots, now) = (SlotTable::new(settings), Timestamp::now());
        let worker = WorkerId { slot: SlotId(0), generation: Generation(0) };
        let (link, mut inherit) = Link::native(1).unwrap();
        let end = inherit.take("channel").unwrap();
        slots.attach(worker, link.into());
        send(&end, &HELLO, &[]).unwrap();
        send(&end, &READY, &[]).unwrap();
        assert!(matches!(slots.receive(worker, now), Ok(LinkEvent::Attached)));
        slots.quarantine(worker, now);
        assert!(matches!(slots.receive(worker, now), Ok(LinkEvent::Nothing)));
    }

    #[test]
    fn a_quarantined_worker_is_not_put_into_service_by_a_command_on_its_way() {
        let second = Duration::from_secs(1);
        let settings =
            SlotSettings { ack_timeout: AckTimeout::same(second), slot_wait: second, queue: 4 };
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
