//! The keeper and its primary, which are one program from outside: what happens to the one when
//! something happens to the other. Needs root: the test plays a primary that stores descriptors.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod crashes;
mod kept;
mod stuck;
mod taken;
mod terminal;

use std::os::unix::process::ExitStatusExt;

use common::client::{ask, nth};
use common::process::{Signal, children, descriptors, exists, signal, state, variable};
use common::{Builder, Primary, eventually};
use rustix::process::{Pid, kill_process_group};
use serde_json::json;

/// With the crash of a primary never too soon.
fn patient(workers: u16) -> Builder {
    Primary::with_workers(workers).arguments(&["--keeper-min-uptime", "0"])
}

/// Whether the keeper has a copy of what the primary keeps.
fn keeps_program(primary: &Primary) -> bool {
    let program = env!("CARGO_BIN_EXE_sticky-lb");
    descriptors(primary.pid()).iter().any(|(_, link)| link == program)
}

/// How often it has logged that.
fn count(primary: &Primary, text: &str) -> usize {
    primary.log().matches(text).count()
}

#[test]
fn the_keeper_is_the_process_that_others_know() {
    let primary = Primary::with_workers(1).start_listening();
    assert_eq!(primary.wait_for_event("ready")["pid"], primary.pid());
    let own = primary.primary_pid();
    assert_ne!(own, primary.pid());
    assert_eq!(children(primary.pid()), [own]);
    assert_eq!(children(own), [primary.worker(0)]);
    assert_eq!(variable(own, "STICKY_LB_KEEPER"), Some(primary.pid().to_string()));
    assert_eq!(
        variable(own, "STICKY_LB_PROGRAM").as_deref(),
        Some(env!("CARGO_BIN_EXE_sticky-lb"))
    );
    let words = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(words(own), words(primary.pid()));
    let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!((name(own), name(primary.pid())), ("sticky-lb\n".into(), "sticky-lb\n".into()));
    primary.stop();
}

#[test]
fn without_a_keeper_there_is_one_process() {
    for flag in ["--no-keeper", "--keeper=false"] {
        let mut primary = Primary::with_workers(1).arguments(&[flag]).start();
        assert_eq!(children(primary.pid()), [primary.worker(0)]);
        let worker = primary.worker(0);
        primary.signal(Signal::KILL);
        assert_eq!(primary.wait().signal(), Some(9));
        signal(worker, Signal::KILL);
    }
}

/// As a shell's `<(...)` is one: who reads it first has it all.
#[test]
fn a_configuration_that_can_be_read_once_is_read_once() {
    let directory = common::own_directory();
    let pipe = directory.join("pipe");
    let make = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(make.success());
    let writer = pipe.clone();
    let writing = std::thread::spawn(move || std::fs::write(writer, "workers = 3\nport = 0"));
    let primary = Primary::from_flags(&["--config", pipe.to_str().unwrap()]).start();
    writing.join().unwrap().unwrap();
    for _ in 0..2 {
        assert_eq!(primary.status()["workers"], 3);
        primary.crash_and_recover();
    }
    primary.stop();
}

#[test]
fn each_signal_reaches_the_primary_once() {
    for (sent, said) in [
        (Signal::HUP, "signal=\"HUP\""),
        (Signal::USR1, "signal=\"USR1\""),
        (Signal::USR2, "signal=\"USR2\""),
        (Signal::TTIN, "signal=\"TTIN\""),
        (Signal::TTOU, "signal=\"TTOU\""),
        (Signal::TERM, "signal=\"TERM\""),
        (Signal::INT, "signal=\"INT\""),
        (Signal::QUIT, "signal=\"QUIT\""),
    ] {
        let mut primary = Primary::with_workers(2).start();
        primary.signal(sent);
        primary.wait_for_log(said);
        if !matches!(sent, Signal::TERM | Signal::INT | Signal::QUIT) {
            primary.signal(Signal::TERM);
        }
        assert_eq!(primary.wait_for_event("stopped")["how"], "graceful");
        assert_eq!(primary.wait().code(), Some(0));
        assert_eq!(count(&primary, said), 1, "{said}");
    }
}

#[test]
fn a_signal_to_the_group_is_one_to_the_program() {
    let primary = Primary::with_workers(1).start();
    let group = i32::try_from(primary.pid()).ok().and_then(Pid::from_raw).unwrap();
    kill_process_group(group, Signal::TERM).unwrap();
    assert_eq!(primary.wait_for_event("stopped")["how"], "graceful");
    primary.wait_for_log("signal=\"TERM\"");
    assert_eq!(count(&primary, "signal received"), 1);
}

#[test]
fn a_signal_to_all_processes_of_that_name_stops_gracefully() {
    let primary = Primary::with_workers(1).start();
    let own = primary.primary_pid();
    signal(own, Signal::STOP);
    eventually("it stands still", || state(own) == Some('T'));
    // As `pkill` does. Two of a kind that wait at the same time would be one anyway.
    signal(own, Signal::TERM);
    primary.signal(Signal::INT);
    eventually("both wait", || {
        let status = std::fs::read_to_string(format!("/proc/{own}/status")).unwrap();
        status.lines().any(|line| line.starts_with("ShdPnd:") && line.ends_with("4002"))
    });
    signal(own, Signal::CONT);
    assert_eq!(primary.stop_finished()["how"], "graceful");
}

#[test]
fn the_exit_code_is_the_primarys() {
    let (code, log) = Primary::with_workers(1).test_worker(&["exits"]).run();
    assert_eq!(code, Some(1), "{log}");
    let (code, log) = Primary::from_flags(&["--port", "0", "--log-level", "loud"]).run();
    assert_eq!(code, Some(2), "{log}");
    assert_eq!(log.matches("loud").count(), 2, "said once: {log}");
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    let taken = ["--host", "127.0.0.1", "--port", &port];
    let (code, log) = Primary::from_flags(&taken).run();
    assert_eq!(code, Some(1), "{log}");
    assert_eq!(log.matches("is in use").count(), 1, "said once: {log}");
}

#[test]
fn a_primary_that_is_killed_while_it_stops_is_not_followed() {
    for command in [false, true] {
        let mut primary = Primary::with_workers(1).arguments(&["--lameduck", "1h"]).start();
        let worker = primary.worker(0);
        let asked = command.then(|| primary.begin("stop", json!({})));
        if asked.is_none() {
            primary.signal(Signal::TERM);
        }
        primary.wait_for_log("stopping gracefully");
        eventually("the keeper knows", || !keeps_program(&primary));
        signal(primary.primary_pid(), Signal::KILL);
        assert_eq!(primary.wait().code(), Some(128 + 9));
        primary.wait_for_log("primary crashed while stopping");
        signal(worker, Signal::KILL);
    }
}

#[test]
fn when_the_keeper_is_killed_everything_stops_gracefully() {
    let mut primary = Primary::with_workers(2).start();
    let (own, workers) = (primary.primary_pid(), primary.workers());
    ask(nth(0), primary.address());
    primary.signal(Signal::KILL);
    assert_eq!(primary.wait().signal(), Some(9));
    primary.wait_for_log("keeper exited, everything stops");
    assert_eq!(primary.wait_for_event("stopped")["how"], "graceful");
    eventually("the primary ends", || !exists(own) || state(own) == Some('Z'));
    for (pid, ..) in workers {
        eventually("its workers end", || !exists(pid) || state(pid) == Some('Z'));
    }
}
