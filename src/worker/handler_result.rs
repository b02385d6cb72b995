//! Results of handlers.
//!
//! Never ends anything: a handler's error is its connection's alone.

use std::fmt::Display;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

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

pin_project! {
    /// A handler whose result is logged. An async block that awaits it would take its room twice, for as
    /// long as the connection is open.
    #[derive(Debug)]
    pub(crate) struct Logged<F> {
        #[pin]
        handling: F,
    }
}

impl<F> Logged<F> {
    pub(crate) fn new(handling: F) -> Self {
        Self { handling }
    }
}

impl<F: Future<Output: HandlerResult>> Future for Logged<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().handling.poll(cx).map(HandlerResult::log)
    }
}
