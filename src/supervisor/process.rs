//! One worker's process: start it with its channel, signal it, learn of its end.
//!
//! Never decides anything, and leaks no descriptor: a worker inherits standard streams, channel and
//! scoreboard, nothing else.
//!
//! # Pitfalls
//!
//! To be called on the primary's main thread: whatever follows a forking thread (parent-death
//! signals, exec in place) must not follow one that ends.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, pidfd_open,
    waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::handoff::channel::WorkerEnd;
use crate::handoff::kernel;
use crate::handoff::slots::WorkerId;
use crate::supervisor::command::WorkerCommand;

/// Numbers of the descriptors in the worker: the first free ones behind the standard streams.
const CHANNEL: i32 = 3;
const SCOREBOARD: i32 = 4;

/// The read ends of a worker's standard output and standard error.
#[derive(Debug)]
pub struct Printed {
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// A worker's process.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exited with status {status}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
        }
    }
}

impl Process {
    /// Starts `command` as `worker`, in a process group of its own, so that a Ctrl-C in the
    /// terminal reaches the primary alone. What it prints is to be read from what is returned.
    ///
    /// # Errors
    ///
    /// If there is no such program or the kernel refuses.
    pub fn start(
        command: &WorkerCommand,
        port: u16,
        worker: WorkerId,
        end: WorkerEnd,
    ) -> io::Result<(Self, Printed)> {
        let (stdout, stdout_of_worker) = io::pipe()?;
        let (stderr, stderr_of_worker) = io::pipe()?;
        let mappings = vec![
            FdMapping { parent_fd: end.channel, child_fd: CHANNEL },
            FdMapping { parent_fd: end.scoreboard, child_fd: SCOREBOARD },
        ];
        let mut prepared = Command::new(&command.program);
        prepared
            .args(&command.arguments)
            .stdin(Stdio::null())
            .stdout(stdout_of_worker)
            .stderr(stderr_of_worker)
            .process_group(0)
            .env("STICKY_LB_CHANNEL", CHANNEL.to_string())
            .env("STICKY_LB_SCOREBOARD", SCOREBOARD.to_string())
            .env("STICKY_LB_SLOT", worker.slot.to_string())
            .env("STICKY_LB_GENERATION", worker.generation.to_string())
            .env("NODE_APP_INSTANCE", worker.slot.to_string())
            .env("PORT", port.to_string())
            .fd_mappings(mappings)
            .map_err(io::Error::other)?;
        let mut child = prepared.spawn()?;
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(io::Error::from);
        match pidfd.and_then(|pidfd| kernel::watch(pidfd, Interest::READABLE)) {
            // The child is dropped and not waited for: that is done through the pidfd.
            Ok(pidfd) => {
                let printed = Printed { stdout: stdout.into(), stderr: stderr.into() };
                Ok((Self { pid, pidfd }, printed))
            }
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a signal to it and to what it has started. That it has ended is no error.
    pub fn signal(&self, signal: Signal) {
        // It is its group's leader and not waited for yet, so that the number is still its own.
        let _ = kill_process_group(self.pid, signal);
    }

    /// Waits until it has ended. It stays a zombie, and its number its own, until
    /// [`Process::reap`].
    pub async fn ended(&self) {
        if self.pidfd.readable().await.is_err() {
            // The runtime is being shut down.
            std::future::pending::<()>().await;
        }
    }

    /// Takes the status of a process that has ended.
    ///
    /// # Errors
    ///
    /// If it hasn't ended, or somebody else has taken its status.
    pub fn reap(&self) -> io::Result<Exit> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), options)?;
        status.as_ref().map(exit).ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }
}

fn exit(status: &WaitIdStatus) -> Exit {
    match status.terminating_signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Status(status.exit_status().unwrap_or(-1)),
    }
}
