//! How a worker that is to end lets go of its clients: agreed by those who order it, those who carry
//! it, and the worker.

use std::fmt;
use std::time::Duration;

/// What becomes of established WebSockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DrainMode {
    /// They end by themselves, until the time is over.
    Wait,
    /// They are closed with a close frame, spread over the time.
    Close,
    /// They move to another worker where they can, and are shed where not.
    #[default]
    Migrate,
}

/// Why a worker drains, as its clients hear it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainReason {
    /// Another takes its place.
    Restart,
    /// Its place is given up.
    GoingAway,
}

/// An order to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainOrder {
    /// What becomes of established WebSockets.
    pub mode: DrainMode,
    /// Why.
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
