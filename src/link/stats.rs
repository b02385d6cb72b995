//! A worker's load, as far as the supervisor needs to know it.
//!
//! A dialect provides it; the supervisor knows no scoreboard. A worker that says nothing about
//! itself has `None`s. How fast it answers pings is no part of it: pongs are events.

/// A worker's own counts, as far as its dialect tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Connections established.
    pub connections: Option<u64>,
    /// Connections taken over since its start.
    pub connections_total: Option<u64>,
    /// WebSockets among the established ones.
    pub websockets: Option<u64>,
    /// Sessions: WebSockets that can migrate.
    pub sessions: Option<u64>,
    /// Requests in flight.
    pub requests: Option<u64>,
    /// Requests finished since its start.
    pub requests_total: Option<u64>,
    /// Connections that were established when it was ordered to drain.
    pub open_at_drain: Option<u64>,
    /// Sessions that have gone to another worker since.
    pub migrated: Option<u64>,
    /// Connections that it has closed with a close frame since.
    pub closed: Option<u64>,
    /// Connections that its program has left open when it ended.
    pub cut: Option<u64>,
    /// Sessions that are protected from its crash.
    pub protected: Option<u64>,
}
