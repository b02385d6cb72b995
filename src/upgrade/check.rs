//! Whether the new program would go on: it is asked in a process beside, before anything is given up.
//! After an `execve` that worked there is no way back.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::protocol::ids::Timestamp;
use crate::upgrade::document::{Document, EstateError};
use crate::upgrade::exec::Successor;

/// How long it may take to read configuration and state.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What it prints when it would go on, in a line of its own. A program that prints anything else, or
/// knows nothing of the question, is none to become.
pub const UNDERSTOOD: &str = "sticky-lb: state is understood";

/// The number of the memfd in the process that is asked.
const STATE: i32 = 3;

/// Why the running primary stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// It cannot be run.
    #[error("cannot run {program:?}")]
    Run {
        /// Which.
        program: std::path::PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It doesn't answer, in time or at all.
    #[error("{program:?} does not say that it would go on")]
    Silent {
        /// Which.
        program: std::path::PathBuf,
    },
    /// It says no.
    #[error("{program:?} refuses: {reason}")]
    Refused {
        /// Which.
        program: std::path::PathBuf,
        /// In its words.
        reason: String,
    },
    /// It cannot be asked.
    #[error(transparent)]
    Estate(#[from] EstateError),
}

/// A successor that was asked.
#[derive(Debug)]
pub struct Asked {
    program: std::path::PathBuf,
    process: Child,
    /// To end it by: its number may be somebody else's, once its status is taken.
    pidfd: OwnedFd,
}

/// Asks the successor whether it can read the configuration and such a document. To be called on the
/// thread that buries this process's children, so that it doesn't meanwhile: one that cannot run its program
/// is waited for here.
///
/// # Errors
///
/// If it can't be run.
pub fn ask(successor: &Successor, document: Document) -> Result<Asked, CheckError> {
    let memory = document.into_memory()?;
    let program = &successor.program;
    let run = |source| CheckError::Run { program: program.clone(), source };
    let mut command = Command::new(program);
    command
        .arg("check")
        .args(["--state", &STATE.to_string()])
        .args(successor.arguments.get(1..).unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .fd_mappings(vec![FdMapping { parent_fd: memory, child_fd: STATE }])
        .map_err(|error| run(io::Error::other(error)))?;
    let process = command.spawn().map_err(run)?;
    let pid = Pid::from_child(&process);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| run(error.into()))?;
    Ok(Asked { program: program.clone(), process, pidfd })
}

impl Asked {
    /// Waits for its answer: not to be called where something else waits.
    ///
    /// # Errors
    ///
    /// If it would not go on, with its reason.
    pub fn answer(self) -> Result<(), CheckError> {
        let Self { program, mut process, pidfd } = self;
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        let complaints = thread::spawn(move || stderr.map_or_else(Vec::new, |it| all(it.into())));
        let said = stdout.map_or_else(Vec::new, |it| all(it.into()));
        // Whoever buries this process's children may have taken its status: what it said counts.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        let _ = process.wait();
        let complaints = complaints.join().unwrap_or_default();
        if String::from_utf8_lossy(&said).lines().any(|line| line == UNDERSTOOD) {
            return Ok(());
        }
        let reason = String::from_utf8_lossy(&complaints).trim().replace("sticky-lb: ", "");
        Err(match reason.is_empty() {
            true => CheckError::Silent { program },
            false => CheckError::Refused { program, reason },
        })
    }
}

/// Everything that comes until the end, or until there is no more patience.
fn all(pipe: OwnedFd) -> Vec<u8> {
    let mut pipe = std::fs::File::from(pipe);
    let begun = Timestamp::now();
    let (mut found, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left = TIMEOUT.saturating_sub(Timestamp::now().since(begun));
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        let ready = poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&left));
        match ready.map_err(io::Error::from).and_then(|count| match count {
            0 => Ok(0),
            _ => pipe.read(&mut buffer),
        }) {
            Ok(0) | Err(_) => return found,
            Ok(count) if found.len() < 64 * 1024 => found.extend_from_slice(&buffer[..count]),
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(program: &str, script: &str) -> Result<(), CheckError> {
        let arguments = vec!["sticky-lb".into(), script.into()];
        super::ask(&Successor { program: program.into(), arguments }, Document::new())?.answer()
    }

    #[test]
    fn a_program_that_is_not_there_or_none_is_refused() {
        assert!(matches!(ask("/nonexistent/it", ""), Err(CheckError::Run { .. })));
        assert!(matches!(ask("/etc/passwd", ""), Err(CheckError::Run { .. })));
        assert!(matches!(ask("/bin/true", ""), Err(CheckError::Silent { .. })));
        assert!(matches!(ask("/bin/ls", "--nonsense"), Err(CheckError::Refused { .. })));
    }

    #[test]
    fn only_the_right_words_are_a_yes() {
        // `echo check --state 3 …` says something else.
        assert!(matches!(ask("/bin/echo", UNDERSTOOD), Err(CheckError::Silent { .. })));
    }
}
