//! The memory of checkpoints: parts of it are taken, and come back when they are dropped.
//!
//! Its file grows as needed and never shrinks; memory that nobody has goes back to the kernel.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{FallocateFlags, fallocate, ftruncate};

use crate::kernel::{PAGE, SharedMemory};
use crate::protocol::checkpoint::{self, UNIT};
use crate::worker::lock::lock;

/// Short parts are made of so many bytes at a time, since each mapping counts.
const AT_ONCE: usize = 64 * PAGE;

/// Powers of two of units: the longest state takes 2^16.
const SIZES: usize = 20;

/// Memory of a worker's checkpoints. All clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    file: Option<OwnedFd>,
    /// Bytes of the file.
    length: u64,
    /// Free parts, by their size as a power of two.
    free: [Vec<Place>; SIZES],
}

/// A piece of the file that is mapped as a whole.
#[derive(Debug)]
struct Piece {
    memory: SharedMemory,
    /// Its offset in the file, and its length.
    offset: u64,
    length: usize,
    /// Parts of it that somebody has.
    taken: AtomicUsize,
}

/// The place of a part.
#[derive(Clone, Debug)]
struct Place {
    piece: Arc<Piece>,
    /// Its offset in the piece.
    within: usize,
}

/// Some bytes behind each other, its holder's own.
#[derive(Debug)]
pub(super) struct Run {
    pages: Pages,
    place: Place,
    size: usize,
}

impl Pages {
    /// So many bytes at least.
    pub(super) fn take(&self, bytes: usize) -> io::Result<Run> {
        let units = bytes.div_ceil(UNIT).max(1).next_power_of_two();
        let size = usize::try_from(units.trailing_zeros()).unwrap_or(SIZES);
        if size >= SIZES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut inner = lock(&self.inner);
        if inner.free[size].is_empty() {
            inner.make(size)?;
        }
        let place = inner.free[size].pop().ok_or(io::ErrorKind::OutOfMemory)?;
        place.piece.taken.fetch_add(1, Ordering::Relaxed);
        Ok(Run { pages: self.clone(), place, size })
    }

    /// The file, once anything was taken.
    pub(super) fn file(&self) -> io::Result<Option<OwnedFd>> {
        lock(&self.inner).file.as_ref().map(OwnedFd::try_clone).transpose()
    }
}

impl Inner {
    /// Makes parts of a size, one or several.
    fn make(&mut self, size: usize) -> io::Result<()> {
        let each = UNIT << size;
        let all = if each <= PAGE { AT_ONCE } else { each };
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(checkpoint::create()?),
        };
        let offset = self.length;
        let length = offset + all as u64;
        ftruncate(file, length)?;
        let memory = SharedMemory::map(file.as_fd(), offset, all)?;
        self.length = length;
        let piece = Arc::new(Piece { memory, offset, length: all, taken: AtomicUsize::new(0) });
        let places =
            (0..all / each).map(|index| Place { piece: Arc::clone(&piece), within: index * each });
        // The first one is taken first.
        self.free[size].extend(places.rev());
        Ok(())
    }

    /// Memory of pieces that nobody has a part of goes back to the kernel.
    fn take_back(&mut self, place: Place, size: usize) {
        let Piece { offset, length, ref taken, .. } = *place.piece;
        let is_free = taken.fetch_sub(1, Ordering::Relaxed) == 1;
        if let Some(file) = self.file.as_ref().filter(|_| is_free) {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // If it fails, the memory stays.
            let _ = fallocate(file, flags, offset, length as u64);
        }
        self.free[size].push(place);
    }
}

impl Run {
    pub(super) fn cells(&self) -> &[AtomicU64] {
        const CELL: usize = size_of::<AtomicU64>();
        let (start, length) = (self.place.within / CELL, self.length() / CELL);
        &self.place.piece.memory.cells()[start..start + length]
    }

    /// Bytes.
    pub(super) fn length(&self) -> usize {
        UNIT << self.size
    }

    /// Its place in the file, in units.
    pub(super) fn place(&self) -> u64 {
        self.offset() / UNIT as u64
    }

    /// Its offset in the file, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.place.piece.offset + self.place.within as u64
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        lock(&self.pages.inner).take_back(self.place.clone(), self.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::checkpoint::Checkpoint;

    #[test]
    fn runs_are_apart_and_come_back() {
        let pages = Pages::default();
        let mut runs: Vec<_> = [1, 256, 257, 4_096, 4_097, 100_000, 1]
            .into_iter()
            .map(|bytes| pages.take(bytes).unwrap())
            .collect();
        let mut parts: Vec<_> =
            runs.iter().map(|run| (run.offset(), run.offset() + run.length() as u64)).collect();
        parts.sort_unstable();
        assert!(parts.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{parts:?}");
        let long = runs.remove(5);
        assert!(long.length() >= 100_000);
        let place = long.offset();
        drop(long);
        assert_eq!(pages.take(100_000).unwrap().offset(), place);
        assert!(pages.take(usize::MAX / 4).is_err());
    }

    #[test]
    fn many_short_ones_take_few_mappings_and_no_memory_once_they_are_free() {
        let pages = Pages::default();
        let runs: Vec<_> = (0..1_000).map(|_| pages.take(500).unwrap()).collect();
        let mut places: Vec<_> = runs.iter().map(Run::place).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 1_000);
        assert!(lock(&pages.inner).length <= 512 * 1_024);
        for run in &runs {
            run.cells().iter().for_each(|cell| cell.store(1, Ordering::Relaxed));
        }
        let reader = Checkpoint::open(pages.file().unwrap().unwrap()).unwrap();
        assert!(reader.allocated() >= 500_000);
        drop(runs);
        assert_eq!(reader.allocated(), 0);
    }
}
