//! A slot's workers, the oldest first, and where each stands.

use crate::handover::Carry;
use crate::handover::pool::PhaseSnapshot;
use crate::protocol::ids::{Generation, Timestamp};
use crate::supervisor::lifecycle::{KillReason, Phase};

/// The workers and their phases.
#[derive(Clone, Debug, Default)]
pub(super) struct Phases {
    workers: Vec<(Generation, Phase)>,
}

impl Carry for Phases {
    type Snapshot = Vec<(Generation, PhaseSnapshot)>;

    fn snapshot(&self) -> Self::Snapshot {
        self.workers.snapshot()
    }

    fn restore(snapshot: Self::Snapshot) -> Self {
        Self { workers: Carry::restore(snapshot) }
    }
}

impl Phases {
    pub(super) fn add(&mut self, generation: Generation, phase: Phase) {
        self.workers.push((generation, phase));
    }

    pub(super) fn remove(&mut self, generation: Generation) {
        self.workers.retain(|(worker, _)| *worker != generation);
    }

    pub(super) fn get(&self, generation: Generation) -> Option<Phase> {
        self.workers.iter().find(|(worker, _)| *worker == generation).map(|(_, phase)| *phase)
    }

    /// Nothing if there is no such worker.
    pub(super) fn set(&mut self, generation: Generation, phase: Phase) {
        if let Some(worker) = self.workers.iter_mut().find(|(worker, _)| *worker == generation) {
            worker.1 = phase;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Generation, Phase)> {
        self.workers.iter().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The workers of which this is true.
    pub(super) fn which(&self, is: impl Fn(Phase) -> bool) -> Vec<Generation> {
        self.iter().filter(|(_, phase)| is(*phase)).map(|(worker, _)| worker).collect()
    }

    pub(super) fn all(&self) -> Vec<Generation> {
        self.which(|_| true)
    }

    /// The worker that serves, and since when.
    pub(super) fn serving(&self) -> Option<(Generation, Timestamp)> {
        self.iter().find_map(|(worker, phase)| match phase {
            Phase::Serving { since } => Some((worker, since)),
            _ => None,
        })
    }

    pub(super) fn starting(&self) -> Vec<Generation> {
        self.which(|phase| matches!(phase, Phase::Spawning { .. }))
    }

    pub(super) fn standby(&self) -> Vec<Generation> {
        self.which(|phase| matches!(phase, Phase::Standby { .. }))
    }

    pub(super) fn draining(&self) -> Vec<Generation> {
        self.which(|phase| matches!(phase, Phase::Draining { .. }))
    }

    /// The next time at which a worker is overdue.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.iter().filter_map(|(_, phase)| limit(phase)).map(|(deadline, _)| deadline).min()
    }

    /// The workers that have taken too long, and for what.
    pub(super) fn overdue(&self, now: Timestamp) -> Vec<(Generation, KillReason)> {
        let overdue = self.iter().filter_map(|(generation, phase)| {
            let (deadline, reason) = limit(phase)?;
            (now >= deadline).then_some((generation, reason))
        });
        overdue.collect()
    }
}

/// When a phase has to be over, and why its worker is killed else.
fn limit(phase: Phase) -> Option<(Timestamp, KillReason)> {
    match phase {
        Phase::Spawning { deadline } => Some((deadline, KillReason::NotReady)),
        Phase::Draining { deadline, .. } => Some((deadline, KillReason::GraceOver)),
        Phase::Aborted { deadline } => Some((deadline, KillReason::Stalled)),
        Phase::Serving { .. }
        | Phase::Standby { .. }
        | Phase::Spare { .. }
        | Phase::Killed { .. } => None,
    }
}
