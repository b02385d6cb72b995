//! Starts a primary: this program with the same arguments, and with all that was kept.
//!
//! # Pitfalls
//!
//! * While a program is started, the standard library hears of errors through a pipe, whose number
//!   must not be one that a descriptor is to have in the new process: an error would be written to
//!   whatever is there then. So no such number is left free.
//! * The new process is the leader of a group of its own: what a terminal or an operator sends to the
//!   whole group reaches the keeper alone, and the primary has it from there, once.

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
use crate::system::{keeper, program, store};

/// What this process runs itself, and the first primary, too.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// What concerns the keeper alone, or is said to the primary in another way.
const OWN: [&str; 6] =
    ["FDSTORE", "LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "WATCHDOG_PID"];

/// Starts primaries.
#[derive(Debug)]
pub(super) struct Launcher {
    words: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    has_watchdog: bool,
    /// The socket of the service manager.
    listener: Option<OwnedFd>,
}

impl Launcher {
    /// For primaries that speak to `socket`. `listener` is what the service manager has passed; it
    /// watches over the program if it `has_watchdog`.
    ///
    /// # Errors
    ///
    /// If it isn't known where this program is.
    pub(super) fn new(
        socket: &str,
        listener: Option<OwnedFd>,
        has_watchdog: bool,
    ) -> io::Result<Self> {
        let environment = vec![
            (keeper::VARIABLE, std::process::id().to_string().into()),
            (program::VARIABLE, program::path()?.into()),
            ("NOTIFY_SOCKET", socket.into()),
        ];
        Ok(Self { words: std::env::args_os().collect(), environment, has_watchdog, listener })
    }

    /// Starts one with copies of what is `kept`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn start<'a>(
        &'a self,
        kept: impl Iterator<Item = (&'a str, BorrowedFd<'a>)>,
    ) -> io::Result<Process> {
        let listener = self.listener.iter().map(|listener| (LISTENER, listener.as_fd()));
        let (names, descriptors): (Vec<_>, Vec<_>) = listener.chain(kept).unzip();
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
        let _taken = pass(&mut command, &descriptors)?;
        Process::spawn(command.process_group(0))
    }
}

/// The very program that ran before, whatever its file is by now.
fn program(names: &[&str]) -> PathBuf {
    let is_program = |name: &&str| name.strip_prefix(store::PREFIX) == Some(store::PROGRAM);
    let programs = (FIRST..).zip(names).filter(|(_, name)| is_program(name));
    match programs.last() {
        Some((number, _)) => format!("/proc/self/fd/{number}").into(),
        None => OWN_PROGRAM.into(),
    }
}

/// Lets the process have copies of the descriptors from number [`FIRST`] on. What is returned is to be
/// held until it is started: it takes the numbers that are free here.
fn pass(command: &mut Command, descriptors: &[BorrowedFd<'_>]) -> io::Result<Vec<File>> {
    let numbers: Vec<_> = (FIRST..).take(descriptors.len()).collect();
    let beyond = numbers.last().map_or(FIRST, |last| last + 1);
    let mut taken = Vec::new();
    while taken.last().is_none_or(|file: &File| file.as_raw_fd() < beyond) {
        taken.push(File::open("/dev/null")?);
    }
    let mappings = descriptors.iter().zip(numbers).map(|(descriptor, child_fd)| {
        Ok(FdMapping { parent_fd: fcntl_dupfd_cloexec(descriptor, beyond)?, child_fd })
    });
    let mappings = mappings.collect::<io::Result<Vec<_>>>()?;
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    Ok(taken)
}
