//! Serves an axum router on the connections that arrive.
//!
//! [`serve`] does it all. [`Listener`] is for those who want to call `axum::serve` themselves, with
//! `with_graceful_shutdown(drain.settled())` and, after it, `drain.finished()`: without the latter
//! the process ends under its WebSockets, which axum doesn't wait for. Their sessions move if the
//! worker has said [`Worker::enable_migration`]; connections that are kept alive and were used don't,
//! since nobody counts their requests.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, FromRequestParts, OptionalFromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::serve::IncomingStream;
use tracing::Instrument;

use crate::worker::accept::{AcceptError, Worker};
use crate::worker::connection::ConnectionInfo;
use crate::worker::drain::Drain;
use crate::worker::http::mark_last;
use crate::worker::session::in_flight::InFlightBody;
use crate::worker::session::{Session, SessionStream};

/// Says ready, serves until the worker is to end, and returns when the last connection is closed,
/// WebSockets included.
///
/// Handlers find what is known of their connection in
/// `axum::extract::ConnectInfo<ConnectionInfo>`, and run in its span ([`ConnectionInfo::span`]).
/// A WebSocket moves to another worker if its handler, which takes a [`Session`], has said
/// [`Session::on_migrate`]; else it is closed in its turn.
///
/// # Errors
///
/// If the channel to the primary fails.
pub async fn serve(mut worker: Worker, router: Router) -> Result<(), AcceptError> {
    let drain = worker.drain();
    worker.enable_migration()?;
    worker.ready()?;
    let counted = router.layer(from_fn_with_state(drain.clone(), count));
    let settled = drain.clone();
    let server = axum::serve(
        Listener::new(worker),
        counted.into_make_service_with_connect_info::<Session>(),
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

async fn count(State(drain): State<Drain>, mut request: Request, next: Next) -> Response {
    let _in_flight = drain.request();
    let version = request.version();
    let session = request.extensions().get::<ConnectInfo<Session>>().map(|it| it.0.clone());
    let Some(session) = session else { return next.run(request).await };
    let (info, owed) = (session.info(), session.request_started());
    request.extensions_mut().insert(ConnectInfo(info));
    request.extensions_mut().insert(session);
    // axum's task for the connection is out of reach.
    let mut response = next.run(request).instrument(info.span()).await;
    mark_last(&drain, version, &mut response);
    response.map(|body| Body::new(InFlightBody::new(body, owed)))
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = StatusCode;

    /// # Errors
    ///
    /// "Internal server error" where the request came by another way than a worker's.
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
    /// To be made after the worker has said [`Worker::ready`], or is about to.
    #[must_use]
    pub fn new(worker: Worker) -> Self {
        Self { worker }
    }
}

impl axum::serve::Listener for Listener {
    type Io = SessionStream;
    type Addr = Session;

    /// Pending for ever when no more connections come: graceful shutdown ends the server then.
    async fn accept(&mut self) -> (SessionStream, Session) {
        match self.worker.accept().await {
            Ok(Some(connection)) => return connection.into_session(),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "no more connections come");
                self.worker.end();
            }
        }
        std::future::pending().await
    }

    /// There is no address that the worker itself listens on.
    fn local_addr(&self) -> std::io::Result<Session> {
        Err(std::io::ErrorKind::AddrNotAvailable.into())
    }
}

impl Connected<IncomingStream<'_, Listener>> for ConnectionInfo {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.remote_addr().info()
    }
}

impl Connected<IncomingStream<'_, Listener>> for Session {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.remote_addr().clone()
    }
}
