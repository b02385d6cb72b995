//! Workers that are stopped (SIGSTOP) and never continued end with `watchdog_timeout`, whatever they were
//! about to do, under whatever primary; what they had not touched goes to others, and nobody else notices.

mod common;

use std::fs;
use std::net::TcpStream;

use common::client::{ask, connect_from, nth, read_answer, send_get};
use common::counting::Client;
use common::process::{Signal, exists, signal, state};
use common::{Builder, Primary, eventually, example};
use serde_json::json;

const REASON: &str = "was stopped (SIGSTOP) for watchdog_timeout and was killed";

/// Of workers that nothing else ends for as long as a test takes.
fn watched(workers: u16) -> Builder {
    Primary::with_workers(workers)
        .arguments(&["--watchdog-timeout", "1s", "--listen-timeout", "10m", "--ack-timeout", "1m"])
        .arguments(&["--min-uptime", "0", "--keeper-min-uptime", "0"])
}

/// Demo workers, each of which stops itself before it is ready if there is the file `stops`, which it
/// takes away.
fn stopping(workers: u16) -> Builder {
    let demo = env!("CARGO_BIN_EXE_sticky-lb");
    let script =
        format!("if rm stops 2>/dev/null; then kill -STOP $$; fi; exec {demo} demo-worker");
    watched(workers).worker(&["sh", "-c", &script])
}

fn let_one_stop(primary: &Primary) {
    fs::write(primary.directory().join("stops"), "").expect("a new file");
}

fn stop(worker: u32) {
    signal(worker, Signal::STOP);
    eventually("it is stopped", || state(worker) == Some('T'));
}

/// What a primary may go through meanwhile.
const CHANGES: [fn(&Primary); 3] =
    [|_| {}, |primary| primary.upgrade(), |primary| primary.crash_and_recover()];

#[test]
fn one_that_serves_is_killed_and_followed() {
    for change in CHANGES {
        let primary = watched(2).start();
        let (client, old) = (primary.client_of(0), primary.worker(0));
        stop(old);
        change(&primary);
        let answer = ask(client, primary.address());
        assert_ne!(answer.pid(), old);
        primary.wait_for_log(REASON);
        eventually("it is gone", || !exists(old));
        assert_eq!(ask(primary.client_of(1), primary.address()).slot(), 1);
        assert_eq!(primary.stop()["lost"], 0);
    }
}

#[test]
fn one_that_drains_is_killed_and_what_it_has_not_received_goes_to_others() {
    for change in CHANGES {
        let primary = watched(2).start();
        let (clients, old) = (primary.clients_of(0, 5), primary.worker(0));
        let mut other =
            connect_from(primary.client_of(1), primary.address()).expect("a connection");
        stop(old);
        let come = |client: &_| {
            let mut stream = connect_from(*client, primary.address()).expect("a connection");
            send_get(&mut stream, "/").expect("a request");
            stream
        };
        let streams: Vec<TcpStream> = clients.iter().map(come).collect();
        primary.ask("reload", json!({}));
        assert_ne!(primary.worker(0), old);
        change(&primary);
        for stream in streams {
            assert_ne!(read_answer(stream).expect("an answer").pid(), old);
        }
        eventually("it is gone", || !exists(old));
        primary.wait_for_log(REASON);
        send_get(&mut other, "/").expect("a request");
        assert_eq!(read_answer(other).expect("an answer").slot(), 1);
        assert_eq!(primary.stop()["lost"], 0);
    }
}

/// Under another primary they would have to be protected anew, by a worker that can't.
#[test]
fn protected_sessions_of_one_that_drains_go_on() {
    let primary = watched(2)
        .worker(&[&example("library_worker"), "sessions"])
        .arguments(&["--protect"])
        .start();
    let mut clients: Vec<_> = (0..10).map(|n| Client::open(n, &primary, "/count")).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 1));
    eventually("all are protected", || primary.status()["sessions_protected"] == 10);
    let old = [0, 1].map(|slot| primary.worker(slot));
    old.into_iter().for_each(stop);
    primary.ask("reload", json!({}));
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 2));
    eventually("they are gone", || !old.into_iter().any(exists));
    assert_eq!(primary.stop()["sessions_recovered"], 10);
}

#[test]
fn one_that_starts_is_killed_and_followed() {
    for change in CHANGES {
        let primary = stopping(2).start();
        let old = primary.worker(0);
        let_one_stop(&primary);
        signal(old, Signal::KILL);
        let mut next = old;
        eventually("its successor is stopped", || {
            next = primary.worker(0);
            next != old && state(next) == Some('T')
        });
        change(&primary);
        eventually("it is gone", || !exists(next));
        primary.wait_for_log(REASON);
        eventually("another one serves", || primary.serving().len() == 2);
        assert_eq!(ask(primary.client_of(0), primary.address()).slot(), 0);
        assert_eq!(primary.stop()["lost"], 0);
    }
}

#[test]
fn a_rolling_restart_waits_no_longer_for_one_that_starts() {
    let primary = stopping(2).start();
    let (before, clients) = (primary.serving(), [0, 1].map(|slot| primary.client_of(slot)));
    let_one_stop(&primary);
    primary.signal(Signal::HUP);
    let reloaded = primary.wait_for_event("reloaded");
    assert_eq!(reloaded["result"], "aborted");
    assert!(primary.log().contains(REASON));
    assert_eq!(primary.serving(), before);
    for (slot, client) in (0..).zip(clients) {
        assert_eq!(ask(client, primary.address()).slot(), slot);
    }
    primary.signal(Signal::HUP);
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    assert_eq!(primary.stop()["lost"], 0);
}

#[test]
fn one_that_starts_in_a_slot_that_is_removed_is_killed() {
    let primary = stopping(1).start();
    let_one_stop(&primary);
    primary.ask("scale", json!({"to": "+1"}));
    let added = primary.worker(1);
    eventually("it is stopped", || state(added) == Some('T'));
    primary.ask("scale", json!({"to": "-1"}));
    eventually("it is gone", || !exists(added));
    primary.stop();
}

#[test]
fn a_spare_is_killed_and_followed() {
    let primary =
        watched(1).arguments(&["--spares", "1", "--exp-backoff-max-delay", "100ms"]).start();
    let serving = primary.serving();
    let is_spare = || {
        let workers = primary.ask("workers", json!({}));
        workers.as_array().is_some_and(|it| it.iter().any(|it| it["state"] == "spare"))
    };
    eventually("a spare is ready", is_spare);
    let spare = primary.worker(0);
    stop(spare);
    eventually("it is gone", || !exists(spare));
    eventually("another one is ready", is_spare);
    assert_eq!(primary.serving(), serving);
    primary.stop();
}

#[test]
fn one_that_is_continued_in_time_goes_on() {
    let primary = Primary::with_workers(1).arguments(&["--watchdog-timeout", "3s"]).start();
    let worker = primary.worker(0);
    for _ in 0..3 {
        stop(worker);
        std::thread::park_timeout(std::time::Duration::from_millis(1_500));
        signal(worker, Signal::CONT);
        assert_eq!(ask(nth(0), primary.address()).pid(), worker);
    }
    assert!(!primary.log().contains("was stopped"));
    primary.stop();
}
