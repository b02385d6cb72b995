//! What the supervisor orders, carried out: workers come, serve, drain and go, and the end of it all.

use std::time::Duration;

use crate::frontend::dispatcher::lines::{self, TakenBack};
use crate::frontend::dispatcher::{Dispatcher, sessions};
use crate::frontend::placement::Slots;
use crate::frontend::poller::Source;
use crate::link::native::{Channel, PendingConnection};
use crate::link::seam::{SlotCommand, SlotEventKind, WorkerId};

/// How long the last connections may take to be handed over when the supervisor stops.
const LAST_HANDOFFS: Duration = Duration::from_secs(2);

impl Dispatcher {
    pub(super) fn obey_all(&mut self) {
        self.orders.quiet();
        while let Some(command) = self.orders.next_command() {
            self.obey(command);
            self.watch_time();
            if self.ended {
                return;
            }
        }
    }

    fn obey(&mut self, command: SlotCommand) {
        match command {
            SlotCommand::Accept => self.accepting = true,
            SlotCommand::Rank(slots) => {
                let count = slots.iter().map(|(slot, _)| slot.index() + 1).max();
                self.slots.grow(count.unwrap_or(0));
                self.stats.grow(self.slots.count());
                self.router.rank(&slots);
            }
            SlotCommand::Attach(worker, channel) => self.attach(worker, *channel),
            SlotCommand::Serve(worker) => {
                for session in self.slots.serve(worker) {
                    self.place_session(session);
                }
                if self.restored.was_stalled(worker) {
                    self.slots.stall(worker);
                }
                self.touched.push(worker.slot);
                self.house();
                self.house_sessions();
            }
            SlotCommand::Drain(worker, order) => {
                self.slots.drain(worker, order, self.now);
                self.touched.push(worker.slot);
            }
            SlotCommand::Ping(worker) => {
                if let Some(channel) = self.slots.channel(worker) {
                    // One that is full has more to do than to answer, and doesn't.
                    let _ = channel.ping();
                }
            }
            SlotCommand::Gone(worker) => self.bury(worker),
            SlotCommand::GiveUp(slot) => {
                let waiting = self.slots.close(slot);
                self.place_again(slot, TakenBack::Unfilled, waiting);
            }
            SlotCommand::StopAccepting(reply) => {
                self.accepting = true;
                self.stopping = Some((reply, self.now + LAST_HANDOFFS));
            }
            SlotCommand::Count(reply) => {
                // Nobody waits any more: nothing to do.
                let _ = reply.send(self.counters());
            }
            SlotCommand::End => self.ended = true,
            SlotCommand::HandOver => self.begin_hand_over(),
        }
    }

    fn attach(&mut self, worker: WorkerId, channel: Channel) {
        self.sessions.under_way += channel.sessions_in_flight() as u64;
        if self.restored.was_quarantined(worker) {
            self.slots.attach(worker, channel);
            return self.slots.quarantine(worker, self.now);
        }
        if let Err(error) = self.poller.add(Source::Worker(worker), channel.as_fd()) {
            // It will not get ready in time, and be started again.
            tracing::error!(slot = worker.slot.0, %error, "cannot watch a worker's channel");
        }
        if channel.is_awaited() {
            self.await_answer(worker);
        }
        if channel.wanted_to_leave() {
            self.orders.tell(worker, SlotEventKind::Leave);
        }
        self.slots.attach(worker, channel);
        // There may be something to ask.
        self.touched.push(worker.slot);
        self.stats.grow(self.slots.count());
    }

    fn bury(&mut self, worker: WorkerId) {
        let Some(channel) = self.slots.remove(worker, self.now) else { return };
        self.poller.remove(channel.as_fd());
        self.forget_wishes(worker);
        let mut recovered = channel.recover();
        self.note_uncounted(recovered.uncounted);
        self.expect_nothing_of(worker);
        self.take_found(std::mem::take(&mut recovered.found));
        self.hear_last_words(worker, &mut recovered);
        for connection in recovered.acknowledged {
            self.note_settled(worker, connection);
        }
        self.lose(worker, recovered.lost);
        for mut connection in recovered.untouched {
            lines::redispatched(&connection.record, worker.slot, TakenBack::Died);
            connection.crashes = connection.crashes.saturating_add(1);
            if connection.parcel.is_some() {
                sessions::note_failure(&mut connection, worker.slot, TakenBack::Died);
                self.place_session(connection);
                continue;
            }
            self.counters.redispatched += 1;
            // To the successor, so that the client stays in its slot; but only once.
            let avoid = (connection.crashes > 1).then_some(worker.slot);
            let key = connection.record.key;
            let route = self.router.route_past(avoid, key, &self.slots, self.now);
            self.place_by(route, connection);
        }
        for offer in recovered.offered {
            self.take_over(worker, offer);
        }
        self.revive(worker);
    }

    /// Closes what a dead worker has used and not acknowledged.
    fn lose(&mut self, worker: WorkerId, used: Vec<PendingConnection>) {
        let (sessions, clients): (Vec<_>, Vec<_>) =
            used.into_iter().partition(|one| one.parcel.is_some());
        if !clients.is_empty() {
            self.counters.lost += clients.len() as u64;
            tracing::warn!(
                slot = worker.slot.0,
                connections = clients.len(),
                "worker died with connections that it had used and not acknowledged",
            );
        }
        sessions.into_iter().for_each(|session| self.lose_session(session));
    }

    /// The last connections are handed over, or have had their time.
    pub(super) fn finish_stopping(&mut self) {
        let Some((_, deadline)) = &self.stopping else { return };
        let done = self.acceptor.is_closed() && self.slots.is_idle() && self.unroutable.is_empty();
        if !done && self.now < *deadline {
            return;
        }
        self.acceptor.close();
        if let Some((reply, _)) = self.stopping.take() {
            // The supervisor may have been told to stop at once and wait no more.
            let _ = reply.send(());
        }
    }
}
