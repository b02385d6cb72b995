//! Follows the head of the answer to a request to upgrade, as it is written: whether the server
//! agreed, and where frames begin.
//!
//! Never keeps what it has seen but for the status.

const STATUS: usize = "HTTP/1.1 101".len();

/// The place in the head that the bytes so far have come to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answer {
    start: [u8; STATUS],
    seen: usize,
    /// Of the present line, without its end.
    line: usize,
}

/// The outcome of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The head ended within these bytes.
    Status {
        /// 101, or what the server says instead. Others below 200 are passed over.
        code: u16,
        /// How many of the bytes were of the head.
        head: usize,
    },
    /// This is no answer.
    Strange,
}

impl Answer {
    /// Goes on over these bytes, to the end of the head if it is among them.
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> Option<Outcome> {
        for (index, byte) in bytes.iter().enumerate() {
            if !self.byte(*byte) {
                continue;
            }
            let Some(code) = self.status() else { return Some(Outcome::Strange) };
            *self = Self::default();
            if code == 101 || code >= 200 {
                return Some(Outcome::Status { code, head: index + 1 });
            }
        }
        None
    }

    /// Whether the head ends with this byte.
    fn byte(&mut self, byte: u8) -> bool {
        if let Some(place) = self.start.get_mut(self.seen) {
            *place = byte;
        }
        self.seen += 1;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(pieces: &[&[u8]]) -> (Option<Outcome>, usize) {
        let mut answer = Answer::default();
        let mut before = 0;
        for piece in pieces {
            match answer.follow(piece) {
                None => before += piece.len(),
                Some(Outcome::Status { code, head }) => {
                    return (Some(Outcome::Status { code, head: before + head }), 0);
                }
                Some(Outcome::Strange) => return (Some(Outcome::Strange), 0),
            }
        }
        (None, before)
    }

    #[test]
    fn finds_where_the_frames_begin_wherever_the_head_is_cut() {
        let hints = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n".as_slice();
        let switching = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n";
        let bytes = [hints, switching, b"\x81\x02\n\n"].concat();
        let head = hints.len() + switching.len();
        for cut in 0..bytes.len() {
            let (outcome, _) = outcome(&[&bytes[..cut], &bytes[cut..]]);
            assert_eq!(outcome, Some(Outcome::Status { code: 101, head }), "cut at {cut}");
        }
    }

    #[test]
    fn tells_a_refusal_from_nonsense() {
        let refused = b"HTTP/1.1 401 Unauthorized\n\nno".as_slice();
        assert_eq!(outcome(&[refused]).0, Some(Outcome::Status { code: 401, head: 27 }));
        for strange in
            [b"\r\n".as_slice(), b"HTTP/1.1 abc\r\n\r\n", b"HTTP/2.0 101 x\r\n\r\n", b"x\n\n"]
        {
            assert_eq!(outcome(&[strange]).0, Some(Outcome::Strange), "{strange:?}");
        }
        assert_eq!(outcome(&[b"HTTP/1.1 101 x\r\n"]).0, None);
    }
}
