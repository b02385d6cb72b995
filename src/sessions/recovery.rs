//! State that a primary has left open when it died: sessions that it had sent, and offers that it had not
//! answered.
//!
//! Each adopted worker is asked and answers. When all have, or are gone, each open offer has its outcome.
//! Until then no session goes anywhere: its owner may not be known.

use crate::link::connection::PendingConnection;
use crate::sessions::open_offers::OpenOffers;

/// A recovery that is not finished.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Offers, and workers that have not answered.
    pub open_offers: OpenOffers,
    /// Sessions that the primary holds meanwhile. Bounded by the descriptors that may be held.
    pub held: Vec<PendingConnection>,
}
