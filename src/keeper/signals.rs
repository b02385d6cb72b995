//! Signals to the keeper, read one after the other instead of being handled.
//!
//! They are blocked, and stay so in the primary until it has handlers for them: none can end it
//! while it starts.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::kernel;

/// What the primary gets.
const FORWARDED: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// What a signal means to the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The primary is to stop, which is said by this signal.
    Stop(rustix::process::Signal),
    /// The primary is to have it.
    Forward(rustix::process::Signal),
    /// Both are to stand still (Ctrl-Z).
    Pause,
    /// Both are to go on.
    Continue,
    /// A process has ended.
    Ended,
}

/// Signals that are waiting.
#[derive(Debug)]
pub(super) struct Signals {
    signals: SignalFd,
}

impl Signals {
    /// From now on they wait to be read.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn block() -> io::Result<Self> {
        let others = [Signal::SIGTSTP, Signal::SIGCONT, Signal::SIGCHLD];
        let signals: SigSet = FORWARDED.into_iter().chain(others).collect();
        signals.thread_block()?;
        // Where whoever started this process ignores it, the kernel takes every status itself.
        kernel::hear_of_children();
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { signals: SignalFd::with_flags(&signals, flags)? })
    }

    /// Does what a program does that has no handler for Ctrl-Z: stands still until it is to go on, if
    /// there is a shell that could say so.
    pub(super) fn stand_still(&self) {
        let pause: SigSet = [Signal::SIGTSTP].into_iter().collect();
        let _ = raise(Signal::SIGTSTP);
        let _ = pause.thread_unblock();
        let _ = pause.thread_block();
    }

    /// The next one, if there is one.
    pub(super) fn next(&self) -> Option<Meaning> {
        let number = self.signals.read_signal().ok()??.ssi_signo;
        let signal = Signal::try_from(i32::try_from(number).ok()?).ok()?;
        Some(match signal {
            Signal::SIGCHLD => Meaning::Ended,
            Signal::SIGTSTP => Meaning::Pause,
            Signal::SIGCONT => Meaning::Continue,
            signal => {
                let named = rustix::process::Signal::from_named_raw(signal as i32)?;
                match signal {
                    Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT => Meaning::Stop(named),
                    _ => Meaning::Forward(named),
                }
            }
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}
