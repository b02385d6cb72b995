//! WebSockets of three libraries, moved between messages.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::worker::session::tests::apps;
use crate::worker::session::tests::client::{Client, Style, UPGRADE, message, read_head};
use crate::worker::session::tests::migration::{App, Host};

const SHORT: Style = Style { longest: 300, fragments: false, lockstep: true };
const CUT: Style = Style { longest: 60_000, fragments: true, lockstep: false };

fn all_apps() -> [(&'static str, App); 3] {
    [("tungstenite", apps::tungstenite()), ("hyper", apps::hyper_upgrade()), ("axum", apps::axum())]
}

async fn in_time<T>(what: &str, test: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), test).await.unwrap_or_else(|_| panic!("{what} is stuck"))
}

#[tokio::test]
async fn moves_after_every_message() {
    for (name, app) in all_apps() {
        let host = Host::start(app, Duration::ZERO).await;
        let mut client = Client::connect(host.address, UPGRADE, b"").await;
        in_time(name, client.exchange(0..300, SHORT)).await;
        in_time(name, client.exchange(300..400, Style { fragments: true, ..SHORT })).await;
        in_time(name, client.close()).await;
        assert!(host.moves() >= 390, "{name}: {} moves", host.moves());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_of_messages_in_fragments_with_pings_in_between_cut_anywhere() {
    for (name, app) in all_apps() {
        let host = Host::start(app, Duration::ZERO).await;
        let clients = (0..4).map(|_| async {
            let mut client = Client::connect(host.address, UPGRADE, b"").await;
            client.exchange(0..100, CUT).await;
            client.close().await;
        });
        in_time(name, futures_util::future::join_all(clients)).await;
        assert!(host.moves() >= 4, "{name}: {} moves", host.moves());
    }
}

#[tokio::test]
async fn frames_in_the_segment_of_the_handshake_arrive() {
    for (name, app) in all_apps() {
        let host = Host::start(app, Duration::ZERO).await;
        let early = (0..20).flat_map(|number| message(number, SHORT).0).collect::<Vec<_>>();
        // The last of them is cut.
        let (early, late) = early.split_at(early.len() - 5);
        let mut stream = TcpStream::connect(host.address).await.unwrap();
        stream.write_all(&[UPGRADE.as_bytes(), early].concat()).await.unwrap();
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101"));
        stream.write_all(late).await.unwrap();
        let mut client = Client::of(stream).await;
        in_time(name, client.expect(0..20, SHORT)).await.unwrap();
        in_time(name, client.exchange(20..30, SHORT)).await;
        in_time(name, client.close()).await;
        assert!(host.moves() >= 10, "{name}: {} moves", host.moves());
    }
}

#[tokio::test]
async fn a_request_before_the_upgrade_doesnt_confuse_it() {
    let host = Host::start(apps::axum(), Duration::ZERO).await;
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    let post = "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let early = message(0, SHORT).0;
    stream.write_all(&[post.as_bytes(), UPGRADE.as_bytes(), &early].concat()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-length: 3"), "{head}");
    let mut body = [0; 3];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut body).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101"));
    let mut client = Client::of(stream).await;
    client.expect(0..1, SHORT).await.unwrap();
    client.exchange(1..10, SHORT).await;
    client.close().await;
    assert!(host.moves() >= 9, "{} moves", host.moves());
}

#[tokio::test]
async fn what_the_library_has_read_is_handled_before_it_moves() {
    for (name, app) in all_apps() {
        let host = Host::start(app, Duration::from_millis(1)).await;
        let mut client = Client::connect(host.address, UPGRADE, b"").await;
        in_time(name, client.exchange(0..300, Style { lockstep: false, ..SHORT })).await;
        in_time(name, client.close()).await;
        assert!(host.moves() > 0, "{name}: {} moves", host.moves());
    }
}

/// Sends many messages at once to a slow handler.
async fn burst(host: &Host) -> Result<(), String> {
    let early = (0..50).flat_map(|number| message(number, SHORT).0).collect::<Vec<_>>();
    let mut client = Client::connect(host.address, UPGRADE, b"").await;
    client.send(&early).await;
    let seen = timeout(Duration::from_secs(1), client.expect(0..50, SHORT)).await;
    assert!(host.moves() > 0);
    seen.unwrap_or_else(|_| Err("not all came".to_owned()))
}

#[tokio::test]
async fn without_waiting_messages_are_lost_and_the_check_sees_it() {
    for (name, app) in all_apps() {
        let pace = Duration::from_millis(5);
        burst(&Host::start(Arc::clone(&app), pace).await).await.unwrap();
        let lost = burst(&Host::reckless(app, pace).await).await;
        assert!(lost.is_err(), "{name}: nothing was lost");
    }
}
