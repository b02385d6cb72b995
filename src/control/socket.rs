//! Path and permissions of the control socket, for primary and commands.
//!
//! A socket without a listener is replaced; a socket with one is never removed.
//!
//! # Path
//!
//! `NAME-PORT.sock` in the runtime directory: `$STICKY_LB_RUNTIME_DIR`; else systemd's directory of
//! the unit (`$RUNTIME_DIRECTORY`); else `$XDG_RUNTIME_DIR/sticky-lb`; else `/run/sticky-lb` for
//! root and `/tmp/sticky-lb-UID` for others. A directory that the primary creates has mode 0700; an
//! existing one must belong to its user. The socket has mode 0600. If another primary still has the
//! name, such as one that is stopping, the path is `NAME-PORT-PID.sock` with the process that takes
//! signals.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use rustix::process::geteuid;

use crate::system::keeper::main_pid;

/// The variable with the runtime directory, for primary and commands.
pub const RUNTIME_DIRECTORY: &str = "STICKY_LB_RUNTIME_DIR";

/// The longest path of a socket in bytes: `sun_path` in `unix(7)`.
const MAX_PATH_BYTES: usize = 107;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A control socket that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Another primary listens on it.
    #[error("control socket {0:?} belongs to a running primary: give another --control")]
    Taken(PathBuf),
    /// The path is not a socket.
    #[error("{0:?} is not a socket: give another --control")]
    NoSocket(PathBuf),
    /// The path is too long.
    #[error("the control socket's path is longer than {MAX_PATH_BYTES} bytes: {0:?}")]
    Long(PathBuf),
    /// The directory belongs to another user.
    #[error(
        "directory {0:?} belongs to another user or is writable by others: choose another, for example by XDG_RUNTIME_DIR"
    )]
    Stranger(PathBuf),
    /// The kernel refuses the socket.
    #[error("cannot open control socket {path:?}")]
    Bind {
        /// The path.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

/// A bound control socket. Dropping it removes its file.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    /// Device and inode: the file of another primary is not removed.
    identity: (u64, u64),
    listener: UnixListener,
}

impl ControlSocket {
    /// Binds `path`, by default the usual path for this name and port.
    ///
    /// # Errors
    ///
    /// If `path` belongs to a running primary, or the kernel refuses it.
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
        if path.as_os_str().len() > MAX_PATH_BYTES {
            return Err(SocketError::Long(path));
        }
        let failed = |source| SocketError::Bind { path: path.clone(), source };
        check_free(&path)?;
        // Under a temporary name: it takes the place of a socket that is left.
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&fresh);
        let listener = private_listener(&fresh).map_err(failed)?;
        let placed = std::fs::rename(&fresh, &path).and_then(|()| identity(&path));
        match placed {
            Ok(identity) => Ok(Self { path, identity, listener }),
            Err(source) => {
                let _ = std::fs::remove_file(&fresh);
                Err(SocketError::Bind { path, source })
            }
        }
    }

    /// Adopts the socket of the previous primary; `None` if its file no longer exists.
    #[must_use]
    pub fn adopt(path: PathBuf, listener: OwnedFd) -> Option<Self> {
        let identity = identity(&path).ok()?;
        // `SO_PEERCRED` shows clients the process that called `listen` last (unix(7)): this one.
        listen(&listener, BACKLOG).ok()?;
        Some(Self { path, identity, listener: listener.into() })
    }

    /// Hands the socket over to a successor: the file stays. `None` without a free descriptor.
    #[must_use]
    pub fn hand_over(mut self) -> Option<OwnedFd> {
        let copy = self.listener.try_clone().ok()?;
        // Matches no file: dropping removes nothing.
        self.identity = (0, 0);
        Some(copy.into())
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A listener on it.
    ///
    /// # Errors
    ///
    /// If there is no free descriptor.
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

/// Whether the peer has access: root, or the user of this process.
///
/// # Errors
///
/// If the kernel doesn't tell the peer.
pub fn is_allowed(socket: impl std::os::fd::AsFd) -> io::Result<bool> {
    let peer = socket_peercred(socket)?.uid;
    Ok(peer.is_root() || peer == geteuid())
}

/// Directories of control sockets of this user's primaries; for root, of all users. A runtime
/// directory in the environment is the only one.
#[must_use]
pub fn directories() -> Vec<PathBuf> {
    if let Some(only) = runtime_directory() {
        return vec![only];
    }
    let mut found = vec![PathBuf::from("/run/sticky-lb")];
    // Each unit has a directory of its own there.
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

/// The directory of this primary's socket, created if needed.
fn own_directory() -> Result<PathBuf, SocketError> {
    let folder = runtime_directory()
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

/// The runtime directory in the environment.
fn runtime_directory() -> Option<PathBuf> {
    variable(RUNTIME_DIRECTORY).map(PathBuf::from).or_else(|| {
        let given = variable("RUNTIME_DIRECTORY")?;
        // systemd separates several by colons.
        given.to_str()?.split(':').next().map(PathBuf::from)
    })
}

/// Checks that the path is free or left by a primary that has ended.
fn check_free(path: &Path) -> Result<(), SocketError> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        // The new socket is renamed over it.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Any other error comes from a live listener: a full backlog, or another user's.
        _ => Err(SocketError::Taken(path.to_owned())),
    }
}

/// A listener of mode 0600. The mode is the socket's before its file exists: a file is not changed by
/// its name, which others could exchange.
fn private_listener(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// A name as part of a file name: without separators and control characters.
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
