//! What follows the crash of a primary.

use std::fs;
use std::time::Duration;

use crate::common::client::{ask, connect_from, nth, read_answer, send_get};
use crate::common::process::{Signal, children, exists, signal, state, variable};
use crate::common::{Primary, eventually};
use crate::{count, keeps_program, patient};

#[test]
fn whoever_comes_while_there_is_no_primary_is_served_by_the_next() {
    let mut primary = patient(2).start();
    ask(nth(0), primary.address());
    let (keeper, before) = (primary.pid(), primary.primary_pid());
    eventually("the listener is kept", || keeps_program(&primary));
    signal(keeper, Signal::STOP);
    eventually("the keeper stands still", || state(keeper) == Some('T'));
    signal(before, Signal::KILL);
    eventually("the primary is dead", || state(before) == Some('Z'));
    let mut early: Vec<_> =
        (0..10).map(|n| connect_from(nth(n), primary.address()).unwrap()).collect();
    early.iter_mut().for_each(|client| send_get(client, "/").unwrap());
    signal(keeper, Signal::CONT);
    for client in early {
        read_answer(client).expect("the backlog is served");
    }
    let next = primary.primary_pid();
    assert!(next != before && primary.pid() == keeper, "{next} {before}");
    let recovered = primary.wait_for_event("recovered");
    assert_eq!((&recovered["workers"], &recovered["pid"]), (&2.into(), &keeper.into()));
    let status = primary.ask("status", serde_json::json!({}));
    assert_eq!((&status["pid"], &status["primary_pid"]), (&keeper.into(), &next.into()));
    let comm = fs::read_to_string(format!("/proc/{next}/comm")).unwrap();
    assert_eq!(comm, "sticky-lb\n", "it was started by a number");
    let names = |primary: u32| {
        let names = variable(primary, "LISTEN_FDNAMES").unwrap();
        let mut names: Vec<_> = names.split(':').map(str::to_owned).collect();
        names.sort();
        names
    };
    // And the same once more: what was kept before is kept still, once.
    let before = names(next);
    let last = primary.crash();
    primary.wait_for_event("recovered");
    assert_eq!(names(last), before);
    ask(nth(0), primary.address());
    primary.signal(Signal::TERM);
    assert_eq!(primary.wait().code(), Some(0));
}

#[test]
fn nothing_that_a_crashed_primary_has_left_outlives_the_end() {
    let hidden = "(setsid env -i sh -c 'echo $$ >> pids; exec sleep 1000' &)";
    let mut primary = patient(1).slot_zero(hidden).arguments(&["--orphan-timeout", "1h"]).start();
    let left = primary.worker(0);
    primary.crash();
    primary.wait_for_event("recovered");
    let mut pids = vec![left];
    eventually("the hidden process is there", || {
        let text = fs::read_to_string(primary.directory().join("pids")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        pids.len() >= 2
    });
    assert!(children(primary.pid()).contains(&left), "it has come to the keeper");
    primary.signal(Signal::TERM);
    assert_eq!(primary.wait().code(), Some(0));
    assert!(pids.iter().all(|pid| !exists(*pid)), "{pids:?}");
}

#[test]
fn what_a_crash_has_left_is_buried_when_it_ends() {
    let primary = patient(1).arguments(&["--orphan-timeout", "1h"]).start();
    let left = primary.worker(0);
    let own = primary.crash();
    primary.wait_for_event("recovered");
    signal(left, Signal::KILL);
    eventually("no zombie", || !exists(left));
    let next = primary.worker(0);
    assert_eq!(children(primary.pid()), [own]);
    assert_eq!(children(own), [next]);
}

#[test]
fn the_next_primary_is_the_program_that_ran_whatever_its_file_is_by_now() {
    // As a release does that replaces files.
    let launcher = ["sh", "-c", "cp \"$0\" it; exec ./it \"$@\""];
    let primary = patient(1).launcher(&launcher).start();
    let file = primary.directory().join("it");
    let program = variable(primary.primary_pid(), "STICKY_LB_PROGRAM");
    assert_eq!(program.as_deref(), file.to_str());
    for text in [Some("#!/bin/sh\nexit 7\n"), None] {
        fs::remove_file(&file).unwrap();
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let next = primary.crash();
        primary.wait_for_event("recovered");
        assert_eq!(variable(next, "STICKY_LB_PROGRAM").as_deref(), file.to_str());
    }
    primary.stop();
}

#[test]
fn a_signal_that_would_dump_core_is_a_crash_too() {
    let primary = patient(1).start();
    let before = primary.primary_pid();
    signal(before, Signal::ABORT);
    eventually("another primary", || primary.primary_pid() != before);
    primary.wait_for_event("recovered");
    primary.wait_for_log("primary crashed reason=was killed by signal 6");
    primary.stop();
}

/// With a crash always too soon.
fn impatient() -> Primary {
    Primary::with_workers(1)
        .arguments(&["--keeper-min-uptime", "1h", "--orphan-timeout", "1h"])
        .start()
}

/// Lets so many of them crash.
fn crash(primary: &Primary, times: u32) {
    for _ in 1..times {
        primary.crash();
    }
    signal(primary.primary_pid(), Signal::KILL);
}

#[test]
fn primaries_that_keep_dying_are_given_up_after_longer_and_longer_pauses() {
    let mut primary = impatient();
    crash(&primary, 8);
    assert_eq!(primary.wait().code(), Some(1));
    let log = primary.log();
    let pauses: Vec<_> = log
        .lines()
        .filter_map(|line| line.split_once("pause_ms=")?.1.parse::<u32>().ok())
        .collect();
    assert_eq!(pauses, [0, 100, 200, 400, 800, 1_600, 3_200]);
    let last = log.lines().last().unwrap();
    assert_eq!(last, "sticky-lb: primary ended 8 times in a row, each too soon: given up");
}

#[test]
fn a_stop_while_there_is_no_primary_ends_what_is_left() {
    let mut primary = impatient();
    let worker = primary.worker(0);
    crash(&primary, 6);
    primary.wait_for_log("pause_ms=1600");
    primary.signal(Signal::TERM);
    assert_eq!(primary.wait().code(), Some(0));
    assert!(primary.log().contains("stopping while there is no primary"), "{}", primary.log());
    assert!(!exists(worker));
}

#[test]
fn a_second_stop_while_there_is_no_primary_waits_for_nobody() {
    let script = "trap '' TERM; echo $$ >> pids; while :; do sleep 0.05; done";
    let mut primary = Primary::with_workers(1)
        .arguments(&["--keeper-min-uptime", "1h", "--kill-timeout", "1h", "--listen-timeout", "1h"])
        .worker(&["sh", "-c", script])
        .start_listening();
    eventually("a worker", || primary.directory().join("pids").exists());
    crash(&primary, 6);
    primary.wait_for_log("pause_ms=1600");
    primary.signal(Signal::TERM);
    primary.wait_for_log("stopping while there is no primary");
    primary.signal_again(Signal::TERM);
    assert_eq!(primary.wait().code(), Some(0));
}

#[test]
fn other_signals_wait_for_the_next_primary() {
    let primary = impatient();
    crash(&primary, 6);
    primary.wait_for_log("pause_ms=1600");
    for signal in [Signal::HUP, Signal::USR1, Signal::HUP] {
        primary.signal(signal);
    }
    primary.wait_for_log("signal=\"USR1\"");
    primary.wait_for_log("signal=\"HUP\"");
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    assert_eq!(count(&primary, "signal=\"HUP\""), 1, "{}", primary.log());
    primary.stop();
}

#[test]
fn signals_that_come_while_a_primary_starts_do_not_kill_it() {
    let primary = patient(1).start();
    for _ in 0..5 {
        let before = primary.primary_pid();
        signal(before, Signal::KILL);
        // Until there is another one, and while that has no handlers yet.
        eventually("another primary", || {
            primary.signal(Signal::USR1);
            primary.primary_pid() != before
        });
        (0..100).for_each(|_| primary.signal(Signal::USR1));
        primary.wait_for_event("recovered");
    }
    assert_eq!(count(&primary, "primary crashed reason"), 5, "{}", primary.log());
    primary.stop();
}

#[test]
fn as_pid_1_it_restarts_and_upgrades_a_primary_too() {
    let launcher =
        ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let mut primary = patient(1).launcher(&launcher).start();
    let first = children(primary.pid())[0];
    let is_primary = |pid: &u32| variable(*pid, "STICKY_LB_KEEPER").as_deref() == Some("1");
    for _ in 0..3 {
        let before = children(first).into_iter().find(is_primary).unwrap();
        signal(before, Signal::KILL);
        primary.wait_for_event("recovered");
        assert!(!children(first).contains(&before), "a zombie");
        ask(nth(0), primary.address());
        let after = children(first).into_iter().find(is_primary).unwrap();
        signal(first, Signal::USR2);
        primary.wait_for_event("upgraded");
        ask(nth(0), primary.address());
        assert_eq!(children(first).into_iter().find(is_primary), Some(after), "the same process");
    }
    signal(first, Signal::TERM);
    assert_eq!(primary.wait().code(), Some(0));
    assert!(!exists(first));
}

#[test]
fn a_primary_is_there_again_soon() {
    let primary = patient(1).start();
    let start = std::time::SystemTime::now();
    primary.crash();
    primary.wait_for_event("recovered");
    // Far more than it takes; a pause would be longer.
    assert!(start.elapsed().unwrap() < Duration::from_secs(5));
}
