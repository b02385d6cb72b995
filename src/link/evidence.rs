//! The kernel's facts about a socket that a dead worker has had, from which it is proven what the worker has
//! done with it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use crate::protocol::peer::is_of;
use crate::protocol::tcp_progress::{TcpProgress, is_untouched};

/// Facts about one socket.
#[derive(Debug)]
pub struct Evidence {
    /// Whether it is its client's; none if that is gone.
    pub is_of_client: Option<bool>,
    /// How far it has been used; nothing if its client is gone, an error if the kernel can't tell.
    pub progress: io::Result<Option<TcpProgress>>,
    /// Whether it is not a session's, and nothing was ever read from it and nothing written to it.
    pub is_unused: bool,
}

impl Evidence {
    /// Asks the kernel, which may wait for others who use the socket.
    #[must_use]
    pub fn of(socket: impl AsFd + Copy, client: SocketAddr, is_session: bool) -> Self {
        Self {
            is_of_client: is_of(socket, client),
            progress: TcpProgress::of(socket),
            is_unused: !is_session && is_untouched(socket).unwrap_or(false),
        }
    }

    /// Of a socket about which the kernel hasn't answered: proves nothing.
    #[must_use]
    pub fn none() -> Self {
        Self { is_of_client: None, progress: Err(io::ErrorKind::TimedOut.into()), is_unused: false }
    }
}
