//! The slots, each with its life and what its workers run.
//!
//! Pure: owns the facts, starts and tells nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::link::seam::WorkerId;
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::command::WorkerCommand;
use crate::supervisor::lifecycle::{LifecycleSettings, Phase, SlotState};
use crate::supervisor::pool::settings::{MAX_WORKERS, PoolSettings};
use crate::supervisor::slot_life::SlotLife;

/// One slot.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) life: SlotLife,
    /// The command of its workers.
    pub(super) command: Arc<WorkerCommand>,
    /// The command of its next workers, once the worker that tries it is stable.
    pub(super) candidate: Option<Arc<WorkerCommand>>,
    /// Clients belong to it. A new slot gets clients when its first worker serves.
    pub(super) ranked: bool,
}

/// All slots. Removed ones stay, so that their generations go on.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: BTreeMap<SlotId, Slot>,
}

impl FromIterator<(SlotId, Slot)> for Slots {
    fn from_iter<T: IntoIterator<Item = (SlotId, Slot)>>(slots: T) -> Self {
        Self { slots: slots.into_iter().collect() }
    }
}

impl Slots {
    pub(super) fn get(&self, slot: SlotId) -> Option<&Slot> {
        self.slots.get(&slot)
    }

    pub(super) fn get_mut(&mut self, slot: SlotId) -> Option<&mut Slot> {
        self.slots.get_mut(&slot)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        self.slots.iter().map(|(id, slot)| (*id, slot))
    }

    /// The numbers of all slots, removed ones included.
    pub(super) fn ids(&self) -> Vec<SlotId> {
        self.slots.keys().copied().collect()
    }

    /// Adds a slot, or gives a removed one what the settings say.
    pub(super) fn add(&mut self, slot: SlotId, ranked: bool, settings: &PoolSettings) {
        let command = Arc::clone(&settings.command);
        let life = SlotLife::new(settings.lifecycle.clone());
        let new = Slot { life, command: Arc::clone(&command), candidate: None, ranked };
        let slot = self.slots.entry(slot).or_insert(new);
        (slot.command, slot.candidate) = (command, None);
    }

    /// Each slot's life follows these settings from now on.
    pub(super) fn change(&mut self, settings: &LifecycleSettings) {
        for slot in self.slots.values_mut() {
            slot.life.change(settings.clone());
        }
    }

    /// Clients belong to the slot from now on. Says whether they did not before.
    pub(super) fn rank(&mut self, slot: SlotId) -> bool {
        let slot = self.slots.get_mut(&slot);
        slot.is_some_and(|slot| !std::mem::replace(&mut slot.ranked, true))
    }

    /// Clients no longer belong to the slot.
    pub(super) fn unrank(&mut self, slot: SlotId) {
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.ranked = false;
        }
    }

    /// The slots that clients belong to, with their weights.
    pub(super) fn ranked(&self, weights: &[f64]) -> Vec<(SlotId, f64)> {
        let weight = |slot: SlotId| weights.get(slot.index()).copied().unwrap_or(1.0);
        let ranked = self.iter().filter(|(_, slot)| slot.ranked);
        ranked.map(|(slot, _)| (slot, weight(slot))).collect()
    }

    /// The slots that are not removed.
    pub(super) fn active(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        self.iter().filter(|(_, slot)| slot.life.state() != SlotState::Removed)
    }

    pub(super) fn is_active(&self, slot: SlotId) -> bool {
        self.get(slot).is_some_and(|slot| slot.life.state() != SlotState::Removed)
    }

    pub(super) fn count_active(&self) -> u16 {
        count(self.active().count())
    }

    /// Slots that serve, and slots.
    pub(super) fn count_serving(&self) -> (u16, u16) {
        let serving = self.active().filter(|(_, slot)| slot.life.is_serving()).count();
        (count(serving), self.count_active())
    }

    /// The lowest number that no active slot has.
    pub(super) fn first_free(&self) -> Option<SlotId> {
        (0..MAX_WORKERS).map(SlotId).find(|slot| !self.is_active(*slot))
    }

    /// The highest number that an active slot has.
    pub(super) fn last_active(&self) -> Option<SlotId> {
        self.active().map(|(slot, _)| slot).last()
    }

    /// The worker that serves a slot.
    pub(super) fn serving(&self, slot: SlotId) -> Option<WorkerId> {
        let (generation, _) = self.get(slot)?.life.serving()?;
        Some(WorkerId { slot, generation })
    }

    /// The workers that serve.
    pub(super) fn all_serving(&self) -> Vec<WorkerId> {
        self.iter().filter_map(|(slot, _)| self.serving(slot)).collect()
    }

    /// The workers that were not killed yet, and where they stand.
    pub(super) fn all_live(&self) -> Vec<(WorkerId, Phase)> {
        let phases = self.workers().filter_map(|worker| Some((worker, self.phase(worker)?)));
        phases.filter(|(_, phase)| !matches!(phase, Phase::Killed { .. })).collect()
    }

    /// All workers that the slots have.
    pub(super) fn workers(&self) -> impl Iterator<Item = WorkerId> {
        self.iter().flat_map(|(slot, found)| {
            found.life.workers().map(move |(generation, _)| WorkerId { slot, generation })
        })
    }

    /// Where a worker stands.
    pub(super) fn phase(&self, worker: WorkerId) -> Option<Phase> {
        self.get(worker.slot)?.life.phase(worker.generation)
    }

    /// Whether the worker was told to end.
    pub(super) fn is_end_ordered(&self, worker: WorkerId) -> bool {
        let Some(slot) = self.get(worker.slot) else { return true };
        slot.life.state() == SlotState::Removed
            || matches!(slot.life.phase(worker.generation), Some(Phase::Draining { .. }))
    }

    /// When time alone changes something next.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.slots.values().filter_map(|slot| slot.life.next_deadline()).min()
    }
}

fn count(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}
