//! Processes that belong to a worker under test, by a variable in their environment: whatever it has started has
//! it, by whatever detours.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::protocol::ids::Timestamp;

/// The variable.
pub const VARIABLE: &str = "STICKY_LB_CONFORMANCE";

/// How long processes may take to end with their worker.
const END_TIMEOUT: Duration = Duration::from_secs(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The processes with this value of the variable that run, and their names.
#[must_use]
pub fn find(mark: &str) -> Vec<(i32, String)> {
    let wanted = format!("{VARIABLE}={mark}");
    let Ok(folder) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    // That of a process that has ended is empty.
    let has_it = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let name = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    numbers.filter(has_it).map(|pid| (pid, name(pid).trim().to_owned())).collect()
}

/// The same without `own`, once they have had time to end.
#[must_use]
pub fn find_lasting(mark: &str, own: i32) -> Vec<(i32, String)> {
    let start = Timestamp::now();
    loop {
        let found = find(mark).into_iter().filter(|(pid, _)| *pid != own).collect::<Vec<_>>();
        if found.is_empty() || Timestamp::now().since(start) > END_TIMEOUT {
            return found;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Kills them.
pub fn kill(mark: &str) {
    for pid in find(mark).into_iter().filter_map(|(pid, _)| Pid::from_raw(pid)) {
        // It may have ended.
        let _ = kill_process(pid, Signal::KILL);
    }
}
