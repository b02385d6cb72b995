//! Replacements, as the planner orders them: each slot's successor, and what becomes of it.

use std::sync::Arc;

use crate::link::seam::WorkerId;
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::command::WorkerCommand;
use crate::supervisor::event::{Event, WorkerChange};
use crate::supervisor::lifecycle::{Fact, Phase};
use crate::supervisor::pool::{Pool, PoolError};
use crate::supervisor::rollout::{Cause, Outcome, Part, Report, Step};

impl Pool {
    /// Carries out what is planned, until nothing can be done but wait.
    pub(super) async fn plan(&mut self) -> Result<(), PoolError> {
        loop {
            let steps = self.planner.steps(&self.settings.rollout);
            if steps.is_empty() {
                return Ok(());
            }
            for step in steps {
                match step {
                    Step::Begin { number, trigger, of } => {
                        self.links.announcer.announce(Event::RolloutBegun { number, trigger, of });
                    }
                    Step::Replace(slot, cause) => self.replace(slot, cause).await?,
                    Step::End(report) => self.end_rollout(report).await?,
                }
            }
        }
    }

    /// A slot by itself gets a worker of the kind that it has; in a rolling restart, a new one.
    pub(super) async fn replace(
        &mut self,
        slot: SlotId,
        cause: Option<Cause>,
    ) -> Result<(), PoolError> {
        let worker = self.serving(slot);
        let Some(found) = self.slots.get_mut(&slot) else { return Ok(()) };
        let command = if cause.is_some() { &found.command } else { &self.settings.command };
        found.candidate = Some(Arc::clone(command));
        if let (Some(worker), Some(cause)) = (worker, cause) {
            self.announce_worker(worker, WorkerChange::Outdated(cause.to_string()));
        }
        self.on(slot, Fact::Replace).await
    }

    pub(super) fn replaced(&mut self, slot: SlotId) {
        if let Some(found) = self.slots.get_mut(&slot)
            && let Some(command) = found.candidate.take()
        {
            found.command = command;
        }
        let Some(part) = self.planner.replaced(slot) else { return };
        self.links.announcer.announce(Event::Replaced { slot });
        if let Part::Single(cause) = part {
            self.stats.replaced(cause);
        }
    }

    pub(super) fn not_replaced(&mut self, slot: SlotId) {
        if let Some(found) = self.slots.get_mut(&slot) {
            found.candidate = None;
        }
        let reason = match &self.last_failure {
            Some((failed, reason)) if *failed == slot => reason.clone(),
            _ => "was ended before it had proved itself".to_owned(),
        };
        if self.planner.failed(slot, &reason, Timestamp::now()).is_some() {
            self.links.announcer.announce(Event::NotReplaced { slot, reason });
        }
    }

    /// Nothing of a slot is replaced any more.
    pub(super) fn give_up_replacing(&mut self, slot: SlotId, reason: &str) {
        if let Some(found) = self.slots.get_mut(&slot) {
            found.candidate = None;
        }
        if self.planner.removed(slot) {
            let reason = reason.to_owned();
            self.links.announcer.announce(Event::NotReplaced { slot, reason });
        }
    }

    /// Nothing at all is replaced any more.
    pub(super) fn give_up_all_replacing(&mut self) {
        for slot in self.planner.stop() {
            let reason = "everything ends".to_owned();
            self.links.announcer.announce(Event::NotReplaced { slot, reason });
        }
    }

    /// What a slot that comes back runs: of a rolling restart that is under way it isn't known yet
    /// whether its workers are any good.
    pub(super) fn proven_command(&self) -> Arc<WorkerCommand> {
        Arc::clone(&self.before.as_ref().unwrap_or(&self.settings).command)
    }

    /// A worker asks to be replaced. One that isn't ready just ends.
    pub(super) async fn heard_leave(&mut self, worker: WorkerId) -> Result<(), PoolError> {
        let WorkerId { slot, generation } = worker;
        if self.stopping.is_ordered() {
            return Ok(());
        }
        let phase = self.slots.get(&slot).and_then(|slot| slot.life.phase(generation));
        match phase {
            Some(Phase::Spawning { .. } | Phase::Spare { .. }) => {
                self.on(slot, Fact::Leave(generation)).await?
            }
            Some(Phase::Serving { .. }) => {
                self.planner.want(slot, Cause::Asked, Timestamp::now());
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) async fn end_rollout(&mut self, report: Report) -> Result<(), PoolError> {
        let outcome = report.outcome.clone();
        self.stats.rolled_out(&outcome);
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
        Box::pin(self.scale_as_deferred()).await
    }
}
