//! Follows WebSocket frames (RFC 6455, 5.2) in one direction: where messages end, and nothing else.
//!
//! Never judges: a malformed frame is followed as far as its lengths go, and is the library's to
//! refuse.

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 8;
/// Of every header.
const FIXED: u8 = 2;

/// The place in a frame that the bytes so far have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frames {
    /// Bytes of the present header; 0 before a frame and within its payload.
    seen: u8,
    /// Of the present header, how long it is and where its length ends; the mask follows.
    header: u8,
    length_end: u8,
    first: u8,
    /// The rest of the payload; while the header is read, its length as far as known.
    payload: u64,
    /// A message has begun whose last frame has not.
    fragmented: bool,
    closing: bool,
    /// A frame of a message has begun since [`Frames::take_message`].
    message: bool,
    /// Where a frame begins is not known, and never will be.
    is_lost: bool,
}

impl Frames {
    /// Of a direction in which nobody knows where the first frame begins.
    pub(crate) fn lost() -> Self {
        Self { is_lost: true, ..Self::default() }
    }

    /// Goes on over these bytes.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) {
        if self.is_lost {
            return;
        }
        loop {
            if self.seen == 0 && self.payload > 0 {
                // A payload that is longer than memory can be is longer than these bytes.
                let skipped = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= skipped as u64;
                bytes = &bytes[skipped..];
            }
            let Some((byte, rest)) = bytes.split_first() else { return };
            self.header_byte(*byte);
            bytes = rest;
        }
    }

    /// How many bytes more belong to the present message, or to what stands between its frames, for
    /// certain: none at the end of a message. If that is lost, no number is too large.
    pub(crate) fn certain(&self) -> u64 {
        match self.seen {
            _ if self.is_lost => u64::MAX,
            0 if self.payload > 0 => self.payload,
            0 if self.fragmented => FIXED.into(),
            0 => 0,
            1 => 1,
            seen => (self.header - seen).into(),
        }
    }

    /// Between two frames, where a control frame may be put.
    pub(crate) fn between_frames(&self) -> bool {
        self.seen == 0 && self.payload == 0 && !self.is_lost
    }

    /// Between two messages.
    pub(crate) fn between_messages(&self) -> bool {
        self.between_frames() && !self.fragmented
    }

    /// A close frame has begun.
    pub(crate) fn closing(&self) -> bool {
        self.closing
    }

    /// Whether a frame of a message, and not only of control, has begun since this was asked.
    pub(crate) fn take_message(&mut self) -> bool {
        std::mem::take(&mut self.message)
    }

    fn header_byte(&mut self, byte: u8) {
        match self.seen {
            0 => self.first = byte,
            1 => self.lengths(byte),
            seen if seen < self.length_end => self.payload = self.payload << 8 | u64::from(byte),
            // The mask: of no interest.
            _ => {}
        }
        self.seen += 1;
        if self.seen >= FIXED && self.seen == self.header {
            self.payload_begins();
        }
    }

    fn lengths(&mut self, byte: u8) {
        let (extended, length) = match byte & LENGTH {
            126 => (2, 0),
            127 => (8, 0),
            short => (0, short),
        };
        self.payload = length.into();
        self.length_end = FIXED + extended;
        self.header = self.length_end + if byte & MASKED == 0 { 0 } else { 4 };
    }

    fn payload_begins(&mut self) {
        self.seen = 0;
        let opcode = self.first & OPCODE;
        if opcode < CLOSE {
            self.fragmented = self.first & FINAL == 0;
            self.message = true;
        }
        self.closing |= opcode == CLOSE;
    }
}
