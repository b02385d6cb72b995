//! Finds a primary again that was replaced while a command talked to it: by an upgrade, or after a crash.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{PidfdFlags, pidfd_open};

use crate::control::client::{ClientError, Conversation, Deadline};
use crate::control::discovery::of_process;
use crate::control::protocol::Request;
use crate::control::report::Status;
use crate::protocol::ids::Timestamp;
use crate::system::keeper::keeper_of;

/// How long a successor may take until it answers.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);
/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// A primary that may be replaced.
#[derive(Debug)]
pub(super) struct Replaceable {
    /// The process that takes signals, as the primary says.
    pid: u32,
    /// The process that ends last, if it is known here.
    last: Option<OwnedFd>,
}

impl Replaceable {
    /// The primary that says that this process takes its signals, and the process that ends last.
    pub(super) fn new(pid: u32, last: Option<OwnedFd>) -> Self {
        Self { pid, last }
    }

    /// Waits for the primary that follows, at the same control socket or at that of another name, and returns
    /// the socket. `None` if everything has ended.
    pub(super) fn successor(&self, path: &PathBuf) -> Option<PathBuf> {
        let begun = Timestamp::now();
        while Timestamp::now().since(begun) < TIMEOUT {
            if self.last.as_ref().is_some_and(has_ended) {
                return None;
            }
            if let Some((path, _)) = look(path, None, self.pid) {
                return Some(path);
            }
            sleep(LOOK);
        }
        None
    }
}

/// The primary with this process: at the socket where it was, at the one where it will be if that is known, or
/// at another one where primaries are looked for.
pub(super) fn look(path: &PathBuf, next: Option<&PathBuf>, pid: u32) -> Option<(PathBuf, Status)> {
    let known = std::iter::once(path).chain(next).find_map(|path| {
        let status = status(path).ok().filter(|status| status.pid == pid)?;
        Some((path.clone(), status))
    });
    known.or_else(|| of_process(pid, path))
}

fn status(path: &Path) -> Result<Status, ClientError> {
    let deadline = Deadline::after(ANSWER_TIMEOUT);
    Conversation::begin(path, &Request::Status {}, deadline)?.finish(|_| Ok(()))
}

/// The process of a primary, or of its keeper, that ends last.
pub(super) fn last_process(conversation: &Conversation) -> Option<OwnedFd> {
    let primary = socket_peercred(conversation).ok()?.pid;
    pidfd_open(keeper_of(primary).unwrap_or(primary), PidfdFlags::empty()).ok()
}

fn has_ended(process: &OwnedFd) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&at_once)) == Ok(1)
}
