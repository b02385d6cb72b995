//! A request that is being answered.
//!
//! Never sees the request: it only counts.

use std::fmt;
use std::sync::Arc;
use tokio::time::Instant;

use crate::protocol::scoreboard::Counter;
use crate::worker::session::cell::StreamCell;
use crate::worker::shared::Shared;

/// Counts a request as in flight until it is dropped: when its answer is made to the end, body
/// included. Its connection doesn't migrate until then.
#[must_use]
pub struct RequestGuard {
    cell: Arc<StreamCell>,
    shared: Option<Arc<Shared>>,
}

impl RequestGuard {
    pub(super) fn new(cell: &Arc<StreamCell>, shared: Option<&Arc<Shared>>) -> Self {
        cell.lock().requests.count();
        if let Some(shared) = shared {
            shared.own.scoreboard.increment(Counter::Requests);
        }
        Self { cell: Arc::clone(cell), shared: shared.cloned() }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.cell.write(|state| {
            state.requests.finish();
            state.input.waiting.begin(Instant::now());
        });
        if let Some(shared) = &self.shared {
            shared.own.scoreboard.decrement(Counter::Requests);
            shared.own.scoreboard.increment(Counter::RequestsTotal);
        }
    }
}

impl fmt::Debug for RequestGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestGuard").finish_non_exhaustive()
    }
}
