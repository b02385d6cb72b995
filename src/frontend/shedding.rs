//! How many clients are sent away, and how many sessions move, at a time.

/// How fast clients are made to move, over all workers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PaceSettings {
    /// Clients that are sent away per second, above 0.
    pub shed_rate: f64,
    /// Sessions per second that a rebalance moves, above 0.
    pub rebalance_rate: f64,
}

impl Default for PaceSettings {
    fn default() -> Self {
        Self { shed_rate: 100.0, rebalance_rate: 100.0 }
    }
}
