//! One message with its descriptors over a Unix socket (`SCM_RIGHTS`), sent or received whole.
//!
//! Never waits, never allocates, and knows nothing of what a message means.
//!
//! # Pitfalls
//!
//! * A message of 0 bytes cannot be told from end of file: never send one.
//! * A receiver at its descriptor limit, or one with too little room, gets the message, fewer
//!   descriptors and `MSG_CTRUNC`; the kernel closes the others. The sender still has its own.
//! * `ETOOMANYREFS` means that too many descriptors of this user are in flight, not that this
//!   channel is broken: it counts as a full channel.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::protocol::message::BATCH;

/// Room for the descriptors of one message, as the kernel lays them out.
const CONTROL: usize = rustix::cmsg_space!(ScmRights(BATCH));

/// The most descriptors that the kernel lets travel in one message (`SCM_MAX_FD`).
const MAX_DESCRIPTORS: usize = 253;
const MAX_CONTROL: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));

/// The result of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is in the peer's queue.
    Queued,
    /// There is no room; nothing was sent.
    Full,
    /// The peer reads no more.
    Closed,
}

/// Sends one message with up to [`BATCH`] descriptors, without waiting.
///
/// # Errors
///
/// The kernel's, other than that there is no room or no reader.
pub fn send(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<Sent> {
    let mut space = [MaybeUninit::uninit(); CONTROL];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
        Ok(_) => Ok(Sent::Queued),
        Err(Errno::AGAIN | Errno::TOOMANYREFS | Errno::NOBUFS) => Ok(Sent::Full),
        Err(Errno::PIPE | Errno::CONNRESET) => Ok(Sent::Closed),
        Err(error) => Err(error),
    }
}

/// The result of receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message.
    Message {
        /// Its bytes in the buffer.
        length: usize,
        /// More bytes came than there was room for.
        cut: bool,
        /// More descriptors came than could be taken.
        descriptors_lost: bool,
    },
    /// There is none now.
    Empty,
    /// The peer sends no more.
    Closed,
}

/// Receives one message without waiting; its descriptors, at most [`BATCH`], go to `descriptors`,
/// close-on-exec, in the order in which they were sent.
///
/// # Errors
///
/// The kernel's.
pub fn receive(
    socket: impl AsFd,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> rustix::io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); CONTROL];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    receive_rights(socket, bytes, &mut control, |descriptor| descriptors.push(descriptor))
}

/// As [`receive`], and takes all descriptors that a message can have: those that it left to the kernel
/// would be closed within this call, which can wait.
///
/// # Errors
///
/// The kernel's.
pub fn receive_all(
    socket: impl AsFd,
    bytes: &mut [u8],
    take: impl FnMut(OwnedFd),
) -> rustix::io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); MAX_CONTROL];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    receive_rights(socket, bytes, &mut control, take)
}

fn receive_rights(
    socket: impl AsFd,
    bytes: &mut [u8],
    control: &mut RecvAncillaryBuffer<'_>,
    mut take: impl FnMut(OwnedFd),
) -> rustix::io::Result<Received> {
    let received = receive_into(socket, bytes, control)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            rights.for_each(&mut take);
        }
    }
    Ok(received)
}

/// Receives one message without waiting and takes none of its descriptors: the kernel closes them.
///
/// # Errors
///
/// The kernel's.
pub fn receive_without_descriptors(
    socket: impl AsFd,
    bytes: &mut [u8],
) -> rustix::io::Result<Received> {
    receive_into(socket, bytes, &mut RecvAncillaryBuffer::default())
}

fn receive_into(
    socket: impl AsFd,
    bytes: &mut [u8],
    control: &mut RecvAncillaryBuffer<'_>,
) -> rustix::io::Result<Received> {
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    match recvmsg(socket, &mut [IoSliceMut::new(bytes)], control, flags) {
        Ok(message) if message.bytes == 0 => Ok(Received::Closed),
        Ok(message) => Ok(Received::Message {
            length: message.bytes,
            cut: message.flags.contains(ReturnFlags::TRUNC),
            descriptors_lost: message.flags.contains(ReturnFlags::CTRUNC),
        }),
        Err(Errno::AGAIN) => Ok(Received::Empty),
        // The peer died with messages of ours unread.
        Err(Errno::CONNRESET) => Ok(Received::Closed),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_full_batch_of_descriptors_arrives_in_order() {
        let (near, far) = pair();
        let files: Vec<_> = (0..BATCH).map(|_| pair().0).collect();
        let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        assert_eq!(send(&near, b"hello", &borrowed), Ok(Sent::Queued));
        let (mut bytes, mut got) = ([0; 8], Vec::new());
        let received = receive(&far, &mut bytes, &mut got).unwrap();
        let whole = Received::Message { length: 5, cut: false, descriptors_lost: false };
        assert_eq!((received, &bytes[..5]), (whole, &b"hello"[..]));
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        assert_eq!(
            got.iter().map(inode).collect::<Vec<_>>(),
            files.iter().map(inode).collect::<Vec<_>>()
        );
    }

    #[test]
    fn unexpected_descriptors_are_closed_and_reported() {
        let (near, far) = pair();
        let (gift, other_end) = pair();
        send(&near, b"x", &[gift.as_fd()]).unwrap();
        drop(gift);
        let received = receive_without_descriptors(&far, &mut [0; 8]).unwrap();
        let lost = Received::Message { length: 1, cut: false, descriptors_lost: true };
        assert_eq!(received, lost);
        assert_eq!(receive_without_descriptors(&other_end, &mut [0; 8]), Ok(Received::Closed));
    }

    #[test]
    fn a_message_too_long_for_the_buffer_is_reported_as_cut() {
        let (near, far) = pair();
        send(&near, b"0123456789", &[]).unwrap();
        let cut = Received::Message { length: 4, cut: true, descriptors_lost: false };
        assert_eq!(receive_without_descriptors(&far, &mut [0; 4]), Ok(cut));
    }

    #[test]
    fn empty_full_and_closed_are_told_apart() {
        let (near, far) = pair();
        assert_eq!(receive_without_descriptors(&far, &mut [0; 4]), Ok(Received::Empty));
        let mut queued = 0;
        while send(&near, b"x", &[]) == Ok(Sent::Queued) {
            queued += 1;
            assert!(queued < 10_000, "the queue has no end");
        }
        assert_eq!(send(&near, b"x", &[]), Ok(Sent::Full));
        drop(near);
        for _ in 0..queued {
            assert_ne!(receive_without_descriptors(&far, &mut [0; 4]), Ok(Received::Closed));
        }
        assert_eq!(receive_without_descriptors(&far, &mut [0; 4]), Ok(Received::Closed));
        assert_eq!(send(&far, b"x", &[]), Ok(Sent::Closed));
    }
}
