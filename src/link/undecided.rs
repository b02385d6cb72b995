//! The link to a worker of which it isn't known yet what it speaks: it has both channels, and the one that it
//! writes to first stays.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::handover::descriptors::WorkerPart;
use crate::link::connection::PendingConnection;
use crate::link::dialect::Dialect;
use crate::link::error::ChannelError;
use crate::link::event::LinkEvent;
use crate::link::in_flight::InFlight;
use crate::link::interface::Interface;
use crate::link::native::PAGE;
use crate::link::{native, node};
use crate::protocol::drain::DrainOrder;

/// Both channels. Nothing is sent to either.
#[derive(Debug)]
pub struct Undecided {
    /// None once it is decided.
    channels: Option<(native::Channel, node::Channel)>,
    /// Readable when one of them is.
    readable: OwnedFd,
    nothing: InFlight,
}

impl Undecided {
    /// The two channels of a worker, which have the same scoreboard.
    ///
    /// # Errors
    ///
    /// If the kernel has no descriptor left.
    pub(super) fn new(native: native::Channel, node: node::Channel) -> std::io::Result<Self> {
        let readable = epoll::create(CreateFlags::CLOEXEC)?;
        for (number, socket) in [native.as_fd(), node.as_fd()].into_iter().enumerate() {
            epoll::add(&readable, socket, EventData::new_u64(number as u64), EventFlags::IN)?;
        }
        Ok(Self { channels: Some((native, node)), readable, nothing: InFlight::new(0) })
    }

    /// Their scoreboard, unless it is decided.
    pub(super) fn page(&self) -> Option<BorrowedFd<'_>> {
        self.channels.as_ref().map(|(native, _)| native.page())
    }

    /// For one of them to go on, or for a successor.
    pub(super) fn take(&mut self) -> Option<(native::Channel, node::Channel)> {
        self.channels.take()
    }

    /// The channel that the worker has written to, if it has.
    pub(super) fn spoken(&self) -> Option<Interface> {
        let (native, node) = self.channels.as_ref()?;
        if native.has_input() {
            return Some(Interface::Native);
        }
        node.has_input().then_some(Interface::Node)
    }
}

impl Dialect for Undecided {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }

    fn descriptors(&self) -> Vec<(WorkerPart, BorrowedFd<'_>)> {
        let Some((native, node)) = &self.channels else { return Vec::new() };
        let node = node.descriptors().into_iter().filter(|(part, _)| *part != PAGE);
        native.descriptors().into_iter().chain(node).collect()
    }

    fn in_flight(&self) -> &InFlight {
        &self.nothing
    }

    fn in_flight_mut(&mut self) -> &mut InFlight {
        &mut self.nothing
    }

    fn send(&mut self, _: &VecDeque<PendingConnection>, _: usize) -> Result<bool, ChannelError> {
        Ok(false)
    }

    /// [`Link::receive`](crate::link::Link::receive) decides before.
    fn receive(&mut self) -> Result<LinkEvent, ChannelError> {
        Ok(LinkEvent::Nothing)
    }

    fn complete(
        &mut self,
        _: impl FnMut(PendingConnection),
    ) -> Result<Option<usize>, ChannelError> {
        Ok(Some(0))
    }

    fn take_back(&mut self) -> Vec<PendingConnection> {
        Vec::new()
    }

    fn drain(&mut self, order: DrainOrder) {
        if let Some((native, _)) = &mut self.channels {
            native.drain(order);
        }
    }
}
