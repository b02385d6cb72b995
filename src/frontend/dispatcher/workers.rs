//! What is sent to workers, and what they say: acknowledgements, refusals, messages to the
//! supervisor. Never decides where a connection goes.

use crate::frontend::dispatcher::Dispatcher;
use crate::frontend::dispatcher::lines::{self, TakenBack};
use crate::frontend::measure::stats::Stats;
use crate::frontend::placement::Slots;
use crate::frontend::slot_table::Settlement;
use crate::link::event::{LinkEvent, SessionEvent};
use crate::link::native::{ChannelError, PendingConnection};
use crate::link::seam::{SlotEventKind, WorkerId};
use crate::protocol::ids::{SlotId, Timestamp};
use crate::protocol::message::ConnectionRecord;

impl Dispatcher {
    /// Looks at the scoreboards of those who have something to acknowledge. Costs no system call
    /// but the closing of what they own now.
    pub(super) fn settle(&mut self) {
        if self.slots.in_flight() == 0 {
            return;
        }
        for slot in (0..self.slots.count()).map(SlotId) {
            let settlement = self.settle_slot(slot);
            if let Some(worker) = settlement.refusals {
                self.hear_refusals(worker);
            }
            if let Some((worker, error)) = settlement.breach {
                self.quarantine(worker, error);
            }
        }
        self.finish_stopping();
    }

    pub(super) fn settle_slot(&mut self, slot: SlotId) -> Settlement {
        let (stats, now) = (&mut self.stats, self.now);
        let mut sessions = Vec::new();
        let settlement = self.slots.settle(slot, |worker, connection| {
            if connection.parcel.is_some() {
                sessions.push((worker, connection));
            } else {
                note_acknowledged(stats, worker, &connection.record, now);
            }
        });
        let clients = settlement.acknowledged.saturating_sub(sessions.len());
        self.counters.acknowledged += clients as u64;
        if settlement.acknowledged > 0 {
            self.touched.push(slot);
        }
        for (worker, session) in sessions {
            self.note_settled(worker, session);
        }
        settlement
    }

    /// A worker owns it from now on, as far as the primary sees.
    pub(super) fn note_settled(&mut self, worker: WorkerId, connection: PendingConnection) {
        if connection.parcel.is_some() {
            self.note_moved(worker, &connection);
        } else {
            self.counters.acknowledged += 1;
            note_acknowledged(&mut self.stats, worker, &connection.record, self.now);
        }
    }

    /// A refusal is sent before it is counted, so that its message is there.
    fn hear_refusals(&mut self, worker: WorkerId) {
        if !self.listen_to(worker)
            && let Some(channel) = self.slots.channel(worker)
        {
            let error = channel.refusal_is_missing();
            self.quarantine(worker, error);
        }
    }

    /// Sends what this turn has put into queues, and says whether anything went. A slot may stand
    /// there twice; the second time finds nothing.
    pub(super) fn flush(&mut self) -> bool {
        let mut any = false;
        while let Some(slot) = self.touched.pop() {
            match self.slots.flush(slot, self.now, lines::handed_over) {
                Ok(sent) => any |= sent,
                Err((worker, error)) => self.quarantine(worker, error),
            }
        }
        if any {
            self.handed_over_at = self.now;
        }
        if self.slots.in_flight() > 0 {
            self.watch_time();
        }
        any
    }

    /// Reads one message of a worker's, and says whether there was one. The poller reports it again
    /// if there are more.
    pub(super) fn listen_to(&mut self, worker: WorkerId) -> bool {
        match self.slots.receive(worker, self.now) {
            // The next look at the slot takes them.
            Ok(LinkEvent::Acknowledged(_)) => {}
            Ok(LinkEvent::Nothing) => return false,
            Ok(LinkEvent::Attached) => self.orders.tell(worker, SlotEventKind::Hello),
            Ok(LinkEvent::Ready) => self.orders.tell(worker, SlotEventKind::Ready),
            Ok(LinkEvent::Pong) => self.orders.tell(worker, SlotEventKind::Pong),
            Ok(LinkEvent::ReplaceMe) => self.orders.tell(worker, SlotEventKind::Leave),
            Ok(LinkEvent::Refused(connections)) => self.refused(worker, connections),
            Ok(LinkEvent::Session(event)) => self.session_event(worker, event),
            Err(error) => self.quarantine(worker, error),
        }
        if self.recovery.is_some() {
            self.go_on_with(worker);
        }
        // It is not stalled, so that what waits for it can be sent.
        self.touched.push(worker.slot);
        true
    }

    fn session_event(&mut self, worker: WorkerId, event: SessionEvent) {
        match event {
            SessionEvent::Enabled => lines::takes_sessions(worker),
            SessionEvent::Offered(offer) => self.offered(worker, *offer),
            SessionEvent::NotMigratable(id) => {
                self.protected.forget(worker, id);
                self.note_returned(worker, id);
            }
            SessionEvent::Protection(said) => self.hear_of_keeping(worker, said),
            SessionEvent::Listed { keys, complete } => {
                self.rebalance.count(worker, keys.into_iter(), complete);
            }
            SessionEvent::CloseRequest(count, within) => {
                self.close_requests.ask(worker, count, within, self.now);
            }
            SessionEvent::Resynced(report) => self.reported(worker, report),
            SessionEvent::Ignored => {}
        }
    }

    /// Said once a worker: it may refuse ten times a second for as long as it is full.
    fn refused(&mut self, worker: WorkerId, connections: Vec<PendingConnection>) {
        let count = connections.iter().filter(|one| one.parcel.is_none()).count() as u64;
        self.counters.refused += count;
        self.stats.refused(worker.slot, count);
        // One that it had begun to write down is somebody else's now.
        connections.iter().for_each(|one| self.protected.forget(worker, one.record.id));
        let all = connections.len() as u64;
        let first = self
            .slots
            .channel(worker)
            .is_some_and(|channel| channel.in_flight().counts().refused == all);
        if count > 0 && first {
            tracing::warn!(
                slot = worker.slot.0,
                "worker has no descriptors left, its new clients go to others until it has",
            );
        }
        self.place_again(worker.slot, TakenBack::Refused, connections);
    }

    /// A worker that breaks the protocol gets nothing more; what it holds waits for its end.
    pub(super) fn quarantine(&mut self, worker: WorkerId, error: ChannelError) {
        if let Some(channel) = self.slots.channel(worker) {
            self.poller.remove(channel.as_fd());
        }
        self.free_awaited(worker);
        self.slots.quarantine(worker, self.now);
        self.forget_wishes(worker);
        self.expect_nothing_of(worker);
        self.watch_time();
        self.orders.tell(worker, SlotEventKind::Violation(error));
    }
}

/// On the way of each connection: allocates nothing.
fn note_acknowledged(
    stats: &mut Stats,
    worker: WorkerId,
    record: &ConnectionRecord,
    now: Timestamp,
) {
    let time = now.since(record.accepted_at);
    stats.acknowledged(worker.slot, time, now);
    lines::acknowledged(worker, record, time);
}
