//! Why a worker could not be started, in words that say what to do about it.
//!
//! Starts nothing itself.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::process::{Gid, Uid, getegid, geteuid};

use crate::kernel::{Step, Surroundings, failed_step};
use crate::supervisor::command::{User, WorkerCommand};
use crate::supervisor::shell;

/// Why a worker could not be started, where the kernel's own word doesn't say it all. It stands
/// behind the worker's command and a colon.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The directory's name is no name.
    #[error("directory {0:?} has a zero byte in its name")]
    DirectoryName(PathBuf),
    /// The program is there, what it is to be run by isn't.
    #[error("the interpreter or loader that it names does not exist")]
    Interpreter,
    /// The program is nowhere.
    #[error("no such file in PATH")]
    NotInPath,
    /// Only a shell could run it.
    #[error("{reason}: {hint}")]
    Shell {
        /// What the kernel has found.
        reason: String,
        /// What to write.
        hint: String,
    },
    /// Only root may.
    #[error("cannot {0}: run as root")]
    NotRoot(String),
    /// A step before the program is run.
    #[error("cannot {what}")]
    Step {
        /// The step.
        what: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

/// The steps of the new process before it runs the program.
///
/// # Errors
///
/// If the directory cannot be one.
pub fn prepare(command: &WorkerCommand) -> io::Result<Surroundings> {
    let directory = match &command.directory {
        None => None,
        Some(path) => Some(CString::new(path.as_os_str().as_bytes()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, StartError::DirectoryName(path.clone()))
        })?),
    };
    let user = command.user.as_ref().filter(|user| !is_that_already(user)).map(|user| {
        let groups = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        (groups, Gid::from_raw(user.gid), Uid::from_raw(user.uid))
    });
    let WorkerCommand { umask, nice, drop_capabilities, no_new_privs, .. } = *command;
    Ok(Surroundings { umask, nice, drop_capabilities, no_new_privs, user, directory })
}

/// Then nothing is to be done that takes a privilege.
fn is_that_already(user: &User) -> bool {
    !geteuid().is_root() && user.uid == geteuid().as_raw() && user.gid == getegid().as_raw()
}

/// Whether a start has failed before the program was run, as [`explain`] says it.
#[must_use]
pub fn is_before_program(error: &io::Error) -> bool {
    let explained = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(explained, Some(StartError::NotRoot(_) | StartError::Step { .. }))
}

/// Says of a failed start what it was that failed.
#[must_use]
pub fn explain(command: &WorkerCommand, error: io::Error) -> io::Error {
    let Some((step, source)) = failed_step(&error) else { return explain_exec(command, error) };
    let what = match step {
        Step::Nice => format!("set niceness {}", command.nice.unwrap_or_default()),
        Step::User => format!("become user {}", name(command.user.as_ref())),
        Step::Capabilities => "drop capabilities (drop_capabilities)".to_owned(),
        Step::NoNewPrivs => "set no_new_privs".to_owned(),
        Step::Directory => {
            let directory = command.directory.clone().unwrap_or_default();
            format!("change to directory {}", directory.display())
        }
    };
    let kind = source.kind();
    let denied = kind == io::ErrorKind::PermissionDenied && step != Step::Directory;
    let explained =
        if denied { StartError::NotRoot(what) } else { StartError::Step { what, source } };
    io::Error::new(kind, explained)
}

fn explain_exec(command: &WorkerCommand, error: io::Error) -> io::Error {
    let explained = explain_missing(command, error);
    match shell::hint(command) {
        Some(hint) => {
            let reason = explained.to_string();
            io::Error::new(explained.kind(), StartError::Shell { reason, hint })
        }
        None => explained,
    }
}

fn explain_missing(command: &WorkerCommand, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::NotFound {
        return error;
    }
    if !command.program.as_bytes().contains(&b'/') {
        return io::Error::new(error.kind(), StartError::NotInPath);
    }
    let program = command.directory.clone().unwrap_or_default().join(&command.program);
    if program.exists() { io::Error::new(error.kind(), StartError::Interpreter) } else { error }
}

fn name(user: Option<&User>) -> String {
    let name = user.and_then(|user| user.name.clone());
    name.unwrap_or_else(|| user.map_or(0, |user| user.uid).to_string())
}
