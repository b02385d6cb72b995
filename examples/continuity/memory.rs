//! What connections cost: memory of the processes and of the kernel, and the primary's processor time.

use std::error::Error;
use std::fs;

use nix::time::ClockId;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::Duration;

use crate::load_processes::LoadProcesses;
use crate::primary::Primary;

/// Bytes of memory, or of what a connection takes of it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Memory {
    pub(crate) workers: f64,
    /// Primary and keeper.
    pub(crate) front: f64,
    /// The kernel's objects and the buffers of TCP, for both ends of each connection.
    pub(crate) kernel: f64,
    /// Processes of clients, which are no part of it.
    pub(crate) clients: f64,
}

impl Memory {
    /// What there is now.
    pub(crate) async fn now(
        primary: &Primary,
        clients: Option<&LoadProcesses>,
    ) -> Result<Self, Box<dyn Error>> {
        let status = primary.status().await?;
        let workers = primary.workers().await?;
        let workers = workers.iter().filter_map(|worker| worker["pid"].as_u64());
        let front = ["pid", "primary_pid"].into_iter().filter_map(|it| status[it].as_u64());
        let clients = clients.into_iter().flat_map(LoadProcesses::pids);
        Ok(Self {
            workers: workers.filter_map(private).sum(),
            front: front.filter_map(private).sum(),
            kernel: kernel().ok_or("the kernel does not say what memory it has")?,
            clients: clients.filter_map(private).sum(),
        })
    }

    /// What each of so many connections has added.
    pub(crate) fn each_since(self, before: Self, connections: u32) -> Self {
        let each = |now: f64, before: f64| ((now - before) / f64::from(connections)).round();
        Self {
            workers: each(self.workers, before.workers),
            front: each(self.front, before.front),
            kernel: each(self.kernel, before.kernel),
            clients: each(self.clients, before.clients),
        }
    }
}

/// The process's share (PSS) of pages that are no file's: those of the program are shared with all others
/// that run it.
fn private(pid: u64) -> Option<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(kibibytes(&rollup, "Pss_Anon:")? + kibibytes(&rollup, "Pss_Shmem:")?)
}

/// Slab, where sockets, their inodes and their entries in an epoll are, and what TCP has in buffers.
fn kernel() -> Option<f64> {
    let slab = kibibytes(&fs::read_to_string("/proc/meminfo").ok()?, "Slab:")?;
    let sockets = fs::read_to_string("/proc/net/sockstat").ok()?;
    let tcp = sockets.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let pages: f64 = tcp.split(" mem ").nth(1)?.trim().parse().ok()?;
    Some(slab + pages * rustix::param::page_size() as f64)
}

/// A line such as `Slab: 17 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1_024.0)
}

/// Processor time of all threads of a process so far, those that have ended among them: what schedstat
/// says of each that runs does not have those.
pub(crate) fn cpu_time(pid: u64) -> Result<Duration, Box<dyn Error>> {
    let pid = Pid::from_raw(i32::try_from(pid)?);
    Ok(ClockId::pid_cpu_clock_id(pid)?.now()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_the_kernel_have_memory_and_processor_time() {
        let own = u64::from(std::process::id());
        assert!(private(own) > Some(0.0) && kernel() > Some(0.0));
        assert!(cpu_time(own).is_ok_and(|time| time > Duration::ZERO));
    }

    #[test]
    fn each_connection_has_its_part_of_what_was_added() {
        let before = Memory { workers: 1_000.0, ..Memory::default() };
        let now = Memory { workers: 7_000.0, kernel: 400.0, ..Memory::default() };
        let each = Memory { workers: 3_000.0, kernel: 200.0, ..Memory::default() };
        assert_eq!(now.each_since(before, 2), each);
    }
}
