//! Programs for Node that listen beside the front's port, and programs that take their connections by a message.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use common::{Builder, Primary, TIMEOUT, eventually, process};
use serde_json::Value;

fn program(name: &str) -> String {
    format!("{}/tests/node/own/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn node(workers: u16, name: &str, arguments: &[&str]) -> Builder {
    let program = program(name);
    Primary::with_workers(workers).worker(&[&["node", program.as_str()], arguments].concat())
}

/// A port that is free now, of those that the kernel gives to no client.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 500) as u16 * 20;
    let ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed));
    let mut free = ports.take(20).filter(|port| TcpListener::bind(("::", *port)).is_ok());
    free.next().expect("a free port")
}

/// The body of the answer to a request.
fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    // Without a length, the body comes in chunks; a short one in one of them.
    let body = body.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let chunk =
        body.split_once("\r\n").map(|(_, rest)| rest.split("\r\n").next().unwrap_or_default());
    Ok(chunk.map_or_else(|| body.clone(), str::to_owned))
}

fn found(primary: &Primary) -> Value {
    serde_json::from_str(&get(primary.address()).unwrap()).unwrap()
}

fn local(port: &Value) -> SocketAddr {
    ([127, 0, 0, 1], u16::try_from(port.as_u64().expect("a port")).unwrap()).into()
}

/// The processes that answer there.
fn answering(address: SocketAddr, wanted: usize) -> BTreeSet<String> {
    let mut pids = BTreeSet::new();
    eventually("answers of all workers", || {
        pids.extend(get(address).ok());
        pids.len() >= wanted
    });
    pids
}

#[test]
fn workers_share_further_ports_of_every_kind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let (tcp, all) = (format!("tcp={}", free_port()), format!("all={}", free_port()));
    let (path_wanted, udp) = (format!("path={}", path.display()), "udp=0");
    let wanted = [tcp.as_str(), &all, "localhost", &path_wanted, udp];
    let primary = node(2, "ports.js", &wanted).start();
    let found = found(&primary);
    for name in [tcp.as_str(), &all, "localhost"] {
        let asked = name.split_once('=').map(|(_, port)| port);
        if let Some(asked) = asked {
            assert_eq!(found[name].to_string(), asked, "{name}");
        }
        assert_eq!(answering(local(&found[name]), 2).len(), 2, "{name}");
    }
    let mut said = String::new();
    UnixStream::connect(&path).unwrap().read_to_string(&mut said).unwrap();
    assert!(primary.workers().iter().any(|(pid, ..)| pid.to_string() == said));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    client.send_to(b"?", local(&found[udp])).unwrap();
    let length = client.recv(&mut [0; 16]).unwrap();
    assert!(length > 0);
    let log = primary.log();
    assert!(!log.contains("refused") && !log.contains("another port"), "{log}");
    let port = local(&found[tcp.as_str()]);
    primary.stop();
    assert!(!path.exists(), "the path is left behind");
    TcpListener::bind(port).unwrap();
}

#[test]
fn a_port_that_is_taken_is_the_programs_error_and_probers_find_theirs_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = format!("tcp={}", taken.local_addr().unwrap().port());
    let (probe, twice) = (format!("probe={}", free_port()), format!("twice={}", free_port()));
    let primary = node(2, "ports.js", &[&taken_port, &probe, &twice]).start();
    for _ in 0..2 {
        let found = found(&primary);
        assert_eq!(found[taken_port.as_str()], "EADDRINUSE");
        assert_eq!(found[probe.as_str()], "9 times");
        assert_eq!(found[twice.as_str()], "EADDRINUSE");
        // Those of a worker that starts while another has the port.
        let pid = primary.worker(0);
        process::signal(pid, process::Signal::KILL);
        eventually("another worker", || primary.worker(0) != pid);
        eventually("it serves", || primary.serving().len() == 2);
    }
    primary.stop();
}

#[test]
fn a_shared_port_outlives_workers_upgrades_and_crashes_of_the_primary() {
    let directory = tempfile::tempdir().unwrap();
    let path = format!("unlink={}", directory.path().join("socket").display());
    let fixed = format!("tcp={}", free_port());
    let primary = node(2, "ports.js", &["localhost", &fixed, &path]).start();
    let before = found(&primary);
    let check = |primary: &Primary, when: &str| {
        let now = found(primary);
        for name in ["localhost", &fixed] {
            assert_eq!(now[name], before[name], "{name} after {when}");
            assert!(get(local(&now[name])).is_ok(), "{name} after {when}");
        }
        let mut said = String::new();
        let socket = directory.path().join("socket");
        UnixStream::connect(&socket).unwrap().read_to_string(&mut said).unwrap();
        assert!(!said.is_empty(), "after {when}");
    };
    let replace = |primary: &Primary, slot| {
        let pid = primary.worker(slot);
        process::signal(pid, process::Signal::KILL);
        eventually("another worker", || primary.worker(slot) != pid);
        eventually("it serves", || primary.serving().len() == 2);
    };
    check(&primary, "the start");
    replace(&primary, 0);
    check(&primary, "the end of a worker");

    primary.signal(process::Signal::USR2);
    primary.wait_for_event("upgraded");
    replace(&primary, 0);
    replace(&primary, 1);
    check(&primary, "an upgrade");

    primary.crash();
    eventually("all serve", || primary.try_ask("status").is_some() && primary.serving().len() == 2);
    check(&primary, "a crash");
    replace(&primary, 0);
    replace(&primary, 1);
    check(&primary, "a crash, in new workers");
    assert_eq!(answering(local(&before["localhost"]), 2).len(), 2);

    // A port that no worker has is closed, also after a crash.
    primary.stop();
    assert!(get(local(&before["localhost"])).is_err());
    assert!(!directory.path().join("socket").exists());
}

#[test]
fn a_worker_of_another_user_gets_what_that_may_have() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = format!("path={}", directory.path().join("socket").display());
    let primary = node(1, "ports.js", &[&path, "tcp=1021", "localhost"])
        .arguments(&["--user", "65534", "--group", "65534"])
        .start();
    let found = found(&primary);
    assert_eq!((&found[path.as_str()], &found["tcp=1021"]), (&"EACCES".into(), &"EACCES".into()));
    assert!(get(local(&found["localhost"])).is_ok());
    primary.wait_for_log("its own user may not");
    primary.stop();
}

#[test]
fn a_program_that_listens_elsewhere_alone_is_told_which_port() {
    let other = free_port();
    let (code, log) = node(1, "elsewhere.js", &[&other.to_string()])
        .arguments(&["--listen-timeout", "4s", "--max-restarts", "1"])
        .run();
    assert_ne!(code, Some(0));
    let hint = format!(
        "its program listens on port {other}, and clients come by another; start with --port {other}"
    );
    assert!(log.contains(&hint), "{log}");
}

#[test]
fn a_program_that_says_nothing_is_ready_when_it_takes_a_connection() {
    for (delay, most) in [("0", 1), ("700", 4)] {
        let primary = node(2, "by-message.js", &[delay, "sticky:connection"])
            .arguments(&["--node-message", "socket.io"])
            .start();
        for _ in 0..20 {
            let found = found(&primary);
            // Its two channels, the client, and the probes that came too early.
            let left = found["sockets"].as_u64().unwrap();
            assert!(left <= 3 + most, "{left} sockets after {delay} ms");
        }
        primary.stop();
    }
}

#[test]
fn a_program_that_takes_no_connection_is_not_ready() {
    let (code, log) = node(1, "by-message.js", &["0", "another message"])
        .arguments(&[
            "--node-message",
            "socket.io",
            "--listen-timeout",
            "1s",
            "--max-restarts",
            "1",
        ])
        .run();
    assert_ne!(code, Some(0));
    assert!(log.contains("listen_timeout"), "{log}");
}

#[test]
fn a_program_is_probed_by_the_next_primary_after_a_crash_too() {
    let primary = node(1, "by-message.js", &["2500", "sticky:balance"])
        .arguments(&["--node-message", "sticky-balance"])
        .start_listening();
    eventually("a worker", || !primary.workers().is_empty());
    std::thread::sleep(Duration::from_millis(300));
    primary.crash();
    eventually("it serves", || primary.try_ask("status").is_some() && primary.serving().len() == 1);
    assert!(found(&primary)["pid"].is_u64());
    primary.stop();
}
