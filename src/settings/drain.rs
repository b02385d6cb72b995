//! How a draining worker ends its connections: mode, grace periods, rates.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::protocol::drain::DrainMode;
use crate::sessions::close_requests::PaceSettings;
use crate::settings::units::{above_zero, duration, interval};

/// The grace period of a worker whose sessions migrate or are closed with a close frame.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(600);
/// The grace period of one that can only be waited for.
const SIGNAL_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How established connections end. In a file, the second names form a table: `[drain]`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Drain")]
pub struct Drain {
    /// Choose what happens to the WebSockets of a draining worker. `wait`: wait until their clients
    /// close them or the grace period ends. `close`: close them with a close frame, spread over the
    /// grace period. `migrate`: migrate them to another worker unnoticed, and close those that cannot
    /// migrate. When the primary stops, nothing can migrate. Also `mode` of `[drain]`.
    #[arg(long, alias = "drain-mode", value_enum, value_name = "MODE", default_value = "migrate")]
    #[arg(hide_possible_values = true)]
    pub drain: DrainArg,
    /// Give a worker that is replaced or removed this long to drain, then kill it. Also `reload` of
    /// `[drain]` [default: 10m, for Node and listen workers 30s].
    #[arg(long, alias = "drain-reload", value_name = "TIME", value_parser = duration)]
    pub drain_timeout: Option<Duration>,
    /// Give workers this long to drain when the primary stops, then kill them. Also `shutdown` of
    /// `[drain]`.
    #[arg(long, alias = "drain-shutdown", value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = duration)]
    pub kill_timeout: Duration,
    /// Close at most this many clients per second, in all workers together, so that they do not all
    /// reconnect at once. Also `rate` of `[drain]`.
    #[arg(long, alias = "drain-rate", value_name = "N", default_value = "100")]
    #[arg(value_parser = above_zero)]
    pub close_rate: f64,
    /// Close a session instead if its migration takes longer than this.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = interval)]
    pub migrate_timeout: Duration,
    /// Protect sessions whose apps ask for it: idle ones survive a crash of their worker, `kill -9`
    /// included, and continue in its successor. Each costs the primary one descriptor. At most half
    /// of the free descriptors (`ulimit -n`) are used for this; further sessions are not protected.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set)]
    pub protect: bool,
    /// Migrate this many sessions per second during `rebalance`.
    #[arg(long, value_name = "N", default_value = "100", value_parser = above_zero)]
    pub rebalance_rate: f64,
}

/// What happens to established WebSockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DrainArg {
    /// Their clients close them.
    Wait,
    /// They are closed with a close frame.
    Close,
    /// They migrate to another worker.
    Migrate,
}

impl Drain {
    pub(super) fn mode(&self) -> DrainMode {
        match self.drain {
            DrainArg::Wait => DrainMode::Wait,
            DrainArg::Close => DrainMode::Close,
            DrainArg::Migrate => DrainMode::Migrate,
        }
    }

    pub(super) fn drain_timeout(&self) -> Duration {
        self.drain_timeout.unwrap_or(DRAIN_TIMEOUT)
    }

    pub(super) fn signal_drain_timeout(&self) -> Duration {
        self.drain_timeout.unwrap_or(SIGNAL_DRAIN_TIMEOUT)
    }

    pub(super) fn pace(&self) -> PaceSettings {
        PaceSettings { close_rate: self.close_rate, rebalance_rate: self.rebalance_rate }
    }
}
