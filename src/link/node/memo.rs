//! What a successor after a crash of the primary has to know of a Node worker: memory of which the descriptor
//! store has a copy.
//!
//! Less than a page, written by one call: a kill leaves the old content or the new one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use data_encoding::BASE64;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde::{Deserialize, Serialize};

use crate::link::node::ports::Rights;
use crate::link::node::servers::Servers;

/// Its size in bytes.
const SIZE: usize = 4096;

/// The facts about a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// It has said that its program is about to run.
    pub(super) is_online: bool,
    /// It is Bun.
    pub(super) is_bun: bool,
    /// It answers pings.
    pub(super) answers_pings: bool,
    /// Its program has a server open, or takes connections otherwise.
    pub(super) listens: bool,
    /// Its program has sent `ready`.
    pub(super) said_ready: bool,
    /// The supervisor was told that it takes connections.
    pub(super) is_ready: bool,
    /// The beginning of a line whose end has not come yet.
    pub(super) beginning: Beginning,
    /// Half of a line to the worker has gone.
    #[serde(default)]
    pub(super) is_told_half: bool,
    pub(super) servers: Servers,
    /// What it may do.
    #[serde(default)]
    pub(super) rights: Rights,
}

/// The beginning of a line that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Beginning {
    /// There is none.
    #[default]
    None,
    /// These bytes, in base64: lines of Node's own kind are short, and none is lost.
    Short(String),
    /// Of a line of the program's own, too long to be written down: its end is skipped.
    Long,
}

/// The longest beginning that is written down, in bytes.
const MAX_BEGINNING: usize = 512;

impl Beginning {
    pub(super) fn new(bytes: &[u8]) -> Self {
        match bytes.len() {
            0 => Self::None,
            length if length <= MAX_BEGINNING => Self::Short(BASE64.encode(bytes)),
            _ => Self::Long,
        }
    }

    /// The bytes; none if the end is to be skipped.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::None => Some(Vec::new()),
            Self::Short(text) => BASE64.decode(text.as_bytes()).ok(),
            Self::Long => None,
        }
    }
}

/// The memory.
#[derive(Debug)]
pub(super) struct Memo {
    file: File,
}

impl Memo {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// If there is no memory or no descriptor left.
    pub(super) fn create() -> io::Result<Self> {
        let memory =
            memfd_create("sticky-lb node", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&memory, SIZE as u64)?;
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW)?;
        Ok(Self { file: memory.into() })
    }

    /// The one of a primary before.
    pub(super) fn open(memory: OwnedFd) -> Self {
        Self { file: memory.into() }
    }

    /// Writes it down. Memory that is there can always be written.
    pub(super) fn write(&self, known: &Known) {
        let mut bytes = serde_json::to_vec(known).unwrap_or_default();
        bytes.push(0);
        if bytes.len() <= SIZE {
            let _ = self.file.write_all_at(&bytes, 0);
        }
    }

    /// What was written last; nothing is known if that is unreadable.
    pub(super) fn read(&self) -> Known {
        let mut bytes = [0; SIZE];
        let _ = self.file.read_exact_at(&mut bytes, 0);
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(SIZE);
        serde_json::from_slice(&bytes[..end]).unwrap_or_default()
    }

    pub(super) fn into_descriptor(self) -> OwnedFd {
        self.file.into()
    }
}

impl AsFd for Memo {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_by_another() {
        let memo = Memo::create().unwrap();
        assert_eq!(memo.read(), Known::default());
        let beginning = Beginning::new(&[b'x'; MAX_BEGINNING]);
        let mut known = Known { is_online: true, beginning, ..Known::default() };
        // Numbers of servers only grow, and all of them fit.
        for _ in 0..10_000 {
            known.servers.open();
        }
        for number in 0..1000 {
            let name = format!("{number}{}", "-".repeat(170));
            if known.servers.can_share(&name, u64::MAX).is_ok() {
                known.servers.share(&name, u64::MAX);
            }
        }
        memo.write(&known);
        assert_eq!(memo.read().beginning.bytes(), Some(vec![b'x'; MAX_BEGINNING]));
        known.beginning = Beginning::new(&[b'x'; MAX_BEGINNING + 1]);
        assert_eq!(known.beginning.bytes(), None);
        memo.write(&known);
        let other = Memo::open(memo.as_fd().try_clone_to_owned().unwrap());
        assert_eq!(other.read(), known);
    }
}
