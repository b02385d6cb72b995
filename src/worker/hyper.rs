//! Serves any hyper service on the connections that arrive: HTTP/1.1 and HTTP/2, with upgrades.
//!
//! Never cuts a request: when the worker is to end, each connection answers the request that it has
//! begun, idle ones are closed, and one that came just before still gets its answer.

use std::error::Error;
use std::pin::{Pin, pin};

use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::Service;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::ToSocketAddrs;
use tracing::{Instrument, Span};

use crate::worker::accept::Worker;
use crate::worker::drain::Drain;
use crate::worker::error::{ChannelError, ServeError};
use crate::worker::http_limits::HttpLimits;
use crate::worker::session::api::Session;
use crate::worker::session::in_flight::InFlightBody;
use crate::worker::session::stream::SessionStream;

/// hyper reads no less at once.
const MIN_HEAD_BYTES: usize = 8192;

type BoxError = Box<dyn Error + Send + Sync>;

/// Says ready, serves until the worker is to end, and returns when the last connection is closed.
///
/// Each request carries its [`ConnectionInfo`](crate::worker::ConnectionInfo) and its [`Session`] as
/// extensions, and is handled in its connection's span
/// ([`ConnectionInfo::span`](crate::worker::ConnectionInfo::span)). A WebSocket migrates to another
/// worker if its handler has declared how; else it is closed in its turn.
///
/// # Errors
///
/// If the channel to the primary fails.
pub async fn serve<S, B>(mut worker: Worker, service: S) -> Result<(), ChannelError>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let drain = worker.drain();
    worker.enable_migration()?;
    let builder = builder(worker.watch_http());
    worker.ready()?;
    while let Some(connection) = worker.accept().await? {
        let span = connection.span().clone();
        let (stream, session) = connection.into_session();
        let counted =
            Counted { service: service.clone(), session, span: span.clone(), drain: drain.clone() };
        tokio::spawn(serve_connection(builder.clone(), stream, counted).instrument(span));
    }
    drain.completed().await;
    Ok(())
}

/// Serves as [`serve`] does; without a primary on an address of its own, see
/// [`worker::serve_or_listen`](crate::worker::serve_or_listen).
///
/// # Errors
///
/// If the process can't attach, the address can't be had, or the channel to the primary fails.
pub async fn serve_or_listen<S, B>(
    address: impl ToSocketAddrs,
    service: S,
) -> Result<(), ServeError>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    Ok(serve(Worker::attach_or_listen(address).await?, service).await?)
}

fn builder(limits: HttpLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(limits.max_head_bytes.max(MIN_HEAD_BYTES));
    builder.http2().enable_connect_protocol();
    builder
}

async fn serve_connection<S, B>(
    builder: Builder<TokioExecutor>,
    stream: SessionStream,
    service: Counted<S>,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let drain = service.drain.clone();
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let result = tokio::select! {
        biased;
        result = serving.as_mut() => result,
        () = drain.quiesced() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        // A client's mistake is no concern of the operator's.
        tracing::debug!(%error, "connection ended with an error");
    }
}

/// A service that counts its requests and tells them their connection.
struct Counted<S> {
    service: S,
    session: Session,
    span: Span,
    drain: Drain,
}

impl<S, B> Service<Request<Incoming>> for Counted<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: Body,
{
    type Response = Response<InFlightBody<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let in_flight = self.session.request_started();
        request.extensions_mut().insert(self.session.info());
        request.extensions_mut().insert(self.session.clone());
        let (version, drain) = (request.version(), self.drain.clone());
        let answer = self.service.call(request);
        let answered = async move {
            let mut response = answer.await?;
            mark_last(&drain, version, &mut response);
            Ok(response.map(|body| InFlightBody::new(body, in_flight)))
        };
        // In HTTP/2 a request has a task of its own, outside of the connection's.
        Box::pin(answered.instrument(self.span.clone()))
    }
}

/// Marks an answer as its connection's last when the worker drains. For HTTP/2 hyper does so; an
/// upgraded connection goes on.
fn mark_last<B>(drain: &Drain, version: Version, response: &mut Response<B>) {
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if drain.is_closing() && version <= Version::HTTP_11 && !upgraded {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}
