//! The client's side of a conversation: requests, then perhaps an upgrade and frames, any of them invalid.

use crate::protocol::random::Random;

/// The server that it is held with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// Requests, and upgrades.
    Hyper,
    /// A WebSocket from the first byte on.
    Tungstenite,
}

/// Bytes in pieces.
#[derive(Clone)]
pub(super) struct Conversation {
    pub(super) server: Server,
    pub(super) head: Vec<Vec<u8>>,
    /// Sent after the head's answer.
    pub(super) rest: Vec<Vec<u8>>,
    /// How often others get their turn between two pieces.
    pub(super) pace: u64,
}

impl Conversation {
    pub(super) fn new(random: &mut Random) -> Self {
        let server = *random.pick(&[Server::Hyper, Server::Hyper, Server::Tungstenite]);
        let (mut head, mut rest) = (Vec::new(), Vec::new());
        if server == Server::Hyper {
            for _ in 0..random.below(4) {
                request(random, &mut head);
            }
        }
        if server == Server::Tungstenite || !random.one_in(4) {
            upgrade(random, server, &mut head);
            frames(random, &mut rest);
        }
        if random.one_in(10) && !head.is_empty() {
            let (place, byte) = (random.up_to(head.len() - 1), random.byte());
            // A head that ends too soon has bytes behind it, which tungstenite refuses in one segment with
            // it and a stream that follows heads holds back.
            let is_end = server == Server::Tungstenite && byte == b'\n';
            head[place] = if is_end { b'\r' } else { byte };
        }
        if random.one_in(10) && !rest.is_empty() {
            let place = random.up_to(rest.len() - 1);
            rest[place] = random.byte();
        }
        if server == Server::Hyper && random.one_in(2) {
            head.append(&mut rest);
        }
        // A library may take a head in very small pieces for an attack, which a stream that follows heads
        // it never sees.
        let smallest = if server == Server::Hyper { 1 } else { 100 };
        let (head, rest) = (cut(random, &head, smallest), cut(random, &rest, 1));
        Self { server, head, rest, pace: *random.pick(&[0, 1, 3, 10]) }
    }

    /// The same in other pieces.
    pub(super) fn cut_again(&self, random: &mut Random) -> Self {
        let smallest = if self.server == Server::Hyper { 1 } else { 100 };
        let head = cut(random, &self.head.concat(), smallest);
        let rest = cut(random, &self.rest.concat(), 1);
        Self { head, rest, pace: *random.pick(&[0, 1, 3, 10, 30]), ..*self }
    }
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |pieces: &[Vec<u8>]| {
            let lengths: Vec<_> = pieces.iter().map(Vec::len).collect();
            format!("{} in pieces of {lengths:?}", shown(&pieces.concat()))
        };
        f.debug_struct("Conversation")
            .field("server", &self.server)
            .field("head", &text(&self.head))
            .field("rest", &text(&self.rest))
            .field("pace", &self.pace)
            .finish()
    }
}

/// As text, in which a byte that is repeated stands once, with its number.
pub(super) fn shown(bytes: &[u8]) -> String {
    let runs = bytes.chunk_by(|one, other| one == other);
    let text = runs.map(|run| match run.len() {
        length @ 0..9 => run[..length].escape_ascii().to_string(),
        length => format!("{}*{length}", [run[0]].escape_ascii()),
    });
    text.collect()
}

fn cut(random: &mut Random, bytes: &[u8], smallest: usize) -> Vec<Vec<u8>> {
    if bytes.is_empty() {
        return Vec::new();
    }
    if bytes.len() < 400 && random.one_in(5) {
        return bytes.chunks(smallest).map(<[u8]>::to_vec).collect();
    }
    let mut places: Vec<_> = (0..random.below(6)).map(|_| random.up_to(bytes.len())).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
}

/// Without HTTP/1.0 that is kept alive: hyper answers an invalid request in the version of the one
/// before, which a new worker doesn't know.
const ODD: [&str; 14] = [
    "GET /early HTTP/1.0\r\n\r\n",
    "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "get /lower HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://b/absolute HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /folded HTTP/1.1\r\nHost: a\r\nx: 1\r\n 2\r\n\r\n",
    "GET /bare HTTP/1.1\nHost: a\n\n",
    "GET /h2c HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "GET /refuse HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "GET /tls HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n",
    "POST /twice HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "POST /plus HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\nab",
    "POST /both HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "what is this\r\n\r\n",
];

fn request(random: &mut Random, bytes: &mut Vec<u8>) {
    match random.below(12) {
        0..3 => bytes.extend(b"GET /get?a=b HTTP/1.1\r\nHost: a\r\nCookie: c=d\r\n\r\n"),
        3 => bytes.extend(b"HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n"),
        4 => bytes.extend(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n"),
        5..8 => {
            let body = vec![b'b'; random.length()];
            let expect = if random.one_in(5) { "Expect: 100-continue\r\n" } else { "" };
            let length = body.len();
            let head = format!(
                "POST /post HTTP/1.1\r\nHost: a\r\n{expect}Content-Length: {length}\r\n\r\n"
            );
            bytes.extend(head.into_bytes());
            bytes.extend(body);
        }
        8 => {
            bytes
                .extend(b"POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            chunks(random, bytes);
        }
        9 => {
            let count = random.up_to(110);
            bytes.extend(b"\r\nGET /many HTTP/1.1\r\nHost: a\r\n");
            (0..count).for_each(|number| bytes.extend(format!("x-{number}: y\r\n").into_bytes()));
            bytes.extend(b"\r\n");
        }
        10 if random.one_in(4) => {
            bytes.extend(b"GET /long HTTP/1.1\r\nHost: a\r\nx: ");
            bytes.extend(vec![b'y'; 60_000 + random.up_to(10_000)]);
            bytes.extend(b"\r\n\r\n");
        }
        _ => bytes.extend(random.pick(&ODD).as_bytes()),
    }
}

fn chunks(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..random.below(3) {
        let length = random.length() + 1;
        bytes.extend(format!("{length:x}\r\n").into_bytes());
        bytes.extend(vec![b'c'; length]);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
}

/// Of a WebSocket mostly.
fn upgrade(random: &mut Random, server: Server, bytes: &mut Vec<u8>) {
    let method = if random.one_in(20) { "POST" } else { "GET" };
    let version = if random.one_in(20) { "0" } else { "1" };
    let path = if random.one_in(10) { "/switch" } else { "/websocket" };
    let upgrade = match random.below(12) {
        0 => "Upgrade: websocket\r\nUpgrade: websocket\r\n",
        1 => "Upgrade: h2c, websocket\r\n",
        2 => "upgrade: WebSocket\r\n",
        _ => "Upgrade: websocket\r\n",
    };
    let head = format!(
        "{method} {path} HTTP/1.{version}\r\nHost: a\r\nConnection: Upgrade\r\n{upgrade}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    bytes.extend(head.into_bytes());
    match random.below(20) {
        _ if server == Server::Tungstenite => bytes.extend(b"\r\n"),
        0 => bytes.extend(b"Content-Length: 3\r\n\r\nabc"),
        1 => {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            chunks(random, bytes);
        }
        _ => bytes.extend(b"\r\n"),
    }
}

fn frames(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..random.below(12) {
        match random.below(24) {
            0 => odd_frame(random, bytes),
            1 => close(random, bytes),
            2..5 => control(random, bytes),
            _ => message(random, bytes),
        }
    }
}

fn message(random: &mut Random, bytes: &mut Vec<u8>) {
    let pieces = if random.one_in(3) { random.below(4) + 1 } else { 1 };
    let opcode = *random.pick(&[1, 2]);
    for piece in 0..pieces {
        let first = if piece == 0 { opcode } else { 0 };
        let last = if piece + 1 == pieces { 0x80 } else { 0 };
        let payload = vec![b'm'; random.length()];
        frame(random, bytes, first | last, &payload);
        if last == 0 && random.one_in(3) {
            control(random, bytes);
        }
    }
}

fn control(random: &mut Random, bytes: &mut Vec<u8>) {
    let first = *random.pick(&[0x89, 0x8a]);
    let payload = vec![b'p'; random.up_to(125)];
    frame(random, bytes, first, &payload);
}

fn close(random: &mut Random, bytes: &mut Vec<u8>) {
    let payloads: [&[u8]; 5] = [b"", b"\x03\xe8", b"\x03\xe9bye", b"\x03", b"\x00\x01"];
    let payload = *random.pick(&payloads);
    frame(random, bytes, 0x88, payload);
}

fn odd_frame(random: &mut Random, bytes: &mut Vec<u8>) {
    match random.below(7) {
        0 => bytes.extend(b"\x81\x02no"),
        1 => frame(random, bytes, 0xc1, b"reserved bit"),
        2 => frame(random, bytes, 0x83, b"reserved opcode"),
        3 => frame(random, bytes, 0x80, b"goes on from nothing"),
        4 => frame(random, bytes, 0x09, b"half a ping"),
        5 => frame(random, bytes, 0x81, b"\xff\xfe"),
        _ => bytes.extend(b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff"),
    }
}

/// Masked, as a client's have to be.
fn frame(random: &mut Random, bytes: &mut Vec<u8>, first: u8, payload: &[u8]) {
    bytes.push(first);
    match payload.len() {
        length @ ..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        length @ ..65_536 => {
            bytes.push(0xfe);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            bytes.push(0xff);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [(); 4].map(|()| random.byte());
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}
