//! A gate as its owner holds it: asks to stop, hears when it has, takes the socket from underneath.
//!
//! Never closes anything: what is taken is its taker's.
//!
//! # The order of things
//!
//! 1. [`Handle::ask_to_stop`]: the library gets the rest of the message it is reading, no more.
//! 2. [`Handle::drained`]: it has handled what it had, has written what it wanted, and wants more.
//! 3. [`Handle::hold`]: nothing is written any more. What the app leaves to its successor is made.
//! 4. [`Handle::take`]: the library sees the end. Or [`Handle::release`], and all goes on.

use std::fmt;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::worker::connection::ConnectionGuard;
use crate::worker::session::Inner;
use crate::worker::session::checkpoint::Kept;
use crate::worker::session::state::{Phase, State};
use crate::worker::session::stream::Shared;

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Requests that are followed, or nothing yet.
    Http,
    /// Frames.
    WebSocket,
    /// The last of them: one of the two sides has begun to say goodbye.
    Closing,
    /// Something else, which can't move.
    Unknown,
    /// Nothing: it is closed, or has left.
    Ended,
}

/// What travels with a socket.
pub(crate) struct Baggage {
    /// [`Kind::Http`] or [`Kind::WebSocket`].
    pub(crate) kind: Kind,
    /// The request that became a WebSocket, with its empty line. May hold secrets.
    pub(crate) head: Vec<u8>,
    /// Read from the socket, and not by the library.
    pub(crate) unread: Vec<u8>,
}

/// A socket that nothing in this process reads or writes any more.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) stream: TcpStream,
    /// To be kept for as long as the socket is open here.
    pub(crate) guard: Option<ConnectionGuard>,
    pub(crate) baggage: Baggage,
    /// Its entry in the ledger, if it is protected.
    pub(crate) kept: Option<Box<Kept>>,
}

/// A socket that was taken whatever was going on.
#[derive(Debug)]
pub(crate) struct Seized {
    pub(crate) stream: TcpStream,
    /// To be kept for as long as the socket is open here.
    pub(crate) guard: Option<ConnectionGuard>,
    /// A WebSocket, nothing half written and no close frame sent: one may be.
    pub(crate) at_frame_boundary: bool,
    /// To be dropped when the socket is closed.
    pub(crate) kept: Option<Box<Kept>>,
}

/// Steers a [`SessionStream`](crate::worker::session::stream::SessionStream). All clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Handle {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared) }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.shared.lock().kind()
    }

    /// Its handler has said that it may move.
    pub(crate) fn note_movable(&self) {
        if let Some(guard) = &mut self.shared.lock().guard {
            guard.note_movable();
        }
    }

    /// From now on it is written down whenever it is at rest.
    pub(super) fn want_safety(&self, session: &Arc<Inner>) {
        self.shared.want_safety(session);
    }

    /// Whether there is a ledger that it could be written down in.
    pub(super) fn may_be_safe(&self) -> bool {
        self.shared.lock().guard.as_ref().is_some_and(ConnectionGuard::has_ledger)
    }

    /// The primary is told anew to keep it, if it is protected.
    pub(crate) fn keep_again(&self) {
        self.shared.keep_again();
    }

    /// Lets the library read no more than the rest of what it has begun. Asking again changes
    /// nothing.
    pub(crate) fn ask_to_stop(&self) {
        self.shared.change(|state| ((), state.stop(true)));
    }

    /// All as before.
    pub(crate) fn go_on(&self) {
        self.shared.change(|state| ((), state.stop(false)));
    }

    /// Waits until the library was asked to stop and has. For ever, if it never does: one that ends
    /// instead is seen by [`Handle::ended`].
    pub(crate) async fn drained(&self) {
        self.shared.wait(|state| state.drained).await;
    }

    /// Stops writes, too. False if the library is not at a boundary any more, since it wrote
    /// something meanwhile; [`Handle::drained`] tells when it is again.
    #[must_use]
    pub(crate) fn hold(&self) -> bool {
        self.shared.change(|state| state.hold(false))
    }

    /// As [`Handle::hold`], for a handler that was told when it was drained, has written more since,
    /// and will not read again.
    #[must_use]
    pub(crate) fn hold_departed(&self) -> bool {
        self.shared.change(|state| state.hold(true))
    }

    /// Back to before [`Handle::hold`]. Whoever has not been told to go on is drained again soon.
    pub(crate) fn release(&self) {
        self.shared.change(|state| ((), state.release()));
    }

    /// Takes the socket that is held. None if it isn't, or if the handler has tried to write
    /// meanwhile: what it had to say would be lost. It is released then, as what it left may be out
    /// of date; [`Handle::drained`] tells when to try again.
    pub(crate) fn take(&self) -> Option<Taken> {
        self.shared.change(State::take)
    }

    /// Takes the socket whatever is going on. None if there is none any more.
    pub(crate) fn seize(&self) -> Option<Seized> {
        self.shared.change(State::seize)
    }

    /// Whether the socket was taken or seized.
    #[cfg(test)]
    pub(crate) fn has_left(&self) -> bool {
        self.shared.lock().left
    }

    /// Whether the request of a session that moved here has not been answered yet.
    pub(crate) fn is_replaying(&self) -> bool {
        self.shared.lock().phase == Phase::Replay
    }

    /// Whether the request that was read again got another answer than in the worker before. The
    /// client was sent a close frame then; who [seizes](Handle::seize) the socket can let it linger.
    pub(crate) fn replay_refused(&self) -> bool {
        self.shared.lock().refused()
    }

    /// A request of this connection is being answered, until what is returned is dropped. Whoever
    /// says so of one has to say so of all.
    #[must_use]
    pub(crate) fn request_started(&self) -> InFlight {
        self.shared.lock().requests.count();
        InFlight { shared: Arc::clone(&self.shared) }
    }

    /// Waits until the library has dropped its end, the socket was taken or seized, or a replay was
    /// refused.
    pub(crate) async fn ended(&self) {
        self.shared.wait(|state| state.dropped || state.left || state.refused()).await;
    }
}

/// A request is being answered, until this is dropped.
pub struct InFlight {
    shared: Arc<Shared>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.shared.request_finished();
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").finish_non_exhaustive()
    }
}

/// Without what the client has sent, which may be secret.
impl fmt::Debug for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Baggage")
            .field("kind", &self.kind)
            .field("head", &self.head.len())
            .field("unread", &self.unread.len())
            .finish()
    }
}
