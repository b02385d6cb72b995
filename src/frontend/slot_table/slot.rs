//! One slot: its state, its workers, and the connections that wait for it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::link::connection::PendingConnection;
use crate::link::error::ChannelError;
use crate::link::interface::Interface;
use crate::link::seam::WorkerId;
use crate::link::{Delivery, Link};
use crate::protocol::ids::{ConnectionId, SlotId, Timestamp};

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) state: State,
    pub(super) queue: VecDeque<PendingConnection>,
    /// The serving one, those that are still starting, those that drain. Seldom more than two.
    pub(super) workers: Vec<SlotWorker>,
}

#[derive(Debug)]
pub(super) struct SlotWorker {
    pub(super) id: WorkerId,
    pub(super) link: Link,
    pub(super) delivery: Delivery,
    /// It broke the protocol: its messages and counts are ignored until it is gone.
    pub(super) quarantined: bool,
    /// When it has last asked to be replaced, as far as that was passed on.
    pub(super) asked_at: Option<Timestamp>,
}

/// How a slot takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No worker; a successor may come until then.
    Vacant { until: Timestamp },
    /// This worker takes them.
    Serving(WorkerId),
    /// This worker hasn't acknowledged in time, until it answers and nothing that it has is overdue.
    Stalled(WorkerId),
    /// This worker has no descriptors left; it is tried again then.
    Refusing { worker: WorkerId, until: Timestamp },
    /// No worker, and none expected soon.
    Closed,
}

/// A worker that hasn't acknowledged for so long is stalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckTimeout {
    /// A native worker, which acknowledges on a task of its own.
    pub native: Duration,
    /// A Node worker, which acknowledges in the event loop that its program computes in.
    pub node: Duration,
}

impl AckTimeout {
    /// The same for all.
    #[must_use]
    pub fn same(time: Duration) -> Self {
        Self { native: time, node: time }
    }

    fn of(self, link: &Link) -> Duration {
        match link.interface() {
            Some(Interface::Node) => self.node,
            _ => self.native,
        }
    }
}

/// A change that only time has made to a slot.
#[derive(Debug)]
pub enum Overdue {
    /// Its worker has stalled; these connections can go elsewhere.
    Stalled(WorkerId, Vec<PendingConnection>),
    /// No successor came in time; these connections can go elsewhere.
    Unfilled(SlotId, Vec<PendingConnection>),
}

/// A worker that asks to be replaced more often than that is heard once.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

impl SlotWorker {
    pub(super) fn new(id: WorkerId, link: Link, delivery: Delivery) -> Self {
        Self { id, link, delivery, quarantined: false, asked_at: None }
    }

    /// It asks to be replaced; whether that is news.
    pub(super) fn asks(&mut self, now: Timestamp) -> bool {
        let is_news = self.asked_at.is_none_or(|at| now.since(at) >= ASK_INTERVAL);
        if is_news {
            self.asked_at = Some(now);
        }
        is_news
    }

    /// Whether it has something that it should have acknowledged by now.
    pub(super) fn is_overdue(&self, now: Timestamp, ack_timeout: AckTimeout) -> bool {
        self.link.waiting(now) >= Some(ack_timeout.of(&self.link))
    }
}

impl State {
    pub(super) fn worker(self) -> Option<WorkerId> {
        match self {
            Self::Serving(worker) | Self::Stalled(worker) | Self::Refusing { worker, .. } => {
                Some(worker)
            }
            Self::Vacant { .. } | Self::Closed => None,
        }
    }
}

impl Slot {
    pub(super) fn new(state: State, queue: usize) -> Self {
        Self { state, queue: VecDeque::with_capacity(queue), workers: Vec::new() }
    }

    /// A worker, quarantined or not.
    pub(super) fn worker(&mut self, worker: WorkerId) -> Option<&mut SlotWorker> {
        self.workers.iter_mut().find(|one| one.id == worker)
    }

    /// The worker that serves, stalls or refuses.
    pub(super) fn serving(&self) -> Option<&SlotWorker> {
        let serving = self.state.worker()?;
        self.workers.iter().find(|one| one.id == serving && !one.quarantined)
    }

    /// A worker has answered: it is not stalled any more, unless it still has something that is overdue.
    pub(super) fn answered(&mut self, worker: WorkerId, now: Timestamp, ack_timeout: AckTimeout) {
        if self.state == State::Stalled(worker)
            && self.worker(worker).is_some_and(|found| !found.is_overdue(now, ack_timeout))
        {
            self.state = State::Serving(worker);
        }
    }

    /// Whether a connection waits here or is on its way to a worker.
    pub(super) fn holds(&self, id: ConnectionId) -> bool {
        self.queue.iter().any(|waiting| waiting.record.id == id)
            || self.workers.iter().any(|worker| worker.link.in_flight().contains(id))
    }

    /// Whether time changes anything.
    pub(super) fn is_busy(&self) -> bool {
        let has_outgoing = |worker: &SlotWorker| !worker.quarantined && worker.link.has_outgoing();
        !self.queue.is_empty()
            || self.workers.iter().any(has_outgoing)
            || matches!(self.state, State::Vacant { .. } | State::Refusing { .. })
    }

    /// Sends the messages that wait for workers, as far as there is room.
    pub(super) fn send_outgoing(&mut self) -> Result<(), (WorkerId, ChannelError)> {
        let mut workers = self.workers.iter_mut().filter(|worker| !worker.quarantined);
        workers
            .try_for_each(|worker| worker.link.send_outgoing().map_err(|error| (worker.id, error)))
    }

    /// Takes the sessions out of the queue.
    pub(super) fn withdraw_sessions(&mut self) -> Vec<PendingConnection> {
        // Seldom any, and then few: the rest keeps its room.
        let mut sessions = Vec::new();
        for _ in 0..self.queue.len() {
            match self.queue.pop_front() {
                Some(session) if session.transfer.is_some() => sessions.push(session),
                Some(client) => self.queue.push_back(client),
                None => {}
            }
        }
        sessions
    }

    pub(super) fn all_overdue(
        &mut self,
        id: SlotId,
        now: Timestamp,
        ack_timeout: AckTimeout,
    ) -> Vec<Overdue> {
        let mut overdue = self.left_behind(now, ack_timeout);
        overdue.extend(self.overdue(id, now, ack_timeout));
        overdue
    }

    /// Connections that workers which no longer serve have not received: one that was replaced since it
    /// had stalled has years to drain, and its last clients haven't.
    fn left_behind(&mut self, now: Timestamp, ack_timeout: AckTimeout) -> Vec<Overdue> {
        let serving = self.state.worker();
        let others =
            self.workers.iter_mut().filter(|one| Some(one.id) != serving && !one.quarantined);
        let late = others.filter(|one| one.is_overdue(now, ack_timeout));
        let freed = late.map(|one| Overdue::Stalled(one.id, one.link.take_back()));
        freed.filter(|it| matches!(it, Overdue::Stalled(_, freed) if !freed.is_empty())).collect()
    }

    fn overdue(&mut self, id: SlotId, now: Timestamp, ack_timeout: AckTimeout) -> Option<Overdue> {
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
        ack_timeout: AckTimeout,
    ) -> Option<Overdue> {
        let serving = self.worker(worker)?;
        if !serving.is_overdue(now, ack_timeout) {
            return None;
        }
        let mut freed = serving.link.take_back();
        // Its answer shows that it is back, even if nothing else is left for it to answer.
        let _ = serving.link.ping();
        self.state = State::Stalled(worker);
        freed.extend(self.queue.drain(..));
        Some(Overdue::Stalled(worker, freed))
    }
}
