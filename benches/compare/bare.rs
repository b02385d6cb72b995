//! The bare hand-off: the least that a front can do which gives descriptors
//! away. No acknowledgement, no batches, no supervision, blocking calls only.
//! It marks the limit that sticky-lb is measured against; nobody should run it.

use std::convert::Infallible;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::net::sockopt::set_tcp_nodelay;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrAny, SocketFlags, SocketType, acceptfrom_with,
    recvmsg, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixDatagram};
use tokio::sync::Notify;

use crate::{Result, app};

/// Accepts, picks, hands over, closes; until it is killed.
pub(crate) fn front(port: u16, workers: u16) -> Result<()> {
    let channels = (0..workers).map(|_| start_worker()).collect::<Result<Vec<_>>>()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    // For its connections; the other fronts have that, too.
    set_tcp_nodelay(&listener, true)?;
    loop {
        // Non-blocking for the worker's sake: that saves it a system call.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (connection, peer) = acceptfrom_with(&listener, flags)?;
        hand_over(&channels[pick(peer, channels.len())], &connection)?;
    }
}

fn start_worker() -> Result<OwnedFd> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // Nobody waits for it: it ends when its channel does.
    Command::new(std::env::current_exe()?).arg("bare-worker").stdin(Stdio::from(theirs)).spawn()?;
    Ok(ours)
}

/// One multiplication; the upper bits of the product are well mixed.
fn pick(peer: Option<SocketAddrAny>, workers: usize) -> usize {
    let address = peer
        .and_then(|peer| SocketAddrV4::try_from(peer).ok())
        .map_or(0, |peer| peer.ip().to_bits());
    (address.wrapping_mul(0x9E37_79B1) >> 16) as usize % workers
}

fn hand_over(channel: &OwnedFd, connection: &OwnedFd) -> io::Result<()> {
    let descriptors = [connection.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(channel, &[IoSlice::new(b"c")], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Serves what arrives on standard input, until the front is gone.
pub(crate) fn worker() -> Result<()> {
    app::runtime()?.block_on(async {
        let channel = net::UnixDatagram::from(io::stdin().as_fd().try_clone_to_owned()?);
        channel.set_nonblocking(true)?;
        let closed = Arc::new(Notify::new());
        let arrivals =
            Arrivals { channel: UnixDatagram::from_std(channel)?, closed: Arc::clone(&closed) };
        tokio::select! {
            served = axum::serve(arrivals, app::router()?) => served?,
            () = closed.notified() => {}
        }
        Ok(())
    })
}

/// The worker's end of the channel, as the listener of `axum::serve`, so that
/// connections are served exactly as a worker's that accepts them itself.
struct Arrivals {
    /// Of packets in truth, and not of datagrams; Tokio knows no type for that
    /// and only has to tell when there is something to read.
    channel: UnixDatagram,
    closed: Arc<Notify>,
}

impl Arrivals {
    async fn next(&self) -> io::Result<TcpStream> {
        let received = self.channel.async_io(Interest::READABLE, || receive(&self.channel)).await?;
        TcpStream::from_std(received.into())
    }
}

impl axum::serve::Listener for Arrivals {
    type Io = TcpStream;
    type Addr = ();

    async fn accept(&mut self) -> (TcpStream, ()) {
        match self.next().await {
            Ok(connection) => (connection, ()),
            // Without its channel the worker is of no use.
            Err(_) => {
                self.closed.notify_one();
                let never: Infallible = std::future::pending().await;
                match never {}
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

fn receive(channel: &UnixDatagram) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    recvmsg(channel, &mut [IoSliceMut::new(&mut [0])], &mut ancillary, flags)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(descriptor) = descriptors.next()
        {
            return Ok(descriptor);
        }
    }
    Err(io::Error::from(io::ErrorKind::UnexpectedEof))
}
