//! Messages about protected sessions: sessions that survive their worker.

use crate::closing::{ClientSocket, Deferred};
use crate::protocol::checkpoint::Checkpoint;
use crate::protocol::ids::ConnectionId;
use crate::protocol::message::ConnectionRecord;

/// A protected session.
#[derive(Debug)]
pub struct ProtectedSession {
    /// What travels with the connection.
    pub record: ConnectionRecord,
    /// A copy of its socket.
    pub socket: ClientSocket,
    /// The place of its entry in the worker's checkpoint.
    pub place: u64,
}

/// A message about protected sessions.
#[derive(Debug)]
pub enum ProtectionEvent {
    /// The worker's checkpoint; none if its descriptor has not arrived.
    Checkpoint(Option<Deferred<Checkpoint>>),
    /// Protect these sessions.
    Protect {
        /// Those whose sockets have arrived.
        sessions: Vec<ProtectedSession>,
        /// Those whose sockets have not: they can't be protected.
        without_socket: Vec<ConnectionId>,
    },
    /// Protect these sessions no more.
    Unprotect(Vec<ConnectionId>),
}
