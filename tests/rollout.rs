//! Rolling restarts and scaling: new workers first, old ones kept until the new have proved
//! themselves, and nobody loses a request.

mod common;

use std::fs;

use common::client::{ask, connect_from, read_answer, send_get};
use common::load::Load;
use common::process::{Signal, exists, signal};
use common::{Builder, Primary, eventually};

/// Demo workers that do `shell` first where the file `broken` is in their directory.
fn breakable(workers: u16, shell: &str) -> Builder {
    let demo = env!("CARGO_BIN_EXE_sticky-lb");
    let script = format!("if [ -e broken ]; then {shell}; fi; exec {demo} demo-worker");
    Primary::with_workers(workers).worker(&["sh", "-c", &script])
}

fn break_code(primary: &Primary) {
    fs::write(primary.directory().join("broken"), "").expect("a new file");
}

fn pids(primary: &Primary) -> Vec<(u16, u32)> {
    let mut pids: Vec<_> =
        primary.workers().into_iter().map(|(pid, slot, _)| (slot, pid)).collect();
    pids.sort_unstable();
    pids
}

/// How often to restart: `scripts/prove-rollout` asks for more.
fn restarts() -> u32 {
    std::env::var("STICKY_LB_RESTARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(50)
}

#[test]
fn a_rolling_restart_replaces_every_worker_and_moves_nobody() {
    let primary = Primary::with_workers(3).start();
    let clients: Vec<_> = (0..3).map(|slot| primary.client_of(slot)).collect();
    let before = pids(&primary);
    primary.signal(Signal::HUP);
    let reloaded = primary.wait_for_event("reloaded");
    assert_eq!((&reloaded["result"], &reloaded["replaced"]), (&"done".into(), &3.into()));
    eventually("the old ones are gone", || before.iter().all(|(_, pid)| !exists(*pid)));
    for (slot, client) in (0..).zip(clients) {
        assert_eq!(ask(client, primary.address()).slot(), slot);
    }
    let stopped = primary.stop();
    assert_eq!((&stopped["fallbacks"], &stopped["lost"]), (&0.into(), &0.into()));
}

#[test]
fn rolling_restarts_under_load_fail_no_request() {
    let primary = Primary::with_workers(2).arguments(&["--min-uptime", "0"]).start();
    let load = Load::start(primary.address());
    for _ in 0..restarts() {
        primary.signal(Signal::HUP);
        assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
        load.wait_for_more(5);
    }
    let answered = load.stop();
    let stopped = primary.stop();
    println!("{answered} requests answered during {} rolling restarts, {stopped}", restarts());
    assert_eq!((&stopped["lost"], &stopped["fallbacks"]), (&0.into(), &0.into()));
}

#[test]
fn code_that_does_not_come_up_changes_nothing() {
    for (shell, reason) in [
        ("exit 3", "exited with status 3"),
        ("kill -9 $$", "was killed by signal 9"),
        ("exec sleep 100", "was not ready"),
    ] {
        let primary = breakable(3, shell).arguments(&["--listen-timeout", "700ms"]).start();
        let before = pids(&primary);
        let load = Load::start(primary.address());
        break_code(&primary);
        primary.signal(Signal::HUP);
        let reloaded = primary.wait_for_event("reloaded");
        assert_eq!((&reloaded["result"], &reloaded["replaced"]), (&"aborted".into(), &0.into()));
        let said = reloaded["reason"].as_str().unwrap();
        assert!(said.contains(reason), "{said}");
        load.wait_for_more(20);
        load.stop();
        eventually("the old ones alone are left", || pids(&primary) == before);
        fs::remove_file(primary.directory().join("broken")).unwrap();
        primary.signal(Signal::HUP);
        assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
        assert_eq!(primary.stop()["lost"], 0);
    }
}

#[test]
fn code_that_dies_young_leaves_its_place_to_the_old() {
    let primary = breakable(2, "(sleep 0.4; kill -9 $$) & true").start();
    let before = pids(&primary);
    break_code(&primary);
    primary.signal(Signal::HUP);
    let reloaded = primary.wait_for_event("reloaded");
    assert_eq!(reloaded["result"], "aborted", "{reloaded}");
    eventually("the old ones alone are left", || pids(&primary) == before);
    for (slot, pid) in before {
        assert_eq!(ask(primary.client_of(slot), primary.address()).pid(), pid);
    }
    assert_eq!(primary.stop()["lost"], 0);
}

#[test]
fn a_crash_after_an_aborted_roll_out_is_mended_with_what_worked() {
    let primary = breakable(1, "exit 3").start();
    let old = primary.worker(0);
    break_code(&primary);
    primary.signal(Signal::HUP);
    assert_eq!(primary.wait_for_event("reloaded")["result"], "aborted");
    fs::remove_file(primary.directory().join("broken")).unwrap();
    signal(old, Signal::KILL);
    eventually("a successor answers", || ask(primary.client_of(0), primary.address()).pid() != old);
    primary.stop();
}

#[test]
fn clients_of_a_worker_that_stands_still_are_not_left_behind_with_it() {
    let primary = Primary::with_workers(1)
        .arguments(&["--min-uptime", "0", "--ack-timeout", "2s", "--slot-wait", "10s"])
        .start();
    let old = primary.worker(0);
    signal(old, Signal::STOP);
    // On their way to it, and not received.
    let mut streams: Vec<_> = (0..5)
        .map(|n| {
            let mut stream = connect_from(common::client::nth(n), primary.address()).unwrap();
            send_get(&mut stream, "/").unwrap();
            stream
        })
        .collect();
    primary.signal(Signal::HUP);
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    for stream in streams.drain(..) {
        assert_ne!(read_answer(stream).expect("an answer").pid(), old);
    }
    signal(old, Signal::CONT);
    let stopped = primary.stop();
    assert_eq!((&stopped["lost"], &stopped["redispatched"]), (&0.into(), &5.into()));
}

/// A request that takes longer than anybody waits, in slot 0.
fn long_request(primary: &Primary) -> std::net::TcpStream {
    let client = primary.client_of(0);
    let mut stream = connect_from(client, primary.address()).expect("a connection");
    send_get(&mut stream, "/heavy?ms=10000").expect("a request");
    eventually("the request is in progress", || {
        let health = common::client::get_from(client, primary.address(), "/health");
        health.is_ok_and(|health| health.body.contains("\"connections\":2"))
    });
    stream
}

#[test]
fn old_workers_are_bounded_in_time() {
    let primary = Primary::with_workers(1)
        .arguments(&["--min-uptime", "0", "--drain-timeout", "500ms", "--kill-timeout", "1h"])
        .start();
    let (old, stream) = (primary.worker(0), long_request(&primary));
    primary.signal(Signal::HUP);
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    primary.wait_for_log("was killed at the end of its grace period");
    eventually("the old one is gone", || !exists(old));
    assert!(read_answer(stream).is_err());
    primary.stop();
}

#[test]
fn old_workers_are_bounded_in_number() {
    let primary = Primary::with_workers(1)
        .arguments(&["--min-uptime", "0", "--max-draining", "1", "--kill-timeout", "300ms"])
        .worker(&[&common::example("unhealthy_worker")])
        .start();
    let client = primary.client_of(0);
    let mut held = Vec::new();
    let mut old = Vec::new();
    for _ in 0..3 {
        old.push(primary.worker(0));
        // It would hold its worker up for an hour.
        let mut stream = connect_from(client, primary.address()).unwrap();
        send_get(&mut stream, "/sleep?ms=3600000").unwrap();
        held.push(stream);
        ask(client, primary.address());
        primary.signal(Signal::HUP);
        assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    }
    eventually("the two oldest are gone", || !exists(old[0]) && !exists(old[1]));
    assert!(exists(old[2]), "the youngest of them goes on");
    let stopped = primary.stop();
    // One worker was killed at the end; what the two oldest were cut from counts as well.
    assert_eq!((&stopped["killed_workers"], &stopped["cut_connections"]), (&1.into(), &3.into()));
}

#[test]
fn a_second_order_takes_the_place_of_the_first() {
    let primary = Primary::with_workers(4).start();
    primary.signal(Signal::HUP);
    primary.wait_for_log("rolling restart started");
    primary.signal(Signal::HUP);
    let first = primary.wait_for_event("reloaded");
    assert_eq!((&first["result"], &first["rollout"]), (&"superseded".into(), &1.into()));
    let second = primary.wait_for_event("reloaded");
    assert_eq!((&second["result"], &second["replaced"]), (&"done".into(), &4.into()));
    primary.stop();
}

#[test]
fn a_stop_during_a_rolling_restart_ends_everything() {
    let primary = breakable(3, "exec sleep 100").start();
    break_code(&primary);
    primary.signal(Signal::HUP);
    eventually("a new worker starts", || primary.workers().len() == 4);
    assert_eq!(primary.stop()["killed_workers"], 0);
}

#[test]
fn one_more_worker_and_one_fewer() {
    let primary = Primary::with_workers(2).start();
    let address = primary.address();
    let clients: Vec<_> = (0..40).map(common::client::nth).collect();
    let slots = || clients.iter().map(|client| ask(*client, address).slot()).collect::<Vec<_>>();
    let two = slots();
    let load = Load::start(address);
    primary.signal(Signal::TTIN);
    assert_eq!(primary.wait_for_event("scaled")["workers"], 3);
    eventually("the new slot has clients", || slots().contains(&2));
    for (before, after) in two.iter().zip(slots()) {
        assert!(after == *before || after == 2, "moved from {before} to {after}");
    }
    // Its worker finishes what it has.
    let third = clients.iter().find(|client| ask(**client, address).slot() == 2).unwrap();
    let mut stream = connect_from(*third, address).unwrap();
    send_get(&mut stream, "/heavy?ms=300").unwrap();
    let worker = primary.worker(2);
    eventually("its request is in progress", || {
        let health = common::client::get_from(*third, address, "/health").unwrap();
        health.body.contains("\"connections\":2")
    });
    primary.signal(Signal::TTOU);
    assert_eq!(primary.wait_for_event("scaled")["workers"], 2);
    read_answer(stream).expect("its answer");
    eventually("the worker is gone", || !exists(worker));
    assert_eq!(slots(), two);
    load.stop();
    primary.signal(Signal::TTOU);
    primary.wait_for_event("scaled");
    primary.signal(Signal::TTOU);
    primary.signal(Signal::TTIN);
    // The last worker stays.
    assert_eq!(primary.wait_for_event("scaled")["workers"], 2);
    let stopped = primary.stop();
    // Nobody was sent elsewhere: clients belong to a slot only while it serves.
    assert_eq!((&stopped["lost"], &stopped["fallbacks"]), (&0.into(), &0.into()));
}
