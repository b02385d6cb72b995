//! Errors of a link: breaches of its protocol, and failures of the kernel.

use rustix::io::Errno;

use crate::protocol::ids::ConnectionId;
use crate::protocol::message::{MAX_SESSIONS, MAX_TO_PRIMARY, MessageError};
use crate::protocol::scm_rights::Sent;

/// A breach of the protocol by a worker, or a failure of the kernel. The link is at its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The bytes are no message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A message is longer than any kind.
    #[error("message is longer than {MAX_TO_PRIMARY} bytes")]
    Long,
    /// A line is longer than this many bytes.
    #[error("line is longer than {0} bytes")]
    LongLine(usize),
    /// A message with unexpected descriptors.
    #[error("message carries descriptors, expected none")]
    Descriptors,
    /// Something before the hello, or another one.
    #[error("hello is not the first message, or came again")]
    NoHello,
    /// An answer to a ping that was not sent.
    #[error("pong without a ping")]
    NoPing,
    /// An answer for a connection that it doesn't hold.
    #[error("refusal of connection {}, which is not waiting for an answer", .0.0)]
    UnknownConnection(ConnectionId),
    /// An offer that is no session.
    #[error("session {} carries {}, which it may not", .0.0, .1)]
    Session(ConnectionId, &'static str),
    /// A session of a connection that the primary never had.
    #[error("session {} is of no connection that was accepted", .0.0)]
    UnknownSession(ConnectionId),
    /// More sessions at a time than it may offer.
    #[error("more than {MAX_SESSIONS} sessions are under way")]
    TooManySessions,
    /// A message about sessions from a worker that didn't say in time that it migrates them, or said it twice.
    #[error("message is for workers that migrate sessions, which is said once, before ready")]
    NoSessions,
    /// A session list that was not requested.
    #[error("session list that was not requested")]
    NoListRequest,
    /// A part of a resynchronisation that was not requested.
    #[error("resynchronisation that was not requested")]
    NoResync,
    /// A checkpoint that could shrink, or none.
    #[error("checkpoint is not memory that is sealed against shrinking")]
    NoCheckpoint,
    /// It completed more than it was sent, or counts a refusal that it doesn't send.
    #[error(
        "scoreboard counts {completed} connections completed and {refused} refused, which were not"
    )]
    Scoreboard {
        /// By its count.
        completed: u64,
        /// By its count.
        refused: u64,
    },
    /// The worker ended the channel.
    #[error("channel was closed by the worker")]
    Closed,
    /// The kernel failed.
    #[error("channel failed")]
    Io(#[source] std::io::Error),
}

impl From<Errno> for ChannelError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Whether a message was queued; not if there is no room.
///
/// # Errors
///
/// If the worker has closed its end.
pub fn was_queued(sent: Sent) -> Result<bool, ChannelError> {
    match sent {
        Sent::Queued => Ok(true),
        Sent::Full => Ok(false),
        Sent::Closed => Err(ChannelError::Closed),
    }
}
