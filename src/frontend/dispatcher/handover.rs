//! Everything that the frontend holds, left to a successor at the end of a turn, and taken up by it.

use std::time::Duration;

use crate::frontend::dispatcher::Dispatcher;
use crate::frontend::snapshot::FrontendEstate;
use crate::link::seam::WorkerId;
use crate::protocol::ids::Timestamp;

/// What is on its way may take so long to be acknowledged: it need not be carried over then.
const LAST_ANSWERS: Duration = Duration::from_millis(100);

/// Workers that were known to be something that the supervisor doesn't know, until they are attached
/// and serve again.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) quarantined: Vec<WorkerId>,
    pub(super) stalled: Vec<WorkerId>,
}

impl Known {
    pub(super) fn was_expelled(&mut self, worker: WorkerId) -> bool {
        take(&mut self.quarantined, worker)
    }

    pub(super) fn was_stalled(&mut self, worker: WorkerId) -> bool {
        take(&mut self.stalled, worker)
    }
}

fn take(workers: &mut Vec<WorkerId>, worker: WorkerId) -> bool {
    let position = workers.iter().position(|other| *other == worker);
    position.map(|position| workers.swap_remove(position)).is_some()
}

impl Dispatcher {
    /// Accepts no more, and ends when nothing is on its way or the time for that is over.
    pub(super) fn begin_hand_over(&mut self) {
        self.accepting = false;
        self.handing_over = Some(self.now + LAST_ANSWERS);
    }

    pub(super) fn is_handed_over(&self) -> bool {
        self.handing_over
            .is_some_and(|until: Timestamp| self.slots.in_flight() == 0 || self.now >= until)
    }

    /// A rebalance that is counting or moving is given up, and nobody is told: whoever waits for it
    /// hears that the frontend has ended.
    pub(super) fn into_estate(self) -> FrontendEstate {
        let (listener, accept_errors) = self.acceptor.into_parts();
        FrontendEstate {
            listener,
            accept_errors,
            slots: self.slots.into_estate(),
            counters: self.counters,
            stats: self.stats,
            router: self.router.into_estate(self.now),
            wishes: self.close_requests.into_wishes(),
            unroutable: self.unroutable,
            sessions: self.sessions.into_waiting(),
            recovery: self.recovery,
            page: self.page,
            is_successor: true,
        }
    }
}
