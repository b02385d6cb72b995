//! The spare: a worker of the next generation that is ready beside the one that serves, and takes over
//! in the moment in which that one dies.
//!
//! It is started when the one that serves has proved itself, and never while a replacement is under
//! way: what it runs would be outdated. One that dies is followed by another after the longest pause,
//! and is no death of the slot's: clients don't notice it.

use crate::handover::carry;
use crate::handover::pool::SpareSnapshot;
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::{Generation, Timestamp};
use crate::supervisor::lifecycle::{Action, Phase};
use crate::supervisor::restart::Verdict;
use crate::supervisor::slot_life::{DesiredState, SlotLife};

/// Who it is, and when the next one may be started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spare {
    generation: Option<Generation>,
    not_before: Option<Timestamp>,
}

carry!(struct Spare => SpareSnapshot { generation, not_before });

impl SlotLife {
    fn is_spare(&self, generation: Generation) -> bool {
        self.spare.generation == Some(generation)
    }

    /// A worker is ready. Whether it waits; it doesn't where the one that served has died meanwhile.
    pub(super) fn becomes_spare(&mut self, generation: Generation, now: Timestamp) -> bool {
        let waits = self.is_spare(generation) && self.is_serving();
        if waits {
            self.set(generation, Phase::Spare { since: now });
        } else if self.is_spare(generation) {
            self.spare = Spare::default();
        }
        waits
    }

    /// When the next one is due.
    pub(super) fn next_spare(&self) -> Option<Timestamp> {
        self.spare.not_before.filter(|_| self.needs_spare())
    }

    /// Starts one where one is missing, and ends one that is not wanted any more.
    pub(super) fn keep_spare(&mut self, now: Timestamp) -> Vec<Action> {
        if !self.settings.spare {
            return self.dismiss_spare(now);
        }
        if !self.needs_spare() || self.spare.not_before.is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.spare = Spare { generation: Some(Generation(self.next_generation)), not_before: None };
        self.spawn(now)
    }

    fn needs_spare(&self) -> bool {
        self.settings.spare
            && self.spare.generation.is_none()
            && self.aim == DesiredState::Filled
            && self.is_serving()
            && self.proven_at.is_none()
            && self.candidate.is_none()
            && !self.is_starting()
    }

    /// Ends it: it has no clients, so that it needs little time.
    pub(super) fn dismiss_spare(&mut self, now: Timestamp) -> Vec<Action> {
        let Some(generation) = self.spare.generation.take() else { return Vec::new() };
        let window = self.settings.kill_timeout;
        self.drain(generation, DrainOrder { window, ..self.while_others_go_on() }, now)
    }

    /// A worker has ended. Whether it was the spare.
    pub(super) fn lose_spare(&mut self, generation: Generation, now: Timestamp) -> bool {
        let lost = self.is_spare(generation);
        if lost {
            let not_before = Some(now + self.settings.restart.longest_delay);
            self.spare = Spare { generation: None, not_before };
        }
        lost
    }

    /// The worker that served has died: the spare serves, if it is ready and the slot goes on.
    pub(super) fn follow_by_spare(
        &mut self,
        verdict: Verdict,
        now: Timestamp,
    ) -> Option<Vec<Action>> {
        let generation = self.spare.generation?;
        let is_ready = matches!(self.phase(generation), Some(Phase::Spare { .. }));
        let Verdict::Restart(delay) = verdict else {
            let mut actions = self.dismiss_spare(now);
            actions.extend(self.after_death(verdict, now));
            return Some(actions);
        };
        if !is_ready {
            return None;
        }
        self.spare = Spare { generation: None, not_before: Some(now + delay) };
        self.set(generation, Phase::Serving { since: now });
        self.proven_at = Some(now + self.settings.restart.min_uptime);
        Some(vec![Action::Serve(generation)])
    }
}
