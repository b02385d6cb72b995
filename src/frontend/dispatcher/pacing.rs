//! What is done at a pace, and by itself: clients are sent away, sessions go home. Wakes up when
//! something is due, and not otherwise.

use tokio::sync::oneshot;

use crate::frontend::close_requests::Grant;
use crate::frontend::dispatcher::Dispatcher;
use crate::frontend::query::Rebalanced;
use crate::frontend::rebalance::choose;
use crate::link::seam::WorkerId;

/// Who waits to hear how many sessions move.
#[derive(Debug, Default)]
pub(super) struct RebalanceReplies {
    forgotten: u64,
    replies: Vec<oneshot::Sender<Rebalanced>>,
}

impl Dispatcher {
    /// Does what is due.
    pub(super) fn keep_pace(&mut self) {
        while let Some(grant) = self.close_requests.grant(self.now) {
            self.allow(grant);
        }
        if self.rebalance.is_counting() {
            self.end_census();
        }
        while let Some((worker, session)) = self.rebalance.next_move(self.now) {
            if let Some(channel) = self.slots.heard(worker) {
                channel.order_move(session);
                self.touched.push(worker.slot);
            }
        }
        self.log_lost();
    }

    /// Nothing more is to be asked of a worker, and it has nothing to ask.
    pub(super) fn forget_wishes(&mut self, worker: WorkerId) {
        self.close_requests.forget(worker);
        self.rebalance.forget(worker);
    }

    fn allow(&mut self, Grant { worker, count, hurried }: Grant) {
        let Some(channel) = self.slots.heard(worker) else { return };
        channel.allow_closes(count);
        self.touched.push(worker.slot);
        self.counters.shed += u64::from(count);
        if hurried {
            tracing::warn!(
                slot = worker.slot.0,
                generation = worker.generation.0,
                clients = count,
                "worker's time is nearly over, its last clients are sent away at once: \
                 raise close_rate, or give it more time",
            );
        }
    }

    /// One that is asked for while workers count is the same as theirs.
    pub(super) fn begin_rebalance(&mut self, reply: oneshot::Sender<Rebalanced>) {
        self.rebalance_replies.forgotten += self.router.forget_all(self.now);
        self.rebalance_replies.replies.push(reply);
        if self.rebalance.is_counting() {
            return;
        }
        let workers: Vec<_> = self.slots.takers().collect();
        for worker in &workers {
            if let Some(channel) = self.slots.heard(*worker) {
                channel.take_census();
                self.touched.push(worker.slot);
            }
        }
        self.rebalance.begin(workers, self.now);
    }

    fn end_census(&mut self) {
        let Some(counted) = self.rebalance.take_counted(self.now) else { return };
        let moves = choose(&counted, |key| self.router.ideal(key), &self.slots);
        let RebalanceReplies { forgotten, replies } = std::mem::take(&mut self.rebalance_replies);
        let rebalanced = Rebalanced { forgotten, sessions: moves.len() as u64 };
        tracing::info!(forgotten, sessions = rebalanced.sessions, "rebalance begins");
        self.rebalance.begin_moves(moves);
        for reply in replies {
            // Whoever has asked may not wait any more.
            let _ = reply.send(rebalanced);
        }
    }
}
