//! What `/proc` tells of processes and of who started whom.
//!
//! Reads only. A process that ends meanwhile is left out, as if it had ended before.

use std::fs;

use crate::handoff::ids::{Generation, SlotId};
use crate::handoff::slots::WorkerId;

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
        // A number that was given anew meanwhile could come twice.
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
    fn a_tree_begins_with_its_root() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(tree(own)[0], own);
        assert_eq!(numbers("12 345 \n"), [12, 345]);
    }
}
