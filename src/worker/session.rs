//! Connections that move: from a worker that is to end to the one that follows it, without their
//! clients noticing.

use crate::worker::connection::ConnectionInfo;

/// A connection as its handler sees it that may move to another worker. Cheap to clone.
///
/// With [`worker::axum`](crate::worker::axum) and [`worker::http`](crate::worker::http) it is an
/// extension of each request; with axum it is an extractor, too. A handler that serves a WebSocket
/// says [`Session::movable`], and is then moved between two messages: in this process its socket
/// ends, as if the client had gone ([`Session::has_moved`] tells), and in the other process the same
/// request is served again by the same handler, which finds in [`Session::state`] what this one
/// left.
#[derive(Clone, Debug)]
pub struct Session {
    info: ConnectionInfo,
}

impl Session {
    /// What is known of the connection.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo {
        self.info
    }

    /// What the handler in the worker before has left; nothing for a client that has just come.
    #[must_use]
    pub fn state(&self) -> Option<&[u8]> {
        None
    }

    /// This WebSocket may move. `state` makes what its next handler is to find, 16 MiB at the most;
    /// it is called when all messages that have come are handled, and may be called again if the
    /// move fails.
    pub fn movable(&self, state: impl FnMut() -> Vec<u8> + Send + 'static) {
        drop(state);
    }

    /// For a handler that has more to send before it goes, such as what others have said to it
    /// meanwhile: waits until the session is to move and all messages that have come are handled.
    /// From then on nothing is received; what it has to send it may send, and then it calls
    /// [`Session::depart`]. Not together with [`Session::movable`].
    pub async fn leaving(&self) {
        std::future::pending().await
    }

    /// Moves, with this state. Returns when this process has no part in the connection any more.
    pub async fn depart(&self, state: Vec<u8>) {
        drop(state);
    }

    /// Whether the socket ended here since it went on in another worker, or was ended by the drain,
    /// and not since its client had gone.
    #[must_use]
    pub fn has_moved(&self) -> bool {
        false
    }

    /// This handler can't go on from what the one before has left: the client is sent away with
    /// close code 1012, and comes back as a new one.
    pub fn refuse(&self) {}
}
