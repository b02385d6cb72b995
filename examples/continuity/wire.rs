//! What client and worker say to each other: each message is a line of JSON.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What a client says: its numbers count from zero, without a gap.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Said<'a> {
    pub(crate) number: u64,
    /// Comes back in the answer; makes messages as long as they are to be.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) padding: Cow<'a, str>,
}

/// What a worker says.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Told<'a> {
    /// To each number, in order.
    Answer {
        number: u64,
        /// How many pushes were sent before.
        pushed: u64,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        padding: Cow<'a, str>,
    },
    /// By itself, counted from zero as well.
    Push { number: u64 },
    /// The first worker of a connection greets.
    Hello(Place),
    /// Another worker goes on with it.
    Resumed(Place),
    /// The client's numbers came as they must not.
    Breach { expected: u64, number: u64 },
}

/// Who serves.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Place {
    pub(crate) pid: u32,
    pub(crate) slot: u16,
    pub(crate) generation: u32,
    /// How often the connection has moved so far.
    pub(crate) moves: u32,
}

/// What a worker leaves to the one that goes on with a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The client's next number.
    pub(crate) expected: u64,
    /// The number of the next push. It counts on when that push is sent, not before: one that could
    /// not be sent because the socket has moved is sent by the next worker.
    pub(crate) pushed: u64,
    pub(crate) moves: u32,
}

/// The first byte of a state. One that begins otherwise is of a program that counts differently.
const VERSION: u8 = 1;

impl Progress {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.expected.to_le_bytes());
        bytes.extend(self.pushed.to_le_bytes());
        bytes.extend(self.moves.to_le_bytes());
        bytes
    }

    /// After one more move. Nothing if the state is of another version.
    pub(crate) fn resume(state: &[u8]) -> Option<Self> {
        let left = Self::decode(state)?;
        Some(Self { moves: left.moves.saturating_add(1), ..left })
    }

    fn decode(state: &[u8]) -> Option<Self> {
        let (&VERSION, bytes) = state.split_first()? else { return None };
        let (expected, bytes) = bytes.split_first_chunk()?;
        let (pushed, bytes) = bytes.split_first_chunk()?;
        Some(Self {
            expected: u64::from_le_bytes(*expected),
            pushed: u64::from_le_bytes(*pushed),
            moves: u32::from_le_bytes(bytes.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let progress = Progress { expected: 7, pushed: u64::MAX, moves: 3 };
        assert_eq!(Progress::decode(&progress.encode()), Some(progress));
    }

    #[test]
    fn a_state_of_another_version_or_length_is_refused() {
        let state = Progress::default().encode();
        assert_eq!(Progress::decode(&[&[VERSION + 1], &state[1..]].concat()), None);
        assert_eq!(Progress::decode(&state[..state.len() - 1]), None);
        assert_eq!(Progress::decode(&[&state[..], &[0]].concat()), None);
        assert_eq!(Progress::decode(&[]), None);
    }
}
