//! The way to the primary outside of the accept loop: sessions that migrate, and requests to close
//! clients.
//!
//! Waits while the channel is full. Messages are whole, so that the accept loop may use the channel, too.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel;
use crate::protocol::scm_rights::{self, Sent};

/// How long to wait for room until the next try.
const ROOM_TIMEOUT: Duration = Duration::from_millis(20);

/// A descriptor of the channel, to be sent on.
#[derive(Debug)]
pub(crate) struct SessionSender {
    channel: AsyncFd<OwnedFd>,
}

impl SessionSender {
    pub(crate) fn new(channel: OwnedFd) -> io::Result<Self> {
        Ok(Self { channel: kernel::watch(channel, Interest::WRITABLE)? })
    }

    /// Sends one message as soon as there is room.
    ///
    /// # Errors
    ///
    /// If the primary is gone, or the kernel fails.
    pub(crate) async fn send(
        &self,
        message: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        while !self.try_send(message, descriptors)? {
            self.room().await?;
        }
        Ok(())
    }

    /// Sends one message if there is room.
    ///
    /// # Errors
    ///
    /// As [`SessionSender::send`].
    pub(crate) fn try_send(
        &self,
        message: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<bool> {
        match scm_rights::send(self.channel.get_ref(), message, descriptors)? {
            Sent::Queued => Ok(true),
            Sent::Full => Ok(false),
            Sent::Closed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Waits until there may be room.
    pub(crate) async fn room(&self) -> io::Result<()> {
        self.channel.writable().await?.clear_ready();
        // Not for ever: descriptors of all processes may be too many, and nothing tells when they are
        // fewer.
        match tokio::time::timeout(ROOM_TIMEOUT, self.channel.writable()).await {
            Ok(ready) => ready.map(drop),
            Err(_) => Ok(()),
        }
    }
}
