//! The socket of a worker's notifications: a datagram socket with a name that nobody can guess.
//!
//! It is a file, as a service manager's is, since Puma and others take an abstract name for one and fail; an abstract
//! name where no folder can be written to. Everybody may send: a message counts by its sender. The file is removed
//! with the socket; that of a worker that has ended while there was no primary is left until the next primary starts.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Once;

use data_encoding::HEXLOWER;
use rustix::fs::{Mode, chmod};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
};
use rustix::process::geteuid;

use crate::handover::descriptors::WorkerPart;

pub(super) const NOTIFY: WorkerPart = WorkerPart::Link("notify");

/// The descriptors of a link of this dialect, beside the scoreboard.
pub const PARTS: [WorkerPart; 1] = [NOTIFY];

/// The beginning of the name.
const PREFIX: &str = "sticky-lb-notify-";

/// Files that are looked at, at most.
const MAX_SWEPT: usize = 4096;

/// Everybody may send.
const MODE: u32 = 0o666;

/// The socket. Dropping it removes its file.
#[derive(Debug)]
pub(super) struct NotifySocket {
    socket: OwnedFd,
    file: SocketFile,
}

/// The file of a socket; none if its name is abstract. Dropping it removes it.
#[derive(Debug)]
struct SocketFile(Option<PathBuf>);

impl NotifySocket {
    /// A new one, and its name for `NOTIFY_SOCKET`.
    ///
    /// # Errors
    ///
    /// If the kernel has no memory or no descriptor left.
    pub(super) fn create() -> io::Result<(Self, String)> {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(|| folders().for_each(|folder| sweep(&folder)));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        sockopt::set_socket_passcred(&socket, true)?;
        let name = format!("{PREFIX}{}", random()?);
        for folder in folders() {
            let path = folder.join(&name);
            if let Some(text) = path.to_str()
                && let Ok(address) = SocketAddrUnix::new(&path)
                && bind(&socket, &address).is_ok()
            {
                let file = SocketFile(Some(path.clone()));
                chmod(&path, Mode::from_raw_mode(MODE))?;
                return Ok((Self { socket, file }, text.to_owned()));
            }
        }
        bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        Ok((Self { socket, file: SocketFile(None) }, format!("@{name}")))
    }

    /// The one of a primary before.
    pub(super) fn adopt(socket: OwnedFd) -> Self {
        let file = SocketFile(path_of(&socket));
        Self { socket, file }
    }

    /// For a successor: its file stays.
    pub(super) fn into_descriptor(self) -> OwnedFd {
        let Self { socket, mut file } = self;
        file.0 = None;
        socket
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Removes the files of primaries that were killed: nobody has their sockets open.
fn sweep(folder: &Path) {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_SWEPT);
    for file in
        files.filter(|file| file.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()))
    {
        let connected = UnixDatagram::unbound().and_then(|it| it.connect(file.path()));
        if connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            // Another one may have removed it.
            let _ = fs::remove_file(file.path());
        }
    }
}

fn path_of(socket: &OwnedFd) -> Option<PathBuf> {
    let address = SocketAddrUnix::try_from(getsockname(socket).ok()?).ok()?;
    let path = std::str::from_utf8(address.path_bytes()?).ok().map(PathBuf::from)?;
    path.is_absolute().then_some(path)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It may be gone already.
            let _ = fs::remove_file(path);
        }
    }
}

/// Where the file may be: a folder that the worker gets to, whatever user it becomes. Only root's workers become
/// another.
fn folders() -> impl Iterator<Item = PathBuf> {
    let own = match geteuid().is_root() {
        true => Some("/run".into()),
        false => env::var_os("XDG_RUNTIME_DIR"),
    };
    let own = own.map(PathBuf::from).filter(|folder| folder.is_absolute());
    own.into_iter().chain([env::temp_dir(), "/tmp".into()])
}

fn random() -> io::Result<String> {
    let mut random = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(HEXLOWER.encode(&random))
}
