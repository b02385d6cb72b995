//! The control socket: ownership, access, hostile clients.

mod common;

use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use common::client::{ask, connect_from, nth};
use common::control::Asked;
use common::process::Signal;
use common::{Primary, eventually};
use serde_json::json;

fn status(primary: &Primary) -> serde_json::Value {
    primary.ask("status", json!({}))
}

#[test]
fn the_socket_is_private_and_is_removed_with_the_primary() {
    let primary = Primary::with_workers(1).start();
    let path = primary.control();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(status(&primary)["pid"], primary.pid());
    let folder = primary.directory().to_owned();
    let sockets = || {
        let names = fs::read_dir(&folder).unwrap().map(|it| it.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().contains(".sock")).count()
    };
    assert_eq!(sockets(), 1, "no temporary file is left");
    primary.signal(Signal::TERM);
    eventually("the socket is gone", || !path.exists());
    primary.stop_finished();
}

#[test]
fn wrong_requests_are_answered_with_the_reason() {
    let primary = Primary::with_workers(1).start();
    let long = format!("{{\"version\":1,\"request\":\"{}\"}}\n", "x".repeat(100_000));
    for (bytes, code, said) in [
        (&b"hello\n"[..], "bad-request", "not JSON"),
        (b"\n", "bad-request", "not JSON"),
        (b"\x00\xff\xfe\n", "bad-request", "not JSON"),
        (b"[1,2]\n", "bad-request", "not a JSON object"),
        (b"{\"request\":\"status\"}\n", "bad-request", "no version"),
        (b"{\"version\":1,\"request\":\"dance\"}\n", "bad-request", "dance"),
        (b"{\"version\":1,\"request\":\"drain\"}\n", "bad-request", "slot"),
        (b"{\"version\":1,\"request\":\"status\",\"x\":1}\n", "bad-request", "x"),
        (b"{\"version\":7,\"request\":\"of the future\"}\n", "version", "version 7"),
        (long.as_bytes(), "bad-request", "not JSON"),
    ] {
        let (code_found, message) = Asked::raw(&primary.control(), bytes).end().unwrap_err();
        assert_eq!(code_found, code, "{message}");
        assert!(message.contains(said), "{message:?}, expected {said:?}");
    }
    assert_eq!(status(&primary)["serving"], 1);
    primary.stop();
}

#[test]
fn a_client_that_only_closes_its_writing_half_still_gets_its_answer() {
    let primary = Primary::with_workers(1).start();
    let asked = primary.begin("workers", json!({}));
    asked.socket().shutdown(Shutdown::Write).unwrap();
    assert_eq!(asked.end().unwrap().as_array().map(Vec::len), Some(1));
    primary.stop();
}

#[test]
fn clients_are_bounded_and_disconnected_ones_free_their_place() {
    let primary = Primary::with_workers(1).start();
    let mut following: Vec<_> =
        (0..64).map(|_| primary.begin("events", json!({"follow": true}))).collect();
    // No further events are due that they would be sent.
    for asked in &mut following {
        asked.item();
    }
    let (code, message) = primary.ask_in_vain("status", json!({}));
    assert_eq!(code, "busy", "{message}");
    drop(following);
    eventually("room again", || primary.begin("status", json!({})).end().is_ok());
    primary.stop();
}

#[test]
fn clients_that_never_read_or_never_send_a_request_do_no_harm() {
    let primary = Primary::with_workers(2).start();
    let silent: Vec<_> = (0..20).map(|_| UnixStream::connect(primary.control()).unwrap()).collect();
    let deaf: Vec<_> = (0..20).map(|_| primary.begin("live", json!({}))).collect();
    for _ in 0..20 {
        assert_eq!(status(&primary)["serving"], 2);
    }
    ask(nth(0), primary.address());
    drop((silent, deaf));
    primary.stop();
}

#[test]
fn the_socket_of_a_killed_primary_is_replaced() {
    let mut primary = Primary::with_workers(1).start();
    let (folder, port) = (primary.directory().to_owned(), primary.port());
    let left = folder.join("left-9.sock");
    primary.kill_all();
    primary.wait();
    fs::rename(folder.join(format!("app-{port}.sock")), &left).unwrap();
    let path = left.to_str().unwrap();
    let next = Primary::with_workers(1).arguments(&["--control", path]).start();
    assert!(Asked::raw(&left, b"{\"version\":1,\"request\":\"status\"}\n").end().is_ok());
    next.stop();
}

#[test]
fn the_socket_of_a_running_primary_is_never_removed() {
    let primary = Primary::with_workers(1).start();
    let path = primary.control();
    let path = path.to_str().unwrap();
    let (code, log) = Primary::with_workers(1).arguments(&["--control", path]).run();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("belongs to a running primary"), "{log}");
    assert_eq!(status(&primary)["pid"], primary.pid());
    // Nor if it is too busy to answer.
    let folder = common::own_directory();
    let busy = folder.join("busy.sock");
    let listener = UnixListener::bind(&busy).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let (code, _) =
        Primary::with_workers(1).arguments(&["--control", busy.to_str().unwrap()]).run();
    assert_eq!(code, Some(1));
    assert!(busy.exists());
    primary.stop();
}

#[test]
fn a_primary_starts_while_another_one_drains() {
    const STATUS: &[u8] = b"{\"version\":1,\"request\":\"status\"}\n";
    let folder = common::own_directory();
    let runtime = folder.to_str().unwrap();
    let first = Primary::with_workers(1).environment("STICKY_LB_RUNTIME_DIR", runtime).start();
    let port = first.port().to_string();
    let of_first = || Asked::raw(&folder.join(format!("app-{port}.sock")), STATUS).end().unwrap();
    let mut held = connect_from(nth(0), first.address()).unwrap();
    held.write_all(b"GET /").unwrap();
    eventually("the worker has it", || of_first()["connections"] == 1);
    first.signal(Signal::TERM);
    first.wait_for_log("worker draining");
    let flags = ["--workers", "1", "--port", &port];
    let second = Primary::from_flags(&flags).environment("STICKY_LB_RUNTIME_DIR", runtime).start();
    let path = folder.join(format!("app-{port}-{}.sock", second.pid()));
    assert_eq!(Asked::raw(&path, STATUS).end().unwrap()["pid"], second.pid());
    eventually("the first says that it stops", || of_first()["stopping"] == true);
    drop(held);
    first.stop_finished();
    assert!(path.exists());
    second.stop();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn a_file_that_is_not_a_socket_is_left_alone() {
    let file = common::own_directory().join("precious");
    fs::write(&file, "data").unwrap();
    let (code, log) =
        Primary::with_workers(1).arguments(&["--control", file.to_str().unwrap()]).run();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("is not a socket"), "{log}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "data");
}

#[test]
fn a_primary_serves_without_a_control_socket() {
    let folder = common::own_directory();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let primary = Primary::with_workers(1)
        .environment("STICKY_LB_RUNTIME_DIR", folder.to_str().unwrap())
        .start();
    assert!(primary.log().contains("control socket not created"), "{}", primary.log());
    ask(nth(0), primary.address());
    primary.stop();
}

/// Needs root, like `tests/processes.rs`.
#[test]
fn other_users_are_rejected_even_if_the_files_mode_admits_them() {
    let primary = Primary::with_workers(1).start();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("open.sock");
    let other = Primary::with_workers(1).arguments(&["--control", path.to_str().unwrap()]).start();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    // It may be rejected before its request.
    let script = format!(
        "import os, socket\n\
         os.setuid(65534)\n\
         s = socket.socket(socket.AF_UNIX)\n\
         s.connect({:?})\n\
         try: s.sendall(b'{{\"version\":1,\"request\":\"stop\",\"now\":true}}\\n')\n\
         except BrokenPipeError: pass\n\
         print(s.recv(4096).decode())",
        path.to_str().unwrap(),
    );
    let output = Command::new("python3").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("forbidden"), "{said} {output:?}");
    assert!(Asked::raw(&path, b"{\"version\":1,\"request\":\"status\"}\n").end().is_ok());
    other.stop();
    primary.stop();
}

#[test]
fn a_thousand_short_connections_leak_nothing() {
    let primary = Primary::with_workers(1).start();
    let descriptors = || common::process::descriptors(primary.primary_pid()).len();
    status(&primary);
    let before = descriptors();
    for n in 0..1_000 {
        let mut socket = UnixStream::connect(primary.control()).unwrap();
        // Some close before the request, some in the middle, some before the answer.
        let request = &b"{\"version\":1,\"request\":\"workers\"}\n"[..(n % 4) * 11];
        let _ = socket.write_all(request);
    }
    eventually("descriptors as before", || descriptors() <= before);
    status(&primary);
    primary.stop();
}
