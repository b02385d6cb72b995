//! Orders by control socket on real workers: scale, drain, restart, kill, signals, reload, stop; and
//! the routes of clients meanwhile.

mod common;

use std::fs;
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use common::client::{ask, connect_from, nth, read_kept_alive};
use common::load::Load;
use common::{Primary, eventually};
use serde_json::{Value, json};
use std::io::Write;

fn states(primary: &Primary) -> Vec<String> {
    let workers = primary.ask("workers", json!({}));
    let rows = workers.as_array().expect("rows").iter();
    rows.map(|row| row["state"].as_str().expect("a state").to_owned()).collect()
}

/// An open connection of a client with this address.
fn stay(from: IpAddr, primary: &Primary) -> (TcpStream, u32) {
    let mut stream = connect_from(from, primary.address()).expect("a connection");
    let pid = again(&mut stream);
    (stream, pid)
}

/// One more request on it.
fn again(stream: &mut TcpStream) -> u32 {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("a request is sent");
    read_kept_alive(stream).expect("an answer").pid()
}

fn quick(workers: u16) -> common::Builder {
    Primary::with_workers(workers).arguments(&["--min-uptime", "50ms"])
}

#[test]
fn scaling_answers_with_both_numbers_and_refuses_impossible_ones() {
    let primary = quick(2).start();
    let load = Load::start(primary.address());
    for (to, from, expected) in [("4", 2, 4), ("+1", 4, 5), ("-3", 5, 2), ("2", 2, 2)] {
        primary.ask("status", json!({}));
        let scaled = primary.ask("scale", json!({"to": to}));
        // An order discards the last snapshot: its client sees the change.
        assert_eq!(primary.ask("status", json!({}))["workers"], expected, "{to}");
        assert_eq!(scaled, json!({"from": from, "to": expected, "deferred": false}), "{to}");
        eventually("so many serve", || {
            let status = primary.ask("status", json!({}));
            status["serving"] == expected && status["workers"] == expected
        });
    }
    assert_eq!(primary.ask("scale", json!({"to": 2}))["to"], 2, "a number is one, too");
    for to in [json!(-1), json!(1.5), json!(["2"])] {
        assert_eq!(primary.ask_in_vain("scale", json!({"to": to})).0, "bad-request", "{to}");
    }
    for to in ["0", "-2", "+1023", "2000"] {
        let (code, message) = primary.ask_in_vain("scale", json!({"to": to}));
        assert_eq!((code.as_str(), message.contains("1 to 1024")), ("refused", true), "{message}");
    }
    for to in ["", "many", "1.5", "++1"] {
        assert_eq!(primary.ask_in_vain("scale", json!({"to": to})).0, "bad-request", "{to}");
    }
    load.stop();
    primary.stop();
}

#[test]
fn a_drained_slot_loses_no_client_and_gets_none_until_undrained() {
    let primary = quick(3).start();
    let load = Load::start(primary.address());
    let client = primary.client_of(1);
    let (mut open, before) = stay(client, &primary);
    assert_eq!(primary.ask("drain", json!({"slot": 1})), json!({}));
    // New connections go to another slot; the open one continues.
    let elsewhere = ask(client, primary.address());
    assert_ne!(elsewhere.slot(), 1);
    eventually("drained", || states(&primary)[1] == "drained");
    open.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert_eq!(read_kept_alive(&mut open).unwrap().pid(), elsewhere.pid());
    assert!(!primary.workers().iter().any(|(pid, ..)| *pid == before));
    // Neither a rolling restart nor a second order changes that.
    primary.ask("reload", json!({}));
    let mut left = states(&primary);
    left.retain(|state| state != "draining");
    assert_eq!(left, ["serving", "drained", "serving"]);
    assert_eq!(primary.ask("drain", json!({"slot": 1})), json!({"already": true}));
    assert_eq!(primary.ask("drain", json!({"slot": 1, "wait": true})), json!({"already": true}));
    let (code, message) = primary.ask_in_vain("restart", json!({"slot": 1}));
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("refused", "slot 1 is drained: undrain it first")
    );
    let status = primary.ask("status", json!({}));
    assert_eq!((&status["serving"], &status["workers"]), (&json!(2), &json!(3)));

    primary.ask("undrain", json!({"slot": 1}));
    eventually("all serve, none drains", || states(&primary) == ["serving"; 3]);
    // Its fallback slot is kept until a rebalance.
    assert_eq!(ask(client, primary.address()).slot(), elsewhere.slot());
    let found = primary.ask("where", json!({"address": client.to_string()}));
    assert_eq!(found["target"], elsewhere.slot());
    assert!(found["why"].as_str().unwrap().contains("fallback slot"), "{found}");
    let rebalanced = primary.ask("rebalance", json!({}));
    assert!(rebalanced["clients"].as_u64() >= Some(1), "{rebalanced}");
    assert_eq!(ask(client, primary.address()).slot(), 1);
    assert_eq!(primary.ask("undrain", json!({"slot": 1})), json!({"already": true}));
    load.stop();
    primary.stop();
}

#[test]
fn draining_can_be_waited_for() {
    let primary = quick(2).start();
    let worker = primary.worker(0);
    primary.ask("drain", json!({"slot": 0, "wait": true}));
    assert!(!primary.workers().iter().any(|(pid, ..)| *pid == worker));
    let (code, message) = primary.ask_in_vain("drain", json!({"slot": 1}));
    assert_eq!(code, "refused");
    assert!(message.contains("last one that serves"), "{message}");
    primary.stop();
}

#[test]
fn a_wait_for_a_slot_ends_when_other_clients_change_its_state() {
    let primary = quick(3).start();
    let hold = |slot| {
        let mut held = connect_from(primary.client_of(slot), primary.address()).unwrap();
        // Keeps its worker busy for longer than this test takes.
        held.write_all(b"GET /heavy?ms=10000 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let number = usize::from(slot);
        eventually("the worker has it", || {
            primary.ask("workers", json!({}))[number]["connections"] == 1
        });
        held
    };
    let _held = (hold(1), hold(2));
    let asked = primary.begin("drain", json!({"slot": 1, "wait": true}));
    eventually("it drains", || states(&primary)[1] == "draining");
    primary.ask("undrain", json!({"slot": 1}));
    let (code, message) = asked.end().unwrap_err();
    assert_eq!(code, "failed");
    assert!(message.contains("no longer drained"), "{message}");
    let asked = primary.begin("drain", json!({"slot": 2, "wait": true}));
    eventually("drained, with a worker that drains", || {
        primary.ask("describe", json!({"slot": 2}))["state"] == "drained"
    });
    primary.ask("scale", json!({"to": "2"}));
    let (code, message) = asked.end().unwrap_err();
    assert_eq!(code, "failed");
    assert!(message.contains("removed"), "{message}");
}

#[test]
fn a_restart_ends_when_the_new_worker_is_stable() {
    let primary = quick(2).start();
    let load = Load::start(primary.address());
    let before = primary.workers();
    primary.ask("restart", json!({"slot": 1}));
    let rows = primary.ask("workers", json!({}));
    let serving: Vec<_> =
        rows.as_array().unwrap().iter().filter(|row| row["state"] == "serving").collect();
    assert_eq!(serving[0]["pid"], before.iter().find(|(_, slot, _)| *slot == 0).unwrap().0);
    assert_eq!(serving[1]["generation"], 1);
    load.stop();
    primary.stop();
}

#[test]
fn a_failed_restart_gives_the_reason_and_the_old_worker_still_serves() {
    let folder = common::own_directory();
    let broken = folder.join("broken");
    let demo = env!("CARGO_BIN_EXE_sticky-lb");
    let script = format!("test -e {} && exit 7; exec {demo} demo-worker", broken.display());
    let primary = quick(2).worker(&["sh", "-c", &script]).start();
    let load = Load::start(primary.address());
    let before = primary.workers();
    fs::write(&broken, "").unwrap();
    let (code, message) = primary.ask_in_vain("restart", json!({"slot": 0}));
    assert_eq!(code, "failed");
    assert!(message.contains("slot 0") && message.contains('7'), "{message}");
    // A second order starts immediately: the back-off applies only to the supervisor's own attempts.
    assert_eq!(primary.ask_in_vain("restart", json!({"slot": 0})).0, "failed");
    let (code, message) = primary.ask_in_vain("reload", json!({}));
    assert_eq!(code, "failed");
    assert!(message.contains("aborted") && message.contains('7'), "{message}");
    assert_eq!(primary.workers(), before);
    load.stop();
    primary.stop();
}

#[test]
fn a_reload_reports_progress_and_result() {
    let primary = quick(3).start();
    let load = Load::start(primary.address());
    let (items, end) = primary.begin("reload", json!({})).all();
    let end = end.unwrap();
    assert_eq!(
        (&end["result"], &end["replaced"], &end["of"]),
        (&json!("done"), &json!(3), &json!(3))
    );
    let replaced: Vec<_> = items.iter().map(|item| item["replaced"].as_u64().unwrap()).collect();
    assert!(replaced.is_sorted() && replaced.contains(&1) && replaced.contains(&2), "{items:?}");
    let waits =
        |item: &Value| item["under_way"][0][1].as_str().is_some_and(|text| !text.is_empty());
    assert!(items.iter().any(waits), "{items:?}");
    assert_eq!(primary.workers().iter().filter(|(_, _, generation)| *generation == 1).count(), 3);
    load.stop();
    primary.stop();
}

#[test]
fn a_reload_of_a_broken_configuration_is_refused() {
    let file = common::own_directory().join("sticky-lb.toml");
    fs::write(&file, "workers = 1\n").unwrap();
    let primary = Primary::from_flags(&["--port", "0", "--config", file.to_str().unwrap()]).start();
    fs::write(&file, "wrokers = 1\n").unwrap();
    let (code, message) = primary.ask_in_vain("reload", json!({}));
    assert_eq!(code, "refused");
    assert!(message.contains("wrokers") && message.contains("did you mean"), "{message}");
    primary.stop();
}

#[test]
fn a_killed_worker_is_replaced_and_the_kill_is_an_event() {
    let primary = quick(2).start();
    let before = primary.worker(0);
    primary.ask("kill", json!({"slot": 0}));
    eventually("a successor serves", || {
        primary.worker(0) != before && states(&primary) == ["serving"; 2]
    });
    let described = primary.ask("describe", json!({"slot": 0}));
    let kinds: Vec<_> =
        described["events"].as_array().unwrap().iter().map(|it| it["kind"].clone()).collect();
    assert!(kinds.contains(&json!("worker-killed")), "{kinds:?}");
    assert_eq!(described["started"], 2);
    primary.stop();
}

#[test]
fn a_signal_reaches_the_worker_of_the_slot_alone() {
    let folder = common::own_directory();
    let script = format!(
        "import os, signal, sys\n\
         def got(*_): open('{}/' + os.environ['STICKY_LB_SLOT'], 'w').close()\n\
         signal.signal(signal.SIGUSR2, got)\n\
         sys.argv = ['worker.py']\n\
         exec(open('{}/examples/worker.py').read())\n",
        folder.display(),
        env!("CARGO_MANIFEST_DIR"),
    );
    let program = common::own_directory().join("signalled.py");
    fs::write(&program, script).unwrap();
    let primary = quick(2).worker(&["python3", program.to_str().unwrap()]).start();
    primary.ask("signal", json!({"slot": 1, "signal": "usr2"}));
    eventually("the signal has arrived", || folder.join("1").exists());
    assert!(!folder.join("0").exists());
    assert_eq!(
        primary.ask_in_vain("signal", json!({"slot": 1, "signal": "LUNCH"})).0,
        "bad-request"
    );
    primary.stop();
}

#[test]
fn an_unknown_slot_is_refused_by_name() {
    let primary = quick(2).start();
    for request in ["describe", "drain", "undrain", "restart", "kill", "conns", "logs"] {
        let (code, message) = primary.ask_in_vain(request, json!({"slot": 7}));
        assert_eq!(code, "not-found", "{request}: {message}");
        assert!(message.contains("no slot 7"), "{request}: {message}");
    }
    primary.stop();
}

#[test]
fn stopping_sends_no_answer_and_ends_the_connection_with_the_primary() {
    for now in [false, true] {
        let primary = quick(1).start();
        let mut asked = primary.begin("stop", json!({"now": now}));
        assert_eq!(asked.line(), None);
        let stopped = primary.stop_finished();
        assert_eq!(stopped["how"], if now { "forced" } else { "graceful" });
    }
}

#[test]
fn the_explained_route_is_the_route_taken() {
    let primary = quick(4).start();
    for n in 0..40 {
        let client = nth(n);
        let found = primary.ask("where", json!({"address": client.to_string()}));
        let answer = ask(client, primary.address());
        assert_eq!(found["target"], answer.slot(), "{found}");
        assert_eq!(found["ranking"][0]["slot"], answer.slot(), "{found}");
        assert_eq!(found["ranking"][0]["pid"], answer.pid(), "{found}");
        assert_eq!(found["why"], Value::Null);
        assert_eq!(found["ranking"].as_array().map(Vec::len), Some(4));
        assert_eq!(primary.ask("where", json!({"key": found["key"]}))["target"], answer.slot());
    }
    for wrong in [json!({}), json!({"key": "12"}), json!({"key": "zzzzzzzzzzzzzzzz"})] {
        assert_eq!(primary.ask_in_vain("where", wrong).0, "bad-request");
    }
    primary.stop();
}

#[test]
fn connections_are_listed_with_their_workers() {
    let primary = quick(2).start();
    let clients: Vec<_> = (0..10).map(nth).collect();
    let mut open: Vec<_> = clients.iter().map(|client| stay(*client, &primary)).collect();
    let found = primary.ask("conns", json!({}));
    // A foreign connection may have the same local port.
    assert!(found["total"].as_u64() >= Some(10), "{found}");
    for ((stream, pid), client) in open.iter().zip(&clients) {
        let local = stream.local_addr().unwrap().port();
        let rows = found["connections"].as_array().unwrap();
        let name = |row: &&Value| {
            let text = row["client"].as_str().unwrap();
            text.contains(&client.to_string()) && text.ends_with(&format!(":{local}"))
        };
        let row = rows.iter().find(name).unwrap_or_else(|| panic!("{client} in {found}"));
        assert_eq!((&row["pid"], &row["state"]), (&json!(pid), &json!("established")));
    }
    let one = primary.ask("conns", json!({"address": format!("{}/32", clients[3])}));
    assert_eq!(one["total"], 1, "{one}");
    let of_slot = primary.ask("conns", json!({"slot": 0}));
    let in_slot = of_slot["connections"].as_array().unwrap();
    assert!(in_slot.iter().all(|row| row["slot"] == 0), "{of_slot}");
    let few = primary.ask("conns", json!({"limit": 3}));
    assert_eq!(few["connections"].as_array().map(Vec::len), Some(3));
    assert!(few["total"].as_u64() >= Some(10), "{few}");
    open.clear();
    eventually("none is left", || {
        let found = primary.ask("conns", json!({}));
        found["connections"].as_array().unwrap().iter().all(|row| row["state"] != "established")
    });
    primary.stop();
}

#[test]
fn events_are_followed_without_a_gap() {
    let primary = quick(2).start();
    let mut follower = primary.begin("events", json!({"follow": true, "last": 1000}));
    let mut numbers = Vec::new();
    primary.ask("restart", json!({"slot": 0}));
    primary.ask("scale", json!({"to": "3"}));
    loop {
        let event = follower.item();
        numbers.push(event["number"].as_u64().unwrap());
        if event["kind"] == "scaled" {
            break;
        }
    }
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let past = primary.begin("events", json!({"last": 3})).all().0;
    assert_eq!(past.len(), 3);
    primary.stop();
}

#[test]
fn snapshots_come_every_second_with_the_events_between() {
    let primary = quick(1).start();
    let mut live = primary.begin("live", json!({}));
    let first = live.item();
    assert_eq!(first["status"]["serving"], 1);
    assert!(!first["events"].as_array().unwrap().is_empty());
    primary.ask("kill", json!({"slot": 0}));
    let mut kinds = Vec::new();
    while !kinds.contains(&json!("worker-killed")) {
        kinds.extend(live.item()["events"].as_array().unwrap().iter().map(|it| it["kind"].clone()));
    }
    // Events of the first are not sent again.
    assert!(kinds.iter().filter(|kind| **kind == json!("worker-started")).count() <= 1);
    live.socket().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    primary.stop();
}

#[test]
fn status_counts_match_the_traffic() {
    let primary = quick(2).start();
    for n in 0..30 {
        ask(nth(n), primary.address());
    }
    let (_open, _) = stay(nth(1), &primary);
    let status = primary.ask("status", json!({}));
    assert_eq!(status["accepted"], 31);
    eventually("acknowledged and seen", || primary.ask("status", json!({}))["acknowledged"] == 31);
    let status = primary.ask("status", json!({}));
    assert_eq!((&status["connections"], &status["waiting"]), (&json!(1), &json!(0)));
    assert!(status["handoff_p50_ms"].as_f64() > Some(0.0), "{status}");
    assert!(status["handoff_p99_ms"].as_f64() >= status["handoff_p50_ms"].as_f64(), "{status}");
    let workers = primary.ask("workers", json!({}));
    let total = |key: &str| -> u64 {
        workers.as_array().unwrap().iter().map(|row| row[key].as_u64().unwrap()).sum()
    };
    assert_eq!((total("connections_total"), total("connections")), (31, 1));
    assert!(workers.as_array().unwrap().iter().all(|row| row["memory"].as_u64() > Some(100_000)));
    primary.stop();
}

#[test]
fn the_last_lines_of_workers_are_sent_and_followed() {
    let script = "import os, sys\n\
        slot = os.environ['STICKY_LB_SLOT']\n\
        for n in range(30): print(slot, 'line', n)\n\
        print('trouble', file=sys.stderr)\n\
        sys.stdout.flush()\n\
        sys.argv = ['worker.py']\n\
        exec(open(WORKER).read())\n";
    let worker = format!("{}/examples/worker.py", env!("CARGO_MANIFEST_DIR"));
    let program = common::own_directory().join("talks.py");
    fs::write(&program, script.replace("WORKER", &format!("{worker:?}"))).unwrap();
    let primary = quick(2).worker(&["python3", program.to_str().unwrap()]).start();
    let texts = |keys: Value| -> Vec<String> {
        let (items, end) = primary.begin("logs", keys).all();
        end.unwrap();
        items.iter().map(|item| item["text"].as_str().unwrap().to_owned()).collect()
    };
    eventually("all lines are read", || texts(json!({"lines": 100})).len() == 62);
    let last: Vec<_> = (27..30).map(|n| format!("1 line {n}")).collect();
    let of_slot = texts(json!({"slot": 1, "lines": 4}));
    assert!(last.iter().all(|line| of_slot.contains(line)), "{of_slot:?}");
    assert_eq!(texts(json!({"err": true})), ["trouble", "trouble"]);
    assert_eq!(texts(json!({})).len(), 15);
    let mut follower = primary.begin("logs", json!({"follow": true, "lines": 0, "slot": 0}));
    primary.ask("restart", json!({"slot": 0}));
    assert_eq!(follower.item()["generation"], 1);
    primary.stop();
}
