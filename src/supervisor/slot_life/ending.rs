//! How a slot's workers go: they drain, or are killed; one of them, or all.

use std::time::Duration;

use crate::handoff::ids::{Generation, Timestamp};
use crate::supervisor::lifecycle::{Action, KillReason, Phase, SlotState};
use crate::supervisor::slot_life::{Aim, DRAINED, SlotLife};

impl SlotLife {
    pub(super) fn leave(&mut self, generation: Generation, now: Timestamp) -> Vec<Action> {
        let starts = matches!(self.phase(generation), Some(Phase::Spawning { .. }));
        let grace = self.settings.drain_timeout;
        starts.then(|| self.drain(generation, grace, now)).flatten().into_iter().collect()
    }

    /// All workers drain, within `grace` at the most, and none follows.
    pub(super) fn end(&mut self, grace: Duration, now: Timestamp) -> Vec<Action> {
        self.aim = Aim::Removed;
        self.drain_all(grace, now)
    }

    /// All workers are killed, and none follows.
    pub(super) fn end_at_once(&mut self) -> Vec<Action> {
        self.aim = Aim::Removed;
        let all = self.generations().into_iter();
        all.flat_map(|worker| self.kill(worker, KillReason::StopNow)).collect()
    }

    /// All workers drain, and none follows until an order to start.
    pub(super) fn take_out(&mut self, now: Timestamp) -> Vec<Action> {
        if matches!(self.aim, Aim::Removed | DRAINED) {
            return Vec::new();
        }
        self.aim = DRAINED;
        let mut actions = self.drain_all(self.settings.drain_timeout, now);
        actions.extend(self.drained());
        actions
    }

    /// Says so once the last worker has ended.
    pub(super) fn drained(&self) -> Vec<Action> {
        let empty = self.workers.is_empty();
        empty.then_some(Action::Rest(SlotState::Drained)).into_iter().collect()
    }

    fn drain_all(&mut self, grace: Duration, now: Timestamp) -> Vec<Action> {
        (self.candidate, self.proven_at) = (None, None);
        let all = self.generations().into_iter();
        all.filter_map(|generation| self.drain(generation, grace, now)).collect()
    }

    /// One that drains already has no more time than this.
    pub(super) fn drain(
        &mut self,
        generation: Generation,
        grace: Duration,
        now: Timestamp,
    ) -> Option<Action> {
        let deadline = now + grace;
        let (since, action) = match self.phase(generation)? {
            Phase::Serving { since } | Phase::Standby { since } => {
                (Some(since), Some(Action::Drain(generation)))
            }
            Phase::Spawning { .. } => (None, Some(Action::Terminate(generation))),
            Phase::Draining { since, deadline: before } => {
                self.set(generation, Phase::Draining { since, deadline: deadline.min(before) });
                return None;
            }
            Phase::Killed { .. } | Phase::Aborted { .. } => return None,
        };
        self.set(generation, Phase::Draining { since, deadline });
        self.bound_draining(now);
        action
    }

    /// The oldest of too many generations that drain has little time left.
    fn bound_draining(&mut self, now: Timestamp) {
        let drains = |(_, phase): &&(_, Phase)| matches!(phase, Phase::Draining { .. });
        let draining: Vec<_> = self.workers.iter().filter(drains).map(|(it, _)| *it).collect();
        let surplus = draining.len().saturating_sub(usize::from(self.settings.max_draining));
        for generation in &draining[..surplus] {
            self.hurry(*generation, now);
        }
    }

    pub(super) fn hurry(&mut self, generation: Generation, now: Timestamp) {
        if let Some(Phase::Draining { since, deadline }) = self.phase(generation) {
            let deadline = deadline.min(now + self.settings.kill_timeout);
            self.set(generation, Phase::Draining { since, deadline });
        }
    }

    pub(super) fn kill(&mut self, generation: Generation, reason: KillReason) -> Vec<Action> {
        let since = match self.phase(generation) {
            None | Some(Phase::Killed { .. }) => return Vec::new(),
            Some(Phase::Spawning { .. } | Phase::Aborted { .. }) => None,
            Some(Phase::Serving { since } | Phase::Standby { since }) => Some(since),
            Some(Phase::Draining { since, .. }) => since,
        };
        self.set(generation, Phase::Killed { since });
        vec![Action::Kill(generation, reason)]
    }

    fn generations(&self) -> Vec<Generation> {
        self.workers.iter().map(|(worker, _)| *worker).collect()
    }
}
