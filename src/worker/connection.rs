//! One client's connection, as the worker's code gets it: a stream, and what is known of it.
//!
//! Reads and writes go straight to the socket; nothing is buffered or looked at.
//!
//! # In the log
//!
//! Each connection has a span, `connection`, at level debug, whose fields name it as the primary's
//! lines do: `connection` is its id, which is the same on both sides. What an app logs within the
//! span carries them. [`worker::http`](crate::worker::http) and [`worker::axum`](crate::worker::axum)
//! handle requests in it; those who serve themselves use [`Connection::span`] or, where they have no
//! more than the [`ConnectionInfo`], [`ConnectionInfo::span`]. What a handler spawns, and what it does
//! with an upgraded connection, is outside unless it is instrumented with the span as well.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tracing::Span;

use crate::protocol::ids::{AffinityKey, ConnectionId, Generation, SlotId, Timestamp};
use crate::protocol::message::ConnectionRecord;
use crate::protocol::scoreboard::Counter;
use crate::worker::drain::Shared;
use crate::worker::session::checkpoint::{Kept, Rest};
use crate::worker::session::handle::{Baggage, Kind};
use crate::worker::session::image::Parcel;
use crate::worker::session::registry::Stay;
use crate::worker::session::{Session, SessionStream, closing};

/// A client's connection: a TCP stream that the primary accepted and never read.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    guard: ConnectionGuard,
    /// What came with it from another worker.
    parcel: Option<Box<Parcel>>,
    /// Its entry in the ledger, if it is protected.
    kept: Option<Box<Kept>>,
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Names it in the primary's logs and in the worker's.
    pub id: ConnectionId,
    /// The client.
    pub client: SocketAddr,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// The same number for the same client.
    pub key: AffinityKey,
    /// When the primary accepted it.
    pub accepted_at: Timestamp,
    /// The slot that serves it.
    pub slot: SlotId,
    /// The generation of that slot's worker.
    pub generation: Generation,
}

impl ConnectionInfo {
    pub(crate) fn record(&self) -> ConnectionRecord {
        let Self { id, accepted_at, key, client, local, .. } = *self;
        ConnectionRecord { id, accepted_at, key, client, local }
    }

    /// How long ago the primary accepted it.
    #[must_use]
    pub fn age(&self) -> Duration {
        Timestamp::now().since(self.accepted_at)
    }

    /// A span for what is logged about this connection, with the fields `connection`, `client`,
    /// `slot`, `generation` and `pid`. It has no parent, and does nothing where level debug is off.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use sticky_lb::worker::Connection;
    /// # async fn serve(connection: Connection) {}
    /// # fn run(connection: Connection) {
    /// use tracing::Instrument;
    ///
    /// let span = connection.info().span();
    /// tokio::spawn(serve(connection).instrument(span));
    /// # }
    /// ```
    #[must_use]
    pub fn span(&self) -> Span {
        tracing::debug_span!(
            parent: None,
            "connection",
            connection = self.id.0,
            client = %self.client,
            slot = self.slot.0,
            generation = self.generation.0,
            pid = std::process::id(),
        )
    }
}

/// Counts a connection as established for as long as it lives. A drained worker waits for it.
#[derive(Debug)]
pub struct ConnectionGuard {
    info: ConnectionInfo,
    span: Span,
    shared: Arc<Shared>,
    stay: Stay,
    fresh: bool,
    is_websocket: bool,
    is_movable: bool,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, record: &ConnectionRecord, shared: &Arc<Shared>) -> Self {
        let info = ConnectionInfo {
            id: record.id,
            client: record.client,
            local: record.local,
            key: record.key,
            accepted_at: record.accepted_at,
            slot: shared.own.slot,
            generation: shared.own.generation,
        };
        shared.connection_opened();
        let (span, shared) = (info.span(), Arc::clone(shared));
        let stay = shared.sessions.stay();
        let guard = ConnectionGuard {
            info,
            span,
            shared,
            stay,
            fresh: true,
            is_websocket: false,
            is_movable: false,
        };
        Self { stream, guard, parcel: None, kept: None }
    }

    /// One that another worker had, or this one before it was offered.
    pub(crate) fn resumed(stream: TcpStream, guard: ConnectionGuard, parcel: Parcel) -> Self {
        let kept = guard.keep_arrived(&stream, &parcel);
        Self { stream, guard, parcel: Some(Box::new(parcel)), kept }
    }

    /// One that another worker had.
    pub(crate) fn moved(self, parcel: Parcel) -> Self {
        Self::resumed(self.stream, self.guard, parcel)
    }

    /// Whether a WebSocket's handshake was done in another worker.
    pub(crate) fn is_websocket(&self) -> bool {
        self.parcel.as_ref().is_some_and(|parcel| parcel.baggage.kind == Kind::WebSocket)
    }

    /// For HTTP/1.1 and WebSockets: a stream that is followed, so that it can move to another worker,
    /// and a handle of it for the handler. The stream goes to the library, such as
    /// `tokio_tungstenite::accept_async`. See [`worker::session`](crate::worker::session).
    #[must_use]
    pub fn into_session(self) -> (SessionStream, Session) {
        let Self { stream, guard, parcel, kept } = self;
        let (info, stay, shared) = (guard.info, guard.stay, Arc::clone(&guard.shared));
        let is_resumed = parcel.is_some();
        let (gate, handle, state) = match parcel {
            None => {
                let (gate, handle) = SessionStream::fresh(stream, Some(guard));
                (gate, handle, None)
            }
            Some(parcel) => {
                let (gate, handle) =
                    SessionStream::resumed(stream, Some(guard), parcel.baggage, kept);
                (gate, handle, parcel.state)
            }
        };
        let session = Session::new(info, handle, state);
        shared.sessions.insert(stay, session.inner());
        if is_resumed {
            tokio::spawn(closing::see_resumed(Arc::clone(session.inner())));
        }
        (gate, session)
    }

    /// It is the worker's own now.
    pub(crate) fn accepted(&self) {
        tracing::debug!(parent: &self.guard.span, "connection accepted");
    }

    /// What is known of it.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo {
        self.guard.info
    }

    /// The span of what is logged about it, see [`ConnectionInfo::span`].
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.guard.span
    }

    /// The bare stream, and what must be kept for as long as it is open.
    #[must_use]
    pub fn into_parts(self) -> (TcpStream, ConnectionGuard) {
        // If it was kept, it is forgotten: who knows what becomes of it.
        let Self { stream, mut guard, .. } = self;
        guard.used();
        (stream, guard)
    }
}

impl ConnectionGuard {
    /// What is known of the connection.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo {
        self.info
    }

    /// The span of what is logged about it, see [`ConnectionInfo::span`].
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Whether the worker drains: clients may not expect the end of their connections.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.has_begun_to_drain()
    }

    /// It has become a WebSocket.
    pub(crate) fn note_websocket(&mut self) {
        if !std::mem::replace(&mut self.is_websocket, true) {
            self.shared.own.scoreboard.increment(Counter::WebSockets);
            self.count_session();
        }
    }

    /// It may move once it is a WebSocket.
    pub(crate) fn note_movable(&mut self) {
        if !std::mem::replace(&mut self.is_movable, true) {
            self.count_session();
        }
    }

    fn count_session(&self) {
        if self.is_websocket && self.is_movable {
            self.shared.own.scoreboard.increment(Counter::Sessions);
        }
    }

    /// Whether sessions can be written down.
    pub(crate) fn has_ledger(&self) -> bool {
        self.shared.sessions.ledger.is_some()
    }

    /// Writes its session down for the first time, at rest.
    pub(crate) fn keep(
        &self,
        stream: &TcpStream,
        head: &[u8],
        rest: Rest<'_>,
    ) -> Option<Box<Kept>> {
        let ledger = self.shared.sessions.ledger.as_ref()?;
        ledger.keep(&self.info.record(), stream, head, rest)
    }

    /// Writes one down that was protected where it came from, before anybody here does anything with
    /// it: so that it is safe from the moment on in which it is acknowledged.
    fn keep_arrived(&self, stream: &TcpStream, parcel: &Parcel) -> Option<Box<Kept>> {
        let Parcel { baggage: Baggage { kind, head, unread }, state, protect, .. } = parcel;
        let state = state.as_deref().filter(|_| *protect)?;
        let rest = Rest { read: 0, written: 0, state };
        let whole = *kind == Kind::WebSocket && unread.is_empty();
        if whole { self.keep(stream, head, rest) } else { None }
    }

    /// Its first bytes were read, or will be by somebody else.
    pub(crate) fn used(&mut self) {
        if std::mem::take(&mut self.fresh) {
            self.shared.connection_used();
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.used();
        self.shared.sessions.forget(self.info.id, self.stay);
        if self.is_websocket {
            self.shared.own.scoreboard.decrement(Counter::WebSockets);
        }
        if self.is_websocket && self.is_movable {
            self.shared.own.scoreboard.decrement(Counter::Sessions);
        }
        self.shared.connection_closed();
        tracing::debug!(parent: &self.span, "connection ended");
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        self.guard.used();
        Poll::Ready(result)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Counts a request as in flight for as long as it lives.
#[derive(Debug)]
pub struct RequestGuard {
    shared: Arc<Shared>,
}

impl RequestGuard {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        shared.own.scoreboard.increment(Counter::Requests);
        Self { shared: Arc::clone(shared) }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.shared.own.scoreboard.decrement(Counter::Requests);
        self.shared.own.scoreboard.increment(Counter::RequestsTotal);
    }
}
