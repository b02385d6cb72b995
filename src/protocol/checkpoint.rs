//! The memory of protected sessions, which survives their worker: for each of them, how far its socket
//! had been used when it was last at rest, and its image for the next worker.
//!
//! A worker writes its checkpoint; the primary reads it when the worker is dead, and never trusts it:
//! the kernel's own counters show whether a session is as its entry says
//! ([`TcpProgress`]). Nothing here waits, and nothing is decided.
//!
//! # Layout
//!
//! A memfd, sealed against shrinking, that may grow. Numbers are of 64 bits, in the machine's byte
//! order, each written as a whole. A session's entry begins at a multiple of 256 bytes, and is named by
//! how many times 256 bytes stand before it:
//!
//! | offset | what |
//! |---|---|
//! | 0 | the session's id; 0 where no entry is |
//! | 8 | version: how often the entry was published. Even: the first record holds; odd: the second |
//! | 16 | first record |
//! | 48 | second record |
//! | 80 | the unchanging part of the image: its offset in the file |
//! | 88 | its length in bytes |
//!
//! Behind it there may be room for the states and the unchanging part.
//!
//! A record, written when the session was at rest:
//!
//! | offset | what |
//! |---|---|
//! | 0 | bytes read from the socket since the connection was made |
//! | 8 | bytes written to it, with the 1 that the kernel counts for the handshake |
//! | 16 | the state: its offset in the file |
//! | 24 | its length in bytes |
//!
//! The image is the unchanging part and the state, one behind the other; either may be anywhere in the file.
//!
//! # Publishing
//!
//! The record that doesn't hold and its state are written, then the version grows by one. So whenever
//! the worker is killed, one record holds and is whole: there is no torn entry.
//! The two states have places of their own, for the same reason.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};

use crate::protocol::ids::ConnectionId;
use crate::protocol::message::MAX_IMAGE;
use crate::protocol::tcp_progress::TcpProgress;

mod entry;

pub use entry::{EntryWriter, copy_into};

/// Offsets of the parts of an entry, in bytes.
mod place {
    pub(super) const ID: usize = 0;
    pub(super) const VERSION: usize = 8;
    pub(super) const RECORDS: [usize; 2] = [16, 48];
    pub(super) const FIXED: usize = 80;
    pub(super) const ROOM: usize = 96;
}

/// Entries begin at multiples of so many bytes.
pub const UNIT: usize = 256;

/// Some bytes of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Their offset in the file.
    pub offset: u64,
    /// Their number.
    pub length: u64,
}

/// A checkpoint as its reader has it.
#[derive(Debug)]
pub struct Checkpoint {
    file: File,
}

/// The content of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// How far the socket had been used when the session was last at rest.
    pub usage: TcpProgress,
    /// How often it was published; 1 for one that hasn't been at rest since its first time.
    pub version: u64,
    /// The parts of its image.
    pub image: [Extent; 2],
}

impl Entry {
    /// Bytes of its image.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.image.iter().map(|part| part.length).sum()
    }
}

/// Makes a file for a checkpoint.
///
/// # Errors
///
/// If the kernel has no memory or no descriptor left.
pub fn create() -> io::Result<OwnedFd> {
    let file =
        memfd_create("sticky-lb checkpoint", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

impl Checkpoint {
    /// Takes a worker's checkpoint. None if it isn't memory that cannot shrink: anything else might let
    /// its reader wait.
    #[must_use]
    pub fn open(file: OwnedFd) -> Option<Self> {
        Self::is_one(&file).then(|| Self { file: file.into() })
    }

    /// Whether that is memory that cannot shrink.
    #[must_use]
    pub fn is_one(file: impl AsFd) -> bool {
        fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK))
    }

    /// Bytes of memory that its worker has given it: less than its length, where nothing was ever written.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        let blocks = fstat(&self.file).map(|stat| u64::try_from(stat.st_blocks));
        blocks.ok().and_then(Result::ok).unwrap_or(0) * 512
    }

    /// What the entry behind so many units says of the session; none if that is nothing, or nonsense.
    #[must_use]
    pub fn entry(&self, place: u64, id: ConnectionId) -> Option<Entry> {
        let mut bytes = [0; place::ROOM];
        self.file.read_exact_at(&mut bytes, place.checked_mul(UNIT as u64)?).ok()?;
        let (words, _) = bytes.as_chunks::<8>();
        let number = |offset: usize| u64::from_ne_bytes(words[offset / 8]);
        let extent = |offset| Extent { offset: number(offset), length: number(offset + 8) };
        let version = number(place::VERSION);
        if number(place::ID) != id.0 || version == 0 {
            return None;
        }
        let record = place::RECORDS[usize::from(version % 2 == 1)];
        let usage = TcpProgress::new(number(record), number(record + 8));
        let image = [extent(place::FIXED), extent(record + 16)];
        let end = u64::try_from(fstat(&self.file).ok()?.st_size).ok()?;
        let within =
            |part: &Extent| part.offset.checked_add(part.length).is_some_and(|it| it <= end);
        let length = image[0].length.checked_add(image[1].length)?;
        let sane = image.iter().all(within) && length <= MAX_IMAGE;
        sane.then_some(Entry { usage, version, image })
    }

    /// The image of an entry.
    ///
    /// # Errors
    ///
    /// If there is no memory for it.
    pub fn image(&self, entry: &Entry) -> io::Result<Vec<u8>> {
        let [fixed, state] = entry.image.map(|part| usize::try_from(part.length).unwrap_or(0));
        let mut bytes = vec![0; fixed + state];
        let (first, second) = bytes.split_at_mut(fixed);
        self.file.read_exact_at(first, entry.image[0].offset)?;
        self.file.read_exact_at(second, entry.image[1].offset)?;
        Ok(bytes)
    }
}

impl From<Checkpoint> for OwnedFd {
    fn from(checkpoint: Checkpoint) -> Self {
        checkpoint.file.into()
    }
}

impl AsFd for Checkpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests;
