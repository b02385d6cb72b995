//! How a slot's workers go: they drain, or are killed; one of them, or all.

use crate::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use crate::protocol::ids::{Generation, Timestamp};
use crate::supervisor::lifecycle::{Action, KillReason, LifecycleSettings, Phase, SlotState};
use crate::supervisor::slot_life::{DRAINED, DesiredState, SlotLife};

impl SlotLife {
    pub(super) fn leave(&mut self, generation: Generation, now: Timestamp) -> Vec<Action> {
        let phase = self.phase(generation);
        let takes_none = matches!(phase, Some(Phase::Spawning { .. } | Phase::Spare { .. }));
        if !takes_none {
            return Vec::new();
        }
        self.drain(generation, self.while_others_go_on(), now)
    }

    /// All workers drain, and none follows.
    pub(super) fn end(&mut self, order: DrainOrder, now: Timestamp) -> Vec<Action> {
        self.aim = DesiredState::Removed;
        self.drain_all(order, now)
    }

    /// All workers are killed, and none follows.
    pub(super) fn end_at_once(&mut self) -> Vec<Action> {
        self.aim = DesiredState::Removed;
        let all = self.generations().into_iter();
        all.flat_map(|worker| self.kill(worker, KillReason::StopNow)).collect()
    }

    /// All workers drain, and none follows until an order to start.
    pub(super) fn take_out(&mut self, now: Timestamp) -> Vec<Action> {
        if matches!(self.aim, DesiredState::Removed | DRAINED) {
            return Vec::new();
        }
        self.aim = DRAINED;
        let mut actions = self.drain_all(self.while_others_go_on(), now);
        actions.extend(self.drained());
        actions
    }

    /// Says so once the last worker has ended.
    pub(super) fn drained(&self) -> Vec<Action> {
        let empty = self.workers.is_empty();
        empty.then_some(Action::Idle(SlotState::Drained)).into_iter().collect()
    }

    /// For those that are replaced, drained or removed: their clients come back to others.
    pub(super) fn while_others_go_on(&self) -> DrainOrder {
        let LifecycleSettings { drain: mode, drain_timeout: window, .. } = self.settings;
        DrainOrder { mode, reason: DrainReason::Restart, window }
    }

    /// Nobody is left to move to.
    pub(super) fn when_everything_ends(&self) -> DrainOrder {
        let mode = match self.settings.drain {
            DrainMode::Wait => DrainMode::Wait,
            DrainMode::Close | DrainMode::Migrate => DrainMode::Close,
        };
        let window = self.settings.kill_timeout;
        DrainOrder { mode, reason: DrainReason::GoingAway, window }
    }

    fn drain_all(&mut self, order: DrainOrder, now: Timestamp) -> Vec<Action> {
        (self.candidate, self.proven_at) = (None, None);
        let all = self.generations().into_iter();
        all.flat_map(|generation| self.drain(generation, order, now)).collect()
    }

    pub(super) fn drain(
        &mut self,
        generation: Generation,
        order: DrainOrder,
        now: Timestamp,
    ) -> Vec<Action> {
        let (since, told, action) = match self.phase(generation) {
            Some(Phase::Serving { since } | Phase::Standby { since }) => {
                (Some(since), Some(order), Action::Drain(generation, order))
            }
            Some(Phase::Spare { .. }) => (None, Some(order), Action::Drain(generation, order)),
            Some(Phase::Spawning { .. }) => (None, None, Action::Terminate(generation)),
            Some(Phase::Draining { .. }) => {
                return self.shorten_deadline_to(generation, order, now);
            }
            None | Some(Phase::Killed { .. } | Phase::Aborted { .. }) => return Vec::new(),
        };
        self.set(generation, Phase::Draining { since, deadline: now + order.window, told });
        let mut actions = vec![action];
        actions.extend(self.bound_draining(now));
        actions
    }

    /// The oldest of too many generations that drain has little time left.
    fn bound_draining(&mut self, now: Timestamp) -> Vec<Action> {
        let drains = |(_, phase): &&(_, Phase)| matches!(phase, Phase::Draining { .. });
        let draining: Vec<_> = self.workers.iter().filter(drains).map(|(it, _)| *it).collect();
        let surplus = draining.len().saturating_sub(usize::from(self.settings.max_draining));
        draining
            .into_iter()
            .take(surplus)
            .flat_map(|worker| self.shorten_deadline(worker, now))
            .collect()
    }

    pub(super) fn shorten_deadline(
        &mut self,
        generation: Generation,
        now: Timestamp,
    ) -> Vec<Action> {
        let window = self.settings.kill_timeout;
        self.shorten_deadline_to(
            generation,
            DrainOrder { window, ..self.while_others_go_on() },
            now,
        )
    }

    /// One that drains has never more time than before. How its clients go is changed by the end of
    /// everything alone.
    fn shorten_deadline_to(
        &mut self,
        generation: Generation,
        order: DrainOrder,
        now: Timestamp,
    ) -> Vec<Action> {
        let Some(Phase::Draining { since, deadline: before, told }) = self.phase(generation) else {
            return Vec::new();
        };
        let deadline = before.min(now + order.window);
        let window = deadline.since(now);
        let again = told.map(|told| match order.reason {
            DrainReason::Restart => DrainOrder { window, ..told },
            DrainReason::GoingAway => DrainOrder { window, ..order },
        });
        let reason = |order: Option<DrainOrder>| order.map(|order| order.reason);
        if deadline == before && reason(again) == reason(told) {
            return Vec::new();
        }
        self.set(generation, Phase::Draining { since, deadline, told: again });
        again.map(|order| Action::Hasten(generation, order)).into_iter().collect()
    }

    pub(super) fn kill(&mut self, generation: Generation, reason: KillReason) -> Vec<Action> {
        let since = match self.phase(generation) {
            None | Some(Phase::Killed { .. }) => return Vec::new(),
            Some(Phase::Spawning { .. } | Phase::Aborted { .. } | Phase::Spare { .. }) => None,
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
