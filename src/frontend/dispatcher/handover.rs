//! The end of a frontend that has a successor, at the end of a turn, and what the successor takes up.

use std::time::Duration;

use crate::frontend::dispatcher::Dispatcher;
use crate::frontend::snapshot::FrontendHandover;
use crate::link::seam::WorkerId;
use crate::protocol::ids::Timestamp;

/// Connections on their way may take so long to be acknowledged: they need not be carried over then.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_millis(100);

/// The states of workers that the supervisor doesn't know, until they are attached and serve again.
#[derive(Debug, Default)]
pub(super) struct RestoredFlags {
    pub(super) quarantined: Vec<WorkerId>,
    pub(super) stalled: Vec<WorkerId>,
}

impl RestoredFlags {
    pub(super) fn was_quarantined(&mut self, worker: WorkerId) -> bool {
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
    /// Accepts no more, and ends when nothing is on its way or the time for that has passed.
    pub(super) fn begin_hand_over(&mut self) {
        self.accepting = false;
        self.handing_over = Some(self.now + LAST_ANSWERS_TIMEOUT);
    }

    pub(super) fn is_handed_over(&self) -> bool {
        self.handing_over
            .is_some_and(|until: Timestamp| self.slots.in_flight() == 0 || self.now >= until)
    }

    /// A rebalance that is counting or migrating is given up without a message: its requester learns
    /// that the frontend has ended.
    pub(super) fn into_handover(self) -> FrontendHandover {
        let (listener, accept_errors) = self.acceptor.into_parts();
        FrontendHandover {
            listener,
            accept_errors,
            slots: self.slots.into_handover(),
            counters: self.counters,
            stats: self.stats,
            router: self.router.into_snapshot(self.now),
            close_requests: self.close_requests.into_wishes(),
            unroutable: self.unroutable,
            sessions: self.sessions.into_waiting(),
            recovery: self.recovery,
            page: self.page,
            is_successor: true,
        }
    }
}
