//! How many workers there should be, by their load.
//!
//! Pure: loads and a time in, one worker more or fewer out.

use std::time::Duration;

/// When to have more workers and when fewer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoscaleSettings {
    /// Never fewer than these.
    pub min_workers: u16,
    /// Never more than these.
    pub max_workers: u16,
    /// What is measured.
    pub measure: LoadMeasure,
    /// One more when the average load per worker is above this.
    pub scale_up_load: f64,
    /// One fewer when the average load per worker is below this, and has been for a while.
    pub scale_down_load: f64,
    /// How often loads are looked at.
    pub interval: Duration,
    /// How long the average has to be low, and nothing else to have been scaled, before there is
    /// one worker fewer.
    pub scale_down_after: Duration,
}

/// What a worker's load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadMeasure {
    /// Established connections.
    Connections,
    /// Requests in flight.
    Requests,
    /// Percent of one processor.
    Cpu,
    /// How late its event loop is, in milliseconds.
    Lag,
}
