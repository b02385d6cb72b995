//! The short way for byte streams that also runs without a primary.
//!
//! Never cuts a handler: the worker ends when its last connection is closed.

use tokio::net::ToSocketAddrs;

use crate::worker::accept::Worker;
use crate::worker::error::ServeError;
use crate::worker::handler_result::HandlerResult;
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
