//! Finds running primaries by their control sockets.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::process::geteuid;

use crate::control::client::{ClientError, Conversation, Deadline};
use crate::control::protocol::Request;
use crate::control::report::Status;
use crate::control::socket::{check_folder, directories, is_socket_name, others, owner_of};
use crate::protocol::ids::Timestamp;

/// Time for a primary's answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Time for the answers of all.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The primary that a command is for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The path of its control socket.
    pub control: Option<PathBuf>,
    /// Its name.
    pub name: Option<String>,
}

/// A running primary.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its control socket.
    pub path: PathBuf,
    /// Its status; `None` if it speaks another version, or doesn't answer in time.
    pub status: Option<Status>,
}

/// A primary that cannot be determined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// No primary runs.
    #[error(
        "no running primary found{}: looked in {}; --control names a socket elsewhere{}",
        of(name),
        list(folders),
        left_out(refused)
    )]
    None {
        /// Its name.
        name: Option<String>,
        /// Where it was looked for.
        folders: Vec<PathBuf>,
        /// Why it was not looked for elsewhere.
        refused: Vec<String>,
    },
    /// No primary was found, and there may be one that this user may not speak to.
    #[error("may not read {}: run as root or as its user{}", theirs(closed), left_out(refused))]
    Closed {
        /// Directories and sockets, with the users to whom they belong.
        closed: Vec<(PathBuf, u32)>,
        /// Why it was not looked for elsewhere.
        refused: Vec<String>,
    },
    /// Several primaries run.
    #[error("several primaries run: choose one by {}\n{}", choice(.0), table(.0))]
    Several(Vec<Found>),
}

/// Directories that were looked into.
#[derive(Debug, Default)]
struct Search {
    folders: Vec<PathBuf>,
    found: Vec<Found>,
    /// Directories and sockets that this user may not use, with theirs.
    closed: Vec<(PathBuf, u32)>,
    /// Why others were left out.
    refused: Vec<String>,
}

/// Finds the control socket of the primary that a command is for.
///
/// # Errors
///
/// If no primary or several primaries run.
pub fn find(wanted: &Wanted) -> Result<PathBuf, DiscoveryError> {
    if let Some(path) = &wanted.control {
        return Ok(path.clone());
    }
    let mut search = Search::default();
    let until = Timestamp::now() + SEARCH_TIMEOUT;
    directories().into_iter().for_each(|folder| search.look_into(folder, until));
    let Search { folders, mut found, mut closed, mut refused } = search;
    if let Some(name) = &wanted.name {
        found.retain(|it| it.is_called(name));
    }
    match found.len() {
        0 if geteuid().is_root() => {
            refused.extend(others().iter().map(|(folder, user)| {
                let folder = folder.display();
                format!(
                    "user {user} may run one, by {folder}: ask it as that user, with sudo -u '#{user}'"
                )
            }));
            Err(DiscoveryError::None { name: wanted.name.clone(), folders, refused })
        }
        0 => {
            closed.extend(others());
            if closed.is_empty() {
                return Err(DiscoveryError::None { name: wanted.name.clone(), folders, refused });
            }
            if !folders.is_empty() {
                refused.push(format!("no primary runs in {}", list(&folders)));
            }
            Err(DiscoveryError::Closed { closed, refused })
        }
        1 => Ok(found.remove(0).path),
        _ => Err(DiscoveryError::Several(found)),
    }
}

/// The control socket of the primary with this process, the keeper's where there is one, and its status. Looks
/// into the folder of a socket that it had, too.
#[must_use]
pub fn of_process(pid: u32, socket: &Path) -> Option<(PathBuf, Status)> {
    let until = Timestamp::now() + SEARCH_TIMEOUT;
    let mut search = Search::default();
    let folder = socket.parent().map(Path::to_owned);
    folder.into_iter().chain(directories()).for_each(|folder| search.look_into(folder, until));
    let mut found = search.found.into_iter();
    found.find_map(|it| Some((it.path, it.status.filter(|status| status.pid == pid)?)))
}

impl Search {
    /// Adds the primaries with a socket in this directory.
    fn look_into(&mut self, folder: PathBuf, until: Timestamp) {
        if let Err(error) = check_folder(&folder) {
            match owner_of(&folder).filter(|owner| may_not_enter(&folder, *owner)) {
                Some(owner) => self.closed.push((folder, owner)),
                None => self.refused.push(error.to_string()),
            }
            return;
        }
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let owner = owner_of(&folder).unwrap_or(0);
                return self.closed.push((folder, owner));
            }
            entries => entries.into_iter().flatten().flatten(),
        };
        let mut sockets: Vec<_> =
            entries.map(|entry| entry.path()).filter(|path| is_socket_name(path)).collect();
        sockets.sort();
        sockets.into_iter().for_each(|path| self.probe(path, until));
        self.folders.push(folder);
    }

    /// Asks the program that listens on a socket. It is passed over if nobody does, as it is left from a
    /// primary that was killed, or another user.
    fn probe(&mut self, path: PathBuf, until: Timestamp) {
        let deadline = Deadline::after(TIMEOUT.min(until.since(Timestamp::now())));
        let begun = Conversation::begin(&path, &Request::Status {}, deadline);
        match begun.and_then(|conversation| conversation.finish(|_| Ok::<_, ClientError>(()))) {
            Ok(status) => self.found.push(Found { path, status: Some(status) }),
            Err(ClientError::Denied(path)) => {
                let owner = owner_of(&path).unwrap_or(0);
                self.closed.push((path, owner));
            }
            Err(ClientError::Connect { .. } | ClientError::Stranger { .. }) => {}
            Err(_) => self.found.push(Found { path, status: None }),
        }
    }
}

/// Whether a directory is another user's, and closed to this one.
fn may_not_enter(folder: &Path, owner: u32) -> bool {
    let own = geteuid();
    !own.is_root() && owner != own.as_raw() && access(folder, Access::READ_OK).is_err()
}

impl Found {
    /// Whether it has this name. Without a status, its path tells.
    fn is_called(&self, name: &str) -> bool {
        match &self.status {
            Some(status) => status.name == name,
            None => {
                let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
                stem.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
            }
        }
    }
}

fn of(name: &Option<String>) -> String {
    name.as_ref().map(|name| format!(" of name {name:?}")).unwrap_or_default()
}

fn list(folders: &[PathBuf]) -> String {
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn left_out(refused: &[String]) -> String {
    refused.iter().map(|reason| format!("\n{reason}")).collect()
}

/// `/run/sticky-lb (user 0), /tmp/sticky-lb-7 (user 7)`.
fn theirs(closed: &[(PathBuf, u32)]) -> String {
    let named = closed.iter().map(|(path, user)| format!("{} (user {user})", path.display()));
    named.collect::<Vec<_>>().join(", ")
}

/// What tells the primaries apart.
fn choice(found: &[Found]) -> &'static str {
    let names: HashSet<_> =
        found.iter().filter_map(|it| it.status.as_ref().map(|it| &it.name)).collect();
    if names.len() == found.len() { "--name or --control" } else { "--control" }
}

fn table(found: &[Found]) -> String {
    let line = |found: &Found| {
        let who = found.status.as_ref().map_or_else(
            || "speaks another version, or does not answer".to_owned(),
            |it| {
                let (name, listening) = (it.name.escape_debug(), it.listening.join(" "));
                format!("{name}, pid {}, {}", it.pid, listening.escape_debug())
            },
        );
        format!("  --control {}  ({who})", found.path.display())
    };
    found.iter().map(line).collect::<Vec<_>>().join("\n")
}
