//! The memory limit of this process and of all that it starts, by its control groups and the machine.
//!
//! The number of processors comes from the standard library, which knows of affinity and of the quotas of
//! control groups.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes: the smallest limit of this process's control group and of those above it, or all of the
/// machine's memory. `None` if not even that can be read.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    let total = total(&fs::read_to_string("/proc/meminfo").ok()?);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let limits = places(&groups, &mounts).into_iter().filter_map(|place| smallest(&place));
    limits.chain(total).min()
}

/// How many processes of this control group the kernel has killed so far since memory ran out,
/// where it says so.
#[must_use]
pub fn oom_kills() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let events = |place: Place| {
        let file = if place.file == "memory.max" { "memory.events" } else { "memory.oom_control" };
        fs::read_to_string(place.mount.join(place.group).join(file)).ok()
    };
    let mut texts = places(&groups, &mounts).into_iter().filter_map(events);
    texts.find_map(|text| counted_oom_kills(&text))
}

fn counted_oom_kills(events: &str) -> Option<u64> {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// Where a control group's limit stands.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    mount: PathBuf,
    /// Below the mount.
    group: PathBuf,
    file: &'static str,
}

/// From the group up to what is mounted, which in a container is the container's own.
fn smallest(place: &Place) -> Option<u64> {
    let groups = place.group.ancestors();
    let limits = groups.filter_map(|group| {
        let file = place.mount.join(group).join(place.file);
        // The word `max`, for none, is no number.
        fs::read_to_string(file).ok()?.trim().parse().ok()
    });
    limits.min()
}

/// From the lines of `/proc/self/cgroup` and `/proc/self/mountinfo`: version 2 has one tree for
/// all, version 1 one for memory. A machine may have both.
fn places(groups: &str, mounts: &str) -> Vec<Place> {
    let mut places = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (kind, file) = match controllers {
            "" => ("cgroup2", "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("cgroup", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        if let Some((root, mount)) = mounts.lines().find_map(|line| mounted(line, kind)) {
            // The mount may be a part of the tree, and the group outside of it: then the
            // mount is the best that is known.
            let group = Path::new(group).strip_prefix(root).unwrap_or_else(|_| Path::new(""));
            places.push(Place { mount: mount.into(), group: group.into(), file });
        }
    }
    places
}

/// Root and mount point of a line of `mountinfo`, if it is of that kind.
fn mounted<'a>(line: &'a str, kind: &str) -> Option<(&'a str, &'a str)> {
    let (place, source) = line.split_once(" - ")?;
    let mut source = source.split(' ');
    let is_kind = source.next() == Some(kind);
    let controllers = source.nth(1).unwrap_or_default();
    let is_memory = kind == "cgroup2" || controllers.split(',').any(|one| one == "memory");
    let mut place = place.split(' ').skip(3);
    (is_kind && is_memory).then_some((place.next()?, place.next()?))
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
    const V1: &str = "33 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      34 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
    const DOCKER_V1: &str =
        "34 31 0:30 /docker/c0ffee /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";

    #[test]
    fn a_group_is_found_below_its_mount() {
        let v2 = "/sys/fs/cgroup";
        let v1 = "/sys/fs/cgroup/memory";
        for (groups, mounts, expected) in [
            ("0::/system.slice/app.service\n", V2, Some((v2, "system.slice/app.service"))),
            ("0::/\n", V2, Some((v2, ""))),
            ("4:memory:/app\n3:cpu:/other\n", V1, Some((v1, "app"))),
            ("4:cpu,memory:/a:b\n", V1, Some((v1, "a:b"))),
            ("4:memory:/docker/c0ffee/app\n", DOCKER_V1, Some((v1, "app"))),
            ("4:memory:/docker/other\n", DOCKER_V1, Some((v1, ""))),
            ("0::/app\n", V1, None),
            ("", V2, None),
            ("0::/app\n", "", None),
        ] {
            let found = places(groups, mounts);
            let found = found
                .first()
                .map(|place| (place.mount.to_str().unwrap(), place.group.to_str().unwrap()));
            assert_eq!(found, expected, "{groups:?} {mounts:?}");
        }
        let both = places("4:memory:/a\n0::/b\n", &format!("{V1}\n{V2}"));
        assert_eq!(
            both.iter().map(|place| place.file).collect::<Vec<_>>(),
            ["memory.limit_in_bytes", "memory.max"]
        );
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let mount = std::env::temp_dir().join(format!("sticky-lb-limits-{}", std::process::id()));
        let group = mount.join("slice/service");
        fs::create_dir_all(&group).unwrap();
        let place =
            Place { mount: mount.clone(), group: "slice/service".into(), file: "memory.max" };
        assert_eq!(smallest(&place), None);
        fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(smallest(&place), None);
        fs::write(mount.join("slice/memory.max"), "1000\n").unwrap();
        assert_eq!(smallest(&place), Some(1000));
        fs::write(group.join("memory.max"), "2000\n").unwrap();
        assert_eq!(smallest(&place), Some(1000));
        fs::write(mount.join("memory.max"), "500\n").unwrap();
        assert_eq!(smallest(&place), Some(500));
        fs::remove_dir_all(mount).unwrap();
    }

    #[test]
    fn this_machine_has_some() {
        let total = total(&fs::read_to_string("/proc/meminfo").unwrap()).unwrap();
        assert!((1..=total).contains(&memory_limit().unwrap()));
        assert_eq!(super::total("MemFree: 1 kB\nMemTotal:   2048 kB\n"), Some(2 << 20));
    }
}
