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
}
