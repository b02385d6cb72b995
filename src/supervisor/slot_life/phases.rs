//! A slot's workers, the oldest first, and where each stands.

use crate::handover::carry;
use crate::handover::pool::{EndTimesSnapshot, PhasesSnapshot};
use crate::protocol::ids::{Generation, Timestamp};
use crate::supervisor::lifecycle::{KillReason, Phase};

/// The workers and their phases.
#[derive(Clone, Debug, Default)]
pub(super) struct Phases {
    workers: Vec<(Generation, Phase)>,
    /// Those that end by a signal, and when it is sent if it is to be.
    by_signal: Vec<(Generation, Option<EndTimes>)>,
}

/// When a draining worker that ends by a signal is told what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndTimes {
    /// To close its servers and what is idle; none if it was told.
    pub(super) disconnect_at: Option<Timestamp>,
    /// The signal.
    pub(super) signal_at: Timestamp,
}

carry!(struct EndTimes => EndTimesSnapshot { disconnect_at, signal_at });

impl EndTimes {
    /// Of one that is to end by then, from now on: clients that only pause between two requests are closed at half of
    /// the time.
    pub(super) fn until(signal_at: Timestamp, now: Timestamp) -> Self {
        Self { disconnect_at: Some(now + signal_at.since(now) / 2), signal_at }
    }

    fn next(self) -> Timestamp {
        self.disconnect_at.map_or(self.signal_at, |at| at.min(self.signal_at))
    }
}

carry!(struct Phases => PhasesSnapshot { workers, by_signal });

impl Phases {
    pub(super) fn add(&mut self, generation: Generation, phase: Phase) {
        self.workers.push((generation, phase));
    }

    pub(super) fn remove(&mut self, generation: Generation) {
        self.workers.retain(|(worker, _)| *worker != generation);
        self.by_signal.retain(|(worker, _)| *worker != generation);
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

    /// This worker ends by a signal, and gets no order.
    pub(super) fn end_by_signal(&mut self, generation: Generation) {
        if self.get(generation).is_some() && !self.ends_by_signal(generation) {
            self.by_signal.push((generation, None));
        }
    }

    pub(super) fn ends_by_signal(&self, generation: Generation) -> bool {
        self.by_signal.iter().any(|(worker, _)| *worker == generation)
    }

    /// When its signal is due, if it is to be sent.
    pub(super) fn end_times(&self, generation: Generation) -> Option<EndTimes> {
        self.by_signal.iter().find(|(worker, _)| *worker == generation)?.1
    }

    /// Sets that. Nothing for a worker that doesn't end by a signal.
    pub(super) fn set_end_times(&mut self, generation: Generation, times: Option<EndTimes>) {
        let mut by_signal = self.by_signal.iter_mut();
        if let Some(worker) = by_signal.find(|(worker, _)| *worker == generation) {
            worker.1 = times;
        }
    }

    /// The workers whose signal is due.
    pub(super) fn due_signals(&self, now: Timestamp) -> Vec<Generation> {
        let due = |times: &Option<EndTimes>| times.is_some_and(|times| now >= times.signal_at);
        self.by_signal.iter().filter(|(_, it)| due(it)).map(|(worker, _)| *worker).collect()
    }

    /// The workers that are to close their servers now; they aren't returned again.
    pub(super) fn take_due_disconnects(&mut self, now: Timestamp) -> Vec<Generation> {
        let due = self.by_signal.iter_mut().filter_map(|(worker, times)| {
            times.as_mut()?.disconnect_at.take_if(|at| now >= *at).map(|_| *worker)
        });
        due.collect()
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
        let deadlines = self.iter().filter_map(|(_, phase)| limit(phase)).map(|(at, _)| at);
        let ends = self.by_signal.iter().filter_map(|(_, times)| Some((*times)?.next()));
        deadlines.chain(ends).min()
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
