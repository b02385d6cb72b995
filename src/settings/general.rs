//! Name, number of workers, and where to listen.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;

use crate::frontend::listener::ListenerSettings;
use crate::log::Levels;
use crate::settings::units::{duration, within};

/// The largest number of workers.
pub(super) const MAX_WORKERS: u16 = 1024;

/// Name, workers, address, log level and keeper.
#[derive(Clone, Debug, Args)]
pub struct General {
    /// Name the app; the name appears in the control socket's path and in JSON log lines.
    #[arg(long, default_value = "app")]
    pub name: String,
    /// Run this many workers: a number, `max` for one per CPU, or -K for K fewer than that.
    #[arg(short, long, alias = "instances", value_name = "N|max|-K", default_value = "max")]
    #[arg(value_parser = workers, allow_hyphen_values = true)]
    pub workers: u16,
    /// Listen on this port; 0 picks a free one.
    #[arg(short, long, default_value = "3000", value_parser = within(0..=u16::MAX))]
    pub port: u16,
    /// Listen on this address or host name [default: all addresses, IPv6 and IPv4; where workers have listening sockets of
    /// their own, as `listen_family` says].
    #[arg(long, value_parser = host)]
    pub host: Option<String>,
    /// Let the kernel queue this many connections until they are accepted.
    #[arg(long, value_name = "N", default_value = "4096", value_parser = within(1..=i32::MAX))]
    pub backlog: i32,
    /// Log the primary's own lines of this level and above: error, warn, info, debug or trace. A part
    /// may have a level of its own, or be off: info,frontend=debug,supervisor=off.
    #[arg(long, value_name = "LEVELS", default_value = "info")]
    pub log_level: Levels,
    /// Run the primary under a small parent process, the keeper, which restarts it after a crash with
    /// its listener and its running workers. Also --no-keeper.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set)]
    pub keeper: bool,
    /// Count a primary's crash as early if it ran for less than this: the keeper then waits before
    /// the next start, twice as long each time, and gives up after eight in a row.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub keeper_min_uptime: Duration,
}

impl General {
    pub(super) fn listener(&self) -> ListenerSettings {
        ListenerSettings { host: self.host.clone(), port: self.port, backlog: self.backlog }
    }
}

/// A number of workers, which may be relative to the number of CPUs.
///
/// # Errors
///
/// If the text is no such number, or the number is out of range.
pub fn workers(text: &str) -> Result<u16, String> {
    let cpus = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let count = match text.strip_prefix('-') {
        _ if text == "max" => cpus(),
        Some(fewer) => cpus().saturating_sub(number(fewer)?).max(1),
        None => number(text)?,
    };
    match u16::try_from(count) {
        Ok(0) => Err("at least one worker is needed; `max` is one per CPU".to_owned()),
        Ok(count) if count <= MAX_WORKERS => Ok(count),
        _ => Err(format!("{count} workers are more than {MAX_WORKERS}")),
    }
}

/// An address or a name. A port with it is a mistake that a resolver only calls an unknown name.
fn host(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if bare.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let with_port = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    if let Some((host, port)) = with_port {
        return Err(format!(
            "expected an address or a name without a port: host = {host:?}, port = {port}"
        ));
    }
    if text == "*" || text.contains(['/', ' ']) {
        return Err("expected an address or a name; all addresses without it".to_owned());
    }
    Ok(text.to_owned())
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a number, `max` or -K".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_no_port() {
        for right in ["0.0.0.0", "::1", "[::1]", "localhost", "app.internal"] {
            assert_eq!(host(right).as_deref(), Ok(right));
        }
        for (wrong, expected) in [
            ("0.0.0.0:3000", "host = \"0.0.0.0\", port = 3000"),
            ("[::1]:80", "host = \"[::1]\", port = 80"),
            ("localhost:80", "host = \"localhost\", port = 80"),
            ("http://localhost", "an address or a name"),
            ("*", "all addresses without it"),
        ] {
            let error = host(wrong).unwrap_err();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
    }

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
