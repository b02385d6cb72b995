//! One worker's process: start it with its channel, signal it, learn of its end.
//!
//! Never decides anything, and leaks no descriptor: a worker inherits standard streams and
//! what its link gives it, nothing else.
//!
//! # Pitfalls
//!
//! To be called on the primary's main thread: parent-death signals and exec in place depend on the
//! forking thread, which must not end.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpgid, kill_process_group,
    pidfd_open, pidfd_send_signal, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel;
use crate::link::inherit::{FIRST_LISTENING, Inherit, Numbered};
use crate::link::seam::WorkerId;
use crate::supervisor::command::{WorkerCommand, names_listener};
use crate::supervisor::environment;
use crate::supervisor::procfs;
use crate::supervisor::spawn_guard::SpawnGuard;
use crate::supervisor::start_error::{StartError, explain, prepare};

#[cfg(test)]
mod tests;

/// The read ends of a worker's standard output and standard error.
#[derive(Debug)]
pub struct Printed {
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// The variable with the slot's number.
const SLOT: &str = "STICKY_LB_SLOT";
/// The variable with the generation's number.
const GENERATION: &str = "STICKY_LB_GENERATION";

/// A worker's process.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    /// It is a child of the subreaper, which takes its status.
    is_subreapers: bool,
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

impl Exit {
    /// Its status, if it ended by itself.
    #[must_use]
    pub fn status(self) -> Option<i32> {
        match self {
            Self::Status(status) => Some(status),
            Self::Signal(_) => None,
        }
    }
}

impl AsFd for Process {
    /// Its pidfd.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Process {
    /// Starts `command` as `worker`, in a process group of its own, so that a Ctrl-C in the
    /// terminal reaches the primary alone. What it prints is to be read from what is returned.
    ///
    /// # Errors
    ///
    /// If there is no such program or the kernel refuses; see
    /// [`StartError`].
    pub fn start(
        command: &WorkerCommand,
        port: u16,
        worker: WorkerId,
        inherit: Inherit,
    ) -> io::Result<(Self, Printed)> {
        let (stdout, stdout_of_worker) = io::pipe()?;
        let (stderr, stderr_of_worker) = io::pipe()?;
        let Numbered { descriptors, mut variables, listening, pid_cell } = inherit.number();
        let last = descriptors.iter().map(|(_, number)| *number).max();
        let mappings = descriptors
            .into_iter()
            .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd })
            .collect();
        let alone = (listening > 0).then(|| alone(command)).flatten();
        // A program that is told the number in its command isn't told once more: gunicorn would take it twice.
        let by_environment =
            listening > 0 && !command.arguments.iter().any(|it| names_listener(it));
        if !by_environment {
            variables.retain(|(name, _)| !name.starts_with("LISTEN_"));
        }
        let given = variables.into_iter().chain(alone).chain(known_everywhere(port, worker));
        let mut prepared = Command::new(&command.program);
        prepared
            .args(command.arguments.iter().map(|text| with_numbers(text, listening)))
            .stdin(Stdio::from(nothing()?))
            .stdout(stdout_of_worker)
            .stderr(stderr_of_worker)
            .process_group(0)
            .env_clear()
            .envs(environment::assemble(command, std::env::vars_os(), given))
            .fd_mappings(mappings)
            .map_err(io::Error::other)?;
        kernel::before_exec(&mut prepared, prepare(command)?);
        if let Some(cell) = pid_cell {
            kernel::note_pid(&mut prepared, cell);
        }
        if by_environment {
            kernel::exec_with_pid(&mut prepared, "LISTEN_PID")?;
        }
        let numbers = last.map(occupy).transpose()?;
        let guard = SpawnGuard::start();
        let spawned = prepared.spawn();
        drop((guard, numbers));
        let mut child = spawned.map_err(|error| explain(command, error))?;
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(io::Error::from);
        match pidfd.and_then(|pidfd| kernel::watch(pidfd, Interest::READABLE)) {
            // The child is dropped and not waited for: that is done through the pidfd.
            Ok(pidfd) => {
                let printed = Printed { stdout: stdout.into(), stderr: stderr.into() };
                Ok((Self { pid, pidfd, is_subreapers: false }, printed))
            }
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Adopts a process that a predecessor of this one has started: a child of this process
    /// after an upgrade, one of the subreaper after a crash.
    ///
    /// # Errors
    ///
    /// If the descriptor cannot be watched.
    pub fn adopt(pid: i32, pidfd: OwnedFd) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let is_subreapers = waitid(WaitId::PidFd(pidfd.as_fd()), options).is_err();
        let pidfd = kernel::watch(pidfd, Interest::READABLE)?;
        Ok(Self { pid, pidfd, is_subreapers })
    }

    /// A copy of what it is known by.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        self.pidfd.get_ref().try_clone()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Its stop, if it is stopped, as by SIGSTOP; another number if it has run since.
    #[must_use]
    pub fn stop(&self) -> Option<u64> {
        procfs::stop_of(self.pid())
    }

    /// Sends a signal to it, even if it has left its group, and to what it has started. That it has ended is no
    /// error.
    pub fn signal(&self, signal: Signal) {
        let has_left = getpgid(Some(self.pid)).is_ok_and(|group| group != self.pid);
        if has_left || signal == Signal::KILL {
            self.signal_alone(signal);
        }
        // It is its group's leader and not waited for yet, so that the number is still its own. The
        // subreaper leaves its child a zombie as long as this process holds its pidfd.
        if !self.is_subreapers || procfs::pid_of(&self.pidfd) == Some(self.pid()) {
            let _ = kill_process_group(self.pid, signal);
        }
    }

    /// Sends a signal to it alone. That it has ended is no error.
    pub fn signal_alone(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Waits until it has ended. It stays a zombie, and its number its own, until
    /// [`Process::reap`].
    pub async fn ended(&self) {
        if self.pidfd.readable().await.is_err() {
            // The runtime is being shut down.
            std::future::pending::<()>().await;
        }
    }

    /// Takes the status of a process that has ended, and kills what it has left behind in its
    /// group. A child of the subreaper stays a zombie until that one takes its status.
    ///
    /// # Errors
    ///
    /// If it hasn't ended, or another process has taken its status.
    pub fn reap(&self) -> io::Result<Exit> {
        if self.is_subreapers {
            return self.inspect_zombie();
        }
        let process = || WaitId::PidFd(self.pidfd.as_fd());
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        if waitid(process(), options | WaitIdOptions::NOWAIT)?.is_none() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // From the moment its status is taken, its number and its group's may be reused.
        self.signal(Signal::KILL);
        let status = waitid(process(), options)?;
        status.as_ref().map(exit).ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn inspect_zombie(&self) -> io::Result<Exit> {
        let status = procfs::status_of_zombie(self.pid())?;
        // Now it is known that the number was its own.
        if procfs::pid_of(&self.pidfd) != Some(self.pid()) {
            return Err(Errno::CHILD.into());
        }
        self.signal(Signal::KILL);
        Ok(match status & 0x7f {
            0 => Exit::Status((status >> 8) & 0xff),
            signal => Exit::Signal(signal),
        })
    }
}

/// A standard input that has ended. Opened here, so that an error is not taken for the program's.
fn nothing() -> io::Result<File> {
    File::open("/dev/null").map_err(|source| {
        let what = "open /dev/null".to_owned();
        io::Error::new(source.kind(), StartError::Step { what, source })
    })
}

/// Descriptors in all numbers up to `last` that were free, until the worker is started. Else the pipe by which the
/// standard library learns of a failed start could have a number that the worker's descriptors get, and be closed by
/// them: then the start would seem to be well.
fn occupy(last: i32) -> io::Result<Vec<OwnedFd>> {
    let nothing = nothing()?;
    let mut held = Vec::new();
    loop {
        let next = fcntl_dupfd_cloexec(&nothing, FIRST_LISTENING)?;
        if next.as_raw_fd() > last {
            return Ok(held);
        }
        held.push(next);
    }
}

/// Words in a worker's arguments that stand for the numbers of its listening sockets.
const PLACEHOLDERS: [&str; 2] = ["{fd}", "{fd6}"];

/// An argument with the numbers of so many listening sockets in the places of their words.
fn with_numbers(argument: &OsStr, listening: usize) -> OsString {
    let mut text = argument.as_bytes().to_vec();
    for (number, word) in (FIRST_LISTENING..).zip(PLACEHOLDERS).take(listening) {
        text = replace(&text, word.as_bytes(), number.to_string().as_bytes());
    }
    OsString::from_vec(text)
}

fn replace(text: &[u8], word: &[u8], by: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, others)) = rest.split_first() {
        match rest.strip_prefix(word) {
            Some(behind) => {
                replaced.extend_from_slice(by);
                rest = behind;
            }
            None => {
                replaced.push(*first);
                rest = others;
            }
        }
    }
    replaced
}

/// Servers that take this variable for the number of their processes would share one slot's socket among several:
/// a worker is one, unless the command's own settings say otherwise.
fn alone(command: &WorkerCommand) -> Option<(&'static str, String)> {
    const VARIABLE: &str = "WEB_CONCURRENCY";
    let is_set = command.environment.iter().any(|(name, _)| name == VARIABLE);
    (!is_set).then(|| (VARIABLE, "1".to_owned()))
}

/// The variables that every worker gets, in whatever dialect: its slot and its generation, by which it is found after a
/// crash of the primary, too, and those that it may know from other process managers.
fn known_everywhere(port: u16, worker: WorkerId) -> [(&'static str, String); 4] {
    [
        (SLOT, worker.slot.to_string()),
        (GENERATION, worker.generation.to_string()),
        ("NODE_APP_INSTANCE", worker.slot.to_string()),
        ("PORT", port.to_string()),
    ]
}

fn exit(status: &WaitIdStatus) -> Exit {
    match status.terminating_signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Status(status.exit_status().unwrap_or(-1)),
    }
}
