//! Facts about processes from `/proc`, and about their parents.
//!
//! Reads only. A process that ends meanwhile is left out, as if it had ended before.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::link::seam::WorkerId;
use crate::protocol::ids::{Generation, SlotId};

/// The processes whose parent is `pid`, with those that have ended and whose status it hasn't taken.
#[must_use]
pub fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    // Each thread has its own.
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    lists.flat_map(|list| numbers(&list)).collect()
}

/// `pid`, the processes below it, and those below them.
#[must_use]
pub fn tree(pid: i32) -> Vec<i32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        let children = children(*parent);
        // A number that was reused meanwhile could come twice.
        found.extend(
            children.into_iter().filter(|child| !found.contains(child)).collect::<Vec<_>>(),
        );
        next += 1;
    }
    found
}

/// The worker that a process belongs to: itself one, or started by one, by whatever detours. `None`
/// if it has ended, or has covered the traces.
#[must_use]
pub fn worker_of(pid: i32) -> Option<WorkerId> {
    worker_in(&fs::read(format!("/proc/{pid}/environ")).ok()?)
}

/// The process that a pidfd stands for, as long as its status was not taken.
#[must_use]
pub fn pid_of(pidfd: impl AsFd) -> Option<i32> {
    let info =
        fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    // Then it is -1.
    pid.trim().parse().ok().filter(|pid| *pid > 0)
}

/// Whether a process was stopped by a signal.
#[must_use]
pub fn is_stopped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| field(&stat, 3) == Some("T"))
}

/// The status of a process that has ended and was not waited for; proc(5),
/// `exit_code`.
///
/// # Errors
///
/// If it hasn't ended, is not there any more, or the kernel doesn't let this process see it.
pub fn status_of_zombie(pid: i32) -> io::Result<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    if field(&stat, 3) != Some("Z") {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    // Where it isn't to be seen, 0 stands in its place. It is seen by those who may follow this
    // link, which leads nowhere any more.
    if let Err(error) = fs::read_link(format!("/proc/{pid}/exe"))
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        return Err(error);
    }
    let status = field(&stat, 52).and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The stop of a process that is stopped, as by SIGSTOP, by a number: as long as that is the same, the
/// process has not run. One that a debugger has stopped is none.
#[must_use]
pub fn stop_of(pid: i32) -> Option<u64> {
    stop_in(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// Each time that a process runs and stops, it leaves the processor.
fn stop_in(status: &str) -> Option<u64> {
    let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    value("State:").filter(|state| state.starts_with('T'))?;
    let switches = |name: &str| value(name)?.parse::<u64>().ok();
    let voluntary = switches("voluntary_ctxt_switches:")?;
    Some(voluntary.wrapping_add(switches("nonvoluntary_ctxt_switches:")?))
}

/// The process that was started as `worker`, among these. What it has started has the same
/// environment, but leads no group, or a session too, or was started later.
#[must_use]
pub fn process_of(worker: WorkerId, among: &[i32]) -> Option<i32> {
    let could_be = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let [group, session] = [5, 6].map(|number| field(&stat, number)?.parse::<i32>().ok());
        let leads = group? == *pid && session? != *pid && worker_of(*pid) == Some(worker);
        let started: u64 = field(&stat, 22)?.parse().ok()?;
        leads.then_some((started, *pid))
    };
    among.iter().filter_map(could_be).min().map(|(_, pid)| pid)
}

/// A field of `/proc/PID/stat`, as proc(5) counts them, from the third on. The second may hold
/// anything.
fn field(stat: &str, number: usize) -> Option<&str> {
    stat.rsplit_once(") ")?.1.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

fn numbers(list: &str) -> Vec<i32> {
    list.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
}

fn worker_in(environment: &[u8]) -> Option<WorkerId> {
    let value = |name: &[u8]| {
        let mut variables = environment.split(|byte| *byte == 0);
        let value = variables.find_map(|variable| variable.strip_prefix(name))?;
        std::str::from_utf8(value).ok()
    };
    let slot = SlotId(value(b"STICKY_LB_SLOT=")?.parse().ok()?);
    let generation = Generation(value(b"STICKY_LB_GENERATION=")?.parse().ok()?);
    Some(WorkerId { slot, generation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_told_by_its_environment() {
        let worker = |slot, generation| {
            Some(WorkerId { slot: SlotId(slot), generation: Generation(generation) })
        };
        for (environment, expected) in [
            (&b"A=1\0STICKY_LB_SLOT=3\0STICKY_LB_GENERATION=12\0"[..], worker(3, 12)),
            (b"STICKY_LB_GENERATION=0\0STICKY_LB_SLOT=0", worker(0, 0)),
            (b"XSTICKY_LB_SLOT=3\0STICKY_LB_GENERATION=12\0", None),
            (b"STICKY_LB_SLOT=3\0", None),
            (b"STICKY_LB_SLOT=three\0STICKY_LB_GENERATION=1\0", None),
            (b"STICKY_LB_SLOT=\xff\0STICKY_LB_GENERATION=1\0", None),
            (b"", None),
        ] {
            assert_eq!(worker_in(environment), expected);
        }
    }

    #[test]
    fn fields_are_counted_behind_the_name_whatever_that_is() {
        let stat = "12 (a) b (c) Z 1 12 7 0 -1\n";
        let fields = [3, 4, 5, 6, 8].map(|number| field(stat, number));
        assert_eq!(fields, [Some("Z"), Some("1"), Some("12"), Some("7"), Some("-1")]);
        assert_eq!([2, 9].map(|number| field(stat, number)), [None, None]);
        assert_eq!(field("", 3), None);
    }

    #[test]
    fn a_stop_has_a_number_until_the_process_runs_again() {
        let status = |state: &str, voluntary: &str| {
            format!(
                "Name:\tState: T\nState:\t{state}\nvoluntary_ctxt_switches:\t{voluntary}\n\
                 nonvoluntary_ctxt_switches:\t3\n"
            )
        };
        assert_eq!(stop_in(&status("T (stopped)", "40")), Some(43));
        for running in ["S (sleeping)", "t (tracing stop)", "Z (zombie)"] {
            assert_eq!(stop_in(&status(running, "40")), None, "{running}");
        }
        assert_eq!(stop_in(&status("T (stopped)", "many")), None);
        assert_eq!(stop_in(""), None);
        assert_eq!(stop_of(i32::try_from(std::process::id()).unwrap()), None);
    }

    #[test]
    fn a_tree_begins_with_its_root() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(tree(own)[0], own);
        assert_eq!(numbers("12 345 \n"), [12, 345]);
    }
}
