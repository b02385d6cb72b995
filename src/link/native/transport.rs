//! The channel's descriptors: the socket pair, the scoreboard, and messages over them.
//!
//! Knows messages, and nothing of what they are about.
//!
//! # Pitfalls
//!
//! The primary keeps the worker's end open too, to take back messages that a stalled or dead worker never
//! received: what is read there is read exactly once, by the worker or by the primary. So the channel does not
//! end when the worker dies; the supervisor, which watches the process, reports that.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::ioctl_fionread;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use crate::closing::Deferred;
use crate::handover::descriptors::{Descriptors, RestoreError, WorkerPart};
use crate::link::connection::{Content, PendingConnection};
use crate::link::error::{ChannelError, was_queued};
use crate::link::inherit::Inherit;
use crate::protocol::ids::WorkerId;
use crate::protocol::message::{
    BATCH, MAX_TO_PRIMARY, MAX_TO_WORKER, encode_connections, encode_session,
};
use crate::protocol::scm_rights::{self, Received, Sent};
use crate::protocol::scoreboard::Scoreboard;

const SOCKET: WorkerPart = WorkerPart::Link("channel");
const WORKER_END: WorkerPart = WorkerPart::Link("worker-end");
/// Every worker has one.
pub const PAGE: WorkerPart = WorkerPart::Link("scoreboard");

/// The descriptors of a link of this dialect.
pub const PARTS: [WorkerPart; 3] = [SOCKET, WORKER_END, PAGE];

/// The descriptors of one channel, and a buffer for messages to the worker.
#[derive(Debug)]
pub(super) struct Transport {
    /// Closing an end closes the descriptors in the messages that nobody has received.
    socket: Deferred,
    worker_end: Deferred,
    scoreboard: Scoreboard,
    /// The memory of the scoreboard.
    page: OwnedFd,
    buffer: Box<[u8; MAX_TO_WORKER]>,
}

/// The variable that names the number of the channel.
const CHANNEL: &str = "STICKY_LB_CHANNEL";
/// The variable that names the number of the scoreboard.
const SCOREBOARD: &str = "STICKY_LB_SCOREBOARD";

/// The descriptors that came with a message.
#[derive(Debug, Default)]
pub(super) struct ReceivedFds {
    pub(super) descriptors: Vec<Deferred>,
    /// Not all of them arrived.
    pub(super) lost: bool,
}

impl ReceivedFds {
    /// Whether the message was sent without any.
    pub(super) fn is_none(&self) -> bool {
        self.descriptors.is_empty() && !self.lost
    }
}

impl Transport {
    pub(super) fn create() -> io::Result<(Self, Inherit)> {
        let kind = SocketType::SEQPACKET;
        let (socket, far) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        let (scoreboard, page) = Scoreboard::create()?;
        let mut inherit = Inherit::default();
        inherit.add("channel", CHANNEL, far.try_clone()?);
        inherit.add("scoreboard", SCOREBOARD, page.try_clone()?);
        Ok((Self::new(socket, far, scoreboard, page), inherit))
    }

    /// The memory of the scoreboard.
    pub(super) fn page(&self) -> BorrowedFd<'_> {
        self.page.as_fd()
    }

    /// From the descriptors of `worker`.
    pub(super) fn take_over(
        worker: WorkerId,
        descriptors: &mut Descriptors,
    ) -> Result<Self, RestoreError> {
        let mut take = |part: WorkerPart| descriptors.require(&part.name(worker));
        let (socket, worker_end, page) = (take(SOCKET)?, take(WORKER_END)?, take(PAGE)?);
        let unusable = |source| RestoreError::Unusable { name: PAGE.name(worker), source };
        let scoreboard = Scoreboard::adopt(&page).map_err(unusable)?;
        Ok(Self::new(socket, worker_end, scoreboard, page))
    }

    fn new(socket: OwnedFd, worker_end: OwnedFd, scoreboard: Scoreboard, page: OwnedFd) -> Self {
        let (socket, worker_end) = (socket.into(), worker_end.into());
        Self { socket, worker_end, scoreboard, page, buffer: Box::new([0; MAX_TO_WORKER]) }
    }

    pub(super) fn descriptors(&self) -> [(WorkerPart, BorrowedFd<'_>); 3] {
        [
            (SOCKET, self.socket.as_fd()),
            (WORKER_END, self.worker_end.as_fd()),
            (PAGE, self.page.as_fd()),
        ]
    }

    /// For a successor.
    pub(super) fn into_descriptors(self) -> [(WorkerPart, OwnedFd); 3] {
        let (socket, worker_end) = (self.socket.into_inner(), self.worker_end.into_inner());
        [(SOCKET, socket), (WORKER_END, worker_end), (PAGE, self.page)]
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn scoreboard(&self) -> &Scoreboard {
        &self.scoreboard
    }

    /// Sends a message without descriptors.
    pub(super) fn send(&self, message: &[u8]) -> Result<Sent, ChannelError> {
        Ok(scm_rights::send(&self.socket, message, &[])?)
    }

    /// Sends the first `count` clients of `queue`; false if there is no room.
    pub(super) fn send_connections(
        &mut self,
        queue: &VecDeque<PendingConnection>,
        count: usize,
    ) -> Result<bool, ChannelError> {
        let records = queue.iter().take(count).map(|one| &one.record);
        let message = encode_connections(&mut self.buffer, records);
        let mut descriptors = [self.socket.as_fd(); BATCH];
        for (place, connection) in descriptors.iter_mut().zip(queue) {
            *place = connection.socket.as_fd();
        }
        was_queued(scm_rights::send(&self.socket, message, &descriptors[..count])?)
    }

    /// Sends a session; false if there is no room.
    pub(super) fn send_session(
        &mut self,
        session: &PendingConnection,
        content: &Content,
    ) -> Result<bool, ChannelError> {
        let socket = session.socket.as_fd();
        was_queued(match content {
            Content::Inline(bytes) => {
                let message = encode_session(&mut self.buffer, &session.record, bytes);
                scm_rights::send(&self.socket, message, &[socket])?
            }
            Content::Memory(memory) => {
                let message = encode_session(&mut self.buffer, &session.record, &[]);
                scm_rights::send(&self.socket, message, &[socket, memory.as_fd()])?
            }
            // Without memory or a descriptor for it now, it is tried again.
            Content::Checkpoint(checkpoint, entry) => {
                match Content::from_checkpoint(checkpoint, entry) {
                    Ok(content) => return self.send_session(session, &content),
                    Err(_) => return Ok(false),
                }
            }
        })
    }

    /// Receives one message; none if there is none now.
    pub(super) fn receive<'a>(
        &self,
        bytes: &'a mut [u8; MAX_TO_PRIMARY],
    ) -> Result<Option<(&'a [u8], ReceivedFds)>, ChannelError> {
        let mut fds = ReceivedFds::default();
        let take = |descriptor: OwnedFd| fds.descriptors.push(descriptor.into());
        match scm_rights::receive_all(&self.socket, bytes, take)? {
            Received::Empty => Ok(None),
            Received::Closed => Err(ChannelError::Closed),
            Received::Message { cut: true, .. } => Err(ChannelError::Long),
            Received::Message { length, descriptors_lost, .. } => {
                fds.lost = descriptors_lost;
                Ok(Some((&bytes[..length], fds)))
            }
        }
    }

    /// Takes back one message that the worker has not received, with its descriptors or without.
    pub(super) fn take_back<'a>(
        &self,
        bytes: &'a mut [u8; MAX_TO_WORKER],
        with_descriptors: bool,
    ) -> Option<(&'a [u8], ReceivedFds)> {
        let mut fds = ReceivedFds::default();
        let received = if with_descriptors {
            let take = |descriptor: OwnedFd| fds.descriptors.push(descriptor.into());
            scm_rights::receive_all(&self.worker_end, bytes, take)
        } else {
            scm_rights::receive_without_descriptors(&self.worker_end, bytes)
        };
        match received {
            Ok(Received::Message { length, descriptors_lost, .. }) => {
                fds.lost = descriptors_lost;
                Some((&bytes[..length], fds))
            }
            _ => None,
        }
    }

    /// Whether the worker has received everything that was ever sent to it.
    pub(super) fn is_all_received(&self) -> bool {
        ioctl_fionread(&self.worker_end).is_ok_and(|unread| unread == 0)
    }

    /// Ends what goes to the worker: it receives the rest, then end of file.
    pub(super) fn end_sending(&self) {
        // Fails only if the worker has ended the channel already.
        let _ = shutdown(&self.socket, Shutdown::Write);
    }
}
