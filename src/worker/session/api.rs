//! Sessions as their handlers see them.
//!
//! Never waits for anything but what its caller waits for.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::worker::connection_info::ConnectionInfo;
use crate::worker::lock::lock;
use crate::worker::session::closing;
use crate::worker::session::inner::{Inner, MigrationMode};
use crate::worker::session::pending_write::PendingWrite;
use crate::worker::session::protection::StateSource;
use crate::worker::session::request_guard::RequestGuard;

/// A connection that may migrate to another worker, as its handler sees it. Cheap to clone.
///
/// With `worker::axum` and `worker::hyper` it is an
/// extension of each request; with axum it is an extractor, too. Servers of one's own have it from
/// [`Connection::into_session`](crate::worker::Connection::into_session).
///
/// # How a WebSocket migrates
///
/// Its handler declares it, in one of two ways: [`Session::on_migrate`] makes the state on demand (and
/// [`Session::protect`] survives a crash, too); [`Session::migrating`] tells the handler, which
/// decides when. Each consumes the session, so that a handler doesn't declare both.
///
/// When the worker drains, the library that serves the WebSocket is let read to the end of a message. When
/// it asks for more, the handler is done with all that came. Then the socket is taken from
/// underneath, and goes with the handler's state through the primary to another worker. In this
/// process the socket ends, as if the client had gone; [`Session::has_migrated`] tells. In the other
/// process the same request is served again by the same router and the same handler, which finds the
/// state in [`Session::restored`]. The answer is swallowed, so that the client notices nothing;
/// what it sends meanwhile waits in the kernel.
///
/// A WebSocket whose handler declares nothing is closed in its turn, and the log says so once a
/// route. If the worker before has left a state, it is closed at once: the handler can't go on from there.
///
/// Connections that are kept alive and idle migrate in the same way; their handlers need not know.
///
/// # Examples
///
/// A WebSocket on axum that counts, across workers:
///
/// ```no_run
/// # #[cfg(feature = "axum")] {
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use axum::extract::ws::{Message, WebSocketUpgrade};
/// use axum::response::Response;
/// use sticky_lb::worker::Session;
///
/// async fn count(session: Session, upgrade: WebSocketUpgrade) -> Response {
///     let before = session.restored().and_then(|state| Some(u64::from_le_bytes(state.try_into().ok()?)));
///     let count = Arc::new(AtomicU64::new(before.unwrap_or(0)));
///     let state = Arc::clone(&count);
///     session.on_migrate(move || state.load(Ordering::Relaxed).to_le_bytes().to_vec());
///     upgrade.on_upgrade(async move |mut socket| {
///         while let Some(Ok(_)) = socket.recv().await {
///             let number = count.fetch_add(1, Ordering::Relaxed) + 1;
///             if socket.send(Message::from(number.to_string())).await.is_err() {
///                 return;
///             }
///         }
///     })
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
    restored: Option<Arc<Vec<u8>>>,
}

impl Session {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        let restored = inner.restored();
        Self { inner, restored }
    }

    #[cfg(feature = "axum")]
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// The facts about the connection.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo {
        self.inner.info
    }

    /// The state that the handler in the worker before has left; `None` for a client that has just
    /// come. It takes memory as long as a `Session` lives that was made before the handler declared how it
    /// goes on, and not as long as the connection.
    #[must_use]
    pub fn restored(&self) -> Option<&[u8]> {
        self.restored.as_ref().map(|state| state.as_slice())
    }

    /// Declares that this WebSocket can migrate at any time. `state` makes the state for its next
    /// handler, [`MAX_STATE_BYTES`](crate::worker::MAX_STATE_BYTES) bytes at most: a session with
    /// more stays, and is closed in its turn. It is called when all messages that have come are
    /// handled; nothing is sent or received from then on. It may be called again if the migration
    /// fails.
    ///
    /// The handler must wait for messages, even if it only sends: it can't be told otherwise whether
    /// it has handled all that came. If another of its tasks sends, see [`Migratable::pending_write`].
    pub fn on_migrate(self, state: impl FnMut() -> Vec<u8> + Send + 'static) -> Migratable {
        self.inner.declare(MigrationMode::OnDemand(Box::new(state)));
        Migratable { inner: self.inner }
    }

    /// Declares that this WebSocket can migrate, as [`Session::on_migrate`], and that it goes on in
    /// another process even if this one is killed: each time that the handler waits for its next
    /// message and has answered all that came before, `state` is called and the state is kept
    /// outside of this process. A session that is killed anywhere else, in the middle of a message
    /// or between a message and its answer, is closed; the kernel's own counters prove where it was.
    ///
    /// So whenever the handler waits for the next message, its answers so far must be sent and
    /// flushed, or be in `state`. A state that changes while the handler waits is kept when it waits
    /// again. `state` is called by the task that waits, for each message: it should take
    /// little time, and no lock that is held while messages are waited for. Up to about 1,500 bytes
    /// (less the length of the request's head) cost a copy; more take memory of their own, twice.
    ///
    /// If the primary runs without `--protect`, and without a primary, this is
    /// [`Session::on_migrate`].
    pub fn protect(self, state: impl FnMut() -> Vec<u8> + Send + 'static) -> Migratable {
        let migratable = self.on_migrate(state);
        let inner = &migratable.inner;
        if inner.handle.can_protect() {
            let source: Weak<dyn StateSource> = Arc::<Inner>::downgrade(inner);
            inner.handle.protect(source);
        }
        migratable
    }

    /// Declares that the handler decides when this WebSocket migrates: for one that has more to send
    /// before. The future resolves when the session is to migrate and all messages that have come are
    /// handled; from then on nothing is received. The handler sends and flushes the rest, then calls
    /// [`Migration::migrate_with`]. Without a primary the future never resolves.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # #[cfg(feature = "axum")] {
    /// use axum::extract::ws::{Message, WebSocket};
    /// use sticky_lb::worker::Session;
    ///
    /// async fn serve(session: Session, mut socket: WebSocket) {
    ///     let mut migrating = session.migrating();
    ///     loop {
    ///         tokio::select! {
    ///             message = socket.recv() => match message {
    ///                 Some(Ok(message)) => drop(socket.send(message).await),
    ///                 _ => return,
    ///             },
    ///             migration = &mut migrating => {
    ///                 let _ = socket.send(Message::from("one moment")).await;
    ///                 return migration.migrate_with(b"state".to_vec()).await;
    ///             }
    ///         }
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use = "it is the future that tells when to migrate"]
    pub fn migrating(self) -> Migrating {
        self.inner.declare(MigrationMode::Deferred);
        let asked = Box::pin(self.inner.asked().clone().cancelled_owned());
        Migrating { inner: self.inner, asked }
    }

    /// Whether the socket has ended here since it goes on in another worker, and not since its
    /// client has gone or it was closed.
    #[must_use]
    pub fn has_migrated(&self) -> bool {
        self.inner.has_migrated()
    }

    /// Rejects the state that the handler before has left, such as that of another version: the
    /// client is closed with code 1012, "service restart", and comes back as a new one.
    pub fn reject_state(&self) {
        closing::reject_state(Arc::clone(&self.inner));
    }

    /// For servers of one's own: a request of this connection is being answered until the guard is
    /// dropped, which must be when its answer has been made to the end. A server counts each
    /// request or none; a connection that is kept alive and was used migrates only if each is
    /// counted.
    pub fn request_started(&self) -> RequestGuard {
        self.inner.handle.request_started(self.inner.shared.as_ref())
    }
}

/// A session that makes its state on demand; see [`Session::on_migrate`].
#[derive(Clone, Debug)]
pub struct Migratable {
    inner: Arc<Inner>,
}

impl Migratable {
    /// The facts about the connection.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo {
        self.inner.info
    }

    /// See [`Session::has_migrated`].
    #[must_use]
    pub fn has_migrated(&self) -> bool {
        self.inner.has_migrated()
    }

    /// A message is still to be sent, until the guard is dropped: the session doesn't migrate before.
    ///
    /// For a handler with a task that receives and another that sends. The receiving one takes a guard
    /// before it passes an answer on, and the sending one drops it when the answer is sent and the state
    /// says so. A task that sends what came from elsewhere takes one for as long as that takes. A session
    /// whose tasks send beside the one that receives, and which takes no guard, doesn't migrate: answers
    /// between the two would be lost. It is closed in its turn, and the log says so once a route.
    ///
    /// # Examples
    ///
    /// ```
    /// use sticky_lb::worker::{Migratable, PendingWrite};
    /// use tokio::sync::mpsc::Sender;
    ///
    /// async fn pass_on(answer: String, session: &Migratable, to: &Sender<(String, PendingWrite)>) {
    ///     // The task at the other end sends the answer, then drops the guard.
    ///     let _ = to.send((answer, session.pending_write())).await;
    /// }
    /// ```
    pub fn pending_write(&self) -> PendingWrite {
        self.inner.handle.pending_write()
    }
}

/// Resolves when a session whose handler decides is to migrate; see [`Session::migrating`]. It may be
/// polled by reference, `&mut migrating`, beside other futures.
#[derive(Debug)]
pub struct Migrating {
    inner: Arc<Inner>,
    asked: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Migrating {
    /// The facts about the connection.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo {
        self.inner.info
    }

    /// See [`Session::has_migrated`].
    #[must_use]
    pub fn has_migrated(&self) -> bool {
        self.inner.has_migrated()
    }
}

impl Future for Migrating {
    type Output = Migration;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Migration> {
        let asked = self.asked.as_mut().poll(cx);
        asked.map(|()| Migration { inner: Arc::clone(&self.inner) })
    }
}

/// A migration that waits for its handler.
#[derive(Debug)]
pub struct Migration {
    inner: Arc<Inner>,
}

impl Migration {
    /// Migrates, with this state. Everything that was sent before must be flushed. Returns when this
    /// process has no part in the connection any more.
    pub async fn migrate_with(self, state: Vec<u8>) {
        *lock(&self.inner.departure) = Some(state);
        self.inner.departed.notify_one();
        self.inner.handle.ended().await;
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("info", &self.inner.info).finish_non_exhaustive()
    }
}
