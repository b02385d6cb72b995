//! Checkpoint-alive HTTP, moved between requests.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::worker::session::tests::apps::{self, BIG};
use crate::worker::session::tests::migration::Host;

struct Http {
    stream: BufReader<TcpStream>,
}

impl Http {
    async fn connect(host: &Host) -> Self {
        let stream = TcpStream::connect(host.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Status and body.
    async fn answer(&mut self) -> (u16, Vec<u8>) {
        let (status, length) = self.head().await;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        (status, body)
    }

    async fn head(&mut self) -> (u16, usize) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(!head.contains("connection: close"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, length.map_or(0, |length| length.parse().unwrap()))
    }

    async fn expect_number(&mut self, number: u64) {
        let (status, body) = self.answer().await;
        assert_eq!((status, body), (200, number.to_string().into_bytes()));
    }
}

fn get(number: u64) -> String {
    format!("GET /number/{number} HTTP/1.1\r\nHost: a\r\n\r\n")
}

async fn in_time(test: impl Future<Output = ()>) {
    timeout(Duration::from_secs(60), test).await.unwrap();
}

#[tokio::test]
async fn a_thousand_requests_move_after_each() {
    let host = Host::start(apps::axum(), Duration::ZERO).await;
    let mut client = Http::connect(&host).await;
    in_time(async {
        for number in 0..1000 {
            client.send(get(number).as_bytes()).await;
            client.expect_number(number).await;
        }
    })
    .await;
    assert!(host.moves() >= 999, "{} moves", host.moves());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pipelined_requests_are_all_answered_in_order() {
    let host = Host::start(apps::axum(), Duration::ZERO).await;
    let clients = (0..3).map(|_| async {
        let mut client = Http::connect(&host).await;
        for round in 0..50 {
            let numbers = round * 4..round * 4 + 4;
            let requests = numbers.clone().fold(String::new(), |mut all, number| {
                write!(all, "{}", get(number)).unwrap();
                all
            });
            client.send(requests.as_bytes()).await;
            for number in numbers {
                client.expect_number(number).await;
            }
        }
    });
    in_time(async { drop(futures_util::future::join_all(clients).await) }).await;
    // Each time at least, as more than one may be answered before the stream is told to stop.
    assert!(host.moves() >= 140, "{} moves", host.moves());
}

#[tokio::test]
async fn heads_and_bodies_cut_anywhere_move_whole() {
    let host = Host::start(apps::axum(), Duration::ZERO).await;
    let mut client = Http::connect(&host).await;
    in_time(async {
        for round in 0..60usize {
            let body = vec![b'a'; round * 500];
            let head =
                format!("POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
            let bytes = [head.as_bytes(), &body, get(7).as_bytes()].concat();
            for cut in [round + 1, head.len() - 1, head.len() + body.len() + 9] {
                client.send(&bytes[..cut.min(bytes.len())]).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                client.send(&bytes[cut.min(bytes.len())..]).await;
                assert_eq!(client.answer().await, (200, body.clone()));
                client.expect_number(7).await;
            }
        }
    })
    .await;
    assert!(host.moves() >= 350, "{} moves", host.moves());
}

#[tokio::test]
async fn an_answer_is_written_to_its_end_before_it_moves() {
    let host = Host::start(apps::axum(), Duration::ZERO).await;
    let mut client = Http::connect(&host).await;
    in_time(async {
        for _ in 0..3 {
            // The next request waits already.
            client.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.send(get(1).as_bytes()).await;
            let (_, length) = client.head().await;
            assert_eq!(length, BIG);
            let mut left = BIG;
            let mut piece = vec![0; 300_000];
            while left > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let most = left.min(piece.len());
                left -= client.stream.read(&mut piece[..most]).await.unwrap();
            }
            client.expect_number(1).await;
        }
    })
    .await;
    assert!(host.moves() >= 5, "{} moves", host.moves());
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_to_continue_is_told() {
    let host = Host::start(apps::axum(), Duration::ZERO).await;
    let mut client = Http::connect(&host).await;
    in_time(async {
        for _ in 0..10 {
            let head = "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\
                        Expect: 100-continue\r\n\r\n";
            client.send(head.as_bytes()).await;
            assert_eq!(client.head().await.0, 100);
            client.send(b"hello").await;
            assert_eq!(client.answer().await, (200, b"hello".to_vec()));
        }
    })
    .await;
    assert!(host.moves() >= 9, "{} moves", host.moves());
}

#[tokio::test]
async fn what_has_no_body_moves_too() {
    let host = Host::start(apps::axum(), Duration::ZERO).await;
    let mut client = Http::connect(&host).await;
    in_time(async {
        for _ in 0..20 {
            client.send(b"HEAD /number/12 HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(client.head().await, (200, 2));
            client.send(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(client.answer().await, (404, Vec::new()));
        }
    })
    .await;
    assert!(host.moves() >= 38, "{} moves", host.moves());
}
