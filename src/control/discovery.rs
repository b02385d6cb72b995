//! Finds running primaries by their control sockets.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::control::client::{ClientError, Conversation};
use crate::control::protocol::Request;
use crate::control::report::Status;
use crate::control::socket::directories;

/// Time for a primary's answer.
const TIMEOUT: Duration = Duration::from_secs(2);

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
    #[error("no running primary found{}: looked in {}; --control names a socket elsewhere", of(.0), list(.1))]
    None(Option<String>, Vec<PathBuf>),
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
    let folders = directories();
    let mut found: Vec<_> = folders.iter().flat_map(|folder| running(folder)).collect();
    if let Some(name) = &wanted.name {
        found.retain(|it| it.is_called(name));
    }
    match found.len() {
        0 => Err(DiscoveryError::None(wanted.name.clone(), folders)),
        1 => Ok(found.remove(0).path),
        _ => Err(DiscoveryError::Several(found)),
    }
}

/// Primaries with a socket in this directory.
fn running(folder: &Path) -> Vec<Found> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sockets = entries.map(|entry| entry.path());
    let mut sockets: Vec<_> =
        sockets.filter(|path| path.extension().is_some_and(|it| it == "sock")).collect();
    sockets.sort();
    sockets.into_iter().filter_map(probe).collect()
}

/// `None` if nothing listens on the socket: it is left from a primary that was killed.
fn probe(path: PathBuf) -> Option<Found> {
    let begun = Conversation::begin(&path, &Request::Status {}, Some(TIMEOUT));
    match begun.and_then(|conversation| conversation.finish(|_| Ok::<_, ClientError>(()))) {
        Ok(status) => Some(Found { path, status: Some(status) }),
        Err(ClientError::Connect { .. }) => None,
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

fn table(found: &[Found]) -> String {
    let line = |found: &Found| {
        let who = found.status.as_ref().map_or_else(
            || "speaks another version, or does not answer".to_owned(),
            |it| format!("{}, pid {}, {}", it.name, it.pid, it.listening.join(" ")),
        );
        format!("  --control {}  ({who})", found.path.display())
    };
    found.iter().map(line).collect::<Vec<_>>().join("\n")
}
