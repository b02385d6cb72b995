//! kill -9 of the primary, on the real binary: its successor takes over what runs, and clients notice
//! nothing.

mod common;

use std::process::Command;
use std::time::Duration;

use common::client::{ask, connect_from, get_from, nth, read_answer, send_get};
use common::counting::Client;
use common::process::{self, Signal};
use common::{Primary, eventually, example};
use serde_json::json;

/// One that may crash as often as it likes.
fn crashing(workers: u16) -> common::Builder {
    Primary::with_workers(workers).arguments(&["--keeper-min-uptime", "0"])
}

#[test]
fn nobody_notices_that_the_primary_was_killed() {
    let primary = crashing(2).worker(&[&example("library_worker"), "sessions"]).start();
    let mut clients: Vec<_> = (0..10).map(|n| Client::open(n, &primary, "/count")).collect();
    eventually("all are sessions", || primary.status()["sessions"] == 10);
    let (before, serving) = (primary.status(), primary.serving());
    for recoveries in 1..=5 {
        primary.crash_and_recover();
        clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 1));
        let after = primary.status();
        assert_eq!(after["recoveries"], recoveries);
        for what in ["pid", "listening", "workers", "sessions", "accepted", "control"] {
            assert_eq!(after[what], before[what], "{what}");
        }
        eventually("its workers serve", || primary.serving() == serving);
        primary.wait_for_event("recovered");
    }
    let stopped = primary.stop();
    assert_eq!((&stopped["accepted"], &stopped["lost"]), (&10.into(), &0.into()));
}

#[test]
fn metrics_count_upgrades_and_crashes_and_go_on_from_where_they_were() {
    let primary =
        crashing(1).arguments(&["--admin", "127.0.0.1:0", "--admin-token-file", "none"]).start();
    ask(nth(0), primary.address());
    eventually("it is counted", || primary.status()["acknowledged"] == 1);
    primary.upgrade();
    primary.crash_and_recover();
    primary.crash_and_recover();
    let text = primary.get("/metrics").body;
    for line in [
        "sticky_lb_upgrades_total 1",
        "sticky_lb_primary_crashes_total 2",
        "sticky_lb_accepted_connections_total 1",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}: {text}");
    }
    primary.stop();
}

#[test]
fn whoever_comes_while_there_is_no_primary_waits_in_the_backlog() {
    let primary = crashing(2).start();
    let workers = [0, 1].map(|slot| ask(primary.client_of(slot), primary.address()).pid());
    for _ in 0..5 {
        primary.crash();
        for (slot, worker) in (0..).zip(workers) {
            assert_eq!(ask(primary.client_of(slot), primary.address()).pid(), worker);
        }
    }
    assert_eq!(primary.stop()["lost"], 0);
}

#[test]
fn a_rolling_restart_goes_on_under_the_next_primary() {
    let primary = crashing(4).arguments(&["--min-uptime", "300ms"]).start();
    let before = primary.status();
    let reload = primary.begin("reload", json!({}));
    eventually("one slot is replaced", || {
        primary.status()["rollout"]["replaced"].as_u64() >= Some(1)
    });
    primary.crash();
    primary.wait_for_recovery(&before);
    drop(reload);
    let reloaded = primary.wait_for_event("reloaded");
    assert_eq!((&reloaded["result"], &reloaded["replaced"]), (&"done".into(), &4.into()));
    let generations: Vec<_> = primary.serving().iter().map(|(_, it, _)| *it).collect();
    assert_eq!(generations, [1; 4]);
    assert_eq!(primary.stop()["killed_workers"], 0);
}

#[test]
fn a_worker_that_dies_under_the_next_primary_is_seen_to_and_leaves_no_zombie() {
    let primary = crashing(2).start();
    let old = ask(primary.client_of(0), primary.address()).pid();
    primary.crash_and_recover();
    process::signal(old, Signal::KILL);
    eventually("the next worker serves", || {
        primary.serving().iter().any(|(slot, generation, _)| (*slot, *generation) == (0, 1))
    });
    assert_ne!(ask(primary.client_of(0), primary.address()).pid(), old);
    eventually("its zombie is buried", || !process::exists(old));
    primary.wait_for_log("killed by signal 9");
    primary.stop();
}

#[test]
fn a_worker_that_dies_while_there_is_no_primary_is_followed_as_well() {
    let primary = crashing(1).start();
    let (before, old) = (primary.status(), ask(nth(0), primary.address()).pid());
    process::signal(primary.primary_pid(), Signal::KILL);
    process::signal(old, Signal::KILL);
    primary.wait_for_recovery(&before);
    let next = ask(nth(0), primary.address()).pid();
    assert_ne!(next, old);
    eventually("its zombie is buried", || !process::exists(old));
    primary.stop();
}

/// As those of other languages do, who have nothing to do without their channel.
#[test]
fn a_worker_that_ends_with_its_channel_lives_on() {
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/worker.py");
    let primary = crashing(1).worker(&["python3", python]).start();
    let worker = ask(nth(0), primary.address()).pid();
    for _ in 0..5 {
        primary.crash_and_recover();
        assert_eq!(ask(nth(0), primary.address()).pid(), worker);
    }
    // And without a keeper it ends.
    primary.kill_all();
    eventually("it ends", || !process::exists(worker));
}

#[test]
fn it_goes_on_by_the_configuration_that_it_ran_on() {
    let primary = crashing(1).start();
    let worker = ask(nth(0), primary.address()).pid();
    let file = primary.directory().join("sticky-lb.toml");
    std::fs::write(&file, "workers = \"none\"").unwrap();
    primary.crash_and_recover();
    assert_eq!(ask(nth(0), primary.address()).pid(), worker);
    let (code, message) = primary.ask_in_vain("reload", json!({}));
    assert!(code == "refused" && message.contains("workers"), "{message}");
}

#[test]
fn upgrades_and_crashes_in_turn_change_nothing() {
    let primary = crashing(2).worker(&[&example("library_worker"), "sessions"]).start();
    let mut clients: Vec<_> = (0..6).map(|n| Client::open(n, &primary, "/count")).collect();
    let serving = primary.serving();
    for _ in 0..3 {
        primary.upgrade();
        primary.crash_and_recover();
        clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 1));
    }
    eventually("its workers serve", || primary.serving() == serving);
    primary.ask("reload", json!({}));
    clients.iter_mut().for_each(|client| {
        client.ask();
    });
    assert_eq!(primary.stop()["killed_workers"], 0);
}

/// Earlier and later each time: while the new program is asked, while everything is handed over, after
/// that.
#[test]
fn a_primary_that_is_killed_in_the_middle_of_an_upgrade_is_followed_all_the_same() {
    let primary = crashing(2).worker(&[&example("library_worker"), "sessions"]).start();
    let mut clients: Vec<_> = (0..6).map(|n| Client::open(n, &primary, "/count")).collect();
    let serving = primary.serving();
    for moment in 0..20 {
        let before = primary.status();
        // In the middle of an upgrade it has no environment to be known by.
        let pid = primary.primary_pid();
        let ordered = primary.begin_upgrade();
        std::thread::park_timeout(Duration::from_millis(moment * 10));
        process::signal(pid, Signal::KILL);
        let output = ordered.wait_with_output().unwrap();
        primary.wait_for_recovery(&before);
        clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 1));
        let after = primary.status();
        let text = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            assert!(after["upgrades"].as_u64() > before["upgrades"].as_u64(), "{after}");
        } else if after["upgrades"] == before["upgrades"] {
            assert!(!text.contains("within 15 s"), "it waits in vain: {text}");
        }
    }
    eventually("its workers serve", || primary.serving() == serving);
    assert_eq!(primary.stop()["lost"], 0);
}

#[test]
fn whoever_stops_it_after_a_crash_waits_for_its_end() {
    let mut primary = crashing(1).start();
    primary.crash_and_recover();
    let pid = primary.primary_pid();
    // So that it ends later.
    process::signal(primary.pid(), Signal::STOP);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sticky-lb"));
    let mut stop = command.args(["stop", "--control"]).arg(primary.control()).spawn().unwrap();
    eventually("its primary has ended", || process::state(pid) == Some('Z'));
    std::thread::park_timeout(Duration::from_millis(200));
    assert!(stop.try_wait().unwrap().is_none(), "it is not waited for");
    process::signal(primary.pid(), Signal::CONT);
    assert!(stop.wait().unwrap().success());
    assert_eq!(primary.wait().code(), Some(0));
}

#[test]
fn what_waited_in_the_primary_is_lost_and_counted() {
    let slow = "test -e died && sleep 2; touch died";
    let arguments = ["--slot-wait", "30s", "--listen-timeout", "20s"];
    let primary = crashing(1).arguments(&arguments).slot_zero(slow).start();
    ask(nth(0), primary.address());
    process::signal(primary.worker(0), Signal::KILL);
    eventually("nobody serves", || primary.status()["serving"] == 0);
    let mut waiting: Vec<_> =
        (0..3).map(|n| connect_from(nth(n), primary.address()).unwrap()).collect();
    waiting.iter_mut().for_each(|stream| send_get(stream, "/").unwrap());
    eventually("all wait in the primary", || primary.status()["waiting"] == 3);
    primary.crash_and_recover();
    for stream in waiting {
        assert!(read_answer(stream).is_err(), "it was with the primary alone");
    }
    assert!(get_from(nth(1), primary.address(), "/").is_ok());
    eventually("they are counted", || primary.status()["lost"] == 3);
    primary.wait_for_log("connections=3");
    assert_eq!(primary.stop()["lost"], 3);
}

#[test]
fn whoever_it_had_just_accepted_is_counted_as_lost() {
    let primary = crashing(2).start();
    let mut failed = 0;
    for round in 0..40 {
        let (before, pid) = (primary.status(), primary.primary_pid());
        process::signal(pid, Signal::STOP);
        let come = |n| connect_from(nth(n), primary.address()).unwrap();
        let mut clients: Vec<_> = (0..64).map(come).collect();
        clients.iter_mut().for_each(|stream| send_get(stream, "/").unwrap());
        process::signal(pid, Signal::CONT);
        // Each time a little further into what it does with them.
        std::thread::sleep(round * Duration::from_micros(50));
        process::signal(pid, Signal::KILL);
        primary.wait_for_recovery(&before);
        failed += clients.into_iter().filter_map(|stream| read_answer(stream).err()).count() as u64;
    }
    let lost = primary.stop()["lost"].as_u64();
    println!("{failed} failed, {lost:?} counted as lost");
    assert!(failed > 0 && lost >= Some(failed), "{failed} failed, {lost:?} counted as lost");
}

#[test]
fn descriptors_and_processes_are_as_many_as_before() {
    let primary = crashing(2).start();
    let keeper = primary.pid();
    let count = || {
        let own = process::descriptors(primary.primary_pid()).len();
        (own, process::descriptors(keeper).len(), process::children(keeper).len())
    };
    primary.crash_and_recover();
    std::thread::park_timeout(Duration::from_millis(1));
    let before = count();
    for _ in 0..5 {
        primary.crash_and_recover();
    }
    eventually("descriptors and processes are as many as before", || count() <= before);
}

/// One worker offers its sessions, the one that they were sent to dies with the primary, and another stands
/// still: it has none of them.
#[test]
fn a_worker_that_stands_still_keeps_no_session_of_others_waiting() {
    let (library, plays) = (example("library_worker"), example("test_worker"));
    let shell = format!(
        "if [ $STICKY_LB_SLOT.$STICKY_LB_GENERATION = 0.1 ]; then exec {plays} lets-sessions-wait; fi; \
         exec {library} sessions"
    );
    let primary = crashing(2).worker(&["sh", "-c", &shell]).start();
    ask(primary.client_of(1), primary.address());
    let of_slot = primary.clients_of(0, 10);
    let numbers = (0..).filter(|number| of_slot.contains(&nth(*number))).take(of_slot.len());
    let mut clients: Vec<_> = numbers.map(|it| Client::open(it, &primary, "/count")).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 1));
    let (leaves, stands) = (primary.worker(0), primary.worker(1));
    process::signal(leaves, Signal::TERM);
    let in_flight = || primary.ask("describe", json!({"slot": 0}))["in_flight"].clone();
    // As many as may be on their way to a worker that doesn't answer.
    eventually("two are offered", || in_flight() == 2);
    let before = primary.status();
    let takes = primary.worker(0);
    assert_ne!(takes, leaves);
    process::signal(primary.primary_pid(), Signal::STOP);
    process::signal(stands, Signal::STOP);
    process::signal(takes, Signal::KILL);
    primary.crash();
    primary.wait_for_recovery(&before);
    clients.iter_mut().for_each(|client| assert!(client.ask() <= 2));
    primary.wait_for_log("workers do not report");
    process::signal(stands, Signal::CONT);
    // Those that went elsewhere meanwhile stay there for a while.
    let mut others = primary.clients_of(1, 1_000).into_iter().skip(1);
    eventually("it serves again", || {
        let answer = ask(others.next().unwrap(), primary.address());
        answer.body.ends_with(&stands.to_string())
    });
    primary.stop();
}

#[test]
fn events_lines_and_a_failed_rolling_restart_survive_upgrades_and_crashes() {
    let demo = env!("CARGO_BIN_EXE_sticky-lb");
    let broken = "if [ -e broken ]; then echo boom >&2; exit 3; fi";
    let script = format!("{broken}; echo hello; exec {demo} demo-worker");
    let primary = crashing(1).worker(&["sh", "-c", &script]).start();
    let file = primary.directory().join("broken");
    std::fs::write(&file, "").unwrap();
    primary.signal(Signal::HUP);
    assert_eq!(primary.wait_for_event("reloaded")["result"], "aborted");
    std::fs::remove_file(file).unwrap();

    let last = || primary.status()["last_rollout"].clone();
    eventually("the last line is known", || last()["last_line"] == "boom");
    let failed = last();
    assert_eq!((&failed["result"], &failed["failed_slot"]), (&"aborted".into(), &0.into()));
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.contains("new worker in slot 0 exited with status 3"), "{failed}");
    assert_eq!(primary.status()["command"][0], "sh");

    let events = || primary.begin("events", json!({"last": 100})).all().0;
    let lines = || primary.begin("logs", json!({"lines": 100})).all().0;
    let texts = |lines: &[serde_json::Value]| -> Vec<_> {
        lines.iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect()
    };
    let mut before = events();
    assert_eq!(texts(&lines()), ["hello", "boom"]);
    for crashes in [false, true, true, false] {
        if crashes {
            primary.crash_and_recover();
        } else {
            primary.upgrade();
        }
        let now = events();
        assert!(now.starts_with(&before), "{before:?} {now:?}");
        let numbers: Vec<_> = now.iter().map(|event| event["number"].as_u64().unwrap()).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        assert_eq!(texts(&lines()), ["hello", "boom"]);
        assert_eq!(last(), failed);
        before = now;
    }
    let shown = Command::new(demo)
        .arg("status")
        .env("STICKY_LB_RUNTIME_DIR", primary.directory())
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    for expected in
        ["exited with status 3, its last line: boom", " logs --slot 0` has more", "sh -c "]
    {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    primary.stop();
}
