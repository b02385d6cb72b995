//! The way of a connection into the house: accepted, placed, handed over.
//!
//! Never knows how a worker is spawned.

pub mod acceptor;
pub mod affinity;
pub mod close_requests;
pub mod dispatcher;
pub mod fallback;
pub mod listener;
pub mod memory;
pub mod pace;
pub mod placement;
pub mod poller;
pub mod query;
pub mod rebalance;
pub mod recovery_outcome;
pub mod reports;
pub mod router;
pub mod session_route;
pub mod shared_counters;
pub mod slot_table;
pub mod snapshot;

pub mod measure {
    //! Counts and measures on the way: fixed in size, pure, and told the time.
    pub mod rate;
    pub mod stats;
    pub mod times;
    pub mod top_clients;
}
