//! Text for a person at a terminal: one line when all workers are ready, one sentence at the end.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;

use rustix::termios::tcgetwinsize;

use crate::cli::units::{counted, seconds};
use crate::supervisor::pool::Summary;

/// Columns of a terminal that doesn't say its size.
const USUAL_WIDTH: usize = 80;

/// A terminal on standard error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminal {
    width: usize,
    is_utf8: bool,
}

impl Terminal {
    /// The terminal, if standard error is one.
    pub(super) fn find() -> Option<Self> {
        let stderr = io::stderr();
        if !stderr.is_terminal() {
            return None;
        }
        let width = tcgetwinsize(&stderr).map_or(0, |size| usize::from(size.ws_col));
        let width = if width == 0 { USUAL_WIDTH } else { width };
        Some(Self { width, is_utf8: is_utf8(|name| std::env::var_os(name)) })
    }

    /// The line for all workers being ready.
    pub(super) fn ready(self, address: SocketAddr, workers: u16) -> String {
        let parts = [
            concat!("sticky-lb ", env!("CARGO_PKG_VERSION")).to_owned(),
            url(address),
            format!("{} ready", counted(workers.into(), "worker")),
            "Ctrl-C stops".to_owned(),
            "sticky-lb status".to_owned(),
        ];
        self.join(&parts)
    }

    /// Parts beside each other, on a second line if they are too long for one.
    fn join(self, parts: &[String]) -> String {
        let separator = if self.is_utf8 { " · " } else { " - " };
        let (mut text, mut column) = (String::new(), 0);
        for part in parts {
            let width = part.chars().count();
            if text.is_empty() {
                text.push_str(part);
                column = width;
            } else if column + 3 + width > self.width {
                text.push_str("\n  ");
                text.push_str(part);
                column = 2 + width;
            } else {
                text.push_str(separator);
                text.push_str(part);
                column += 3 + width;
            }
        }
        text
    }
}

/// The last sentence.
pub(super) fn summary(summary: &Summary, uptime: f64) -> String {
    let counters = &summary.counters;
    let mut text = format!(
        "sticky-lb served {} in {}: {} lost, {} cut",
        counted(counters.acknowledged, "connection"),
        seconds(uptime),
        counters.lost,
        summary.ended.cut,
    );
    if counters.closed > 0 {
        text += &format!("; {} closed", counted(counters.closed, "client"));
    }
    if summary.killed > 0 {
        text += &format!("; {} did not end in time", counted(summary.killed.into(), "worker"));
    }
    text
}

/// Where a browser on this machine finds it.
fn url(address: SocketAddr) -> String {
    let port = address.port();
    match address {
        _ if address.ip().is_unspecified() || address.ip().is_loopback() => {
            format!("http://localhost:{port}/")
        }
        _ => format!("http://{address}/"),
    }
}

/// Whether the locale has more characters than ASCII.
fn is_utf8(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let set = |name: &&str| variable(name).filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set).unwrap_or_default();
    let locale = locale.to_string_lossy().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_fits_the_terminal() {
        let address = "[::]:3000".parse().unwrap();
        let ready = |width, is_utf8| Terminal { width, is_utf8 }.ready(address, 8);
        let version = env!("CARGO_PKG_VERSION");
        let head = format!("sticky-lb {version} · http://localhost:3000/ · 8 workers ready");
        assert_eq!(ready(120, true), format!("{head} · Ctrl-C stops · sticky-lb status"));
        assert_eq!(ready(80, true), format!("{head} · Ctrl-C stops\n  sticky-lb status"));
        assert!(ready(80, false).is_ascii());
        assert!(ready(20, true).lines().all(|line| line.chars().count() <= 26));
    }

    #[test]
    fn addresses_are_what_a_browser_takes() {
        for (address, expected) in [
            ("0.0.0.0:80", "http://localhost:80/"),
            ("[::1]:3000", "http://localhost:3000/"),
            ("192.0.2.1:3000", "http://192.0.2.1:3000/"),
            ("[2001:db8::1]:3000", "http://[2001:db8::1]:3000/"),
        ] {
            assert_eq!(url(address.parse().unwrap()), expected);
        }
    }

    #[test]
    fn the_first_locale_that_is_set_counts() {
        for (set, expected) in [
            (&[("LANG", "en_US.UTF-8")][..], true),
            (&[("LANG", "C.utf8")], true),
            (&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")], false),
            (&[("LC_ALL", ""), ("LANG", "en_US.UTF-8")], true),
            (&[], false),
        ] {
            let variable = |name: &str| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
            };
            assert_eq!(is_utf8(variable), expected, "{set:?}");
        }
    }

    #[test]
    fn the_last_sentence_says_what_became_of_clients() {
        let mut ended = Summary::default();
        ended.counters.acknowledged = 1;
        assert_eq!(summary(&ended, 12.0), "sticky-lb served 1 connection in 12 s: 0 lost, 0 cut");
        (ended.ended.cut, ended.killed, ended.counters.lost) = (3, 2, 1);
        ended.counters.closed = 7;
        let expected = "sticky-lb served 1 connection in 1m 5s: 1 lost, 3 cut; 7 clients closed; 2 workers did not \
             end in time";
        assert_eq!(summary(&ended, 65.0), expected);
    }
}
