//! Workers that are tasks of the test, and sockets that move between them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::worker::connection_info::ConnectionInfo;
use crate::worker::session::handle::Handle;
use crate::worker::session::image::{ConnectionState, Kind};
use crate::worker::session::inner::Inner;
use crate::worker::session::parts::Detached;
use crate::worker::session::stream::SessionStream;

/// An app's part beside its stream.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) handle: Handle,
    /// Notified by the app when it has handled something: time to migrate.
    pub(super) handled: Arc<Notify>,
    /// How long the app takes for each message.
    pub(super) pace: Duration,
    /// 0 or 1, for one of the two workers.
    pub(super) worker: usize,
}

/// Serves a stream, in a task of its own.
pub(super) type App = Arc<dyn Fn(SessionStream, Served) + Send + Sync>;

pub(super) struct Host {
    pub(super) address: SocketAddr,
    moves: Arc<AtomicUsize>,
}

impl Host {
    /// Moves every connection whenever something of it was handled.
    pub(super) async fn start(app: App, pace: Duration) -> Self {
        Self::with(app, pace, false).await
    }

    /// Takes sockets without waiting for anything, and so loses what the library has read.
    pub(super) async fn reckless(app: App, pace: Duration) -> Self {
        Self::with(app, pace, true).await
    }

    async fn with(app: App, pace: Duration, reckless: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let moves = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&moves);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (app, moves) = (Arc::clone(&app), Arc::clone(&counted));
                tokio::spawn(carry(stream, app, pace, reckless, moves));
            }
        });
        Self { address, moves }
    }

    pub(super) fn moves(&self) -> usize {
        self.moves.load(Ordering::Relaxed)
    }
}

/// A connection that nothing was read from.
pub(super) fn fresh(stream: TcpStream) -> (SessionStream, Handle) {
    with(stream, None)
}

/// A connection that another worker has served.
pub(super) fn resumed(stream: TcpStream, connection: ConnectionState) -> (SessionStream, Handle) {
    with(stream, Some(connection))
}

fn with(stream: TcpStream, restored: Option<ConnectionState>) -> (SessionStream, Handle) {
    let info = ConnectionInfo::from_stream(&stream);
    let restored = restored.map(|connection| (connection, None));
    let stream =
        SessionStream::new(stream, None, restored, |handle| Inner::new(info, handle, None, None));
    let handle = stream.inner().handle.clone();
    (stream, handle)
}

async fn carry(
    stream: TcpStream,
    app: App,
    pace: Duration,
    reckless: bool,
    moves: Arc<AtomicUsize>,
) {
    let (mut served_stream, mut handle) = fresh(stream);
    for worker in (0..2).cycle() {
        let handled = Arc::new(Notify::new());
        app(
            served_stream,
            Served { handle: handle.clone(), handled: Arc::clone(&handled), pace, worker },
        );
        let leave = async {
            handled.notified().await;
            if reckless { wrench(&handle) } else { leave(&handle).await }
        };
        let taken = tokio::select! {
            biased;
            taken = leave => taken,
            () = handle.ended() => return,
        };
        // Out of the one runtime's hands and into the other's.
        let stream = TcpStream::from_std(taken.stream.into_std().unwrap()).unwrap();
        moves.fetch_add(1, Ordering::Relaxed);
        (served_stream, handle) = resumed(stream, taken.connection);
    }
}

pub(super) async fn leave(handle: &Handle) -> Detached {
    handle.ask_to_stop();
    loop {
        handle.drained().await;
        if handle.hold()
            && let Some(taken) = handle.detach()
        {
            return taken;
        }
    }
}

fn wrench(handle: &Handle) -> Detached {
    let head = handle.cell.lock().upgrade.head.clone();
    let detached = handle.force_detach().unwrap();
    let connection =
        ConnectionState { kind: Kind::WebSocket, head, negotiated: None, unread: Vec::new() };
    Detached { stream: detached.stream, guard: None, connection, checkpoint: None }
}
