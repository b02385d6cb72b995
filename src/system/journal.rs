//! A snapshot for the successor after a crash, in memory that outlives this process: a memfd of which
//! the descriptor store has a copy.
//!
//! Two halves are written in turn, so that one that was torn in the middle leaves the other as it was.
//! Never looks at what it holds, and never waits for a disk.
//!
//! # Layout
//!
//! Blocks of 64 KiB belong to one half and the other in turn, so that both can grow. Each half begins
//! with a header: its sequence number and the length of the content (64 bits each, little endian), and
//! SHA-256 of both and of the content. The newer of those whose checksum is right counts.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};
use sha2::{Digest, Sha256};

/// The name of its descriptor in the store.
pub const NAME: &str = "journal";

/// Bytes that belong together.
const BLOCK: usize = 64 * 1024;
const CHECKSUM: usize = 32;
const HEADER: usize = 8 + 8 + CHECKSUM;

/// Memory that is written as a whole, and survives its writer.
#[derive(Debug)]
pub struct Journal {
    file: File,
    /// Of what was written last; 0 before the first.
    sequence: u64,
}

/// A half that is whole.
struct Half {
    sequence: u64,
    content: Vec<u8>,
}

impl Journal {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// If there is no memory or no descriptor left.
    pub fn create() -> io::Result<Self> {
        let memory = memfd_create("sticky-lb journal", MemfdFlags::CLOEXEC)?;
        Ok(Self { file: memory.into(), sequence: 0 })
    }

    /// The one that a predecessor has written, to be read and gone on with.
    #[must_use]
    pub fn open(memory: OwnedFd) -> Self {
        let mut journal = Self { file: memory.into(), sequence: 0 };
        journal.sequence = journal.newest().map_or(0, |half| half.sequence);
        journal
    }

    /// Writes down `content`. What was written before is replaced once all of this is there.
    ///
    /// # Errors
    ///
    /// If there is no memory left. What was written before is still there.
    pub fn write(&mut self, content: &[u8]) -> io::Result<()> {
        let sequence = self.sequence.wrapping_add(1);
        let mut bytes = header(sequence, content);
        bytes.extend_from_slice(content);
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            self.file.write_all_at(block, place(sequence, index))?;
        }
        self.sequence = sequence;
        Ok(())
    }

    /// The last content, if there is any.
    #[must_use]
    pub fn read(&self) -> Option<Vec<u8>> {
        self.newest().map(|half| half.content)
    }

    fn newest(&self) -> Option<Half> {
        let halves = [0, 1].into_iter().filter_map(|half| self.half(half).ok().flatten());
        halves.max_by_key(|half| half.sequence)
    }

    /// A half, if it is whole.
    fn half(&self, half: u64) -> io::Result<Option<Half>> {
        let mut first = [0; HEADER];
        self.file.read_exact_at(&mut first, place(half, 0))?;
        let [sequence, length] = [0, 8].map(|at| number(&first[at..at + 8]));
        // Anything may stand there.
        if length > self.file.metadata()?.len() {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut bytes = vec![0; HEADER + length];
        for (index, block) in bytes.chunks_mut(BLOCK).enumerate() {
            self.file.read_exact_at(block, place(half, index))?;
        }
        let content = bytes.split_off(HEADER);
        let is_whole = sequence % 2 == half && header(sequence, &content) == bytes;
        Ok(is_whole.then_some(Half { sequence, content }))
    }
}

impl AsFd for Journal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<Journal> for OwnedFd {
    fn from(journal: Journal) -> Self {
        journal.file.into()
    }
}

/// Where a block of a half is. Halves take turns, so that a sequence number names its half.
fn place(half: u64, index: usize) -> u64 {
    (2 * index as u64 + half % 2) * BLOCK as u64
}

fn header(sequence: u64, content: &[u8]) -> Vec<u8> {
    let numbers = [sequence.to_le_bytes(), (content.len() as u64).to_le_bytes()].concat();
    let checksum = Sha256::new().chain_update(&numbers).chain_update(content).finalize();
    [&numbers[..], &checksum[..]].concat()
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn again(journal: &Journal) -> Journal {
        Journal::open(journal.file.try_clone().unwrap().into())
    }

    /// Writes only so many bytes of `content` and its header, as if this process had died then.
    fn tear(journal: &Journal, content: &[u8], written: usize) {
        let sequence = journal.sequence + 1;
        let bytes = [&header(sequence, content)[..], content].concat();
        for (index, block) in bytes[..written.min(bytes.len())].chunks(BLOCK).enumerate() {
            journal.file.write_all_at(block, place(sequence, index)).unwrap();
        }
    }

    #[test]
    fn the_last_content_is_read_by_every_reader() {
        let mut journal = Journal::create().unwrap();
        assert_eq!(journal.read(), None);
        assert_eq!(again(&journal).read(), None);
        for size in [0, 1, BLOCK - HEADER, BLOCK, 5 * BLOCK + 7, 100, 2] {
            let content = vec![b'x'; size];
            journal.write(&content).unwrap();
            assert_eq!(journal.read().as_ref(), Some(&content));
            // The successor goes on where this one was.
            journal = again(&journal);
            assert_eq!(journal.read(), Some(content));
        }
        assert_eq!(journal.sequence, 7);
    }

    #[test]
    fn anything_may_stand_in_it() {
        for garbage in [vec![0xff; 3 * BLOCK], vec![0; BLOCK], vec![1; HEADER + 1]] {
            let mut journal = Journal::create().unwrap();
            journal.file.write_all_at(&garbage, 0).unwrap();
            assert_eq!(again(&journal).read(), None);
            journal.write(b"good").unwrap();
            assert_eq!(again(&journal).read().unwrap(), b"good");
        }
    }

    #[test]
    fn a_write_torn_at_any_byte_of_a_short_content_leaves_the_older_one() {
        for written in 0..HEADER + 5 {
            let mut journal = Journal::create().unwrap();
            journal.write(b"older").unwrap();
            tear(&journal, b"newer", written);
            let mut journal = again(&journal);
            assert_eq!(journal.read().unwrap(), b"older", "{written}");
            journal.write(b"after").unwrap();
            assert_eq!(again(&journal).read().unwrap(), b"after", "{written}");
        }
        let mut journal = Journal::create().unwrap();
        journal.write(b"older").unwrap();
        tear(&journal, b"newer", HEADER + 5);
        assert_eq!(again(&journal).read().unwrap(), b"newer");
    }

    proptest! {
        #[test]
        fn a_write_torn_anywhere_leaves_the_older_content(
            sizes in prop::collection::vec(0..3 * BLOCK, 1..6), torn in 0..3 * BLOCK, at in 0.0..1.0,
        ) {
            let mut journal = Journal::create().unwrap();
            for (round, size) in sizes.iter().enumerate() {
                journal.write(&vec![u8::try_from(round).unwrap(); *size]).unwrap();
            }
            let older = journal.read();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share")]
            let written = ((HEADER + torn) as f64 * at) as usize;
            tear(&journal, &vec![0xaa; torn], written);
            let mut journal = again(&journal);
            prop_assert_eq!(journal.read(), older);
            journal.write(b"after").unwrap();
            prop_assert_eq!(again(&journal).read().unwrap(), b"after");
        }
    }
}
