//! How to get back what a worker has not taken: from one that has stalled, and from one that is
//! dead.

use crate::handoff::channel::{Channel, Keeping, Notice, Offer, PendingConnection};
use crate::handoff::ids::ConnectionId;
use crate::handoff::message::{MAX_TO_WORKER, ToWorker, decode_to_worker};
use crate::handoff::scm_rights::{self, Received};

/// What is left when a worker is gone.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Nobody has touched these: they can go to another worker.
    pub untouched: Vec<PendingConnection>,
    /// These were acknowledged before the end, and that was not seen yet.
    pub acknowledged: Vec<PendingConnection>,
    /// These were used without an acknowledgement, or ended by their clients: to be closed.
    pub lost: Vec<PendingConnection>,
    /// These it had offered.
    pub offered: Vec<Offer>,
    /// What it had said last of sessions that are to survive it, in order.
    pub last_words: Vec<Keeping>,
}

impl Channel {
    /// Takes back the messages that the worker hasn't received: their connections are proven to be
    /// nobody's. Those that it has received, and not acknowledged, stay on their way. What else it
    /// was told is told again.
    pub fn take_back(&mut self) -> Vec<PendingConnection> {
        let mut taken = Vec::new();
        let mut bytes = [0; MAX_TO_WORKER];
        while let Ok(Received::Message { length, .. }) =
            scm_rights::receive_without_descriptors(&self.worker_end, &mut bytes)
        {
            match decode_to_worker(&bytes[..length]) {
                Ok(ToWorker::Connections(records)) => {
                    taken.extend(records.iter().filter_map(|record| self.withdraw(record.id)));
                }
                Ok(ToWorker::Session(record, _)) => taken.extend(self.withdraw(record.id)),
                Ok(ToWorker::Ping) => self.pings = self.pings.saturating_sub(1),
                Ok(note) => self.untell(&note),
                Err(_) => {}
            }
        }
        taken
    }

    /// Takes out one that the worker will never settle.
    fn withdraw(&mut self, id: ConnectionId) -> Option<PendingConnection> {
        let position = self.unsettled.iter().position(|one| one.is_waiting(id))?;
        self.unsettled.remove(position)?.connection
    }

    /// Takes back everything that the worker, who must be dead, did not acknowledge, and what it
    /// had offered.
    #[must_use]
    pub fn recover(mut self) -> Recovered {
        let mut recovered = Recovered { untouched: self.take_back(), ..Recovered::default() };
        // What it said before it died counts.
        loop {
            match self.receive() {
                Ok(Notice::Nothing) | Err(_) => break,
                Ok(Notice::Refused(connections)) => recovered.untouched.extend(connections),
                Ok(Notice::Offered(offer)) => recovered.offered.push(*offer),
                Ok(Notice::Keeping(said)) => recovered.last_words.push(said),
                Ok(_) => {}
            }
        }
        // It may have died between a refusal and its count: then there is nothing to wait for.
        let _ = self.settle(|connection| recovered.acknowledged.push(connection));
        for connection in self.unsettled.into_iter().filter_map(|one| one.connection) {
            if connection.is_untouched() {
                recovered.untouched.push(connection);
            } else {
                recovered.lost.push(connection);
            }
        }
        recovered
    }
}
