//! What is counted over the pool's whole life: ends, replacements, rolling restarts, and what
//! workers that are gone have done.
//!
//! Pure: told what has happened, decides nothing. Counts only rise, and the words that they are
//! kept by are fixed, so that whoever shows them knows how many there are.

use std::collections::BTreeMap;

use crate::handover::pool::{PoolSlotStatsSnapshot, PoolStatsSnapshot};
use crate::handover::{Carry, carry};
use crate::protocol::ids::SlotId;
use crate::supervisor::lifecycle::KillReason;
use crate::supervisor::pool::status::{DEATHS, REPLACEMENTS, ROLLOUTS};
use crate::supervisor::process::Exit;
use crate::supervisor::rollout::{Cause, Outcome};

/// Counts, each by a word.
pub(super) type Counts = Vec<(&'static str, u64)>;

/// Why a worker ended that nobody had told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// By itself.
    Exited,
    /// By a signal of somebody else's.
    Signal,
    /// The kernel had no memory left.
    OutOfMemory,
    /// Its program couldn't be run.
    NotStarted,
    /// It was killed, for a reason that is no order to end.
    Killed(KillReason),
}

/// The count of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stats {
    crashes: Counts,
    replacements: Counts,
    rollouts: Counts,
    slots: BTreeMap<SlotId, SlotTally>,
}

/// What is counted of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotTally {
    /// Ends that nobody had ordered.
    pub(super) crashes: u64,
    /// Workers that were started.
    pub(super) started: u64,
    /// The last reason for a death.
    pub(super) last_failure: Option<String>,
    /// Connections that workers had taken over that are gone.
    pub(super) connections: u64,
    /// Requests that workers had finished that are gone.
    pub(super) requests: u64,
}

carry!(struct SlotTally => PoolSlotStatsSnapshot { crashes, started, last_failure, connections, requests });

impl Death {
    /// Why a worker died that ended like this and was killed for that reason, if it was. Nothing if
    /// it was killed as ordered.
    pub(super) fn of(killed: Option<KillReason>, exit: Option<Exit>) -> Option<Self> {
        match (killed, exit) {
            (Some(KillReason::GraceOver | KillReason::Superseded | KillReason::StopNow), _) => None,
            (Some(reason), _) => Some(Self::Killed(reason)),
            (None, Some(Exit::Signal(_))) => Some(Self::Signal),
            (None, Some(Exit::Status(_)) | None) => Some(Self::Exited),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Signal => "signal",
            Self::OutOfMemory => "out-of-memory",
            Self::NotStarted => "not-started",
            Self::Killed(KillReason::NotReady) => "not-ready",
            Self::Killed(KillReason::Stalled) => "stalled",
            Self::Killed(KillReason::Memory) => "memory",
            Self::Killed(KillReason::Violation) => "violation",
            // The others are no crashes.
            Self::Killed(_) => "ordered",
        }
    }
}

impl Default for Stats {
    fn default() -> Self {
        let zero = |words: &[&'static str]| words.iter().map(|word| (*word, 0)).collect();
        Self {
            crashes: zero(&DEATHS),
            replacements: zero(&REPLACEMENTS),
            rollouts: zero(&ROLLOUTS),
            slots: BTreeMap::new(),
        }
    }
}

/// Words that are not known any more are left out, new ones start at 0.
impl Carry for Stats {
    type Snapshot = PoolStatsSnapshot;

    fn snapshot(&self) -> PoolStatsSnapshot {
        let [crashes, replacements, rollouts] = [&self.crashes, &self.replacements, &self.rollouts]
            .map(|counts| {
                counts.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
            });
        PoolStatsSnapshot { crashes, replacements, rollouts, slots: self.slots.snapshot() }
    }

    fn restore(snapshot: PoolStatsSnapshot) -> Self {
        let PoolStatsSnapshot { crashes, replacements, rollouts, slots } = snapshot;
        let mut stats = Self { slots: Carry::restore(slots), ..Self::default() };
        let counts = [&mut stats.crashes, &mut stats.replacements, &mut stats.rollouts];
        for (counts, carried) in counts.into_iter().zip([crashes, replacements, rollouts]) {
            for (word, count) in counts {
                *count = carried.get(*word).copied().unwrap_or(0);
            }
        }
        stats
    }
}

impl Stats {
    /// A worker was started.
    pub(super) fn started(&mut self, slot: SlotId) {
        self.slots.entry(slot).or_default().started += 1;
    }

    /// A worker ended that nobody had told to.
    pub(super) fn died(&mut self, slot: SlotId, death: Death, reason: &str) {
        count(&mut self.crashes, death.name());
        let slot = self.slots.entry(slot).or_default();
        slot.crashes += 1;
        slot.last_failure = Some(reason.to_owned());
    }

    /// A worker is gone, however it ended. What it has written itself may be any number.
    pub(super) fn buried(&mut self, slot: SlotId, connections: u64, requests: u64) {
        let slot = self.slots.entry(slot).or_default();
        slot.connections = slot.connections.saturating_add(connections);
        slot.requests = slot.requests.saturating_add(requests);
    }

    /// A single slot has its new worker.
    pub(super) fn replaced(&mut self, cause: Cause) {
        count(&mut self.replacements, cause.name());
    }

    /// A rolling restart has ended.
    pub(super) fn rolled_out(&mut self, outcome: &Outcome) {
        count(&mut self.rollouts, outcome.name());
    }

    /// By [`DEATHS`].
    pub(super) fn crashes(&self) -> Counts {
        self.crashes.clone()
    }

    /// By [`REPLACEMENTS`].
    pub(super) fn replacements(&self) -> Counts {
        self.replacements.clone()
    }

    /// By [`ROLLOUTS`].
    pub(super) fn rollouts(&self) -> Counts {
        self.rollouts.clone()
    }

    /// What was counted of a slot.
    pub(super) fn slot(&self, slot: SlotId) -> SlotTally {
        self.slots.get(&slot).cloned().unwrap_or_default()
    }
}

/// There are no other words than those that it began with.
fn count(counts: &mut Counts, word: &str) {
    if let Some((_, count)) = counts.iter_mut().find(|(known, _)| *known == word) {
        *count += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::supervisor::limits::LimitReason;

    const SLOT: SlotId = SlotId(3);

    fn sum(counts: &Counts) -> u64 {
        counts.iter().map(|(_, count)| count).sum()
    }

    #[test]
    fn every_word_is_there_from_the_start() {
        let stats = Stats::default();
        assert_eq!(stats.crashes().len(), DEATHS.len());
        assert_eq!(stats.replacements().len(), REPLACEMENTS.len());
        assert_eq!(stats.rollouts().len(), ROLLOUTS.len());
        assert_eq!(sum(&stats.crashes()) + sum(&stats.replacements()) + sum(&stats.rollouts()), 0);
    }

    #[test]
    fn every_death_is_counted_by_its_own_word_and_only_as_ordered_is_none() {
        let exits = [None, Some(Exit::Status(0)), Some(Exit::Status(1)), Some(Exit::Signal(9))];
        let killed = |reason| Death::of(Some(reason), Some(Exit::Signal(9)));
        let table = [
            (Death::of(None, exits[0]), Some("exited")),
            (Death::of(None, exits[1]), Some("exited")),
            (Death::of(None, exits[2]), Some("exited")),
            (Death::of(None, exits[3]), Some("signal")),
            (Some(Death::OutOfMemory), Some("out-of-memory")),
            (Some(Death::NotStarted), Some("not-started")),
            (killed(KillReason::NotReady), Some("not-ready")),
            (killed(KillReason::Stalled), Some("stalled")),
            (killed(KillReason::Memory), Some("memory")),
            (killed(KillReason::Violation), Some("violation")),
            (killed(KillReason::Ordered), Some("ordered")),
            (killed(KillReason::GraceOver), None),
            (killed(KillReason::Superseded), None),
            (killed(KillReason::StopNow), None),
        ];
        for (row, (death, word)) in table.into_iter().enumerate() {
            assert_eq!(death.map(Death::name), word, "row {row}");
            let mut stats = Stats::default();
            let Some(death) = death else { continue };
            stats.died(SLOT, death, "why");
            let found = stats.crashes().into_iter().find(|(_, count)| *count == 1);
            assert_eq!(found.map(|(word, _)| word), word, "row {row}");
            assert_eq!(stats.slot(SLOT).last_failure.as_deref(), Some("why"));
        }
    }

    #[test]
    fn every_cause_and_every_outcome_has_its_word() {
        let (used, limit, time) = (2, 1, Duration::from_secs(1));
        let causes = [
            Cause::Limit(LimitReason::Memory { used, limit }),
            Cause::Limit(LimitReason::Age { age: time, limit: time }),
            Cause::Limit(LimitReason::Connections { served: used, limit }),
            Cause::Asked,
            Cause::Ordered,
        ];
        let outcomes = [
            Outcome::Done,
            Outcome::Aborted(SLOT, String::new()),
            Outcome::Superseded,
            Outcome::Stopped,
        ];
        let mut stats = Stats::default();
        causes.into_iter().for_each(|cause| stats.replaced(cause));
        outcomes.iter().for_each(|outcome| stats.rolled_out(outcome));
        assert!(stats.replacements().iter().all(|(_, count)| *count == 1));
        assert!(stats.rollouts().iter().all(|(_, count)| *count == 1));
    }

    #[test]
    fn those_who_are_gone_keep_counting_and_no_number_of_theirs_does_harm() {
        let mut stats = Stats::default();
        stats.started(SLOT);
        stats.buried(SLOT, 5, 7);
        stats.started(SLOT);
        stats.buried(SLOT, 1, u64::MAX);
        let slot = stats.slot(SLOT);
        assert_eq!((slot.started, slot.connections, slot.requests), (2, 6, u64::MAX));
        assert_eq!(stats.slot(SlotId(0)), SlotTally::default());
    }
}
