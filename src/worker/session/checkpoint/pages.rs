//! The memory of checkpoints: pages are taken, and come back when they are dropped.
//!
//! Grows as needed and never shrinks; memory of long states goes back to the kernel.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use rustix::fs::{FallocateFlags, fallocate, ftruncate};

use crate::kernel::{PAGE, SharedMemory};
use crate::protocol::checkpoint;
use crate::worker::lock::lock;

/// Single pages are made so many at a time, since each mapping counts.
const AT_ONCE: usize = 64;

/// Powers of two of pages: the longest state takes 2^12.
const SIZES: usize = 16;

/// Memory of a worker's checkpoints. All clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    file: Option<OwnedFd>,
    /// Pages of the file.
    length: u64,
    /// Free runs, by their size as a power of two.
    free: [Vec<Place>; SIZES],
}

/// The place of a run of pages.
#[derive(Clone, Debug)]
struct Place {
    memory: Arc<SharedMemory>,
    /// Within the mapping and within the file, in pages.
    within: usize,
    first: u64,
}

/// Some pages behind each other, its holder's own.
#[derive(Debug)]
pub(super) struct Run {
    pages: Pages,
    place: Place,
    size: usize,
}

impl Pages {
    /// So many bytes at least.
    pub(super) fn take(&self, bytes: usize) -> io::Result<Run> {
        let count = bytes.div_ceil(PAGE).max(1).next_power_of_two();
        let size = usize::try_from(count.trailing_zeros()).unwrap_or(SIZES);
        if size >= SIZES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut inner = lock(&self.inner);
        if inner.free[size].is_empty() {
            inner.make(size, count)?;
        }
        let place = inner.free[size].pop().ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Run { pages: self.clone(), place, size })
    }

    /// The file, once anything was taken.
    pub(super) fn file(&self) -> io::Result<Option<OwnedFd>> {
        lock(&self.inner).file.as_ref().map(OwnedFd::try_clone).transpose()
    }
}

impl Inner {
    /// Makes runs of `count` pages, one or several.
    fn make(&mut self, size: usize, count: usize) -> io::Result<()> {
        let all = if count == 1 { AT_ONCE } else { count };
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(checkpoint::create()?),
        };
        let first = self.length;
        let length = first + all as u64;
        ftruncate(file, length * PAGE as u64)?;
        let offset = first * PAGE as u64;
        let memory = Arc::new(SharedMemory::map(file.as_fd(), offset, all * PAGE)?);
        self.length = length;
        let places = (0..all / count).map(|index| Place {
            memory: Arc::clone(&memory),
            within: index * count,
            first: first + (index * count) as u64,
        });
        // The first one is taken first.
        self.free[size].extend(places.rev());
        Ok(())
    }

    /// Memory of long runs goes back to the kernel.
    fn take_back(&mut self, place: Place, size: usize) {
        if size > 0
            && let Some(file) = &self.file
        {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let (offset, length) = (place.first * PAGE as u64, (PAGE << size) as u64);
            // If it fails, the memory stays.
            let _ = fallocate(file, flags, offset, length);
        }
        self.free[size].push(place);
    }
}

impl Run {
    pub(super) fn cells(&self) -> &[AtomicU64] {
        const CELLS: usize = PAGE / size_of::<AtomicU64>();
        let start = self.place.within * CELLS;
        &self.place.memory.cells()[start..start + (CELLS << self.size)]
    }

    /// Bytes.
    pub(super) fn length(&self) -> usize {
        PAGE << self.size
    }

    /// Its first page, in the file.
    pub(super) fn first(&self) -> u64 {
        self.place.first
    }

    /// Its offset in the file, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.place.first * PAGE as u64
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

    #[test]
    fn runs_are_apart_and_come_back() {
        let pages = Pages::default();
        let mut runs: Vec<_> = [1, 4_096, 4_097, 100_000, 1]
            .into_iter()
            .map(|bytes| pages.take(bytes).unwrap())
            .collect();
        let mut parts: Vec<_> =
            runs.iter().map(|run| (run.offset(), run.offset() + run.length() as u64)).collect();
        parts.sort_unstable();
        assert!(parts.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{parts:?}");
        let long = runs.remove(3);
        assert!(long.length() >= 100_000);
        let place = long.offset();
        drop(long);
        assert_eq!(pages.take(100_000).unwrap().offset(), place);
        assert!(pages.take(usize::MAX / 4).is_err());
    }

    #[test]
    fn many_single_pages_take_few_mappings() {
        let pages = Pages::default();
        let runs: Vec<_> = (0..1_000).map(|_| pages.take(1).unwrap()).collect();
        let mut firsts: Vec<_> = runs.iter().map(Run::first).collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), 1_000);
        assert!(lock(&pages.inner).length <= 1_024);
    }
}
