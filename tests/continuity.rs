//! What `scripts/demo-continuity` shows, in a smaller share: hundreds of WebSockets that count with
//! their workers, both ways, while workers are replaced, added and taken away. And what
//! `scripts/prove-scale` does with 100,000.

#![allow(clippy::print_stdout, reason = "what the demo shows is seen if a test fails")]

mod common;

use std::process::{Command, Output};

use common::example;
use serde_json::Value;

/// The demo with its shortest row of acts, and whether all was as expected.
fn demo(arguments: &[&str]) -> (Value, bool) {
    run(&[&["demo", "--quick", "--rate", "5", "--push", "200"], arguments].concat())
}

/// A role that tells what it found as a line of JSON.
fn run(arguments: &[&str]) -> (Value, bool) {
    let mut command = Command::new(example("continuity"));
    // Before arguments that are sticky-lb's.
    let (role, arguments) = arguments.split_first().expect("a role");
    command.args([role, "--json"]).args(arguments);
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    let (said, shown) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let report = serde_json::from_str(&said);
    let report: Value = report.unwrap_or_else(|error| panic!("{error}: {said:?} {shown}"));
    println!("{shown}{report}");
    (report, status.success())
}

/// Nothing happens to the primary, and no worker is killed.
const WORKERS_ALONE: &[&str] = &["--upgrades", "0", "--crashes", "0", "--worker-crashes", "0"];

#[test]
fn workers_that_migrate_no_session_are_seen_to_go() {
    let (report, as_expected) = demo(&[WORKERS_ALONE, &["--stay"]].concat());
    assert!(!as_expected);
    let disconnects = report["disconnects"].as_u64();
    // Each restart cuts all clients, and so do fewer workers.
    assert!(disconnects > Some(2 * 300), "{disconnects:?}");
    assert_eq!((&report["wrong_messages"], &report["moves"]), (&0.into(), &0.into()));
    let complaint = report["complaints"][0].as_str().unwrap_or_default();
    assert!(complaint.contains("connections were closed with 10"), "{complaint}");
}

#[test]
fn no_client_notices_an_operators_work() {
    let (report, as_expected) = demo(&[]);
    assert!(as_expected, "{}", report["complaints"]);
    // But for those that were in the middle of a message when their worker was killed.
    let ends = report["primary"]["session_recovery_failures"].as_object().expect("by reason");
    let not_at_rest: u64 = ends.values().filter_map(Value::as_u64).sum();
    let disconnects = report["disconnects"].as_u64().expect("a number");
    assert!(disconnects <= not_at_rest && not_at_rest < 10, "{report}");
    assert_eq!(report["wrong_messages"], 0);
    assert_eq!(report["opened"], 300 + disconnects);
    // Each restart migrates all clients.
    assert!(report["moves"].as_u64() > Some(2 * 300), "{report}");
}

#[test]
fn workers_that_leave_too_early_are_seen_to_lose_messages() {
    let (report, as_expected) =
        demo(&[WORKERS_ALONE, &["--hasty", "--restarts", "1", "--connections", "50"]].concat());
    assert!(!as_expected && report["wrong_messages"].as_u64() > Some(50), "{report}");
}

#[test]
fn clients_that_are_shed_are_told_why() {
    // All four workers drain nearly at once, evenly over some five seconds: 60 clients a second.
    let limits = ["--most-reconnects", "90", "--", "--drain-timeout", "6s"];
    let (report, as_expected) = demo(&[WORKERS_ALONE, &["--mode", "close"], &limits[..]].concat());
    assert!(as_expected, "{}", report["complaints"]);
    assert!(report["disconnects"].as_u64() > Some(2 * 300), "{report}");
}

#[test]
fn workers_that_send_close_frames_close_their_clients_properly() {
    let (report, as_expected) = demo(&[WORKERS_ALONE, &["--stay", "--expect", "close"]].concat());
    assert!(as_expected && report["disconnects"].as_u64() > Some(0), "{report}");
    // All at once.
    let (report, as_expected) = demo(
        &[
            WORKERS_ALONE,
            &["--stay", "--expect", "close", "--most-reconnects", "5", "--restarts", "1"],
        ]
        .concat(),
    );
    assert!(!as_expected && report["most_reconnects_in_a_second"].as_u64() > Some(5), "{report}");
}

#[test]
fn thousands_of_silent_websockets_take_little_and_none_is_cut() {
    let arguments = ["scale", "--connections", "2000", "--silence", "5"];
    let (found, as_expected) = run(&arguments);
    assert!(as_expected, "{}", found["complaints"]);
    assert_eq!((&found["disconnects"], &found["wrong_messages"]), (&0.into(), &0.into()));
    // Each restart migrates all clients, and more and fewer workers some.
    assert!(found["migrations"].as_u64() > Some(3 * 2_000), "{found}");
    assert!(found["answered"].as_u64() > Some(2_000), "{found}");
    // A build without optimization takes several times as much as one with it.
    assert!(found["silent_cpu_percent"].as_f64() < Some(1.0), "{found}");
    assert!(found["memory"]["front"].as_f64() < Some(300.0), "{found}");
}
