//! The process of a primary: signalled and waited for by its pidfd.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::protocol::ids::Timestamp;

/// The exit code of a Rust program that has panicked.
const PANIC: i32 = 101;

/// A primary that was started.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    started: Timestamp,
}

/// How a primary exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl Process {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        // The pidfd replaces this handle.
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { pid, pidfd, started: Timestamp::now() }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error.into())
            }
        }
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// The time since its start.
    pub(super) fn uptime(&self) -> Duration {
        Timestamp::now().since(self.started)
    }

    /// Sends it a signal. It is no error if it has exited.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// How it exited, if it has. To be asked once then.
    pub(super) fn exit(&self) -> Option<Exit> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), options).ok().flatten()?;
        Some(match status.terminating_signal() {
            Some(signal) => Exit::Signal(signal),
            None => Exit::Status(status.exit_status().unwrap_or(-1)),
        })
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Exit {
    /// Whether it crashed.
    pub(super) fn is_crash(self) -> bool {
        matches!(self, Self::Signal(_) | Self::Status(PANIC))
    }

    /// The exit code, as a shell has it.
    pub(super) fn code(self) -> u8 {
        let code = match self {
            Self::Status(status) => status,
            Self::Signal(signal) => 128 + signal,
        };
        u8::try_from(code).unwrap_or(1)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exited with status {status}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_and_a_panic_are_crashes() {
        for (exit, is_crash, code) in [
            (Exit::Status(0), false, 0),
            (Exit::Status(1), false, 1),
            (Exit::Status(2), false, 2),
            (Exit::Status(101), true, 101),
            (Exit::Signal(9), true, 137),
            (Exit::Signal(6), true, 134),
            (Exit::Status(-1), false, 1),
        ] {
            assert_eq!((exit.is_crash(), exit.code()), (is_crash, code), "{exit}");
        }
    }
}
