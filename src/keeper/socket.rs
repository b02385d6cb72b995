//! The socket by which the primary sends messages to its keeper: datagrams, as to a service manager.
//!
//! One end of a pair, whose other end the primary inherits. It has no address, so that no other process
//! can send.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

use crate::closing::Deferred;

/// The most descriptors that the kernel lets travel in one datagram.
const BATCH: usize = 253;

const CONTROL: usize = rustix::cmsg_space!(ScmRights(BATCH));

/// Bytes of a datagram; longer ones are ignored. systemd has the same limit.
const MAX_DATAGRAM: usize = 4096;

/// Receives the primary's messages.
#[derive(Debug)]
pub(super) struct Socket {
    socket: UnixDatagram,
}

/// A datagram.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<Deferred>,
    /// More descriptors were sent than could be taken.
    pub(super) descriptors_lost: bool,
}

impl Socket {
    /// A new pair: the keeper's end, and its primary's.
    ///
    /// # Errors
    ///
    /// If the kernel has no descriptor left.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (socket, primarys) = UnixDatagram::pair()?;
        Ok((Self { socket }, primarys.into()))
    }

    /// The next datagram, if there is one. One that is too long has no bytes.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub(super) fn receive(&self) -> io::Result<Option<Datagram>> {
        let mut bytes = vec![0; MAX_DATAGRAM];
        let mut space = [MaybeUninit::uninit(); CONTROL];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let message = match recvmsg(&self.socket, parts, &mut control, flags) {
            Ok(message) => message,
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut descriptors = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                descriptors.extend(rights.map(Deferred::from));
            }
        }
        let is_whole = !message.flags.contains(ReturnFlags::TRUNC);
        bytes.truncate(if is_whole { message.bytes } else { 0 });
        let descriptors_lost = message.flags.contains(ReturnFlags::CTRUNC);
        Ok(Some(Datagram { bytes, descriptors, descriptors_lost }))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    fn pair() -> (Socket, UnixDatagram) {
        let (socket, primarys) = Socket::pair().unwrap();
        (socket, primarys.into())
    }

    #[test]
    fn a_datagram_comes_with_all_of_its_descriptors() {
        let (socket, sender) = pair();
        assert!(socket.receive().unwrap().is_none());
        let files: Vec<_> = (0..BATCH).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let mut space = vec![MaybeUninit::uninit(); CONTROL];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
        let bytes = [IoSlice::new(b"FDSTORE=1")];
        sendmsg(&sender, &bytes, &mut control, SendFlags::empty()).unwrap();
        let datagram = socket.receive().unwrap().unwrap();
        assert_eq!(datagram.bytes, b"FDSTORE=1");
        assert_eq!((datagram.descriptors.len(), datagram.descriptors_lost), (BATCH, false));
    }

    #[test]
    fn a_datagram_that_is_too_long_is_empty() {
        let (socket, sender) = pair();
        sender.send(&[b'x'; MAX_DATAGRAM]).unwrap();
        sender.send(&[b'x'; MAX_DATAGRAM + 1]).unwrap();
        sender.send(b"").unwrap();
        let length = || socket.receive().unwrap().map(|datagram| datagram.bytes.len());
        assert_eq!(
            [length(), length(), length(), length()],
            [Some(MAX_DATAGRAM), Some(0), Some(0), None]
        );
    }
}
