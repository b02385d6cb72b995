//! Counts a connection for as long as its socket is open here.
//!
//! Never touches the socket.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tracing::Span;

use crate::protocol::ids::ConnectionId;
use crate::protocol::scoreboard::Counter;
use crate::worker::connection_info::ConnectionInfo;
use crate::worker::session::checkpoint::{AtRest, Checkpoint};
use crate::worker::session::image::Negotiated;
use crate::worker::shared::Shared;

/// One of the times that a session is in this process: it may leave and come again before its first
/// time is tidied up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Residency(pub(crate) u64);

/// The sessions of a worker, as a connection that ends needs them.
pub(crate) trait Residents: Debug + Send + Sync {
    /// The socket is closed, or another worker's.
    fn remove(&self, id: ConnectionId, residency: Residency);

    /// The code of the close frame for a WebSocket that ends now as its worker does.
    fn close_code(&self) -> u16;
}

/// How a connection ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By its client, or as its handler is done with it.
    Finished,
    /// It goes on in another worker.
    Migrated,
    /// By a close frame from here.
    Closed,
    /// In the middle of something, without a word.
    Cut,
}

/// Counts a connection as established for as long as it lives. A drained worker waits for it.
#[derive(Debug)]
pub struct ConnectionGuard {
    info: ConnectionInfo,
    span: Span,
    shared: Arc<Shared>,
    residents: Arc<dyn Residents>,
    residency: Residency,
    is_fresh: bool,
    is_portable: bool,
    counted: Counted,
    ending: Ending,
    /// Its socket is the app's own.
    is_bare: bool,
}

/// As what it is counted beside a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Nothing,
    /// Nothing yet: its handler has declared how it migrates, but it is no WebSocket yet.
    Declared,
    WebSocket,
    /// A WebSocket that can migrate.
    Session,
}

impl ConnectionGuard {
    pub(crate) fn new(
        info: ConnectionInfo,
        shared: &Arc<Shared>,
        residents: Arc<dyn Residents>,
        residency: Residency,
    ) -> Self {
        shared.connection_opened();
        Self {
            info,
            span: info.span(),
            shared: Arc::clone(shared),
            residents,
            residency,
            is_fresh: true,
            is_portable: true,
            counted: Counted::Nothing,
            ending: Ending::Finished,
            is_bare: false,
        }
    }

    /// The facts about the connection.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo {
        self.info
    }

    /// The span of its log lines, see [`ConnectionInfo::span`].
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn residency(&self) -> Residency {
        self.residency
    }

    /// Whether the worker drains: clients may not expect the end of their connections.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.is_draining()
    }

    /// Whether its worker ends: it drains, or its program is about to end without having drained.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_draining() || self.shared.is_left() && is_runtime_ending()
    }

    /// How it ends, if it is known before.
    pub(crate) fn note_ending(&mut self, ending: Ending) {
        self.ending = ending;
    }

    /// The app has taken its socket: nothing closes it but the app.
    pub(crate) fn note_bare(&mut self) {
        self.is_bare = true;
        self.shared.bare.fetch_add(1, Ordering::Relaxed);
    }

    /// The code of the close frame for a WebSocket that ends as its worker does.
    pub(crate) fn close_code(&self) -> u16 {
        self.residents.close_code()
    }

    fn count_ending(&self) {
        let is_over = self.is_draining() || self.shared.is_left();
        let ending = match self.ending {
            Ending::Finished if is_over && is_runtime_ending() => Ending::Cut,
            ending => ending,
        };
        let counter = match ending {
            Ending::Migrated if self.is_draining() => Counter::Migrated,
            Ending::Closed if is_over => Counter::Closed,
            Ending::Cut => Counter::Cut,
            Ending::Finished | Ending::Migrated | Ending::Closed => return,
        };
        self.shared.own.scoreboard.increment(counter);
    }

    /// It has become a WebSocket. If it is not portable it can't migrate, whatever its handler
    /// declares.
    pub(crate) fn note_websocket(&mut self, is_portable: bool) {
        self.is_portable = is_portable;
        self.counted = match self.counted {
            Counted::Nothing => Counted::WebSocket,
            Counted::Declared if !is_portable => Counted::WebSocket,
            Counted::Declared => {
                self.shared.own.scoreboard.increment(Counter::Sessions);
                Counted::Session
            }
            Counted::WebSocket | Counted::Session => return,
        };
        self.shared.own.scoreboard.increment(Counter::WebSockets);
    }

    /// It can migrate once it is a WebSocket.
    pub(crate) fn note_declared(&mut self) {
        self.counted = match self.counted {
            Counted::Nothing => Counted::Declared,
            Counted::WebSocket if self.is_portable => {
                self.shared.own.scoreboard.increment(Counter::Sessions);
                Counted::Session
            }
            Counted::Declared | Counted::WebSocket | Counted::Session => return,
        };
    }

    /// Whether sessions can be protected.
    pub(crate) fn can_protect(&self) -> bool {
        self.shared.checkpoints.is_some()
    }

    /// Writes the first checkpoint of its session, which is at rest.
    pub(crate) fn protect(
        &self,
        stream: &TcpStream,
        head: &[u8],
        negotiated: Option<&Negotiated>,
        rest: AtRest<'_>,
    ) -> Option<Box<Checkpoint>> {
        let checkpoints = self.shared.checkpoints.as_ref()?;
        checkpoints.protect(&self.info.record(), stream, head, negotiated, rest)
    }

    /// Its first bytes were read, or something else will read them.
    pub(crate) fn used(&mut self) {
        if std::mem::take(&mut self.is_fresh) {
            self.shared.connection_used();
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.used();
        self.count_ending();
        if self.is_bare {
            self.shared.bare.fetch_sub(1, Ordering::Relaxed);
        }
        self.residents.remove(self.info.id, self.residency);
        let scoreboard = &self.shared.own.scoreboard;
        if matches!(self.counted, Counted::WebSocket | Counted::Session) {
            scoreboard.decrement(Counter::WebSockets);
        }
        if self.counted == Counted::Session {
            scoreboard.decrement(Counter::Sessions);
        }
        self.shared.connection_closed();
        tracing::debug!(parent: &self.span, "connection ended");
    }
}

/// Whether the runtime ends, and drops what it was told to run: it takes no task any more.
fn is_runtime_ending() -> bool {
    let Ok(runtime) = Handle::try_current() else { return false };
    let probe = runtime.spawn(std::future::pending::<()>());
    let is_ending = probe.is_finished();
    probe.abort();
    is_ending
}
