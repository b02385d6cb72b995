//! How a worker finds its primary: what the environment says, and what can be wrong with it.
//!
//! Never changes the environment; the descriptors are marked close-on-exec, so that processes
//! started from the worker don't inherit them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;
use std::time::Duration;

use crate::kernel;
use crate::protocol::ids::{Generation, SlotId};
use crate::protocol::scoreboard::Scoreboard;
use crate::worker::orphan::OrphanTimes;

/// The descriptor of the channel.
pub const CHANNEL: &str = "STICKY_LB_CHANNEL";
/// The descriptor of the scoreboard.
pub const SCOREBOARD: &str = "STICKY_LB_SCOREBOARD";
/// The slot's number.
pub const SLOT: &str = "STICKY_LB_SLOT";
/// The generation's number.
pub const GENERATION: &str = "STICKY_LB_GENERATION";
/// How long to go on serving when the primary is gone, in milliseconds.
pub const ORPHAN_TIMEOUT: &str = "STICKY_LB_ORPHAN_TIMEOUT";
/// How long to drain then at the most, in milliseconds.
pub const KILL_TIMEOUT: &str = "STICKY_LB_KILL_TIMEOUT";

/// How long a session may take to move, in milliseconds; [`DEFAULT_MIGRATE_TIMEOUT`] if it isn't set.
pub const MIGRATE_TIMEOUT: &str = "STICKY_LB_MIGRATE_TIMEOUT";

/// 1 if sessions may be protected.
pub const CRASH_SAFE: &str = "STICKY_LB_CRASH_SAFE";

/// How long a session may take to move where nobody says.
pub const DEFAULT_MIGRATE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a process is no worker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// There is no primary.
    #[error(
        "not started by sticky-lb ({CHANNEL} is not set): run `sticky-lb --workers 4 -- COMMAND`, \
         with this program as the COMMAND"
    )]
    NoPrimary,
    /// A variable that isn't what the primary sets.
    #[error("{name} is {value:?}, expected a number: it is set by sticky-lb, don't change it")]
    Variable {
        /// Its name.
        name: &'static str,
        /// Its value, empty if it isn't set.
        value: String,
    },
    /// A descriptor that isn't what the primary passes on.
    #[error(
        "descriptor {number} of {name} is of no use: was it closed by a program in between, or \
         has this process attached before?"
    )]
    Descriptor {
        /// The variable that names it.
        name: &'static str,
        /// Its number.
        number: i32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The process cannot talk to its primary.
    #[error("cannot talk to the primary")]
    Channel(#[source] io::Error),
}

/// What the primary gave to this process.
#[derive(Debug)]
pub(crate) struct Inheritance {
    pub(crate) channel: OwnedFd,
    pub(crate) scoreboard: Scoreboard,
    pub(crate) slot: SlotId,
    pub(crate) generation: Generation,
    pub(crate) orphan: OrphanTimes,
    pub(crate) migrate_timeout: Duration,
    pub(crate) protect: bool,
}

impl Inheritance {
    pub(crate) fn from_environment() -> Result<Self, AttachError> {
        if std::env::var_os(CHANNEL).is_none() {
            return Err(AttachError::NoPrimary);
        }
        let slot = SlotId(number(SLOT)?);
        let generation = Generation(number(GENERATION)?);
        let (channel, fd) = descriptor(CHANNEL)?;
        let unusable = |source| AttachError::Descriptor { name: CHANNEL, number: fd, source };
        rustix::net::sockopt::socket_type(&channel).map_err(|errno| unusable(errno.into()))?;
        let (page, fd) = descriptor(SCOREBOARD)?;
        let unusable = |source| AttachError::Descriptor { name: SCOREBOARD, number: fd, source };
        let scoreboard = Scoreboard::open(page.as_fd()).map_err(unusable)?;
        let orphan = OrphanTimes { grace: millis(ORPHAN_TIMEOUT)?, drain: millis(KILL_TIMEOUT)? };
        let migrate_timeout = match std::env::var_os(MIGRATE_TIMEOUT) {
            Some(_) => millis(MIGRATE_TIMEOUT)?,
            None => DEFAULT_MIGRATE_TIMEOUT,
        };
        let protect = std::env::var_os(CRASH_SAFE).is_some_and(|value| value == "1");
        Ok(Self { channel, scoreboard, slot, generation, orphan, migrate_timeout, protect })
    }
}

fn millis(name: &'static str) -> Result<Duration, AttachError> {
    number(name).map(Duration::from_millis)
}

fn number<N: FromStr>(name: &'static str) -> Result<N, AttachError> {
    let value = std::env::var(name).unwrap_or_default();
    value.parse().map_err(|_| AttachError::Variable { name, value })
}

fn descriptor(name: &'static str) -> Result<(OwnedFd, i32), AttachError> {
    let number = number(name)?;
    let adopted = kernel::adopt(number);
    let fd = adopted.map_err(|source| AttachError::Descriptor { name, number, source })?;
    Ok((fd, number))
}
