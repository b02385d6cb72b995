//! `sticky-lb conformance`: the examples pass, and each wrong worker fails by the check that is meant to find it.
//!
//! No check finds these faults, so that they stand in no table: a worker that acknowledges in another order than
//! connections came (acknowledgements are one number); one that uses a socket before its acknowledgement so seldom
//! that a thousand connections don't show it; a lost update of the scoreboard, which is as seldom; a program for Node
//! that reads or acknowledges at a wrong time, since Node does both.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::process::{Signal, children, exists, signal, variable};
use common::tools::tool;
use common::{eventually, example};
use serde_json::{Value, json};

/// Runs that go on at a time: most of them wait.
const AT_A_TIME: usize = 4;

/// Faults of native workers, and the check that has to fail.
const NATIVE: [(&str, &str); 24] = [
    ("silent", "attaches"),
    ("never-ready", "ready"),
    ("exits", "attaches"),
    ("ready-before-hello", "attaches"),
    ("hello-twice", "serves"),
    ("mute", "serves"),
    ("reads-first", "acknowledges-first"),
    ("looks-first", "acknowledges-first"),
    ("greets-first", "acknowledges-first"),
    ("counts-twice", "acknowledges-all"),
    ("forgets", "acknowledges-all"),
    ("serial", "silent-clients"),
    ("asks-for-peer", "gone-clients"),
    ("loses", "descriptors"),
    ("dies-of-limit", "descriptors"),
    ("waits-at-limit", "descriptors"),
    ("no-pong", "pings"),
    ("leaks", "closes"),
    ("resets", "closes"),
    ("child-inherits", "closes"),
    ("verbose", "output"),
    ("stays", "drains"),
    ("exit-code", "drains"),
    ("cuts", "finishes"),
];

/// The same, of what happens without a primary and after the end.
const ALONE: [(&str, &str); 5] = [
    ("drains-at-once", "orphan"),
    ("dies-with-primary", "orphan"),
    ("prints-to-nobody", "orphan"),
    ("outlives", "orphan"),
    ("leaves", "leaves-nothing"),
];

/// Faults of servers that accept their clients themselves.
const LISTEN: [(&str, &str); 24] = [
    ("exits", "ready"),
    ("deaf", "ready"),
    ("ignores-descriptor", "ready"),
    ("same-address", "ready"),
    ("mute", "serves"),
    ("turns-away", "serves"),
    ("hangs-up", "serves"),
    ("wrong-address", "client-address"),
    ("empties-queue", "takes-queue"),
    ("serial", "silent-clients"),
    ("asks-for-peer", "gone-clients"),
    ("dies-of-limit", "descriptors"),
    ("stops-at-limit", "descriptors"),
    ("two-processes", "one-acceptor"),
    ("own-port", "own-port"),
    ("ready-too-early", "notifies"),
    ("leaks", "closes"),
    ("resets", "closes"),
    ("child-inherits", "closes"),
    ("verbose", "output"),
    ("stays", "drains"),
    ("exit-code", "drains"),
    ("shuts-down", "keeps-listening"),
    ("leaves", "leaves-nothing"),
];

/// Faults of programs for Node.
const NODE: [(&str, &str); 14] = [
    ("throws", "ready"),
    ("not-listening", "ready"),
    ("other-port", "ready"),
    ("mute", "serves"),
    ("blocks", "silent-clients"),
    ("no-error-handler", "gone-clients"),
    ("opens-files", "descriptors"),
    ("blocks", "pings"),
    ("never-ends", "closes"),
    ("verbose", "output"),
    ("stays", "drains"),
    ("exit-code", "drains"),
    ("cuts", "finishes"),
    ("leaves", "leaves-nothing"),
];

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sticky-lb"));
    command.arg("conformance").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    text(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn script(name: &str) -> String {
    format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// All checks pass, but for so many that have no meaning.
fn passes(worker: &[&str], interface: &str, not_applicable: usize) {
    passes_with(&[], worker, interface, not_applicable);
}

fn passes_with(flags: &[&str], worker: &[&str], interface: &str, not_applicable: usize) {
    let (lines, counts) = without_failure(flags, worker, interface);
    let passed = lines.len() - not_applicable;
    let expected = json!({"passed": passed, "failed": 0, "not_applicable": not_applicable});
    assert_eq!(counts, expected, "{worker:?}: {lines:?}");
}

/// The findings, none of which is a failure, and their counts.
fn without_failure(flags: &[&str], worker: &[&str], interface: &str) -> (Vec<Value>, Value) {
    let output = run(&[&["--json"], flags, &["--"], worker].concat());
    let mut lines = lines(&output);
    let counts = lines.pop().unwrap();
    let failed: Vec<_> = lines.iter().filter(|line| line["result"] == "fail").collect();
    assert!(failed.is_empty(), "{worker:?}: {failed:?}");
    assert!(lines.iter().all(|line| line["interface"] == interface), "{lines:?}");
    let all = if interface == "listen" { 16 } else { 15 };
    assert_eq!((lines.len(), output.status.code()), (all, Some(0)), "{worker:?}: {lines:?}");
    (lines, counts)
}

/// Each fault is found by its check, which says what to change.
fn are_found(language: &[&str], interface: &str, faults: &[(&str, &str)]) {
    are_found_with(&[], language, interface, faults);
}

fn are_found_with(flags: &[&str], language: &[&str], interface: &str, faults: &[(&str, &str)]) {
    let find = |fault: &str, check: &str| {
        let arguments = ["--json", "--interface", interface, "--only", check, "--"];
        let output = run(&[flags, &arguments, language, &[fault]].concat());
        let lines = lines(&output);
        let found = lines.iter().find(|line| line["result"] == "fail");
        let found = found.unwrap_or_else(|| panic!("{fault} is not found: {lines:?}"));
        assert_eq!(found["check"], check, "{fault}: {lines:?}");
        assert!(found["hint"].as_str().unwrap().len() > 10, "{fault}: {found}");
        assert_eq!(output.status.code(), Some(1), "{fault}");
    };
    let next = AtomicUsize::new(0);
    let find_some = || {
        while let Some((fault, check)) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
            find(fault, check);
        }
    };
    thread::scope(|scope| {
        (0..AT_A_TIME).for_each(|_| {
            scope.spawn(find_some);
        });
    });
}

#[test]
fn worker_in_python_passes() {
    passes(&["python3", &script("examples/worker.py")], "native", 0);
}

#[test]
fn server_for_node_passes() {
    // Its primary's death is none to it.
    passes(&["node", &script("examples/server.js")], "node", 1);
}

#[test]
fn workers_in_rust_pass() {
    for name in ["echo_worker", "axum_app", "chat"] {
        passes(&[&example(name)], "native", 0);
    }
    passes(&[env!("CARGO_BIN_EXE_sticky-lb"), "demo-worker"], "native", 0);
}

#[test]
fn wrong_workers_without_a_fault_pass() {
    passes(&["python3", &script("tests/workers/wrong_worker.py"), "none"], "native", 0);
    passes(&["node", &script("tests/workers/wrong_worker.js"), "none"], "node", 1);
}

#[test]
fn faults_of_native_workers_are_found() {
    are_found(&["python3", &script("tests/workers/wrong_worker.py")], "native", &NATIVE);
}

#[test]
fn faults_of_native_workers_that_are_alone_are_found() {
    are_found(&["python3", &script("tests/workers/wrong_worker.py")], "native", &ALONE);
}

#[test]
fn faults_of_programs_for_node_are_found() {
    are_found(&["node", &script("tests/workers/wrong_worker.js")], "node", &NODE);
}

/// A server in Python that `scripts/test` has installed, on its descriptor, with the applications of tests/listen.
fn python_server(flags: &[&str], name: &str, arguments: &[&str], not_applicable: usize) {
    let program = tool("listen/bin").join(name);
    let path = format!("PYTHONPATH={}", script("tests/listen"));
    let command = ["env", &path, program.to_str().unwrap()];
    passes_with(flags, &[&command, arguments].concat(), "listen", not_applicable);
}

#[test]
fn servers_in_python_pass() {
    let slow = ["--slow-path", "/slow?ms=1000"];
    python_server(&slow, "uvicorn", &["--fd", "{fd}", "asgi:app"], 1);
    let threads = ["-b", "fd://{fd}", "-k", "gthread", "--threads", "100", "--no-control-socket"];
    python_server(&[], "gunicorn", &[&threads[..], &["wsgi:app"]].concat(), 0);
    // It cuts what is under way at the signal.
    python_server(&[], "daphne", &["--fd", "{fd}", "asgi:app"], 2);
}

#[test]
fn other_servers_pass() {
    let listen = ["--interface", "listen"];
    let application = script("tests/listen/config.ru");
    let puma = ["puma", "--bind-to-activated-sockets", "only", &application];
    passes_with(&listen, &puma, "listen", 1);
    passes_with(&listen, &[tool("go/server").to_str().unwrap()], "listen", 1);
    let folder = script("tests/listen");
    let nginx = ["env", "-C", &folder, "HOST=127.0.0.1", "sh", "nginx.sh"];
    // Run by root, its worker is another user's, whose limits may be out of reach.
    let flags = [&listen[..], &["--stop-signal", "QUIT"]].concat();
    without_failure(&flags, &nginx, "listen");
}

#[test]
fn a_server_for_one_client_at_a_time_is_told_so() {
    let odd = script("tests/listen/odd.py");
    let output = run(&["--interface", "listen", "--json", "--", "python3", &odd, "plain"]);
    let lines = lines(&output);
    let failed = lines.iter().filter(|line| line["result"] == "fail");
    let failed: Vec<_> = failed.map(|line| line["check"].as_str().unwrap()).collect();
    assert_eq!(failed, ["silent-clients"], "{lines:?}");
}

#[test]
fn servers_of_a_few_lines_pass() {
    let wrong = script("tests/workers/wrong_server.py");
    let flags = ["--interface", "listen", "--slow-path", "/slow"];
    passes_with(&flags, &["python3", &wrong, "none"], "listen", 0);
    // Options that are changed are said, and are no failure: the primary sets them before each start.
    let only = ["--interface", "listen", "--json", "--only", "keeps-listening", "--"];
    let output = run(&[&only[..], &["python3", &wrong, "changes-options"]].concat());
    let lines = lines(&output);
    let found = lines.iter().find(|line| line["check"] == "keeps-listening").unwrap();
    let seen = found["seen"].as_str().unwrap();
    assert!(seen.contains("blocking now") && seen.contains("TCP_NODELAY is off"), "{seen}");
    assert_eq!(found["result"], "pass");
}

#[test]
fn faults_of_servers_are_found() {
    are_found(&["python3", &script("tests/workers/wrong_server.py")], "listen", &LISTEN);
}

#[test]
fn an_answer_that_is_cut_is_found_by_its_path() {
    let language = ["python3", &script("tests/workers/wrong_server.py")];
    are_found_with(&["--slow-path", "/slow"], &language, "listen", &[("cuts", "finishes")]);
}

#[test]
fn checks_of_another_interface_are_not_made() {
    let wrong = script("tests/workers/wrong_server.py");
    let arguments = ["--interface", "listen", "--json", "--only", "pings", "--", "python3", &wrong];
    let lines = lines(&run(&[&arguments[..], &["none"]].concat()));
    assert_eq!(lines[0]["check"], "pings");
    assert_eq!(lines[0]["result"], "not-applicable");
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn the_guide_has_each_check() {
    let list = text(&run(&["--list"]));
    let row = |line: &str| {
        let (name, rule) = line.split_once(' ').unwrap();
        format!("| `{name}` | {} |\n", rule.trim())
    };
    let rows: String = list.lines().map(row).collect();
    let page = fs::read_to_string(script("src/guide/conformance.md")).unwrap();
    assert!(rows.lines().count() == 21 && page.contains(&rows), "{rows}");
}

#[test]
fn people_read_it_in_80_columns_and_scripts_by_its_exit_code() {
    let wrong = script("tests/workers/wrong_worker.py");
    let output = run(&["--only", "pings,drains", "--", "python3", &wrong, "no-pong"]);
    let shown = text(&output);
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    assert!(shown.starts_with("FAIL  pings "), "{shown}");
    assert!(shown.contains("-> answer each ping (0x02) with a pong (0x84)"), "{shown}");
    assert!(shown.ends_with("\n1 passed, 1 failed, 0 not applicable\n"), "{shown}");
    assert_eq!(output.status.code(), Some(1));
    for (wrong, code) in [
        (&["--only", "flies", "--", "true"][..], 2),
        (&["--interface", "carrier-pigeon", "--", "true"], 2),
        (&[], 2),
        (&["--", "/no/such/program"], 1),
    ] {
        let output = run(wrong);
        assert_eq!((output.status.code(), text(&output)), (Some(code), String::new()), "{wrong:?}");
    }
}

#[test]
fn an_interrupt_ends_the_worker_too() {
    let wrong = script("tests/workers/wrong_worker.py");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sticky-lb"));
    command.args(["conformance", "--", "python3", &wrong, "silent"]).stdin(Stdio::null());
    let mut checks = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut worker = None;
    eventually("a worker", || {
        worker = children(checks.id()).first().copied();
        // It isn't the program itself any more, which would be ended with it.
        worker.is_some_and(|pid| variable(pid, "STICKY_LB_CHANNEL").is_some())
    });
    signal(checks.id(), Signal::INT);
    let mut said = String::new();
    checks.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(
        (checks.wait().unwrap().code(), said.as_str()),
        (Some(130), "sticky-lb: interrupted; the worker was killed\n")
    );
    assert!(!exists(worker.unwrap()));
}
