//! Crashes of a primary whose descriptors systemd keeps, on the real binary: the test plays systemd, with
//! `tests/managers/systemd.py`.

mod common;

use std::fs;
use std::net::TcpStream;

use common::client::{ask, nth};
use common::counting::Client;
use common::process::{self, Signal};
use common::{Builder, Primary, eventually, example};
use serde_json::json;

const MANAGER: [&str; 2] =
    ["python3", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/managers/systemd.py")];

fn managed(workers: u16) -> Builder {
    Primary::with_workers(workers).launcher(&MANAGER)
}

fn own_pid(primary: &Primary) -> u32 {
    let pid = primary.status()["pid"].as_u64().expect("a process");
    u32::try_from(pid).expect("a process")
}

/// Kills the primary, and waits until the next one answers.
fn crash(primary: &Primary) {
    let before = primary.status();
    process::signal(own_pid(primary), Signal::KILL);
    primary.wait_for_recovery(&before);
}

#[test]
fn nobody_notices_that_the_primary_was_killed() {
    let primary = managed(2).worker(&[&example("library_worker"), "sessions"]).start();
    let mut clients: Vec<_> = (0..10).map(|n| Client::open(n, &primary, "/count")).collect();
    let serving = primary.serving();
    for recoveries in 1..=3 {
        crash(&primary);
        clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 1));
        let status = primary.status();
        assert_eq!(status["recoveries"], recoveries);
        assert_eq!(status["pid"], status["primary_pid"], "there is no keeper");
        eventually("its workers serve", || primary.serving() == serving);
        ask(nth(50), primary.address());
    }
    primary.upgrade();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 1));
    primary.ask("reload", json!({}));
    eventually("all have moved", || clients.iter_mut().all(|client| client.ask() == 2));
    primary.stop();
}

/// Stops a process, does something, and lets it go on.
fn while_stopped(pid: u32, act: impl FnOnce()) {
    process::signal(pid, Signal::STOP);
    eventually("it is stopped", || process::state(pid) == Some('T'));
    act();
    process::signal(pid, Signal::CONT);
}

#[test]
fn workers_that_die_after_that_are_followed_by_others() {
    let primary = managed(2).start();
    crash(&primary);
    let worker = |slot| ask(primary.client_of(slot), primary.address()).pid();
    let olds = [worker(0), worker(1)];
    // The manager reaps both. Before that the primary reads a status …
    while_stopped(primary.pid(), || {
        process::signal(olds[0], Signal::KILL);
        primary.wait_for_log("was killed by signal 9");
    });
    // … and afterwards cannot know it.
    while_stopped(own_pid(&primary), || {
        process::signal(olds[1], Signal::KILL);
        eventually("the manager has reaped it", || !process::exists(olds[1]));
    });
    primary.wait_for_log("known only to the subreaper that has taken it over");
    for slot in [0_u16, 1] {
        eventually("the next one serves", || {
            primary
                .serving()
                .iter()
                .any(|(other, generation, _)| (*other, *generation) == (slot.into(), 1))
        });
        assert_ne!(worker(slot), olds[usize::from(slot)]);
    }
    primary.stop();
}

#[test]
fn nothing_is_kept_after_the_end_and_nobody_waits_for_it() {
    // The end comes when the test wants it.
    let lingers = format!(
        "{} demo-worker; until test -e end; do sleep 0.05; done",
        env!("CARGO_BIN_EXE_sticky-lb")
    );
    let arguments = ["--kill-timeout", "60s"];
    let primary = managed(2).worker(&["sh", "-c", &lingers]).arguments(&arguments).start();
    crash(&primary);
    let file = |name| primary.directory().join(name);
    let heard = || fs::read_to_string(file("heard")).unwrap_or_default();
    primary.signal(Signal::TERM);
    eventually("nobody listens any more", || TcpStream::connect(primary.address()).is_err());
    assert!(!heard().contains("left"), "{}", heard());
    fs::write(file("end"), "").expect("it can be written");
    eventually("the end", || heard().contains("left"));
    assert!(heard().ends_with("left 0\n"), "{}", heard());
    primary.stop_finished();
}
