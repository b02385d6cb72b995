//! A stream at rest: its library wants to read and nothing has come. That is when the checkpoint of a
//! protected session is written.
//!
//! Never calls the app under the lock: its state counts only if nothing has passed meanwhile.

use std::fmt;
use std::sync::Weak;

use crate::worker::session::checkpoint::Checkpoint;

/// Makes the state of a protected session.
pub(crate) trait StateSource: Send + Sync {
    /// The state now, if there is one.
    fn make_state(&self) -> Option<Vec<u8>>;
}

/// The protection of a session, if it has one.
#[derive(Default)]
pub(super) struct Protection {
    /// Bytes read from the socket and written to it since the stream was made.
    pub(super) read: u64,
    pub(super) written: u64,
    /// Set once its handler wants it to be protected.
    pub(super) wanted: Option<Weak<dyn StateSource>>,
    /// Set once it is.
    pub(super) checkpoint: Option<Box<Checkpoint>>,
}

/// A stream that was found at rest.
pub(super) struct RestPoint {
    pub(super) source: Weak<dyn StateSource>,
    read: u64,
    written: u64,
}

impl Protection {
    /// Its rest point, if a checkpoint is wanted.
    pub(super) fn rest_point(&self) -> Option<RestPoint> {
        let source = Weak::clone(self.wanted.as_ref()?);
        Some(RestPoint { source, read: self.read, written: self.written })
    }

    /// Whether bytes have passed since.
    pub(super) fn has_moved_since(&self, point: &RestPoint) -> bool {
        (self.read, self.written) != (point.read, point.written)
    }

    /// The checkpoint of a session from another worker whose handler here doesn't want one.
    pub(super) fn take_unwanted(&mut self) -> Option<Box<Checkpoint>> {
        if self.wanted.is_none() { self.checkpoint.take() } else { None }
    }

    /// The session can only migrate from now on. Returns what is to be dropped when the lock is free.
    pub(super) fn give_up(&mut self) -> Option<Box<Checkpoint>> {
        self.wanted = None;
        self.checkpoint.take()
    }
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protection")
            .field("is_wanted", &self.wanted.is_some())
            .field("checkpoint", &self.checkpoint)
            .finish_non_exhaustive()
    }
}
