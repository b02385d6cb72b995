//! Slots that have stopped, and the start of the next ones from them.

use crate::link::Attached;
use crate::link::connection::PendingConnection;
use crate::link::seam::WorkerId;
use crate::protocol::ids::SlotId;

/// Everything that slots hold, and what the supervisor doesn't know of their workers.
#[derive(Debug, Default)]
pub struct SlotsHandover {
    /// All channels.
    pub channels: Vec<(WorkerId, Attached)>,
    /// The connections that wait for a slot.
    pub queues: Vec<(SlotId, Vec<PendingConnection>)>,
    /// Workers that broke the protocol.
    pub quarantined: Vec<WorkerId>,
    /// Workers that serve and haven't acknowledged in time.
    pub stalled: Vec<WorkerId>,
}
