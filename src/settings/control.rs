//! Control socket, admin listener, and the primary's own log.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::control::settings::{
    AdminSettings, ControlSettings, ReadyThreshold, Token, TokenSource,
};
use crate::log::{Levels, LogFormat, LogSettings};
use crate::settings::before::Before;
use crate::settings::problems::Problems;
use crate::settings::secret;
use crate::settings::units::slots;
use crate::supervisor::command::User;

/// Instead of a file: no token is required.
pub(super) const NO_TOKEN: &str = "none";

/// How operators reach the primary.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Control")]
pub struct Control {
    /// Open the control socket at this path [default: NAME-PORT.sock in the runtime directory].
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// Serve dashboard, metrics, health checks and the admin API on this address; a port alone is one of
    /// 127.0.0.1 [default: none].
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = admin_address)]
    pub admin: Option<SocketAddr>,
    /// Require the token in this file for admin requests but health checks; needed beyond loopback.
    /// `none` requires no token [default: a new token, in a file beside the control socket].
    #[arg(long, value_name = "FILE|none")]
    pub admin_token_file: Option<PathBuf>,
    /// Let browsers reach the admin listener by this host name too, beside addresses and localhost;
    /// may be repeated [default: none].
    #[arg(long, value_name = "NAME")]
    pub admin_host: Vec<String>,
    /// Report ready on `/readyz` of the admin listener while this many slots serve, `3` or `80%`
    /// [default: 50%].
    #[arg(long, value_name = "N|PERCENT", value_parser = slots)]
    pub ready_workers: Option<ReadyThreshold>,
    /// Write the primary's own log in this format.
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub primary_log_format: PrimaryLogFormat,
}

/// Format of the primary's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrimaryLogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// An address with a port. `localhost` is 127.0.0.1, as it is for a port alone: no resolver is asked.
fn admin_address(text: &str) -> Result<SocketAddr, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("localhost", text));
    let local = || Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?)));
    let address = if host == "localhost" { local() } else { text.parse().ok() };
    address.ok_or_else(|| {
        "expected an address with a port, such as 127.0.0.1:9900 or [::1]:9900, or a port alone"
            .to_owned()
    })
}

impl Control {
    pub(super) fn control(&self) -> ControlSettings {
        ControlSettings { path: self.control.clone() }
    }

    /// An address beyond loopback needs a token.
    pub(super) fn admin(
        &self,
        user: Option<&User>,
        before: Option<&Before>,
        problems: &mut Problems,
    ) -> Option<AdminSettings> {
        let token = self.token(user, before, problems);
        let Some(address) = self.admin else {
            for (given, key) in [
                (self.admin_token_file.is_some(), "admin_token_file"),
                (!self.admin_host.is_empty(), "admin_host"),
                (self.ready_workers.is_some(), "ready_workers"),
            ] {
                if given {
                    problems.note(key, "does nothing without admin".to_owned());
                }
            }
            return None;
        };
        let is_given = self.admin_token_file.as_deref().is_some_and(|file| file != NO_TOKEN);
        if !address.ip().is_loopback() && !is_given {
            problems.note(
                "admin",
                format!("{address} can be reached from elsewhere: set admin_token_file"),
            );
        }
        let ready = self.ready_workers.unwrap_or(ReadyThreshold::Percent(50.0));
        Some(AdminSettings { address, token, hosts: self.admin_host.clone(), ready })
    }

    fn token(
        &self,
        user: Option<&User>,
        before: Option<&Before>,
        problems: &mut Problems,
    ) -> TokenSource {
        let file = match self.admin_token_file.as_deref() {
            None => return TokenSource::Own,
            Some(file) if file == NO_TOKEN => return TokenSource::None,
            Some(file) => file,
        };
        let key = "admin_token_file";
        let before = before.and_then(|before| before.token.clone());
        let text = match secret::read(file, user) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(text) => {
                let before = problems.or_before(key, text, before);
                return before.map_or(TokenSource::None, TokenSource::Given);
            }
        };
        let token = text.trim();
        if token.len() < 16 || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let name = file.display();
            problems.note(key, format!("{name} holds no token: 16 or more visible characters"));
            return TokenSource::None;
        }
        TokenSource::Given(Token::new(token))
    }

    pub(super) fn log(&self, levels: &Levels) -> LogSettings {
        let format = match self.primary_log_format {
            PrimaryLogFormat::Text => LogFormat::Text,
            PrimaryLogFormat::Json => LogFormat::Json,
        };
        LogSettings { levels: levels.clone(), format }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_address_may_be_a_port_alone() {
        for (text, expected) in [
            ("5403", "127.0.0.1:5403"),
            ("localhost:5403", "127.0.0.1:5403"),
            ("0.0.0.0:5403", "0.0.0.0:5403"),
            ("[::1]:0", "[::1]:0"),
        ] {
            assert_eq!(admin_address(text).unwrap().to_string(), expected);
        }
        for wrong in ["", ":5403", "localhost", "70000", "::1", "admin.internal:1", "0.0.0.0"] {
            assert!(admin_address(wrong).is_err(), "{wrong}");
        }
    }
}
