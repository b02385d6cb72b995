//! TTOU of a primary that has a keeper, which isn't handled but read.
//!
//! Its group isn't the one that a terminal is for. Where `stty tostop` is set, the terminal answers
//! everything that such a process writes by this signal, and whoever handles it writes again and gets
//! it again, without end. Whoever blocks it may write. So every thread has it blocked.

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel;

/// Bytes of what is read of one signal.
const LENGTH: usize = size_of::<nix::sys::signalfd::siginfo>();

/// Reads TTOU.
#[derive(Debug)]
pub(super) struct BlockedSignal {
    signals: AsyncFd<OwnedFd>,
}

impl BlockedSignal {
    /// Reads it instead of handling it, in all threads that start from now on. It must be blocked in
    /// those that run already.
    pub(super) fn block() -> io::Result<Self> {
        let apart: SigSet = [Signal::SIGTTOU].into_iter().collect();
        apart.thread_set_mask()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&apart, flags)?;
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
