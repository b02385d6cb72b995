//! TTOU of a primary that has a keeper: blocked and read, not handled.
//!
//! Such a primary is not in the terminal's foreground process group. Where `stty tostop` is set, the
//! terminal answers each of its writes with this signal; a process that handles the signal writes again
//! and gets it again, without end, and a process that blocks it may write. So every thread blocks it.

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel;

/// Bytes that are read for one signal.
const LENGTH: usize = size_of::<nix::sys::signalfd::siginfo>();

/// Reads TTOU.
#[derive(Debug)]
pub(super) struct BlockedSignal {
    signals: AsyncFd<OwnedFd>,
}

impl BlockedSignal {
    /// Blocks it in this thread and in those that start from it. Others must have blocked it before.
    pub(super) fn block() -> io::Result<Self> {
        let blocked: SigSet = [Signal::SIGTTOU].into_iter().collect();
        blocked.thread_set_mask()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&blocked, flags)?;
        Ok(Self { signals: kernel::watch(signals.into(), Interest::READABLE)? })
    }

    /// Waits for the next one. May be dropped and called again.
    pub(super) async fn next(&self) {
        loop {
            let Ok(mut ready) = self.signals.readable().await else {
                // The runtime is being shut down.
                return std::future::pending().await;
            };
            let read = ready.try_io(|signals| {
                rustix::io::read(signals, &mut [0; LENGTH]).map_err(io::Error::from)
            });
            if let Ok(Ok(_)) = read {
                return;
            }
        }
    }
}
