//! A client that sends what it likes, cut as it likes, and checks all that it gets.

use std::net::SocketAddr;
use std::ops::Range;

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

pub(super) const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// How a client sends its messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// The longest of them.
    pub(super) longest: usize,
    /// In fragments, with pings in between.
    pub(super) fragments: bool,
    /// Each when the one before has come back, rather than all at once.
    pub(super) lockstep: bool,
}

type Echoes = WebSocketStream<tokio::io::Join<OwnedReadHalf, tokio::io::Sink>>;

pub(super) struct Client {
    echoes: Echoes,
    writer: OwnedWriteHalf,
    pub(super) pings: usize,
    pongs: usize,
}

impl Client {
    /// `behind` comes in the segment of the request.
    pub(super) async fn connect(address: SocketAddr, request: &str, behind: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&[request.as_bytes(), behind].concat()).await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Self::of(stream).await
    }

    /// The request is answered.
    pub(super) async fn of(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        let io = tokio::io::join(reader, tokio::io::sink());
        let echoes = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        Self { echoes, writer, pings: 0, pongs: 0 }
    }

    /// Sends these messages and waits for all of them to come back.
    pub(super) async fn exchange(&mut self, numbers: Range<u64>, style: Style) {
        if style.lockstep {
            for number in numbers {
                let (bytes, pings) = message(number, style);
                self.pings += pings;
                self.writer.write_all(&bytes).await.unwrap();
                self.expect(number..number + 1, style).await.unwrap();
            }
            return;
        }
        let mut all = Vec::new();
        for number in numbers.clone() {
            let (bytes, pings) = message(number, style);
            self.pings += pings;
            all.extend(bytes);
        }
        let Self { echoes, writer, pongs, .. } = self;
        let ((), came) =
            tokio::join!(write_in_pieces(writer, &all), expect(echoes, pongs, numbers, style));
        came.unwrap();
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.unwrap();
    }

    pub(super) async fn expect(&mut self, numbers: Range<u64>, style: Style) -> Result<(), String> {
        expect(&mut self.echoes, &mut self.pongs, numbers, style).await
    }

    /// Sends a close frame and gets the answer.
    pub(super) async fn close(mut self) {
        self.writer.write_all(&frame(0x88, &1000u16.to_be_bytes())).await.unwrap();
        loop {
            match self.echoes.next().await {
                Some(Ok(Message::Pong(_))) => self.pongs += 1,
                Some(Ok(Message::Close(Some(close)))) => {
                    assert_eq!(u16::from(close.code), 1000);
                    break;
                }
                other => panic!("expected a close frame, got {other:?}"),
            }
        }
        assert!(matches!(self.echoes.next().await, None | Some(Err(Error::ConnectionClosed))));
        assert_eq!(self.pongs, self.pings, "each ping has its pong");
    }
}

async fn expect(
    echoes: &mut Echoes,
    pongs: &mut usize,
    numbers: Range<u64>,
    style: Style,
) -> Result<(), String> {
    for number in numbers {
        loop {
            match echoes.next().await {
                Some(Ok(Message::Pong(_))) => *pongs += 1,
                Some(Ok(Message::Binary(came))) if came == content(number, style.longest) => break,
                Some(Ok(Message::Binary(came))) => {
                    return Err(format!(
                        "{:?} came instead of {number}",
                        &came[..came.len().min(8)]
                    ));
                }
                other => return Err(format!("{other:?} instead of {number}")),
            }
        }
    }
    Ok(())
}

/// A few bytes, then many, so that all is cut somewhere.
async fn write_in_pieces(writer: &mut OwnedWriteHalf, mut bytes: &[u8]) {
    for length in [1, 3, 17, 400, 5000, 70_000].into_iter().cycle() {
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        writer.write_all(piece).await.unwrap();
        if rest.is_empty() {
            return;
        }
        bytes = rest;
        tokio::task::yield_now().await;
    }
}

fn content(number: u64, longest: usize) -> Vec<u8> {
    let length = usize::try_from(number * 7919).unwrap() % longest;
    let filler = number.to_le_bytes()[0];
    [&number.to_be_bytes(), vec![filler; length].as_slice()].concat()
}

/// As it goes over the wire, and the pings that are in it.
pub(super) fn message(number: u64, style: Style) -> (Vec<u8>, usize) {
    let content = content(number, style.longest);
    let pieces = if style.fragments { number % 4 + 1 } else { 1 };
    let length = content.len().div_ceil(usize::try_from(pieces).unwrap());
    let (mut bytes, mut pings) = (Vec::new(), 0);
    let count = content.chunks(length).len();
    for (index, piece) in content.chunks(length).enumerate() {
        let opcode = if index == 0 { 2 } else { 0 };
        let last = if index + 1 == count { 0x80 } else { 0 };
        bytes.extend(frame(last | opcode, piece));
        if style.fragments && number.is_multiple_of(3) {
            bytes.extend(frame(0x89, &number.to_be_bytes()));
            pings += 1;
        }
    }
    (bytes, pings)
}

/// Masked, as a client's have to be.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [7, 31, 127, 3];
    let mut bytes = vec![first];
    match payload.len() {
        length @ ..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        length @ ..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Up to its empty line, and no byte more.
pub(super) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
