//! Log lines of connections, at level debug. They carry the same fields as their workers' lines:
//! `connection` is the connection's id. Where that level is off, each costs one comparison.

use std::time::Duration;

use crate::frontend::fallback::FallbackReason;
use crate::link::connection::PendingConnection;
use crate::link::seam::WorkerId;
use crate::protocol::ids::SlotId;
use crate::protocol::message::ConnectionRecord;
use crate::sessions::lines::step;

pub(super) fn fallback(record: &ConnectionRecord, slot: SlotId, reason: FallbackReason) {
    tracing::debug!(
        connection = record.id.0,
        client = %record.client,
        slot = slot.0,
        reason = reason.name(),
        "connection falls back",
    );
}

pub(super) fn handed_over(worker: WorkerId, connection: &PendingConnection) {
    let record = &connection.record;
    if connection.transfer.is_some() {
        return step(worker, record.id, "handed over");
    }
    tracing::debug!(
        connection = record.id.0,
        client = %record.client,
        slot = worker.slot.0,
        generation = worker.generation.0,
        "connection handed over",
    );
}

pub(super) fn acknowledged(worker: WorkerId, record: &ConnectionRecord, time: Duration) {
    tracing::debug!(
        connection = record.id.0,
        client = %record.client,
        slot = worker.slot.0,
        generation = worker.generation.0,
        ?time,
        "connection acknowledged",
    );
}

/// Why a connection is taken back and given to another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RedispatchReason {
    /// Its worker has refused it.
    Refused,
    /// Its worker didn't acknowledge in time.
    Stalled,
    /// No worker came to its slot.
    Unfilled,
    /// Its worker has died.
    Crashed,
}

/// `slot` is where it was.
pub(super) fn redispatched(record: &ConnectionRecord, slot: SlotId, reason: RedispatchReason) {
    let reason = match reason {
        RedispatchReason::Refused => "refused",
        RedispatchReason::Stalled => "stalled",
        RedispatchReason::Unfilled => "unfilled",
        RedispatchReason::Crashed => "crashed",
    };
    tracing::debug!(
        connection = record.id.0,
        client = %record.client,
        slot = slot.0,
        reason,
        "connection redispatched",
    );
}
