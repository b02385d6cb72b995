//! The examples run as their heads say, and keep the promises of all workers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use common::client::{ask, connect_from, get_from, nth, read_answer, send_get};
use common::load::Load;
use common::process::{Signal, signal};
use common::{Builder, Primary, eventually, example};
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use rustix::net::sockopt::set_socket_linger;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, client_async};

type Socket = WebSocketStream<tokio::net::TcpStream>;

/// A watchdog that bites soon, and how long a worker has to live with it.
const WATCHDOG: &str = "3s";
const WATCHED: Duration = Duration::from_secs(7);

async fn open(client: u16, to: SocketAddr, path: &str) -> Socket {
    let stream = connect_from(nth(client), to).expect("the primary listens");
    stream.set_nonblocking(true).expect("a socket of its own");
    let stream = tokio::net::TcpStream::from_std(stream).expect("within a runtime");
    client_async(format!("ws://test{path}"), stream).await.expect("a WebSocket").0
}

/// The next text that is not a welcome, and no member's coming or going.
async fn said(socket: &mut Socket) -> String {
    loop {
        let message = socket.next().await.expect("still open").expect("no error");
        if let Message::Text(text) = message
            && text.contains("\"said\"")
        {
            return text.to_string();
        }
    }
}

async fn closes_with_going_away(mut socket: Socket) {
    let close = loop {
        match socket.next().await.expect("a close frame, not just an end").expect("no reset") {
            Message::Close(frame) => break frame.expect("a reason"),
            _ => continue,
        }
    };
    assert_eq!(close.code, CloseCode::Away);
    while let Some(Ok(_)) = socket.next().await {}
}

/// WebSockets echo, and get a close frame when the whole ends.
async fn echoes_and_closes(primary: Primary, path: &str) {
    let mut sockets = Vec::new();
    for client in 0..8 {
        let mut socket = open(client, primary.address(), path).await;
        for text in ["one", "two"] {
            socket.send(Message::text(text)).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
        }
        sockets.push(socket);
    }
    primary.signal(Signal::TERM);
    for socket in sockets {
        closes_with_going_away(socket).await;
    }
    assert_eq!(primary.stop_finished()["killed_workers"], 0);
}

#[tokio::test]
async fn echo_worker() {
    let primary = Primary::with_workers(2).worker(&[&example("echo_worker")]).start();
    echoes_and_closes(primary, "/").await;
}

#[tokio::test]
async fn the_demos_echo() {
    echoes_and_closes(Primary::with_workers(2).start(), "/echo").await;
}

async fn chats(primary: Primary) {
    let path = |room, name| format!("/ws?room={room}&name={name}");
    // One address, so one worker.
    let mut anna = open(1, primary.address(), &path("blue", "anna")).await;
    let mut ben = open(1, primary.address(), &path("blue", "ben")).await;
    let mut carl = open(1, primary.address(), &path("red", "carl")).await;
    ben.send(Message::text("hello anna")).await.unwrap();
    carl.send(Message::text("hello nobody")).await.unwrap();
    let heard = said(&mut anna).await;
    assert!(heard.contains("hello anna") && heard.contains("\"ben\""), "{heard}");
    assert!(said(&mut carl).await.contains("hello nobody"));
    primary.signal(Signal::TERM);
    for socket in [anna, ben, carl] {
        closes_with_going_away(socket).await;
    }
    primary.stop_finished();
}

#[tokio::test]
async fn chat() {
    chats(Primary::with_workers(2).worker(&[&example("chat")]).start()).await;
}

#[tokio::test]
async fn the_demos_chat() {
    chats(Primary::with_workers(2).start()).await;
}

#[test]
fn axum_app() {
    let primary = Primary::with_workers(2).worker(&[&example("axum_app")]).start();
    let hello = get_from(nth(1), primary.address(), "/").unwrap();
    assert!(hello.body.starts_with(&format!("Hello {} from worker ", nth(1))), "{hello:?}");
    let health = get_from(nth(1), primary.address(), "/health").unwrap();
    assert!(health.body.contains("\"healthy\"") && health.pid() == hello.pid(), "{health:?}");
    assert!(get_from(nth(1), primary.address(), "/heavy").unwrap().body.contains("\"result\""));
    primary.stop();
}

/// Serves while many ask at a time, for longer than the watchdog waits for a worker that doesn't answer it.
/// Several clients come in one message: the primary stands still until all of them wait.
fn serves_under_load(builder: Builder) {
    let primary =
        builder.arguments(&["--watchdog-timeout", WATCHDOG, "--listen-timeout", "20s"]).start();
    let (workers, start) = (primary.workers(), SystemTime::now());
    let load = Load::start(primary.address());
    while start.elapsed().unwrap_or_default() < WATCHED {
        signal(primary.primary_pid(), Signal::STOP);
        let connect = |n| connect_from(nth(1_000 + n), primary.address()).unwrap();
        let mut many: Vec<_> = (0..30_u16).map(connect).collect();
        many.iter_mut().for_each(|stream| send_get(stream, "/").unwrap());
        signal(primary.primary_pid(), Signal::CONT);
        for stream in many {
            let answer = read_answer(stream).unwrap();
            assert!(answer.head.starts_with("HTTP/1.1 200"), "{answer:?}");
        }
        load.wait_for_more(10);
    }
    load.stop();
    assert_eq!(primary.workers(), workers, "a worker was replaced");
    assert!(!primary.log().contains("worker killed"));
    let stopped = primary.stop();
    assert_eq!((&stopped["lost"], &stopped["killed_workers"]), (&0.into(), &0.into()), "{stopped}");
}

#[test]
fn worker_in_python_under_load() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/worker.py");
    serves_under_load(Primary::with_workers(2).worker(&["python3", script]));
}

#[test]
fn axum_app_under_load() {
    serves_under_load(Primary::with_workers(2).worker(&[&example("axum_app")]));
}

#[test]
fn chat_under_load() {
    serves_under_load(Primary::with_workers(2).worker(&[&example("chat")]));
}

#[test]
fn the_demo_under_load() {
    serves_under_load(Primary::with_workers(2));
}

#[tokio::test]
async fn echo_worker_under_load() {
    let primary = Primary::with_workers(2)
        .worker(&[&example("echo_worker")])
        .arguments(&["--watchdog-timeout", WATCHDOG])
        .start();
    let (workers, start) = (primary.workers(), SystemTime::now());
    let mut held = Vec::new();
    while start.elapsed().unwrap_or_default() < WATCHED {
        let opening = (0..20).map(|client| open(client, primary.address(), "/"));
        let mut sockets = join_all(opening).await;
        for socket in &mut sockets {
            socket.send(Message::text("one")).await.unwrap();
        }
        for socket in &mut sockets {
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("one"));
        }
        // One stays, and the others go without a word.
        held.extend(sockets.pop());
    }
    for socket in &mut held {
        socket.send(Message::text("still here")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("still here"));
    }
    assert_eq!(primary.workers(), workers, "a worker was replaced");
    drop(held);
    assert_eq!(primary.stop()["lost"], 0);
}

#[test]
fn worker_in_python() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/worker.py");
    let primary = Primary::with_workers(3)
        .worker(&["python3", script])
        // A slow machine starts Python slowly.
        .arguments(&["--listen-timeout", "20s"])
        .start();
    for n in 0..60 {
        let answer = ask(nth(n), primary.address());
        assert!(
            answer.body.contains(&format!("Hello {} from Python worker", nth(n))),
            "{answer:?}"
        );
        assert_eq!(ask(nth(n), primary.address()).pid(), answer.pid(), "client {n} moved");
    }
    let stopped = primary.stop();
    assert_eq!((&stopped["lost"], &stopped["acknowledged"]), (&0.into(), &120.into()));
}

/// Clients that reset are gone, and no worker counts them for ever.
#[test]
fn worker_in_python_counts_down_however_a_client_goes() {
    use std::io::Write;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/worker.py");
    let primary = Primary::with_workers(1)
        .worker(&["python3", script])
        .arguments(&["--listen-timeout", "20s"])
        .start();
    for n in 0..60 {
        let mut stream = connect_from(nth(n), primary.address()).unwrap();
        // Some before a byte, some in a head, some with an answer unread.
        let sent = ["", "GET / HT", "GET / HTTP/1.1\r\nHost: test\r\n\r\n"][usize::from(n) % 3];
        stream.write_all(sent.as_bytes()).unwrap();
        let expected = u64::from(n) + 1;
        eventually("it is a worker's", || primary.status()["acknowledged"] == expected);
        set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
    eventually("no connection is counted", || primary.status()["connections"] == 0);
    primary.stop();
}

#[test]
fn worker_in_python_without_descriptors_refuses() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/worker.py");
    let limit = format!("ulimit -n 16; exec python3 {script}");
    let primary =
        Primary::with_workers(2).slot_zero(&limit).arguments(&["--listen-timeout", "20s"]).start();
    let held: Vec<_> = primary
        .clients_of(0, 30)
        .into_iter()
        .map(|client| {
            use std::io::Write;
            let mut stream = connect_from(client, primary.address()).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
            (common::client::read_kept_alive(&mut stream).unwrap().slot(), stream)
        })
        .collect();
    let at_home = held.iter().filter(|(slot, _)| *slot == 0).count();
    assert!((1..16).contains(&at_home), "{at_home} of 30 with 16 descriptors");
    drop(held);
    let stopped = primary.stop();
    assert!(stopped["refused"].as_u64() > Some(0) && stopped["lost"] == 0, "{stopped}");
}

#[test]
fn plain_hyper_serves_and_answers_who_came_just_before_the_end() {
    let primary = Primary::with_workers(2).worker(&[&example("library_worker"), "hyper"]).start();
    for n in 0..10 {
        let answer = ask(nth(n), primary.address());
        assert_eq!(answer.body, format!("hello {}", nth(n)));
        assert_eq!(ask(nth(n), primary.address()).pid(), answer.pid(), "client {n} moved");
    }
    let late: Vec<_> = (0..10).map(|n| connect_from(nth(n), primary.address()).unwrap()).collect();
    primary.signal(Signal::TERM);
    primary.wait_for_log("worker draining");
    for mut stream in late {
        send_get(&mut stream, "/").unwrap();
        assert!(read_answer(stream).unwrap().body.starts_with("hello"));
    }
    assert_eq!(primary.stop_finished()["killed_workers"], 0);
}

#[test]
fn connections_come_as_a_stream_too() {
    use std::io::{Read, Write};
    let primary = Primary::with_workers(2).worker(&[&example("library_worker"), "stream"]).start();
    for n in 0..10 {
        let mut stream = connect_from(nth(n), primary.address()).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("{} hello", nth(n)));
    }
    assert_eq!(primary.stop()["acknowledged"], 10);
}
