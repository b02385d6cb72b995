//! The socket by which the primary sends messages to its keeper: datagrams, as to a service manager.
//!
//! Messages of other processes are ignored, and their descriptors closed.

use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use data_encoding::HEXLOWER;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use rustix::process::Pid;

/// The most descriptors that the kernel lets travel in one datagram.
const BATCH: usize = 253;

const CONTROL: usize = rustix::cmsg_space!(ScmRights(BATCH), ScmCredentials(1));

/// Bytes of a datagram; longer ones are ignored. systemd has the same limit.
const MAX_DATAGRAM: usize = 4096;

/// Receives the primary's messages.
#[derive(Debug)]
pub(super) struct Socket {
    socket: UnixDatagram,
    name: String,
}

/// A datagram.
#[derive(Debug)]
pub(super) struct Datagram {
    /// The sender.
    pub(super) sender: Option<Pid>,
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
    /// More descriptors were sent than could be taken.
    pub(super) descriptors_lost: bool,
}

impl Socket {
    /// With an abstract name that cannot be guessed.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub(super) fn bind() -> io::Result<Self> {
        let mut random = [0; 16];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
        let name = format!("sticky-lb-keeper-{}", HEXLOWER.encode(&random));
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        socket.set_nonblocking(true)?;
        set_socket_passcred(&socket, true)?;
        Ok(Self { socket, name: format!("@{name}") })
    }

    /// As `NOTIFY_SOCKET` names it.
    pub(super) fn name(&self) -> &str {
        &self.name
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
        let (mut sender, mut descriptors) = (None, Vec::new());
        for part in control.drain() {
            match part {
                RecvAncillaryMessage::ScmRights(rights) => descriptors.extend(rights),
                RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
                _ => {}
            }
        }
        let is_whole = !message.flags.contains(ReturnFlags::TRUNC);
        bytes.truncate(if is_whole { message.bytes } else { 0 });
        let descriptors_lost = message.flags.contains(ReturnFlags::CTRUNC);
        Ok(Some(Datagram { sender, bytes, descriptors, descriptors_lost }))
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
    use rustix::process::getpid;

    use super::*;

    fn sender(socket: &Socket) -> UnixDatagram {
        let sender = UnixDatagram::unbound().unwrap();
        let name = socket.name().strip_prefix('@').unwrap();
        sender.connect_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        sender
    }

    #[test]
    fn a_datagram_comes_with_its_sender_and_all_of_its_descriptors() {
        let socket = Socket::bind().unwrap();
        assert!(socket.receive().unwrap().is_none());
        let files: Vec<_> = (0..BATCH).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let mut space = vec![MaybeUninit::uninit(); CONTROL];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
        let bytes = [IoSlice::new(b"FDSTORE=1")];
        sendmsg(sender(&socket), &bytes, &mut control, SendFlags::empty()).unwrap();
        let datagram = socket.receive().unwrap().unwrap();
        assert_eq!((datagram.sender, &datagram.bytes[..]), (Some(getpid()), &b"FDSTORE=1"[..]));
        assert_eq!((datagram.descriptors.len(), datagram.descriptors_lost), (BATCH, false));
    }

    #[test]
    fn a_datagram_that_is_too_long_is_empty() {
        let socket = Socket::bind().unwrap();
        let sender = sender(&socket);
        sender.send(&[b'x'; MAX_DATAGRAM]).unwrap();
        sender.send(&[b'x'; MAX_DATAGRAM + 1]).unwrap();
        sender.send(b"").unwrap();
        let length = || socket.receive().unwrap().map(|datagram| datagram.bytes.len());
        assert_eq!(
            [length(), length(), length(), length()],
            [Some(MAX_DATAGRAM), Some(0), Some(0), None]
        );
    }

    #[test]
    fn names_are_not_guessed() {
        assert_ne!(Socket::bind().unwrap().name(), Socket::bind().unwrap().name());
    }
}
