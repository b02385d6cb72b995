//! Waits for the listener, the links, commands and queries, or the next tick.
//!
//! An epoll instance of its own instead of a runtime: one system call a turn, whatever has
//! happened. Level-triggered, so that what is not read to its end is reported again.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::link::seam::WorkerId;
use crate::protocol::ids::{Generation, SlotId};

/// Sources reported in one turn.
const EVENTS: usize = 64;

/// A descriptor that has something to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The backlog holds a connection.
    Listener,
    /// The supervisor has sent a command.
    Commands,
    /// An operator has asked something.
    Queries,
    /// It is proven what a dead worker has done with what it leaves.
    Proofs,
    /// A worker has sent a message.
    Worker(WorkerId),
}

/// Waits for several sources at once.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl Poller {
    /// Waits for nothing yet.
    ///
    /// # Errors
    ///
    /// If the kernel has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS) })
    }

    /// Waits for a source too.
    ///
    /// # Errors
    ///
    /// If the kernel has no memory, or watches too many for this user.
    pub fn add(&self, source: Source, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, descriptor, data(source), EventFlags::IN)?)
    }

    /// Waits for a source no longer; one that isn't waited for is no error.
    pub fn remove(&self, descriptor: BorrowedFd<'_>) {
        // It was removed before.
        let _ = epoll::delete(&self.epoll, descriptor);
    }

    /// Ignores a source for now, or reports it again.
    ///
    /// # Errors
    ///
    /// If it isn't waited for.
    pub fn set_interest(
        &self,
        source: Source,
        descriptor: BorrowedFd<'_>,
        interest: bool,
    ) -> io::Result<()> {
        let flags = if interest { EventFlags::IN } else { EventFlags::empty() };
        Ok(epoll::modify(&self.epoll, descriptor, data(source), flags)?)
    }

    /// Waits until a source has something or the time is over, which without a `timeout` it never
    /// is, and adds those that do to `ready`.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Source>) -> io::Result<()> {
        self.events.clear();
        // Rounded up: a wait that ends a moment before its time would be made again.
        let millis = |time: Duration| u64::try_from(time.as_micros().div_ceil(1_000)).ok();
        let timeout = timeout.and_then(millis).map(Duration::from_millis);
        let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, spare, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        ready.extend(self.events.iter().map(|event| source(event.data.u64())));
        Ok(())
    }
}

/// Numbers that no worker has: slots end at 16 bits.
const LISTENER: u64 = u64::MAX;
const COMMANDS: u64 = u64::MAX - 1;
const QUERIES: u64 = u64::MAX - 2;
const PROOFS: u64 = u64::MAX - 3;

fn data(source: Source) -> EventData {
    EventData::new_u64(match source {
        Source::Listener => LISTENER,
        Source::Commands => COMMANDS,
        Source::Queries => QUERIES,
        Source::Proofs => PROOFS,
        Source::Worker(WorkerId { slot, generation }) => {
            u64::from(slot.0) << 32 | u64::from(generation.0)
        }
    })
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of what `data` put together")]
fn source(data: u64) -> Source {
    match data {
        LISTENER => Source::Listener,
        COMMANDS => Source::Commands,
        QUERIES => Source::Queries,
        PROOFS => Source::Proofs,
        worker => Source::Worker(WorkerId {
            slot: SlotId((worker >> 32) as u16),
            generation: Generation(worker as u32),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn sources_are_told_apart_and_can_be_ignored() {
        let (mut poller, mut ready) = (Poller::new().unwrap(), Vec::new());
        let worker = WorkerId { slot: SlotId(u16::MAX), generation: Generation(u32::MAX) };
        let sources = [
            Source::Listener,
            Source::Commands,
            Source::Queries,
            Source::Proofs,
            Source::Worker(worker),
        ];
        let pipes: Vec<_> = sources.iter().map(|_| io::pipe().unwrap()).collect();
        for (source, (reader, _)) in sources.iter().zip(&pipes) {
            poller.add(*source, reader.as_fd()).unwrap();
        }
        poller.wait(Some(Duration::ZERO), &mut ready).unwrap();
        assert_eq!(ready, []);
        for (source, (reader, writer)) in sources.iter().zip(&pipes) {
            rustix::io::write(writer, b"x").unwrap();
            poller.wait(None, &mut ready).unwrap();
            assert_eq!(std::mem::take(&mut ready), [*source]);
            poller.set_interest(*source, reader.as_fd(), false).unwrap();
            poller.wait(Some(Duration::ZERO), &mut ready).unwrap();
            assert_eq!(ready, []);
        }
        poller.set_interest(Source::Commands, pipes[1].0.as_fd(), true).unwrap();
        poller.wait(None, &mut ready).unwrap();
        assert_eq!(ready, [Source::Commands]);
    }
}
