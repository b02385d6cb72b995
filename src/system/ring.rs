//! The last records of something, in memory that outlives this process: a memfd, of which the descriptor
//! store has a copy and which an upgrade passes on. Full, it forgets the oldest.
//!
//! Never looks at what a record says, and never waits for a disk.
//!
//! # Layout
//!
//! Three numbers (64 bits each, little endian): the capacity, and the positions of the first record and behind
//! the last one. Positions only grow; each counts modulo the capacity from behind the numbers. A record is its
//! length (32 bits) and its bytes. Positions are written before the oldest record is overwritten and after a new
//! one is whole, so that a writer may end at any time.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};

/// Bytes of the three numbers.
const HEADER: usize = 24;
/// Bytes of a record's length.
const LENGTH: usize = 4;

/// Records that survive their writer.
#[derive(Debug)]
pub struct Ring {
    file: File,
    capacity: u64,
    first: u64,
    end: u64,
    /// Of all records, with their own numbers.
    lengths: VecDeque<u64>,
}

impl Ring {
    /// An empty one for so many bytes.
    ///
    /// # Errors
    ///
    /// If there is no memory or no descriptor left.
    pub fn create(capacity: u64) -> io::Result<Self> {
        let file = memfd_create("sticky-lb ring", MemfdFlags::CLOEXEC)?.into();
        let ring = Self { file, capacity, first: 0, end: 0, lengths: VecDeque::new() };
        ring.write_positions()?;
        Ok(ring)
    }

    /// The one that a predecessor has written, to be gone on with, and its records, oldest first. A new one if
    /// there is none, or if it is unusable.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn resume(memory: Option<OwnedFd>, capacity: u64) -> io::Result<(Self, Vec<Vec<u8>>)> {
        let left = memory.and_then(|memory| Self::open(memory.into(), capacity).ok());
        match left {
            Some(left) => Ok(left),
            None => Ok((Self::create(capacity)?, Vec::new())),
        }
    }

    fn open(file: File, capacity: u64) -> io::Result<(Self, Vec<Vec<u8>>)> {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        let [written, first, end] = [0, 8, 16].map(|at| number(&header[at..at + 8]));
        let length = end.checked_sub(first).filter(|length| *length <= capacity);
        if written != capacity || length.is_none() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut ring = Self { file, capacity, first, end, lengths: VecDeque::new() };
        let (mut records, mut at) = (Vec::new(), first);
        while at < end {
            let mut length = [0; LENGTH];
            ring.read(&mut length, at)?;
            let whole = number(&length) + LENGTH as u64;
            if whole > end - at {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut record = vec![0; usize::try_from(number(&length)).map_err(io::Error::other)?];
            ring.read(&mut record, at + LENGTH as u64)?;
            records.push(record);
            ring.lengths.push_back(whole);
            at += whole;
        }
        Ok((ring, records))
    }

    /// Adds a record. One that has no room at all is left out.
    ///
    /// # Errors
    ///
    /// If there is no memory left.
    pub fn push(&mut self, record: &[u8]) -> io::Result<()> {
        let Ok(length) = u32::try_from(record.len()) else { return Ok(()) };
        let whole = u64::from(length) + LENGTH as u64;
        if whole > self.capacity {
            return Ok(());
        }
        let before = self.first;
        while self.end + whole - self.first > self.capacity
            && let Some(oldest) = self.lengths.pop_front()
        {
            self.first += oldest;
        }
        if self.first != before {
            self.write_positions()?;
        }
        self.write(&length.to_le_bytes(), self.end)?;
        self.write(record, self.end + LENGTH as u64)?;
        self.end += whole;
        self.lengths.push_back(whole);
        self.write_positions()
    }

    /// A copy of its descriptor, for the store or a successor.
    ///
    /// # Errors
    ///
    /// If there is no free descriptor.
    pub fn memory(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    fn write_positions(&self) -> io::Result<()> {
        let header = [self.capacity, self.first, self.end].map(u64::to_le_bytes).concat();
        self.file.write_all_at(&header, 0)
    }

    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let (head, tail) = bytes.split_at(bytes.len().min(self.to_the_end(at)));
        self.file.write_all_at(head, self.place(at))?;
        self.file.write_all_at(tail, HEADER as u64)
    }

    fn read(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let (head, tail) = bytes.split_at_mut(bytes.len().min(self.to_the_end(at)));
        self.file.read_exact_at(head, self.place(at))?;
        self.file.read_exact_at(tail, HEADER as u64)
    }

    fn place(&self, at: u64) -> u64 {
        HEADER as u64 + at % self.capacity
    }

    /// Bytes from a position on to where it begins again.
    fn to_the_end(&self, at: u64) -> usize {
        usize::try_from(self.capacity - at % self.capacity).unwrap_or(usize::MAX)
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn again(ring: &Ring) -> (Ring, Vec<Vec<u8>>) {
        Ring::resume(Some(ring.memory().unwrap()), ring.capacity).unwrap()
    }

    #[test]
    fn anything_may_stand_in_it() {
        for garbage in [&[0xff; 64][..], &[0; 24], &[1; 3], &[]] {
            let ring = Ring::create(100).unwrap();
            ring.file.set_len(0).unwrap();
            ring.file.write_all_at(garbage, 0).unwrap();
            let (mut ring, records) = again(&ring);
            assert!(records.is_empty());
            ring.push(b"good").unwrap();
            assert_eq!(again(&ring).1, [b"good"]);
        }
        let mut ring = Ring::create(100).unwrap();
        ring.push(b"record").unwrap();
        ring.file.write_all_at(&[0xff], HEADER as u64).unwrap();
        assert!(again(&ring).1.is_empty(), "a record that is longer than all of them");
        let other = Ring::resume(Some(ring.memory().unwrap()), 99).unwrap();
        assert!(other.1.is_empty(), "another release may have another capacity");
    }

    #[test]
    fn a_record_without_room_is_left_out() {
        let mut ring = Ring::create(10).unwrap();
        ring.push(b"123456").unwrap();
        ring.push(b"1234567").unwrap();
        assert_eq!(again(&ring).1, [b"123456"]);
    }

    proptest! {
        #[test]
        fn the_last_records_are_there(
            lengths in prop::collection::vec(0_usize..40, 0..60), capacity in 44_u64..200,
        ) {
            let mut ring = Ring::create(capacity).unwrap();
            let mut all = Vec::new();
            for (index, length) in lengths.into_iter().enumerate() {
                all.push(vec![u8::try_from(index).unwrap(); length]);
                ring.push(all.last().unwrap()).unwrap();
                let (next, records) = again(&ring);
                prop_assert!(all.ends_with(&records));
                let bytes: usize = records.iter().map(|record| record.len() + LENGTH).sum();
                prop_assert!(bytes as u64 <= capacity);
                let missing = all.len() - records.len();
                let one_more = missing.checked_sub(1).map_or(0, |last| all[last].len() + LENGTH);
                prop_assert!(missing == 0 || (bytes + one_more) as u64 > capacity);
                // The successor goes on where this one was.
                ring = next;
            }
        }

        #[test]
        fn a_writer_may_end_in_the_middle_of_a_record(
            lengths in prop::collection::vec(0_usize..40, 1..30), torn in 0_usize..44,
        ) {
            let mut ring = Ring::create(100).unwrap();
            for length in &lengths {
                ring.push(&vec![7; *length]).unwrap();
            }
            let whole = torn as u64 + LENGTH as u64;
            while ring.end + whole - ring.first > ring.capacity {
                ring.first += ring.lengths.pop_front().unwrap();
            }
            ring.write_positions().unwrap();
            ring.write(&vec![0xff; torn], ring.end).unwrap();
            let (next, records) = again(&ring);
            prop_assert_eq!(records.len(), next.lengths.len());
            prop_assert!(records.iter().flatten().all(|byte| *byte == 7));
        }
    }
}
