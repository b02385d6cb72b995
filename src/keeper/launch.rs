//! Starts a primary: this program with the same arguments, and with all stored descriptors.
//!
//! # Pitfalls
//!
//! * While a program is started, the standard library reads errors from a pipe, whose number must not be
//!   one that a descriptor gets in the new process: an error would be written to that descriptor. So no
//!   such number is left free.
//! * The new process is the leader of a group of its own: a signal of a terminal or an operator to the
//!   whole group reaches the keeper alone, which forwards it to the primary, once.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use command_fds::{CommandFdExt, FdMapping};
use rustix::io::fcntl_dupfd_cloexec;

use crate::handover::descriptors::LISTENER;
use crate::keeper::process::Process;
use crate::system::activation::{FIRST, variables};
use crate::system::{directory, keeper, program, store};

/// The program of this process, and of the first primary.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Variables for the keeper alone, and those that the primary gets with other values.
const OWN: [&str; 7] = [
    "FDSTORE",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
];

/// Starts primaries.
#[derive(Debug)]
pub(super) struct Launcher {
    words: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    has_watchdog: bool,
    /// The socket of the service manager.
    listener: Option<OwnedFd>,
    /// The descriptor of `--events-fd`.
    events: Option<OwnedFd>,
}

impl Launcher {
    /// `listener` is the service manager's; `has_watchdog` if it has a
    /// watchdog for the program; `events` is the descriptor of `--events-fd`.
    ///
    /// # Errors
    ///
    /// If the path of this program isn't known.
    pub(super) fn new(
        listener: Option<OwnedFd>,
        has_watchdog: bool,
        events: Option<OwnedFd>,
    ) -> io::Result<Self> {
        let environment = vec![
            (keeper::VARIABLE, std::process::id().to_string().into()),
            (program::VARIABLE, program::path()?.into()),
            (directory::VARIABLE, directory::current_directory()?.into()),
        ];
        let words = std::env::args_os().collect();
        Ok(Self { words, environment, has_watchdog, listener, events })
    }

    /// Starts one with copies of the `stored` descriptors, that sends to the keeper by `socket`.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub(super) fn start<'a>(
        &'a self,
        socket: BorrowedFd<'a>,
        stored: impl Iterator<Item = (&'a str, BorrowedFd<'a>)>,
    ) -> io::Result<Process> {
        let listener = self.listener.iter().map(|listener| (LISTENER, listener.as_fd()));
        let (names, descriptors): (Vec<_>, Vec<_>) = listener.chain(stored).unzip();
        let mut descriptors: Vec<BorrowedFd<'_>> = descriptors;
        let mut command = Command::new(program(&names));
        if let Some((own, others)) = self.words.split_first() {
            command.arg0(own).args(others);
        }
        OWN.iter().for_each(|name| _ = command.env_remove(name));
        if !self.has_watchdog {
            command.env_remove("WATCHDOG_USEC");
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if !names.is_empty() {
            command.envs(variables(&names));
        }
        let events = self.events.as_ref().map(|events| (keeper::EVENTS_VARIABLE, events.as_fd()));
        for (variable, descriptor) in [(keeper::SOCKET_VARIABLE, socket)].into_iter().chain(events)
        {
            let number = (FIRST..).nth(descriptors.len()).unwrap_or_default();
            command.env(variable, number.to_string());
            descriptors.push(descriptor);
        }
        let _reserved = pass(&mut command, &descriptors)?;
        Process::spawn(command.process_group(0))
    }
}

/// The program that ran before, even if its file has changed.
fn program(names: &[&str]) -> PathBuf {
    let is_program = |name: &&str| name.strip_prefix(store::PREFIX) == Some(store::PROGRAM);
    let programs = (FIRST..).zip(names).filter(|(_, name)| is_program(name));
    match programs.last() {
        Some((number, _)) => format!("/proc/self/fd/{number}").into(),
        None => OWN_PROGRAM.into(),
    }
}

/// Passes copies of the descriptors, from number [`FIRST`] on. The returned files take the numbers that are
/// free here, and must be held until the process is started.
fn pass(command: &mut Command, descriptors: &[BorrowedFd<'_>]) -> io::Result<Vec<File>> {
    let numbers: Vec<_> = (FIRST..).take(descriptors.len()).collect();
    let beyond = numbers.last().map_or(FIRST, |last| last + 1);
    let mut reserved = Vec::new();
    while reserved.last().is_none_or(|file: &File| file.as_raw_fd() < beyond) {
        reserved.push(File::open("/dev/null")?);
    }
    let mappings = descriptors.iter().zip(numbers).map(|(descriptor, child_fd)| {
        Ok(FdMapping { parent_fd: fcntl_dupfd_cloexec(descriptor, beyond)?, child_fd })
    });
    let mappings = mappings.collect::<io::Result<Vec<_>>>()?;
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    Ok(reserved)
}
