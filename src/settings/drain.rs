//! How workers let go of their clients, within what time, and how many may move at a time.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::protocol::drain::DrainMode;
use crate::sessions::close_requests::PaceSettings;
use crate::settings::units::{above_zero, duration, interval};

/// The end of established connections. In a file, the second names make a table: `[drain]`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Drain")]
pub struct Drain {
    /// What becomes of the WebSockets of a worker that is to end: they end by themselves, until the
    /// time is over (ride); they are closed with a close frame, spread over that time (shed); they
    /// move to another worker without their clients noticing, and those that can't are closed
    /// (migrate). When everything ends, none can move. Also `mode` of `[drain]`.
    #[arg(long, alias = "drain-mode", value_enum, value_name = "MODE", default_value = "migrate")]
    #[arg(hide_possible_values = true)]
    pub drain: DrainArg,
    /// Grace period of a worker that is replaced or removed while others go on: if it hasn't
    /// drained by then it is killed. Also `reload` of `[drain]`.
    #[arg(long, alias = "drain-reload", value_name = "TIME", default_value = "10m")]
    #[arg(value_parser = duration)]
    pub drain_timeout: Duration,
    /// Grace period when everything ends. Also `shutdown` of `[drain]`.
    #[arg(long, alias = "drain-shutdown", value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = duration)]
    pub kill_timeout: Duration,
    /// Clients that are sent away per second, by all workers together, so that those who come back
    /// don't come all at once. Also `rate` of `[drain]`.
    #[arg(long, alias = "drain-rate", value_name = "N", default_value = "100")]
    #[arg(value_parser = above_zero)]
    pub close_rate: f64,
    /// A session that hasn't moved within that is closed instead.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = interval)]
    pub migrate_timeout: Duration,
    /// Sessions whose apps say so survive even the death of their worker, by kill -9 too: those that
    /// are at rest then go on in its successor. Costs the primary a descriptor for each of them; up to
    /// half of what the limit (ulimit -n) leaves is for them, and those beyond that are not protected.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set)]
    pub protect: bool,
    /// Sessions per second that `rebalance` moves.
    #[arg(long, value_name = "N", default_value = "100", value_parser = above_zero)]
    pub rebalance_rate: f64,
}

/// What becomes of established WebSockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DrainArg {
    /// They end by themselves.
    Wait,
    /// They are closed with a close frame.
    Close,
    /// They move to another worker.
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

    pub(super) fn pace(&self) -> PaceSettings {
        PaceSettings { close_rate: self.close_rate, rebalance_rate: self.rebalance_rate }
    }
}
