//! What the kernel tells about the processes of a front: CPU time, memory,
//! descriptors, descendants; and who listens on a port.

use std::fs;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;

use crate::Result;

/// CPU time so far of these processes, of their ended threads, too. An error
/// if one of them is gone, as what it used is not known any more.
pub(crate) fn cpu_time(pids: &[u32]) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for pid in pids {
        let of_process = Pid::from_raw(i32::try_from(*pid)?);
        let now = ClockId::pid_cpu_clock_id(of_process)
            .and_then(ClockId::now)
            .map_err(|error| format!("no CPU time of process {pid}: {error}"))?;
        total += Duration::from(now);
    }
    Ok(total)
}

/// Bytes of memory of their own. Pages of the program file aren't counted:
/// the first use of some code is not a connection's doing.
pub(crate) fn memory(pids: &[u32]) -> Result<u64> {
    let mut kibibytes = 0;
    for pid in pids {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let anonymous = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
        kibibytes += anonymous
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .ok_or_else(|| format!("no Pss_Anon in the memory map of process {pid}"))?;
    }
    Ok(kibibytes * 1024)
}

/// Open descriptors of these processes.
pub(crate) fn descriptors(pids: &[u32]) -> Result<u64> {
    let mut count = 0;
    for pid in pids {
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            entry?;
            count += 1;
        }
    }
    Ok(count)
}

/// All processes below this one, parents first.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let parents = parents().unwrap_or_default();
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let of_this = parents
            .iter()
            .filter(|(_, parent)| *parent == found[next])
            .map(|(child, _)| *child)
            .collect::<Vec<_>>();
        found.extend(of_this);
        next += 1;
    }
    found.split_off(1)
}

/// Every process with its parent. From the process table, as not every kernel
/// is built with the lists of children in `/proc`.
fn parents() -> Result<Vec<(u32, u32)>> {
    let process = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let parent = u32::try_from(stat_field(pid, 4)?).ok()?;
        Some((pid, parent))
    };
    Ok(fs::read_dir("/proc")?.flatten().filter_map(process).collect())
}

/// CPU time so far of a process, its ended threads among it; coarser than
/// [`cpu_time`]. None if the process is gone.
pub(crate) fn cpu_ticks(pid: u32) -> Option<u64> {
    Some(stat_field(pid, 14)? + stat_field(pid, 15)?)
}

/// A field of `/proc/PID/stat`, numbered as in its manual page, from the
/// fourth on.
fn stat_field(pid: u32, number: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, the second, may hold anything, brackets and spaces, too.
    let (_, from_third) = stat.rsplit_once(')')?;
    from_third.split_whitespace().nth(number - 3)?.parse().ok()
}

/// Whether a process was started with this variable in its environment.
pub(crate) fn has_variable(pid: u32, name: &str) -> bool {
    let start = format!("{name}=");
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
        environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(start.as_bytes()))
    })
}

/// How many sockets listen on an IPv4 port.
pub(crate) fn listeners(port: u16) -> Result<usize> {
    const LISTENING: &str = "0A";
    let port = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp")?;
    let listens = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next();
        local.is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some(LISTENING)
    };
    Ok(table.lines().filter(listens).count())
}
