//! Stands between a socket and the library that serves it, follows what passes, and can close.
//!
//! Never changes a byte.
//!
//! # Pitfalls
//!
//! Unread bytes hide the end behind them: a client that goes away while its connection is stopped with
//! something unread is noticed only later.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::worker::connection_info::ConnectionInfo;
use crate::worker::guard::ConnectionGuard;
use crate::worker::linger;
use crate::worker::session::api::Session;
use crate::worker::session::cell::{StreamCell, is_at_rest};
use crate::worker::session::checkpoint::Checkpoint;
use crate::worker::session::handle::Handle;
use crate::worker::session::image::ConnectionState;
use crate::worker::session::inner::Inner;
use crate::worker::session::parts::Finished;
use crate::worker::session::reading;
use crate::worker::session::state::{Stage, State, park};
use crate::worker::session::writing;

/// A size for the buffer that a WebSocket library reads into: what axum's `WebSocketUpgrade::read_buffer_size`
/// and tungstenite's `WebSocketConfig::read_buffer_size` take.
///
/// Each WebSocket has such a buffer for as long as it is open. By default those two make it 128 KiB, all of
/// which is memory in use from the first read on; most messages have less than 200 bytes. A longer message
/// than the buffer takes more memory until it is handled.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use axum::extract::ws::WebSocketUpgrade;
/// use axum::response::Response;
/// use sticky_lb::worker::READ_BUFFER_SIZE;
///
/// async fn listen(upgrade: WebSocketUpgrade) -> Response {
///     upgrade.read_buffer_size(READ_BUFFER_SIZE).on_upgrade(async |mut socket| {
///         while let Some(Ok(_)) = socket.recv().await {}
///     })
/// }
/// # }
/// ```
pub const READ_BUFFER_SIZE: usize = 2 * 1_024;

/// A connection's socket as hyper, axum or tungstenite get it: followed, so that it can migrate.
///
/// See [`Session`].
pub struct SessionStream {
    cell: Arc<StreamCell>,
    session: Arc<Inner>,
}

impl SessionStream {
    /// A stream, of another worker's connection if there is one, with a session that `make` makes.
    pub(crate) fn new(
        stream: TcpStream,
        guard: Option<ConnectionGuard>,
        restored: Option<(ConnectionState, Option<Box<Checkpoint>>)>,
        make: impl FnOnce(Handle) -> Inner,
    ) -> Self {
        let mut state = State::new(stream, guard);
        if let Some((connection, checkpoint)) = restored {
            state.restore(connection, checkpoint);
        }
        let cell = Arc::new(StreamCell::new(state));
        let session = Arc::new(make(Handle::new(&cell)));
        Self { cell, session }
    }

    /// A stream without a worker, such as for the test of a handler. It never migrates.
    #[must_use]
    pub fn standalone(stream: TcpStream) -> Self {
        let info = ConnectionInfo::from_stream(&stream);
        Self::new(stream, None, None, |handle| Inner::new(info, handle, None, None))
    }

    /// The address that the client connected to, by the socket.
    ///
    /// # Errors
    ///
    /// If the socket has been taken, as it migrates, or the kernel cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let state = self.cell.lock();
        state.stream.as_ref().ok_or(io::ErrorKind::NotConnected)?.local_addr()
    }

    /// Its session.
    #[must_use]
    pub fn session(&self) -> Session {
        Session::new(Arc::clone(&self.session))
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.session
    }
}

impl AsyncRead for SessionStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.cell.lock();
        let result = reading::poll_read(&mut state, cx, buffer);
        state.wakers.is_reading = result.is_pending();
        if result.is_ready() {
            return result;
        }
        let replaced = park(&mut state.wakers.reader, cx);
        let is_drained = state.stage == Stage::Drained;
        let (point, unwanted) = match is_at_rest(&state) {
            // What it has still to send is unknown.
            true if state.shape.sends_beside() => (None, state.protection.give_up()),
            true => (state.protection.rest_point(), state.protection.take_unwanted()),
            false => (None, None),
        };
        drop(state);
        drop(replaced);
        drop(unwanted);
        if is_drained {
            self.cell.notify();
        }
        if let Some(point) = point {
            self.cell.write_checkpoint(&point);
        }
        result
    }
}

impl AsyncWrite for SessionStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.cell.poll_write(cx, |state, cx| writing::poll_write(state, cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cell.write(writing::flush);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cell.poll_write(cx, writing::poll_shutdown)
    }

    /// Vectored writes would have to be followed, too; hyper flattens them instead.
    fn is_write_vectored(&self) -> bool {
        false
    }
}

impl Drop for SessionStream {
    fn drop(&mut self) {
        let mut state = self.cell.lock();
        writing::abandon(&mut state);
        writing::say_goodbye(&mut state);
        let (finished, wake) = state.finish();
        drop(state);
        drop(wake);
        if let Some(finished) = finished {
            close(finished);
        }
        self.cell.notify();
    }
}

/// Closes a connection. If it ends as its worker does, its last bytes must arrive though its client
/// may have sent more meanwhile. If the primary has a copy of the socket, closing it here alone would
/// not end it.
fn close(Finished { stream, guard, checkpoint }: Finished) {
    if guard.as_ref().is_some_and(ConnectionGuard::is_draining)
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        runtime.spawn(async move {
            linger::close(stream).await;
            drop((guard, checkpoint));
        });
    } else if checkpoint.is_some() {
        // It fails where the client has ended it.
        let _ = shutdown(&stream, Shutdown::Both);
    }
}

impl fmt::Debug for SessionStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionStream").field("cell", &self.cell).finish_non_exhaustive()
    }
}
