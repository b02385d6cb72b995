//! Rolling restarts start by themselves: at a changed file, at a time of day.
//!
//! Knows nothing of workers.

pub mod cron;
pub mod watch;
