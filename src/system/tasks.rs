//! Threads that wait in the kernel where no signal wakes them, for a socket or a file that somebody else uses. As
//! long as there is one, its process neither ends nor becomes another program, even if it is killed: it has ended
//! in all but name, as no code of it runs any more.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::Pid;

/// How long a thread of this process may wait so until that counts: for a disk it may.
const PATIENCE: Duration = Duration::from_millis(200);

/// How often to look.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// The kernel's letters of states, from proc_pid_stat(5).
const UNINTERRUPTIBLE: &str = "D";
const ZOMBIE: &str = "Z";

/// The place of a thread's exit code among the fields that begin with its state: the 52nd of all.
const EXIT_CODE: usize = 49;

/// How the main thread of a process has ended, if it has, as waitpid(2) would say it: that says so when all threads
/// have.
#[must_use]
pub fn end_of_main_thread(pid: Pid) -> Option<i32> {
    end(&read(format!("/proc/{pid}/stat"))?)
}

fn end(stat: &str) -> Option<i32> {
    let mut fields = fields(stat);
    let is_ended = fields.next() == Some(ZOMBIE);
    is_ended.then(|| fields.nth(EXIT_CODE - 1)?.parse().ok())?
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
    let mut stats = threads.filter_map(|thread| read(thread.path().join("stat")));
    stats.any(|stat| fields(&stat).next() == Some(UNINTERRUPTIBLE))
}

/// A name may be no text.
fn read(stat: impl AsRef<Path>) -> Option<String> {
    Some(String::from_utf8_lossy(&fs::read(stat).ok()?).into_owned())
}

/// The fields from the state on: behind the name, which may have anything in it.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use rustix::process::getpid;

    use super::*;

    #[test]
    fn the_state_and_the_end_stand_behind_the_name_whatever_that_is() {
        let with = |state: &str| format!("2 (a) D b) {state} {}9 7", "0 ".repeat(EXIT_CODE - 1));
        assert_eq!((end(&with("Z")), end(&with("S"))), (Some(9), None));
        for cut in ["3 (never", "4 (never)", "5 (never) Z 0 0"] {
            assert_eq!(end(cut), None, "{cut}");
        }
    }

    #[test]
    fn threads_that_can_be_woken_keep_nothing_up() {
        assert_eq!(end_of_main_thread(getpid()), None);
        assert!(!waits_in_the_kernel());
    }
}
