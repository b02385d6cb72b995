//! A page of memory that a worker shares with the primary: counted by the worker at each event, read by the
//! primary at any time, at the cost of no message. A few numbers go the other way, such as orders to drain, and
//! whether everything is to end.
//!
//! Never trusted: a worker may write anything. Loads only influence placement, and more
//! connections completed than were sent are a breach of the protocol.
//!
//! # Layout
//!
//! The worker finds the descriptor's number in `STICKY_LB_SCOREBOARD` and maps 4096 bytes of it,
//! shared. 64-bit counters in the machine's byte order, to be written as a whole, each on a cache
//! line of its own:
//!
//! | offset | what |
//! |---|---|
//! | 0 | connections established now |
//! | 64 | connections taken over since its start |
//! | 128 | requests in flight |
//! | 192 | requests finished since its start |
//! | 256 | completed: connections acknowledged or refused since its start |
//! | 320 | refused: of those, the refused ones |
//! | 384 | not 0 once the primary has ordered the worker to drain; written by the primary |
//! | 448 | not 0 once everything is to end: health checks should fail; written by the primary |
//! | 512 | sessions now: WebSockets that can migrate |
//! | 576 | WebSockets now |
//! | 640 | flags, the sum of these messages that the primary has received: 1 hello, 2 sessions, 4 ready, 8 replace-me, and 16 once it has sent connections; written by the primary |
//! | 704 | connections and sessions that the primary has counted as acknowledged; written by the primary |
//! | 768 | sessions that were sent and that the primary hasn't seen completed; written by the primary |
//! | 832 | when a session was last sent, `CLOCK_MONOTONIC` in nanoseconds; 0 if none was; written by the primary |
//! | 896 | connections that the worker has closed with a close frame since it drains |
//! | 960 | sessions that have gone to another worker since it drains |
//! | 1024 | connections that the worker's program has left open when it ended |
//! | 1088 | connections that were established at the first order to drain; written by the primary |
//! | 1152 | sessions that the primary protects now; written by the primary |
//! | 1216 | the newest order to drain, for a worker that gets no message of it: the mode (0 wait, 1 close, 2 migrate) + 256 × the reason (0 restart, 1 going away) + 65536 × the time in ms; 0 if there is none; written by the primary |
//! | 1280 | the worker's process id, where the worker doesn't get this page; written by its process before it runs its program |
//!
//! A worker that doesn't count the ends of its connections leaves those at 0: connections that it has
//! neither closed nor counted are then finished.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

#[cfg(feature = "cli")]
use crate::kernel::SharedCell;
use crate::kernel::{PAGE, SharedPage};
use crate::protocol::drain::DrainOrder;

/// One worker's shared counters.
#[derive(Debug)]
pub struct Scoreboard {
    page: SharedPage,
}

/// Which counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Connections established now.
    Connections,
    /// Connections taken over since the worker's start.
    ConnectionsTotal,
    /// Requests in flight.
    Requests,
    /// Requests finished since the worker's start.
    RequestsTotal,
    /// Connections acknowledged or refused since the worker's start.
    Completed,
    /// Connections refused since the worker's start.
    Refused,
    /// Orders to drain. With none, the end of the channel means that the primary is gone.
    Drain,
    /// Orders to the primary to stop. Connections still come for a while.
    Stop,
    /// WebSockets now that can migrate.
    Sessions,
    /// WebSockets now.
    WebSockets,
    /// Flags of the worker: [`SharedFlag`].
    Flags,
    /// Connections and sessions that the primary has counted as acknowledged.
    Acknowledged,
    /// Sessions on their way to the worker, by the primary's count.
    SessionsSent,
    /// When a session was last sent to the worker: a [`Timestamp`](crate::protocol::ids::Timestamp).
    LastSession,
    /// Connections closed with a close frame since the worker drains.
    Closed,
    /// Sessions that have gone to another worker since this one drains.
    Migrated,
    /// Connections that the worker's program has left open when it ended.
    Cut,
    /// Connections that were established at the first order to drain.
    OpenAtDrain,
    /// Sessions that the primary protects.
    Protected,
    /// The newest order to drain.
    DrainOrder,
    /// The worker's process id, where the worker doesn't get the page.
    Process,
}

/// An event that happens once to a worker, and that its next primary has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedFlag {
    /// It has attached.
    Hello = 1,
    /// It migrates sessions.
    Sessions = 2,
    /// It takes connections.
    Ready = 4,
    /// It asks to be replaced.
    ReplaceMe = 8,
    /// The primary has sent it connections.
    Served = 16,
}

impl Counter {
    fn index(self) -> usize {
        const CACHE_LINE: usize = 64 / size_of::<u64>();
        CACHE_LINE
            * match self {
                Self::Connections => 0,
                Self::ConnectionsTotal => 1,
                Self::Requests => 2,
                Self::RequestsTotal => 3,
                Self::Completed => 4,
                Self::Refused => 5,
                Self::Drain => 6,
                Self::Stop => 7,
                Self::Sessions => 8,
                Self::WebSockets => 9,
                Self::Flags => 10,
                Self::Acknowledged => 11,
                Self::SessionsSent => 12,
                Self::LastSession => 13,
                Self::Closed => 14,
                Self::Migrated => 15,
                Self::Cut => 16,
                Self::OpenAtDrain => 17,
                Self::Protected => 18,
                Self::DrainOrder => 19,
                Self::Process => 20,
            }
    }
}

impl Scoreboard {
    /// Makes a page, all zero, and the file that stands for it. The file is sealed: a worker
    /// cannot shrink it under the primary's feet.
    ///
    /// # Errors
    ///
    /// If the kernel has no memory or no descriptor left.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("sticky-lb scoreboard", flags)?;
        ftruncate(&file, PAGE as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok((Self::open(file.as_fd())?, file))
    }

    /// Opens the page of a worker whose primary is another one now: it must be such a page.
    ///
    /// # Errors
    ///
    /// If it isn't sealed, is too short or cannot be mapped.
    pub fn adopt(file: impl AsFd) -> io::Result<Self> {
        let seals = rustix::fs::fcntl_get_seals(&file)?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "scoreboard is not sealed"));
        }
        Self::open(file.as_fd())
    }

    /// Opens the page that `file` stands for.
    ///
    /// # Errors
    ///
    /// If it is too short or cannot be mapped.
    pub fn open(file: BorrowedFd<'_>) -> io::Result<Self> {
        let size = rustix::fs::fstat(file)?.st_size;
        if usize::try_from(size).is_ok_and(|size| size < PAGE) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("scoreboard of {size} bytes, expected {PAGE}"),
            ));
        }
        Ok(Self { page: SharedPage::map(file)? })
    }

    /// Reads a counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.cell(counter).load(Ordering::Acquire)
    }

    /// Adds one.
    pub fn increment(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Adds some. A process that sees the new value sees everything that was done before.
    pub fn add(&self, counter: Counter, count: u64) {
        self.cell(counter).fetch_add(count, Ordering::Release);
    }

    /// Takes one away.
    pub fn decrement(&self, counter: Counter) {
        self.cell(counter).fetch_sub(1, Ordering::Relaxed);
    }

    /// Writes one that no other process writes.
    pub fn set(&self, counter: Counter, value: u64) {
        self.cell(counter).store(value, Ordering::Relaxed);
    }

    /// Notes that an event has happened.
    pub fn set_flag(&self, said: SharedFlag) {
        self.cell(Counter::Flags).fetch_or(said as u64, Ordering::Relaxed);
    }

    /// Whether an event was noted.
    #[must_use]
    pub fn has_flag(&self, said: SharedFlag) -> bool {
        self.get(Counter::Flags) & said as u64 != 0
    }

    /// Writes an order to drain, before the worker can know of it.
    pub fn set_drain_order(&self, order: DrainOrder) {
        if self.get(Counter::Drain) == 0 {
            self.set(Counter::OpenAtDrain, self.get(Counter::Connections));
        }
        self.set(Counter::DrainOrder, order.to_word());
        self.increment(Counter::Drain);
    }

    /// The newest order to drain, if there is one.
    #[must_use]
    pub fn drain_order(&self) -> Option<DrainOrder> {
        DrainOrder::from_word(self.get(Counter::DrainOrder))
    }

    /// One of its counters, for another process to write.
    #[cfg(feature = "cli")]
    pub(crate) fn into_cell(self, counter: Counter) -> Option<SharedCell> {
        SharedCell::new(self.page, counter.index())
    }

    fn cell(&self, counter: Counter) -> &AtomicU64 {
        &self.page.counters()[counter.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_share_their_counters() {
        let (primary, file) = Scoreboard::create().unwrap();
        let worker = Scoreboard::open(file.as_fd()).unwrap();
        worker.increment(Counter::Connections);
        worker.increment(Counter::Connections);
        worker.decrement(Counter::Connections);
        worker.increment(Counter::RequestsTotal);
        assert_eq!(primary.get(Counter::Connections), 1);
        assert_eq!(primary.get(Counter::RequestsTotal), 1);
        assert_eq!(primary.get(Counter::Requests), 0);
    }

    #[test]
    fn flags_stay_for_the_next_primary_that_maps_the_page() {
        let (primary, file) = Scoreboard::create().unwrap();
        primary.set_flag(SharedFlag::Ready);
        primary.set_flag(SharedFlag::Hello);
        primary.set(Counter::Acknowledged, 7);
        drop(primary);
        let next = Scoreboard::open(file.as_fd()).unwrap();
        let all = [
            SharedFlag::Hello,
            SharedFlag::Sessions,
            SharedFlag::Ready,
            SharedFlag::ReplaceMe,
            SharedFlag::Served,
        ];
        let noted = all.map(|said| next.has_flag(said));
        assert_eq!(noted, [true, false, true, false, false]);
        assert_eq!(next.get(Counter::Acknowledged), 7);
    }

    #[test]
    fn a_worker_cannot_shrink_the_page() {
        let (_primary, file) = Scoreboard::create().unwrap();
        assert_eq!(ftruncate(&file, 0), Err(rustix::io::Errno::PERM));
    }

    #[test]
    fn a_file_too_short_is_refused() {
        let file = memfd_create("short", MemfdFlags::CLOEXEC).unwrap();
        assert!(Scoreboard::open(file.as_fd()).is_err());
    }
}
