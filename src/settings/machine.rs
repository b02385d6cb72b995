//! How much memory there is: the container's limit, or the machine's.

use std::fs;
use std::path::Path;

/// In bytes; without end where nothing says it.
#[must_use]
pub fn memory() -> u64 {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let machine = read(Path::new("/proc/meminfo")).as_deref().and_then(total);
    let group = read(Path::new("/proc/self/cgroup"));
    let group =
        group.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::/")));
    let root = Path::new("/sys/fs/cgroup");
    let folder = root.join(group.unwrap_or_default());
    // Each group is limited by those that it is in.
    let limits = folder.ancestors().take_while(|folder| folder.starts_with(root));
    let limits = limits.filter_map(|folder| read(&folder.join("memory.max"))?.trim().parse().ok());
    limits.chain(machine).min().unwrap_or(u64::MAX)
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_some_memory() {
        assert!((1 << 20..u64::MAX).contains(&memory()));
        assert_eq!(total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
    }
}
