//! Why the pool ended.

use std::io;

use crate::link::seam::FrontendGone;
use crate::protocol::ids::SlotId;

/// Why the pool ended without being asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The command cannot be run.
    #[error("cannot run worker command {command:?}")]
    Command {
        /// The program.
        command: std::ffi::OsString,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// A worker's process cannot be what the settings say.
    #[error("cannot start a worker")]
    Process(#[source] io::Error),
    /// No worker ever got ready.
    #[error("no worker became ready: the last one, in slot {slot}, {reason}")]
    NeverReady {
        /// The slot of the last attempt.
        slot: SlotId,
        /// How it ended.
        reason: String,
    },
    /// Every slot is errored.
    #[error(
        "every slot is errored after too many crashes: the last worker, in slot {slot}, {reason}"
    )]
    AllErrored {
        /// The slot of the last one.
        slot: SlotId,
        /// How it ended.
        reason: String,
    },
    /// A worker's channel cannot be made.
    #[error("cannot make a channel for a worker")]
    Channel(#[source] io::Error),
    /// The frontend has ended.
    #[error(transparent)]
    Frontend(#[from] FrontendGone),
}
