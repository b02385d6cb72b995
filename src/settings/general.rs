//! Name, number of workers, and where to listen.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;

use crate::frontend::listener::ListenerSettings;
use crate::log::Levels;
use crate::settings::units::{duration, within};

/// The most workers that there may be.
pub(super) const MOST: u16 = 1024;

/// What is set first.
#[derive(Clone, Debug, Args)]
pub struct General {
    /// Name of the app, in files and JSON of workers' output.
    #[arg(long, default_value = "app")]
    pub name: String,
    /// Worker processes: a number, `max` for one per CPU, or -K for K fewer than that.
    #[arg(short, long, alias = "instances", value_name = "N|max|-K", default_value = "max")]
    #[arg(value_parser = workers, allow_hyphen_values = true)]
    pub workers: u16,
    /// Port to listen on; 0 for a free one.
    #[arg(short, long, default_value = "3000", value_parser = within(0..=u16::MAX))]
    pub port: u16,
    /// Address or name to listen on [default: all addresses, IPv6 and IPv4].
    #[arg(long)]
    pub host: Option<String>,
    /// Connections that the kernel keeps until they are accepted.
    #[arg(long, value_name = "N", default_value = "4096", value_parser = within(1..=i32::MAX))]
    pub backlog: i32,
    /// Lines of the primary's own log below this level are left out: error, warn, info, debug or
    /// trace. Parts may have their own, also off: info,frontend=debug,supervisor=warn.
    #[arg(long, value_name = "LEVELS", default_value = "info")]
    pub log_level: Levels,
    /// A small parent process, the keeper, starts the primary again after a crash, with its listener
    /// and its living workers. Also --no-keeper, for those who supervise it otherwise.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set)]
    pub keeper: bool,
    /// A primary that lived for less before it crashed came too soon: the next one starts after a
    /// pause, which doubles each time, and after the eighth in a row none does.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub keeper_min_uptime: Duration,
}

impl General {
    pub(super) fn listener(&self) -> ListenerSettings {
        ListenerSettings { host: self.host.clone(), port: self.port, backlog: self.backlog }
    }
}

/// A number of workers, which may be relative to the CPUs.
///
/// # Errors
///
/// If it is none, or too large a one.
pub fn workers(text: &str) -> Result<u16, String> {
    let cpus = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let count = match text.strip_prefix('-') {
        _ if text == "max" => cpus(),
        Some(fewer) => cpus().saturating_sub(number(fewer)?).max(1),
        None => number(text)?,
    };
    match u16::try_from(count) {
        Ok(0) => Err("at least one worker is needed; `max` is one per CPU".to_owned()),
        Ok(count) if count <= MOST => Ok(count),
        _ => Err(format!("{count} workers are more than {MOST}")),
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a number, `max` or -K".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_a_number_or_relative_to_the_cpus() {
        let cpus = u16::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
        for (text, expected) in [("8", 8), ("max", cpus), ("-1", (cpus - 1).max(1)), ("-999", 1)] {
            assert_eq!(workers(text), Ok(expected), "{text}");
        }
        for wrong in ["0", "many", "1.5", "--", "70000", "-x", ""] {
            assert!(workers(wrong).is_err(), "{wrong}");
        }
    }
}
