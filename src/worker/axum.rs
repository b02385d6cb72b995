//! Serves an axum router on the connections that arrive.
//!
//! [`serve`] does it all. [`Listener`] is for those who want to call `axum::serve` themselves, with
//! `with_graceful_shutdown(drain.settled())` and, after it, `drain.finished()`: without the latter
//! the process ends under its WebSockets, which axum doesn't wait for.

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::serve::IncomingStream;
use tracing::{Instrument, Span};

use crate::worker::accept::{AcceptError, Worker};
use crate::worker::connection::{Connection, ConnectionInfo};
use crate::worker::drain::Drain;
use crate::worker::http::mark_last;

/// Says ready, serves until the worker is to end, and returns when the last connection is closed,
/// WebSockets included.
///
/// Handlers find what is known of their connection in
/// `axum::extract::ConnectInfo<ConnectionInfo>`, and run in its span ([`ConnectionInfo::span`]).
/// WebSocket handlers end when [`Drain::begun`] says
/// so.
///
/// # Errors
///
/// If the channel to the primary fails.
pub async fn serve(mut worker: Worker, router: Router) -> Result<(), AcceptError> {
    let drain = worker.drain();
    worker.ready()?;
    let counted = router.layer(from_fn_with_state(drain.clone(), count));
    let settled = drain.clone();
    let server = axum::serve(
        Listener::new(worker),
        counted.into_make_service_with_connect_info::<ConnectionInfo>(),
    )
    .with_graceful_shutdown(async move { settled.settled().await });
    tokio::select! {
        // It returns no errors: see `axum::serve::Listener`.
        _ = server.into_future() => {}
        () = drain.abandoned() => {}
    }
    drain.finished().await;
    Ok(())
}

async fn count(State(drain): State<Drain>, request: Request, next: Next) -> Response {
    let _in_flight = drain.request();
    let version = request.version();
    let info = request.extensions().get::<ConnectInfo<ConnectionInfo>>();
    // axum's task for the connection is out of reach.
    let span = info.map_or_else(Span::none, |ConnectInfo(info)| info.span());
    let mut response = next.run(request).instrument(span).await;
    mark_last(&drain, version, &mut response);
    response
}

/// A worker as a listener for `axum::serve`.
#[derive(Debug)]
pub struct Listener {
    worker: Worker,
}

impl Listener {
    /// To be made after the worker has said [`Worker::ready`], or is about to.
    #[must_use]
    pub fn new(worker: Worker) -> Self {
        Self { worker }
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = ConnectionInfo;

    /// Pending for ever when no more connections come: graceful shutdown ends the server then.
    async fn accept(&mut self) -> (Connection, ConnectionInfo) {
        match self.worker.accept().await {
            Ok(Some(connection)) => {
                let info = connection.info();
                return (connection, info);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "no more connections come");
                self.worker.end();
            }
        }
        std::future::pending().await
    }

    /// There is no address that the worker itself listens on.
    fn local_addr(&self) -> std::io::Result<ConnectionInfo> {
        Err(std::io::ErrorKind::AddrNotAvailable.into())
    }
}

impl Connected<IncomingStream<'_, Listener>> for ConnectionInfo {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        *stream.remote_addr()
    }
}
