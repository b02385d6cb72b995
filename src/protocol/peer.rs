//! Whose socket it is: the other end of a TCP connection.
//!
//! # Pitfalls
//!
//! The kernel answers under the socket's lock, which a process that sends from memory of its own making can hold
//! for as long as it likes (`findings/getpeername-waits-for-send.sh`). So the accept loop never asks.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use rustix::net::getpeername;

/// Whether a socket is that of a client of this address; none if its client is gone.
#[must_use]
pub fn is_of(socket: impl AsFd, client: SocketAddr) -> Option<bool> {
    let peer = getpeername(socket).ok().flatten()?;
    let peer = SocketAddr::try_from(peer).ok()?;
    Some((peer.ip().to_canonical(), peer.port()) == (client.ip().to_canonical(), client.port()))
}
