//! Servers on listening sockets of their own: the kernel sends each client to its worker, and neither restarts nor
//! deaths of workers and of the primary cost one.
//!
//! Servers and applications are under `tests/listen`; what is promised to all of them is in `scripts/prove-listen`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use common::process::{self, Signal};
use common::tools::tool;
use common::{Builder, Primary, client, eventually};
use serde_json::{Value, json};

/// A network of its own.
const NAMESPACE: [&str; 2] = ["unshare", "--net"];

/// All promises to a server, or that it starts, sticks and restarts.
fn keeps_promises(server: &str, how: &str) {
    tool("listen/bin/uvicorn");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut prove =
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/prove-listen"));
    prove.arg(env!("CARGO_BIN_EXE_sticky-lb")).args([how, "--only", server]);
    let output = prove.env("CARGO_TARGET_DIR", target).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

macro_rules! servers {
    ($($test:ident: $server:literal $how:literal),* $(,)?) => {
        $(#[test] fn $test() {
            keeps_promises($server, $how);
        })*
    };
}

servers! {
    uvicorn_keeps_its_clients: "uvicorn" "--quick",
    gunicorn_keeps_its_clients: "gunicorn" "--quick",
    gunicorn_with_uvicorn_keeps_its_clients: "gunicorn-uvicorn" "--brief",
    hypercorn_keeps_its_clients: "hypercorn" "--brief",
    daphne_keeps_its_clients: "daphne" "--brief",
    puma_keeps_its_clients: "puma" "--brief",
    go_keeps_its_clients: "go" "--brief",
    nginx_keeps_its_clients: "nginx" "--brief",
    node_keeps_its_clients: "node" "--brief",
    deno_keeps_its_clients: "deno" "--quick",
}

fn odd(habit: &str, workers: u16, arguments: &[&str]) -> Builder {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/listen/odd.py");
    Primary::with_workers(workers)
        .arguments(&["--interface", "listen", "--min-uptime", "100ms"])
        .arguments(arguments)
        .worker(&["python3", program.to_str().unwrap(), habit])
}

fn address_of(n: usize) -> IpAddr {
    let [.., high, low] = n.to_be_bytes();
    [127, 9, high, low.max(1)].into()
}

fn ask(primary: &Primary, address: IpAddr) -> Value {
    let answer = client::get_from(address, primary.address(), "/").unwrap();
    serde_json::from_str(&answer.body).unwrap()
}

fn slot(primary: &Primary, address: IpAddr) -> String {
    let said = ask(primary, address);
    assert_eq!(said["remote"], address.to_string(), "the program sees its client's address");
    said["slot"].as_str().unwrap().to_owned()
}

fn slots(primary: &Primary, count: usize) -> Vec<String> {
    (0..count).map(|n| slot(primary, address_of(n))).collect()
}

#[test]
fn where_says_where_the_kernel_sends_clients() {
    let primary = odd("plain", 4, &[]).start();
    for n in 0..200 {
        let address = address_of(n * 7);
        let told = primary.ask("where", json!({ "address": address.to_string() }));
        assert_eq!(told["target"].to_string(), slot(&primary, address), "{address}: {told}");
    }
    primary.ask("drain", json!({ "slot": 2 }));
    eventually("a slot that is drained", || primary.ask("status", json!({}))["serving"] == 3);
    for n in 0..200 {
        let address = address_of(n * 7);
        let told = primary.ask("where", json!({ "address": address.to_string() }));
        assert_eq!(told["target"].to_string(), slot(&primary, address), "{address}: {told}");
        assert_ne!(told["target"], 2);
    }
    primary.stop();
}

#[test]
fn the_os_spreads_connections_of_one_address() {
    let primary = odd("plain", 2, &["--dispatch", "os"]).start();
    let mut seen = BTreeSet::new();
    eventually("both slots", || {
        seen.insert(slot(&primary, address_of(1)));
        seen.len() == 2
    });
    primary.stop();
}

#[test]
fn a_worker_is_ready_when_it_accepts_and_says_so_where_that_is_asked_for() {
    let primary = odd("word", 1, &["--wait-ready", "--listen-timeout", "30s"]).spawn();
    primary.wait_for_log("worker started");
    std::thread::sleep(Duration::from_millis(500));
    assert!(!primary.log().contains("worker ready"), "{}", primary.log());
    fs::write(primary.directory().join("word"), "").unwrap();
    primary.wait_for_log("worker ready");
    drop(primary);
    let (code, said) = odd("deaf", 1, &["--listen-timeout", "300ms"]).run();
    assert!(said.contains("has not accepted a connection on its listening socket"), "{said}");
    assert_eq!(code, Some(1));
}

#[test]
fn a_deploy_that_never_accepts_changes_nothing() {
    let primary = odd("deaf-next", 2, &["--listen-timeout", "3s"]).start();
    let before = slots(&primary, 20);
    let pids = primary.workers().len();
    primary.signal(Signal::HUP);
    let reloaded = primary.wait_for_event("reloaded");
    assert_ne!(reloaded["result"], "done", "{reloaded}");
    assert_eq!(slots(&primary, 20), before);
    assert_eq!(primary.workers().len(), pids);
    primary.stop();
}

#[test]
fn a_socket_that_its_worker_shuts_down_is_mended_and_nobody_moves() {
    let primary = odd("shutdown", 3, &[]).start();
    let (before, mut mended) = (slots(&primary, 60), 0);
    for _ in 0..2 {
        primary.signal(Signal::HUP);
        assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
        eventually("the end of the old workers", || primary.workers().len() == 3);
        mended += 3;
        eventually("all three mended", || primary.log().matches("listens again").count() == mended);
        assert_eq!(slots(&primary, 60), before);
    }
    primary.stop();
}

#[test]
fn a_worker_that_opens_the_port_itself_is_named() {
    let primary = odd("own", 1, &[]).start();
    primary.wait_for_log("worker opens the port itself");
    primary.stop();
}

#[test]
fn a_program_is_told_its_socket_once() {
    let by_environment = odd("plain", 1, &[]).start();
    let said = ask(&by_environment, address_of(1));
    let pid = said["pid"].to_string();
    assert_eq!(said["fds"], json!(["1", pid, "http", "1"]));
    by_environment.stop();
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/listen/odd.py");
    let words = ["python3", program.to_str().unwrap(), "plain", "--fd", "{fd}"];
    let by_number = Primary::with_workers(1).worker(&words).start();
    assert_eq!(ask(&by_number, address_of(1))["fds"], json!([null, null, null, "1"]));
    let seen = process::command_line(by_number.worker(0));
    assert!(seen.ends_with("--fd 3"), "{seen}");
    by_number.stop();
}

#[test]
fn clients_of_a_worker_that_has_died_wait_for_the_next_one() {
    let primary = odd("plain", 1, &["--restart-delay", "500ms"]).start();
    let first = ask(&primary, address_of(1))["pid"].as_u64().unwrap();
    process::signal(u32::try_from(first).unwrap(), Signal::KILL);
    eventually("its end", || !process::exists(u32::try_from(first).unwrap()));
    let begun = SystemTime::now();
    let second = ask(&primary, address_of(1))["pid"].as_u64().unwrap();
    assert_ne!(first, second);
    assert!(begun.elapsed().unwrap() > Duration::from_millis(100), "it waited");
    primary.stop();
}

#[test]
fn what_kernel_dispatch_cannot_do_is_refused_by_name() {
    for (arguments, expected) in [
        (&["--load-bound", "1.2"][..], "the kernel knows no loads"),
        (&["--placement", "modulo"], "--placement: needs dispatch"),
        (&["--dispatch", "primary"], "--dispatch: is primary, and listen workers accept"),
    ] {
        let (code, said) = odd("plain", 1, arguments).run();
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

/// A Redis of its own. Dropping it ends it.
struct Redis(std::process::Child, u16);

impl Redis {
    fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        let server = command.stdout(Stdio::null()).spawn().unwrap();
        let redis = Self(server, port);
        eventually("Redis", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        redis
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An example of `examples/python`: clients stick, and a room is in all workers.
fn chats(command: &[&str], clients: &str) {
    let redis = Redis::start();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let server = tool(&format!("listen/bin/{}", command[0]));
    let words = [&[server.to_str().unwrap()], &command[1..]].concat();
    let primary = Primary::with_workers(3)
        .arguments(&["--cwd", root.join("examples/python").to_str().unwrap()])
        .environment("REDIS_URL", &format!("redis://127.0.0.1:{}", redis.1))
        .environment("PYTHONDONTWRITEBYTECODE", "1")
        .worker(&words)
        .start();
    let mut rooms = Command::new(tool("listen/bin/python"));
    rooms.arg(root.join("tests/listen/rooms.py")).arg(primary.port().to_string()).arg(clients);
    let output = rooms.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(seen["complete"], seen["clients"], "{seen}");
    assert_eq!(seen["transports"], json!(["websocket"]), "{seen}");
    let slots: Vec<_> = seen["slots"].as_object().unwrap().values().collect();
    assert!(slots.iter().all(|slots| slots.as_array().unwrap().len() == 1), "{seen}");
    assert!(slots.iter().any(|slots| *slots != slots_of_first(&seen)), "all in one slot: {seen}");
    primary.stop();
}

fn slots_of_first(seen: &Value) -> &Value {
    seen["slots"].as_object().unwrap().values().next().unwrap()
}

#[test]
fn python_socketio_sticks_and_its_rooms_are_in_all_workers() {
    chats(&["uvicorn", "--fd", "{fd}", "--no-access-log", "socketio_asgi:app"], "socketio");
}

#[test]
fn flask_socketio_sticks_and_its_rooms_are_in_all_workers() {
    let threads = ["-k", "gthread", "--threads", "100", "--no-control-socket"];
    let command = [&["gunicorn", "-b", "fd://{fd}"], &threads[..], &["flask_socketio_app:app"]];
    chats(&command.concat(), "socketio");
}

#[test]
fn django_channels_sticks_and_its_rooms_are_in_all_workers() {
    chats(&["daphne", "--fd", "{fd}", "channels_app:app"], "websocket");
}

#[test]
fn a_client_whose_handshake_ends_after_the_switch_is_served_by_the_worker_before() {
    let primary = odd("plain", 1, &[]).prepared_by(&NAMESPACE, "ip link set lo up").start();
    let before = primary.worker(0);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/listen/late.py");
    let mut late = Command::new("nsenter");
    late.arg(format!("--net=/proc/{}/ns/net", primary.primary_pid())).arg("python3").arg(script);
    late.arg(primary.port().to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut late = late.spawn().unwrap();
    let mut said = BufReader::new(late.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "asked");
    primary.signal(Signal::HUP);
    primary.wait_for_log("worker draining slot=0 generation=0");
    // Without clients it would end in 150 ms.
    std::thread::sleep(Duration::from_millis(700));
    assert!(process::exists(before), "{}", primary.log());
    drop(late.stdin.take());
    let answer: Value = serde_json::from_str(&said.next().unwrap().unwrap()).unwrap();
    assert_eq!(answer["pid"], before);
    assert_eq!(answer["remote"], "10.9.0.2");
    assert!(late.wait().unwrap().success());
    eventually("the end of the worker before", || !process::exists(before));
    primary.stop();
}

#[test]
fn a_port_that_another_primary_has_is_refused() {
    let first = odd("plain", 1, &[]).start();
    let port = first.port().to_string();
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/listen/odd.py");
    let second = Primary::from_flags(&["--workers", "1", "--port", &port, "--interface", "listen"]);
    let (code, said) = second.worker(&["python3", program.to_str().unwrap(), "plain"]).run();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("port {port} is in use")), "{said}");
    first.stop();
}

#[test]
fn a_deploy_that_fails_costs_no_client() {
    let primary = odd("deaf-next", 1, &["--listen-timeout", "3s"]).start();
    primary.signal(Signal::HUP);
    assert_ne!(primary.wait_for_event("reloaded")["result"], "done");
    // The primary's own connection still waits at the socket of the new worker; it is closed there.
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(primary.ask("status", json!({}))["lost"], 0);
    primary.stop();
}

#[test]
fn a_worker_that_makes_its_socket_blocking_stops_nobody() {
    let primary = odd("blocking", 2, &[]).start();
    let before = slots(&primary, 20);
    for _ in 0..2 {
        primary.signal(Signal::HUP);
        assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
        eventually("the end of the old workers", || primary.workers().len() == 2);
        assert_eq!(slots(&primary, 20), before);
    }
    primary.stop();
}

#[test]
fn crashes_of_the_primary_move_nobody() {
    let primary = odd("plain", 4, &[]).start();
    let (before, to) = (slots(&primary, 40), primary.address());
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let asking = std::thread::spawn(move || {
        let (mut asked, mut moved) = (0, Vec::new());
        while matches!(is_done.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
            for (n, slot) in before.iter().enumerate() {
                let answer = client::get_from(address_of(n), to, "/").unwrap();
                let said: Value = serde_json::from_str(&answer.body).unwrap();
                asked += 1;
                if said["slot"] != **slot {
                    moved.push((n, said));
                }
            }
        }
        (asked, moved)
    });
    for _ in 0..3 {
        primary.crash();
        eventually("a primary that answers", || primary.try_ask("status").is_some());
    }
    drop(done);
    let (asked, moved) = asking.join().unwrap();
    assert!(asked > 100 && moved.is_empty(), "{} of {asked} moved: {moved:?}", moved.len());
    primary.stop();
}
