//! Connections between the listener and their worker: accepted, placed, handed over.
//!
//! Never knows how a worker is spawned.

pub mod acceptor;
pub mod affinity;
mod arrivals;
pub mod dispatcher;
pub mod fallback;
mod kernel_dispatch;
pub mod keys;
mod lines;
pub mod listener;
pub mod listener_group;
pub mod memory;
pub mod placement;
pub mod poller;
mod programs;
pub mod query;
mod restored;
pub mod router;
mod routing;
mod session_targets;
pub mod shared_counters;
pub mod slot_table;
pub mod snapshot;
pub mod steering;

pub mod measure {
    //! Counts and measures on the way: fixed in size, pure, and told the time.
    pub mod rate;
    pub mod stats;
    pub mod times;
    pub mod top_clients;
}
