//! Workers that a primary before this one has started: children of whoever took them over, who leaves
//! their zombies until nobody needs them any more.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use common::eventually;
use common::process::{group_and_session, state};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use sticky_lb::internals::supervisor::orphans::Orphans;
use sticky_lb::internals::supervisor::process::{Exit, Process};
use sticky_lb::internals::supervisor::procfs::{pid_of, process_of, tree, worker_of};
use sticky_lb::protocol::ids::{Generation, SlotId, WorkerId};
use tokio::sync::{Mutex, MutexGuard};

/// Whoever looks after orphans takes the status of every child of this process.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// A parent that starts `scripts` in the background, each in a group of its own and with the
/// environment of a worker of that generation, and then never looks after them: as a keeper does until
/// it is told that nobody needs them any more. And the processes.
fn subreaper(scripts: &[(u32, &str)]) -> Subreaper {
    let starts = scripts.iter().map(|(generation, script)| {
        let slot = "STICKY_LB_SLOT=7";
        // Until then the shell itself looks after it.
        let waits = "until [ $(cat /proc/$PPID/comm) = sleep ]; do sleep 0.01; done";
        let script = format!("bash -c '{waits}; {script}'");
        format!("env {slot} STICKY_LB_GENERATION={generation} {script} & echo $!;")
    });
    let all = format!("set -m; {} exec sleep 1000", starts.collect::<String>());
    let mut parent =
        Command::new("bash").args(["-c", &all]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let pids = scripts.iter().map(|_| lines.next().unwrap().unwrap().parse().unwrap()).collect();
    Subreaper { parent, pids }
}

/// Ends with the test, well or not.
struct Subreaper {
    parent: Child,
    pids: Vec<i32>,
}

impl Subreaper {
    fn pid(&self) -> i32 {
        i32::try_from(self.parent.id()).unwrap()
    }
}

impl Drop for Subreaper {
    fn drop(&mut self) {
        let all = tree(self.pid());
        for pid in all.iter().rev() {
            let _ = kill_process(Pid::from_raw(*pid).unwrap(), Signal::KILL);
        }
        let _ = self.parent.wait();
    }
}

fn pidfd(pid: i32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap()
}

#[tokio::test]
async fn the_end_of_somebody_elses_child_is_known_and_its_zombie_left() {
    let _alone = alone().await;
    let go_on = "while [ ! -e /proc/$$/never ]; do sleep 0.02; done";
    let subreaper = subreaper(&[(0, "exit 7"), (1, go_on), (2, "sleep 1000 & exit 0")]);
    let pids = &subreaper.pids;
    let adopt = |index: usize| Process::adopt(pids[index], pidfd(pids[index])).unwrap();
    let [exits, is_killed, leaves] = [0, 1, 2].map(adopt);
    exits.ended().await;
    assert_eq!(exits.reap().unwrap(), Exit::Status(7));
    // Nobody has taken its status: it can be looked at again.
    assert_eq!(exits.reap().unwrap(), Exit::Status(7));
    assert_eq!(is_killed.reap().unwrap_err().kind(), ErrorKind::WouldBlock);
    is_killed.signal(Signal::KILL);
    is_killed.ended().await;
    assert_eq!(is_killed.reap().unwrap(), Exit::Signal(9));
    leaves.ended().await;
    let group = |pid: i32| group_and_session(u32::try_from(pid).unwrap());
    let members = || {
        let all = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
        let of_group = |pid: &i32| group(*pid).is_some_and(|it| it.0 == pids[2].unsigned_abs());
        all.filter(of_group).filter(|pid| state(pid.unsigned_abs()) != Some('Z')).count()
    };
    assert_eq!(members(), 1, "it has left one");
    assert_eq!(leaves.reap().unwrap(), Exit::Status(0));
    eventually("what it has left in its group has ended", || members() == 0);
}

#[tokio::test]
async fn of_a_process_whose_status_was_taken_it_is_not_known_and_nobody_else_is_hit() {
    let _alone = alone().await;
    let mut child = Command::new("sh").args(["-c", "exit 3"]).process_group(0).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let pidfd = pidfd(pid);
    assert_eq!(pid_of(&pidfd), Some(pid));
    child.wait().unwrap();
    assert_eq!(pid_of(&pidfd), None);
    assert_eq!(pid_of(fs::File::open("/dev/null").unwrap()), None);
    let process = Process::adopt(pid, pidfd).unwrap();
    process.ended().await;
    assert!(process.reap().is_err());
    process.signal(Signal::KILL);
}

#[tokio::test]
async fn workers_of_a_predecessor_are_told_from_what_they_have_started() {
    let _alone = alone().await;
    // A session of its own; a group of its own, but later.
    let script = "setsid sleep 1000 & set -m; sleep 1000 & exec sleep 1000";
    let subreaper = subreaper(&[(3, script), (4, "exec sleep 1000")]);
    let pids = &subreaper.pids;
    let keeper = subreaper.pid();
    let of = |generation| WorkerId { slot: SlotId(7), generation: Generation(generation) };
    let tree = || tree(keeper).into_iter().rev().collect::<Vec<_>>();
    eventually("they have started all", || {
        let started = tree();
        let count = |worker| started.iter().filter(|pid| worker_of(**pid) == Some(worker)).count();
        count(of(3)) == 3 && count(of(4)) == 1
    });
    assert_eq!(process_of(of(3), &tree()), Some(pids[0]));
    assert_eq!(process_of(of(4), &tree()), Some(pids[1]));
    assert_eq!(process_of(of(5), &tree()), None);
}

#[tokio::test]
async fn orphans_at_the_subreaper_end_with_their_worker_and_nobody_else_does() {
    let _alone = alone().await;
    let subreaper =
        subreaper(&[(0, "exec sleep 1000"), (1, "exec sleep 1000"), (2, "exec sleep 1000")]);
    let pids = &subreaper.pids;
    let keeper = subreaper.pid();
    let of = |generation| WorkerId { slot: SlotId(7), generation: Generation(generation) };
    let is_zombie = |pid: i32| state(pid.unsigned_abs()) == Some('Z');
    eventually("they have their environment", || {
        pids.iter().zip(0..).all(|(pid, generation)| worker_of(*pid) == Some(of(generation)))
    });
    // The last one it had before all.
    let mut orphans = Orphans::resume(Some(keeper), [pids[2]].into()).unwrap();
    assert!(pids[..2].iter().all(|pid| orphans.candidates().contains(pid)));
    let running = |pids: &[i32]| {
        let workers = pids.iter().zip(0..).map(|(pid, generation)| (of(generation), *pid));
        workers.collect::<std::collections::HashMap<_, _>>()
    };
    orphans.reap(&running(&pids[..2]));
    assert!(!is_zombie(pids[0]) && !is_zombie(pids[1]));
    orphans.reap(&running(&pids[..1]));
    eventually("whose worker is gone ends", || is_zombie(pids[1]));
    assert!(!is_zombie(pids[0]) && !is_zombie(pids[2]));
    // Nobody tells of its end, and it is looked at again all the same.
    orphans.child_ended().await;
    assert!(orphans.inherited().contains(&pids[2]));
}
