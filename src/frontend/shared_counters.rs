//! The frontend's counters in a page of memory that outlives it: connections as they are accepted,
//! everything else once a turn; read by the primary that follows a crash.
//!
//! Costs no system call. The successor counts connections as lost that were accepted and are nowhere. A
//! connection that was being accepted is also counted as lost, to be safe.
//!
//! # Layout
//!
//! 64-bit numbers in the machine's byte order, one after the other, in the order of [`Counters`]'
//! fields. New ones are only ever added at their end. The page's last number is that of the connection
//! which the accept(2) under way may bring. Before it stand the two of the key of records' tags.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create,
};

use crate::kernel::{PAGE, SharedPage};
use crate::link::record_key::RecordKey;
use crate::link::seam::Counters;

/// The name by which its descriptor is kept.
pub const COUNTERS: &str = "counters";

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// The page.
#[derive(Debug)]
pub struct SharedCounters {
    page: SharedPage,
    file: OwnedFd,
}

impl SharedCounters {
    /// Makes a page, all zero, and its file.
    ///
    /// # Errors
    ///
    /// If the kernel has no memory or no descriptor left.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("sticky-lb counters", flags)?;
        ftruncate(&file, PAGE as u64)?;
        fcntl_add_seals(&file, SEALS)?;
        let kept = file.try_clone()?;
        Ok((Self::open(file)?, kept))
    }

    /// Opens the page of `file`.
    ///
    /// # Errors
    ///
    /// If it is no such page, or cannot be mapped.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        let size = rustix::fs::fstat(&file)?.st_size;
        let is_page = usize::try_from(size).is_ok_and(|size| size >= PAGE);
        if !is_page || !fcntl_get_seals(&file)?.contains(SEALS) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no page of counters"));
        }
        Ok(Self { page: SharedPage::map(file.as_fd())?, file })
    }

    /// Its file.
    #[must_use]
    pub fn into_file(self) -> OwnedFd {
        self.file
    }

    /// The counters as they were written last.
    #[must_use]
    pub fn read(&self) -> Counters {
        let mut counters = Counters::default();
        for (field, cell) in fields(&mut counters).into_iter().zip(self.page.counters()) {
            *field = cell.load(Ordering::Acquire);
        }
        let expected = self.page.counters()[EXPECTED].load(Ordering::Acquire);
        counters.accepted = counters.accepted.max(expected);
        counters
    }

    /// The key of records' tags.
    #[must_use]
    pub fn record_key(&self) -> RecordKey {
        KEY.map(|place| self.page.counters()[place].load(Ordering::Acquire)).into()
    }

    /// Notes the key of records' tags.
    pub fn set_record_key(&self, key: RecordKey) {
        for (place, number) in KEY.into_iter().zip(key.numbers()) {
            self.page.counters()[place].store(number, Ordering::Release);
        }
    }

    /// The next accept(2) gives this number to its connection; the last number again if there was none.
    pub fn expect(&self, number: u64) {
        self.page.counters()[EXPECTED].store(number, Ordering::Release);
    }

    /// Writes the counters. The number of the last connection comes first, so that the reader of a page
    /// that is half written gives no number twice.
    pub fn write(&self, mut counters: Counters) {
        for (field, cell) in fields(&mut counters).into_iter().zip(self.page.counters()) {
            cell.store(*field, Ordering::Release);
        }
    }
}

/// The cell of the expected number: the last one, which no field ever reaches.
const EXPECTED: usize = PAGE / size_of::<u64>() - 1;

/// The cells of the key.
const KEY: [usize; 2] = [EXPECTED - 2, EXPECTED - 1];

fn fields(counters: &mut Counters) -> [&mut u64; 18] {
    let Counters {
        accepted,
        acknowledged,
        redispatched,
        fallbacks,
        lost,
        stalls,
        refused,
        accept_errors,
        moved,
        returned,
        sessions_lost,
        closed,
        survival,
    } = counters;
    [
        accepted,
        acknowledged,
        redispatched,
        fallbacks,
        lost,
        stalls,
        refused,
        accept_errors,
        moved,
        returned,
        sessions_lost,
        closed,
        &mut survival.recovered,
        &mut survival.busy,
        &mut survival.client_gone,
        &mut survival.unverified,
        &mut survival.no_target,
        &mut survival.not_protected,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_one_that_opens_it_reads_what_was_written_last() {
        let (page, kept) = SharedCounters::create().unwrap();
        assert_eq!(page.read(), Counters::default());
        let mut counters = Counters::default();
        for (number, field) in (1..).zip(fields(&mut counters)) {
            *field = number;
        }
        page.write(counters);
        page.set_record_key(RecordKey::from([3, 4]));
        drop(page);
        let next = SharedCounters::open(kept).unwrap();
        assert_eq!(next.record_key(), RecordKey::from([3, 4]));
        assert_eq!(next.read(), counters);
        assert_eq!((next.read().accepted, next.read().closed), (1, 12));
    }

    #[test]
    fn one_that_may_have_been_accepted_counts_as_accepted() {
        let (page, _kept) = SharedCounters::create().unwrap();
        let mut accepted = 0;
        for brings in [true, true, false, true, false, false] {
            page.expect(accepted + 1);
            assert_eq!(page.read().accepted, accepted + 1, "killed meanwhile");
            accepted += u64::from(brings);
            page.expect(accepted);
            assert_eq!(page.read().accepted, accepted);
        }
        page.write(Counters { accepted, ..Counters::default() });
        assert_eq!(page.read().accepted, accepted);
    }

    #[test]
    fn what_is_no_page_is_refused() {
        let short = memfd_create("short", MemfdFlags::CLOEXEC).unwrap();
        assert!(SharedCounters::open(short).is_err());
        let unsealed = memfd_create("long", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&unsealed, PAGE as u64).unwrap();
        assert!(SharedCounters::open(unsealed).is_err());
        assert!(SharedCounters::open(std::fs::File::open("/dev/null").unwrap().into()).is_err());
    }
}
