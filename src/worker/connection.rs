//! One client's connection, as the worker's code gets it: a stream, and the facts about it.
//!
//! Reads and writes are followed and not changed, so that a WebSocket of an app that knows nothing of
//! sessions is closed with a close frame, too.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tracing::Span;

use crate::protocol::message::ConnectionRecord;
use crate::worker::connection_info::ConnectionInfo;
use crate::worker::guard::{ConnectionGuard, Ending, Residency};
use crate::worker::misuse::Misuse;
use crate::worker::session::api::Session;
use crate::worker::session::checkpoint::{AtRest, Checkpoint};
use crate::worker::session::image::SessionImage;
use crate::worker::session::image::{ConnectionState, Kind};
use crate::worker::session::inner::Inner;
use crate::worker::session::registry::{Returned, Sessions};
use crate::worker::session::resumed;
use crate::worker::session::stream::SessionStream;

/// A client's connection: a TCP stream that the primary accepted and never read.
///
/// # In the log
///
/// Each connection has a span, `connection`, at level debug, whose fields name it as the primary's
/// lines do: `connection` is its id, which is the same on both sides. What an app logs within the
/// span carries them. The servers of this library handle requests in it; a server of one's own uses
/// [`Connection::span`] or [`ConnectionInfo::span`]. A task that a handler spawns, and the future of an
/// upgraded connection, are outside unless they are instrumented with the span as well.
#[derive(Debug)]
pub struct Connection {
    stream: SessionStream,
    span: Span,
    /// Where it is entered as soon as something serves it.
    sessions: Arc<Sessions>,
    residency: Residency,
    is_resumed: bool,
    is_served: bool,
}

impl Connection {
    /// One that the primary has accepted, and another worker has served if there is an image.
    pub(crate) fn new(
        stream: TcpStream,
        record: &ConnectionRecord,
        image: Option<SessionImage>,
        sessions: &Arc<Sessions>,
    ) -> Self {
        let own = &sessions.shared.own;
        let info = ConnectionInfo::new(record, own.slot, own.generation);
        let (residents, residency) = (Arc::clone(sessions), sessions.new_residency());
        let guard = ConnectionGuard::new(info, &sessions.shared, residents, residency);
        Self::with_image(stream, guard, image, sessions)
    }

    /// One that this worker has offered in vain.
    pub(crate) fn returned(returned: Returned, sessions: &Arc<Sessions>) -> Self {
        let Returned { stream, guard, image } = returned;
        Self::with_image(stream, guard, Some(image), sessions)
    }

    fn with_image(
        stream: TcpStream,
        guard: ConnectionGuard,
        image: Option<SessionImage>,
        sessions: &Arc<Sessions>,
    ) -> Self {
        let checkpoint = image.as_ref().and_then(|image| protect(&guard, &stream, image));
        let is_resumed = image.is_some();
        let (image, restored) = match image {
            Some(image) => (Some((image.connection, checkpoint)), image.state),
            None => (None, None),
        };
        let (info, span, residency) = (guard.info(), guard.span().clone(), guard.residency());
        let shared = Arc::clone(guard.shared());
        let stream = SessionStream::new(stream, Some(guard), image, |handle| {
            Inner::new(info, handle, restored, Some(shared))
        });
        let sessions = Arc::clone(sessions);
        Self { stream, span, sessions, residency, is_resumed, is_served: false }
    }

    /// Whether a WebSocket's handshake was done in another worker.
    pub(crate) fn is_websocket(&self) -> bool {
        self.stream.inner().handle.kind() == Kind::WebSocket
    }

    /// For HTTP/1.1 and WebSockets: a stream that is followed, so that it can migrate to another
    /// worker, and a handle of it for the handler. The stream goes to the library, such as
    /// `tokio_tungstenite::accept_async`. See [`Session`].
    #[must_use]
    pub fn into_session(mut self) -> (SessionStream, Session) {
        self.serve();
        let session = self.stream.session();
        (self.stream, session)
    }

    /// Something serves it from now on.
    fn serve(&mut self) {
        if std::mem::replace(&mut self.is_served, true) {
            return;
        }
        let session = self.stream.inner();
        self.sessions.insert(self.residency, session);
        if self.is_resumed {
            resumed::watch(&self.sessions, session);
        }
    }

    /// It is the worker's own now.
    pub(crate) fn accepted(&self) {
        tracing::debug!(parent: &self.span, "connection accepted");
    }

    /// The facts about it.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo {
        self.stream.inner().info
    }

    /// The address that the client connected to, by the socket.
    ///
    /// # Errors
    ///
    /// If the socket has been taken, as it migrates, or the kernel cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// The span of its log lines, see [`ConnectionInfo::span`].
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// The bare stream, and a guard that must live as long as it is open. Nothing follows it: when the
    /// worker drains, the app closes it itself, see [`Drain::started`](crate::worker::Drain::started).
    ///
    /// # Errors
    ///
    /// If it was read or written before, as bytes that were read ahead would be lost.
    pub fn into_parts(self) -> io::Result<(TcpStream, ConnectionGuard)> {
        if self.is_served {
            let reason = "connection was used as a stream before its parts were taken";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        self.note_bare();
        let (stream, mut guard) = self.split().ok_or(io::ErrorKind::NotConnected)?;
        guard.note_bare();
        Ok((stream, guard))
    }

    /// As [`Connection::into_parts`], to close it.
    pub(crate) fn split(self) -> Option<(TcpStream, ConnectionGuard)> {
        // Its checkpoint is dropped: nothing is known of it from here on.
        let detached = self.stream.inner().handle.force_detach()?;
        let mut guard = detached.guard?;
        guard.used();
        guard.note_ending(Ending::Finished);
        Some((detached.stream, guard))
    }

    /// It is served without a session.
    fn note_bare(&self) {
        let shared = &self.sessions.shared;
        if shared.own.channel.is_some() && shared.is_migration_enabled() {
            shared.reported.misuse(Misuse::ServedBare);
        }
    }
}

/// Writes the checkpoint of a session that was protected where it came from, before anything here
/// is done with it: so it is safe from the moment on in which it is acknowledged.
fn protect(
    guard: &ConnectionGuard,
    stream: &TcpStream,
    image: &SessionImage,
) -> Option<Box<Checkpoint>> {
    let SessionImage { connection, state, protect, .. } = image;
    let ConnectionState { kind, head, negotiated, unread } = connection;
    let state = state.as_deref().filter(|_| *protect)?;
    let rest = AtRest { read: 0, written: 0, state };
    let is_whole = *kind == Kind::WebSocket && unread.is_empty();
    if is_whole { guard.protect(stream, head, negotiated.as_ref(), rest) } else { None }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.serve();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        self.note_bare();
        Poll::Ready(result)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.serve();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
