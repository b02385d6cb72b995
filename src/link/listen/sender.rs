//! Whether a process belongs to a worker: it is the worker's, below it, or in its process group, which is ended with
//! the worker.
//!
//! # Pitfalls
//!
//! * A process that has ended and whose status was taken is no more to be found: a helper that sends and exits is
//!   heard only if it waits for its answer (`BARRIER=1`), as `systemd-notify` does.
//! * A process that has left the group and whose parent has ended belongs to nothing.

use std::fs;

use rustix::process::{Pid, getpgid};

/// Parents that are looked at. Only a hostile worker goes deeper.
const MAX_DEPTH: usize = 64;

/// Whether `pid` belongs to the worker whose process is `root`.
pub(super) fn belongs_to(pid: i32, root: i32) -> bool {
    let is_in_group = || {
        let group = Pid::from_raw(pid).and_then(|pid| getpgid(Some(pid)).ok());
        group.is_some_and(|group| group.as_raw_nonzero().get() == root)
    };
    descends(pid, root, parent_of) || is_in_group()
}

/// Whether `root` is `pid` or one of the processes above it.
fn descends(pid: i32, root: i32, parent_of: impl Fn(i32) -> Option<i32>) -> bool {
    let chain = std::iter::successors(Some(pid), |pid| parent_of(*pid).filter(|pid| *pid > 0));
    chain.take(MAX_DEPTH).any(|pid| pid == root)
}

fn parent_of(pid: i32) -> Option<i32> {
    parent_in(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The fourth field of proc(5)'s `stat`; the second, in parentheses, may hold anything.
fn parent_in(stat: &[u8]) -> Option<i32> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(&stat[end + 1..]).ok()?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_descends_from_those_above_it_alone() {
        // 1 has started 2, 2 has started 3 and 4.
        let parent_of = |pid| [0, 0, 1, 2, 2].get(usize::try_from(pid).ok()?).copied();
        for (pid, root, expected) in
            [(3, 3, true), (3, 2, true), (3, 1, true), (3, 4, false), (2, 3, false), (9, 1, false)]
        {
            assert_eq!(descends(pid, root, parent_of), expected, "{pid} {root}");
        }
        assert!(!descends(3, 0, parent_of));
        // A circle, which numbers that are used again could make.
        assert!(!descends(5, 7, |pid| Some(11 - pid)));
    }

    #[test]
    fn a_name_may_hold_anything() {
        assert_eq!(parent_in(b"12 (a) R 7 (\xff) S 34 12 7 0\n"), Some(34));
        for wrong in ["", "12 (a)", "12 (a) S", "12 a S 34"] {
            assert_eq!(parent_in(wrong.as_bytes()), None, "{wrong}");
        }
        let own = i32::try_from(std::process::id()).unwrap();
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        assert_eq!(parent_of(own), Some(parent));
        assert!(belongs_to(own, parent) && !belongs_to(parent, own));
    }
}
