//! The worker library on real processes: without a primary, and where it is misused.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use common::client::{connect_from, nth};
use common::process::{self, Signal};
use common::{Primary, TIMEOUT, eventually, example};
use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, client_async};

/// A worker without a primary.
struct Alone {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: SocketAddr,
}

impl Alone {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(example(name))
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("an example that was built");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("a line");
        let address = line.split(' ').nth(2).and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}"));
        assert!(line.starts_with("listening on ") && line.contains("without"), "{line}");
        Self { child, stderr, address }
    }

    fn library_worker(role: &str) -> Self {
        Self::start("library_worker", &[role])
    }

    fn signal(&self, signal: Signal) {
        process::signal(self.child.id(), signal);
    }

    /// Waits for this hint, then ends it.
    fn reports(mut self, hint: &str) {
        let mut line = String::new();
        self.stderr.read_line(&mut line).expect("a line");
        assert!(line.contains(hint), "{line}");
    }

    /// Waits for its end; whether it was a success, and what it has printed since.
    fn end(mut self) -> (bool, String) {
        let mut text = String::new();
        self.stderr.read_to_string(&mut text).expect("text");
        (self.child.wait().expect("a child").success(), text)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Socket = WebSocketStream<tokio::net::TcpStream>;

async fn open(address: SocketAddr, path: &str) -> Socket {
    let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    client_async(format!("ws://test{path}"), stream).await.expect("a WebSocket").0
}

async fn echoes(socket: &mut Socket) {
    socket.send(Message::text("hello")).await.expect("sent");
    let answer = timeout(TIMEOUT, socket.next()).await.expect("in time");
    assert_eq!(answer.expect("open").expect("no error"), Message::text("hello"));
}

async fn close_code(socket: &mut Socket) -> CloseCode {
    loop {
        let message = timeout(TIMEOUT, socket.next()).await.expect("in time");
        if let Message::Close(frame) = message.expect("a close frame").expect("no reset") {
            return frame.expect("a code").code;
        }
    }
}

#[tokio::test]
async fn without_a_primary_it_listens_itself_and_a_signal_ends_it_gracefully() {
    for (role, signal) in
        [("listens", Signal::INT), ("listens-axum", Signal::TERM), ("listens-hyper", Signal::INT)]
    {
        let worker = Alone::library_worker(role);
        let mut sockets =
            [open(worker.address, "/echo").await, open(worker.address, "/echo").await];
        for socket in &mut sockets {
            echoes(socket).await;
        }
        worker.signal(signal);
        for mut socket in sockets {
            assert_eq!(close_code(&mut socket).await, CloseCode::Away, "{role}");
            while let Some(Ok(_)) = socket.next().await {}
        }
        assert_eq!(worker.end(), (true, String::new()), "{role}");
    }
}

#[tokio::test]
async fn without_a_primary_a_second_signal_ends_it_at_once() {
    let worker = Alone::library_worker("listens");
    // A client that neither asks nor goes.
    let mut idle = TcpStream::connect(worker.address).expect("it listens");
    idle.write_all(b"GET / HTTP/1.1").expect("sent");
    let mut socket = open(worker.address, "/").await;
    echoes(&mut socket).await;
    worker.signal(Signal::INT);
    assert_eq!(close_code(&mut socket).await, CloseCode::Away);
    let before = std::time::SystemTime::now();
    worker.signal(Signal::INT);
    assert!(worker.end().0);
    assert!(before.elapsed().expect("time goes on") < Duration::from_secs(3));
}

#[tokio::test]
async fn with_a_primary_the_same_programs_are_its_workers() {
    for role in ["listens", "listens-axum", "listens-hyper", "plain"] {
        let primary = Primary::with_workers(2)
            .worker(&[&example("library_worker"), role])
            .arguments(&["--min-uptime", "0"])
            .start();
        let mut socket = open(primary.address(), "/echo").await;
        echoes(&mut socket).await;
        primary.ask("reload", serde_json::json!({}));
        // It has migrated, or will.
        echoes(&mut socket).await;
        primary.signal(Signal::TERM);
        assert_eq!(close_code(&mut socket).await, CloseCode::Away, "{role}");
        while let Some(Ok(_)) = socket.next().await {}
        assert_eq!(primary.stop_finished()["killed_workers"], 0, "{role}");
    }
}

#[tokio::test]
async fn attaching_a_second_time_is_an_error_and_harms_nothing() {
    let primary =
        Primary::with_workers(1).worker(&[&example("library_worker"), "attaches-twice"]).start();
    let text = "second: this process has attached to its primary before";
    eventually("the error", || printed(&primary).contains(text));
    let mut socket = open(primary.address(), "/").await;
    echoes(&mut socket).await;
    primary.signal(Signal::TERM);
    assert_eq!(close_code(&mut socket).await, CloseCode::Away);
    while let Some(Ok(_)) = socket.next().await {}
    let stopped = primary.stop_finished();
    assert_eq!((&stopped["killed_workers"], &stopped["lost"]), (&0.into(), &0.into()));
}

#[test]
fn a_main_that_returns_the_error_shows_its_text() {
    let output = Command::new(example("echo_worker")).output().expect("an example");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    let expected = "Error: not started by sticky-lb (STICKY_LB_CHANNEL is not set): run \
                    `sticky-lb --workers 4 -- COMMAND`, with this program as the COMMAND\n";
    assert_eq!(text, expected);
    let output = Command::new(example("echo_worker"))
        .env("STICKY_LB_CHANNEL", "1000")
        .env("STICKY_LB_SCOREBOARD", "1001")
        .envs(
            ["SLOT", "GENERATION", "ORPHAN_TIMEOUT", "KILL_TIMEOUT"]
                .map(|name| (format!("STICKY_LB_{name}"), "0")),
        )
        .output()
        .expect("an example");
    let text = String::from_utf8_lossy(&output.stderr);
    // With the kernel's answer, which is the source.
    assert!(text.contains("descriptor 1000 of STICKY_LB_CHANNEL is not"), "{text}");
    assert!(text.contains("Bad file descriptor"), "{text}");
}

#[test]
fn a_descriptor_that_this_process_has_opened_itself_is_not_taken() {
    // Rust opens it close-on-exec; a shell's redirection is inherited, but no channel.
    let shell = format!("exec 5<>/dev/null; exec {}", example("echo_worker"));
    let output = Command::new("sh")
        .args(["-c", &shell])
        .env("STICKY_LB_CHANNEL", "5")
        .env("STICKY_LB_SCOREBOARD", "5")
        .envs(
            ["SLOT", "GENERATION", "ORPHAN_TIMEOUT", "KILL_TIMEOUT"]
                .map(|name| (format!("STICKY_LB_{name}"), "0")),
        )
        .output()
        .expect("a shell");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("descriptor 5 of STICKY_LB_CHANNEL is not"), "{text}");
}

#[test]
fn a_step_of_the_long_way_that_is_left_out_is_reported_or_refused() {
    let ready = Alone::library_worker("forgets-ready");
    ready.reports("Worker::accept is called before Worker::ready");
    let accept = Alone::library_worker("forgets-to-accept");
    accept.reports("Worker::accept is not: connections wait");
    let (_, text) = Alone::library_worker("forgets-to-go-on").end();
    assert!(text.contains("Worker was dropped before Worker::accept returned None"), "{text}");
    let (succeeded, text) = Alone::library_worker("forgets-to-enable").end();
    assert!(!succeeded && text.contains("enable_migration() comes too late"), "{text}");
    let wait = Alone::library_worker("forgets-to-wait");
    let stream = TcpStream::connect(wait.address).expect("it listens");
    // Accepted by now, or before the signal is looked at.
    std::thread::sleep(Duration::from_millis(300));
    wait.signal(Signal::TERM);
    let (_, text) = wait.end();
    assert!(text.contains("await Drain::completed"), "{text}");
    drop(stream);
}

#[test]
fn the_first_words_of_any_protocol_reach_a_plain_handler_at_once() {
    let primary = Primary::with_workers(1).worker(&[&example("library_worker"), "bytes"]).start();
    for words in ["hi", "HELO", "*1", "{", "GET\n", "GET / HTTP/1.1\r\n\r\n"] {
        let mut client = connect_from(nth(0), primary.address()).unwrap();
        client.set_read_timeout(Some(TIMEOUT)).unwrap();
        client.write_all(words.as_bytes()).unwrap();
        let mut echo = vec![0; words.len()];
        client.read_exact(&mut echo).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        assert_eq!(echo, words.as_bytes());
    }
    primary.stop();
}

#[test]
fn connections_that_are_served_without_a_session_are_reported_once() {
    let primary =
        Primary::with_workers(1).worker(&[&example("library_worker"), "serves-bare"]).start();
    for client in 0..3 {
        let mut stream = connect_from(nth(client), primary.address()).expect("it listens");
        stream.write_all(b"x").expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        assert_eq!(text, "bare");
    }
    let hint = "a connection is served without Connection::into_session";
    eventually("the hint", || printed(&primary).contains(hint));
    assert_eq!(printed(&primary).matches(hint).count(), 1);
    primary.stop();
}

/// Everything that workers have printed: standard error is among the lines of the log.
fn printed(primary: &Primary) -> String {
    let printed = primary.printed();
    let lines = printed.iter().map(|line| String::from_utf8_lossy(line) + "\n");
    primary.log() + &lines.collect::<String>()
}

/// Waits for the end of a connection; when it came, and what came before.
fn end(mut client: &TcpStream, since: Instant) -> (Duration, String) {
    client.set_read_timeout(Some(TIMEOUT)).expect("a socket");
    let mut text = String::new();
    // A reset is an end as well.
    let _ = client.read_to_string(&mut text);
    (since.elapsed(), text)
}

fn is_about(seconds: f64, waited: Duration) {
    // A busy machine is late; another limit, or one that was begun again, would be later still.
    let earliest = seconds - 0.01;
    assert!((earliest..seconds + 1.9).contains(&waited.as_secs_f64()), "{waited:?}");
}

#[test]
fn clients_that_are_slow_with_a_request_are_closed_in_time_by_both_servers() {
    let primary =
        Primary::with_workers(1).worker(&[&example("library_worker"), "impatient"]).start();
    let open = |first: &str| {
        let mut client = connect_from(nth(1), primary.address()).expect("it listens");
        client.write_all(first.as_bytes()).expect("sent");
        client
    };
    let start = Instant::now();
    let silent = open("");
    let halting = open("GET / HTTP/1.1\r\nHost: ");
    let idle = open("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut again = open("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let long = open(&format!("GET / HTTP/1.1\r\nHost: test\r\nA: {}\r\n\r\n", "x".repeat(9000)));
    let mut quiet = common::counting::Client::open(1, &primary, "/count");
    assert!(end(&long, start).1.starts_with("HTTP/1.1 431 "));
    is_about(1.0, end(&silent, start).0);
    is_about(1.0, end(&halting, start).0);
    again.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("open");
    assert_eq!(end(&again, start).1.matches("HTTP/1.1 200 OK").count(), 2);
    let (waited, text) = end(&idle, start);
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    is_about(3.0, waited);
    assert_eq!(quiet.ask(), 1, "a WebSocket may be quiet");
}

#[test]
fn a_migration_does_not_give_a_slow_client_more_time() {
    let primary = Primary::with_workers(1)
        .worker(&[&example("library_worker"), "impatient"])
        .arguments(&["--min-uptime", "0"])
        .start();
    let start = Instant::now();
    let mut idle = connect_from(nth(1), primary.address()).expect("it listens");
    idle.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
    let mut first = [0; 15];
    idle.read_exact(&mut first).expect("an answer");
    while start.elapsed() < Duration::from_secs(2) {
        primary.ask("reload", serde_json::json!({}));
        std::thread::sleep(Duration::from_millis(100));
    }
    is_about(3.0, end(&idle, start).0);
}
