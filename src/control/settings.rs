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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// What requests have to bear; nothing on loopback, unless it is set.
    pub token: Option<Token>,
    /// Names under which it may be reached, beside its address and localhost.
    pub hosts: Vec<String>,
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
