//! The keeper, as the primary sees it: the parent that starts it again after a crash, and that people
//! and service managers take for the program itself.
//!
//! Only finds it and waits for its exit. [`store`](super::store) sends it descriptors.

use std::env;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, getppid, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel;

/// The variable that names the keeper to its primary: its process id.
pub const VARIABLE: &str = "STICKY_LB_KEEPER";

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
