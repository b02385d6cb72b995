//! The short way for byte streams: everything that a worker does but the handler.
//!
//! Never cuts a handler: the worker ends when its last connection is closed.

use std::fmt::Display;

use tokio::net::ToSocketAddrs;
use tracing::Instrument;

use crate::worker::accept::Worker;
use crate::worker::error::{ChannelError, ServeError};
use crate::worker::session::api::Session;
use crate::worker::session::stream::SessionStream;

/// Serves with this handler as [`Worker::serve`] does; without a primary on an address of its own.
///
/// Without a primary nothing migrates: [`Session::restored`] is `None` and [`Session::migrating`]
/// never resolves. Ctrl-C or SIGTERM ends it: WebSockets are closed, other connections have a few
/// seconds. A second signal ends it at once.
///
/// # Errors
///
/// If the process can't attach, the address can't be had, or the channel to the primary fails.
///
/// # Examples
///
/// ```no_run
/// # async fn run() -> Result<(), sticky_lb::worker::ServeError> {
/// use sticky_lb::worker::serve_or_listen;
/// use tokio::io::AsyncWriteExt;
///
/// serve_or_listen("127.0.0.1:3000", async |mut stream, _| stream.write_all(b"hello\n").await).await
/// # }
/// ```
pub async fn serve_or_listen<H, F>(
    address: impl ToSocketAddrs,
    handler: H,
) -> Result<(), ServeError>
where
    H: FnMut(SessionStream, Session) -> F,
    F: Future<Output: HandlerResult> + Send + 'static,
{
    Ok(Worker::attach_or_listen(address).await?.serve(handler).await?)
}

/// A handler's result: nothing, or a `Result`, whose error is logged at level debug.
pub trait HandlerResult {
    /// Logs the error, if it is one. A client that goes away is no concern of the operator's.
    fn log(self);
}

impl HandlerResult for () {
    fn log(self) {}
}

impl<T, E: Display> HandlerResult for Result<T, E> {
    fn log(self) {
        if let Err(error) = self {
            tracing::debug!(%error, "connection ended with an error");
        }
    }
}

pub(super) async fn serve<H, F>(mut worker: Worker, mut handler: H) -> Result<(), ChannelError>
where
    H: FnMut(SessionStream, Session) -> F,
    F: Future<Output: HandlerResult> + Send + 'static,
{
    let drain = worker.drain();
    worker.enable_migration()?;
    worker.ready()?;
    while let Some(connection) = worker.accept().await? {
        let span = connection.span().clone();
        let (stream, session) = connection.into_session();
        let handling = handler(stream, session);
        tokio::spawn(async move { handling.await.log() }.instrument(span));
    }
    drain.completed().await;
    Ok(())
}
