//! The control socket's place, and who may come in: both ends agree on it here.
//!
//! A socket that nobody answers on is replaced; one that is answered on is never taken away.
//!
//! # Where it is
//!
//! `NAME-PORT.sock` in the runtime directory: `$STICKY_LB_RUNTIME_DIR`; else what systemd made for
//! the unit (`$RUNTIME_DIRECTORY`); else `$XDG_RUNTIME_DIR/sticky-lb`; else `/run/sticky-lb` for
//! root and `/tmp/sticky-lb-UID` for others. The folder is the user's alone (0700), unless it was
//! there before, and must not be somebody else's. The socket is 0600. Where another primary has that
//! name still, as one does that was told to stop and drains, it is `NAME-PORT-PID.sock`, with the
//! process that signals are to be sent to.

use std::ffi::OsString;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::listen;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

use crate::system::keeper::main_pid;

/// Names one runtime directory, for the primary and for whoever looks for it.
pub const RUNTIME_DIRECTORY: &str = "STICKY_LB_RUNTIME_DIR";

/// Bytes of a socket's path, by `sun_path` in `unix(7)`.
const LONGEST_PATH: usize = 107;

/// Commands that may wait to be let in.
const BACKLOG: i32 = 128;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Another primary answers there.
    #[error("control socket {0:?} belongs to a running primary: give another --control")]
    Taken(PathBuf),
    /// Something else is there.
    #[error("{0:?} is no socket and is left alone: give another --control")]
    NoSocket(PathBuf),
    /// The kernel takes no such path.
    #[error("path of control socket is longer than {LONGEST_PATH} bytes: {0:?}")]
    Long(PathBuf),
    /// The folder is not this user's.
    #[error("{0:?} belongs to another user, and could be used against this one")]
    Stranger(PathBuf),
    /// The kernel refuses it.
    #[error("cannot make control socket {path:?}")]
    Bind {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// A bound control socket. Its file goes when it does.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    /// Device and inode, so that the file of another is not taken away.
    identity: (u64, u64),
    listener: UnixListener,
}

impl ControlSocket {
    /// Binds `path`, or the usual place for this name and port.
    ///
    /// # Errors
    ///
    /// If `path` belongs to a running primary, or it cannot be made.
    pub fn bind(path: Option<&Path>, name: &str, port: u16) -> Result<Self, SocketError> {
        if let Some(path) = path {
            return Self::bind_at(path.to_owned());
        }
        let (folder, usual) = (own_directory()?, format!("{}-{port}", file_name(name)));
        match Self::bind_at(folder.join(format!("{usual}.sock"))) {
            Err(SocketError::Taken(_)) => {
                Self::bind_at(folder.join(format!("{usual}-{}.sock", main_pid())))
            }
            bound => bound,
        }
    }

    fn bind_at(path: PathBuf) -> Result<Self, SocketError> {
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(SocketError::Long(path));
        }
        let failed = |source| SocketError::Bind { path: path.clone(), source };
        make_room(&path)?;
        // In a file that nobody knows yet: nobody gets in before it is 0600.
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh).map_err(failed)?;
        let placed = std::fs::set_permissions(&fresh, Permissions::from_mode(0o600))
            .and_then(|()| listener.set_nonblocking(true))
            .and_then(|()| std::fs::rename(&fresh, &path))
            .and_then(|()| identity(&path));
        match placed {
            Ok(identity) => Ok(Self { path, identity, listener }),
            Err(source) => {
                let _ = std::fs::remove_file(&fresh);
                Err(SocketError::Bind { path, source })
            }
        }
    }

    /// One that a primary before this one has bound; nothing if its file is gone.
    #[must_use]
    pub fn adopt(path: PathBuf, listener: OwnedFd) -> Option<Self> {
        let identity = identity(&path).ok()?;
        // The kernel tells whoever comes which process has listened last (`SO_PEERCRED`, unix(7)):
        // that is to be this one, and not one that may be dead.
        listen(&listener, BACKLOG).ok()?;
        Some(Self { path, identity, listener: listener.into() })
    }

    /// Leaves it to a successor: the file stays. Nothing if the kernel has no descriptor left.
    #[must_use]
    pub fn hand_over(mut self) -> Option<OwnedFd> {
        let left = self.listener.try_clone().ok()?;
        // Nobody's file.
        self.identity = (0, 0);
        Some(left.into())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// To listen on.
    ///
    /// # Errors
    ///
    /// If the kernel has no descriptor left.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether the user at the other end may steer a primary of this user: the same, or root.
///
/// # Errors
///
/// What the kernel says.
pub fn is_allowed(socket: impl std::os::fd::AsFd) -> io::Result<bool> {
    let peer = socket_peercred(socket)?.uid;
    Ok(peer.is_root() || peer == geteuid())
}

/// Where sockets of this user's primaries may be; for root, of everybody's. Where a primary has been
/// given a folder, which a unit's commands are as well, in that one alone.
#[must_use]
pub fn directories() -> Vec<PathBuf> {
    if let Some(only) = given_directory() {
        return vec![only];
    }
    let mut found = vec![PathBuf::from("/run/sticky-lb")];
    // Each unit has one of its own there.
    found.extend(entries("/run/sticky-lb").filter(|path| path.is_dir()));
    found.extend(variable("XDG_RUNTIME_DIR").map(|folder| Path::new(&folder).join("sticky-lb")));
    found.push(temporary(geteuid().as_raw()));
    if geteuid().is_root() {
        found.extend(entries("/run/user").map(|user| user.join("sticky-lb")));
        let ours = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sticky-lb-"))
        };
        found.extend(entries("/tmp").filter(ours));
    }
    found.sort();
    found.dedup();
    found
}

/// Where this primary's own socket goes. Made if it isn't there.
fn own_directory() -> Result<PathBuf, SocketError> {
    let folder = given_directory()
        .or_else(|| Some(Path::new(&variable("XDG_RUNTIME_DIR")?).join("sticky-lb")))
        .unwrap_or_else(|| {
            let user = geteuid();
            if user.is_root() { "/run/sticky-lb".into() } else { temporary(user.as_raw()) }
        });
    let made = DirBuilder::new().mode(0o700).recursive(true).create(&folder);
    let failed = |source| SocketError::Bind { path: folder.clone(), source };
    made.map_err(failed)?;
    let found = std::fs::symlink_metadata(&folder).map_err(failed)?;
    let writable_by_others = found.mode() & 0o022 != 0;
    if found.uid() != geteuid().as_raw() || writable_by_others {
        return Err(SocketError::Stranger(folder));
    }
    Ok(folder)
}

/// What the environment says.
fn given_directory() -> Option<PathBuf> {
    variable(RUNTIME_DIRECTORY).map(PathBuf::from).or_else(|| {
        let given = variable("RUNTIME_DIRECTORY")?;
        // systemd names several by colons.
        given.to_str()?.split(':').next().map(PathBuf::from)
    })
}

/// Takes away what a primary has left that is gone.
fn make_room(path: &Path) -> Result<(), SocketError> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        // Renaming over it replaces it in one step.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Whoever doesn't answer for now lives: its backlog is full, or it isn't this user's.
        _ => Err(SocketError::Taken(path.to_owned())),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// A name as part of a file's: without what a path would be cut at.
fn file_name(name: &str) -> String {
    let safe = |c: char| if c == '/' || c == '\0' || c.is_control() { '_' } else { c };
    name.chars().map(safe).collect()
}

fn temporary(user: u32) -> PathBuf {
    format!("/tmp/sticky-lb-{user}").into()
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn entries(folder: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let found = std::fs::read_dir(folder).into_iter().flatten();
    found.filter_map(|entry| Some(entry.ok()?.path()))
}
