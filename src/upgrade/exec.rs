//! The last steps of this program and the first of its successor are one system call: `execve`.
//!
//! # Pitfalls
//!
//! * All other threads end with it, and nothing is dropped: buffers must be empty before. One that waits in the
//!   kernel where no signal wakes it would hold it up: then it is not done.
//! * A signal that comes between it and the successor's handlers would end the process. So signals are
//!   blocked before, stay so in the successor, and wait there until it has its handlers.
//! * `/proc/self/exe` would run this very program again, also after its file was replaced: the
//!   successor is run by its path.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::execve;
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use crate::closing::take_waiting;
use crate::handover::descriptors::{Descriptors, MORE_NAMES};
use crate::handover::{StateError, StateFile};
use crate::system::directory::{self, current_directory};
use crate::system::keeper;
use crate::system::tasks::waits_in_the_kernel;
use crate::upgrade::VARIABLE;

/// Signals that the primary handles.
const HANDLED: [Signal; 9] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGCHLD,
];

/// Variables with numbers of descriptors that were passed to this program, of which its successor has others;
/// and those that are set below.
const STALE: [&str; 5] =
    ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", VARIABLE, directory::VARIABLE];

/// A program to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Its path.
    pub program: PathBuf,
    /// Its arguments, its name first.
    pub arguments: Vec<OsString>,
}

/// The successor could not be run; everything is as it was, signals are still blocked.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: StateError,
    /// The state that was to be carried over.
    pub file: StateFile,
    /// The descriptors that were.
    pub descriptors: Descriptors,
}

/// Blocks signals, from now on and in the successor, until it has its handlers.
pub fn hold_signals() {
    // Only an invalid argument could make it fail.
    let _ = HANDLED.into_iter().collect::<SigSet>().thread_block();
}

/// Becomes the successor. To be called on the main thread, with signals held.
///
/// # Errors
///
/// If that cannot be, with everything that was given.
pub fn exec(
    successor: &Successor,
    mut file: StateFile,
    mut descriptors: Descriptors,
) -> Result<Infallible, Box<Refused>> {
    // Closing them may take its time: the successor has a thread for that, too.
    for (number, descriptor) in take_waiting().into_iter().enumerate() {
        descriptors.insert(format!("closing.{number}"), descriptor);
    }
    file.descriptors = descriptors
        .iter()
        .map(|(name, descriptor)| (name.to_owned(), descriptor.as_fd().as_raw_fd()))
        .collect();
    let Err(error) = attempt(successor, &file, &descriptors);
    for (_, descriptor) in descriptors.iter() {
        // It is open: nothing else could be wrong.
        let _ = set_inherited(descriptor, false);
    }
    if let Some(socket) = keeper::socket() {
        let _ = set_inherited(socket, false);
    }
    Err(Box::new(Refused { error, file, descriptors }))
}

fn attempt(
    successor: &Successor,
    file: &StateFile,
    descriptors: &Descriptors,
) -> Result<Infallible, StateError> {
    let memory = file.to_memory()?;
    let program = text(successor.program.as_os_str())?;
    let arguments: io::Result<Vec<_>> = successor.arguments.iter().map(|it| text(it)).collect();
    let environment = environment(memory.as_raw_fd())?;
    for (_, descriptor) in descriptors.iter() {
        set_inherited(descriptor, true)?;
    }
    if let Some(socket) = keeper::socket() {
        set_inherited(socket, true)?;
    }
    set_inherited(&memory, true)?;
    // It would wait for that thread, and all clients with it.
    if waits_in_the_kernel() {
        return Err(StateError::Busy);
    }
    Ok(execve(&program, &arguments?, &environment).map_err(io::Error::from)?)
}

fn set_inherited(descriptor: impl AsFd, inherited: bool) -> io::Result<()> {
    let mut flags = fcntl_getfd(&descriptor)?;
    flags.set(FdFlags::CLOEXEC, !inherited);
    Ok(fcntl_setfd(&descriptor, flags)?)
}

fn environment(memory: i32) -> io::Result<Vec<CString>> {
    let is_stale = |name: &OsStr| {
        STALE.iter().any(|stale| name == *stale)
            || name.as_bytes().starts_with(MORE_NAMES.as_bytes())
    };
    let kept = std::env::vars_os().filter(|(name, _)| !is_stale(name));
    let state = format!("{memory}:{}", std::process::id());
    let here = current_directory()?;
    let own = [(VARIABLE.into(), state.into()), (directory::VARIABLE.into(), here.into())];
    let all = kept.chain(own);
    all.map(|(name, value)| {
        let mut pair = name;
        pair.push("=");
        pair.push(value);
        text(&pair)
    })
    .collect()
}

fn text(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

impl Successor {
    /// The program at this path, with the arguments of this one.
    #[must_use]
    pub fn new(program: &Path) -> Self {
        Self { program: program.to_owned(), arguments: std::env::args_os().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::sample;

    #[test]
    fn a_program_that_is_not_there_leaves_everything_as_it_was() {
        let mut descriptors = Descriptors::default();
        descriptors.insert("null", std::fs::File::open("/dev/null").unwrap());
        let successor = Successor::new(Path::new("/nonexistent/sticky-lb"));
        let refused = exec(&successor, sample(), descriptors).unwrap_err();
        assert!(matches!(refused.error, StateError::Memory(_)), "{:?}", refused.error);
        let mut descriptors = refused.descriptors;
        let null = descriptors.take("null").unwrap();
        assert!(fcntl_getfd(&null).unwrap().contains(FdFlags::CLOEXEC));
    }
}
