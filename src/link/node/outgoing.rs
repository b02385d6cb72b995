//! Lines that wait to be sent to a Node worker.
//!
//! Pure: what goes next, and what is left after so many bytes have gone. No byte is copied or moved on the way.
//!
//! # Promises
//!
//! * A line that has begun is finished before anything else.
//! * Lines of Node's own kind go first: connections wait for them, and for no message of a program but one that
//!   has begun.
//! * What waits is bounded, each kind for itself: further lines are refused.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

/// The limit in bytes of what waits, for each kind.
pub(super) const MAX_WAITING: usize = 32 << 20;

/// Lines that are sent by one call.
const MAX_SLICES: usize = 16;

/// Lines of one kind.
#[derive(Debug, Default)]
struct Lane {
    lines: VecDeque<Arc<[u8]>>,
    bytes: usize,
}

impl Lane {
    fn push(&mut self, line: Arc<[u8]>) -> bool {
        let fits = self.bytes + line.len() <= MAX_WAITING;
        if fits {
            self.bytes += line.len();
            self.lines.push_back(line);
        }
        fits
    }

    fn pop(&mut self) -> Option<Arc<[u8]>> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.len();
        Some(line)
    }
}

/// All lines that wait.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Of Node's own kind, and what has to be sent again.
    own: Lane,
    /// Messages to the program.
    told: Lane,
    /// So much has gone of the first line of its kind.
    sent: usize,
    /// That line is a message to the program.
    is_told_begun: bool,
    /// The first line of Node's own kind may be the rest of one.
    is_rest: bool,
}

impl Outgoing {
    /// Adds a line of Node's own kind, with its end; false if too much waits already.
    pub(super) fn push(&mut self, line: Arc<[u8]>) -> bool {
        self.own.push(line)
    }

    /// Adds a message to the program, with its end; false if too much waits already.
    pub(super) fn tell(&mut self, line: &Arc<[u8]>) -> bool {
        self.told.push(Arc::clone(line))
    }

    /// Adds bytes that go before everything else: what the worker had not received. They may end in the middle
    /// of a line whose rest waits here.
    pub(super) fn push_front(&mut self, mut bytes: Vec<u8>) {
        bytes.extend(self.take_rest());
        if !bytes.is_empty() {
            self.is_rest = true;
            self.own.bytes += bytes.len();
            self.own.lines.push_front(bytes.into());
        }
    }

    /// The rest of the line that has begun.
    fn take_rest(&mut self) -> Vec<u8> {
        let sent = std::mem::take(&mut self.sent);
        if sent == 0 {
            return Vec::new();
        }
        let lane = if self.is_told_begun { &mut self.told } else { &mut self.own };
        lane.pop().map_or_else(Vec::new, |line| line[sent..].to_vec())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.own.lines.is_empty() && self.told.lines.is_empty()
    }

    /// Whether a line with a descriptor has to wait.
    pub(super) fn goes_first(&self) -> bool {
        self.sent > 0 || self.has_own()
    }

    /// Whether a part of a line may have gone whose rest waits.
    pub(super) fn has_begun(&self) -> bool {
        self.sent > 0 || self.is_rest
    }

    /// Whether lines of Node's own kind wait.
    pub(super) fn has_own(&self) -> bool {
        !self.own.lines.is_empty()
    }

    /// The bytes that go next.
    pub(super) fn next(&self) -> Vec<IoSlice<'_>> {
        let (lane, most) = match (self.sent > 0 && self.is_told_begun, self.has_own()) {
            (true, _) => (&self.told, 1),
            (false, true) => (&self.own, MAX_SLICES),
            (false, false) => (&self.told, MAX_SLICES),
        };
        let lines = lane.lines.iter().take(most).enumerate();
        lines
            .map(|(number, line)| IoSlice::new(&line[if number == 0 { self.sent } else { 0 }..]))
            .collect()
    }

    /// So many of those bytes have gone.
    pub(super) fn gone(&mut self, mut bytes: usize) {
        if self.sent == 0 {
            self.is_told_begun = !self.has_own();
        }
        let lane = if self.is_told_begun { &mut self.told } else { &mut self.own };
        bytes += self.sent;
        while let Some(first) = lane.lines.front().filter(|first| first.len() <= bytes) {
            bytes -= first.len();
            lane.pop();
            self.is_rest &= self.is_told_begun;
        }
        self.sent = bytes;
    }

    /// Everything, in the order in which it goes.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        let mut bytes = self.take_rest();
        for line in self.own.lines.iter().chain(&self.told.lines) {
            bytes.extend_from_slice(line);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Arc<[u8]> {
        text.as_bytes().into()
    }

    /// Sends at most so many bytes by each call, until nothing is left.
    fn all(mut outgoing: Outgoing, most: usize) -> String {
        let mut sent = Vec::new();
        while !outgoing.is_empty() {
            let next: Vec<u8> = outgoing.next().iter().flat_map(|it| it.to_vec()).collect();
            let count = next.len().min(most);
            sent.extend_from_slice(&next[..count]);
            outgoing.gone(count);
        }
        String::from_utf8(sent).unwrap()
    }

    #[test]
    fn a_line_that_has_begun_is_finished_before_those_that_go_first() {
        for most in 1..20 {
            let mut outgoing = Outgoing::default();
            outgoing.tell(&line("told1\n"));
            outgoing.tell(&line("told2\n"));
            outgoing.gone(2);
            assert!(outgoing.goes_first(), "the message has begun");
            outgoing.push(line("own1\n"));
            outgoing.push(line("own2\n"));
            assert_eq!(all(outgoing, most), "ld1\nown1\nown2\ntold2\n", "{most}");
        }
    }

    #[test]
    fn connections_wait_for_no_message_that_has_not_begun() {
        let mut outgoing = Outgoing::default();
        outgoing.tell(&line("told\n"));
        assert!(!outgoing.goes_first());
        outgoing.push(line("own\n"));
        assert!(outgoing.goes_first());
        outgoing.gone(4);
        assert!(!outgoing.goes_first() && !outgoing.has_begun());
        assert_eq!(all(outgoing, 3), "told\n");
    }

    #[test]
    fn what_was_not_received_goes_before_the_rest_of_its_line() {
        for most in 1..20 {
            let mut outgoing = Outgoing::default();
            outgoing.tell(&line("told1\n"));
            outgoing.gone(3);
            outgoing.push(line("own\n"));
            // The worker had received one byte.
            outgoing.push_front(b"ol".to_vec());
            assert!(outgoing.has_begun(), "by what the worker has received");
            assert_eq!(all(outgoing, most), "old1\nown\n", "{most}");
        }
    }

    #[test]
    fn a_successor_gets_everything_in_order() {
        let mut outgoing = Outgoing::default();
        outgoing.tell(&line("told1\n"));
        outgoing.tell(&line("told2\n"));
        outgoing.gone(4);
        outgoing.push(line("own\n"));
        assert_eq!(outgoing.into_bytes(), b"1\nown\ntold2\n");
    }

    #[test]
    fn what_waits_is_bounded_for_each_kind() {
        let mut outgoing = Outgoing::default();
        let half: Arc<[u8]> = vec![0; MAX_WAITING / 2].into();
        assert!(outgoing.tell(&half) && outgoing.tell(&half) && !outgoing.tell(&line("x")));
        assert!(outgoing.push(line("own\n")), "a program's messages leave room for Node's own");
        outgoing.gone(4);
        outgoing.gone(MAX_WAITING / 2);
        assert!(outgoing.tell(&line("x")), "room again");
    }
}
