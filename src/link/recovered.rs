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
    /// These were neither acknowledged nor taken back: whether the worker has used them is to be proven.
    pub in_flight: Vec<PendingConnection>,
    /// The worker had offered these.
    pub offered: Vec<Offer>,
    /// Sessions that were on their way to it, unread, when the primary that had sent them died.
    pub found: Vec<PendingConnection>,
    /// Acknowledged connections that a primary which has died had sent and not counted.
    pub uncounted: u64,
    /// Its last messages about protected sessions, in order.
    pub last_words: Vec<ProtectionEvent>,
}
