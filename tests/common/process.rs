//! Processes, as `/proc` shows them.

use std::fs;

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// Sends a signal; that the process has ended is no error.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = kill_process(pid, signal);
}

/// The processes whose parent is `pid`, zombies included.
pub fn children(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc is there");
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|child| parent(*child) == Some(pid)).collect()
}

/// Whether there is such a process, or a zombie of it.
pub fn exists(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap_or(false)
}

/// A process' state: `R`, `S`, `T` for stopped, `Z` for zombie.
pub fn state(pid: u32) -> Option<char> {
    stat(pid)?.chars().next()
}

/// A variable of its environment.
pub fn variable(pid: u32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{name}=");
    let variables = environment.split(|byte| *byte == 0);
    let mut texts = variables.filter_map(|variable| std::str::from_utf8(variable).ok());
    texts.find_map(|text| text.strip_prefix(&prefix)).map(str::to_owned)
}

/// What its descriptors are: number and link, such as `socket:[1234]`.
pub fn descriptors(pid: u32) -> Vec<(i32, String)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let mut descriptors: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            let link = fs::read_link(entry.path()).ok()?;
            Some((number, link.to_string_lossy().into_owned()))
        })
        .collect();
    descriptors.sort();
    descriptors
}

/// Its process group and session.
pub fn group_and_session(pid: u32) -> Option<(u32, u32)> {
    Some((number(pid, 2)?, number(pid, 3)?))
}

/// Whether its parent is no longer `parent`.
pub fn is_adopted(pid: u32, former: u32) -> bool {
    parent(pid) != Some(former)
}

fn parent(pid: u32) -> Option<u32> {
    number(pid, 1)
}

/// A number of what stands behind the name, counted from 0, the state.
fn number(pid: u32, index: usize) -> Option<u32> {
    stat(pid)?.split(' ').nth(index)?.parse().ok()
}

/// From the state on: what stands behind the name, which may hold anything.
fn stat(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned())
}

/// The words of a process's command, with spaces between them.
pub fn command_line(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = words.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    words.collect::<Vec<_>>().join(" ").trim_end().to_owned()
}
