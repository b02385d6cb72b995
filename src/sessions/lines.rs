//! Log lines of sessions, at level debug. `connection` is the session's id, as in its workers' logs.

use crate::link::seam::WorkerId;
use crate::protocol::ids::ConnectionId;
use crate::sessions::recovery_outcome::RecoveryFailure;

/// A step of a session's migration. `worker` is the one that the step is about.
pub fn step(worker: WorkerId, id: ConnectionId, step: &'static str) {
    tracing::debug!(
        connection = id.0,
        slot = worker.slot.0,
        generation = worker.generation.0,
        step,
        "session migrates",
    );
}

pub(super) fn sessions_enabled(worker: WorkerId) {
    tracing::debug!(
        slot = worker.slot.0,
        generation = worker.generation.0,
        "worker migrates sessions and takes them",
    );
}

pub(super) fn recovery_failed(worker: WorkerId, id: ConnectionId, failure: RecoveryFailure) {
    tracing::debug!(
        connection = id.0,
        slot = worker.slot.0,
        generation = worker.generation.0,
        reason = failure.name(),
        "session recovery failed",
    );
}
