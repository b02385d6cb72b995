//! Limits for slow clients of a server of HTTP/1.1.
//!
//! Holds data and decides nothing.

use std::time::Duration;

/// Limits of the servers `worker::axum` and `worker::hyper`, which neither library has by itself. See
/// [`Worker::set_http_limits`](crate::worker::Worker::set_http_limits).
///
/// They hold for HTTP/1.1, for as long as no request is being answered; the time for a request's body and
/// for an answer is the app's concern. A migration doesn't begin them again. A connection on which a
/// chunked request came, or that speaks HTTP/2, is not watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpLimits {
    /// How long a new connection may take until its first request's head is there, and a head that has
    /// begun on a connection that is kept alive. None: for ever.
    pub header_timeout: Option<Duration>,
    /// How long a connection that is kept alive may wait for the next request. None: for ever.
    pub idle_timeout: Option<Duration>,
    /// Bytes of a request's head, 8,192 at least. A longer one is answered with status 431.
    pub max_head_bytes: usize,
}

impl HttpLimits {
    /// 30 seconds for a head, 75 seconds between requests, 64 KiB.
    #[must_use]
    pub fn new() -> Self {
        Self {
            header_timeout: Some(Duration::from_secs(30)),
            idle_timeout: Some(Duration::from_secs(75)),
            max_head_bytes: 64 * 1024,
        }
    }

    /// Sets [`HttpLimits::header_timeout`].
    #[must_use]
    pub fn header_timeout(self, header_timeout: Option<Duration>) -> Self {
        Self { header_timeout, ..self }
    }

    /// Sets [`HttpLimits::idle_timeout`].
    #[must_use]
    pub fn idle_timeout(self, idle_timeout: Option<Duration>) -> Self {
        Self { idle_timeout, ..self }
    }

    /// Sets [`HttpLimits::max_head_bytes`].
    #[must_use]
    pub fn max_head_bytes(self, max_head_bytes: usize) -> Self {
        Self { max_head_bytes, ..self }
    }
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self::new()
    }
}
