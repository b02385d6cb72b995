//! The image that travels with a session's socket from one worker to the next, as bytes.
//!
//! The primary carries images and never looks into them.
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 4 | `"SLP"` and the version: 2 |
//! | 4 | 1 | 0 HTTP, 1 WebSocket |
//! | 5 | 1 | 1 if the handler has left a state, else 0 |
//! | 6 | 1 | 1 if the session is protected, else 0 |
//! | 7 | 1 | 1 if subprotocol and extensions are known, else 0 |
//! | 8 | 8 | when it left: `CLOCK_MONOTONIC` in nanoseconds |
//! | 16 | 20 | lengths of what follows, each 4, little-endian; the last one may be 0xffffffff: all that is left |
//! | 36 | | the upgrade request's head, or with HTTP 5 bytes: 1 if a request has come on it, else 0, and how many milliseconds it has waited for the next; of its answer `Sec-WebSocket-Protocol` and `Sec-WebSocket-Extensions`; bytes read from the socket and not used; the state |
//!
//! Version 1, which is read as well, lacks subprotocol and extensions, and their lengths.

use std::fmt;

use crate::protocol::ids::Timestamp;
pub(crate) use crate::worker::session::follow::negotiated::Negotiated;

/// Bytes that a handler may leave for the next.
pub const MAX_STATE_BYTES: usize = 16 * 1024 * 1024;

const MAGIC: [u8; 4] = *b"SLP\x02";
/// Of the version before.
const OLD_MAGIC: [u8; 4] = *b"SLP\x01";
/// Up to the lengths.
const HEADER: usize = 16;
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
    /// The request that became a WebSocket, with its empty line, which may hold secrets. With HTTP, how
    /// long the connection has waited.
    pub(crate) head: Vec<u8>,
    /// The answer that the client has got to it. None if the worker that left it doesn't say.
    pub(crate) negotiated: Option<Negotiated>,
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
        let ConnectionState { kind, head, negotiated, unread } = &self.connection;
        let state = self.state.as_deref().unwrap_or_default();
        let empty = Negotiated::default();
        let Negotiated { protocol, extensions } = negotiated.as_ref().unwrap_or(&empty);
        let parts = [&head[..], protocol, extensions, unread];
        let mut bytes = Vec::with_capacity(256 + parts.map(<[u8]>::len).iter().sum::<usize>());
        bytes.extend(MAGIC);
        let flags = [self.state.is_some(), self.protect, negotiated.is_some()].map(u8::from);
        bytes.push((*kind == Kind::WebSocket).into());
        bytes.extend(flags);
        bytes.extend(self.left_at.0.to_le_bytes());
        for part in parts {
            // Bounded by the stream.
            bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        bytes.extend(state_length.to_le_bytes());
        parts.iter().for_each(|part| bytes.extend(*part));
        bytes.extend(state);
        bytes
    }

    /// None if it is no image of this version or the one before.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, body) = bytes.split_first_chunk::<HEADER>()?;
        let (magic, rest) = header.split_first_chunk::<4>()?;
        let (&[kind, left_state, protect, is_known], left_at) = rest.split_first_chunk::<4>()?;
        let left_at = Timestamp(u64::from_le_bytes(left_at.try_into().ok()?));
        let [head, protocol, extensions, unread, state] = match *magic {
            MAGIC => parts::<5>(body)?,
            OLD_MAGIC => {
                let [head, unread, state] = parts::<3>(body)?;
                [head, &[], &[], unread, state]
            }
            _ => return None,
        };
        let kind = match kind {
            0 => Kind::Http,
            1 => Kind::WebSocket,
            _ => return None,
        };
        let (protocol, extensions) = (protocol.to_vec(), extensions.to_vec());
        let negotiated = (is_known == 1).then_some(Negotiated { protocol, extensions });
        let (head, unread) = (head.to_vec(), unread.to_vec());
        Some(Self {
            connection: ConnectionState { kind, head, negotiated, unread },
            state: (left_state == 1).then(|| state.to_vec()),
            left_at,
            protect: protect == 1,
        })
    }
}

/// Lengths, and then the parts that have them, of which the last one may go to the end.
fn parts<const N: usize>(bytes: &[u8]) -> Option<[&[u8]; N]> {
    let (lengths, mut body) = bytes.split_at_checked(4 * N)?;
    let mut parts = [&[][..]; N];
    for (index, (part, length)) in parts.iter_mut().zip(lengths.as_chunks::<4>().0).enumerate() {
        let length = u32::from_le_bytes(*length);
        let is_open = index + 1 == N && length == OPEN;
        let length = if is_open { body.len() } else { usize::try_from(length).ok()? };
        (*part, body) = body.split_at_checked(length)?;
    }
    body.is_empty().then_some(parts)
}

/// Without what the client has sent, which may be secret.
impl fmt::Debug for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionState")
            .field("kind", &self.kind)
            .field("head", &self.head.len())
            .field("negotiated", &self.negotiated)
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

    /// As the version before encoded it.
    fn old(kind: u8, head: &[u8], unread: &[u8], state: &[u8]) -> Vec<u8> {
        let lengths = [head, unread, state].map(|part| u32::try_from(part.len()).unwrap());
        let mut bytes = [&OLD_MAGIC[..], &[kind, 1, 0, 0], &7u64.to_le_bytes()].concat();
        bytes.extend(lengths.iter().flat_map(|length| length.to_le_bytes()));
        [&bytes[..], head, unread, state].concat()
    }

    proptest! {
        #[test]
        fn an_image_is_what_was_encoded(
            (head, unread, state) in (bytes(300), bytes(300), prop::option::of(bytes(300))),
            negotiated in prop::option::of((bytes(20), bytes(90))),
            (websocket, left_at, protect) in any::<(bool, u64, bool)>(),
        ) {
            let kind = if websocket { Kind::WebSocket } else { Kind::Http };
            let negotiated =
                negotiated.map(|(protocol, extensions)| Negotiated { protocol, extensions });
            let (known, unread_copy) = (negotiated.clone(), unread.clone());
            let connection =
                ConnectionState { kind, head: head.clone(), negotiated, unread: unread_copy };
            let left_at = Timestamp(left_at);
            let encoded = SessionImage { connection, state: state.clone(), left_at, protect };
            let image = encoded.encode();
            let got = SessionImage::decode(&image).unwrap();
            prop_assert_eq!(got.connection.kind, kind);
            prop_assert_eq!((got.connection.head, got.connection.unread), (head, unread));
            prop_assert_eq!(got.connection.negotiated, known);
            prop_assert_eq!((got.state, got.left_at), (state, left_at));
            prop_assert_eq!(got.protect, protect);
            for end in 0..image.len() {
                prop_assert!(SessionImage::decode(&image[..end]).is_none());
            }
        }

        #[test]
        fn an_image_of_the_version_before_is_read(
            (head, unread, state) in (bytes(300), bytes(300), bytes(300)),
        ) {
            let image = old(1, &head, &unread, &state);
            let got = SessionImage::decode(&image).unwrap();
            prop_assert_eq!((got.connection.kind, got.connection.negotiated), (Kind::WebSocket, None));
            prop_assert_eq!((got.connection.head, got.connection.unread), (head, unread));
            prop_assert_eq!((got.state, got.left_at), (Some(state), Timestamp(7)));
            for end in 0..image.len() {
                prop_assert!(SessionImage::decode(&image[..end]).is_none());
            }
        }

        #[test]
        fn bytes_behind_an_open_one_are_its_state(head in bytes(300), state in bytes(300)) {
            let (kind, negotiated) = (Kind::WebSocket, Some(Negotiated::default()));
            let connection = ConnectionState { kind, head: head.clone(), negotiated, unread: Vec::new() };
            let (left_at, empty) = (Timestamp(7), Some(Vec::new()));
            let open = SessionImage { connection, state: empty, left_at, protect: true }.encode_open();
            let got = SessionImage::decode(&[&open[..], &state].concat()).unwrap();
            prop_assert_eq!((got.connection.head, got.state), (head, Some(state)));
        }

        #[test]
        fn no_bytes_panic(image in bytes(100)) {
            let _ = SessionImage::decode(&image);
            for magic in [MAGIC, OLD_MAGIC] {
                let _ = SessionImage::decode(&[&magic[..], &image].concat());
            }
        }
    }
}
