//! The socket pair of a Node worker: lines, and descriptors that travel with them.
//!
//! Knows lines, and nothing of what they mean.
//!
//! # Pitfalls
//!
//! * The primary keeps the worker's end open too, to take back lines that a stalled or dead worker never
//!   received. So the channel doesn't end when the worker dies; the supervisor reports that.
//! * A line is looked at, acted on and then consumed: if the primary dies in between, its successor reads it
//!   again. The beginning of a line whose end has not come is consumed, or the poller would report it for ever.
//! * Node loses a descriptor whose line it reads in two pieces. It reads 64 KiB at a time, and a read ends after a
//!   descriptor: so a line with one is sent only when little else is unread before it.
//! * What waits to be sent is bounded: then the worker reads nothing, and what its program is to be told is dropped.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags,
    SocketType, recvmsg, sendmsg, socketpair,
};

use crate::closing::Deferred;
use crate::handover::descriptors::{Descriptors, RestoreError, WorkerPart};
use crate::link::error::ChannelError;
use crate::link::node::message::{Line, parse};
use crate::link::node::outgoing::Outgoing;
use crate::protocol::ids::{Timestamp, WorkerId};
use crate::protocol::scm_rights::{self, Received, Sent};

pub(super) const SOCKET: WorkerPart = WorkerPart::Link("node-channel");
pub(super) const WORKER_END: WorkerPart = WorkerPart::Link("node-worker-end");
pub(super) const MEMO: WorkerPart = WorkerPart::Link("node-memo");

/// The descriptors of a link of this dialect, beside the scoreboard.
pub const PARTS: [WorkerPart; 3] = [SOCKET, WORKER_END, MEMO];

/// Bytes that are looked at together.
const PIECE: usize = 64 * 1024;

/// Bytes that are taken back together: more than a socket holds by default.
const TAKEN_BACK: usize = 256 * 1024;

/// So much may be unread before a line with a descriptor.
const MAX_UNREAD: u64 = 16 * 1024;

/// Lines of Node's own kind of so many bytes don't fill that: they are few.
const FEW: usize = 1024;

/// So long no message is begun after a line with a descriptor had to wait, which is tried again sooner.
const TOLD_PAUSE: Duration = Duration::from_millis(50);

/// The limit of a line.
const MAX_LINE: usize = 32 << 20;

/// The descriptors of one channel, and its buffers.
#[derive(Debug)]
pub(super) struct Transport {
    socket: Deferred,
    worker_end: Deferred,
    /// Bytes that were looked at and not consumed, from `read` on.
    piece: Box<[u8]>,
    read: usize,
    looked_at: usize,
    /// The beginning of a line, consumed.
    begun: Vec<u8>,
    /// Whether that is the end of a line that another primary has begun to read.
    skips: bool,
    /// What waits for room.
    outgoing: Outgoing,
    /// Nothing is sent any more: the rest of a line is lost.
    is_mute: bool,
    /// Lines without a descriptor may be unread.
    has_unread: bool,
    /// When a line with a descriptor had to wait last: no further message to the program is begun for a while.
    wanted: Timestamp,
    /// Since when there is no room.
    full: Option<Timestamp>,
    /// When the worker was last seen to make room.
    moved: Timestamp,
}

impl Transport {
    /// A new pair, and the worker's own copy of its end.
    ///
    /// # Errors
    ///
    /// If the kernel has no memory or no descriptor left.
    pub(super) fn create() -> io::Result<(Self, OwnedFd)> {
        let kind = SocketType::STREAM;
        let (socket, far) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        let end = far.try_clone()?;
        Ok((Self::new(socket, far), end))
    }

    fn new(socket: OwnedFd, worker_end: OwnedFd) -> Self {
        Self {
            socket: socket.into(),
            worker_end: worker_end.into(),
            piece: vec![0; PIECE].into(),
            read: 0,
            looked_at: 0,
            begun: Vec::new(),
            skips: false,
            outgoing: Outgoing::default(),
            is_mute: false,
            has_unread: false,
            wanted: Timestamp(0),
            full: None,
            moved: Timestamp(0),
        }
    }

    /// From the descriptors of `worker`.
    pub(super) fn take_over(
        worker: WorkerId,
        descriptors: &mut Descriptors,
    ) -> Result<Self, RestoreError> {
        let mut take = |part: WorkerPart| descriptors.require(&part.name(worker));
        Ok(Self::new(take(SOCKET)?, take(WORKER_END)?))
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn worker_end(&self) -> BorrowedFd<'_> {
        self.worker_end.as_fd()
    }

    /// For a successor: the descriptors, the beginning of a line, and what waits.
    pub(super) fn into_parts(self) -> (OwnedFd, OwnedFd, Vec<u8>, Vec<u8>) {
        let outgoing = self.outgoing.into_bytes();
        (self.socket.into_inner(), self.worker_end.into_inner(), self.begun, outgoing)
    }

    /// As a primary before has left it.
    pub(super) fn restore(&mut self, begun: Vec<u8>, outgoing: Vec<u8>) {
        self.begun = begun;
        self.outgoing.push_front(outgoing);
    }

    /// The beginning of a line has gone with the primary that had read it: its end is skipped.
    pub(super) fn skip_line(&mut self) {
        self.skips = true;
    }

    /// The beginning of a line, as far as it has come.
    pub(super) fn begun(&self) -> &[u8] {
        &self.begun
    }

    /// Sends nothing any more.
    pub(super) fn mute(&mut self) {
        self.is_mute = true;
    }

    pub(super) fn is_mute(&self) -> bool {
        self.is_mute
    }

    /// The next line, if there is a whole one. It is looked at and not consumed.
    ///
    /// # Errors
    ///
    /// If the worker has closed its end, or the kernel failed.
    pub(super) fn next_line(&mut self) -> Result<Option<Line>, ChannelError> {
        if self.looked_at == 0 {
            self.look()?;
        }
        let found = &self.piece[self.read..self.looked_at];
        let Some(length) = found.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        self.read += length + 1;
        if std::mem::take(&mut self.skips) {
            return Ok(Some(Line::Other));
        }
        if self.begun.is_empty() {
            return Ok(Some(parse(&found[..length])));
        }
        let mut line = std::mem::take(&mut self.begun);
        line.extend_from_slice(&found[..length]);
        Ok(Some(parse(&line)))
    }

    /// Whether something was read and not consumed.
    pub(super) fn has_read(&self) -> bool {
        self.read > 0
    }

    /// Whether the beginning of a line is left after the last whole one.
    pub(super) fn has_beginning(&self) -> bool {
        self.read < self.looked_at
    }

    /// Keeps the beginning of a line, which is consumed with the rest.
    ///
    /// # Errors
    ///
    /// If the line is too long.
    pub(super) fn keep_beginning(&mut self) -> Result<(), ChannelError> {
        let found = &self.piece[self.read..self.looked_at];
        if self.begun.len() + found.len() > MAX_LINE {
            return Err(ChannelError::LongLine(MAX_LINE));
        }
        if !self.skips {
            self.begun.extend_from_slice(found);
        }
        self.read = self.looked_at;
        Ok(())
    }

    fn look(&mut self) -> Result<(), ChannelError> {
        let mut control = RecvAncillaryBuffer::default();
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK | RecvFlags::CMSG_CLOEXEC;
        let mut into = [IoSliceMut::new(&mut self.piece)];
        self.looked_at = match recvmsg(&self.socket, &mut into, &mut control, flags) {
            Ok(message) if message.bytes == 0 => return Err(ChannelError::Closed),
            Ok(message) => message.bytes,
            Err(Errno::AGAIN) => 0,
            Err(Errno::CONNRESET) => return Err(ChannelError::Closed),
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }

    /// Consumes what was read; the rest is looked at again. Descriptors that a worker sends are closed
    /// elsewhere, since that can wait.
    ///
    /// # Errors
    ///
    /// If the kernel failed.
    pub(super) fn consume(&mut self) -> Result<(), ChannelError> {
        let mut left = std::mem::take(&mut self.read);
        self.looked_at = 0;
        while left > 0 {
            let take = |descriptor: OwnedFd| drop(Deferred::from(descriptor));
            match scm_rights::receive_all(&self.socket, &mut self.piece[..left], take)? {
                Received::Message { length, .. } => left -= length,
                Received::Empty | Received::Closed => return Err(ChannelError::Closed),
            }
        }
        Ok(())
    }

    /// Sends a line with a descriptor; false if there is no room, or something waits that goes first.
    ///
    /// # Errors
    ///
    /// If the worker has closed its end or the kernel failed; nothing was sent.
    pub(super) fn send_with(
        &mut self,
        line: &[u8],
        descriptor: BorrowedFd<'_>,
    ) -> Result<bool, ChannelError> {
        self.send_own()?;
        if self.outgoing.goes_first() || self.has_unread && !self.is_nearly_read() {
            self.wanted = Timestamp::now();
            return Ok(false);
        }
        // A line this short is sent whole or not at all.
        match scm_rights::send(&self.socket, line, &[descriptor])? {
            Sent::Queued => Ok(true),
            Sent::Full => Ok(false),
            Sent::Closed => Err(ChannelError::Closed),
        }
    }

    /// Adds a line of Node's own kind to what is sent as soon as there is room; false if too much waits already.
    pub(super) fn push(&mut self, line: &[u8]) -> bool {
        self.is_mute || self.outgoing.push([line, b"\n"].concat().into())
    }

    /// Adds a message to the program, with its end, that is sent when nothing else is; false if too many wait
    /// already.
    pub(super) fn tell(&mut self, line: &Arc<[u8]>) -> bool {
        self.is_mute || self.outgoing.tell(line)
    }

    /// Adds bytes that go before everything else: what the worker had not received.
    pub(super) fn push_front(&mut self, bytes: Vec<u8>) {
        self.outgoing.push_front(bytes);
    }

    pub(super) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Since when the worker has not read: since the oldest line with a descriptor was sent, or since there is no
    /// room for what goes first; but one that makes room reads, however long that takes.
    pub(super) fn waits_since(&self, oldest: Option<Timestamp>) -> Option<Timestamp> {
        let full = self.full.filter(|_| self.outgoing.goes_first());
        let since = oldest.into_iter().chain(full).min()?;
        Some(since.max(self.moved))
    }

    /// Whether a part of a line may have gone whose rest waits.
    pub(super) fn has_begun(&self) -> bool {
        self.outgoing.has_begun()
    }

    /// Sends what waits, as far as there is room.
    ///
    /// # Errors
    ///
    /// If the worker has closed its end or the kernel failed.
    pub(super) fn send_outgoing(&mut self) -> Result<(), ChannelError> {
        self.send_own()?;
        let is_free = self.has_outgoing() && Timestamp::now().since(self.wanted) >= TOLD_PAUSE;
        while is_free && self.has_outgoing() && self.send_next()? {}
        Ok(())
    }

    /// Whether a line that is sent now is read in one piece.
    fn is_nearly_read(&mut self) -> bool {
        let unread = rustix::io::ioctl_fionread(&self.worker_end).unwrap_or(0);
        self.has_unread = unread > 0;
        unread <= MAX_UNREAD
    }

    /// Sends what goes before connections, as far as there is room.
    fn send_own(&mut self) -> Result<(), ChannelError> {
        while self.outgoing.goes_first() && self.send_next()? {}
        Ok(())
    }

    /// Sends some of what waits; false if there is no room.
    fn send_next(&mut self) -> Result<bool, ChannelError> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut control = SendAncillaryBuffer::default();
        let sent = sendmsg(&self.socket, &self.outgoing.next(), &mut control, flags);
        match sent {
            Ok(sent) => {
                if self.full.take().is_some() {
                    self.moved = Timestamp::now();
                }
                self.has_unread |= sent > FEW || !self.outgoing.has_own();
                self.outgoing.gone(sent);
            }
            Err(Errno::AGAIN | Errno::NOBUFS) => {
                self.full.get_or_insert_with(Timestamp::now);
                return Ok(false);
            }
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(ChannelError::Closed),
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// Takes back everything that the worker has not received; its descriptors are closed.
    pub(super) fn take_back(&self) -> Vec<u8> {
        // As much by each call as there is: between two calls the worker may read.
        let (mut unread, mut bytes) = (Vec::new(), vec![0; TAKEN_BACK]);
        let take = |descriptor: OwnedFd| drop(Deferred::from(descriptor));
        while let Ok(Received::Message { length, .. }) =
            scm_rights::receive_all(&self.worker_end, &mut bytes, take)
        {
            unread.extend_from_slice(&bytes[..length]);
        }
        unread
    }
}
