//! An entry, written by its worker.

use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use crate::protocol::checkpoint::{ConnectionId, Extent, UNIT, place};
use crate::protocol::tcp_progress::TcpProgress;

/// Writes one session's entry: its cells, and where they are in the file.
#[derive(Clone, Copy, Debug)]
pub struct EntryWriter<'a> {
    cells: &'a [AtomicU64],
    offset: u64,
}

impl<'a> EntryWriter<'a> {
    /// Bytes of an entry without its image.
    pub const LENGTH: usize = place::ROOM;

    /// For the entry behind so many units. `cells` are its own, with the room behind it.
    #[must_use]
    pub fn new(cells: &'a [AtomicU64], place: u64) -> Self {
        debug_assert!(size_of_val(cells) >= Self::LENGTH);
        Self { cells, offset: place * UNIT as u64 }
    }

    /// Bytes of the room behind it.
    #[must_use]
    pub fn room_length(&self) -> usize {
        size_of_val(self.cells) - Self::LENGTH
    }

    /// The part of the room from `start`, in the file. Starts and lengths are multiples of 8.
    #[must_use]
    pub fn room(&self, start: usize, length: usize) -> (&'a [AtomicU64], u64) {
        let start = place::ROOM + start;
        (&self.cells[start / 8..(start + length) / 8], self.offset + start as u64)
    }

    /// Makes it no entry.
    pub fn clear(&self) {
        self.cell(place::ID).store(0, Ordering::Release);
    }

    /// Makes it the entry of a session that has published nothing yet.
    pub fn begin(&self, id: ConnectionId, fixed: Extent) {
        self.clear();
        // The primary reads when the worker is dead, and sees everything written up to some instruction: only
        // the compiler could put it into another order.
        compiler_fence(Ordering::SeqCst);
        self.cell(place::VERSION).store(0, Ordering::Relaxed);
        self.cell(place::FIXED).store(fixed.offset, Ordering::Relaxed);
        self.cell(place::FIXED + 8).store(fixed.length, Ordering::Relaxed);
        self.cell(place::ID).store(id.0, Ordering::Release);
    }

    /// The index of the state that doesn't hold now, and may be written.
    #[must_use]
    pub fn free_state(&self) -> usize {
        usize::from(self.cell(place::VERSION).load(Ordering::Relaxed).is_multiple_of(2))
    }

    /// Makes this hold from now on. The state has been written before, and is not the one that held.
    pub fn publish(&self, usage: TcpProgress, state: Extent) {
        let version = self.cell(place::VERSION).load(Ordering::Relaxed).wrapping_add(1);
        let record = place::RECORDS[usize::from(version % 2 == 1)];
        let (consumed, written) = usage.counts();
        for (offset, number) in
            [(0, consumed), (8, written), (16, state.offset), (24, state.length)]
        {
            self.cell(record + offset).store(number, Ordering::Relaxed);
        }
        self.cell(place::VERSION).store(version, Ordering::Release);
        // From now on the record and the state that have held until now are overwritten.
        compiler_fence(Ordering::SeqCst);
    }

    fn cell(&self, offset: usize) -> &'a AtomicU64 {
        &self.cells[offset / 8]
    }
}

/// Copies bytes into cells, of which there are enough; the rest of the last one is zero.
pub fn copy_into(cells: &[AtomicU64], bytes: &[u8]) {
    let (words, rest) = bytes.as_chunks::<8>();
    for (cell, word) in cells.iter().zip(words) {
        cell.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
    }
    if !rest.is_empty()
        && let Some(cell) = cells.get(words.len())
    {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        cell.store(u64::from_ne_bytes(last), Ordering::Relaxed);
    }
}
