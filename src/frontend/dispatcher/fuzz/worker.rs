//! A worker's end of its channel, and what any worker can do with it.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::frontend::dispatcher::fuzz::descriptors::Sent;
use crate::link::Link;
use crate::protocol::ids::WorkerId;
use crate::protocol::message::MAX_TO_WORKER;
use crate::protocol::scm_rights::{self, Received};
use crate::protocol::scoreboard::Scoreboard;

/// The most descriptors that a message can have.
pub(super) const MAX_DESCRIPTORS: usize = 253;

/// A message that waits for room.
type Message = (Vec<u8>, Vec<OwnedFd>);

/// The end.
pub(super) struct End {
    pub(super) id: WorkerId,
    pub(super) channel: OwnedFd,
    pub(super) board: Scoreboard,
    waiting: VecDeque<Message>,
    sent: Sent,
}

impl End {
    /// A worker's end, and the primary's.
    pub(super) fn new(id: WorkerId, credits: usize, sent: &Sent) -> (Self, Link) {
        let (link, mut inherit) = Link::native(credits).unwrap();
        let board = Scoreboard::open(inherit.descriptor("scoreboard").unwrap()).unwrap();
        let channel = inherit.take("channel").unwrap();
        link.descriptors().into_iter().for_each(|(_, part)| sent.note(part));
        let (waiting, sent) = (VecDeque::new(), sent.clone());
        (Self { id, channel, board, waiting, sent }, link)
    }

    /// Sends a message, as soon as there is room.
    pub(super) fn say(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) {
        descriptors.iter().for_each(|descriptor| self.sent.note(descriptor));
        self.waiting.push_back((bytes.to_vec(), descriptors));
        self.send_waiting();
    }

    /// Sends what waits for room, as far as there is any.
    pub(super) fn send_waiting(&mut self) {
        while let Some((bytes, descriptors)) = self.waiting.front() {
            match send(&self.channel, bytes, descriptors) {
                // If nobody listens any more, it is said all the same.
                Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => drop(self.waiting.pop_front()),
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::TOOMANYREFS) => return,
                Err(error) => panic!("a message of {} bytes: {error}", bytes.len()),
            }
        }
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Reads a message: none if there is none now, or no more at all.
    pub(super) fn receive(&self) -> Result<Option<Message>, Closed> {
        let (mut bytes, mut descriptors) = (vec![0; MAX_TO_WORKER], Vec::new());
        match scm_rights::receive(&self.channel, &mut bytes, &mut descriptors).unwrap() {
            Received::Empty => Ok(None),
            Received::Closed => Err(Closed),
            Received::Message { length, cut, descriptors_lost } => {
                assert!(!cut && !descriptors_lost, "a message that doesn't fit");
                bytes.truncate(length);
                descriptors.iter().for_each(|descriptor| self.sent.note(descriptor));
                Ok(Some((bytes, descriptors)))
            }
        }
    }
}

/// Nothing more comes.
#[derive(Debug)]
pub(super) struct Closed;

/// As `scm_rights` does, but with as many descriptors as the kernel lets go.
fn send(channel: impl AsFd, bytes: &[u8], descriptors: &[OwnedFd]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(channel, &[IoSlice::new(bytes)], &mut control, flags).map(drop)
}
