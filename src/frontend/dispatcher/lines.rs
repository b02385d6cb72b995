//! A connection's way through the primary in the log, at level debug, in lines that carry the same
//! fields as its worker's: `connection` is its id. Where that level is off they cost a look at a
//! number each.

use std::time::Duration;

use crate::frontend::spill::SpillReason;
use crate::handoff::ids::SlotId;
use crate::handoff::message::ConnectionRecord;
use crate::handoff::slots::WorkerId;

pub(super) fn spilled(record: &ConnectionRecord, slot: SlotId, reason: SpillReason) {
    tracing::debug!(
        connection = record.id.0,
        client = %record.client,
        slot = slot.0,
        reason = reason.name(),
        "connection spilled",
    );
}

pub(super) fn handed_over(worker: WorkerId, record: &ConnectionRecord) {
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
#[derive(Clone, Copy, Debug)]
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
pub(super) fn redelivered(record: &ConnectionRecord, slot: SlotId, reason: TakenBack) {
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
        "connection redelivered",
    );
}
