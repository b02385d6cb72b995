//! Threads that wait in the kernel where no signal wakes them, for a socket or a file that somebody else uses. As
//! long as there is one, its process neither ends nor becomes another program, even if it is killed: it has ended
//! in all but name, as no code of it runs any more.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::Pid;

/// How long a thread of this process may wait so until that counts: for a disk it may.
const PATIENCE: Duration = Duration::from_millis(200);

/// How often to look.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// The kernel's letters of states, from proc_pid_stat(5).
const UNINTERRUPTIBLE: char = 'D';
const ZOMBIE: char = 'Z';

/// Whether the main thread of a process has ended and its parent can't be told, as another one hasn't.
#[must_use]
pub fn main_thread_has_ended(pid: Pid) -> bool {
    fs::read(format!("/proc/{pid}/stat")).is_ok_and(|stat| state(&stat) == Some(ZOMBIE))
}

/// Whether a thread of this process keeps it from becoming another program. Looks for a moment before it says so.
#[must_use]
pub fn waits_in_the_kernel() -> bool {
    let looks = PATIENCE.as_millis() / LOOK_INTERVAL.as_millis();
    for _ in 0..looks {
        if !any_waits() {
            return false;
        }
        thread::sleep(LOOK_INTERVAL);
    }
    any_waits()
}

fn any_waits() -> bool {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let mut stats = threads.filter_map(|thread| fs::read(thread.path().join("stat")).ok());
    stats.any(|stat| state(&stat) == Some(UNINTERRUPTIBLE))
}

/// The letter behind the name, which may have any letters itself.
fn state(stat: &[u8]) -> Option<char> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(name_end + 2).map(|letter| char::from(*letter))
}

#[cfg(test)]
mod tests {
    use rustix::process::getpid;

    use super::*;

    #[test]
    fn the_state_stands_behind_the_name_whatever_that_is() {
        for (stat, expected) in [
            ("1 (init) S 0 1", Some('S')),
            ("2 (a) D b) Z 1 1", Some('Z')),
            ("3 (never", None),
            ("4 (never)", None),
        ] {
            assert_eq!(state(stat.as_bytes()), expected, "{stat}");
        }
    }

    #[test]
    fn threads_that_can_be_woken_keep_nothing_up() {
        assert!(!main_thread_has_ended(getpid()));
        assert!(!waits_in_the_kernel());
    }
}
