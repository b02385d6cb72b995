//! Connections and sessions that a worker leaves behind.

use crate::link::connection::{Offer, PendingConnection};
use crate::link::protection::ProtectionEvent;

/// What is left when a worker is gone.
#[derive(Debug, Default)]
pub struct Recovered {
    /// No worker has used these: they can go to another one.
    pub untouched: Vec<PendingConnection>,
    /// These were acknowledged before the end, and the primary had not seen it yet.
    pub acknowledged: Vec<PendingConnection>,
    /// These were used without an acknowledgement, or ended by their clients: to be closed.
    pub lost: Vec<PendingConnection>,
    /// The worker had offered these.
    pub offered: Vec<Offer>,
    /// Sessions that were on their way to it, unread, when the primary that had sent them died.
    pub found: Vec<PendingConnection>,
    /// Acknowledged connections that a primary which has died had sent and not counted.
    pub uncounted: u64,
    /// Its last messages about protected sessions, in order.
    pub last_words: Vec<ProtectionEvent>,
}

impl Recovered {
    /// Sorts what was on its way and neither acknowledged nor taken back.
    pub fn add_in_flight(&mut self, connections: impl Iterator<Item = PendingConnection>) {
        for connection in connections {
            if connection.is_untouched() {
                self.untouched.push(connection);
            } else {
                self.lost.push(connection);
            }
        }
    }
}
