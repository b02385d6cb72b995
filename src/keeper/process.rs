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
use crate::system::tasks::end_of_main_thread;

/// How often to look whether its main thread has ended: the kernel tells of the end of the whole process only.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The exit code of a Rust program that has panicked.
const PANIC: i32 = 101;

/// A primary that was started.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    started: Timestamp,
    /// When it was seen first that its main thread has ended.
    ended: Option<Timestamp>,
}

/// Other threads of a process may take so long to end after its main thread.
const END_TIMEOUT: Duration = Duration::from_millis(200);

/// How a primary exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// It runs no more, though one of its threads waits in the kernel where no signal wakes it. Its main thread has
    /// ended so, in the form of waitpid(2); 0 may also mean that the kernel doesn't tell.
    Unfinished(i32),
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
            Ok(pidfd) => Ok(Self { pid, pidfd, started: Timestamp::now(), ended: None }),
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

    /// When to look whether it has exited, as nothing may tell: a primary is alone with its keeper then.
    pub(super) fn next_look(&self) -> Timestamp {
        let pause = if self.ended.is_some() { END_TIMEOUT } else { LOOK_INTERVAL };
        Timestamp::now() + pause
    }

    /// How it exited, if it has. To be asked once then.
    pub(super) fn exit(&mut self) -> Option<Exit> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), options).ok().flatten();
        let Some(status) = status else {
            let end = end_of_main_thread(self.pid)?;
            let now = Timestamp::now();
            let is_over = now.since(*self.ended.get_or_insert(now)) >= END_TIMEOUT;
            return is_over.then_some(Exit::Unfinished(end));
        };
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
        matches!(self, Self::Signal(_) | Self::Status(PANIC) | Self::Unfinished(_))
    }

    /// How it will have exited.
    pub(super) fn finished(self) -> Self {
        match self {
            Self::Unfinished(end) if end & 0x7f != 0 => Self::Signal(end & 0x7f),
            Self::Unfinished(end) => Self::Status(end >> 8),
            finished => finished,
        }
    }

    /// The exit code, as a shell has it.
    pub(super) fn code(self) -> u8 {
        let code = match self {
            Self::Status(status) => status,
            Self::Signal(signal) => 128 + signal,
            Self::Unfinished(_) => 1,
        };
        u8::try_from(code).unwrap_or(1)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exited with status {status}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
            Self::Unfinished(_) => {
                f.write_str("ended, but for a thread that waits for a socket or file of a worker")
            }
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
            (Exit::Unfinished(0), true, 1),
            (Exit::Unfinished(0).finished(), false, 0),
            (Exit::Unfinished(2 << 8).finished(), false, 2),
            (Exit::Unfinished(101 << 8).finished(), true, 101),
            (Exit::Unfinished(9).finished(), true, 137),
            (Exit::Unfinished(6 | 0x80).finished(), true, 134),
        ] {
            assert_eq!((exit.is_crash(), exit.code()), (is_crash, code), "{exit}");
        }
    }
}
