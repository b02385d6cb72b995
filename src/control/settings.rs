//! Settings of the control socket and the admin listener.

use std::net::SocketAddr;
use std::path::PathBuf;

use subtle::ConstantTimeEq;

/// The control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlSettings {
    /// Its path; by default it is in the runtime directory and has the app's name and port.
    pub path: Option<PathBuf>,
}

/// The admin listener.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminSettings {
    /// Its address.
    pub address: SocketAddr,
    /// The token that requests must carry.
    pub token: TokenSource,
    /// Host names by which it may be reached, beside addresses and localhost.
    pub hosts: Vec<String>,
    /// The number of serving slots from which the primary is ready.
    pub ready: ReadyThreshold,
}

/// The number of serving slots from which the primary is ready.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReadyThreshold {
    /// This number; all, if there are fewer.
    Slots(u16),
    /// Percent of the slots, rounded up.
    Percent(f64),
}

impl ReadyThreshold {
    /// The number if there are `slots`: at least one.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100 %")]
    pub fn of(self, slots: u16) -> u16 {
        let wanted = match self {
            Self::Slots(wanted) => wanted.min(slots),
            Self::Percent(percent) => (f64::from(slots) * percent / 100.0).ceil() as u16,
        };
        wanted.max(1)
    }
}

/// Where the token of the admin listener comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// From the settings.
    Given(Token),
    /// From the primary itself, which writes it to a file beside the control socket.
    Own,
    /// There is none: everybody who reaches the listener is answered.
    None,
}

/// The secret of the admin listener.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token with this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Its text, for a successor.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether `presented` is this token, in constant time.
    #[must_use]
    pub fn is(&self, presented: &str) -> bool {
        self.0.as_bytes().ct_eq(presented.as_bytes()).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_one_at_least_and_all_at_most() {
        for (threshold, slots, expected) in [
            (ReadyThreshold::Slots(2), 4, 2),
            (ReadyThreshold::Slots(9), 4, 4),
            (ReadyThreshold::Percent(50.0), 4, 2),
            (ReadyThreshold::Percent(50.0), 5, 3),
            (ReadyThreshold::Percent(100.0), 1024, 1024),
            (ReadyThreshold::Percent(0.1), 4, 1),
            (ReadyThreshold::Slots(3), 0, 1),
        ] {
            assert_eq!(threshold.of(slots), expected, "{threshold:?} of {slots}");
        }
    }
}
