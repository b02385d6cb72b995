//! Finds running primaries by their control sockets.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::control::client::{ClientError, Conversation, Deadline};
use crate::control::protocol::Request;
use crate::control::report::Status;
use crate::control::socket::{check_folder, directories};
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
    /// Several primaries run.
    #[error("several primaries run: choose one by --name or --control\n{}", table(.0))]
    Several(Vec<Found>),
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
    let (mut folders, mut refused) = (Vec::new(), Vec::new());
    for folder in directories() {
        match check_folder(&folder) {
            Ok(()) => folders.push(folder),
            Err(error) => refused.push(error.to_string()),
        }
    }
    let until = Timestamp::now() + SEARCH_TIMEOUT;
    let mut found: Vec<_> = folders.iter().flat_map(|folder| running(folder, until)).collect();
    if let Some(name) = &wanted.name {
        found.retain(|it| it.is_called(name));
    }
    match found.len() {
        0 => Err(DiscoveryError::None { name: wanted.name.clone(), folders, refused }),
        1 => Ok(found.remove(0).path),
        _ => Err(DiscoveryError::Several(found)),
    }
}

/// The control socket of the primary with this process, the keeper's where there is one, and its status. Looks
/// into the folder of a socket that it had, too.
#[must_use]
pub fn of_process(pid: u32, socket: &Path) -> Option<(PathBuf, Status)> {
    let until = Timestamp::now() + SEARCH_TIMEOUT;
    let folder = socket.parent().map(Path::to_owned);
    let folders = folder.into_iter().chain(directories());
    let folders = folders.filter(|folder| check_folder(folder).is_ok());
    let mut found = folders.flat_map(|folder| running(&folder, until));
    found.find_map(|it| Some((it.path, it.status.filter(|status| status.pid == pid)?)))
}

/// Primaries with a socket in this directory.
fn running(folder: &Path, until: Timestamp) -> Vec<Found> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sockets = entries.map(|entry| entry.path());
    let mut sockets: Vec<_> =
        sockets.filter(|path| path.extension().is_some_and(|it| it == "sock")).collect();
    sockets.sort();
    sockets.into_iter().filter_map(|path| probe(path, until)).collect()
}

/// `None` if nothing listens on the socket, which is left from a primary that was killed, or another
/// user does.
fn probe(path: PathBuf, until: Timestamp) -> Option<Found> {
    let deadline = Deadline::after(TIMEOUT.min(until.since(Timestamp::now())));
    let begun = Conversation::begin(&path, &Request::Status {}, deadline);
    match begun.and_then(|conversation| conversation.finish(|_| Ok::<_, ClientError>(()))) {
        Ok(status) => Some(Found { path, status: Some(status) }),
        Err(ClientError::Connect { .. } | ClientError::Stranger { .. }) => None,
        Err(_) => Some(Found { path, status: None }),
    }
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
