//! Connections that move: from a worker that is to end to the one that follows it, without their
//! clients noticing.
//!
//! # How
//!
//! Between socket and library sits a [`SessionStream`], which follows what passes: HTTP heads, the answer
//! `101`, then frame by frame. When the worker is to drain, the gate lets the library read no further
//! than the end of a message. Asked for more there, it knows that library and handler are done with
//! all that came. Then the socket is taken from underneath, and goes with the bytes that the handler
//! leaves through the primary to another worker. That one's gate shows its library the upgrade
//! request once more and swallows the answer, so that the same router and the same handler go on. What
//! the client sends meanwhile waits in the kernel.
//!
//! Connections that are kept alive and idle move in the same way; their handlers need to know nothing
//! of it.
//!
//! # Examples
//!
//! A WebSocket on axum that counts, across workers:
//!
//! ```no_run
//! # #[cfg(feature = "axum")] {
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! use axum::extract::ws::{Message, WebSocketUpgrade};
//! use axum::response::Response;
//! use sticky_lb::worker::Session;
//!
//! async fn count(session: Session, upgrade: WebSocketUpgrade) -> Response {
//!     let before = session.state().and_then(|state| Some(u64::from_le_bytes(state.try_into().ok()?)));
//!     let count = Arc::new(AtomicU64::new(before.unwrap_or(0)));
//!     let left = Arc::clone(&count);
//!     session.on_migrate(move || left.load(Ordering::Relaxed).to_le_bytes().to_vec());
//!     upgrade.on_upgrade(async move |mut socket| {
//!         while let Some(Ok(_)) = socket.recv().await {
//!             let number = count.fetch_add(1, Ordering::Relaxed) + 1;
//!             if socket.send(Message::from(number.to_string())).await.is_err() {
//!                 return;
//!             }
//!         }
//!     })
//! }
//! # }
//! ```

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::worker::connection::ConnectionInfo;

pub(crate) mod checkpoint;
pub(crate) mod closing;
pub(crate) mod handle;
pub(crate) mod image;
#[cfg(feature = "hyper")]
pub(crate) mod in_flight;
pub(crate) mod migration;
mod reading;
pub(crate) mod registry;
pub(crate) mod report;
mod resting;
mod state;
mod stream;
mod writing;

mod follow {
    //! What passes, followed without being understood. Functions of bytes.
    pub(super) mod answer;
    pub(super) mod frames;
    pub(super) mod request;
    pub(super) mod requests;
}

#[cfg(feature = "axum")]
#[cfg(test)]
mod tests {
    //! The gate under real libraries, its sockets moved between workers that are tasks.
    mod apps;
    mod boundaries;
    mod client;
    mod frames;
    mod http;
    mod migration;
    mod websocket;
}

use handle::Handle;
pub use handle::InFlight;
pub use image::MAX_STATE_BYTES;
pub use stream::SessionStream;

/// A connection as its handler sees it that may move to another worker. Cheap to clone.
///
/// With [`worker::axum`](crate::worker::axum) and [`worker::http`](crate::worker::http) it is an
/// extension of each request; with axum it is an extractor, too; whoever serves connections himself
/// has it from [`Connection::into_session`](crate::worker::Connection::into_session). A handler that
/// serves a WebSocket
/// says [`Session::on_migrate`], and is then moved between two messages: in this process its socket
/// ends, as if the client had gone ([`Session::has_migrated`] tells), and in the other process the same
/// request is served again by the same handler, which finds in [`Session::state`] what this one
/// left.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    info: ConnectionInfo,
    handle: Handle,
    state: Option<Vec<u8>>,
    /// Its handler has asked for the state, or has said that it may move again.
    heeded: AtomicBool,
    leaver: Mutex<Leaver>,
    /// Told to those who wait in [`Session::leaving`].
    leaves: watch::Sender<bool>,
    /// What [`Session::depart`] has brought, and that it did.
    departure: Mutex<Option<Vec<u8>>>,
    departed: Notify,
    moved: AtomicBool,
    refused: AtomicBool,
}

/// How a session leaves.
enum Leaver {
    /// It hasn't said that it may.
    Stays,
    /// When it is asked for its state.
    Asked(Box<dyn FnMut() -> Vec<u8> + Send>),
    /// When it says so itself.
    Says,
}

impl Session {
    pub(crate) fn new(info: ConnectionInfo, handle: Handle, state: Option<Vec<u8>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                info,
                handle,
                state,
                heeded: AtomicBool::new(false),
                leaver: Mutex::new(Leaver::Stays),
                leaves: watch::Sender::new(false),
                departure: Mutex::new(None),
                departed: Notify::new(),
                moved: AtomicBool::new(false),
                refused: AtomicBool::new(false),
            }),
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// For servers of one's own: a request of this connection is being answered until the guard is
    /// dropped, which has to be when its answer has been made to the end. Whoever says so of one has to
    /// say so of all; a connection that is kept alive and was used moves only if each is counted.
    #[must_use]
    pub fn request_started(&self) -> InFlight {
        self.inner.handle.request_started()
    }

    /// What is known of the connection.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo {
        self.inner.info
    }

    /// What the handler in the worker before has left; nothing for a client that has just come. A
    /// handler that never asks is one that doesn't know of moving, such as an older version of the
    /// program: it can't go on from there, and its client is sent away as with [`Session::refuse`].
    #[must_use]
    pub fn state(&self) -> Option<&[u8]> {
        self.inner.heeded.store(true, Ordering::Relaxed);
        self.inner.state.as_deref()
    }

    /// This WebSocket may move. `state` makes what its next handler is to find, [`MAX_STATE_BYTES`] bytes
    /// at the most: a session with more stays, and is sent away in its turn. It is called when all
    /// messages that have come are handled; nothing is sent or received from then on. It may be
    /// called again if the move fails.
    pub fn on_migrate(&self, state: impl FnMut() -> Vec<u8> + Send + 'static) {
        *lock(&self.inner.leaver) = Leaver::Asked(Box::new(state));
        self.inner.handle.note_movable();
    }

    /// This WebSocket may move, as by [`Session::on_migrate`], and it goes on in another process even if
    /// this one is killed: each time that the handler waits for its next message and has answered all
    /// that came before, `state` is called and what it makes is kept outside of this process. A
    /// session that is killed anywhere else, in the middle of a message or between a message and its
    /// answer, is closed; that is proven by the kernel's own counters, and never guessed.
    ///
    /// So what the handler owes to the messages so far has to be sent and flushed, or be in `state`,
    /// whenever it waits for the next one. What changes the state while it waits goes unnoticed until
    /// it waits again. `state` is called by the task that waits, for each message: it should take
    /// little time, and no lock that is held while messages are waited for. Up to about 1,500 bytes
    /// (less what the request's head takes) it costs a copy; more take memory of their own, twice.
    ///
    /// Where the primary runs without `--protect`, and without a primary, this is
    /// [`Session::on_migrate`].
    pub fn protect(&self, state: impl FnMut() -> Vec<u8> + Send + 'static) {
        self.on_migrate(state);
        if self.inner.handle.may_be_safe() {
            self.inner.handle.want_safety(&self.inner);
        }
    }

    /// For a handler that has more to send before it goes, such as what others have said to it
    /// meanwhile: waits until the session is to move and all messages that have come are handled.
    /// From then on nothing is received; what it has to send it may send, and then it calls
    /// [`Session::depart`]. Such a session may move from the first call on. Not together with
    /// [`Session::on_migrate`].
    pub async fn leaving(&self) {
        *lock(&self.inner.leaver) = Leaver::Says;
        self.inner.handle.note_movable();
        let mut leaves = self.inner.leaves.subscribe();
        // The sender lives as long as this session.
        let _ = leaves.wait_for(|leaves| *leaves).await;
    }

    /// Moves, with this state. What was sent before has to be flushed. Returns when this process has
    /// no part in the connection any more.
    pub async fn depart(&self, state: Vec<u8>) {
        *lock(&self.inner.departure) = Some(state);
        self.inner.departed.notify_one();
        self.inner.handle.ended().await;
    }

    /// Whether the socket has ended here since it goes on in another worker, and not since its
    /// client has gone or was sent away.
    #[must_use]
    pub fn has_migrated(&self) -> bool {
        self.inner.moved.load(Ordering::Acquire)
    }

    /// This handler can't go on from what the one before has left: the client is sent away with
    /// close code 1012, "service restart", and comes back as a new one.
    pub fn refuse(&self) {
        self.inner.refused.store(true, Ordering::Release);
        closing::refuse(Arc::clone(&self.inner));
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("info", &self.inner.info).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("info", &self.info).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
