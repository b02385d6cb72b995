//! Limits at which a worker is replaced or killed.

use std::time::Duration;

use clap::Args;

use crate::settings::problems::Problems;
use crate::settings::units::{Memory, duration, interval, memory, within};
use crate::supervisor::limits::LimitSettings;

/// Limits of a worker.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits per worker")]
pub struct Limits {
    /// Replace a worker that uses more memory, once its successor is ready: `300M`, `1G`, or `80%`
    /// of the memory of the container or machine [default: no limit].
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub max_memory_restart: Option<Memory>,
    /// Kill a worker immediately if it uses more memory [default: no limit].
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub max_memory_kill: Option<Memory>,
    /// Replace a worker at this age [default: no limit].
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub max_age: Option<Duration>,
    /// Replace a worker after this many connections [default: no limit].
    #[arg(long, value_name = "N", value_parser = within(1..=u64::MAX))]
    pub max_connections_served: Option<u64>,
    /// Abort a worker whose event loop has been blocked, or that has not acknowledged what it has
    /// received, for this long, and kill one that has been stopped (SIGSTOP); 0 never does.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = watchdog_timeout)]
    pub watchdog_timeout: Duration,
}

impl Limits {
    pub(super) fn limits(&self, total_memory: u64, problems: &mut Problems) -> LimitSettings {
        let bytes = |memory: Option<Memory>| memory.map(|memory| memory.of(total_memory));
        let (restart, kill) = (bytes(self.max_memory_restart), bytes(self.max_memory_kill));
        if let (Some(restart), Some(kill)) = (restart, kill)
            && restart >= kill
        {
            let text = format!("{kill} bytes are not above max_memory_restart, {restart} bytes");
            problems.note("max_memory_kill", text);
        }
        LimitSettings {
            max_memory_restart: restart,
            max_memory_kill: kill,
            max_age: self.max_age,
            max_connections_served: self.max_connections_served,
        }
    }

    pub(super) fn watchdog_timeout(&self) -> Option<Duration> {
        Some(self.watchdog_timeout).filter(|timeout| !timeout.is_zero())
    }
}

/// Below one second, a garbage collection would count as a blocked event loop.
fn watchdog_timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        timeout if timeout.is_zero() || timeout >= Duration::from_secs(1) => Ok(timeout),
        _ => Err("expected 1s or more, or 0 for never".to_owned()),
    }
}
