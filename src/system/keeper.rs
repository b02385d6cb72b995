//! The keeper, as the primary sees it: the parent that starts it again after a crash, and that people
//! and service managers take for the program itself.
//!
//! Only finds it and waits for its exit. [`store`](super::store) and [`notify`](super::notify) send to it,
//! over a socket that it passes to its primary and to nobody else.

use std::env;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

use rustix::process::{Pid, PidfdFlags, getppid, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel;
use crate::system::datagrams::DatagramSender;

/// The variable that names the keeper to its primary: its process id.
pub const VARIABLE: &str = "STICKY_LB_KEEPER";

/// Number of the descriptor by which its primary sends to it.
pub const SOCKET_VARIABLE: &str = "STICKY_LB_KEEPER_SOCKET";

/// Number of the descriptor that the keeper passes to its primary for `--events-fd`.
pub const EVENTS_VARIABLE: &str = "STICKY_LB_EVENTS_FD";

/// The keeper of this process.
#[derive(Debug)]
pub struct Keeper {
    pid: Pid,
    process: AsyncFd<OwnedFd>,
}

impl Keeper {
    /// The keeper that has started this process, if one has. To be called in a runtime.
    ///
    /// # Errors
    ///
    /// If its exit cannot be waited for.
    pub fn from_environment() -> io::Result<Option<Self>> {
        let Some(pid) = parent() else { return Ok(None) };
        let process = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // It exited before: the number may be another process's.
        if parent() != Some(pid) {
            return Ok(None);
        }
        Ok(Some(Self { pid, process: kernel::watch(process, Interest::READABLE)? }))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        number(self.pid)
    }

    /// Waits until it has exited. May be dropped and called again.
    pub async fn gone(&self) {
        if self.process.readable().await.is_err() {
            // The runtime is being shut down.
            std::future::pending::<()>().await;
        }
    }
}

/// The way to the keeper.
#[derive(Debug)]
struct Way {
    socket: OwnedFd,
    sender: DatagramSender,
}

/// Takes over the socket that the keeper has passed to this process, if one has, with the first call. To
/// be called before inherited descriptors are marked close-on-exec.
fn way() -> Option<&'static Way> {
    static WAY: OnceLock<Option<Way>> = OnceLock::new();
    WAY.get_or_init(|| {
        let number = parent().and_then(|_| env::var(SOCKET_VARIABLE).ok()?.parse().ok())?;
        let open = || {
            let socket = kernel::adopt(number)?;
            let sender = DatagramSender::connected(UnixDatagram::from(socket.try_clone()?))?;
            Ok::<_, io::Error>(Way { socket, sender })
        };
        open()
            .inspect_err(|error| {
                tracing::error!(%error, number, "cannot send to the keeper: a crash loses everything");
            })
            .ok()
    })
    .as_ref()
}

/// Messages to the keeper, if this process has one.
pub(super) fn sender() -> Option<DatagramSender> {
    way().map(|way| way.sender.clone())
}

/// Takes over what the keeper has passed to this process.
pub fn attach() {
    way();
}

/// The socket to the keeper, for the program that this one is about to become. Its number stays.
#[must_use]
pub fn socket() -> Option<BorrowedFd<'static>> {
    way().map(|way| way.socket.as_fd())
}

/// Whether this process was started by a keeper that still runs.
#[must_use]
pub fn is_kept() -> bool {
    parent().is_some()
}

/// The descriptor that the keeper of this process has passed for `--events-fd`.
#[must_use]
pub fn passed_events() -> Option<i32> {
    parent().and_then(|_| env::var(EVENTS_VARIABLE).ok()?.parse().ok())
}

/// The process that gets the program's signals and stands for it: the keeper if there is one, else this
/// process.
#[must_use]
pub fn main_pid() -> u32 {
    parent().map_or_else(std::process::id, number)
}

/// The keeper of another process, if it has one and this one may know.
#[must_use]
pub fn keeper_of(primary: Pid) -> Option<Pid> {
    let environment = fs::read(format!("/proc/{primary}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    // The primary may be in a container, where its keeper has another number.
    variables.find(|variable| {
        variable.strip_prefix(VARIABLE.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
    })?;
    let status = fs::read_to_string(format!("/proc/{primary}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok().and_then(Pid::from_raw)
}

/// The keeper, if the environment names the parent. Other processes than the primary inherit the variable,
/// too: those have another parent.
fn parent() -> Option<Pid> {
    let named: i32 = env::var(VARIABLE).ok()?.parse().ok()?;
    getppid().filter(|parent| parent.as_raw_nonzero().get() == named)
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}
