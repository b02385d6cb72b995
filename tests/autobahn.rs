//! Sessions that move between two workers, for ever: the clients must not notice.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use common::client::{connect_from, nth, read_kept_alive};
use common::example;
use common::relay::Relay;
use common::tools::pass_autobahn;
use futures_util::{SinkExt, StreamExt};
use tokio::task::spawn_blocking;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

const TIMEOUT: Duration = Duration::from_secs(20);

fn sessions() -> Relay {
    Relay::start(&[&example("library_worker"), "sessions"])
}

async fn open(relay: &Relay, path: &str) -> Socket {
    connect_async(format!("ws://{}{path}", relay.address())).await.unwrap().0
}

/// The next message that is none of the library's own.
async fn next(socket: &mut Socket) -> Message {
    loop {
        let message = tokio::time::timeout(TIMEOUT, socket.next()).await;
        match message.expect("no answer").expect("the connection has ended").unwrap() {
            Message::Ping(_) => {}
            message => return message,
        }
    }
}

/// Every answer is the next message's, and the session has moved before each.
async fn echoes_after_every_move(relay: Relay, path: &str) {
    let relay = std::sync::Arc::new(relay);
    let mut socket = open(&relay, path).await;
    for number in 0..200 {
        let text = format!("message {number}");
        socket.send(Message::text(text.clone())).await.unwrap();
        assert_eq!(next(&mut socket).await.into_text().unwrap(), text);
        let moving = std::sync::Arc::clone(&relay);
        spawn_blocking(move || moving.move_all()).await.unwrap();
    }
    assert!(relay.moves() >= 200);
    socket.close(None).await.unwrap();
}

#[tokio::test]
async fn plain_tungstenite_moves_after_every_message() {
    echoes_after_every_move(Relay::start(&[&example("echo_worker")]), "/").await;
}

#[tokio::test]
async fn axums_own_websocket_moves_after_every_message() {
    echoes_after_every_move(sessions(), "/echo").await;
}

#[tokio::test]
async fn hypers_upgrade_moves_after_every_message() {
    let relay = Relay::start(&[&example("library_worker"), "hyper-echo"]);
    echoes_after_every_move(relay, "/any").await;
}

#[tokio::test]
async fn the_state_goes_along_however_long_it_is() {
    for bytes in [16, 16_000, 17_000, 16 << 20] {
        let relay = std::sync::Arc::new(sessions());
        let mut socket = open(&relay, &format!("/count?bytes={bytes}")).await;
        for number in 1..=5 {
            socket.send(Message::text("next")).await.unwrap();
            let answer = next(&mut socket).await.into_text().unwrap();
            assert_eq!(answer, format!("{number} {number}"), "with {bytes} bytes");
            let moving = std::sync::Arc::clone(&relay);
            spawn_blocking(move || moving.move_all()).await.unwrap();
        }
    }
}

/// Numbered messages, now whole, now in fragments with pings between them, of many sizes.
async fn talk(mut socket: Socket, messages: u32, largest: usize) {
    let mut pongs = 0;
    for number in 0..messages {
        let size = (number as usize * 7_919) % largest;
        let body = format!("{number} {}", "x".repeat(size));
        let bytes = body.clone().into_bytes();
        if number % 3 == 0 && bytes.len() > 3 {
            let (first, rest) = bytes.split_at(bytes.len() / 2);
            let fragment = |bytes: &[u8], data, last| {
                Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(data), last))
            };
            socket.send(fragment(first, Data::Text, false)).await.unwrap();
            socket.send(Message::Ping(number.to_le_bytes().to_vec().into())).await.unwrap();
            socket.send(fragment(rest, Data::Continue, true)).await.unwrap();
            pongs += 1;
        } else {
            socket.send(Message::text(body.clone())).await.unwrap();
        }
        loop {
            match next(&mut socket).await {
                Message::Pong(_) => pongs -= 1,
                Message::Text(answer) => {
                    assert!(answer == body, "answer to {number} was {:.20}", answer);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(pongs, 0, "a ping was answered twice or not at all");
    socket.close(None).await.unwrap();
    let closing = async { while socket.next().await.is_some_and(|last| last.is_ok()) {} };
    tokio::time::timeout(TIMEOUT, closing).await.unwrap();
}

#[tokio::test]
async fn nothing_is_lost_doubled_or_out_of_order_while_sessions_move_all_the_time() {
    let relay = sessions();
    relay.move_always();
    let mut talks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        talks.spawn(talk(open(&relay, "/echo").await, 300, 60_000));
    }
    talks.spawn(talk(open(&relay, "/echo").await, 12, 1 << 20));
    talks.join_all().await;
    assert!(relay.moves() > 300, "only {} moves", relay.moves());
}

#[tokio::test]
async fn what_waits_in_the_library_of_a_slow_handler_is_handled_first() {
    let relay = sessions();
    relay.move_always();
    let (mut sink, mut stream) = open(&relay, "/slow").await.split();
    let sending = tokio::spawn(async move {
        for number in 0..1_000 {
            sink.send(Message::text(number.to_string())).await.unwrap();
        }
        sink
    });
    for number in 0..1_000 {
        let answer = tokio::time::timeout(TIMEOUT, stream.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(answer.into_text().unwrap(), number.to_string());
    }
    drop(sending.await.unwrap());
    assert!(relay.moves() > 0, "it has never moved");
}

fn connect(relay: &Relay) -> TcpStream {
    connect_from(nth(1), relay.address()).unwrap()
}

#[test]
fn a_kept_alive_connection_moves_after_every_one_of_a_thousand_requests() {
    let relay = sessions();
    let mut stream = connect(&relay);
    let mut served_by = std::collections::HashSet::new();
    for number in 0..1_000 {
        if number % 3 > 0 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
            let answer = read_kept_alive(&mut stream).unwrap();
            assert!(answer.head.starts_with("HTTP/1.1 200"), "{number}: {answer:?}");
            assert_eq!(answer.header("connection"), None);
            served_by.insert(answer.body);
        } else {
            let body = "y".repeat(number);
            let head = format!("POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: {number}");
            stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
            assert_eq!(read_kept_alive(&mut stream).unwrap().body, number.to_string());
        }
        relay.move_all();
    }
    assert!(relay.moves() >= 1_000);
    assert_eq!(served_by.len(), 2);
}

/// Autobahn's cases pass while every session moves whenever it can.
fn passes_autobahn(worker: &[&str]) {
    let relay = Relay::start(worker);
    relay.move_always();
    pass_autobahn(relay.address(), "");
    assert!(relay.moves() > 20, "only {} moves", relay.moves());
}

#[test]
fn autobahns_cases_pass_while_plain_tungstenite_moves_all_the_time() {
    passes_autobahn(&[&example("echo_worker")]);
}

#[test]
fn autobahns_cases_pass_while_axums_websocket_moves_all_the_time() {
    passes_autobahn(&[&example("library_worker"), "axum-echo"]);
}
