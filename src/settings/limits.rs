//! When a worker has had its time.

use std::time::Duration;

use clap::Args;

use crate::settings::problems::Problems;
use crate::settings::units::{Memory, duration, interval, memory, within};
use crate::supervisor::limits::LimitSettings;

/// What a worker may use before it is replaced.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits of a worker")]
pub struct Limits {
    /// Memory beyond which a worker is replaced, its successor first: `300M`, `1G`, or `80%` of
    /// what the container or the machine has [default: no limit].
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub max_memory_restart: Option<Memory>,
    /// Memory beyond which a worker is killed at once [default: no limit].
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub max_memory_kill: Option<Memory>,
    /// Age at which a worker is replaced [default: no limit].
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub max_age: Option<Duration>,
    /// Connections after which a worker is replaced [default: no limit].
    #[arg(long, value_name = "N", value_parser = within(1..=u64::MAX))]
    pub max_connections_served: Option<u64>,
    /// A worker whose event loop has stood still for so long is aborted; 0 for never.
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

/// Below a second, a garbage collection would be taken for a stall.
fn watchdog_timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        timeout if timeout.is_zero() || timeout >= Duration::from_secs(1) => Ok(timeout),
        _ => Err("expected 1s or more, or 0 for never".to_owned()),
    }
}
