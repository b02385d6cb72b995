//! What becomes of sessions that were offered to a primary which has died before it could say.
//!
//! Pure: what workers report goes in, a verdict for each open offer comes out, when everybody has
//! reported or is gone. It moved if some other worker has taken it: that one has it, or has given it on.
//! If nobody has, it is still its sender's, who has to prove that nobody has used it: whoever took it
//! may be dead, and have used it before.
//!
//! # Pitfalls
//!
//! A session may come back to where it was, so that two workers have taken it. A worker that has heard
//! that one moved on doesn't name it any more; one that offers it and hasn't heard still does, and counts
//! for the others, not for itself. Two that both took it and both offer it can't be told apart:
//! then neither keeps it.

use std::collections::HashMap;

use crate::handover::carry;
use crate::handover::frontend::ReportsSnapshot;
use crate::link::native::Report;
use crate::link::seam::WorkerId;
use crate::protocol::ids::ConnectionId;

/// What becomes of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Another worker has it, or had.
    Moved,
    /// Nobody has taken it.
    Returned,
}

/// Who is still to report, and what the others have said.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    awaited: Vec<WorkerId>,
    told: Vec<(WorkerId, Report)>,
}

carry!(struct Reports => ReportsSnapshot { awaited, told });

impl Reports {
    /// Nothing is decided before this worker has reported, or is gone.
    pub fn await_from(&mut self, worker: WorkerId) {
        self.awaited.push(worker);
    }

    /// A worker has reported.
    pub fn heard(&mut self, worker: WorkerId, report: Report) {
        self.told.retain(|(other, _)| *other != worker);
        self.told.push((worker, report));
    }

    /// A worker has said all that it will say.
    pub fn complete(&mut self, worker: WorkerId) {
        self.awaited.retain(|other| *other != worker);
    }

    /// A worker is dead, or not heard any more: what it offered is nobody's to be told of, and what it
    /// took nobody has.
    pub fn forget(&mut self, worker: WorkerId) {
        self.complete(worker);
        self.told.retain(|(other, _)| *other != worker);
    }

    /// Who is still to report.
    #[must_use]
    pub fn awaited(&self) -> &[WorkerId] {
        &self.awaited
    }

    /// Whether somebody offers that session.
    #[must_use]
    pub fn is_offered(&self, id: ConnectionId) -> bool {
        self.told.iter().any(|(_, report)| report.offers.contains(&id))
    }

    /// A verdict for each offer; none at all as long as somebody is awaited.
    #[must_use]
    pub fn verdicts(&self) -> Vec<(WorkerId, ConnectionId, Verdict)> {
        if !self.awaited.is_empty() {
            return Vec::new();
        }
        let mut takers = HashMap::<ConnectionId, Vec<WorkerId>>::new();
        for (worker, report) in &self.told {
            report.taken.iter().for_each(|id| takers.entry(*id).or_default().push(*worker));
        }
        let offers = self
            .told
            .iter()
            .flat_map(|(worker, report)| report.offers.iter().map(move |id| (*worker, *id)));
        let judge = |(worker, id)| {
            let others = takers.get(&id).is_some_and(|it| it.iter().any(|taker| *taker != worker));
            (worker, id, if others { Verdict::Moved } else { Verdict::Returned })
        };
        offers.map(judge).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::ids::{Generation, SlotId};

    fn worker(slot: u16) -> WorkerId {
        WorkerId { slot: SlotId(slot), generation: Generation(0) }
    }

    fn report(offers: &[u64], taken: &[u64]) -> Report {
        let ids = |ids: &[u64]| ids.iter().copied().map(ConnectionId).collect();
        Report { offers: ids(offers), taken: ids(taken) }
    }

    /// What is decided when workers from 0 on have reported this.
    fn decided(all: &[(&[u64], &[u64])]) -> Vec<(u16, u64, Verdict)> {
        let mut reports = Reports::default();
        let workers = || (0..).map(worker).zip(all);
        workers().for_each(|(worker, _)| reports.await_from(worker));
        for (worker, (offers, taken)) in workers() {
            assert_eq!(reports.verdicts(), [], "{worker:?} has not reported");
            reports.heard(worker, report(offers, taken));
            reports.complete(worker);
        }
        let plain =
            |(worker, id, verdict): (WorkerId, ConnectionId, _)| (worker.slot.0, id.0, verdict);
        reports.verdicts().into_iter().map(plain).collect()
    }

    #[test]
    fn an_offer_has_moved_if_somebody_else_took_it() {
        use Verdict::{Moved, Returned};
        type Case<'a> = (&'a [(&'a [u64], &'a [u64])], &'a [(u16, u64, Verdict)]);
        let cases: [Case<'_>; 8] = [
            (&[], &[]),
            (&[(&[], &[1, 2])], &[]),
            (&[(&[1, 2], &[])], &[(0, 1, Returned), (0, 2, Returned)]),
            (&[(&[1, 2], &[]), (&[], &[2])], &[(0, 1, Returned), (0, 2, Moved)]),
            // It came here and is offered on: that it was taken here says nothing of where it is.
            (&[(&[1], &[1])], &[(0, 1, Returned)]),
            (&[(&[1], &[1]), (&[], &[1])], &[(0, 1, Moved)]),
            // Offered on by whoever took it, before the first one has heard.
            (&[(&[1], &[]), (&[1], &[1])], &[(0, 1, Moved), (1, 1, Returned)]),
            // There and back again, or the other way round.
            (&[(&[1], &[1]), (&[1], &[1])], &[(0, 1, Moved), (1, 1, Moved)]),
        ];
        for (all, expected) in cases {
            assert_eq!(decided(all), expected, "{all:?}");
        }
    }

    #[test]
    fn who_is_gone_is_not_waited_for_and_has_taken_nothing() {
        let mut reports = Reports::default();
        (0..3).map(worker).for_each(|worker| reports.await_from(worker));
        reports.heard(worker(0), report(&[1, 2], &[]));
        reports.complete(worker(0));
        reports.heard(worker(1), report(&[3], &[1]));
        reports.complete(worker(1));
        assert_eq!(reports.awaited(), [worker(2)]);
        assert!(reports.is_offered(ConnectionId(3)));
        reports.forget(worker(2));
        assert_eq!(reports.verdicts().len(), 3);
        reports.forget(worker(1));
        assert!(!reports.is_offered(ConnectionId(3)));
        let returned = |id| (worker(0), ConnectionId(id), Verdict::Returned);
        assert_eq!(reports.verdicts(), [returned(1), returned(2)]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Report(Vec<u64>, Vec<u64>),
        Forget,
    }

    fn steps() -> impl Strategy<Value = Vec<(u16, Step)>> {
        let ids =
            || prop::collection::btree_set(0..12_u64, 0..6).prop_map(|it| it.into_iter().collect());
        let step = prop_oneof![
            4 => (ids(), ids()).prop_map(|(offers, taken)| Step::Report(offers, taken)),
            1 => Just(Step::Forget),
        ];
        prop::collection::vec((0..5_u16, step), 0..20)
    }

    proptest! {
        #[test]
        fn every_open_offer_has_one_verdict_and_not_before_all_have_spoken(steps in steps()) {
            let mut reports = Reports::default();
            (0..5).map(worker).for_each(|worker| reports.await_from(worker));
            let mut silent: BTreeSet<u16> = (0..5).collect();
            let mut told = BTreeMap::new();
            for (slot, step) in steps {
                silent.remove(&slot);
                match step {
                    Step::Report(offers, taken) => {
                        reports.heard(worker(slot), report(&offers, &taken));
                        reports.complete(worker(slot));
                        told.insert(slot, (offers, taken));
                    }
                    Step::Forget => {
                        reports.forget(worker(slot));
                        told.remove(&slot);
                    }
                }
                let mut verdicts = BTreeMap::new();
                for (who, id, verdict) in reports.verdicts() {
                    prop_assert!(verdicts.insert((who.slot.0, id.0), verdict).is_none());
                }
                if !silent.is_empty() {
                    prop_assert!(verdicts.is_empty());
                    continue;
                }
                for (slot, (offers, _)) in &told {
                    for id in offers {
                        let taken = told.iter().any(|(o, (_, taken))| o != slot && taken.contains(id));
                        let expected = if taken { Verdict::Moved } else { Verdict::Returned };
                        prop_assert_eq!(verdicts.remove(&(*slot, *id)), Some(expected));
                    }
                }
                prop_assert!(verdicts.is_empty());
            }
        }
    }
}
