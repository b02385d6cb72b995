//! When a worker has had its time: memory, age, connections served.
//!
//! Pure: what is known of a worker in, whether and why it is to be replaced out.

use std::time::Duration;

/// What a worker may use before it is replaced. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitSettings {
    /// Bytes of memory beyond which it is replaced, its successor first.
    pub max_memory_restart: Option<u64>,
    /// Bytes of memory beyond which it is killed at once.
    pub max_memory_kill: Option<u64>,
    /// Its age from ready.
    pub max_age: Option<Duration>,
    /// Connections that it has taken over since its start.
    pub max_connections_served: Option<u64>,
}
