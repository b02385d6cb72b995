//! How much memory and processor time a worker uses, with all that it has started: the server may
//! run below a shell or npm.
//!
//! Reads only, and blocks meanwhile: the kernel walks all pages of a process to tell its share.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};

use crate::supervisor::procfs::tree;

/// Bytes of memory of `pid` and of what it has started. Pages that processes share count for each
/// by its part (PSS), where the kernel tells that of this user; else in full for each (RSS). `None`
/// if it has ended.
#[must_use]
pub fn memory(pid: i32) -> Option<u64> {
    sum(pid, |pid| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
        rollup.as_deref().and_then(proportional).or_else(|| {
            let pages = resident(&fs::read_to_string(format!("/proc/{pid}/statm")).ok()?)?;
            Some(pages * u64::try_from(page_size()).ok()?)
        })
    })
}

/// Processor time of `pid` and of what it has started, those of them included that have ended and
/// were waited for, so that it doesn't fall when one ends. `None` if `pid` has ended.
#[must_use]
pub fn cpu_time(pid: i32) -> Option<Duration> {
    let ticks = sum(pid, |pid| ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))?;
    let millis = ticks.saturating_mul(1000) / clock_ticks_per_second().max(1);
    Some(Duration::from_millis(millis))
}

/// Descriptors that `pid` and what it has started have open. `None` if that can't be seen of all of them.
#[must_use]
pub fn descriptors(pid: i32) -> Option<u64> {
    tree(pid).into_iter().map(open_descriptors).sum()
}

/// One that has ended has none.
fn open_descriptors(pid: i32) -> Option<u64> {
    let path = format!("/proc/{pid}/fd");
    let counted = fs::metadata(&path).and_then(|directory| match directory.len() {
        // Before Linux 6.2 the kernel doesn't count them.
        0 => fs::read_dir(&path).map(|all| all.count() as u64),
        count => Ok(count),
    });
    match counted {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(0),
        counted => counted.ok(),
    }
}

/// Processes that end meanwhile are left out, but for the first.
fn sum(pid: i32, mut of: impl FnMut(i32) -> Option<u64>) -> Option<u64> {
    let first = of(pid)?;
    let below = tree(pid).into_iter().skip(1);
    Some(first + below.filter_map(of).sum::<u64>())
}

/// Bytes, from `smaps_rollup`. A process without memory of its own, such as a zombie, has no lines.
fn proportional(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Pages, from `statm`.
fn resident(statm: &str) -> Option<u64> {
    statm.split(' ').nth(1)?.parse().ok()
}

/// User and system time in clock ticks, its own and that of children it has waited for, from
/// `stat`. The name in front may hold anything, brackets too.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    // The 14th to 17th, counted from 1, of which the name is the second.
    let times: Vec<u64> =
        fields.split(' ').skip(11).take(4).map_while(|field| field.parse().ok()).collect();
    (times.len() == 4).then(|| times.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_memory_is_read() {
        let rollup = "5581 7fff ---p 0 00:00 0  [rollup]\nRss:  9000 kB\nPss:    1234 kB\n\
                      Pss_Dirty:  700 kB\n";
        assert_eq!(proportional(rollup), Some(1234 * 1024));
        for wrong in ["", "Pss:\n", "Pss: many kB\n", "Pss: 12\n", "Rss: 12 kB\n"] {
            assert_eq!(proportional(wrong), None, "{wrong:?}");
        }
        assert_eq!(resident("5000 1200 800 300 0 700 0\n"), Some(1200));
        assert_eq!(resident(""), None);
    }

    #[test]
    fn times_are_found_behind_any_name() {
        let fields = "S 1 7 7 0 -1 4194304 500 0 0 0 30 12 4 2 20 0 1 0 99 1000 200";
        for name in ["sleep", "a) S (b", ") ", "two words"] {
            assert_eq!(ticks(&format!("7 ({name}) {fields}\n")), Some(48), "{name}");
        }
        for wrong in ["", "7 (sleep)", "7 (sleep) S 1 7 7 0 -1 4194304 500 0 0 0 30"] {
            assert_eq!(ticks(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn this_process_uses_some_of_both() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = cpu_time(own).unwrap();
        let work = (0..3_000_000_u64).fold(1, |sum, n| sum ^ std::hint::black_box(n));
        assert!(work != 0 || cpu_time(own).unwrap() >= before);
        let held = vec![1_u8; 32 << 20];
        assert!(memory(own).unwrap() > u64::try_from(std::hint::black_box(held).len()).unwrap());
        assert_eq!((memory(i32::MAX), cpu_time(i32::MAX)), (None, None));
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(descriptors(own).unwrap() > files.len() as u64);
        assert_eq!(descriptors(i32::MAX), Some(0));
    }
}
