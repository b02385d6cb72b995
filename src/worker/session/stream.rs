//! Stands between a socket and the library that serves it, follows what passes, and can close.
//!
//! Never changes a byte, and never holds its lock but for a moment, in which nobody else wants it.
//!
//! # Pitfalls
//!
//! What has arrived hides the end behind it: a client that goes away while its connection stands
//! still with something unread is noticed only later.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::worker::connection::ConnectionGuard;
use crate::worker::linger;
use crate::worker::session::checkpoint::Kept;
use crate::worker::session::handle::{Baggage, Handle};
use crate::worker::session::state::{Left, State, Wake};

/// A socket as hyper, axum or tungstenite get it.
pub struct SessionStream {
    shared: Arc<Shared>,
}

impl SessionStream {
    /// A connection that nobody has read from.
    pub(crate) fn fresh(stream: TcpStream, guard: Option<ConnectionGuard>) -> (Self, Handle) {
        Self::with(State::new(stream, guard))
    }

    /// A connection that another worker has served.
    pub(crate) fn resumed(
        stream: TcpStream,
        guard: Option<ConnectionGuard>,
        baggage: Baggage,
        kept: Option<Box<Kept>>,
    ) -> (Self, Handle) {
        let mut state = State::new(stream, guard);
        state.unpack(baggage);
        state.safety.kept = kept;
        Self::with(state)
    }

    /// For an app that runs without a primary: one that nobody ever asks to let go.
    #[must_use]
    pub fn detached(stream: TcpStream) -> Self {
        Self::fresh(stream, None).0
    }

    fn with(state: State) -> (Self, Handle) {
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() });
        let handle = Handle::new(&shared);
        (Self { shared }, handle)
    }
}

/// What a gate and its handles have in common.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// It is drained or has ended.
    changed: Notify,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under it; if it did, what is there would still be the best there is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes when the lock is free: who is woken may want it, or drop what wants it.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut State) -> (R, Wake)) -> R {
        let mut state = self.lock();
        let (result, wake) = change(&mut state);
        let ended = state.left;
        drop(state);
        wake.into_iter().flatten().for_each(std::task::Waker::wake);
        if ended {
            self.changed.notify_waiters();
        }
        result
    }

    /// What the library does to write, and whoever waited for that.
    fn write<R>(&self, write: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = write(&mut state);
        let (reader, refused) = (state.reader_to_wake(), state.refused());
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        if refused {
            self.changed.notify_waiters();
        }
        result
    }

    /// The same, of what may have to wait.
    fn poll_write<R>(
        &self,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut State, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let mut replaced = None;
        self.write(|state| {
            let result = write(state, cx);
            if result.is_pending() {
                replaced = State::park(&mut state.writer, cx);
            }
            result
        })
    }

    pub(super) fn request_finished(&self) {
        self.write(|state| state.requests.finish());
    }

    pub(super) async fn wait(&self, condition: impl Fn(&State) -> bool) {
        loop {
            // In this order, so that a change between the two is not missed.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if condition(&self.lock()) {
                return;
            }
            changed.await;
        }
    }
}

impl AsyncRead for SessionStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        let result = state.poll_read(cx, buffer);
        if result.is_ready() {
            return result;
        }
        let replaced = State::park(&mut state.reader, cx);
        let (drained, found, unwanted) = (state.drained, state.found_at_rest(), state.unwanted());
        drop(state);
        drop(replaced);
        drop(unwanted);
        if drained {
            self.shared.changed.notify_waiters();
        }
        if let Some(found) = found {
            self.shared.write_down(&found);
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
        self.shared.poll_write(cx, |state, cx| state.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.write(State::flush);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.poll_write(cx, State::poll_shutdown)
    }

    /// Vectored writes would have to be followed, too; hyper flattens them instead.
    fn is_write_vectored(&self) -> bool {
        false
    }
}

impl Drop for SessionStream {
    fn drop(&mut self) {
        let (left, wake) = self.shared.lock().drop_gate();
        // The lock is free by now.
        drop(wake);
        if let Some(left) = left {
            close(left);
        }
        self.shared.changed.notify_waiters();
    }
}

/// Lets the last bytes of a connection arrive that ends since its worker does: its client may have
/// sent more meanwhile. One of which the primary has a copy would not end by being closed here alone.
fn close(Left { stream, guard, kept }: Left) {
    if guard.as_ref().is_some_and(ConnectionGuard::is_draining)
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        runtime.spawn(async move {
            linger::close(stream).await;
            drop((guard, kept));
        });
    } else if kept.is_some() {
        // Where the client has gone, it has ended.
        let _ = shutdown(&stream, Shutdown::Both);
    }
}

impl fmt::Debug for SessionStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shared, f)
    }
}
