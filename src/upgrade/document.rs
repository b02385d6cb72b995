//! What is written down of a running primary: JSON, with a version that says who can read it.
//!
//! Knows nothing of what the parts write.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, open};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::protocol::sealed::{read_sealed, seal};

/// The version that is written and read here. It changes whenever a part writes something else, so
/// that no primary takes one thing for another.
pub const VERSION: u32 = 1;

/// Bytes of the longest document: far beyond what thousands of connections on their way take.
const LONGEST: u64 = 256 << 20;

/// A running primary, written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// [`VERSION`] of whoever wrote it.
    pub version: u32,
    /// Its release, for people.
    pub release: String,
    /// What each part wrote.
    pub parts: BTreeMap<String, Value>,
    /// The numbers of the descriptors, by name.
    pub descriptors: BTreeMap<String, RawFd>,
}

/// Why nothing can be made of what a primary has left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EstateError {
    /// Another version.
    #[error(
        "state of the running primary is of version {found} (written by sticky-lb {release}), \
         sticky-lb {} reads version {VERSION}: restart instead of upgrading",
        env!("CARGO_PKG_VERSION")
    )]
    Version {
        /// Its version.
        found: u64,
        /// Who wrote it.
        release: String,
    },
    /// It is not what its version says.
    #[error("state of the running primary is not understood: {what}")]
    Malformed {
        /// Which part.
        what: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Something is named and not there.
    #[error("state of the running primary is incomplete: {0} is missing")]
    Missing(String),
    /// It is not in the descriptor that is named.
    #[error("descriptor {number} holds no state of a running primary")]
    Descriptor {
        /// Its number.
        number: RawFd,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// It cannot be read or written.
    #[error("cannot carry over the state of the running primary")]
    Memory(#[from] io::Error),
}

impl Document {
    /// Without any part.
    #[must_use]
    pub fn new() -> Self {
        Self {
            version: VERSION,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            parts: BTreeMap::new(),
            descriptors: BTreeMap::new(),
        }
    }

    /// Adds what a part has written.
    ///
    /// # Errors
    ///
    /// If it is nothing that JSON can say.
    pub fn insert(&mut self, part: &str, written: &impl Serialize) -> Result<(), EstateError> {
        let value = serde_json::to_value(written).map_err(|error| malformed(part, error))?;
        self.parts.insert(part.to_owned(), value);
        Ok(())
    }

    /// What a part has written; nothing if it wrote nothing.
    ///
    /// # Errors
    ///
    /// If it isn't understood.
    pub fn read<T: DeserializeOwned>(&self, part: &str) -> Result<Option<T>, EstateError> {
        let found = self.parts.get(part).cloned();
        found.map(serde_json::from_value).transpose().map_err(|error| malformed(part, error))
    }

    /// As [`Self::read`], of a part that must be there.
    ///
    /// # Errors
    ///
    /// If it isn't there or isn't understood.
    pub fn require<T: DeserializeOwned>(&self, part: &str) -> Result<T, EstateError> {
        self.read(part)?.ok_or_else(|| EstateError::Missing(part.to_owned()))
    }

    /// Reads a document.
    ///
    /// # Errors
    ///
    /// If it is of another version, or isn't understood.
    pub fn decode(bytes: &[u8]) -> Result<Self, EstateError> {
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| malformed("document", error))?;
        // First of all: the rest of another version may be anything.
        let found = value["version"].as_u64().unwrap_or(0);
        if found != u64::from(VERSION) {
            let release = value["release"].as_str().unwrap_or("unknown").to_owned();
            return Err(EstateError::Version { found, release });
        }
        serde_json::from_value(value).map_err(|error| malformed("document", error))
    }

    /// Puts it into memory that another process can read and nobody can change.
    ///
    /// # Errors
    ///
    /// If there is no memory or no descriptor left.
    pub fn into_memory(self) -> Result<OwnedFd, EstateError> {
        let bytes = serde_json::to_vec(&self).map_err(|error| malformed("document", error))?;
        Ok(seal(&bytes)?)
    }

    /// Reads it from there.
    ///
    /// # Errors
    ///
    /// As [`Self::decode`], and if it is no sealed memory or cannot be read.
    pub fn from_memory(memory: impl AsFd) -> Result<Self, EstateError> {
        Self::decode(&read_sealed(memory, LONGEST)?)
    }

    /// Reads the one in a descriptor that somebody names by its number. Whoever owns that descriptor
    /// keeps it: the memory is opened a second time, and nothing else is opened or read.
    ///
    /// # Errors
    ///
    /// As [`Self::from_memory`], and if no descriptor of that number is open or it is no memory.
    pub fn from_number(number: RawFd) -> Result<Self, EstateError> {
        let unusable = |source| EstateError::Descriptor { number, source };
        let path = format!("/proc/self/fd/{number}");
        let link = fs::read_link(&path).map_err(unusable)?;
        if !link.as_os_str().as_bytes().starts_with(b"/memfd:") {
            return Err(unusable(io::Error::other("not sealed memory")));
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let memory = open(&path, flags, Mode::empty()).map_err(|error| unusable(error.into()))?;
        Self::decode(&read_sealed(memory, LONGEST).map_err(unusable)?)
    }
}

impl Default for Document {
    fn default() -> Self {
        Self::new()
    }
}

fn malformed(what: &str, source: serde_json::Error) -> EstateError {
    EstateError::Malformed { what: what.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_survives_the_way() {
        let mut document = Document::new();
        document.insert("pool", &vec![1, 2, 3]).unwrap();
        document.descriptors.insert("listener".to_owned(), 7);
        let memory = document.clone().into_memory().unwrap();
        let again = memory.try_clone().unwrap();
        assert_eq!(Document::from_memory(memory).unwrap(), document);
        let read = Document::from_memory(again).unwrap();
        assert_eq!(read.require::<Vec<u8>>("pool").unwrap(), [1, 2, 3]);
        assert_eq!(read.read::<u8>("frontend").unwrap(), None);
        assert!(matches!(read.require::<u8>("frontend"), Err(EstateError::Missing(_))));
        assert!(matches!(read.read::<u8>("pool"), Err(EstateError::Malformed { .. })));
    }

    #[test]
    fn of_another_version_nothing_else_is_read() {
        for found in [0, 2, u64::from(u32::MAX)] {
            let text = format!(r#"{{"version":{found},"release":"9.9.9","parts":17}}"#);
            let error = Document::decode(text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("written by sticky-lb 9.9.9"), "{error}");
            assert!(matches!(error, EstateError::Version { found: it, .. } if it == found));
        }
        for wrong in [&b""[..], b"{", b"[]", br#"{"version":"1"}"#, br#"{"version":1}"#] {
            assert!(Document::decode(wrong).is_err());
        }
    }
}
