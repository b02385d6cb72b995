//! What slots leave to a successor, and how they go on from it.

use crate::link::Link;
use crate::link::connection::PendingConnection;
use crate::link::seam::WorkerId;
use crate::protocol::ids::SlotId;

/// Everything that slots hold, and what is to be known of workers beside what the supervisor knows.
#[derive(Debug, Default)]
pub struct SlotEstate {
    /// All of them.
    pub channels: Vec<(WorkerId, Link)>,
    /// Who waits for which slot.
    pub queues: Vec<(SlotId, Vec<PendingConnection>)>,
    /// These broke the protocol.
    pub quarantined: Vec<WorkerId>,
    /// These serve and haven't acknowledged in time.
    pub stalled: Vec<WorkerId>,
}
