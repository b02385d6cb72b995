//! Workers that have had their time are replaced, those that stand still are aborted, and there are
//! as many as the load asks for.

mod common;

use std::net::TcpStream;

use common::client::{ask, connect_from, get_from, nth, read_answer, send_get};
use common::load::Load;
use common::process::{Signal, children, exists};
use common::{Builder, Primary, eventually, example};

fn unhealthy(workers: u16) -> Builder {
    Primary::with_workers(workers).worker(&[&example("unhealthy_worker")])
}

#[test]
fn a_worker_that_takes_too_much_memory_is_replaced_without_a_failed_request() {
    let primary = unhealthy(2).arguments(&["--max-memory-restart", "80M"]).start();
    let client = primary.client_of(1);
    let hog = primary.worker(1);
    let load = Load::start(primary.address());
    for _ in 0..10 {
        assert_eq!(get_from(client, primary.address(), "/leak?mb=10").unwrap().pid(), hog);
    }
    primary.wait_for_log("the limit is 80 MiB");
    eventually("the hog is gone", || !exists(hog));
    let answer = ask(client, primary.address());
    assert_eq!(answer.slot(), 1, "its slot goes on");
    load.stop();
    assert_eq!(primary.stop()["lost"], 0);
}

#[test]
fn workers_that_all_take_too_much_are_replaced_one_by_one() {
    let primary = unhealthy(3).arguments(&["--max-memory-restart", "60M"]).start();
    let hogs: Vec<_> = (0..3).map(|slot| primary.worker(slot)).collect();
    for slot in 0..3 {
        let client = primary.client_of(slot);
        get_from(client, primary.address(), "/leak?mb=90").unwrap();
    }
    let load = Load::start(primary.address());
    eventually("the hogs are gone", || hogs.iter().all(|hog| !exists(*hog)));
    load.stop();
    let log = primary.log();
    let lines: Vec<_> = log.lines().collect();
    let wanted = |line: &&&str| line.contains("worker replacing");
    assert_eq!(lines.iter().filter(wanted).count(), 3);
    // Between two that are to be replaced, the first one's successor serves.
    let steps = lines.iter().filter(|line| {
        wanted(line) || line.contains("worker ready") && line.contains("generation=1")
    });
    let kinds: Vec<_> = steps.map(|line| line.contains("worker replacing")).collect();
    assert_eq!(kinds, [true, false, true, false, true, false], "{log}");
    primary.stop();
}

#[test]
fn a_worker_far_beyond_its_limit_is_killed_at_once() {
    let primary = unhealthy(2).arguments(&["--max-memory-kill", "80M"]).start();
    let hog = primary.worker(0);
    get_from(primary.client_of(0), primary.address(), "/leak?mb=150").unwrap();
    eventually("the hog is gone", || !exists(hog));
    primary.wait_for_log("used more than max_memory_kill and was killed");
    assert_eq!(ask(primary.client_of(0), primary.address()).slot(), 0);
    primary.stop();
}

#[test]
fn draining_workers_that_take_too_much_memory_together_end() {
    let primary = unhealthy(1)
        .arguments(&["--min-uptime", "0", "--max-draining-memory", "60M"])
        .arguments(&["--drain-timeout", "1h", "--kill-timeout", "300ms"])
        .start();
    let hog = primary.worker(0);
    get_from(nth(0), primary.address(), "/leak?mb=90").unwrap();
    let mut held = connect_from(nth(0), primary.address()).unwrap();
    send_get(&mut held, "/sleep?ms=3600000").unwrap();
    // Taken up before the next request of the same loop.
    ask(nth(0), primary.address());
    primary.signal(Signal::HUP);
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    eventually("the hog is gone", || !exists(hog));
    primary.wait_for_log("was killed at the end of its grace period");
    primary.stop();
}

#[test]
fn workers_are_replaced_for_their_age_and_for_what_they_have_served() {
    for (arguments, reason) in [
        (&["--max-age", "2s"][..], "has served for"),
        (&["--max-connections-served", "50"], "connections, its limit is"),
    ] {
        let primary = unhealthy(2).arguments(arguments).start();
        let old = [primary.worker(0), primary.worker(1)];
        let load = Load::start(primary.address());
        load.wait_for_more(200);
        eventually("all are replaced", || old.iter().all(|pid| !exists(*pid)));
        load.stop();
        let log = primary.log();
        let line = log.lines().find(|line| line.contains("worker replacing")).unwrap();
        assert!(line.contains(reason), "{line}, expected {reason}");
        primary.stop();
    }
}

#[test]
fn a_worker_can_ask_for_its_own_replacement() {
    let primary = unhealthy(2).start();
    let (client, old) = (primary.client_of(1), primary.worker(1));
    let load = Load::start(primary.address());
    assert_eq!(get_from(client, primary.address(), "/leave").unwrap().body, "asked\n");
    eventually("it is replaced", || !exists(old));
    assert_eq!(ask(client, primary.address()).slot(), 1);
    load.stop();
    assert_eq!(primary.stop()["lost"], 0);
}

#[test]
fn a_worker_whose_event_loop_stands_still_is_aborted_and_replaced() {
    let primary = unhealthy(2).arguments(&["--watchdog-timeout", "1s"]).start();
    let (client, still) = (primary.client_of(0), primary.worker(0));
    let mut stalled = connect_from(client, primary.address()).unwrap();
    send_get(&mut stalled, "/stall?ms=60000").unwrap();
    primary.wait_for_log("event loop stands still");
    eventually("it is gone", || !exists(still));
    primary.wait_for_log("stood still: was killed by signal 6");
    eventually("its successor serves its clients", || {
        let answer = ask(client, primary.address());
        answer.slot() == 0 && answer.pid() != still
    });
    assert!(read_answer(stalled).is_err());
    primary.stop();
}

#[test]
fn a_worker_that_is_slow_for_less_than_the_time_is_left_alone() {
    let primary = unhealthy(1).arguments(&["--watchdog-timeout", "3s"]).start();
    let slow = primary.worker(0);
    let answer = get_from(nth(0), primary.address(), "/stall?ms=1500").unwrap();
    assert_eq!(answer.pid(), slow);
    assert_eq!(ask(nth(0), primary.address()).pid(), slow);
    assert!(!primary.log().contains("stands still"));
    primary.stop();
}

#[test]
fn a_primary_that_stood_still_itself_blames_no_worker() {
    let primary = unhealthy(2).arguments(&["--watchdog-timeout", "1s"]).start();
    let before = primary.workers();
    // Its connections are the worker's already: the primary is not needed for an answer.
    let ask_for = |path| {
        let mut stream = connect_from(nth(0), primary.address()).unwrap();
        send_get(&mut stream, path).unwrap();
        stream
    };
    for _ in 0..3 {
        let long = ask_for("/sleep?ms=2500");
        ask(nth(0), primary.address());
        // For less than its time; a ping goes out meanwhile, and its pong finds a primary that sleeps.
        let busy = ask_for("/stall?ms=800");
        std::thread::park_timeout(std::time::Duration::from_millis(500));
        common::process::signal(primary.primary_pid(), Signal::STOP);
        read_answer(busy).unwrap();
        read_answer(long).unwrap();
        common::process::signal(primary.primary_pid(), Signal::CONT);
        // Some pings later.
        read_answer(ask_for("/sleep?ms=600")).unwrap();
        assert!(!primary.log().contains("stands still"));
    }
    assert_eq!(primary.workers(), before);
    primary.stop();
}

#[test]
fn load_is_also_requests_processor_time_and_lag() {
    for (measure, up, path) in [
        ("requests", "3", "/sleep?ms=10000"),
        // Few percent, since others may want the processors too.
        ("cpu", "10", "/burn?ms=10000"),
        ("lag", "200", "/stall?ms=1000"),
    ] {
        let primary = Primary::with_workers(1)
            .arguments(&["--max-workers", "2", "--scale-load", measure, "--scale-up-load", up])
            .arguments(&["--scale-down-load", "1", "--scale-interval", "200ms"])
            .worker(&[&example("unhealthy_worker")])
            .start();
        let ask_for_it = |n| {
            let mut stream = connect_from(nth(n), primary.address()).unwrap();
            send_get(&mut stream, path).unwrap();
            stream
        };
        let busy: Vec<_> = (0..5).map(ask_for_it).collect();
        eventually(&format!("a second worker for {measure}"), || primary.workers().len() == 2);
        drop(busy);
    }
}

#[test]
fn there_are_as_many_workers_as_the_load_asks_for() {
    let primary = Primary::with_workers(1)
        .arguments(&["--min-workers", "1", "--max-workers", "3"])
        .arguments(&["--scale-up-load", "5", "--scale-down-load", "2"])
        .arguments(&["--scale-interval", "200ms", "--scale-down-after", "1s"])
        .arguments(&["--min-uptime", "100ms"])
        .start();
    let connect = |n| connect_from(nth(n), primary.address()).unwrap();
    let mut idle: Vec<TcpStream> = (0..12).map(connect).collect();
    eventually("a second worker", || primary.workers().len() == 2);
    idle.extend((12..60).map(connect));
    eventually("a third worker", || primary.workers().len() == 3);
    idle.extend((60..100).map(connect));
    assert_eq!(children(primary.primary_pid()).len(), 3, "never more than max_workers");
    drop(idle);
    eventually("one worker is enough", || primary.workers().len() == 1);
    let log = primary.log();
    assert_eq!(log.matches("scaled").count(), 4, "no flapping");
    assert_eq!(ask(nth(0), primary.address()).head.lines().next(), Some("HTTP/1.1 200 OK"));
    primary.stop();
}
