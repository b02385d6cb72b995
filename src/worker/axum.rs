//! Serves an axum router on the connections that arrive.
//!
//! [`serve`] does all of it, and [`serve_or_listen`] also runs without a primary. [`Listener`] is for
//! a call of `axum::serve`, with `with_graceful_shutdown(drain.quiesced())` and, after it,
//! [`Drain::completed`](crate::worker::Drain::completed): without the latter the process ends under its WebSockets, which axum doesn't
//! wait for. Its sessions migrate if the worker has called [`Worker::enable_migration`]; connections
//! that are kept alive and were used don't, since their requests are not counted.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{
    ConnectInfo, FromRequestParts, MatchedPath, OptionalFromRequestParts, Request,
};
use axum::http::StatusCode;
use axum::http::header::UPGRADE;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::serve::IncomingStream;
use hyper_util::service::TowerToHyperService;
use tokio::net::ToSocketAddrs;

use crate::worker::accept::Worker;
use crate::worker::connection_info::ConnectionInfo;
use crate::worker::error::{ChannelError, ServeError};
use crate::worker::hyper;
use crate::worker::session::api::Session;
use crate::worker::session::stream::SessionStream;

/// Says ready, serves until the worker is to end, and returns when the last connection is closed,
/// WebSockets included.
///
/// Handlers find the facts about their connection in
/// `axum::extract::ConnectInfo<ConnectionInfo>`, and run in its span ([`ConnectionInfo::span`]).
/// A WebSocket migrates to another worker if its handler, which takes a [`Session`], has declared how;
/// else it is closed in its turn.
///
/// # Errors
///
/// If the channel to the primary fails.
pub async fn serve(worker: Worker, router: Router) -> Result<(), ChannelError> {
    let router = router.layer(from_fn(introduce));
    hyper::serve(worker, TowerToHyperService::new(router)).await
}

/// Serves as [`serve`] does; without a primary on an address of its own, see
/// [`worker::serve_or_listen`](crate::worker::serve_or_listen).
///
/// # Errors
///
/// If the process can't attach, the address can't be had, or the channel to the primary fails.
///
/// # Examples
///
/// ```no_run
/// use axum::Router;
/// use axum::routing::get;
/// use sticky_lb::worker;
///
/// #[tokio::main]
/// async fn main() -> Result<(), worker::ServeError> {
///     let app = Router::new().route("/", get(async || "hello\n"));
///     worker::axum::serve_or_listen("127.0.0.1:3000", app).await
/// }
/// ```
pub async fn serve_or_listen(
    address: impl ToSocketAddrs,
    router: Router,
) -> Result<(), ServeError> {
    Ok(serve(Worker::attach_or_listen(address).await?, router).await?)
}

/// Tells handlers their connection, as axum's own extractor finds it, and the session its route.
async fn introduce(mut request: Request, next: Next) -> Response {
    if let Some(session) = request.extensions().get::<Session>().cloned() {
        if request.headers().contains_key(UPGRADE)
            && let Some(route) = request.extensions().get::<MatchedPath>()
        {
            session.inner().note_route(route.as_str());
        }
        request.extensions_mut().insert(ConnectInfo(session.info()));
    }
    next.run(request).await
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = StatusCode;

    /// # Errors
    ///
    /// "Internal server error" if the request has not come through a worker's listener.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let extensions = &parts.extensions;
        let info = || extensions.get::<ConnectInfo<Self>>().map(|ConnectInfo(session)| session);
        extensions.get().or_else(info).cloned().ok_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Infallible> {
        Ok(<Self as FromRequestParts<S>>::from_request_parts(parts, state).await.ok())
    }
}

/// A worker as a listener for `axum::serve`.
#[derive(Debug)]
pub struct Listener {
    worker: Worker,
}

impl Listener {
    /// A listener for a worker that has called [`Worker::ready`], or is about to.
    #[must_use]
    pub fn new(worker: Worker) -> Self {
        // Whether the app awaits the last connection shows only after the worker is dropped.
        worker.drain().note_awaited();
        worker.watch_http();
        Self { worker }
    }
}

impl axum::serve::Listener for Listener {
    type Io = SessionStream;
    type Addr = SocketAddr;

    /// Pending for ever when no more connections come: graceful shutdown ends the server then.
    async fn accept(&mut self) -> (SessionStream, SocketAddr) {
        match self.worker.accept().await {
            Ok(Some(connection)) => {
                let (stream, session) = connection.into_session();
                return (stream, session.info().client);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "no more connections come");
                self.worker.end();
            }
        }
        std::future::pending().await
    }

    /// See [`Worker::local_addr`].
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.worker.local_addr()
    }
}

impl Connected<IncomingStream<'_, Listener>> for ConnectionInfo {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().inner().info
    }
}

impl Connected<IncomingStream<'_, Listener>> for Session {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().session()
    }
}
