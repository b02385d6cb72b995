//! A worker's way with the bytes of its clients, as far as a stranger can tell, and the bytes that find it out.
//!
//! Pure.

use crate::conformance::client::End;

/// A request, up to the middle of its head.
pub const FIRST_HALF: &[u8] = b"GET / HTTP/1.1\r\nHost: local";
/// The rest of it.
pub const SECOND_HALF: &[u8] = b"host\r\nUser-Agent: sticky-lb-conformance\r\n\r\n";
/// The rest of one that is the last of its connection.
pub const LAST_HALF: &[u8] =
    b"host\r\nUser-Agent: sticky-lb-conformance\r\nConnection: close\r\n\r\n";
/// A request to change to WebSocket, with the key of RFC 6455.
const WEBSOCKET: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// A close frame of code 1000, masked by zeros, as RFC 6455 has it.
pub const CLOSE_FRAME: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];

/// The way of a worker with its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It answers requests of HTTP.
    Http,
    /// It answers nothing but WebSockets.
    WebSocket,
    /// It sends back what comes.
    Echo,
    /// It answers something else.
    Other,
    /// It reads the request and closes.
    Closes,
    /// It reads and says nothing.
    Reads,
}

impl Service {
    /// From what came in answer to a request of HTTP; none where another request may be answered.
    #[must_use]
    pub fn of_answer(received: &[u8]) -> Option<Self> {
        match received {
            b"" => None,
            _ if received.starts_with(b"HTTP/") => Some(Self::Http),
            _ if received.starts_with(b"GET / ") => Some(Self::Echo),
            _ => Some(Self::Other),
        }
    }

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "answers HTTP",
            Self::WebSocket => "answers WebSockets",
            Self::Echo => "echoes",
            Self::Other => "answers with bytes that are no HTTP",
            Self::Closes => "reads a request and closes",
            Self::Reads => "reads what comes and answers nothing",
        }
    }

    /// In words, with the first line of an answer.
    #[must_use]
    pub fn describe(self, received: &[u8]) -> String {
        let text = String::from_utf8_lossy(received);
        let line = text.lines().next().unwrap_or_default();
        let line: String = line.chars().filter(|c| !c.is_control()).take(40).collect();
        match self {
            Self::Http => format!("{}: {line}", self.name()),
            _ => self.name().to_owned(),
        }
    }

    /// The bytes that a client sends, which are answered.
    #[must_use]
    pub fn request(self) -> Vec<u8> {
        match self {
            Self::WebSocket => WEBSOCKET.to_vec(),
            _ => [FIRST_HALF, SECOND_HALF].concat(),
        }
    }

    /// The same for the last request of a connection.
    #[must_use]
    pub fn last_request(self) -> Vec<u8> {
        match self {
            Self::WebSocket => WEBSOCKET.to_vec(),
            _ => [FIRST_HALF, LAST_HALF].concat(),
        }
    }

    /// Whether a client that has seen this was served.
    #[must_use]
    pub fn is_served(self, received: &[u8], end: Option<End>) -> bool {
        match self {
            Self::Http | Self::WebSocket => is_whole_head(received),
            Self::Echo | Self::Other => !received.is_empty(),
            Self::Closes => end == Some(End::Closed),
            // All that can be seen is the acknowledgement.
            Self::Reads => true,
        }
    }
}

/// Whether the answer is WebSocket's.
#[must_use]
pub fn is_switched(received: &[u8]) -> bool {
    received.starts_with(b"HTTP/1.1 101")
}

fn is_whole_head(received: &[u8]) -> bool {
    received.starts_with(b"HTTP/") && received.windows(4).any(|four| four == b"\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_told_by_its_answer() {
        for (answer, service) in [
            (&b""[..], None),
            (b"HTTP/1.1 404 Not Found\r\n", Some(Service::Http)),
            (b"GET / HTTP/1.1\r\nHo", Some(Service::Echo)),
            (b"\x15\x03\x01", Some(Service::Other)),
        ] {
            assert_eq!(Service::of_answer(answer), service);
        }
    }

    #[test]
    fn half_an_answer_is_none() {
        for (service, received, end, expected) in [
            (Service::Http, &b"HTTP/1.1 200 OK\r\n"[..], None, false),
            (Service::Http, b"HTTP/1.1 200 OK\r\n\r\n", None, true),
            (Service::Echo, b"", None, false),
            (Service::Echo, b"G", None, true),
            (Service::Closes, b"", Some(End::Reset), false),
            (Service::Closes, b"", Some(End::Closed), true),
            (Service::Reads, b"", None, true),
        ] {
            assert_eq!(service.is_served(received, end), expected, "{service:?} {received:?}");
        }
    }

    #[test]
    fn halves_are_a_request() {
        let whole = [FIRST_HALF, SECOND_HALF].concat();
        assert!(whole.starts_with(b"GET / HTTP/1.1\r\nHost: localhost\r\n"));
        assert!(whole.ends_with(b"\r\n\r\n") && Service::Http.request() == whole);
        assert!(is_switched(b"HTTP/1.1 101 Switching Protocols\r\n") && !is_switched(&whole));
    }
}
