//! Reads from the head of an HTTP/1.1 request what follows it.
//!
//! Never decides whether a request is valid: the library answers those that aren't followed.

use std::mem::MaybeUninit;

use httparse::{Header, Status};

/// As many as hyper takes.
const MAX_HEADERS: usize = 100;

/// The beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// The head goes on.
    Partial,
    /// After the head, of this many bytes, comes a body of that many, and then the next request.
    Plain {
        /// Up to and with the empty line.
        head: usize,
        /// As announced.
        body: u64,
    },
    /// After the head come, if the server agrees, frames.
    WebSocket {
        /// Up to and with the empty line.
        head: usize,
    },
    /// After the head comes a body of unknown length, and then, if the server agrees, frames.
    Chunked,
    /// Something that isn't followed: other upgrades, tunnels, chunked bodies, HTTP/2, anything else.
    Unknown,
}

impl Request {
    /// Looks at bytes of which the first is the first of a head.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, &mut headers) {
            Ok(Status::Complete(head)) => classify(&request, head),
            // Another protocol's first words are passed on at once: its server waits for them.
            Ok(Status::Partial) if begins_as_http(bytes) => Self::Partial,
            Ok(Status::Partial) | Err(_) => Self::Unknown,
        }
    }
}

/// Whether it is, or may become, the line of a request with a registered method (RFC 9110, 9.3, and RFC
/// 5789). Empty lines may come before (RFC 9112, 2.2).
fn begins_as_http(bytes: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"CONNECT ",
        b"OPTIONS ",
        b"TRACE ",
        b"PATCH ",
    ];
    let start = bytes.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(bytes.len());
    let line = &bytes[start..];
    METHODS.iter().any(|method| method.starts_with(line) || line.starts_with(method))
}

fn classify(request: &httparse::Request<'_, '_>, head: usize) -> Request {
    // To a server of HTTP/1.0 it says nothing (RFC 9110, 7.8).
    let upgrade = upgrade(request.headers).filter(|_| request.version != Some(0));
    match (body(request.headers), upgrade) {
        _ if request.method == Some("CONNECT") => Request::Unknown,
        (Body::Length(0), Some(Upgrade::WebSocket)) => Request::WebSocket { head },
        // A body, or the offer of clear-text HTTP/2, which servers decline; their answer tells.
        (Body::Length(body), Some(Upgrade::WebSocket | Upgrade::Http2) | None) => {
            Request::Plain { head, body }
        }
        (Body::Chunked, Some(Upgrade::WebSocket)) => Request::Chunked,
        (Body::Length(_), Some(Upgrade::Other)) | (Body::Chunked | Body::Strange, _) => {
            Request::Unknown
        }
    }
}

/// The way in which a body's end is found.
enum Body {
    Length(u64),
    Chunked,
    Strange,
}

fn body(headers: &[Header<'_>]) -> Body {
    let is_chunked = |header: &Header<'_>| header.name.eq_ignore_ascii_case("transfer-encoding");
    if headers.iter().any(is_chunked) {
        return Body::Chunked;
    }
    content_length(headers).map_or(Body::Strange, Body::Length)
}

fn content_length(headers: &[Header<'_>]) -> Option<u64> {
    let mut length = None;
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = str::from_utf8(header.value).ok()?;
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let value = digits.then(|| text.parse::<u64>().ok()).flatten()?;
            if length.replace(value).is_some_and(|before| before != value) {
                return None;
            }
        }
    }
    Some(length.unwrap_or(0))
}

enum Upgrade {
    /// Among others, perhaps.
    WebSocket,
    Http2,
    Other,
}

fn upgrade(headers: &[Header<'_>]) -> Option<Upgrade> {
    let mut found = None;
    for header in headers.iter().filter(|header| header.name.eq_ignore_ascii_case("upgrade")) {
        for protocol in header.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            found = Some(match found {
                _ if protocol.eq_ignore_ascii_case(b"websocket") => Upgrade::WebSocket,
                Some(Upgrade::WebSocket) => Upgrade::WebSocket,
                None | Some(Upgrade::Http2) if is_http2(protocol) => Upgrade::Http2,
                _ => Upgrade::Other,
            });
        }
    }
    found
}

fn is_http2(protocol: &[u8]) -> bool {
    protocol.eq_ignore_ascii_case(b"h2c") || protocol.eq_ignore_ascii_case(b"h2")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(head: &str) -> Request {
        Request::read(format!("{head}\r\n\r\n").as_bytes())
    }

    #[test]
    fn another_protocol_is_not_waited_for() {
        for words in ["hi", "HELO", "*1", "PR", "get /", "{", "\r\nhello", "GETS key"] {
            assert_eq!(Request::read(words.as_bytes()), Request::Unknown, "{words:?}");
        }
        for head in ["", "G", "GET", "GET /", "\r\nPOST / HTTP/1.1\r\nHost:", "P", "OPTIONS"] {
            assert_eq!(Request::read(head.as_bytes()), Request::Partial, "{head:?}");
        }
    }

    #[test]
    fn says_what_follows() {
        // The answer tells whether it becomes one.
        for socket in [
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: Upgrade",
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\nUpgrade: websocket",
            "GET / HTTP/1.1\r\nUpgrade: h2c\r\nUpgrade: foo, websocket, bar",
            "POST / HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 0",
        ] {
            assert_eq!(read(socket), Request::WebSocket { head: socket.len() + 4 });
        }
        let chunked = "GET / HTTP/1.1\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked";
        assert_eq!(read(chunked), Request::Chunked);
        let table = [
            ("GET / HTTP/1.1", Some(0)),
            ("POST / HTTP/1.1\r\ncontent-LENGTH:  12 ", Some(12)),
            ("POST / HTTP/1.1\r\nContent-Length: 12\r\nContent-Length: 12", Some(12)),
            ("GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c", Some(0)),
            ("GET / HTTP/1.0\r\nUpgrade: websocket", Some(0)),
            ("POST / HTTP/1.1\r\nContent-Length: 12\r\nContent-Length: 13", None),
            ("POST / HTTP/1.1\r\nContent-Length: +12", None),
            ("POST / HTTP/1.1\r\nContent-Length:", None),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999", None),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked", None),
            ("GET / HTTP/1.1\r\nUpgrade: TLS/1.0", None),
            ("GET / HTTP/1.1\r\nUpgrade: h2c, foo", None),
            ("GET / HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 3", Some(3)),
            ("GET / HTTP/1.0\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked", None),
            ("CONNECT a:1 HTTP/1.1", None),
            ("PRI * HTTP/2.0", None),
            ("\x16\x03\x01", None),
        ];
        for (head, body) in table {
            let length = head.len() + 4;
            let expected =
                body.map_or(Request::Unknown, |body| Request::Plain { head: length, body });
            assert_eq!(read(head), expected, "{head:?}");
        }
    }

    proptest! {
        #[test]
        fn a_head_is_partial_until_its_last_byte(
            names in proptest::collection::vec("[a-z]{1,9}", 0..9), length in 0u64..9999,
            behind in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let mut head = format!("POST / HTTP/1.1\r\ncontent-length: {length}\r\n");
            for name in names {
                head += &format!("x-{name}: {name}\r\n");
            }
            head += "\r\n";
            let bytes = [head.as_bytes(), &behind].concat();
            for cut in 0..head.len() {
                prop_assert_eq!(Request::read(&bytes[..cut]), Request::Partial);
            }
            let expected = Request::Plain { head: head.len(), body: length };
            prop_assert_eq!(Request::read(&bytes), expected);
        }

        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::read(&bytes);
        }
    }
}
