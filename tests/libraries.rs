//! WebSocket libraries of other people on the real binary: which of them migrate, as the guide's chapter on
//! migration says; and connections that can't migrate rightly, and so don't.
//!
//! After a change of versions in `tests/peers`:
//!
//! ```text
//! STICKY_LB_WRITE_GUIDE=1 cargo test --test libraries
//! ```

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use common::client::{connect_from, nth};
use common::counting::Client;
use common::{Builder, Primary, TIMEOUT, eventually, peers};
use serde_json::json;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// A row of the guide's table: a package, how it is used, the worker and path in `tests/peers`, and whether
/// its sessions migrate.
struct Library {
    package: &'static str,
    way: &'static str,
    worker: &'static str,
    path: &'static str,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Migrates,
    /// With the same client, which compresses.
    MigratesCompressed,
    /// Closed by code 1012.
    IsClosed(&'static str),
}

const fn library(
    package: &'static str,
    way: &'static str,
    (worker, path): (&'static str, &'static str),
    outcome: Outcome,
) -> Library {
    Library { package, way, worker, path, outcome }
}

const LIBRARIES: [Library; 9] = [
    library("axum", "`extract::ws`", ("axum", "/"), Outcome::Migrates),
    library("hyper", "`upgrade::on`, any WebSocket on it", ("hyper", "/"), Outcome::Migrates),
    library("tokio-tungstenite", "`accept_async`", ("tungstenite", "/"), Outcome::Migrates),
    library("fastwebsockets", "on axum", ("fastwebsockets", "/"), Outcome::Migrates),
    library("tokio-websockets", "`ServerBuilder`", ("tokio-websockets", "/"), Outcome::Migrates),
    library("soketto", "without its `Deflate`", ("soketto", "/"), Outcome::Migrates),
    library(
        "yawc",
        "on axum, compressing each message by itself",
        ("yawc", "/no-context"),
        Outcome::MigratesCompressed,
    ),
    library(
        "yawc",
        "on axum, compressing from message to message",
        ("yawc", "/context"),
        Outcome::IsClosed("the compression's window can't travel"),
    ),
    library(
        "socketioxide",
        "on axum",
        ("socketioxide", "/socket.io/?EIO=4&transport=websocket"),
        Outcome::IsClosed("its sessions live in the library, which can't leave or restore them"),
    ),
];

const BEGIN: &str = "<!-- Made by tests/libraries.rs. -->\n";
const END: &str = "<!-- To here. -->\n";

#[test]
fn the_guides_table_is_of_the_pinned_versions() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lock = fs::read_to_string(root.join("tests/peers/Cargo.lock")).expect("a lock file");
    let mut table = "\n| library | version | used as | migrates |\n|---|---|---|---|\n".to_owned();
    for Library { package, way, outcome, .. } in LIBRARIES {
        let version =
            lock.split_once(&format!("name = \"{package}\"\nversion = \"")).expect("its version").1;
        let version = version.split('"').next().expect("a version");
        let migrates = match outcome {
            Outcome::Migrates | Outcome::MigratesCompressed => "yes".to_owned(),
            Outcome::IsClosed(reason) => format!("no: {reason}"),
        };
        table += &format!("| {package} | {version} | {way} | {migrates} |\n");
    }
    table += "\n";
    let path = root.join("src/guide/migration.md");
    let chapter = fs::read_to_string(&path).expect("the chapter");
    let (before, rest) = chapter.split_once(BEGIN).expect("where the table begins");
    let (_, after) = rest.split_once(END).expect("where the table ends");
    let made = [before, BEGIN, &table, END, after].concat();
    if std::env::var_os("STICKY_LB_WRITE_GUIDE").is_some() {
        fs::write(path, &made).expect("the chapter is written");
    } else {
        assert!(made == chapter, "STICKY_LB_WRITE_GUIDE=1 cargo test --test libraries\n{table}");
    }
}

fn primary(worker: &[&str]) -> Builder {
    Primary::with_workers(2).worker(worker).arguments(&[
        "--min-uptime",
        "0",
        "--drain-timeout",
        "5s",
        "--close-rate",
        "1000",
    ])
}

fn as_the_table_says(index: usize) {
    let Library { worker, path, outcome, .. } = LIBRARIES[index];
    let primary = primary(&[&peers(), worker]).start();
    match outcome {
        Outcome::Migrates => {
            let mut clients = [1, 2, 3].map(|client| Client::open(client, &primary, path));
            for restart in 1..=2 {
                primary.ask("reload", json!({}));
                eventually("all have migrated", || {
                    clients.iter_mut().map(Client::ask).all(|workers| workers > restart)
                });
            }
        }
        Outcome::MigratesCompressed => {
            let mut talk = Talk::open(&primary, path);
            talk.ask();
            for restart in 1..=2 {
                primary.ask("reload", json!({}));
                eventually("it has migrated", || talk.ask() > restart);
            }
        }
        Outcome::IsClosed(_) if worker == "socketioxide" => {
            let mut client = SocketIo::open(&primary, path);
            client.say("one");
            primary.ask("reload", json!({}));
            assert_eq!(client.close_code(), Some(1012));
        }
        Outcome::IsClosed(_) => {
            let mut clients = [Talk::open(&primary, path), Talk::open(&primary, path)];
            clients.iter_mut().for_each(|client| assert_eq!((client.ask(), client.ask()), (1, 1)));
            primary.ask("reload", json!({}));
            clients.iter_mut().for_each(|client| assert_eq!(client.line(), "closed Some(1012)"));
            // Once, though there were two; each worker may have had one of them.
            let hint = "permessage-deflate keeps its window from one message to the next";
            let count = primary.log().matches(hint).count();
            assert!((1..=2).contains(&count), "{count} times");
        }
    }
}

/// One test for each row, which run beside each other.
macro_rules! rows {
    ($($name:ident: $index:literal,)*) => {
        $(#[test]
        fn $name() {
            as_the_table_says($index);
        })*
    };
}

rows! {
    axum: 0,
    hyper: 1,
    tungstenite: 2,
    fastwebsockets: 3,
    tokio_websockets: 4,
    soketto: 5,
    yawc_that_compresses_each_message_by_itself: 6,
    yawc_that_compresses_from_message_to_message: 7,
    socketioxide: 8,
}

/// A client of `tests/peers`, which compresses where the server agrees.
struct Talk {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    sent: u64,
}

impl Talk {
    fn open(primary: &Primary, path: &str) -> Self {
        let mut command = Command::new(peers());
        command.args(["talk", &primary.address().to_string(), path]);
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let mut talk = Self { process, lines, sent: 0 };
        assert_eq!(talk.line(), "open");
        talk
    }

    /// Sends a message, and says how many workers there were.
    fn ask(&mut self) -> u64 {
        self.sent += 1;
        let input = self.process.stdin.as_mut().expect("its input");
        writeln!(input, "a message that is like the one before but for {}", self.sent)
            .expect("it is there");
        let line = self.line();
        let (count, workers) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert_eq!(count.parse(), Ok(self.sent), "a message was lost or doubled");
        workers.parse().expect("a number")
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("it goes on").expect("a line")
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A client of Socket.IO that has no other transport than a WebSocket.
struct SocketIo(WebSocket<TcpStream>);

impl SocketIo {
    fn open(primary: &Primary, path: &str) -> Self {
        let stream = connect_from(nth(1), primary.address()).expect("a connection");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a socket");
        let (socket, _) =
            tungstenite::client(format!("ws://test{path}"), stream).expect("a WebSocket");
        let mut client = Self(socket);
        assert!(client.next().is_some_and(|text| text.starts_with("0{")));
        client.send("40");
        assert!(client.next().is_some_and(|text| text.starts_with("40{")));
        client
    }

    fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).expect("it is open");
    }

    fn say(&mut self, text: &str) {
        self.send(&format!("42[\"say\",\"{text}\"]"));
        assert_eq!(self.next(), Some(format!("42[\"said\",\"{text}\"]")));
    }

    /// The next text but for pings of the server.
    fn next(&mut self) -> Option<String> {
        loop {
            match self.0.read().ok()? {
                Message::Text(text) if text.as_str() == "2" => self.send("3"),
                Message::Text(text) => return Some(text.as_str().to_owned()),
                _ => {}
            }
        }
    }

    /// The code of its close frame, if there is one.
    fn close_code(&mut self) -> Option<u16> {
        loop {
            if let Message::Close(frame) = self.0.read().ok()? {
                return frame.map(|frame| frame.code.into());
            }
        }
    }
}

/// Its new session would know nothing of what the client was told. It sends from another task than the
/// one that receives, so it isn't moved.
#[test]
fn socketioxide_declared_all_the_same_is_closed_and_not_moved() {
    let primary = primary(&[&peers(), "socketioxide-declared"]).start();
    let mut client = SocketIo::open(&primary, "/socket.io/?EIO=4&transport=websocket");
    client.say("one");
    primary.ask("reload", json!({}));
    assert_eq!(client.close_code(), Some(1012));
    let status = primary.ask("status", json!({}));
    assert_eq!(status["sessions_migrated"].as_u64(), Some(0));
    let said = "sends in one task while another receives";
    eventually("it is said why", || primary.log().contains(said));
}

fn failed(primary: &Primary) -> u64 {
    primary.ask("status", json!({}))["migrations_failed"].as_u64().unwrap_or_default()
}

/// The client goes, not the handler.
#[test]
fn a_client_that_leaves_after_a_migration_is_no_failure() {
    let primary = primary(&[&peers(), "axum"]).start();
    let mut clients = [1, 2].map(|client| Client::open(client, &primary, "/"));
    primary.ask("reload", json!({}));
    eventually("all have migrated", || clients.iter_mut().map(Client::ask).all(|had| had > 1));
    let [mut closes, goes] = clients;
    drop(goes);
    closes.socket.close(None).expect("it is open");
    eventually("it is closed", || closes.socket.read().is_err());
    eventually("both are gone", || {
        primary.ask("status", json!({}))["connections"].as_u64() == Some(0)
    });
    assert_eq!(failed(&primary), 0);
}

#[test]
fn a_version_that_chooses_another_subprotocol_has_its_clients_come_back() {
    let primary = primary(&[&peers(), "axum"]).start();
    let mut same = Client::open(1, &primary, "/");
    same.ask();
    let mut clients = [2, 3].map(|client| {
        let stream = connect_from(nth(client), primary.address()).expect("a connection");
        let mut request = "ws://test/versions".into_client_request().expect("a URL");
        let offer = "v0, v1".parse().expect("text");
        request.headers_mut().insert("sec-websocket-protocol", offer);
        let (mut socket, answer) = tungstenite::client(request, stream).expect("a WebSocket");
        assert_eq!(answer.headers()["sec-websocket-protocol"], "v0");
        socket.send(Message::text("hello")).expect("it is open");
        assert_eq!(socket.read().expect("an echo"), Message::text("hello"));
        socket
    });
    primary.ask("reload", json!({}));
    for socket in &mut clients {
        match socket.read() {
            Ok(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), 1012),
            other => panic!("no close frame but {other:?}"),
        }
    }
    eventually("others go on", || same.ask() == 2);
    eventually("they count as failed", || failed(&primary) == 2);
    eventually("it is said why", || {
        primary.log().contains("chooses another subprotocol or other extensions")
    });
}

/// Sends this and reads the head of the answer.
fn handshake(primary: &Primary, request: &str) -> (TcpStream, String) {
    let mut stream = connect_from(nth(1), primary.address()).expect("a connection");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a socket");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    (stream, String::from_utf8(head).expect("text"))
}

#[test]
fn another_protocol_than_websocket_is_passed_through_and_left_alone() {
    for upgrade in ["h2c", "other"] {
        let primary = primary(&[&peers(), "axum"]).start();
        let request = format!(
            "GET /switch HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n"
        );
        // One has something of its protocol before the deploy, which looks like a request; one nothing.
        let [mut used, mut idle] = [(); 2].map(|()| {
            let (stream, head) = handshake(&primary, &request);
            assert!(head.starts_with("HTTP/1.1 101") && head.contains(upgrade), "{head}");
            stream
        });
        echo(&mut used, "GET / HT");
        primary.ask("reload", json!({}));
        // Whatever the old worker does meanwhile: no other one answers.
        for stream in [&mut used, &mut idle] {
            echo(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
    }
}

fn echo(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).expect("it is open");
    let mut came = vec![0; text.len()];
    stream.read_exact(&mut came).expect("the bytes arrive");
    assert_eq!(String::from_utf8_lossy(&came), text);
}

/// Of the client, with a mask that changes nothing.
const HELLO: &[u8] = b"\x81\x85\0\0\0\0hello";
const ANSWER: &[u8] = b"\x81\x031 1";
/// In the second worker.
const NEXT: &[u8] = b"\x81\x031 2";

#[test]
fn a_websocket_whose_request_has_a_body_is_closed_with_a_frame() {
    for body in
        ["Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
    {
        let primary = primary(&[&peers(), "axum"]).start();
        let (mut stream, head) = handshake(&primary, &format!("{}{body}", upgrade("")));
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let echo = |stream: &mut TcpStream| {
            stream.write_all(HELLO).expect("it is open");
            let mut came = [0; ANSWER.len()];
            stream.read_exact(&mut came).map(|()| came == ANSWER)
        };
        // hyper may or may not take a body for frames; the stream adds nothing to that.
        if echo(&mut stream).is_ok_and(|is_it| is_it) {
            primary.ask("reload", json!({}));
            let mut close = [0; 4];
            stream.read_exact(&mut close).expect("a close frame");
            assert_eq!(close, [0x88, 2, 0x03, 0xf4], "{body}");
        }
    }
}

#[test]
fn a_websocket_that_is_asked_for_twice_migrates() {
    let primary = primary(&[&peers(), "axum"]).start();
    let request = upgrade("Upgrade: websocket\r\n") + "\r\n";
    let (mut stream, head) = handshake(&primary, &request);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    primary.ask("reload", json!({}));
    eventually("it has migrated", || {
        primary.ask("status", json!({}))["sessions_migrated"].as_u64() == Some(1)
    });
    stream.write_all(HELLO).expect("it is open");
    let mut came = [0; ANSWER.len()];
    stream.read_exact(&mut came).expect("an answer");
    assert_eq!(came, NEXT);
}

/// A request without its last empty line.
fn upgrade(more: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{more}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
}
