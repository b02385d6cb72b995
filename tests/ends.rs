//! The ends of connections on the real binary: what a worker's end does to those that are open in it is
//! counted and said, and no WebSocket that the library has ends without a close frame.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::client::{ask, nth};
use common::counting::Client;
use common::process::{self, Signal};
use common::{Builder, Primary, eventually, example};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const CLIENTS: u16 = 8;

fn library(workers: u16, role: &str) -> Builder {
    Primary::with_workers(workers).worker(&[&example("library_worker"), role]).arguments(&[
        "--min-uptime",
        "0",
        "--kill-timeout",
        "3s",
        "--drain-timeout",
        "6s",
    ])
}

fn open(primary: &Primary, path: &str) -> Vec<Client> {
    let clients = (0..CLIENTS).map(|client| Client::open(client, primary, path)).collect();
    eventually("all are counted", || primary.status()["connections"] == CLIENTS);
    clients
}

/// How the connections of workers ended that are gone, in the order of the events.
fn ended(primary: &Primary) -> Vec<Value> {
    let (events, _) = primary.begin("events", json!({})).all();
    events.into_iter().filter(|event| !event["ended"].is_null()).collect()
}

/// `open`, then finished, migrated, closed, protected, cut.
fn counts(event: &Value) -> [u64; 6] {
    ["open", "finished", "migrated", "closed", "protected", "cut"]
        .map(|name| event["ended"][name].as_u64().unwrap())
}

/// Of all workers that are gone.
fn sum(primary: &Primary) -> [u64; 6] {
    let mut sum = [0; 6];
    for event in ended(primary) {
        sum.iter_mut().zip(counts(&event)).for_each(|(sum, count)| *sum += count);
    }
    sum
}

/// A reload and a stop close all clients of a worker that does so, each with a close frame.
fn closes(role: &str) -> String {
    let primary = library(1, role).start();
    let clients = open(&primary, "/echo");
    eventually("all are known", || primary.status()["websockets"] == CLIENTS);
    primary.ask("reload", json!({}));
    for client in clients {
        assert_eq!(u16::from(client.close_code()), 1012, "{role}");
    }
    eventually("the worker's end", || !ended(&primary).is_empty());
    let worker = ended(&primary).remove(0);
    let all = u64::from(CLIENTS);
    assert_eq!(counts(&worker), [all, 0, 0, all, 0, 0], "{role}: {worker}");
    let clients = open(&primary, "/echo");
    primary.signal(Signal::TERM);
    for client in clients {
        assert_eq!(client.close_code(), CloseCode::Away, "{role}");
    }
    let log = primary.log();
    let stopped = primary.stop_finished();
    let counts = ["killed_workers", "cut_connections", "closed_connections"].map(|it| &stopped[it]);
    assert_eq!(counts, [&json!(0), &json!(0), &json!(2 * CLIENTS)], "{role}");
    log
}

#[test]
fn an_accept_loop_that_knows_no_sessions_closes_its_clients_with_a_frame() {
    closes("plain-loop");
}

#[test]
fn an_accept_loop_that_waits_for_nobody_closes_its_clients_with_a_frame() {
    let log = closes("plain-loop-forgets");
    assert!(log.contains("await Drain::completed"), "{log}");
}

#[test]
fn migration_that_is_enabled_without_sessions_closes_clients_with_a_frame() {
    let log = closes("plain-loop-enabled");
    let hint = "a connection is served without Connection::into_session";
    // Once by each of the two workers.
    assert_eq!(log.matches(hint).count(), 2, "{log}");
}

#[test]
fn sessions_that_declare_what_is_not_enabled_are_closed_with_a_frame() {
    let log = closes("declares-only");
    assert!(log.contains("Worker::enable_migration was not called"), "{log}");
}

#[test]
fn sockets_that_the_app_has_taken_are_said_to_be_cut() {
    let primary = library(1, "takes-apart").start();
    let clients = open(&primary, "/echo");
    primary.signal(Signal::TERM);
    primary.wait_for_log("was killed at the end of its grace period");
    let hint = "connections taken by Connection::into_parts are still open";
    assert_eq!(primary.log().matches(hint).count(), 1, "{}", primary.log());
    let stopped = primary.stop_finished();
    let said = (&stopped["how"], &stopped["cut_connections"]);
    assert_eq!(said, (&"graceful".into(), &CLIENTS.into()));
    drop(clients);
}

#[test]
fn killed_workers_clients_are_counted_everywhere() {
    let primary = library(2, "sessions")
        .arguments(&["--admin", "127.0.0.1:0", "--admin-token-file", "none"])
        .start();
    let clients = open(&primary, "/stays");
    for slot in 0..2 {
        process::signal(primary.worker(slot), Signal::KILL);
    }
    eventually("both are gone", || ended(&primary).len() == 2);
    let all = u64::from(CLIENTS);
    assert_eq!(sum(&primary), [all, 0, 0, 0, 0, all]);
    for event in ended(&primary) {
        let open = counts(&event)[0];
        let text = event["text"].as_str().unwrap();
        assert!(text.ends_with(&format!("; {open} open: {open} cut")), "{text}");
        let field = format!("open={open} finished=0 migrated=0 closed=0 protected=0 cut={open}");
        assert!(primary.log().contains(&field), "{field}: {}", primary.log());
    }
    eventually("status says so", || primary.status()["connections_cut"] == CLIENTS);
    let metric = format!("sticky_lb_worker_end_connections_total{{result=\"cut\"}} {CLIENTS}\n");
    eventually("the metric says so", || primary.get("/metrics").body.contains(&metric));
    drop(clients);
    assert_eq!(primary.stop()["cut_connections"], CLIENTS);
}

#[test]
fn those_that_migrate_or_finish_are_no_others() {
    let primary = library(1, "sessions").start();
    let mut clients = open(&primary, "/count");
    primary.ask("reload", json!({}));
    eventually("all have migrated", || clients.iter_mut().all(|client| client.ask() >= 2));
    eventually("the worker's end", || ended(&primary).len() == 1);
    let all = u64::from(CLIENTS);
    assert_eq!(counts(&ended(&primary)[0]), [all, 0, all, 0, 0, 0]);
    // A client that has gone by the end is finished.
    drop(clients);
    let stopped = primary.stop();
    let ends = ["cut_connections", "migrated_connections", "closed_connections"];
    assert_eq!(ends.map(|name| &stopped[name]), [&json!(0), &json!(CLIENTS), &json!(0)]);
}

#[test]
fn protected_sessions_are_not_counted_as_cut() {
    let primary = library(2, "sessions").arguments(&["--protect", "--max-restarts=1000"]).start();
    let mut clients = open(&primary, "/count");
    assert!(clients.iter_mut().all(|client| client.ask() == 1));
    eventually("all are protected", || primary.status()["sessions_protected"] == CLIENTS);
    for slot in 0..2 {
        process::signal(primary.worker(slot), Signal::KILL);
        eventually("it is gone", || ended(&primary).len() == usize::from(slot) + 1);
        eventually("all go on", || primary.status()["sessions_protected"] == CLIENTS);
    }
    assert!(clients.iter_mut().all(|client| client.ask() >= 2));
    let [_, _, _, closed, protected, cut] = sum(&primary);
    assert!((closed, cut) == (0, 0) && protected >= u64::from(CLIENTS), "{:?}", sum(&primary));
    drop(clients);
    assert_eq!(primary.stop()["cut_connections"], 0);
}

#[test]
fn an_app_that_protects_nothing_is_named_at_the_first_crash() {
    let primary = Primary::with_workers(2).arguments(&["--protect", "--min-uptime", "0"]).start();
    let hint = "none of its connections was protected";
    for slot in 0..2 {
        let client = primary.client_of(slot);
        let _held = common::client::connect_from(client, primary.address()).unwrap();
        eventually("it is a worker's", || primary.status()["connections"].as_u64() > Some(0));
        process::signal(primary.worker(slot), Signal::KILL);
        eventually("it is gone", || ended(&primary).len() == usize::from(slot) + 1);
    }
    assert_eq!(primary.log().matches(hint).count(), 1, "{}", primary.log());
    primary.stop();
}

#[test]
fn counts_of_crashes_never_go_back() {
    let primary = Primary::with_workers(3)
        .arguments(&["--admin", "127.0.0.1:0", "--admin-token-file", "none", "--min-uptime", "0"])
        .start();
    process::signal(primary.worker(2), Signal::KILL);
    eventually("the crash", || primary.status()["crashes"] == 1);
    eventually("its successor", || primary.status()["serving"] == 3);
    let series = "sticky_lb_slot_crashes_total{slot=\"2\"} 1\n";
    eventually("it is counted", || primary.get("/metrics").body.contains(series));
    primary.ask("scale", json!({"to": "2"}));
    eventually("two are left", || primary.workers().len() == 2);
    eventually("the slot is gone", || {
        !primary.get("/metrics").body.contains("sticky_lb_slot_workers{slot=\"2\"}")
    });
    assert_eq!(primary.status()["crashes"], 1);
    assert!(primary.get("/metrics").body.contains(series));
    primary.stop();
}

#[test]
fn a_worker_that_counts_more_connections_than_it_can_have_is_named_once() {
    let primary = Primary::with_workers(1).test_worker(&["counts-too-many"]).start();
    ask(nth(0), primary.address());
    let hint = "worker counts more connections than it has descriptors open";
    eventually("the warning", || {
        primary.status();
        primary.log().contains(hint)
    });
    assert_eq!(primary.log().matches(hint).count(), 1);
    primary.stop();
}
