//! The limit of descriptors of processes that run.

use std::fs;
use std::io;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::supervisor::procfs;

/// Limits as they were before.
#[derive(Debug)]
pub struct Limits {
    root: i32,
    before: Vec<(Pid, Rlimit)>,
}

impl Limits {
    /// Leaves a process, and what it has started, so many free descriptors.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn lower(root: i32, free: usize) -> io::Result<Self> {
        let mut before = Vec::new();
        for pid in procfs::tree(root) {
            // It may have ended.
            let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
            let Ok(limits) = fs::read_to_string(format!("/proc/{pid}/limits")) else { continue };
            let number = |entry: io::Result<fs::DirEntry>| {
                entry.ok()?.file_name().to_str()?.parse::<u64>().ok()
            };
            let open: Vec<_> = open.filter_map(number).collect();
            let Some((pid, limit)) = Pid::from_raw(pid).zip(limit_in(&limits)) else { continue };
            let lower = Rlimit { current: Some(with_free(&open, free)), ..limit };
            prlimit(Some(pid), Resource::Nofile, lower)?;
            before.push((pid, limit));
        }
        Ok(Self { root, before })
    }

    /// Sets them as they were before. A process that was started meanwhile has got the lower one from another: it gets
    /// that of the first process.
    pub fn restore(self) {
        let Some((_, first)) = self.before.first() else { return };
        for pid in procfs::tree(self.root).into_iter().filter_map(Pid::from_raw) {
            let known = self.before.iter().find(|(other, _)| *other == pid);
            // It may have ended.
            let _ = prlimit(Some(pid), Resource::Nofile, known.map_or(*first, |(_, limit)| *limit));
        }
    }
}

/// The limit below which so many numbers are free.
fn with_free(open: &[u64], free: usize) -> u64 {
    (0..).filter(|number| !open.contains(number)).nth(free).unwrap_or(u64::MAX)
}

/// The limit of descriptors in `/proc/PID/limits`.
fn limit_in(limits: &str) -> Option<Rlimit> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut words = line.split_ascii_whitespace();
    let current = words.next()?.parse().ok();
    Some(Rlimit { current, maximum: words.next()?.parse().ok() })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn so_many_numbers_below_the_limit_are_free() {
        for (open, free, limit) in [
            (&[0, 1, 2][..], 0, 3),
            (&[0, 1, 2], 2, 5),
            (&[0, 1, 2, 10, 11], 2, 5),
            (&[0, 1, 2, 5, 10], 3, 7),
        ] {
            assert_eq!(with_free(open, free), limit, "{open:?} {free}");
        }
    }

    #[test]
    fn a_process_that_was_started_meanwhile_gets_its_limit_back_too() {
        let wait = "read line; sh -c 'echo started; read line; :'; :";
        let piped = || std::process::Stdio::piped();
        let mut command = std::process::Command::new("sh");
        let mut shell = command.args(["-c", wait]).stdin(piped()).stdout(piped()).spawn().unwrap();
        let root = i32::try_from(shell.id()).unwrap();
        let limit = |pid: i32| {
            let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
            limit_in(&limits).unwrap().current
        };
        let before = limit(root);
        let limits = Limits::lower(root, 20).unwrap();
        shell.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut started = [0; 8];
        shell.stdout.as_mut().unwrap().read_exact(&mut started).unwrap();
        let child = procfs::children(root)[0];
        assert!(limit(root) < before && limit(child) < before);
        limits.restore();
        assert_eq!((limit(root), limit(child)), (before, before));
        drop(shell.stdin.take());
        assert!(shell.wait().unwrap().success());
    }

    #[test]
    fn the_limit_is_read_from_its_line() {
        let limits = "Limit   Soft Limit  Hard Limit  Units\n\
                      Max open files            1024                 unlimited            files\n";
        let limit = limit_in(limits).unwrap();
        assert_eq!((limit.current, limit.maximum), (Some(1024), None));
        assert!(limit_in("").is_none());
    }
}
