//! Signals to the keeper, read one after the other.
//!
//! They are blocked, and stay so in the primary until it has handlers: none can end it while it starts.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::kernel;
use crate::system::terminal::{Hangup, Terminal};

/// Signals that the primary gets.
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

/// The action that a signal to the keeper stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignalAction {
    /// Stop, which the primary learns by this signal.
    Stop(rustix::process::Signal),
    /// Forward it to the primary.
    Forward(rustix::process::Signal),
    /// Pause both (Ctrl-Z).
    Pause,
    /// Continue both.
    Continue,
    /// Reap a child.
    Reap,
}

/// Blocked signals.
#[derive(Debug)]
pub(super) struct Signals {
    signals: SignalFd,
    terminal: Terminal,
}

impl Signals {
    /// From now on they wait to be read.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub(super) fn block() -> io::Result<Self> {
        let terminal = Terminal::find();
        let others = [Signal::SIGTSTP, Signal::SIGCONT, Signal::SIGCHLD];
        let signals: SigSet = FORWARDED.into_iter().chain(others).collect();
        signals.thread_block()?;
        // If this process was started with SIGCHLD ignored, the kernel would take every status itself.
        kernel::hear_of_children();
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { signals: SignalFd::with_flags(&signals, flags)?, terminal })
    }

    /// Stops this process as Ctrl-Z does without a handler, until SIGCONT, if there is a shell to send it.
    pub(super) fn pause(&self) {
        let pause: SigSet = [Signal::SIGTSTP].into_iter().collect();
        let _ = raise(Signal::SIGTSTP);
        let _ = pause.thread_unblock();
        let _ = pause.thread_block();
    }

    /// The next one, if there is one.
    pub(super) fn next(&self) -> Option<SignalAction> {
        loop {
            let action = self.read()?;
            if action != SignalAction::Forward(rustix::process::Signal::HUP) {
                return Some(action);
            }
            match self.terminal.hangup() {
                Hangup::Reload => return Some(action),
                Hangup::Stop => {
                    tracing::info!(
                        "terminal closed: stopping; nohup or setsid would keep it running"
                    );
                    return Some(SignalAction::Stop(rustix::process::Signal::TERM));
                }
                Hangup::Stay => tracing::info!("terminal closed"),
            }
        }
    }

    fn read(&self) -> Option<SignalAction> {
        let number = self.signals.read_signal().ok()??.ssi_signo;
        let signal = Signal::try_from(i32::try_from(number).ok()?).ok()?;
        Some(match signal {
            Signal::SIGCHLD => SignalAction::Reap,
            Signal::SIGTSTP => SignalAction::Pause,
            Signal::SIGCONT => SignalAction::Continue,
            signal => {
                let named = rustix::process::Signal::from_named_raw(signal as i32)?;
                match signal {
                    Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT => SignalAction::Stop(named),
                    _ => SignalAction::Forward(named),
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
