//! Orders to drain: how a worker that is to end lets go of its clients.

use std::fmt;
use std::time::Duration;

/// The treatment of established WebSockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DrainMode {
    /// They end by themselves, until the time is over.
    Wait,
    /// They are closed with a close frame, spread over the time.
    Close,
    /// They migrate to another worker where they can, and are closed where not.
    #[default]
    Migrate,
}

/// The reason for a drain, as its clients get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainReason {
    /// Another worker takes its place.
    Restart,
    /// Its place is given up.
    GoingAway,
}

/// An order to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainOrder {
    /// The treatment of established WebSockets.
    pub mode: DrainMode,
    /// The reason.
    pub reason: DrainReason,
    /// How long it may take until the worker is killed.
    pub window: Duration,
}

impl DrainMode {
    /// Its name in settings and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Close => "close",
            Self::Migrate => "migrate",
        }
    }
}

impl fmt::Display for DrainMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl DrainReason {
    /// The code of the close frame: 1012 is "service restart" in IANA's registry of close codes,
    /// 1001 "going away" of RFC 6455, 7.4.1.
    #[must_use]
    pub fn close_code(self) -> u16 {
        match self {
            Self::Restart => 1012,
            Self::GoingAway => 1001,
        }
    }
}
