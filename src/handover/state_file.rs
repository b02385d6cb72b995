//! The file of an upgrade, and what its parts have in common with the journals of a crash: JSON with a
//! version, which says who can read the rest.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, open};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::handover::descriptors::RestoreError;
use crate::handover::frontend::FrontendSnapshot;
use crate::handover::output::OutputSnapshot;
use crate::handover::pool::PoolSnapshot;
use crate::handover::primary::PrimarySnapshot;
use crate::protocol::sealed::{read_sealed, seal};

/// The version that is written and read here. It changes with the format of any snapshot, so that no
/// primary takes one thing for another.
pub const VERSION: u32 = 1;

/// Bytes of the longest state: far more than thousands of connections on their way take.
const MAX_BYTES: u64 = 256 << 20;

/// A running primary without its descriptors, in memory that its successor inherits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateFile {
    /// The primary itself.
    pub primary: PrimarySnapshot,
    /// Its workers.
    pub pool: PoolSnapshot,
    /// Its connections.
    pub frontend: FrontendSnapshot,
    /// Its workers' output.
    pub output: OutputSnapshot,
    /// The numbers of the descriptors, by name.
    pub descriptors: BTreeMap<String, RawFd>,
}

/// Why a predecessor's state cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another version.
    #[error(
        "state of the running primary is of version {found} (written by sticky-lb {release}), \
         sticky-lb {} reads version {VERSION}: restart instead of upgrading",
        env!("CARGO_PKG_VERSION")
    )]
    Version {
        /// Its version.
        found: u64,
        /// The release that wrote it.
        release: String,
    },
    /// It is not of the format of its version.
    #[error("state of the running primary is not understood")]
    Malformed(#[source] serde_json::Error),
    /// A part is missing.
    #[error("state of the running primary is incomplete: {0} is missing")]
    Missing(String),
    /// A descriptor is missing or unusable.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The descriptor that is named holds none.
    #[error("descriptor {number} holds no state of a running primary")]
    Descriptor {
        /// Its number.
        number: RawFd,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// The process cannot become another one now.
    #[error(
        "a thread of the primary waits in the kernel for a socket or a file that a worker uses, and can't be \
         ended: restart that worker, then upgrade again"
    )]
    Busy,
    /// It cannot be read or written.
    #[error("cannot carry over the state of the running primary")]
    Memory(#[from] io::Error),
}

/// The first thing that is read: the rest of another version may be anything.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    version: u64,
    release: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    /// For people.
    release: String,
    state: T,
}

/// Encodes a snapshot, with its version.
///
/// # Errors
///
/// If JSON can't express it.
pub fn encode<T: Serialize>(state: &T) -> Result<Vec<u8>, StateError> {
    let release = env!("CARGO_PKG_VERSION").to_owned();
    serde_json::to_vec(&Versioned { version: VERSION, release, state })
        .map_err(StateError::Malformed)
}

/// Decodes a snapshot.
///
/// # Errors
///
/// If it is of another version, or not understood.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError> {
    let Header { version: found, release } =
        serde_json::from_slice(bytes).map_err(StateError::Malformed)?;
    if found != u64::from(VERSION) {
        let release = release.unwrap_or_else(|| "unknown".to_owned());
        return Err(StateError::Version { found, release });
    }
    let versioned: Versioned<T> = serde_json::from_slice(bytes).map_err(StateError::Malformed)?;
    Ok(versioned.state)
}

impl StateFile {
    /// Puts it into memory that other processes can read and none can change.
    ///
    /// # Errors
    ///
    /// If there is no memory or no descriptor left.
    pub fn to_memory(&self) -> Result<OwnedFd, StateError> {
        Ok(seal(&encode(self)?)?)
    }

    /// Reads it from there.
    ///
    /// # Errors
    ///
    /// If it is no sealed memory, of another version, or not understood.
    pub fn from_memory(memory: impl AsFd) -> Result<Self, StateError> {
        decode(&read_sealed(memory, MAX_BYTES)?)
    }

    /// Reads the one in a descriptor that is named by its number. The descriptor stays its owner's: the
    /// memory is opened a second time, and nothing but memory is opened at all.
    ///
    /// # Errors
    ///
    /// As [`Self::from_memory`], and if no descriptor of that number is open.
    pub fn from_number(number: RawFd) -> Result<Self, StateError> {
        let unusable = |source| StateError::Descriptor { number, source };
        let path = format!("/proc/self/fd/{number}");
        let link = fs::read_link(&path).map_err(unusable)?;
        if !link.as_os_str().as_bytes().starts_with(b"/memfd:") {
            return Err(unusable(io::Error::other("not sealed memory")));
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let memory = open(&path, flags, Mode::empty()).map_err(|error| unusable(error.into()))?;
        decode(&read_sealed(memory, MAX_BYTES).map_err(unusable)?)
    }
}

#[cfg(test)]
pub(super) mod tests;
