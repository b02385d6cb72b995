//! How to get back what a worker has not taken: from one that has stalled, and from one that is
//! dead.

use crate::link::event::{LinkEvent, SessionEvent};
use crate::link::native::transfer::{self, Luggage};
use crate::link::native::{Channel, Keeping, Offer, PendingConnection};
use crate::protocol::message::{MAX_TO_WORKER, Records, ToWorker, decode_to_worker};
use crate::protocol::scm_rights::{self, Received};

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
    /// These were on their way to it, unread, when the primary died that had sent them.
    pub found: Vec<PendingConnection>,
    /// So many it had acknowledged that another primary had sent, who died before he could count them.
    pub uncounted: u64,
    /// What it had said last of sessions that are to survive it, in order.
    pub last_words: Vec<Keeping>,
}

/// Connections that were on their way when the primary died that had sent them. One whose descriptor
/// doesn't arrive, as this process has too many, is lost.
fn found(records: Records<'_>, luggage: Luggage) -> Vec<PendingConnection> {
    let connections = records.iter().zip(luggage.descriptors);
    let pending = |(record, socket)| PendingConnection { record, socket, crashes: 0, parcel: None };
    connections.map(pending).collect()
}

impl Channel {
    /// Takes back the messages that the worker hasn't received: their connections are proven to be
    /// nobody's. Those that it has received, and not acknowledged, stay on their way. What else it
    /// was told is told again. Of a channel that was adopted and isn't known yet, what the primary before
    /// has sent is found; sessions among that are for [`Channel::take_found`].
    pub fn take_back(&mut self) -> Vec<PendingConnection> {
        let mut taken = Vec::new();
        let mut bytes = [0; MAX_TO_WORKER];
        let mut luggage = Luggage::default();
        while let Some(length) = self.take_back_one(&mut bytes, &mut luggage) {
            let luggage = std::mem::take(&mut luggage);
            match decode_to_worker(&bytes[..length]) {
                Ok(ToWorker::Connections(records)) if self.is_awaited() => {
                    taken.extend(found(records, luggage));
                }
                Ok(ToWorker::Connections(records)) => {
                    taken.extend(
                        records.iter().filter_map(|record| self.in_flight.withdraw(record.id)),
                    );
                }
                Ok(ToWorker::Session(record, inline)) => match self.past.awaited_slot() {
                    None => taken.extend(self.in_flight.withdraw(record.id)),
                    Some(slot) => {
                        let offer = transfer::open(record, inline, luggage).ok().flatten();
                        self.found.extend(offer.map(|offer| offer.found(slot)));
                    }
                },
                Ok(note) => self.untell(&note),
                Err(_) => {}
            }
        }
        taken
    }

    /// What another primary has sent is nowhere else: its descriptors are taken, too.
    fn take_back_one(&self, bytes: &mut [u8], luggage: &mut Luggage) -> Option<usize> {
        let received = if self.is_awaited() {
            scm_rights::receive(&self.worker_end, bytes, &mut luggage.descriptors)
        } else {
            scm_rights::receive_without_descriptors(&self.worker_end, bytes)
        };
        match received {
            Ok(Received::Message { length, descriptors_lost, .. }) => {
                luggage.lost = descriptors_lost;
                Some(length)
            }
            _ => None,
        }
    }

    /// Sessions that [`Channel::take_back`] has found, which another primary had sent: nobody knows
    /// who has offered them.
    pub fn take_found(&mut self) -> Vec<PendingConnection> {
        std::mem::take(&mut self.found)
    }

    /// Takes back everything that the worker, who must be dead, did not acknowledge, and what it
    /// had offered.
    #[must_use]
    pub fn recover(mut self) -> Recovered {
        let mut recovered = Recovered { untouched: self.take_back(), ..Recovered::default() };
        // What it said before it died counts.
        loop {
            match self.receive() {
                Ok(LinkEvent::Nothing) | Err(_) => break,
                Ok(LinkEvent::Refused(connections)) => recovered.untouched.extend(connections),
                Ok(LinkEvent::Session(SessionEvent::Offered(offer))) => {
                    recovered.offered.push(*offer);
                }
                Ok(LinkEvent::Session(SessionEvent::Protection(said))) => {
                    recovered.last_words.push(said);
                }
                Ok(_) => {}
            }
        }
        recovered.found = self.take_found();
        recovered.uncounted = self.uncounted_of_dead();
        // It may have died between a refusal and its count: then there is nothing to wait for.
        let _ = self.settle(|connection| recovered.acknowledged.push(connection));
        for connection in self.in_flight.into_connections() {
            if connection.is_untouched() {
                recovered.untouched.push(connection);
            } else {
                recovered.lost.push(connection);
            }
        }
        recovered
    }
}
