//! Path and permissions of the control socket, for primary and commands.
//!
//! A socket without a listener is replaced; a socket with one is never removed.
//!
//! # Path
//!
//! `NAME-PORT.sock` in the runtime directory: `$STICKY_LB_RUNTIME_DIR`; else systemd's directory of
//! the unit (`$RUNTIME_DIRECTORY`); else `$XDG_RUNTIME_DIR/sticky-lb`, if that is the user's own; else
//! `/run/sticky-lb` for root and `/tmp/sticky-lb-UID` for others. A directory that the primary creates
//! has mode 0700; an existing one must belong to its user. If another user was first to take
//! `/tmp/sticky-lb-UID`, the directory is one of a random name beside it, which commands find, too. The
//! socket has mode 0600. If another primary still has the name, such as one that is stopping, the path
//! is `NAME-PORT-PID.sock` with the process that takes signals.
//!
//! # Trust
//!
//! Commands look into directories of their user and of root alone, and talk to primaries of these two.
//! For root, what is in `/run/sticky-lb` may also belong to the user to whom systemd has given it; and by `sudo`
//! also to the user who has called it. Other users' directories are only named ([`others`]).

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, Mode, access, fchmod};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use rustix::process::geteuid;

use crate::system::keeper::main_pid;

/// The variable with the runtime directory, for primary and commands.
pub const RUNTIME_DIRECTORY: &str = "STICKY_LB_RUNTIME_DIR";

/// The runtime directory of root, and of units of systemd.
const SYSTEM: &str = "/run/sticky-lb";

/// The longest path of a socket in bytes: `sun_path` in `unix(7)`.
const MAX_PATH_BYTES: usize = 107;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Matches no file: dropping removes nothing.
const NO_FILE: (u64, u64) = (0, 0);

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
    /// The path's directory is missing.
    #[error(
        "cannot open control socket {path:?}: directory {folder:?} does not exist: create it, or give \
         another --control"
    )]
    NoFolder {
        /// The path.
        path: PathBuf,
        /// The directory.
        folder: PathBuf,
    },
    /// This process may not write to the path's directory.
    #[error(
        "cannot open control socket {path:?}: this user may not write to directory {folder:?}: give \
         another --control"
    )]
    NotWritable {
        /// The path.
        path: PathBuf,
        /// The directory.
        folder: PathBuf,
    },
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

impl SocketError {
    fn new(path: PathBuf, source: io::Error) -> Self {
        let folder = folder_of(&path).to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NoFolder { path, folder },
            io::ErrorKind::PermissionDenied => Self::NotWritable { path, folder },
            _ => Self::Bind { path, source },
        }
    }
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
        let failed = |source| SocketError::new(path.clone(), source);
        check_free(&path)?;
        // Under a temporary name: it takes the place of a socket that is left.
        let fresh = temporary_path(&path);
        let _ = std::fs::remove_file(&fresh);
        let listener = private_listener(&fresh).map_err(failed)?;
        let placed = std::fs::rename(&fresh, &path).and_then(|()| identity(&path));
        match placed {
            Ok(identity) => Ok(Self { path, identity, listener }),
            Err(source) => {
                let _ = std::fs::remove_file(&fresh);
                Err(SocketError::new(path, source))
            }
        }
    }

    /// Whether its file is still there: others may remove it, with the directory.
    #[must_use]
    pub fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|found| found == self.identity)
    }

    /// Binds its path again, and makes the directory if that has gone, too.
    ///
    /// # Errors
    ///
    /// As [`Self::bind`].
    pub fn bind_again(&mut self) -> Result<(), SocketError> {
        if let Some(folder) = self.path.parent().filter(|folder| !folder.exists()) {
            create(folder.to_owned())?;
        }
        let bound = Self::bind_at(self.path.clone())?;
        // The new file may have the number of the old one, which is dropped now.
        self.identity = NO_FILE;
        *self = bound;
        Ok(())
    }

    /// Fails if [`Self::bind`] could not use this path, whatever listens there now: that may be the primary
    /// itself.
    ///
    /// # Errors
    ///
    /// As [`Self::bind`].
    pub fn check(path: &Path) -> Result<(), SocketError> {
        if path.as_os_str().len() > MAX_PATH_BYTES {
            return Err(SocketError::Long(path.to_owned()));
        }
        access(folder_of(path), Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|errno| SocketError::new(path.to_owned(), errno.into()))?;
        match check_free(path) {
            Err(SocketError::Taken(_)) => Ok(()),
            result => result,
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
        self.identity = NO_FILE;
        Some(copy.into())
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its path is one that [`Self::bind`] chooses for this name and port.
    #[must_use]
    pub fn is_named(&self, name: &str, port: u16) -> bool {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let rest = stem.strip_prefix(&format!("{}-{port}", file_name(name)));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
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

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or_else(|| Path::new("."))
}

/// The name under which this process binds a socket at first.
#[must_use]
pub fn temporary_path(path: &Path) -> PathBuf {
    path.with_extension(format!("{}.new", std::process::id()))
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

/// Whether a command may believe the user who serves the socket at `path`: root, the command's own user,
/// and for root the one to whom a directory in `/run/sticky-lb` belongs.
#[must_use]
pub fn is_trusted(path: &Path, uid: u32) -> bool {
    let own = geteuid();
    let given = || path.parent().is_some_and(|folder| is_given(folder, uid));
    uid == 0 || uid == own.as_raw() || (own.is_root() && given())
}

/// The user who has become root by `sudo` for this command.
fn caller() -> Option<u32> {
    let user = variable("SUDO_UID")?.to_str()?.parse().ok();
    user.filter(|user| geteuid().is_root() && *user != 0)
}

/// Whether root has given this directory to the user, or systemd for a unit; or whether it is the caller's.
fn is_given(folder: &Path, uid: u32) -> bool {
    let is_systems = folder == Path::new(SYSTEM) || folder.parent() == Some(Path::new(SYSTEM));
    (is_systems || caller() == Some(uid)) && owner(folder).is_ok_and(|owner| owner == Some(uid))
}

/// The user to whom a directory or a socket belongs.
#[must_use]
pub fn owner_of(path: &Path) -> Option<u32> {
    std::fs::symlink_metadata(path).ok().map(|found| found.uid())
}

/// Fails if others than the command's user and root may have put sockets into a directory.
///
/// # Errors
///
/// If it is there and belongs to others, or they may write to it.
pub fn check_folder(folder: &Path) -> Result<(), SocketError> {
    let is_allowed = match owner(folder) {
        Ok(Some(uid)) => {
            uid == 0 || uid == geteuid().as_raw() || (geteuid().is_root() && is_given(folder, uid))
        }
        Ok(None) => false,
        // Nothing is found there.
        Err(_) => true,
    };
    if is_allowed { Ok(()) } else { Err(SocketError::Stranger(folder.to_owned())) }
}

/// The user to whom a directory belongs; `None` if it is none, or others may write to it.
fn owner(folder: &Path) -> io::Result<Option<u32>> {
    let found = std::fs::symlink_metadata(folder)?;
    let is_private = found.is_dir() && found.mode() & 0o022 == 0;
    Ok(is_private.then_some(found.uid()))
}

fn is_own(folder: &Path) -> bool {
    owner(folder).is_ok_and(|owner| owner == Some(geteuid().as_raw()))
}

/// Directories where commands look for control sockets. A runtime directory in the environment is the
/// only one.
#[must_use]
pub fn directories() -> Vec<PathBuf> {
    if let Some(only) = runtime_directory() {
        return vec![only];
    }
    let mut found = vec![PathBuf::from(SYSTEM)];
    // Each unit has a directory of its own there.
    found.extend(entries(SYSTEM).filter(|path| path.is_dir()));
    found.extend(own_runtime_directory().map(|folder| folder.join("sticky-lb")));
    for user in [Some(geteuid().as_raw()), caller()].into_iter().flatten() {
        // Without the variable, as in cron.
        found.push(runtime_directory_of(user));
        found.push(temporary(user));
        found.extend(other_temporaries(user));
    }
    found.sort();
    found.dedup();
    found
}

/// Directories of other users, with their users, where a primary may run that this command doesn't ask. As
/// root, only those with a socket.
#[must_use]
pub fn others() -> Vec<(PathBuf, u32)> {
    if runtime_directory().is_some() {
        return Vec::new();
    }
    let is_root = geteuid().is_root();
    let known = directories();
    let temporary = entries("/tmp").filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sticky-lb-"))
    });
    let runtime = entries("/run/user").map(|folder| folder.join("sticky-lb"));
    let others = temporary.chain(runtime).filter(|folder| !known.contains(folder));
    let with_owner = others.filter_map(|folder| {
        let owner = owner(&folder).ok()??;
        let is_used = !is_root || entries_of(&folder).any(|path| is_socket_name(&path));
        is_used.then_some((folder, owner))
    });
    let mut found: Vec<_> = with_owner.collect();
    found.sort();
    found
}

/// Whether a file is named as a control socket.
#[must_use]
pub fn is_socket_name(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "sock")
}

fn runtime_directory_of(user: u32) -> PathBuf {
    format!("/run/user/{user}/sticky-lb").into()
}

/// The directory of this primary's socket, created if needed.
fn own_directory() -> Result<PathBuf, SocketError> {
    if let Some(given) = runtime_directory() {
        return create(given);
    }
    if let Some(folder) = own_runtime_directory() {
        return create(folder.join("sticky-lb"));
    }
    let user = geteuid();
    if user.is_root() {
        return create(SYSTEM.into());
    }
    match create(temporary(user.as_raw())) {
        Err(SocketError::Stranger(taken)) => {
            let folder = match other_temporaries(user.as_raw()).next() {
                Some(folder) => folder,
                None => create_random(&taken)?,
            };
            tracing::warn!(
                taken = %taken.display(), folder = %folder.display(),
                "another user has taken the runtime directory: another one is used"
            );
            Ok(folder)
        }
        created => created,
    }
}

fn create(folder: PathBuf) -> Result<PathBuf, SocketError> {
    let made = DirBuilder::new().mode(0o700).recursive(true).create(&folder);
    match made.and_then(|()| owner(&folder)) {
        Ok(Some(owner)) if owner == geteuid().as_raw() => Ok(folder),
        // A link, or a file.
        Ok(_) => Err(SocketError::Stranger(folder)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(SocketError::Stranger(folder))
        }
        Err(source) => Err(SocketError::Bind { path: folder, source }),
    }
}

/// A directory that nobody could take before.
fn create_random(taken: &Path) -> Result<PathBuf, SocketError> {
    let mut name = taken.as_os_str().to_owned();
    name.push(format!("-{:016x}", RandomState::new().build_hasher().finish()));
    let folder = PathBuf::from(name);
    match DirBuilder::new().mode(0o700).create(&folder) {
        Ok(()) => Ok(folder),
        Err(source) => Err(SocketError::Bind { path: folder, source }),
    }
}

/// Directories of this user beside its usual one in `/tmp`.
fn other_temporaries(user: u32) -> impl Iterator<Item = PathBuf> {
    let start = format!("sticky-lb-{user}-");
    let is_named = move |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start))
    };
    let is_theirs = move |path: &PathBuf| owner(path).is_ok_and(|owner| owner == Some(user));
    entries("/tmp").filter(is_named).filter(is_theirs)
}

/// `$XDG_RUNTIME_DIR`, unless it is another user's: `su` and `sudo` may leave it as it was.
fn own_runtime_directory() -> Option<PathBuf> {
    variable("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| is_own(folder))
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
    entries_of(Path::new(folder))
}

fn entries_of(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let found = std::fs::read_dir(folder).into_iter().flatten();
    found.filter_map(|entry| Some(entry.ok()?.path()))
}
