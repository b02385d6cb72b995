//! Counts over the pool's whole life: crashes, replacements, rolling restarts, and the connections
//! and requests of workers that are gone.
//!
//! Pure: told what has happened, decides nothing. Counts only rise, and the words that they are
//! kept by are fixed, so that metrics know how many there are.

use std::collections::BTreeMap;

use crate::handover::pool::{PoolSlotStatsSnapshot, PoolStatsSnapshot};
use crate::handover::{Carry, carry};
use crate::protocol::ids::SlotId;
use crate::supervisor::lifecycle::KillReason;
use crate::supervisor::pool::status::{CRASHES, REPLACEMENTS, ROLLOUTS};
use crate::supervisor::process::Exit;
use crate::supervisor::rollout::{Cause, Outcome};

/// Counts, each by a word.
pub(super) type Counts = Vec<(&'static str, u64)>;

/// The kind of a crash: the end of a worker that was not ordered to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// By itself.
    Exited,
    /// By a signal of another process.
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
    slots: BTreeMap<SlotId, SlotStats>,
}

/// The counts of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotStats {
    /// Ends that were not ordered.
    pub(super) crashes: u64,
    /// Workers that were started.
    pub(super) started: u64,
    /// The reason of the last crash.
    pub(super) last_failure: Option<String>,
    /// Connections that workers that are gone had taken over.
    pub(super) connections: u64,
    /// Requests that workers that are gone had finished.
    pub(super) requests: u64,
}

carry!(struct SlotStats => PoolSlotStatsSnapshot { crashes, started, last_failure, connections, requests });

impl Crash {
    /// The kind of a crash that ended like this, of a worker that was killed for that reason, if it
    /// was. Nothing if it was killed as ordered.
    pub(super) fn new(killed: Option<KillReason>, exit: Option<Exit>) -> Option<Self> {
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
            Self::Killed(KillReason::Stalled | KillReason::Stopped) => "stalled",
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
            crashes: zero(&CRASHES),
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

    /// A worker has crashed.
    pub(super) fn crashed(&mut self, slot: SlotId, crash: Crash, reason: &str) {
        count(&mut self.crashes, crash.name());
        let slot = self.slots.entry(slot).or_default();
        slot.crashes += 1;
        slot.last_failure = Some(reason.to_owned());
    }

    /// A worker is gone, however it ended. The numbers that it has written itself may be anything.
    pub(super) fn exited(&mut self, slot: SlotId, connections: u64, requests: u64) {
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

    /// By [`CRASHES`].
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

    /// The counts of a slot.
    pub(super) fn slot(&self, slot: SlotId) -> SlotStats {
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
        assert_eq!(stats.crashes().len(), CRASHES.len());
        assert_eq!(stats.replacements().len(), REPLACEMENTS.len());
        assert_eq!(stats.rollouts().len(), ROLLOUTS.len());
        assert_eq!(sum(&stats.crashes()) + sum(&stats.replacements()) + sum(&stats.rollouts()), 0);
    }

    #[test]
    fn every_crash_is_counted_by_its_own_word_and_only_as_ordered_is_none() {
        let exits = [None, Some(Exit::Status(0)), Some(Exit::Status(1)), Some(Exit::Signal(9))];
        let killed = |reason| Crash::new(Some(reason), Some(Exit::Signal(9)));
        let table = [
            (Crash::new(None, exits[0]), Some("exited")),
            (Crash::new(None, exits[1]), Some("exited")),
            (Crash::new(None, exits[2]), Some("exited")),
            (Crash::new(None, exits[3]), Some("signal")),
            (Some(Crash::OutOfMemory), Some("out-of-memory")),
            (Some(Crash::NotStarted), Some("not-started")),
            (killed(KillReason::NotReady), Some("not-ready")),
            (killed(KillReason::Stalled), Some("stalled")),
            (killed(KillReason::Stopped), Some("stalled")),
            (killed(KillReason::Memory), Some("memory")),
            (killed(KillReason::Violation), Some("violation")),
            (killed(KillReason::Ordered), Some("ordered")),
            (killed(KillReason::GraceOver), None),
            (killed(KillReason::Superseded), None),
            (killed(KillReason::StopNow), None),
        ];
        for (row, (crash, word)) in table.into_iter().enumerate() {
            assert_eq!(crash.map(Crash::name), word, "row {row}");
            let mut stats = Stats::default();
            let Some(crash) = crash else { continue };
            stats.crashed(SLOT, crash, "why");
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
        stats.exited(SLOT, 5, 7);
        stats.started(SLOT);
        stats.exited(SLOT, 1, u64::MAX);
        let slot = stats.slot(SLOT);
        assert_eq!((slot.started, slot.connections, slot.requests), (2, 6, u64::MAX));
        assert_eq!(stats.slot(SlotId(0)), SlotStats::default());
    }
}
