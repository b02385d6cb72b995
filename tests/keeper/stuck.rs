//! What stands still, or hides, and ends all the same.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::common::client::{ask, nth};
use crate::common::process::{Signal, exists, signal, state};
use crate::common::{Primary, eventually, own_directory};
use crate::patient;

/// A worker that leads its process group no more.
const LEAVES: &str = "
import os, runpy, sys, time
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    time.sleep(1000)
while os.getpgid(child) != child:
    time.sleep(0.001)
os.setpgid(0, child)
sys.argv = [sys.argv[1]]
runpy.run_path(sys.argv[0], run_name='__main__')
";

#[test]
fn a_worker_that_has_left_its_group_is_killed_and_keeps_nobody_from_stopping() {
    let worker = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/worker.py");
    let mut primary = patient(1).worker(&["python3", "-c", LEAVES, worker]).start();
    let worker = || {
        let workers = primary.ask("workers", json!({}));
        u32::try_from(workers[0]["pid"].as_u64().unwrap_or_default()).unwrap()
    };
    let before = worker();
    let group = fs::read_to_string(format!("/proc/{before}/stat")).unwrap();
    let group: u32 =
        group.rsplit(')').next().unwrap().split_whitespace().nth(2).unwrap().parse().unwrap();
    assert_ne!(group, before, "it leads its group");
    primary.ask("kill", json!({"slot": 0}));
    eventually("it has ended", || !exists(before));
    eventually("another one serves", || primary.status()["serving"] == 1);
    let last = worker();
    assert_ne!(last, before);
    primary.signal(Signal::TERM);
    primary.signal_again(Signal::TERM);
    primary.wait();
    assert!(!exists(last));
}

#[test]
fn a_primary_that_stands_still_ends_with_the_second_order() {
    let mut primary = patient(1).start();
    let (own, worker) = (primary.primary_pid(), primary.worker(0));
    signal(own, Signal::STOP);
    eventually("it stands still", || state(own) == Some('T'));
    primary.signal(Signal::TERM);
    primary.signal_again(Signal::TERM);
    assert_eq!(primary.wait().code(), Some(128 + 9));
    primary.wait_for_log("primary does not stop: killed, and its workers with it");
    assert!(!exists(own) && !exists(worker));
}

#[test]
fn a_keeper_that_stands_still_is_not_waited_for_without_end() {
    let primary = patient(1).start();
    signal(primary.pid(), Signal::STOP);
    eventually("it stands still", || state(primary.pid()) == Some('T'));
    let output = Command::new(env!("CARGO_BIN_EXE_sticky-lb"))
        .args(["stop", "--control"])
        .arg(primary.control())
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("primary has ended, but its keeper has not"), "{errors}");
}

#[test]
fn a_configuration_that_would_be_waited_for_is_refused_by_a_reload() {
    let config = own_directory().join("app.toml");
    fs::write(&config, "workers = 1\nport = 0\n").unwrap();
    let primary = Primary::from_flags(&["--config", config.to_str().unwrap()]).start();
    let before = ask(nth(0), primary.address()).pid();
    fs::remove_file(&config).unwrap();
    assert!(Command::new("mkfifo").arg(&config).status().unwrap().success());
    let (_, text) = primary.ask_in_vain("reload", json!({}));
    assert!(text.contains("it is no regular file"), "{text}");
    fs::remove_file(&config).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &config).unwrap();
    let (_, text) = primary.ask_in_vain("reload", json!({}));
    assert!(text.contains("it is no regular file"), "{text}");
    assert_eq!(ask(nth(0), primary.address()).pid(), before);
    primary.stop();
}
