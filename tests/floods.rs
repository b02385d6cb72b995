//! Workers that keep every rule and still would stop or flood a primary: what they send and what they let
//! wait costs other slots nothing, their clients little, and the log a few lines.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::thread;

use common::client::{ask, connect_from, read_answer, send_get};
use common::process::exists;
use common::{Builder, Primary, eventually};

fn slot_zero_plays(role: &str) -> Builder {
    Primary::with_workers(3).slot_zero_plays(role)
}

/// The lines of the log with this text.
fn count(primary: &Primary, text: &str) -> usize {
    primary.log().lines().filter(|line| line.contains(text)).count()
}

/// The lines that the log has left out.
fn suppressed(primary: &Primary) -> usize {
    let log = primary.log();
    let lines = log.lines().filter(|line| line.contains("log lines suppressed"));
    let numbers = lines.filter_map(|line| line.split_once("lines=")?.1.split(' ').next());
    numbers.filter_map(|number| number.parse::<usize>().ok()).sum()
}

#[test]
fn a_worker_that_never_acknowledges_stalls_once_is_aborted_and_its_client_is_rescued() {
    let primary =
        slot_zero_plays("never-acknowledges").arguments(&["--watchdog-timeout", "1s"]).start();
    let (clients, still) = (primary.clients_of(0, 40), primary.worker(0));
    let mut held = connect_from(clients[0], primary.address()).unwrap();
    send_get(&mut held, "/").unwrap();
    primary.wait_for_log("worker does not acknowledge");
    // It answers pings, which is not enough: its other clients go elsewhere meanwhile.
    let rescued = thread::spawn(move || read_answer(held));
    let mut others = clients[1..].iter();
    while exists(still) {
        let client = others.next_back().unwrap_or(&clients[1]);
        assert_ne!(ask(*client, primary.address()).slot(), 0);
    }
    let answer = rescued.join().unwrap().unwrap();
    assert_ne!(answer.slot(), 0, "the next one may be no better");
    primary.wait_for_log("does not acknowledge what it has received");
    primary.wait_for_log("did not acknowledge: was killed by signal 6");
    let log = primary.log();
    let stalls = log.lines().filter(|line| line.contains("worker does not acknowledge,"));
    assert_eq!(stalls.filter(|line| line.contains("generation=0")).count(), 1, "it is said once");
    assert_eq!(primary.stop()["lost"], 0);
}

/// Slot 0 floods the primary, and all others are served.
fn floods(role: &str) -> Primary {
    let primary = slot_zero_plays(role).start();
    let mut flooding = connect_from(primary.client_of(0), primary.address()).unwrap();
    send_get(&mut flooding, "/").unwrap();
    assert_eq!(read_answer(flooding).unwrap().slot(), 0);
    for slot in 1..3 {
        for client in primary.clients_of(slot, 50) {
            assert_eq!(ask(client, primary.address()).slot(), slot);
        }
    }
    primary
}

#[test]
fn lines_that_a_worker_can_provoke_are_limited_and_what_is_left_out_is_counted() {
    // For three seconds, with ten hurried grants in each, and a line for each grant.
    let primary = floods("asks-for-closes");
    let line = "last clients are closed at once";
    primary.wait_for_log("log lines suppressed");
    let written = || count(&primary, line) - count(&primary, "log lines suppressed");
    eventually("all are counted", || written() + suppressed(&primary) >= 20);
    assert!((10..20).contains(&written()), "{} lines", written());
    primary.stop();
}

#[test]
fn a_worker_that_repeats_itself_is_heard_once() {
    for (role, line) in [("floods-requests", "worker replacing"), ("floods-ready", "worker ready")]
    {
        let primary = floods(role);
        let of_slot_0 = |line: &str| {
            let log = primary.log();
            log.lines().filter(|it| it.contains(line) && it.contains("slot=0")).count()
        };
        let before = primary.worker(1);
        common::process::signal(before, common::process::Signal::KILL);
        eventually("a successor in another slot is heard", || {
            primary
                .log()
                .lines()
                .any(|it| it.contains("worker ready") && it.contains("slot=1 generation=1"))
        });
        assert_eq!(of_slot_0(line), 1, "{role}");
        assert_eq!(count(&primary, "supervisor is too busy"), 0, "{role}");
        primary.stop();
    }
}
