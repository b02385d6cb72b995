//! The keeper: a small parent of the primary, which starts it again when it has crashed and holds
//! copies of what must not end with it. From outside, the two are one program.
//!
//! One loop on one thread, no runtime; beside it the log's thread, and those that close what is no longer
//! stored. Never touches a client and never serves, so that little could end it.
//!
//! # Promises
//!
//! * The primary gets each signal once; the keeper ends with the primary's exit code.
//! * A primary that crashes (a signal, a panic) is followed by the next one, with copies of all stored
//!   descriptors, unless it was about to stop anyway; later and later, if they keep crashing.
//! * So is one that exits with an error before it serves, if another has served before: what it has found wrong
//!   may come right again, and its workers serve on.
//! * A primary that else exits by itself is not followed. After exit code 0 no process is left that it or one
//!   before it has started; after another, workers that a crash has left go on as orphans.
//! * A signal to stop while there is no primary ends the workers that the last one has left, with
//!   their grace period, and then the keeper, with exit code 0.
//! * Only the primary can store descriptors and remove them.
//!
//! # Pitfalls
//!
//! A primary's last messages are handled before the next one is started: the exit of a process and its
//! messages come by different ways.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::system::activation::ActivationError;

mod back_off;
mod children;
mod descriptor_store;
mod launch;
mod message;
mod process;
mod signals;
mod socket;
mod watch;

use watch::Watch;

/// The settings of a keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeeperSettings {
    /// A primary that crashed before this uptime has crashed too soon.
    pub min_uptime: Duration,
    /// Grace period of workers that are ended while there is no primary.
    pub kill_timeout: Duration,
}

/// Why there is no primary any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// A descriptor of the service manager cannot be used.
    #[error(transparent)]
    Activation(#[from] ActivationError),
    /// Primaries keep crashing.
    #[error("primary ended {} times in a row, each too soon: given up", back_off::MAX_CRASHES)]
    GivenUp,
    /// The kernel refuses something that the keeper itself needs.
    #[error("keeper cannot {what}")]
    System {
        /// What it refuses.
        what: &'static str,
        /// Its error.
        #[source]
        source: io::Error,
    },
}

/// Runs this program as a primary, with its arguments and the text of its configuration file, and again
/// after each crash; each primary gets a copy of `events`, the descriptor of `--events-fd`. Returns the
/// exit code of the whole. To be called on the main thread of a
/// process that does nothing else but to write its log.
///
/// # Errors
///
/// If primaries keep crashing, or the kernel refuses something.
pub fn run(
    settings: KeeperSettings,
    configuration: Option<&str>,
    events: Option<OwnedFd>,
) -> Result<u8, KeeperError> {
    let mut watch = Watch::new(settings, configuration, events)?;
    loop {
        if let Some(code) = watch.turn()? {
            return Ok(code);
        }
        watch.wait().map_err(failed_to("wait for events"))?;
    }
}

fn failed_to(what: &'static str) -> impl FnOnce(io::Error) -> KeeperError {
    move |source| KeeperError::System { what, source }
}
