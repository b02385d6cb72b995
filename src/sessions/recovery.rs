//! State that a primary has left open when it died: sessions that it had sent, and offers that it had not
//! answered.
//!
//! Each adopted worker is asked and answers. When all have, are gone, or have let their time pass, each open
//! offer has its outcome. Until then no session goes anywhere: its owner may not be known. The recovery ends
//! when the last one has answered or is gone.

use crate::link::connection::PendingConnection;
use crate::protocol::ids::Timestamp;
use crate::sessions::open_offers::OpenOffers;

/// A recovery that is not finished.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Offers, and workers that have not answered.
    pub open_offers: OpenOffers,
    /// Sessions that the primary holds meanwhile. Bounded by the descriptors that may be held.
    pub held: Vec<PendingConnection>,
    /// Sessions go on: workers that have not answered are silent.
    pub is_decided: bool,
    /// When the time to answer is over.
    pub until: Option<Timestamp>,
}

impl Recovery {
    /// The time is over for workers that have not answered.
    pub fn expire(&mut self) {
        let workers = self.open_offers.pending().len();
        if workers > 0 {
            tracing::warn!(
                workers,
                "workers do not report to this primary, sessions of others go on"
            );
        }
        self.open_offers.expire();
    }

    /// Open offers are answered: sessions go on.
    pub fn answered(&mut self) {
        self.open_offers.answered();
        self.is_decided = true;
    }
}
