//! The image that travels with a session's socket from one worker to the next, as bytes.
//!
//! The primary carries images and never looks into them.
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 4 | `"SLP"` and the version: 1 |
//! | 4 | 1 | 0 HTTP, 1 WebSocket |
//! | 5 | 1 | 1 if the handler has left a state, else 0 |
//! | 6 | 1 | 1 if the session is protected, else 0 |
//! | 7 | 1 | zero |
//! | 8 | 8 | when it left: `CLOCK_MONOTONIC` in nanoseconds |
//! | 16 | 12 | lengths of head, unread bytes and state, each 4, little-endian; the last one may be 0xffffffff: all that is left |
//! | 28 | | the upgrade request's head; bytes read from the socket and not used; the state |

use std::fmt;

use crate::protocol::ids::Timestamp;

/// Bytes that a handler may leave for the next.
pub const MAX_STATE_BYTES: usize = 16 * 1024 * 1024;

const MAGIC: [u8; 4] = *b"SLP\x01";
const HEADER: usize = 28;
/// The length of a state that goes to the end.
const OPEN: u32 = u32::MAX;

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Requests that are followed, or nothing yet.
    Http,
    /// Frames.
    WebSocket,
    /// The last frames: one of the two sides has begun to close.
    Closing,
    /// Anything else. It can't migrate.
    Unknown,
    /// Nothing: it is closed, or has left.
    Ended,
}

/// The state of a connection that travels with its socket.
pub(crate) struct ConnectionState {
    /// [`Kind::Http`] or [`Kind::WebSocket`].
    pub(crate) kind: Kind,
    /// The request that became a WebSocket, with its empty line. May hold secrets.
    pub(crate) head: Vec<u8>,
    /// Read from the socket, but not by the library.
    pub(crate) unread: Vec<u8>,
}

/// Everything that travels with a session's socket.
#[derive(Debug)]
pub(crate) struct SessionImage {
    pub(crate) connection: ConnectionState,
    /// The handler's state, if it has declared that it can migrate.
    pub(crate) state: Option<Vec<u8>>,
    pub(crate) left_at: Timestamp,
    /// Its next worker protects it at once.
    pub(crate) protect: bool,
}

impl SessionImage {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let length = self.state.as_ref().map_or(0, Vec::len);
        // A state is bounded by migration.
        self.encode_with(u32::try_from(length).unwrap_or(OPEN))
    }

    /// An image that any state may be appended to.
    pub(crate) fn encode_open(&self) -> Vec<u8> {
        self.encode_with(OPEN)
    }

    fn encode_with(&self, state_length: u32) -> Vec<u8> {
        let ConnectionState { kind, head, unread } = &self.connection;
        let state = self.state.as_deref().unwrap_or_default();
        let mut bytes = Vec::with_capacity(HEADER + head.len() + unread.len() + state.len());
        bytes.extend(MAGIC);
        let websocket = u8::from(*kind == Kind::WebSocket);
        bytes.extend([websocket, self.state.is_some().into(), self.protect.into(), 0]);
        bytes.extend(self.left_at.0.to_le_bytes());
        for part in [&head[..], unread] {
            // Bounded by the stream.
            bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        bytes.extend(state_length.to_le_bytes());
        for part in [&head[..], unread, state] {
            bytes.extend(part);
        }
        bytes
    }

    /// None if it is no image of this version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, body) = bytes.split_first_chunk::<HEADER>()?;
        let (magic, rest) = header.split_first_chunk::<4>()?;
        let (&[kind, left_state, protect, _], rest) = rest.split_first_chunk::<4>()?;
        let (left_at, lengths) = rest.split_first_chunk::<8>()?;
        let (lengths, _) = lengths.as_chunks::<4>();
        let &[head, unread, state] = lengths else { return None };
        let (head, body) = body.split_at_checked(length(head)?)?;
        let (unread, body) = body.split_at_checked(length(unread)?)?;
        let is_open = u32::from_le_bytes(state) == OPEN;
        if *magic != MAGIC || kind > 1 || !is_open && body.len() != length(state)? {
            return None;
        }
        let kind = if kind == 1 { Kind::WebSocket } else { Kind::Http };
        Some(Self {
            connection: ConnectionState { kind, head: head.to_vec(), unread: unread.to_vec() },
            state: (left_state == 1).then(|| body.to_vec()),
            left_at: Timestamp(u64::from_le_bytes(*left_at)),
            protect: protect == 1,
        })
    }
}

fn length(bytes: [u8; 4]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

/// Without what the client has sent, which may be secret.
impl fmt::Debug for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionState")
            .field("kind", &self.kind)
            .field("head", &self.head.len())
            .field("unread", &self.unread.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..most)
    }

    proptest! {
        #[test]
        fn an_image_is_what_was_encoded(
            (head, unread, state) in (bytes(300), bytes(300), prop::option::of(bytes(300))),
            (websocket, left_at, protect) in any::<(bool, u64, bool)>(),
        ) {
            let kind = if websocket { Kind::WebSocket } else { Kind::Http };
            let connection = ConnectionState { kind, head: head.clone(), unread: unread.clone() };
            let left_at = Timestamp(left_at);
            let encoded = SessionImage { connection, state: state.clone(), left_at, protect };
            let image = encoded.encode();
            let got = SessionImage::decode(&image).unwrap();
            prop_assert_eq!(got.connection.kind, kind);
            prop_assert_eq!((got.connection.head, got.connection.unread), (head, unread));
            prop_assert_eq!((got.state, got.left_at), (state, left_at));
            prop_assert_eq!(got.protect, protect);
            for end in 0..image.len() {
                prop_assert!(SessionImage::decode(&image[..end]).is_none());
            }
        }

        #[test]
        fn bytes_behind_an_open_one_are_its_state(head in bytes(300), state in bytes(300)) {
            let connection = ConnectionState { kind: Kind::WebSocket, head: head.clone(), unread: Vec::new() };
            let (left_at, empty) = (Timestamp(7), Some(Vec::new()));
            let open = SessionImage { connection, state: empty, left_at, protect: true }.encode_open();
            let got = SessionImage::decode(&[&open[..], &state].concat()).unwrap();
            prop_assert_eq!((got.connection.head, got.state), (head, Some(state)));
        }

        #[test]
        fn no_bytes_panic(image in bytes(100)) {
            let _ = SessionImage::decode(&image);
            let _ = SessionImage::decode(&[&MAGIC[..], &image].concat());
        }
    }
}
