//! Orders of the view: their questions, requests and results.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::units::counted;
use crate::control::client::{ClientError, Deadline, ask};
use crate::control::protocol::Request;
use crate::control::report::{Rollout, Scaled};
use crate::error::chain;

/// How long the primary may take to get an order.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Drain(u16),
    Fewer,
    More,
    Reload,
    Restart(u16),
    Undrain(u16),
}

impl Order {
    /// The question before it, and what a yes means.
    pub(super) fn question(self) -> (String, &'static str) {
        match self {
            Self::Drain(slot) => {
                let meaning = "Its clients go to others until it is undrained.";
                (format!("Drain slot {slot}?"), meaning)
            }
            Self::Fewer => ("Scale down?".to_owned(), "There will be one worker fewer."),
            Self::More => ("Scale up?".to_owned(), "There will be one worker more."),
            Self::Reload => ("Reload?".to_owned(), "All workers are replaced, slot by slot."),
            Self::Restart(slot) => {
                let meaning = "A new worker serves before the old one drains.";
                (format!("Restart slot {slot}?"), meaning)
            }
            Self::Undrain(slot) => {
                (format!("Undrain slot {slot}?"), "It gets a worker and its clients again.")
            }
        }
    }

    /// Asks the primary at `path`, and waits for what comes of it.
    pub(super) fn carry_out(self, path: &Path) -> Result<String, String> {
        let deadline = Deadline::after(TIMEOUT);
        let ask = |path| ask::<Value>(path, &self.request(), deadline);
        let outcome = ask(path).and_then(|done| match self {
            Self::Reload => parse(done).map(replaced),
            Self::More | Self::Fewer => parse(done).map(scaled),
            _ => Ok("done".to_owned()),
        });
        outcome.map_err(|error| chain(&error))
    }

    fn request(self) -> Request {
        match self {
            Self::Drain(slot) => Request::Drain { slot, wait: false },
            Self::Fewer => Request::Scale { to: "-1".to_owned() },
            Self::More => Request::Scale { to: "+1".to_owned() },
            Self::Reload => Request::Reload {},
            Self::Restart(slot) => Request::Restart { slot },
            Self::Undrain(slot) => Request::Undrain { slot },
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drain(slot) => write!(f, "drain slot {slot}"),
            Self::Fewer => f.write_str("scale down"),
            Self::More => f.write_str("scale up"),
            Self::Reload => f.write_str("reload"),
            Self::Restart(slot) => write!(f, "restart slot {slot}"),
            Self::Undrain(slot) => write!(f, "undrain slot {slot}"),
        }
    }
}

fn parse<T: DeserializeOwned>(done: Value) -> Result<T, ClientError> {
    serde_json::from_value(done).map_err(ClientError::Answer)
}

fn replaced(Rollout { number, replaced, of, .. }: Rollout) -> String {
    let of = counted(of.into(), "slot");
    format!("rolling restart {number} is done, {replaced} of {of} replaced")
}

fn scaled(Scaled { from, to, deferred }: Scaled) -> String {
    let when = if deferred { ", when the rolling restart has ended" } else { "" };
    format!("from {} to {to}{when}", counted(from.into(), "worker"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_scaled_is_told() {
        let scale = |deferred| scaled(Scaled { from: 4, to: 5, deferred });
        assert_eq!(scale(false), "from 4 workers to 5");
        assert_eq!(scale(true), "from 4 workers to 5, when the rolling restart has ended");
    }
}
