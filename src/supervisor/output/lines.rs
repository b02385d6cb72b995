//! Turns the bytes that a worker writes into lines: complete lines are passed on together, an
//! incomplete one waits, a very long one is cut.
//!
//! Pure, and never looks at what a line says.

use crate::handover::carry;
use crate::handover::output::StreamSnapshot;
use crate::link::seam::WorkerId;
use crate::protocol::ids::{Generation, SlotId};
use jiff::Timestamp;

/// A longer line is cut into pieces of at most so many bytes.
pub(super) const LONGEST: usize = 64 * 1024;

/// Memory that a chunk takes beside its bytes, so that many short ones count as well.
pub(super) const OVERHEAD: usize = 128;

/// One of a worker's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

carry!(enum Stream => StreamSnapshot { Out, Err });

/// The writer of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) worker: WorkerId,
    pub(super) pid: i32,
    pub(super) stream: Stream,
}

/// Whole lines that were read together, each with its end.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) origin: Origin,
    pub(super) time: Timestamp,
    pub(super) text: Text,
}

/// Bytes of a chunk in memory for a successor, beside those of its lines.
const RECORD_HEADER: usize = 2 + 4 + 4 + 1 + 8;

impl Chunk {
    /// As bytes, for a successor: slot, generation, process, stream and whether it is partial, microseconds since
    /// 1970, lines.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Origin { worker, pid, stream } = self.origin;
        let flags = u8::from(stream == Stream::Err) | u8::from(self.text.partial) << 1;
        let mut record = Vec::with_capacity(RECORD_HEADER + self.text.bytes.len());
        record.extend_from_slice(&worker.slot.0.to_le_bytes());
        record.extend_from_slice(&worker.generation.0.to_le_bytes());
        record.extend_from_slice(&pid.to_le_bytes());
        record.push(flags);
        record.extend_from_slice(&self.time.as_microsecond().to_le_bytes());
        record.extend_from_slice(&self.text.bytes);
        record
    }

    /// Of such bytes; `None` if they are none.
    pub(super) fn decode(record: &[u8]) -> Option<Self> {
        let (slot, rest) = record.split_first_chunk()?;
        let (generation, rest) = rest.split_first_chunk()?;
        let (pid, rest) = rest.split_first_chunk()?;
        let (&[flags], rest) = rest.split_first_chunk()?;
        let (time, bytes) = rest.split_first_chunk()?;
        let slot = SlotId(u16::from_le_bytes(*slot));
        let worker = WorkerId { slot, generation: Generation(u32::from_le_bytes(*generation)) };
        let stream = if flags & 1 == 0 { Stream::Out } else { Stream::Err };
        let time = Timestamp::from_microsecond(i64::from_le_bytes(*time)).ok()?;
        // A reader of lines counts on their ends.
        let is_whole = bytes.last().is_none_or(|last| *last == b'\n');
        is_whole.then(|| Self {
            origin: Origin { worker, pid: i32::from_le_bytes(*pid), stream },
            time,
            text: Text { bytes: bytes.to_vec(), partial: flags & 2 != 0 },
        })
    }

    /// The memory that it takes, about.
    pub(super) fn size(&self) -> usize {
        self.text.bytes.capacity() + OVERHEAD
    }
}

/// The lines themselves.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    /// This is one piece of a line that goes on in the next.
    pub(super) partial: bool,
}

impl Text {
    /// Each line without its end.
    pub(super) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split_inclusive(|byte| *byte == b'\n').map(|line| &line[..line.len() - 1])
    }

    /// How many lines.
    pub(super) fn count(&self) -> u64 {
        count(&self.bytes)
    }
}

/// How many lines end in `bytes`.
pub(super) fn count(bytes: &[u8]) -> u64 {
    // So few at once that they fit a byte: many are compared by one instruction.
    let few = |bytes: &[u8]| bytes.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>();
    bytes.chunks(usize::from(u8::MAX)).map(|bytes| u64::from(few(bytes))).sum()
}

/// Makes lines of one stream.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The begun line; never holds an end of line, and never more than [`LONGEST`].
    begun: Vec<u8>,
}

impl Lines {
    /// Goes on with a line that was begun elsewhere.
    pub(super) fn begun(begun: Vec<u8>) -> Self {
        Self { begun }
    }

    /// The line that was begun, to be gone on with elsewhere.
    pub(super) fn into_begun(self) -> Vec<u8> {
        self.begun
    }

    /// Takes what was read, [`LONGEST`] bytes at most, and passes on what is whole.
    pub(super) fn feed(&mut self, data: &[u8], mut emit: impl FnMut(Text)) {
        debug_assert!(data.len() <= LONGEST, "only the first line can be too long");
        let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
        let mut first = self.begun.len() + end;
        self.begun.extend_from_slice(data);
        while first > LONGEST {
            let cut = character_end(&self.begun, LONGEST);
            let mut piece: Vec<u8> = self.begun.drain(..cut).collect();
            piece.push(b'\n');
            emit(Text { bytes: piece, partial: true });
            first -= cut;
        }
        if let Some(last) = self.begun.iter().rposition(|byte| *byte == b'\n') {
            let rest = self.begun.split_off(last + 1);
            let whole = std::mem::replace(&mut self.begun, rest);
            emit(Text { bytes: trim_returns(whole), partial: false });
        }
    }

    /// Passes on what was begun: nothing more comes.
    pub(super) fn end(&mut self, mut emit: impl FnMut(Text)) {
        if !self.begun.is_empty() {
            self.begun.push(b'\n');
            let bytes = trim_returns(std::mem::take(&mut self.begun));
            emit(Text { bytes, partial: false });
        }
    }
}

/// The last end of a UTF-8 character up to `at`; `at` itself if there is none near.
fn character_end(bytes: &[u8], at: usize) -> usize {
    let continues = |index: usize| bytes.get(index).is_some_and(|byte| byte & 0xC0 == 0x80);
    (at - 3..=at).rev().find(|index| !continues(*index)).unwrap_or(at)
}

/// `\r\n` becomes `\n`; any other `\r` is the worker's own affair.
fn trim_returns(bytes: Vec<u8>) -> Vec<u8> {
    if !bytes.contains(&b'\r') {
        return bytes;
    }
    let next = bytes[1..].iter().copied().chain([0]);
    let pairs = bytes.iter().copied().zip(next);
    pairs.filter(|pair| *pair != (b'\r', b'\n')).map(|(byte, _)| byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(reads: &[&[u8]]) -> Vec<Text> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for read in reads {
            lines.feed(read, |text| found.push(text));
        }
        lines.end(|text| found.push(text));
        found
    }

    fn whole(bytes: &[u8]) -> Text {
        Text { bytes: bytes.to_vec(), partial: false }
    }

    #[test]
    fn whole_lines_pass_together_and_a_begun_one_waits() {
        let found = split(&[b"one\ntwo\nth", b"r", b"ee\n", b"\n", b"last"]);
        let expected: [&[u8]; 4] = [b"one\ntwo\n", b"three\n", b"\n", b"last\n"];
        assert_eq!(found, expected.map(whole));
        assert_eq!(found[0].lines().collect::<Vec<_>>(), [b"one", b"two"]);
        assert_eq!(found[0].count(), 2);
    }

    #[test]
    fn returns_go_where_they_end_a_line() {
        let found = split(&[b"a\r\nb\r", b"\nc\rd\r\r\n", b"\r\n"]);
        let expected: [&[u8]; 3] = [b"a\n", b"b\nc\rd\r\n", b"\n"];
        assert_eq!(found, expected.map(whole));
    }

    #[test]
    fn long_lines_are_cut_and_lose_nothing() {
        let long: Vec<u8> = (0..300_000_u32).map(|n| b'a' + (n % 26) as u8).collect();
        let input = [b"short\n", &long[..], b"\nshort\n"].concat();
        for step in [1_000, 4_096, 65_535, LONGEST] {
            let found = split(&input.chunks(step).collect::<Vec<_>>());
            let cut: Vec<_> = found.iter().filter(|text| text.partial).collect();
            assert_eq!(cut.len(), 300_000 / LONGEST, "{step}");
            let bytes = |text: &Text| match text.partial {
                true => text.bytes[..text.bytes.len() - 1].to_vec(),
                false => text.bytes.clone(),
            };
            assert!(found.iter().all(|text| !text.partial || text.count() == 1));
            assert_eq!(found.iter().flat_map(bytes).collect::<Vec<_>>(), input, "{step}");
        }
    }

    #[test]
    fn a_line_of_the_longest_length_is_not_cut() {
        let line = [vec![b'x'; LONGEST], b"\n".to_vec()].concat();
        assert_eq!(split(&line.chunks(1_000).collect::<Vec<_>>()), [whole(&line)]);
    }

    #[test]
    fn characters_are_not_cut() {
        let text = "x".to_owned() + &"€".repeat(LONGEST);
        for piece in split(&text.as_bytes().chunks(10_000).collect::<Vec<_>>()) {
            assert!(std::str::from_utf8(&piece.bytes).is_ok());
        }
        // Invalid UTF-8 is cut anywhere.
        assert_eq!(split(&[&[0x80; 10_000][..]; 7])[0].bytes.len(), LONGEST + 1);
    }
}
