//! A message that a handler has still to send.
//!
//! Never sees the message: it only counts.

use std::fmt;
use std::sync::Arc;

use crate::worker::session::cell::StreamCell;

/// Something that is still to be sent; see [`Migratable::pending_write`](crate::worker::Migratable::pending_write).
/// The session doesn't migrate until it is dropped.
#[must_use]
pub struct PendingWrite {
    cell: Arc<StreamCell>,
}

impl PendingWrite {
    pub(super) fn new(cell: &Arc<StreamCell>) -> Self {
        cell.lock().shape.begin();
        Self { cell: Arc::clone(cell) }
    }
}

impl Drop for PendingWrite {
    fn drop(&mut self) {
        self.cell.write(|state| state.shape.end());
    }
}

impl fmt::Debug for PendingWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingWrite").finish_non_exhaustive()
    }
}
