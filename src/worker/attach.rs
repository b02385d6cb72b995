//! How a worker finds its primary: what the environment says, and what can be wrong with it.
//!
//! Never changes the environment; the descriptors are marked close-on-exec, so that processes
//! started from the worker don't inherit them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use crate::kernel;
use crate::protocol::ids::{Generation, SlotId};
use crate::protocol::scoreboard::Scoreboard;
use crate::worker::error::AttachError;
use crate::worker::orphan::OrphanTimes;
use crate::worker::shared::Allowed;

/// The descriptor of the channel.
const CHANNEL: &str = "STICKY_LB_CHANNEL";
/// The descriptor of the scoreboard.
const SCOREBOARD: &str = "STICKY_LB_SCOREBOARD";
/// The slot's number.
const SLOT: &str = "STICKY_LB_SLOT";
/// The generation's number.
const GENERATION: &str = "STICKY_LB_GENERATION";
/// How long a worker serves on when its primary is gone, in milliseconds.
const ORPHAN_TIMEOUT: &str = "STICKY_LB_ORPHAN_TIMEOUT";
/// How long it drains then at most, in milliseconds.
const KILL_TIMEOUT: &str = "STICKY_LB_KILL_TIMEOUT";
/// How long a session may take to migrate, in milliseconds; [`DEFAULT_MIGRATE_TIMEOUT`] if unset.
const MIGRATE_TIMEOUT: &str = "STICKY_LB_MIGRATE_TIMEOUT";
/// 1 if offers may say how far a socket has been used.
const OFFER_PROGRESS: &str = "STICKY_LB_OFFER_PROGRESS";
/// 1 if sessions may be protected.
const PROTECT: &str = "STICKY_LB_PROTECT";
/// 1 if a message may protect several.
const PROTECT_SEVERAL: &str = "STICKY_LB_PROTECT_SEVERAL";

/// How long a session may take to migrate by default.
const DEFAULT_MIGRATE_TIMEOUT: Duration = Duration::from_secs(10);

/// Set as soon as this process has touched the descriptors that it inherited.
static ATTACHED: AtomicBool = AtomicBool::new(false);

/// Everything that the primary gives to a process. It can be taken once.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inheritance {
    /// The channel to the primary.
    pub channel: OwnedFd,
    /// The counters that the primary reads.
    pub scoreboard: Scoreboard,
    pub(crate) slot: SlotId,
    pub(crate) generation: Generation,
    pub(crate) orphan: OrphanTimes,
    pub(crate) migrate_timeout: Duration,
    pub(crate) allowed: Allowed,
}

impl Inheritance {
    /// Takes it, as the environment describes it.
    ///
    /// # Errors
    ///
    /// If there is no primary, it was taken before, or something isn't what the primary made it.
    pub fn take() -> Result<Self, AttachError> {
        if std::env::var_os(CHANNEL).is_none() {
            return Err(AttachError::NoPrimary);
        }
        let numbers = (number(CHANNEL)?, number(SCOREBOARD)?);
        let slot = SlotId(number(SLOT)?);
        let generation = Generation(number(GENERATION)?);
        let orphan = OrphanTimes { serve: millis(ORPHAN_TIMEOUT)?, drain: millis(KILL_TIMEOUT)? };
        let migrate_timeout = match std::env::var_os(MIGRATE_TIMEOUT) {
            Some(_) => millis(MIGRATE_TIMEOUT)?,
            None => DEFAULT_MIGRATE_TIMEOUT,
        };
        let allowed = Allowed {
            offer_progress: is_set(OFFER_PROGRESS),
            protect: is_set(PROTECT),
            protect_several: is_set(PROTECT_SEVERAL),
        };
        if ATTACHED.swap(true, Ordering::Relaxed) {
            return Err(AttachError::AlreadyAttached);
        }
        let channel = inherited(CHANNEL, numbers.0, is_channel)?;
        let page = inherited(SCOREBOARD, numbers.1, |_| Ok(()))?;
        let opened = Scoreboard::open(page.as_fd());
        let number = numbers.1;
        let scoreboard = opened.map_err(|source| AttachError::Descriptor {
            name: SCOREBOARD,
            number,
            source,
        })?;
        Ok(Self { channel, scoreboard, slot, generation, orphan, migrate_timeout, allowed })
    }
}

fn is_channel(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    match socket_type(descriptor)? {
        SocketType::SEQPACKET => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket of another type")),
    }
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value == "1")
}

fn millis(name: &'static str) -> Result<Duration, AttachError> {
    number(name).map(Duration::from_millis)
}

fn number<N: FromStr>(name: &'static str) -> Result<N, AttachError> {
    let value = std::env::var(name).unwrap_or_default();
    value.parse().map_err(|_| AttachError::Variable { name, value })
}

/// Takes a descriptor that passes the check.
fn inherited(
    name: &'static str,
    number: i32,
    check: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
) -> Result<OwnedFd, AttachError> {
    kernel::adopt_if(number, check).map_err(|source| AttachError::Descriptor {
        name,
        number,
        source,
    })
}
