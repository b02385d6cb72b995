//! A connection of the group's own to its address, from a port that is known before it begins.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType, bind, connect, getsockname, recv,
    shutdown, socket_with,
};

use crate::frontend::steering::program::Family;
use crate::kernel::{self, TcpState};

/// One such connection. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    source: SocketAddr,
    target: SocketAddr,
}

impl Connection {
    /// To the group that listens at `address`; not begun.
    pub(super) fn to(address: SocketAddr, family: Family) -> io::Result<Self> {
        let mut target = address;
        if address.ip().is_unspecified() {
            target.set_ip(match family {
                Family::V6 => Ipv6Addr::LOCALHOST.into(),
                Family::V4 | Family::Dual => Ipv4Addr::LOCALHOST.into(),
            });
        }
        let kind = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(kind, SocketType::STREAM, flags, None)?;
        // From that address itself, which is this machine's.
        let mut source = target;
        source.set_port(0);
        bind(&socket, &source)?;
        let source = SocketAddr::try_from(getsockname(&socket)?)?;
        Ok(Self { socket, source, target })
    }

    /// Where it comes from.
    pub(super) fn source(&self) -> SocketAddr {
        self.source
    }

    /// Begins, without waiting.
    pub(super) fn connect(&self) -> io::Result<()> {
        match connect(&self.socket, &self.target) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Says that nothing follows.
    pub(super) fn end_request(&self) {
        // One that has been reset already needs no end.
        let _ = shutdown(&self.socket, Shutdown::Write);
    }

    /// Whether the other side has ended it, which takes a process that has accepted it.
    pub(super) fn has_ended(&self) -> bool {
        let read = recv(&self.socket, &mut [0; 64], RecvFlags::DONTWAIT | RecvFlags::PEEK);
        matches!(read, Ok((0, _)) | Err(Errno::CONNRESET))
    }

    /// Whether the kernel has answered. The other side may have ended it since.
    pub(super) fn is_established(&self) -> bool {
        let counters = kernel::tcp_counters(&self.socket);
        counters.is_ok_and(|counters| counters.state != TcpState::Ended)
    }

    /// The segment size that the listening socket has announced, or a little less; none until it is established.
    pub(super) fn segment_size(&self) -> Option<u32> {
        kernel::segment_size(&self.socket).ok().flatten()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
