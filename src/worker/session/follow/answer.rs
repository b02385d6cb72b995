//! Follows the head of an answer as it is written: whether the server goes on with requests and
//! answers, and where another protocol begins.
//!
//! Never keeps the head of an answer but that of a 101, until it has ended.

use std::mem::MaybeUninit;

use httparse::{Header, Status};

use crate::worker::session::follow::negotiated::Negotiated;

const STATUS: usize = "HTTP/1.1 101".len();
/// The head of a 101 that is longer is not understood. Servers write a few hundred bytes.
const MAX_HEAD: usize = 64 * 1024;
/// As many as a request may have.
const MAX_HEADERS: usize = 100;

/// The place in the head that the bytes so far have come to.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    is_expected: bool,
    start: [u8; STATUS],
    seen: usize,
    /// Of the present line, without its end.
    line: usize,
    /// Of a 101, so far.
    head: Vec<u8>,
}

/// The outcome of a head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server has agreed to a WebSocket.
    WebSocket {
        /// How many of the bytes were of the head; frames follow.
        head: usize,
        negotiated: Negotiated,
    },
    /// The server has switched to another protocol.
    OtherProtocol,
    /// The server answers with this status, 200 or above.
    Declined(u16),
    /// This is no answer.
    Strange,
}

impl Answer {
    /// The next byte is the first of an answer.
    pub(crate) fn expect(&mut self) {
        *self = Self { is_expected: true, ..Self::default() };
    }

    /// Goes on over these bytes, until the outcome is known. After it, nothing is expected.
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> Option<Outcome> {
        if !self.is_expected {
            return None;
        }
        for (index, byte) in bytes.iter().enumerate() {
            if let Some(outcome) = self.byte(*byte, index) {
                *self = Self::default();
                return Some(outcome);
            }
        }
        None
    }

    fn byte(&mut self, byte: u8, index: usize) -> Option<Outcome> {
        let is_end = self.ends_with(byte);
        if let Some(place) = self.start.get_mut(self.seen) {
            *place = byte;
            self.seen += 1;
            if self.seen < STATUS {
                return is_end.then_some(Outcome::Strange);
            }
            self.head.clear();
        }
        match self.status() {
            Some(101) => self.switches(byte, is_end, index),
            Some(100..200) if is_end => {
                self.expect();
                None
            }
            Some(100..200) => None,
            Some(code) => Some(Outcome::Declined(code)),
            None => Some(Outcome::Strange),
        }
    }

    fn switches(&mut self, byte: u8, is_end: bool, index: usize) -> Option<Outcome> {
        if self.head.is_empty() {
            self.head.extend(self.start);
        } else {
            self.head.push(byte);
        }
        match is_end {
            true => Some(read(&self.head, index + 1)),
            false => (self.head.len() > MAX_HEAD).then_some(Outcome::Strange),
        }
    }

    /// Whether the head ends with this byte.
    fn ends_with(&mut self, byte: u8) -> bool {
        match byte {
            b'\n' => std::mem::take(&mut self.line) == 0,
            b'\r' => false,
            _ => {
                self.line += 1;
                false
            }
        }
    }

    fn status(&self) -> Option<u16> {
        let [version @ .., _, _, _] = &self.start;
        let known = version == b"HTTP/1.1 " || version == b"HTTP/1.0 ";
        let digits = known.then_some(&self.start[version.len()..])?;
        str::from_utf8(digits).ok()?.parse().ok().filter(|code| (100..1000).contains(code))
    }
}

/// A 101 says by its `Upgrade` what follows.
fn read(bytes: &[u8], head: usize) -> Outcome {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut response, bytes, &mut headers) {
        Ok(Status::Complete(length)) if length == bytes.len() => {}
        _ => return Outcome::Strange,
    }
    if is_websocket(response.headers) {
        Outcome::WebSocket { head, negotiated: Negotiated::new(response.headers) }
    } else {
        Outcome::OtherProtocol
    }
}

fn is_websocket(headers: &[Header<'_>]) -> bool {
    let mut upgrades = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("upgrade"));
    let is_one = |header: &Header<'_>| header.value.trim_ascii().eq_ignore_ascii_case(b"websocket");
    upgrades.next().is_some_and(is_one) && upgrades.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(pieces: &[&[u8]]) -> Option<Outcome> {
        let mut answer = Answer::default();
        answer.expect();
        let mut before = 0;
        for piece in pieces {
            match answer.follow(piece) {
                None => before += piece.len(),
                Some(Outcome::WebSocket { head, negotiated }) => {
                    return Some(Outcome::WebSocket { head: before + head, negotiated });
                }
                other => return other,
            }
        }
        None
    }

    #[test]
    fn finds_where_the_frames_begin_wherever_the_head_is_cut() {
        let hints = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n".as_slice();
        let switching = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\n\
                          sec-websocket-protocol: chat\r\nsec-websocket-extensions: x-a\r\n\r\n";
        let bytes = [hints, switching, b"\x81\x02\n\n"].concat();
        let head = hints.len() + switching.len();
        let negotiated = Negotiated { protocol: b"chat".to_vec(), extensions: b"x-a".to_vec() };
        for cut in 0..bytes.len() {
            let outcome = outcome(&[&bytes[..cut], &bytes[cut..]]);
            let negotiated = negotiated.clone();
            assert_eq!(outcome, Some(Outcome::WebSocket { head, negotiated }), "cut at {cut}");
        }
    }

    #[test]
    fn tells_a_refusal_from_nonsense() {
        let refused = b"HTTP/1.1 401 Unauthorized\n\nno".as_slice();
        assert_eq!(outcome(&[refused]), Some(Outcome::Declined(401)));
        for strange in
            [b"\r\n".as_slice(), b"HTTP/1.1 abc\r\n\r\n", b"HTTP/2.0 101 x\r\n\r\n", b"x\n\n"]
        {
            assert_eq!(outcome(&[strange]), Some(Outcome::Strange), "{strange:?}");
        }
        let head = b"HTTP/1.1 101 x\r\nupgrade: websocket\r\n".as_slice();
        assert_eq!(outcome(&[head]), None);
        let endless = [head, b"a: ", &vec![b'b'; MAX_HEAD]].concat();
        assert_eq!(outcome(&[&endless]), Some(Outcome::Strange));
        assert_eq!(outcome(&[head, b"\x01: a\r\n\r\n"]), Some(Outcome::Strange));
    }

    #[test]
    fn another_protocol_is_no_websocket() {
        for upgrade in ["", "upgrade: h2c\r\n", "upgrade: websocket\r\nupgrade: h2c\r\n"] {
            let head = format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}\r\n");
            assert_eq!(outcome(&[head.as_bytes()]), Some(Outcome::OtherProtocol), "{upgrade}");
        }
    }

    #[test]
    fn an_answer_that_nobody_expects_is_not_looked_at() {
        let mut answer = Answer::default();
        assert_eq!(answer.follow(b"HTTP/1.1 200 OK\r\n"), None);
        answer.expect();
        assert_eq!(answer.follow(b"HTTP/1.1 200"), Some(Outcome::Declined(200)));
        assert_eq!(answer.follow(b" OK\r\n\r\nx\r\n"), None);
    }
}
