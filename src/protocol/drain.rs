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

impl DrainOrder {
    /// As one word of the scoreboard; never 0, as the time is rounded up to 1 ms.
    pub(crate) fn to_word(self) -> u64 {
        let mode = match self.mode {
            DrainMode::Wait => 0,
            DrainMode::Close => 1,
            DrainMode::Migrate => 2,
        };
        let reason = match self.reason {
            DrainReason::Restart => 0,
            DrainReason::GoingAway => 1,
        };
        let window = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX);
        window.clamp(1, u64::MAX >> 16) << 16 | reason << 8 | mode
    }

    /// From such a word.
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        let [mode, reason, ..] = word.to_le_bytes();
        let mode = match mode {
            0 => DrainMode::Wait,
            1 => DrainMode::Close,
            _ => DrainMode::Migrate,
        };
        let reason = if reason == 0 { DrainReason::Restart } else { DrainReason::GoingAway };
        let window = Duration::from_millis(word >> 16);
        (word != 0).then_some(Self { mode, reason, window })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_one_word_and_none_is_zero() {
        let window = Duration::from_secs(3600);
        for mode in [DrainMode::Wait, DrainMode::Close, DrainMode::Migrate] {
            for reason in [DrainReason::Restart, DrainReason::GoingAway] {
                let order = DrainOrder { mode, reason, window };
                assert_eq!(DrainOrder::from_word(order.to_word()), Some(order));
            }
        }
        assert_eq!(DrainOrder::from_word(0), None);
        let at_once = DrainOrder {
            mode: DrainMode::Wait,
            reason: DrainReason::Restart,
            window: Duration::ZERO,
        };
        assert!(DrainOrder::from_word(at_once.to_word()).is_some());
    }
}
