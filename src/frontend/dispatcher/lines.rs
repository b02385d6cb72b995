//! A connection's way through the primary in the log, at level debug, in lines that carry the same
//! fields as its worker's: `connection` is its id. Where that level is off they cost a look at a
//! number each.

use std::time::Duration;

use crate::frontend::fallback::FallbackReason;
use crate::link::native::PendingConnection;
use crate::link::seam::WorkerId;
use crate::protocol::ids::{ConnectionId, SlotId};
use crate::protocol::message::ConnectionRecord;

pub(super) fn fallbacks(record: &ConnectionRecord, slot: SlotId, reason: FallbackReason) {
    tracing::debug!(
        connection = record.id.0,
        client = %record.client,
        slot = slot.0,
        reason = reason.name(),
        "connection fallbacks",
    );
}

pub(super) fn handed_over(worker: WorkerId, connection: &PendingConnection) {
    let record = &connection.record;
    if connection.parcel.is_some() {
        return session(worker, record.id, "handed over");
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

pub(super) fn takes_sessions(worker: WorkerId) {
    tracing::debug!(
        slot = worker.slot.0,
        generation = worker.generation.0,
        "worker moves sessions and takes them",
    );
}

/// What happened to a session, and to whose.
pub(super) fn session(worker: WorkerId, id: ConnectionId, what: &'static str) {
    tracing::debug!(
        connection = id.0,
        slot = worker.slot.0,
        generation = worker.generation.0,
        what,
        "session moves",
    );
}

/// Why a connection is taken back and given to another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TakenBack {
    /// Its worker has refused it.
    Refused,
    /// Its worker didn't acknowledge in time.
    Stalled,
    /// No worker came to its slot.
    Unfilled,
    /// Its worker has died.
    Died,
}

/// `slot` is where it was.
pub(super) fn redispatched(record: &ConnectionRecord, slot: SlotId, reason: TakenBack) {
    let reason = match reason {
        TakenBack::Refused => "refused",
        TakenBack::Stalled => "stalled",
        TakenBack::Unfilled => "unfilled",
        TakenBack::Died => "died",
    };
    tracing::debug!(
        connection = record.id.0,
        client = %record.client,
        slot = slot.0,
        reason,
        "connection redispatched",
    );
}
