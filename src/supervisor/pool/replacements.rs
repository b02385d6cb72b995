//! Replacements, as the planner orders them: each slot's successor, and what becomes of it.

use std::sync::Arc;

use crate::handoff::ids::{SlotId, Timestamp};
use crate::handoff::slots::WorkerId;
use crate::supervisor::event::{Event, WorkerChange};
use crate::supervisor::lifecycle::{Fact, Phase};
use crate::supervisor::pool::{Pool, PoolError};
use crate::supervisor::rollout::{Outcome, Report};

impl Pool {
    /// A slot by itself gets a worker of the kind that it has; in a rolling restart, a new one.
    pub(super) async fn replace(
        &mut self,
        slot: SlotId,
        reason: Option<String>,
    ) -> Result<(), PoolError> {
        let worker = self.serving(slot);
        let Some(found) = self.slots.get_mut(&slot) else { return Ok(()) };
        let command = if reason.is_some() { &found.command } else { &self.settings.command };
        found.candidate = Some(Arc::clone(command));
        if let (Some(worker), Some(reason)) = (worker, reason) {
            self.announce_worker(worker, WorkerChange::Outdated(reason));
        }
        self.on(slot, Fact::Replace).await
    }

    pub(super) fn replaced(&mut self, slot: SlotId) {
        if let Some(found) = self.slots.get_mut(&slot)
            && let Some(command) = found.candidate.take()
        {
            found.command = command;
        }
        self.links.announcer.announce(Event::Replaced { slot });
        self.planner.replaced(slot);
    }

    pub(super) fn not_replaced(&mut self, slot: SlotId) {
        if let Some(found) = self.slots.get_mut(&slot) {
            found.candidate = None;
        }
        let reason = match &self.last_failure {
            Some((failed, reason)) if *failed == slot => reason.clone(),
            _ => "was ended before it had proved itself".to_owned(),
        };
        self.planner.failed(slot, &reason, Timestamp::now());
        self.links.announcer.announce(Event::NotReplaced { slot, reason });
    }

    /// A worker asks to be replaced. One that isn't ready just ends.
    pub(super) async fn heard_leave(&mut self, worker: WorkerId) -> Result<(), PoolError> {
        let WorkerId { slot, generation } = worker;
        if self.stopping.is_ordered() {
            return Ok(());
        }
        let phase = self.slots.get(&slot).and_then(|slot| slot.life.phase(generation));
        match phase {
            Some(Phase::Spawning { .. }) => self.on(slot, Fact::Leave(generation)).await?,
            Some(Phase::Serving { .. }) => {
                self.planner.want(slot, "asks for it", Timestamp::now());
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) async fn end_rollout(&mut self, report: Report) -> Result<(), PoolError> {
        let outcome = report.outcome.clone();
        self.links.announcer.announce(Event::RolloutEnded(report));
        // Whatever follows settles it.
        if self.planner.is_rolling() || outcome == Outcome::Stopped {
            return Ok(());
        }
        let before = self.before.take();
        if outcome == Outcome::Done {
            self.rank().await?;
            if self.settings.autoscale.is_none() {
                Box::pin(self.scale_to(self.settings.workers, "reload")).await?;
            }
        } else if let Some(before) = before {
            self.settings = before;
            self.apply_settings();
        }
        match std::mem::take(&mut self.deferred) {
            0 => Ok(()),
            delta => Box::pin(self.scale_by(delta, "signal")).await,
        }
    }
}
