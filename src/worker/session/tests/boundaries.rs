//! The stream by itself: what may be read when, and what is detached.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::worker::session::follow::negotiated::Obstacle;
use crate::worker::session::handle::Handle;
use crate::worker::session::image::{ConnectionState, Kind, Negotiated};
use crate::worker::session::stream::SessionStream;
use crate::worker::session::tests::client::{UPGRADE, frame};
use crate::worker::session::tests::migration::{self, resumed};

/// Without context takeover, and with it.
const PORTABLE: &str = "permessage-deflate; client_no_context_takeover; server_no_context_takeover";
const CONTEXT: &str = "permessage-deflate";

const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

async fn fresh() -> (TcpStream, SessionStream, Handle) {
    let (client, server) = pair().await;
    let (stream, handle) = migration::fresh(server);
    (client, stream, handle)
}

/// Another worker has agreed already.
async fn replaying() -> (TcpStream, SessionStream, Handle) {
    replaying_after(None).await
}

/// The client has got this answer, if that is known.
async fn replaying_after(negotiated: Option<Negotiated>) -> (TcpStream, SessionStream, Handle) {
    let (client, server) = pair().await;
    let head = UPGRADE.as_bytes().to_vec();
    let connection =
        ConnectionState { kind: Kind::WebSocket, head, negotiated, unread: Vec::new() };
    let (mut stream, handle) = resumed(server, connection);
    reads(&mut stream, UPGRADE.as_bytes()).await;
    (client, stream, handle)
}

async fn websocket() -> (TcpStream, SessionStream, Handle) {
    let (client, mut stream, handle) = replaying().await;
    stream.write_all(SWITCHING).await.unwrap();
    (client, stream, handle)
}

const LONG: Duration = Duration::from_secs(30);

/// Waits for just this.
async fn reads(stream: &mut SessionStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    timeout(LONG, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert!(bytes == expected, "{} bytes that are others", bytes.len());
}

async fn reads_the_end(stream: &mut SessionStream) {
    assert_eq!(timeout(LONG, stream.read(&mut [0; 9])).await.unwrap().unwrap(), 0);
}

/// Wants to read, and gets nothing.
async fn reads_nothing(stream: &mut SessionStream) {
    assert!(timeout(Duration::from_millis(20), stream.read_u8()).await.is_err());
}

/// Has been polled since something changed.
async fn is_drained(handle: &Handle) -> bool {
    timeout(Duration::from_millis(20), handle.drained()).await.is_ok()
}

#[tokio::test]
async fn asked_to_stop_it_reads_to_the_end_of_the_message_and_no_further() {
    let (mut client, mut stream, handle) = websocket().await;
    let (first, ping) = (frame(0x01, b"one"), frame(0x89, b"ping"));
    let (last, next) = (frame(0x80, b"two"), frame(0x81, b"next"));
    client.write_all(&first[..4]).await.unwrap();
    reads(&mut stream, &first[..4]).await;
    handle.ask_to_stop();
    reads_nothing(&mut stream).await;
    assert!(!is_drained(&handle).await, "in the middle of a frame");
    client.write_all(&[&first[4..], &ping].concat()).await.unwrap();
    reads(&mut stream, &[&first[4..], &ping].concat()).await;
    reads_nothing(&mut stream).await;
    assert!(!is_drained(&handle).await, "in the middle of a message");
    assert!(!handle.hold());
    client.write_all(&[last.as_slice(), &next].concat()).await.unwrap();
    reads(&mut stream, &last).await;
    reads_nothing(&mut stream).await;
    assert!(is_drained(&handle).await && handle.hold());
    let mut taken = handle.detach().unwrap();
    assert_eq!((taken.connection.kind, taken.connection.unread.len()), (Kind::WebSocket, 0));
    assert_eq!(taken.connection.head, UPGRADE.as_bytes());
    let mut rest = vec![0; next.len()];
    taken.stream.read_exact(&mut rest).await.unwrap();
    assert_eq!(rest, next);
}

#[tokio::test]
async fn told_to_go_on_it_goes_on() {
    let (mut client, mut stream, handle) = websocket().await;
    let message = frame(0x81, b"hello");
    handle.ask_to_stop();
    client.write_all(&message).await.unwrap();
    let expected = message.clone();
    let reading = tokio::spawn(async move { reads(&mut stream, &expected).await });
    handle.drained().await;
    handle.go_on();
    assert!(!handle.hold() && !is_drained(&handle).await);
    reading.await.unwrap();
}

#[tokio::test]
async fn held_it_neither_reads_nor_writes_and_released_it_does_both() {
    let (mut client, mut stream, handle) = websocket().await;
    handle.ask_to_stop();
    reads_nothing(&mut stream).await;
    assert!(handle.hold() && handle.hold());
    let writing = tokio::spawn(async move {
        stream.write_all(b"\x81\x02ab").await.unwrap();
        stream
    });
    let mut came = [0; 4];
    let nothing = timeout(Duration::from_millis(30), client.read(&mut came)).await;
    assert!(nothing.is_err(), "written while held");
    assert!(handle.detach().is_none(), "what was to be written would be lost");
    client.read_exact(&mut came).await.unwrap();
    assert_eq!(&came, b"\x81\x02ab");
    // It was released by that, and is drained again.
    let mut stream = writing.await.unwrap();
    reads_nothing(&mut stream).await;
    assert!(is_drained(&handle).await && handle.hold());
    handle.release();
    handle.go_on();
    client.write_all(&frame(0x81, b"x")).await.unwrap();
    reads(&mut stream, &frame(0x81, b"x")).await;
}

#[tokio::test]
async fn detached_the_library_sees_the_end_and_writes_fail() {
    let (_client, mut stream, handle) = websocket().await;
    handle.ask_to_stop();
    let reading = tokio::spawn(async move {
        let mut byte = [0];
        let length = stream.read(&mut byte).await.unwrap();
        (length, stream)
    });
    handle.drained().await;
    assert!(handle.hold() && !handle.is_detached());
    let taken = handle.detach();
    let (length, mut stream) = reading.await.unwrap();
    assert_eq!(length, 0);
    let error = stream.write(b"late").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    stream.flush().await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(taken.is_some() && handle.is_detached() && handle.kind() == Kind::Ended);
    assert!(handle.detach().is_none() && handle.force_detach().is_none());
    handle.ended().await;
}

#[tokio::test]
async fn what_the_server_has_begun_to_write_it_finishes() {
    let (_client, mut stream, handle) = websocket().await;
    handle.ask_to_stop();
    stream.write_all(b"\x81\x04ab").await.unwrap();
    reads_nothing(&mut stream).await;
    assert!(!is_drained(&handle).await, "in the middle of a frame");
    stream.write_all(b"cd\x01\x01e").await.unwrap();
    reads_nothing(&mut stream).await;
    assert!(!is_drained(&handle).await, "in the middle of a message");
    assert!(handle.force_detach().unwrap().at_frame_boundary);
}

#[tokio::test]
async fn a_reader_that_waits_for_a_write_is_woken_by_it() {
    let (_client, stream, handle) = websocket().await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    writer.write_all(b"\x81\x04ab").await.unwrap();
    handle.ask_to_stop();
    let reading = tokio::spawn(async move { reader.read_u8().await });
    assert!(!is_drained(&handle).await);
    writer.write_all(b"cd").await.unwrap();
    handle.drained().await;
    drop(handle.force_detach());
    assert!(reading.await.unwrap().is_err());
}

#[tokio::test]
async fn a_write_that_the_socket_has_no_room_for_is_owed() {
    let (_client, mut stream, handle) = websocket().await;
    handle.ask_to_stop();
    // Frames without a payload, so that each second byte is an end.
    let frames = [0x81, 0].repeat(8_000_000);
    let writing = timeout(Duration::from_millis(100), stream.write_all(&frames)).await;
    assert!(writing.is_err(), "the socket took it all");
    reads_nothing(&mut stream).await;
    assert!(!is_drained(&handle).await);
}

#[tokio::test]
async fn a_client_that_leaves_while_stopped_is_seen_to() {
    let (client, mut stream, handle) = websocket().await;
    handle.ask_to_stop();
    reads_nothing(&mut stream).await;
    assert!(is_drained(&handle).await);
    drop(client);
    reads_the_end(&mut stream).await;
    assert!(!is_drained(&handle).await && !handle.hold());
    drop(stream);
    handle.ended().await;
    assert!(handle.force_detach().is_none() && !handle.is_detached());
}

#[tokio::test]
async fn a_close_is_finished_here() {
    let close = frame(0x88, &1000u16.to_be_bytes());
    let (mut client, mut stream, handle) = websocket().await;
    client.write_all(&close).await.unwrap();
    reads(&mut stream, &close).await;
    assert_eq!(handle.kind(), Kind::Closing);
    handle.ask_to_stop();
    reads_nothing(&mut stream).await;
    assert!(!is_drained(&handle).await);

    let (mut client, mut stream, handle) = websocket().await;
    handle.ask_to_stop();
    client.write_all(&close).await.unwrap();
    reads_nothing(&mut stream).await;
    assert!(is_drained(&handle).await);
    // The server says it, too: now it wants to read what the client says.
    stream.write_all(b"\x88\x02\x03\xe8").await.unwrap();
    assert!(!handle.hold());
    reads(&mut stream, &close).await;
    assert!(!handle.force_detach().unwrap().at_frame_boundary);
}

#[tokio::test]
async fn detached_by_force_it_says_whether_a_close_frame_may_follow() {
    for (written, expected) in [(b"".as_slice(), true), (b"\x81\x01a", true), (b"\x81\x02a", false)]
    {
        let (_client, mut stream, handle) = websocket().await;
        stream.write_all(written).await.unwrap();
        let detached = handle.force_detach().unwrap();
        assert_eq!(detached.at_frame_boundary, expected);
        reads_the_end(&mut stream).await;
    }
    let (_client, _gate, handle) = fresh().await;
    let detached = handle.force_detach().unwrap();
    assert!(!detached.at_frame_boundary);
}

#[tokio::test]
async fn a_replay_with_another_answer_ends_in_a_close_frame() {
    let cases = [
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n".as_slice(), 1008),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nbusy", 1012),
        (b"what?\r\n\r\n", 1012),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", 1012),
    ];
    for (answer, code) in cases {
        let (mut client, mut stream, handle) = replaying().await;
        stream.write_all(answer).await.unwrap();
        // Or without an answer at all.
        stream.shutdown().await.unwrap();
        assert!(handle.is_rejected() && handle.kind() == Kind::Closing);
        reads_the_end(&mut stream).await;
        drop(stream);
        handle.ended().await;
        let detached = handle.force_detach().unwrap();
        assert!(!detached.at_frame_boundary);
        drop(detached);
        let mut frame = Vec::new();
        client.read_to_end(&mut frame).await.unwrap();
        let [high, low] = u16::to_be_bytes(code);
        assert_eq!(frame, [0x88, 2, high, low], "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn what_is_not_followed_passes_whole_and_never_stops() {
    let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let long = [b"GET / HTTP/1.1\r\nx: ".as_slice(), &[b'y'; 70_000]].concat();
    for bytes in [chunked.as_slice(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01", &long] {
        let (mut client, mut stream, handle) = fresh().await;
        client.write_all(bytes).await.unwrap();
        reads(&mut stream, bytes).await;
        assert_eq!(handle.kind(), Kind::Unknown);
        handle.ask_to_stop();
        client.write_all(b"more").await.unwrap();
        reads(&mut stream, b"more").await;
        reads_nothing(&mut stream).await;
        assert!(!is_drained(&handle).await && !handle.hold());
        assert!(!handle.force_detach().unwrap().at_frame_boundary);
    }
    // And what ends before it can be told.
    let (mut client, mut stream, _handle) = fresh().await;
    client.write_all(b"GET / HT").await.unwrap();
    client.shutdown().await.unwrap();
    reads(&mut stream, b"GET / HT").await;
    reads_the_end(&mut stream).await;
}

#[tokio::test]
async fn half_a_head_migrates_and_a_request_is_not_guessed_at() {
    let (mut client, mut stream, handle) = fresh().await;
    client.write_all(b"GET / HT").await.unwrap();
    reads_nothing(&mut stream).await;
    handle.ask_to_stop();
    reads_nothing(&mut stream).await;
    assert!(is_drained(&handle).await && handle.hold());
    let taken = handle.detach().unwrap();
    assert_eq!(
        (taken.connection.kind, taken.connection.unread.as_slice()),
        (Kind::Http, b"GET / HT".as_slice())
    );

    let (mut stream, handle) = resumed(taken.stream, taken.connection);
    client.write_all(b"TP/1.1\r\n\r\n").await.unwrap();
    reads(&mut stream, b"GET / HTTP/1.1\r\n\r\n").await;
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    handle.ask_to_stop();
    reads_nothing(&mut stream).await;
    assert!(!is_drained(&handle).await, "the answer may go on");
    assert_eq!(handle.kind(), Kind::Http);
}

#[tokio::test]
async fn asked_in_the_middle_of_the_handshake_it_stops_behind_it() {
    let (mut client, mut stream, handle) = fresh().await;
    let message = frame(0x81, b"early");
    client.write_all(&[UPGRADE.as_bytes(), &message].concat()).await.unwrap();
    let mut roomy = [0; 1000];
    assert_eq!(stream.read(&mut roomy).await.unwrap(), UPGRADE.len());
    handle.ask_to_stop();
    reads_nothing(&mut stream).await;
    assert!(!is_drained(&handle).await);
    let (first, second) = SWITCHING.split_at(20);
    stream.write_all(first).await.unwrap();
    stream.write_all(&[second, b"\x81\x02a"].concat()).await.unwrap();
    reads_nothing(&mut stream).await;
    assert!(!is_drained(&handle).await, "a frame has begun behind the answer");
    stream.write_all(b"b").await.unwrap();
    reads_nothing(&mut stream).await;
    assert!(is_drained(&handle).await && handle.hold());
    let connection = handle.detach().unwrap().connection;
    assert_eq!(connection.head, UPGRADE.as_bytes());
    assert_eq!(connection.unread, message);
}

/// An answer that agrees to this, and the same as it travels.
fn agreement(protocol: &str, extensions: &str) -> (String, Negotiated) {
    let mut answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n".to_owned();
    for (name, value) in [("Protocol", protocol), ("Extensions", extensions)] {
        if !value.is_empty() {
            answer += &format!("Sec-WebSocket-{name}: {value}\r\n");
        }
    }
    answer += "\r\n";
    (answer, Negotiated { protocol: protocol.into(), extensions: extensions.into() })
}

#[tokio::test]
async fn only_what_keeps_nothing_from_message_to_message_is_held() {
    let cases = [
        ("", None),
        (PORTABLE, None),
        (CONTEXT, Some(Obstacle::ContextTakeover)),
        ("x-mine", Some(Obstacle::Extension)),
    ];
    for (extensions, obstacle) in cases {
        let (mut client, mut stream, handle) = fresh().await;
        client.write_all(UPGRADE.as_bytes()).await.unwrap();
        reads(&mut stream, UPGRADE.as_bytes()).await;
        let (answer, negotiated) = agreement("chat", extensions);
        stream.write_all(answer.as_bytes()).await.unwrap();
        assert_eq!((handle.kind(), handle.obstacle()), (Kind::WebSocket, obstacle));
        handle.ask_to_stop();
        reads_nothing(&mut stream).await;
        // It is at a boundary all the same, for its close frame.
        assert!(is_drained(&handle).await);
        assert_eq!(handle.hold(), obstacle.is_none(), "{extensions}");
        if obstacle.is_some() {
            assert!(handle.force_detach().unwrap().at_frame_boundary);
        } else {
            assert_eq!(handle.detach().unwrap().connection.negotiated, Some(negotiated));
        }
    }
}

#[tokio::test]
async fn a_replay_that_agrees_to_something_else_ends_in_a_close_frame() {
    let (other, reordered) = (
        "permessage-deflate; client_no_context_takeover; server_no_context_takeover; \
         client_max_window_bits=10",
        "permessage-deflate;server_no_context_takeover;client_no_context_takeover",
    );
    let cases = [
        (Some(("v1", "")), ("v1", ""), true),
        (Some(("v1", "")), ("v2", ""), false),
        (Some(("v1", "")), ("", ""), false),
        (Some(("", "")), ("v1", ""), false),
        (Some(("", "")), ("", PORTABLE), false),
        (Some(("", PORTABLE)), ("", ""), false),
        (Some(("", PORTABLE)), ("", reordered), true),
        (Some(("", PORTABLE)), ("", other), false),
        // The version before this one has not said what the client got.
        (None, ("v2", PORTABLE), true),
        (None, ("", CONTEXT), false),
    ];
    for (before, (protocol, extensions), goes_on) in cases {
        let before_text = format!("{before:?} and {protocol:?} {extensions:?}");
        let known = before.map(|(protocol, extensions)| agreement(protocol, extensions).1);
        let (mut client, mut stream, handle) = replaying_after(known).await;
        let (answer, _) = agreement(protocol, extensions);
        stream.write_all(&[answer.as_bytes(), b"\x81\x01a"].concat()).await.unwrap();
        assert_eq!(handle.is_rejected(), !goes_on, "{before_text}");
        let mut came = [0; 3];
        client.read_exact(&mut came).await.unwrap();
        assert_eq!(&came, if goes_on { b"\x81\x01a" } else { b"\x88\x02\x03" }, "{before_text}");
        let obstacle = (!goes_on).then_some(Obstacle::OtherAnswer);
        assert_eq!(handle.obstacle(), obstacle, "{before_text}");
    }
}

#[tokio::test]
async fn another_protocol_passes_whole_and_never_stops() {
    let h2c = "GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n";
    let plain = "GET / HTTP/1.1\r\n\r\n";
    for (request, upgrade) in [(h2c, "h2c"), (plain, "other"), (UPGRADE, "other")] {
        let (mut client, mut stream, handle) = fresh().await;
        client.write_all(&[request.as_bytes(), b"early"].concat()).await.unwrap();
        reads(&mut stream, request.as_bytes()).await;
        let counted = handle.request_started(None);
        let answer = format!("HTTP/1.1 101 Switching\r\nUpgrade: {upgrade}\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        reads(&mut stream, b"early").await;
        drop(counted);
        stream.flush().await.unwrap();
        assert_eq!(handle.kind(), Kind::Unknown);
        handle.ask_to_stop();
        client.write_all(b"more").await.unwrap();
        reads(&mut stream, b"more").await;
        reads_nothing(&mut stream).await;
        assert!(!is_drained(&handle).await && !handle.hold());
        assert!(!handle.force_detach().unwrap().at_frame_boundary);
    }
}

#[tokio::test]
async fn a_websocket_that_was_asked_for_in_an_odd_way_is_closed_with_a_frame() {
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let message = frame(0x81, b"hello");
    let bodies = [
        format!("GET / HTTP/1.1\r\n{upgrade}Content-Length: 3\r\n\r\nabc"),
        format!(
            "GET / HTTP/1.1\r\n{upgrade}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        ),
        format!("GET / HTTP/1.0\r\n{upgrade}\r\n"),
    ];
    for request in bodies {
        let (mut client, mut stream, handle) = fresh().await;
        client.write_all(request.as_bytes()).await.unwrap();
        reads(&mut stream, request.as_bytes()).await;
        stream.write_all(SWITCHING).await.unwrap();
        client.write_all(&message).await.unwrap();
        reads(&mut stream, &message).await;
        let kind = (handle.kind(), handle.obstacle());
        assert_eq!(kind, (Kind::WebSocket, Some(Obstacle::Request)), "{request}");
        stream.write_all(b"\x81\x02a").await.unwrap();
        handle.ask_to_stop();
        reads_nothing(&mut stream).await;
        assert!(!is_drained(&handle).await && !handle.hold());
        stream.write_all(b"b").await.unwrap();
        reads_nothing(&mut stream).await;
        assert!(!handle.hold(), "{request}");
        assert!(handle.force_detach().unwrap().at_frame_boundary, "{request}");
    }
    // And with all of it before what is asked for twice.
    let (mut client, mut stream, handle) = fresh().await;
    let twice = format!("GET / HTTP/1.1\r\nUpgrade: h2c\r\n{upgrade}\r\n");
    client.write_all(&[twice.as_bytes(), &message].concat()).await.unwrap();
    reads(&mut stream, twice.as_bytes()).await;
    reads_nothing(&mut stream).await;
    stream.write_all(SWITCHING).await.unwrap();
    handle.ask_to_stop();
    reads_nothing(&mut stream).await;
    assert!(is_drained(&handle).await && handle.hold());
    let connection = handle.detach().unwrap().connection;
    assert_eq!((connection.head, connection.unread), (twice.into_bytes(), Vec::new()));
}

#[tokio::test]
async fn it_is_known_who_closes() {
    let close = frame(0x88, &1000u16.to_be_bytes());
    // The library, by a frame, by the end, by letting go.
    let (_client, mut stream, handle) = websocket().await;
    stream.write_all(b"\x88\x02\x03\xe8").await.unwrap();
    assert!(handle.is_closed_here());
    let (_client, mut stream, handle) = websocket().await;
    stream.shutdown().await.unwrap();
    assert!(handle.is_closed_here());
    let (_client, stream, handle) = websocket().await;
    drop(stream);
    assert!(handle.is_closed_here());

    // The client, by a frame or by its end; and nobody, when it has left.
    let (mut client, mut stream, handle) = websocket().await;
    client.write_all(&close).await.unwrap();
    reads(&mut stream, &close).await;
    stream.write_all(b"\x88\x02\x03\xe8").await.unwrap();
    drop(stream);
    assert!(!handle.is_closed_here());
    let (client, mut stream, handle) = websocket().await;
    drop(client);
    reads_the_end(&mut stream).await;
    drop(stream);
    assert!(!handle.is_closed_here());
    let (_client, mut stream, handle) = websocket().await;
    handle.ask_to_stop();
    reads_nothing(&mut stream).await;
    assert!(handle.hold() && handle.detach().is_some());
    stream.shutdown().await.unwrap();
    drop(stream);
    assert!(!handle.is_closed_here());
}
