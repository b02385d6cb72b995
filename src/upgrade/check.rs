//! The check of the new program: whether it would go on, asked in a process of its own before anything is
//! given up. After an `execve` that worked there is no way back.
//!
//! It has a process group of its own, which ends with it: what it has started has no use for the state.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use crate::handover::{StateError, StateFile};
use crate::protocol::ids::Timestamp;
use crate::system::directory::{self, current_directory};
use crate::upgrade::exec::Successor;

/// The check may take so long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The line that the new program prints if it would go on. One that doesn't print it is refused.
pub const UNDERSTOOD: &str = "sticky-lb: state is understood";

/// The number of the memfd in the checking process.
const STATE: i32 = 3;

/// Why the running primary stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The new program cannot be run.
    #[error("cannot run {program:?}")]
    Run {
        /// Which.
        program: std::path::PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// It gives no answer, or none in time.
    #[error("{program:?} does not say that it would go on")]
    Silent {
        /// Which.
        program: std::path::PathBuf,
    },
    /// It refuses.
    #[error("{program:?} refuses: {reason}")]
    Refused {
        /// Which.
        program: std::path::PathBuf,
        /// Why, as it says.
        reason: String,
    },
    /// The state cannot be passed to it.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A check that runs.
#[derive(Debug)]
pub struct Check {
    program: std::path::PathBuf,
    process: Child,
    /// Kills it: its number may be another process's once its status is taken.
    pidfd: OwnedFd,
}

/// Starts to check whether the successor can read the configuration and such a state. To be called on the
/// thread that reaps this process's children, so that it doesn't meanwhile: a child that cannot run the
/// program is waited for here.
///
/// # Errors
///
/// If it can't be run.
pub fn start(successor: &Successor, state: &StateFile) -> Result<Check, CheckError> {
    let memory = state.to_memory()?;
    let program = &successor.program;
    let run = |source| CheckError::Run { program: program.clone(), source };
    let mut command = Command::new(program);
    command
        .arg("check")
        .args(["--state", &STATE.to_string()])
        .args(successor.arguments.get(1..).unwrap_or_default())
        .env(directory::VARIABLE, current_directory().map_err(run)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .fd_mappings(vec![FdMapping { parent_fd: memory, child_fd: STATE }])
        .map_err(|error| run(io::Error::other(error)))?;
    let process = command.spawn().map_err(run)?;
    let pid = Pid::from_child(&process);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| run(error.into()))?;
    Ok(Check { program: program.clone(), process, pidfd })
}

impl Check {
    /// Waits for the answer, and blocks the thread meanwhile.
    ///
    /// # Errors
    ///
    /// If it would not go on, with its reason.
    pub fn wait(self) -> Result<(), CheckError> {
        let Self { program, mut process, pidfd } = self;
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        let answer = thread::spawn(move || stdout.map_or_else(Vec::new, |it| all(it.into())));
        let complaints = thread::spawn(move || stderr.map_or_else(Vec::new, |it| all(it.into())));
        wait_for_end(&pidfd);
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        // At once: as long as one of the group is left, the number is the group's; and if none is, the
        // number has not come round again.
        let _ = kill_process_group(Pid::from_child(&process), Signal::KILL);
        // Its status may be taken by the thread that reaps children: its output counts.
        let _ = process.wait();
        let (answer, complaints) =
            (answer.join().unwrap_or_default(), complaints.join().unwrap_or_default());
        if String::from_utf8_lossy(&answer).lines().any(|line| line == UNDERSTOOD) {
            return Ok(());
        }
        let reason = String::from_utf8_lossy(&complaints).trim().replace("sticky-lb: ", "");
        Err(match reason.is_empty() {
            true => CheckError::Silent { program },
            false => CheckError::Refused { program, reason },
        })
    }
}

/// Waits until the process has ended, or until the timeout.
fn wait_for_end(pidfd: &OwnedFd) {
    let timeout = Timespec::try_from(TIMEOUT).ok();
    let wait = || poll(&mut [PollFd::new(pidfd, PollFlags::IN)], timeout.as_ref());
    // If the kernel refuses to wait, it is too early to ask for an answer.
    let _ = rustix::io::retry_on_intr(wait);
}

/// Everything that comes until the end, or until the timeout.
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
            // By a signal to the primary, which this thread may be the one to get.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return found,
            Ok(count) if found.len() < 64 * 1024 => found.extend_from_slice(&buffer[..count]),
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::sample;

    fn ask(program: &str, script: &str) -> Result<(), CheckError> {
        let arguments = vec!["sticky-lb".into(), script.into()];
        start(&Successor { program: program.into(), arguments }, &sample())?.wait()
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
