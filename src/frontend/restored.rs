//! Flags of workers that another frontend had set and that the supervisor doesn't know.

use crate::link::seam::WorkerId;

/// Workers with flags, until they are attached and serve again.
#[derive(Debug, Default)]
pub(super) struct RestoredFlags {
    quarantined: Vec<WorkerId>,
    stalled: Vec<WorkerId>,
}

impl RestoredFlags {
    pub(super) fn new(quarantined: Vec<WorkerId>, stalled: Vec<WorkerId>) -> Self {
        Self { quarantined, stalled }
    }

    /// Whether the worker was quarantined; true once.
    pub(super) fn take_quarantined(&mut self, worker: WorkerId) -> bool {
        take(&mut self.quarantined, worker)
    }

    /// Whether the worker was stalled; true once.
    pub(super) fn take_stalled(&mut self, worker: WorkerId) -> bool {
        take(&mut self.stalled, worker)
    }
}

fn take(workers: &mut Vec<WorkerId>, worker: WorkerId) -> bool {
    let position = workers.iter().position(|other| *other == worker);
    position.map(|position| workers.swap_remove(position)).is_some()
}
