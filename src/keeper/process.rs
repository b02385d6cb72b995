//! The process of a primary: signalled and waited for, by its pidfd.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::protocol::ids::Timestamp;

/// What a program of Rust ends with when it has panicked.
const PANICKED: i32 = 101;

/// A primary that was started.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    started: Timestamp,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
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
    /// What the kernel says.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        // It is not waited for by its handle.
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

    /// Since its start.
    pub(super) fn age(&self) -> Duration {
        Timestamp::now().since(self.started)
    }

    /// Sends it a signal. That it has ended is no error.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// How it ended, if it has. To be asked once then.
    pub(super) fn end(&self) -> Option<End> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), options).ok().flatten()?;
        Some(match status.terminating_signal() {
            Some(signal) => End::Signal(signal),
            None => End::Status(status.exit_status().unwrap_or(-1)),
        })
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl End {
    /// It had no intention to end.
    pub(super) fn is_crash(self) -> bool {
        matches!(self, Self::Signal(_) | Self::Status(PANICKED))
    }

    /// As a shell says it.
    pub(super) fn code(self) -> u8 {
        let code = match self {
            Self::Status(status) => status,
            Self::Signal(signal) => 128 + signal,
        };
        u8::try_from(code).unwrap_or(1)
    }
}

impl fmt::Display for End {
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
    fn only_who_did_not_mean_to_end_has_crashed() {
        for (end, is_crash, code) in [
            (End::Status(0), false, 0),
            (End::Status(1), false, 1),
            (End::Status(2), false, 2),
            (End::Status(101), true, 101),
            (End::Signal(9), true, 137),
            (End::Signal(6), true, 134),
            (End::Status(-1), false, 1),
        ] {
            assert_eq!((end.is_crash(), end.code()), (is_crash, code), "{end}");
        }
    }
}
