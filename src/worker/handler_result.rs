//! Results of handlers.
//!
//! Never ends anything: a handler's error is its connection's alone.

use std::fmt::Display;

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
