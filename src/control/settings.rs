//! What the primary's end of control runs on.

use std::net::SocketAddr;
use std::path::PathBuf;

use subtle::ConstantTimeEq;

/// The control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlSettings {
    /// Where it is; in the runtime directory, by the app's name and port, if nowhere else.
    pub path: Option<PathBuf>,
}

/// The admin listener.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// What requests have to bear; nothing on loopback, unless it is set.
    pub token: Option<Token>,
    /// Names under which it may be reached, beside addresses and localhost.
    pub hosts: Vec<String>,
    /// How many slots must serve for clients to come.
    pub ready: Enough,
}

/// How many slots are enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Enough {
    /// So many; all, where there are fewer.
    Slots(u16),
    /// So many percent of those that are to be there, rounded up.
    Percent(f64),
}

impl Enough {
    /// Where there are to be `slots`: at least one.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100 %")]
    pub fn of(self, slots: u16) -> u16 {
        let enough = match self {
            Self::Slots(enough) => enough.min(slots),
            Self::Percent(percent) => (f64::from(slots) * percent / 100.0).ceil() as u16,
        };
        enough.max(1)
    }
}

/// What only those know who may come in.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// From what was written.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Whether `presented` is it. Takes as long wherever they differ.
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
    fn enough_is_one_at_least_and_all_at_most() {
        for (enough, slots, expected) in [
            (Enough::Slots(2), 4, 2),
            (Enough::Slots(9), 4, 4),
            (Enough::Percent(50.0), 4, 2),
            (Enough::Percent(50.0), 5, 3),
            (Enough::Percent(100.0), 1024, 1024),
            (Enough::Percent(0.1), 4, 1),
            (Enough::Slots(3), 0, 1),
        ] {
            assert_eq!(enough.of(slots), expected, "{enough:?} of {slots}");
        }
    }
}
