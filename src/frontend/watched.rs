//! All channels behind one descriptor: which workers have said something?
//!
//! An epoll instance of its own, itself watched by tokio. So the dispatcher stays one task that
//! owns everything, and a slot more costs nothing.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::Timespec;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::handoff::kernel::watch;
use crate::handoff::message::{Generation, SlotId};
use crate::handoff::slots::WorkerId;

/// Ready channels asked for at a time.
const READY: usize = 64;

/// The channels of all workers.
pub struct Watched {
    epoll: AsyncFd<OwnedFd>,
    ready: Vec<WorkerId>,
    events: Vec<epoll::Event>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("ready", &self.ready).finish_non_exhaustive()
    }
}

impl Watched {
    /// Watches none yet.
    ///
    /// # Errors
    ///
    /// If the kernel has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll: watch(epoll, Interest::READABLE)?,
            ready: Vec::with_capacity(READY),
            events: Vec::with_capacity(READY),
        })
    }

    /// Watches a worker's channel.
    pub fn add(&self, worker: WorkerId, channel: BorrowedFd<'_>) {
        let slot = u64::from(worker.slot.0);
        let data = EventData::new_u64(slot << 32 | u64::from(worker.generation.0));
        if let Err(error) = epoll::add(self.epoll.get_ref(), channel, data, EventFlags::IN) {
            // The worker will not get ready in time, and be started again.
            tracing::error!(slot = %worker.slot, %error, "cannot watch a worker's channel");
        }
    }

    /// Watches it no more.
    pub fn remove(&self, channel: BorrowedFd<'_>) {
        // It may have been removed before.
        let _ = epoll::delete(self.epoll.get_ref(), channel);
    }

    /// Waits until some worker has said something.
    pub async fn readable(&self) {
        // Fails only when the runtime is shut down.
        if self.epoll.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// A worker that has said something, as long as there is one. Each is to be read to its end.
    pub fn take_ready(&mut self) -> Option<WorkerId> {
        if self.ready.is_empty() {
            let Self { epoll, ready, events } = self;
            let asked = epoll.try_io(Interest::READABLE, |epoll| wait(epoll, events, ready));
            if asked.is_err() {
                return None;
            }
        }
        self.ready.pop()
    }
}

fn wait(
    epoll: &OwnedFd,
    events: &mut Vec<epoll::Event>,
    ready: &mut Vec<WorkerId>,
) -> io::Result<()> {
    events.clear();
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    epoll::wait(epoll, rustix::buffer::spare_capacity(events), Some(&at_once))?;
    ready.extend(events.iter().map(|event| worker(event.data.u64())));
    if ready.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of what `add` put together")]
fn worker(data: u64) -> WorkerId {
    WorkerId { slot: SlotId((data >> 32) as u16), generation: Generation(data as u32) }
}
