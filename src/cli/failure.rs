//! Why a command has failed, and its exit code.

use std::error::Error;
use std::io;

use serde_json::{Value, json};

use crate::cli::events::EventsError;
use crate::control::client::ClientError;
use crate::control::discovery::DiscoveryError;
use crate::control::protocol::{Code, Problem};
use crate::error::chain;
use crate::settings::problems::SettingsError;

/// The exit code of success.
pub(super) const DONE: u8 = 0;
pub(super) const FAILED: u8 = 1;
pub(super) const USAGE: u8 = 2;
/// The code that shells give to a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

/// The log has a line about the failure already.
#[derive(Debug, thiserror::Error)]
#[error("failed")]
pub(super) struct Logged;

/// Why a command has failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It isn't clear which primary is meant.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The primary doesn't answer, or says no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The primary has not done what was asked for, with the reason.
    #[error("{0}")]
    Failed(String),
    /// Ctrl-C has ended the waiting; the request goes on.
    #[error("{0}")]
    Interrupted(String),
    /// The primary has ended, and the process that ends last has not.
    #[error(
        "primary has ended, but its keeper has not: it stands still, and nothing else ends it (kill -9)"
    )]
    KeeperStays,
    /// `top` needs a terminal.
    #[error("top needs a terminal: `sticky-lb status` and `sticky-lb workers` print once")]
    NoTerminal,
    /// It can't be printed.
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
    /// The kernel refuses something.
    #[error("cannot wait for the primary")]
    Wait(#[source] io::Error),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            // A flag has to select one.
            Self::NoTerminal | Self::Discovery(DiscoveryError::Several(_)) => USAGE,
            Self::Client(ClientError::Problem(problem)) if problem.code == Code::BadRequest => {
                USAGE
            }
            Self::Interrupted(_) => INTERRUPTED,
            _ => FAILED,
        }
    }
}

/// The exit code that an error stands for.
pub(super) fn code(error: &(dyn Error + 'static)) -> u8 {
    match error.downcast_ref::<Failure>() {
        Some(failure) => failure.code(),
        None if error.is::<SettingsError>() || error.is::<EventsError>() => USAGE,
        None => FAILED,
    }
}

/// The error as a line of JSON, as the control socket has it.
pub(super) fn json(error: &(dyn Error + 'static)) -> Value {
    let code = match error.downcast_ref::<Failure>() {
        Some(Failure::Client(ClientError::Problem(problem))) => problem.code,
        _ if code(error) == USAGE => Code::BadRequest,
        _ => Code::Failed,
    };
    json!({"error": Problem::new(code, chain(error))})
}

/// Whether the reader of standard output has gone, as in `sticky-lb events | head -1`: no error.
pub(super) fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Print(error)) => error.kind() == io::ErrorKind::BrokenPipe,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_can_tell_failures_apart() {
        let problem = |code| Failure::Client(Problem::new(code, "x").into());
        for (failure, expected) in [
            (problem(Code::BadRequest), 2),
            (problem(Code::Refused), 1),
            (problem(Code::Unknown), 1),
            (ClientError::Ended.into(), 1),
            (
                DiscoveryError::None { name: None, folders: Vec::new(), refused: Vec::new() }
                    .into(),
                1,
            ),
            (DiscoveryError::Several(Vec::new()).into(), 2),
            (Failure::Interrupted(String::new()), 130),
        ] {
            assert_eq!(code(&failure), expected, "{failure:?}");
        }
    }
}
