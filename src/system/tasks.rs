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
const UNINTERRUPTIBLE: char = 'D';
const ZOMBIE: char = 'Z';

/// Whether the main thread of a process has ended and its parent can't be told, as another one hasn't.
#[must_use]
pub fn main_thread_has_ended(pid: Pid) -> bool {
    state(Path::new(&format!("/proc/{pid}/stat"))) == Some(ZOMBIE)
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
    threads
        .map(|thread| thread.path().join("stat"))
        .any(|stat| state(&stat) == Some(UNINTERRUPTIBLE))
}

/// The letter behind the name, which may have any letters itself.
fn state(stat: &Path) -> Option<char> {
    let text = fs::read(stat).ok()?;
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    text.get(name_end + 2).map(|letter| char::from(*letter))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn an_ended_process_has_ended_until_it_is_waited_for() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(!main_thread_has_ended(pid));
        drop(child.stdin.take());
        while !main_thread_has_ended(pid) {
            thread::sleep(LOOK_INTERVAL);
        }
        child.wait().unwrap();
        assert!(!main_thread_has_ended(pid));
    }

    #[test]
    fn threads_that_can_be_woken_keep_nothing_up() {
        assert!(!waits_in_the_kernel());
    }
}
